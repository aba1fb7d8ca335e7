"""`facebench list` and `show`: what is registered, what it costs, and one definition in full."""

import re

from benchmark import registry
from tests.cli.conftest import answered_json, facebench, fits, flat

GATE = "mtl-vgg16-imagenet-block5-gate"


def test_the_list_is_narrowed_and_ends_with_the_suites() -> None:
    words = facebench("list").output
    assert set(registry.experiments()) <= set(words.split())
    for suite in registry.suites().values():
        number = rf"{suite.name} {len(suite.experiments)} \S+ {re.escape(suite.asks)}"
        assert re.search(number, flat(words)), suite.name
    assert "Suite depth, 0.054 PMACs" in flat(facebench("list", "--suite", "depth").stdout)
    options = ("--architecture", "vgg16", "--weights", "vggface", "--task", "mtl")
    shown = answered_json("list", "--suite", "study", *options)["experiments"]
    names = [item.name for item in registry.experiments_of("study")]
    expected = [name for name in names if name.startswith("mtl-vgg16-vggface")]
    assert [item["name"] for item in shown] == expected != []


def test_a_row_of_the_study_shows_what_it_printed_and_that_it_leaks() -> None:
    words = facebench("list", "--suite", "study").stdout
    rows = {found[1]: found for line in words.splitlines() if len(found := line.split()) == 5}
    assert rows["mtl-vgg16-imagenet-full"][2:] == ["92.45", "98.18", "94.95"]
    name = "gender-vgg16-imagenet-full"
    assert rows[name] == ["5.1b", name, "–", "98.13", "–"]
    assert rows["mtl-cnn-none-full"][2:] == ["–", "–", "–"]
    assert "is LEAKY" in flat(words)
    content = answered_json("list", "--suite", "study")["experiments"]
    shown = {item["name"]: item for item in content}
    row = shown["mtl-vgg16-imagenet-block5"]
    assert row["study"] == {"row": "2.2", "age_group": 0.9028, "gender": 0.9758, "race": 0.9253}
    assert row["recipe"]["learning_rate"] == 1e-4
    assert (row["trainable"], row["architecture"], row["task"]) == ("block5", "vgg16", "mtl")
    assert shown["mtl-cnn-none-full"]["study"] is None


def test_parameters_are_counted_by_stage_and_head_and_add_up() -> None:
    data = answered_json("show", GATE)
    parts = data["stages"] + data["heads"]
    # The study's own count of this row: 14,979,278, of which 7,344,014 were trained.
    assert data["parameters"] == {"total": 14_979_278, "trained": 7_344_014}
    assert sum(part["parameters"] for part in parts) == 14_979_278
    assert sum(part["parameters"] for part in parts if part["trained"]) == 7_344_014
    assert [part["part"] for part in data["stages"] if part["trained"]] == ["block5"]
    data = answered_json("show", "mtl-vit_small_patch16_224-imagenet-blocks_11")
    names = [part["part"] for part in data["stages"]]
    assert names == ["stem", *(f"blocks_{n}" for n in range(12))]
    assert [part["part"] for part in data["stages"] if part["trained"]] == ["blocks_11"]


def test_a_definition_is_shown_in_eighty_columns() -> None:
    text = facebench("show", GATE).output
    assert fits(text)
    for said in (
        "block5 7,079,424 7,079,424",
        "block4 5,899,776 –",
        "head: gender_for_race 16,641 16,641",
        "recipe.learning_rate 0.0001",
        "STL counterpart, race race-vgg16-imagenet-block5",
        "row 2.4: age group 90.45 %, gender 97.03 %, race 93.85 %, on a split that leaks",
    ):
        assert said in flat(text)
