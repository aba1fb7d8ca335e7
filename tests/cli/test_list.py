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


def test_a_suites_cost_is_that_of_its_operations() -> None:
    assert "Suite depth, 0.054 PMACs" in flat(call("--suite", "depth").stdout)


def test_the_whole_list_ends_with_the_suites() -> None:
    output = call().output
    assert set(registry.experiments()) <= set(output.split())
    for suite in registry.suites().values():
        number = rf"{suite.name} {len(suite.experiments)} \S+ {re.escape(suite.asks)}"
        assert re.search(number, flat(output)), suite.name


def test_filters_narrow_a_list_and_wrong_ones_are_answered() -> None:
    options = ("--architecture", "vgg16", "--weights", "vggface", "--task", "mtl")
    shown = json.loads(call("--suite", "study", *options, "--json").stdout)["data"]["experiments"]
    names = [item.name for item in registry.experiments_of("study")]
    expected = [name for name in names if name.startswith("mtl-vgg16-vggface")]
    assert [item["name"] for item in shown] == expected != []
    result = call("--weights", "vgface")
    assert result.exit_code == 2
    assert "--weights is 'vgface' (allowed: imagenet, none, vggface)" in flat(result.stderr)


def test_a_row_of_the_study_shows_what_it_printed_and_that_it_leaks() -> None:
    output = call("--suite", "study").stdout
    rows = {words[1]: words for line in output.splitlines() if len(words := line.split()) == 5}
    assert rows["mtl-vgg16-imagenet-full"][2:] == ["92.45", "98.18", "94.95"]
    name = "gender-vgg16-imagenet-full"
    assert rows[name] == ["5.1b", name, "–", "98.13", "–"]
    assert rows["mtl-cnn-none-full"][2:] == ["–", "–", "–"]
    assert "is LEAKY" in flat(output)
