"""The published numbers follow from the stored predictions."""

import json
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.cli.main import app

ROOT = Path(__file__).parent.parent
ROWS = {
    "mtl-vgg16-imagenet-frozen": "VGG16 from ImageNet, frozen (2.1)",
    "mtl-vgg16-imagenet-block5": "VGG16 from ImageNet, block 5 trained (2.2)",
    "mtl-vgg16-imagenet-block5-embedding": "the same with gender embedding (2.3)",
    "mtl-vgg16-imagenet-block5-gate": "the same with a gate (2.4)",
    "mtl-vgg16-imagenet-block5-attention": "the same with attention (2.5)",
    "mtl-cnn-none-full": "small CNN from random weights",
    "mtl-cnn-none-full-embedding": "small CNN with gender embedding",
    "mtl-cnn-none-full-gate": "small CNN with a gate",
    "mtl-cnn-none-full-attention": "small CNN with attention",
    "mtl-squeezenet1_1-imagenet-fire6_9-short": "SqueezeNet 1.1 from ImageNet, deepest stage",
    "mtl-mobilenet_v2-imagenet-frozen-short": "MobileNetV2 from ImageNet, frozen",
    "mtl-squeezenet1_1-imagenet-frozen-short": "SqueezeNet 1.1 from ImageNet, frozen",
}

BY_TASK = {
    "age_group": "age_group-vgg16-imagenet-block5",
    "gender": "gender-vgg16-imagenet-block5",
    "race": "race-vgg16-imagenet-block5",
}
TITLE_BY_TASK = "VGG16 from ImageNet, block 5, a network for each task"


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the stored runs."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "data").mkdir()
    for archive in sorted((ROOT / "docs" / "results").glob("*.tar.xz")):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return folder


def call(runs_dir: Path, *words: str) -> dict[str, object]:
    """Run a command with --json on the stored runs; give its data."""
    options = ["--runs-dir", str(runs_dir), "--data-dir", str(runs_dir / "data"), "--json"]
    result = CliRunner().invoke(app, [*words, *options])
    assert result.exit_code == 0, result.output
    data: dict[str, object] = json.loads(result.stdout)["data"]
    return data


@pytest.mark.slow
def test_readme_s_table_is_computed_from_the_stored_predictions(runs_dir: Path) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    data = call(runs_dir, "leaderboard", "--dataset", "utkface-100", "--from-predictions")
    (board,) = data["leaderboards"]  # type: ignore[misc]
    found = {row["experiment"]: row for row in board["rows"]}
    shown = [(title, dict.fromkeys(BY_TASK, name)) for name, title in ROWS.items()]
    for title, names in [*shown, (TITLE_BY_TASK, BY_TASK)]:
        (line,) = (line for line in lines if line.startswith(f"| {title}"))
        for task, name in names.items():
            ends = ("", "_low", "_high")
            mean, low, high = (100 * found[name][f"{task}_accuracy{end}"] for end in ends)
            sd = found[name][f"{task}_accuracy_sd"]
            spread = "" if sd is None else f" ± {100 * sd:.1f}"
            assert f"{mean:.1f}{spread} ({low:.1f}–{high:.1f})" in line, name


@pytest.mark.slow
def test_the_stored_runs_hold_as_far_as_they_can_be_checked_without_weights(
    runs_dir: Path,
) -> None:
    data = call(runs_dir, "verify", "mtl-vgg16-imagenet-block5")
    runs = data["runs"]
    assert [run["holds"] for run in runs] == [True, True]  # type: ignore[attr-defined]


def test_the_archives_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "docs" / "results").iterdir()]
    assert sum(sizes) <= 10_000_000
