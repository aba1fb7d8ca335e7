"""`facebench show`: stages, parameters, recipe and STL counterparts of one definition."""

import json
from typing import Any

from typer.testing import CliRunner

from benchmark.cli.main import app
from tests.cli.conftest import flat

GATE = "mtl-vgg16-imagenet-block5-gate"


def shown(name: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["show", name, "--json"])
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)["data"]
    return content


def test_parameters_are_counted_by_stage_and_head_and_add_up() -> None:
    data = shown(GATE)
    parts = data["stages"] + data["heads"]
    # The study's own count of this row: 14,979,278, of which 7,344,014 were trained.
    assert data["parameters"] == {"total": 14_979_278, "trained": 7_344_014}
    assert sum(part["parameters"] for part in parts) == 14_979_278
    assert sum(part["parameters"] for part in parts if part["trained"]) == 7_344_014
    assert [part["part"] for part in data["stages"] if part["trained"]] == ["block5"]


def test_a_single_task_has_one_head_and_no_counterparts() -> None:
    data = shown("gender-vgg16-imagenet-full")
    assert [part["part"] for part in data["heads"]] == ["gender"]
    assert data["parameters"] == {"total": 14_780_610, "trained": 14_780_610}
    assert data["twins"] == {}


def test_stages_of_a_transformer_are_shown_shallow_to_deep() -> None:
    data = shown("mtl-vit_small_patch16_224-imagenet-blocks_11")
    names = [part["part"] for part in data["stages"]]
    assert names == ["stem", *(f"blocks_{n}" for n in range(12))]
    assert [part["part"] for part in data["stages"] if part["trained"]] == ["blocks_11"]


def test_everything_is_said_in_eighty_columns() -> None:
    wide = {"COLUMNS": "80"}
    text = CliRunner().invoke(app, ["show", GATE], env=wide).output
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    for said in (
        "block5 7,079,424 7,079,424",
        "block4 5,899,776 –",
        "head: gender_for_race 16,641 16,641",
        "total 14,979,278 7,344,014",
        "recipe.learning_rate 0.0001",
        "loss_weights.age_group 0.4",
        "early_stopping_epochs not set",
        "tasks age_group, gender, race",
        "compared with mtl-vgg16-imagenet-block5",
        "STL counterpart, race race-vgg16-imagenet-block5",
        "row 2.4: age group 90.45 %, gender 97.03 %, race 93.85 %, on a split that leaks",
    ):
        assert said in flat(text)
    alone = ["show", "mtl-squeezenet1_1-imagenet-frozen-short"]
    text = flat(CliRunner().invoke(app, alone, env=wide).output)
    assert "STL counterpart, gender not registered" in text


def test_running_statistics_are_no_parameters() -> None:
    # torch's own counts of the backbones (6,953,856 and 23,508,032) and three heads of 128 units
    for name, total in (("densenet121", 7_349_004), ("resnet50", 24_296_396)):
        assert shown(f"mtl-{name}-none-full")["parameters"]["total"] == total
