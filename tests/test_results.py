"""The published numbers follow from the stored predictions."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import answered_json
from tests.conftest import ROOT

ROWS = {
    "logistic regression on 12 × 12 pixels": "logistic regression on 12 × 12 pixels",
    "mtl-vgg16-imagenet-frozen": "VGG16 from ImageNet, frozen (2.1)",
    "mtl-vgg16-imagenet-block5": "VGG16 from ImageNet, block 5 trained (2.2)",
    "mtl-vgg16-imagenet-block5-embedding": "the same with gender embedding (2.3)",
    "mtl-vgg16-imagenet-block5-gate": "the same with a gate (2.4)",
    "mtl-vgg16-imagenet-block5-attention": "the same with attention (2.5)",
    "mtl-vgg16-imagenet-full": "VGG16 from ImageNet, all layers trained (2.6)",
    "mtl-cnn-none-full": "small CNN from random weights",
    "mtl-cnn-none-full-embedding": "small CNN with gender embedding",
    "mtl-cnn-none-full-gate": "small CNN with a gate",
    "mtl-cnn-none-full-attention": "small CNN with attention",
    "mtl-mobilenet_v2-imagenet-full-short": "MobileNetV2, all layers",
    "mtl-mobilenet_v2-imagenet-stage5-short": "MobileNetV2, deepest stage",
    "mtl-squeezenet1_1-imagenet-full-short": "SqueezeNet 1.1, all layers",
    "mtl-squeezenet1_1-imagenet-fire6_9-short": "SqueezeNet 1.1, deepest stage",
    "mtl-mobilenet_v2-imagenet-frozen-short": "MobileNetV2, frozen",
    "mtl-squeezenet1_1-imagenet-frozen-short": "SqueezeNet 1.1, frozen",
    "TASK-vgg16-imagenet-block5": "VGG16, block 5, a network for each task",
}
ARCHIVES = sorted((ROOT / "docs" / "results").glob("*.tar.xz"))


@pytest.mark.slow
def test_readme_s_table_is_computed_from_stored_predictions_which_hold(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    unpack = ROOT / "docs" / "measurements" / "pack_results.py"
    subprocess.run([sys.executable, unpack, "--unpack", tmp_path, *ARCHIVES], check=True)
    places = ("--runs-dir", tmp_path, "--data-dir", tmp_path / "data")
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    command = ("leaderboard", "--dataset", "utkface-100", "--from-predictions", *places)
    (board,) = answered_json(*command)["leaderboards"]
    # A reference row is in every table; the first one is of three tasks.
    found = {row["experiment"]: row for row in reversed(board["rows"])}
    for experiment, title in ROWS.items():
        (line,) = (line for line in lines if line.startswith(f"| {title}"))
        for task in ("age_group", "gender", "race"):
            row = found[experiment.replace("TASK", task)]
            ends = ("", "_low", "_high")
            mean, low, high = (100 * row[f"{task}_accuracy{end}"] for end in ends)
            sd = row[f"{task}_accuracy_sd"]
            spread = "" if sd is None else f" ± {100 * sd:.1f}"
            assert f"{mean:.1f}{spread} ({low:.1f}–{high:.1f})" in line, experiment
    # As far as they can be checked without weights.
    runs = answered_json("verify", "mtl-vgg16-imagenet-block5", *places)["runs"]
    assert [run["holds"] for run in runs] == [True, True, True]


def test_the_archives_are_small() -> None:
    assert sum(path.stat().st_size for path in ARCHIVES) <= 10_000_000
