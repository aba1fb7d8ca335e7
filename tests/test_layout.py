"""The rooms' rules: imports point down only, heavy packages stay where they are used."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS: tuple[tuple[str, ...], ...] = (
    ("benchmark.errors",),
    ("benchmark.tasks", "benchmark.files", "benchmark.dotted", "benchmark.claims"),
    ("benchmark.architectures", "benchmark.timm_models"),
    ("benchmark.experiment",),
    ("experiments",),
    ("benchmark.registry", "benchmark.identity", "benchmark.provenance", "benchmark.settings"),
    ("benchmark.faces", "benchmark.models", "benchmark.results.record"),
    ("benchmark.results",),
    ("benchmark.training",),
    ("benchmark.checkpoints", "benchmark.run_notes", "benchmark.trained"),
    ("benchmark.tracking", "benchmark.plans"),
    ("benchmark.run_folders", "benchmark.run_ways"),
    ("benchmark.trained_runs",),
    ("benchmark.runs", "benchmark.farms", "benchmark.inference", "benchmark.exporting"),
    ("benchmark.report",),
    ("benchmark.cli",),
)
"""From the ground up; a module may import its own layer's package and every layer below."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted([*ROOT.glob("benchmark/**/*.py"), *ROOT.glob("experiments/*.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> int | None:
    found = [
        (len(prefix), height)
        for height, layer in enumerate(LAYERS)
        for prefix in layer
        if module == prefix or module.startswith(prefix + ".")
    ]
    return max(found)[1] if found else None


@pytest.mark.parametrize(
    ("name", "path"), list(modules()), ids=lambda value: str(value).split("/")[-1]
)
def test_imports_point_down(name: str, path: Path) -> None:
    height = layer_of(name)
    if name == "benchmark":
        return
    assert height is not None, f"{name} belongs to no layer: add it to LAYERS"
    for imported in imports(path):
        other = layer_of(imported)
        if other is not None:
            assert other <= height, f"{name} imports {imported} from above"


ONLY_IN = {
    "mlflow": {"benchmark.tracking"},
    "optuna": {"benchmark.tuning"},
    "rich": {"benchmark.cli"},
    "typer": {"benchmark.cli"},
    "timm": {"benchmark.timm_models"},
    "matplotlib": {
        f"benchmark.results.{prefix}figures"
        for prefix in ("", "calibration_", "leak_", "subgroup_", "subset_", "suspect_")
    },
}


@pytest.mark.parametrize(("package", "places"), list(ONLY_IN.items()))
def test_packages_stay_where_they_are_used(package: str, places: set[str]) -> None:
    for name, path in modules():
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


def test_no_picture_or_model_lies_in_the_tree() -> None:
    import subprocess

    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    forbidden = {".jpg", ".jpeg", ".npy", ".h5", ".pth", ".pt", ".onnx", ".safetensors", ".db"}
    assert not [name for name in listed if Path(name).suffix.lower() in forbidden]
