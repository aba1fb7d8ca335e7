"""docs/quickstart.ipynb without Jupyter: its cells, executed, and what they show.

python -m tests.reporting.quickstart     # executes it in a scratch folder, keeps the outputs
"""

import ast
import base64
import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "docs/quickstart.ipynb"
REPRESENTATIONS = {
    "text/html": "_repr_html_", "text/markdown": "_repr_markdown_", "image/png": "_repr_png_",
}  # fmt: skip


def code_cells(book: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the cells that are executed."""
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def execute(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell as a notebook does, a line of shell included; give its outputs."""
    printed, value = io.StringIO(), None
    if source.startswith("!facebench "):
        arguments = shlex.split(source.removeprefix("!facebench ").replace("\\\n", " "))
        command = [sys.executable, "-c", "from benchmark.cli.main import main; main()", *arguments]
        out, err = subprocess.PIPE, subprocess.STDOUT
        printed.write(subprocess.run(command, check=True, text=True, stdout=out, stderr=err).stdout)
    else:
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, "cell", "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    lines = printed.getvalue().splitlines(keepends=True)
    outputs: list[dict[str, Any]] = []
    if lines:
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines})
    if value is not None:
        data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
        for kind in (it for it, method in REPRESENTATIONS.items() if hasattr(value, method)):
            shown = getattr(value, REPRESENTATIONS[kind])()
            is_binary = isinstance(shown, bytes)
            data[kind] = base64.b64encode(shown).decode() if is_binary else shown.splitlines(True)
        outputs.append({"output_type": "execute_result", "metadata": {}, "data": data})
    return outputs


def main() -> None:
    """Execute the notebook in a scratch folder and write its outputs into it."""
    book, names = json.loads(NOTEBOOK.read_text(encoding="utf-8")), dict[str, Any]()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        for number, cell in enumerate(code_cells(book), start=1):
            outputs = execute("".join(cell["source"]), names)
            for output in outputs:
                if output["output_type"] == "execute_result":
                    output["execution_count"] = number
            cell |= {"execution_count": number, "outputs": outputs}
    NOTEBOOK.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
