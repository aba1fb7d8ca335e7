"""Beyond the layers of pyproject.toml: where packages are used, who prints, and no pictures."""

import ast
import re
import subprocess

from tests.conftest import ROOT

ONLY_IN = {
    "rich": {"benchmark.cli", "benchmark.reporting.tables"},
    "typer": {"benchmark.cli"},
    "plotly": {"benchmark.tuning"},
    "timm": {"benchmark.experiment.timm_models", "benchmark.speed.loops"},
    "matplotlib": {"benchmark.evaluation.figures", "benchmark.reporting"},
    "pytorch_lightning": {"benchmark.speed.loops"},
}


def test_packages_stay_where_they_are_used_and_only_the_command_line_prints() -> None:
    for path in [*ROOT.glob("benchmark/**/*.py"), *ROOT.glob("experiments/*.py")]:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        for package in re.findall(r"^ *(?:import|from) (\w+)", text, re.MULTILINE):
            places = ONLY_IN.get(package, {name})
            assert any(f"{name}.".startswith(f"{place}.") for place in places), (name, package)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                prints = node.func.id in ("print", "exit")
                assert name.startswith("benchmark.cli") or not prints, f"{name}:{node.lineno}"


PICTURES = ROOT / "docs" / "pictures"
CHARTS = PICTURES / "explore"
"""Of counts and ages: `facebench data explore` draws no face."""
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"\x93NUMPY")
CONTAINERS = (b"PK\x03\x04", b"\x1f\x8b", b"ustar", b"\x89HDF", b"SQLite")
MODELS = {".jpg", ".jpeg", ".npy", ".h5", ".pth", ".pt", ".onnx", ".safetensors", ".db"}


def test_pictures_lie_among_drawn_faces_and_charts_and_no_model_anywhere() -> None:
    """By their first bytes, and as text in a page: a photograph in another form is found too."""
    inside = re.compile(rb";base64,[A-Za-z0-9+/]{200}")
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for path in (ROOT / name for name in listed if (ROOT / name).is_file()):
        assert path.suffix.lower() not in MODELS, path
        content = path.read_bytes()
        if path.parent not in (PICTURES, CHARTS):
            assert not content.startswith(MAGIC + CONTAINERS), f"{path} is or may hold a picture"
        if path.suffix in (".html", ".md", ".ipynb", ".css"):
            assert not inside.search(content), path
