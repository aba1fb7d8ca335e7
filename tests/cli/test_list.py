"""`facebench list`: filters, what suites cost, and every definition as JSON."""

import json
import re

from typer.testing import CliRunner, Result

from benchmark import registry
from benchmark.cli.main import app
from tests.cli.conftest import flat


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["list", *arguments])


def test_json_holds_every_field_of_a_definition() -> None:
    content = json.loads(call("--suite", "study", "--json").stdout)["data"]["experiments"]
    shown = {item["name"]: item for item in content}
    row = shown["mtl-vgg16-imagenet-block5"]
    study = {"row": "2.2", "age_group": 0.9028, "gender": 0.9758, "race": 0.9253}
    assert row["study"] == study
    assert row["recipe"]["learning_rate"] == 1e-4
    assert (row["trainable"], row["architecture"], row["task"]) == ("block5", "vgg16", "mtl")
    assert len(shown) == 36
    # What does not exist is null.
    assert shown["mtl-cnn-none-full"]["study"] is None
    study = {"row": "5.1b", "age_group": None, "gender": 0.9813, "race": None}
    assert shown["gender-vgg16-imagenet-full"]["study"] == study


def test_an_unknown_suite_is_answered_with_the_nearest() -> None:
    result = call("--suite", "studdy")
    assert result.exit_code == 2
    assert "Did you mean study?" in flat(result.stderr)


def test_a_suites_cost_is_that_of_its_operations() -> None:
    assert "Suite depth, 0.054 PMACs" in flat(call("--suite", "depth").stdout)


def test_the_whole_list_ends_with_the_suites() -> None:
    output = call().output
    assert set(registry.experiments()) <= set(output.split())
    asks = flat(output)
    for suite in registry.suites().values():
        number = rf"{suite.name} {len(suite.experiments)} \S+ {re.escape(suite.asks)}"
        assert re.search(number, asks), suite.name
