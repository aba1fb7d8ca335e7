"""Beyond the layers of pyproject.toml: where packages are used, who prints, and no pictures."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted([*ROOT.glob("benchmark/**/*.py"), *ROOT.glob("experiments/*.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)


ONLY_IN = {
    "rich": {"benchmark.cli", "benchmark.reporting.tables"},
    "typer": {"benchmark.cli"},
    "plotly": {"benchmark.tuning"},
    "timm": {"benchmark.experiment.timm_models", "benchmark.speed.loops"},
    "matplotlib": {"benchmark.evaluation.figures", "benchmark.reporting"},
    "pytorch_lightning": {"benchmark.speed.loops"},
}


def test_packages_stay_where_they_are_used() -> None:
    for name, path in modules():
        for package, places in ONLY_IN.items():
            used = any(f"{item}.".startswith(f"{package}.") for item in imports(path))
            at_home = any(f"{name}.".startswith(f"{place}.") for place in places)
            assert at_home or not used, f"{name} imports {package}, which belongs to {places}"


def test_only_the_command_line_prints_or_exits() -> None:
    for name, path in modules():
        if name.startswith("benchmark.cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "exit"), f"{name}:{node.lineno}"


def tracked() -> list[Path]:
    import subprocess

    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_no_picture_or_model_lies_in_the_tree() -> None:
    forbidden = {".jpg", ".jpeg", ".npy", ".h5", ".pth", ".pt", ".onnx", ".safetensors", ".db"}
    assert not [path for path in tracked() if path.suffix.lower() in forbidden]


PICTURES = ROOT / "docs" / "pictures"
CHARTS = PICTURES / "explore"
"""Of counts and ages: `facebench data explore` draws no face."""
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"\x93NUMPY")
CONTAINERS = (b"PK\x03\x04", b"\x1f\x8b", b"ustar", b"\x89HDF", b"SQLite")


def test_pictures_lie_among_drawn_faces_and_charts_and_nowhere_else() -> None:
    """By their first bytes: a photograph under another name is found too."""
    odd = [
        path
        for path in tracked()
        if PICTURES not in path.parents and path.read_bytes()[:16].startswith(MAGIC + CONTAINERS)
        if path.parent not in (PICTURES, CHARTS)
        and path.read_bytes()[:16].startswith(MAGIC + CONTAINERS)
    ]
    assert not odd, f"files that are or may hold pictures: {odd}"


def test_no_page_carries_a_picture_inside() -> None:
    """A photograph could stand in a page or a notebook as text."""
    pages = [path for path in tracked() if path.suffix in (".html", ".md", ".ipynb", ".css")]
    picture = re.compile(rb";base64,[A-Za-z0-9+/]{200}")
    assert not [path for path in pages if picture.search(path.read_bytes())]
