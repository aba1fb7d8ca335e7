"""Beyond the layers of pyproject.toml: where packages are used, who prints, and no pictures."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

ONLY_IN = {
    "rich": {"benchmark.cli", "benchmark.reporting.tables"},
    "typer": {"benchmark.cli"},
    "plotly": {"benchmark.tuning"},
    "timm": {"benchmark.experiment.timm_models", "benchmark.speed.loops"},
    "matplotlib": {"benchmark.evaluation.figures", "benchmark.reporting"},
    "pytorch_lightning": {"benchmark.speed.loops"},
}


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Give every part of every module's code, with the module's name."""
    for path in sorted([*ROOT.glob("benchmark/**/*.py"), *ROOT.glob("experiments/*.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield name.removesuffix(".__init__"), node


def test_packages_stay_where_they_are_used_and_only_the_command_line_prints() -> None:
    for name, node in nodes():
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for package in {item.partition(".")[0] for item in imported} & ONLY_IN.keys():
            at_home = any(f"{name}.".startswith(f"{place}.") for place in ONLY_IN[package])
            assert at_home, f"{name} imports {package}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            prints = node.func.id in ("print", "exit")
            assert name.startswith("benchmark.cli") or not prints, f"{name}:{node.lineno}"


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


PICTURES = ROOT / "docs" / "pictures"
CHARTS = PICTURES / "explore"
"""Of counts and ages: `facebench data explore` draws no face."""
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"\x93NUMPY")
CONTAINERS = (b"PK\x03\x04", b"\x1f\x8b", b"ustar", b"\x89HDF", b"SQLite")
MODELS = {".jpg", ".jpeg", ".npy", ".h5", ".pth", ".pt", ".onnx", ".safetensors", ".db"}


def test_pictures_lie_among_drawn_faces_and_charts_and_no_model_anywhere() -> None:
    """By their first bytes, and as text in a page: a photograph in another form is found too."""
    inside = re.compile(rb";base64,[A-Za-z0-9+/]{200}")
    for path in tracked():
        assert path.suffix.lower() not in MODELS, path
        content = path.read_bytes()
        if path.parent not in (PICTURES, CHARTS):
            assert not content.startswith(MAGIC + CONTAINERS), f"{path} is or may hold a picture"
        if path.suffix in (".html", ".md", ".ipynb", ".css"):
            assert not inside.search(content), path
