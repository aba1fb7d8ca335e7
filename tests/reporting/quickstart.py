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


def read() -> dict[str, Any]:
    """Read the notebook."""
    book: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return book


def code_cells(book: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the cells that are executed."""
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def execute(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell as a notebook does, a line of shell included; give its outputs."""
    if source.startswith("!facebench "):
        command = "from benchmark.cli.main import main; main()"
        arguments = shlex.split(source.removeprefix("!facebench ").replace("\\\n", " "))
        said = subprocess.run(
            [sys.executable, "-c", command, *arguments],
            check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ).stdout  # fmt: skip
        return _stream(said)
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    if value is None:
        return _stream(printed.getvalue())
    data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
    for kind, method in REPRESENTATIONS.items():
        if hasattr(value, method):
            shown = getattr(value, method)()
            is_binary = isinstance(shown, bytes)
            data[kind] = base64.b64encode(shown).decode() if is_binary else shown.splitlines(True)
    result = {"output_type": "execute_result", "metadata": {}, "data": data}
    return [*_stream(printed.getvalue()), result]


def _stream(text: str) -> list[dict[str, Any]]:
    lines = text.splitlines(keepends=True)
    return [{"output_type": "stream", "name": "stdout", "text": lines}] if text else []


def main() -> None:
    """Execute the notebook in a scratch folder and write its outputs into it."""
    book, names = read(), dict[str, Any]()
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
