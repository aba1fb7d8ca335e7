"""The rooms' rules: imports point down only, heavy packages stay where they are used."""

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LAYERS: tuple[tuple[str, ...], ...] = (
    ("benchmark.errors",),
    ("benchmark.tasks", "benchmark.files", "benchmark.dotted", "benchmark.claims"),
    (
        "benchmark.architectures",
        "benchmark.timm_models",
        "benchmark.experiment_protocol",
        "benchmark.experiment_ranges",
        "benchmark.experiment_subset",
        "benchmark.study_row",
    ),
    ("benchmark.experiment", "benchmark.experiment_search", "benchmark.experiment_grids"),
    ("experiments",),
    (
        "benchmark.registry",
        "benchmark.tuned",
        "benchmark.identity",
        "benchmark.provenance",
        "benchmark.settings",
    ),
    ("benchmark.faces", "benchmark.models", "benchmark.results.record"),
    ("benchmark.results",),
    ("benchmark.training",),
    ("benchmark.checkpoints", "benchmark.run_notes", "benchmark.trained", "benchmark.evaluation"),
    ("benchmark.tracking", "benchmark.plans"),
    (
        "benchmark.keeper",
        "benchmark.programs",
        "benchmark.run_folders",
        "benchmark.run_ways",
        "benchmark.verification",
        "benchmark.leftovers",
    ),
    ("benchmark.trained_runs",),
    ("benchmark.runs", "benchmark.inference", "benchmark.exporting"),
    ("benchmark.references", "benchmark.leaderboards", "benchmark.notebook"),
    ("benchmark.tuning", "benchmark.speed", "benchmark.explore", "benchmark.report"),
    ("benchmark.cli",),
)
"""From the ground up; a module may import its own layer's package and every layer below."""


def test_a_module_has_one_layer() -> None:
    """Else a merge that names one twice would move it without a word."""
    named = Counter(prefix for layer in LAYERS for prefix in layer)
    assert [prefix for prefix, times in named.items() if times > 1] == []


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


def layer_of(module: str) -> int | None:
    found = [
        (len(prefix), height)
        for height, layer in enumerate(LAYERS)
        for prefix in layer
        if module == prefix or module.startswith(prefix + ".")
    ]
    return max(found)[1] if found else None


def test_imports_point_down() -> None:
    for name, path in modules():
        if name == "benchmark":
            continue
        height = layer_of(name)
        assert height is not None, f"{name} belongs to no layer: add it to LAYERS"
        for imported in imports(path):
            other = layer_of(imported)
            assert other is None or other <= height, f"{name} imports {imported} from above"


ONLY_IN = {
    "mlflow": {"benchmark.tracking"},
    "optuna": {"benchmark.tuning"},
    "rich": {"benchmark.cli"},
    "typer": {"benchmark.cli"},
    "plotly": {"benchmark.tuning"},
    "timm": {"benchmark.timm_models", "benchmark.speed.loops"},
    "matplotlib": {
        f"benchmark.results.{prefix}figures"
        for prefix in ("", "calibration_", "study_", "subgroup_", "suspect_")
    }
    | {"benchmark.explore", "benchmark.speed.report"},
    "pytorch_lightning": {"benchmark.speed.loops"},
}


def test_packages_stay_where_they_are_used() -> None:
    for name, path in modules():
        for package, places in ONLY_IN.items():
            used = any(item == package or item.startswith(package + ".") for item in imports(path))
            at_home = any(name == place or name.startswith(place + ".") for place in places)
            assert at_home or not used, f"{name} imports {package}, which belongs to {places}"


def test_definitions_import_nothing_but_the_experiment_module() -> None:
    for path in sorted(ROOT.glob("experiments/*.py")):
        ours = {item for item in imports(path) if item.startswith("benchmark")}
        assert all(item.startswith("benchmark.experiment") for item in ours), path.name


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
    inside = [
        path for path in pages if re.search(rb";base64,[A-Za-z0-9+/]{200}", path.read_bytes())
    ]
    assert not inside
