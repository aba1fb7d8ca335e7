"""What a person types after --set, --sweep and --seeds."""

import pytest

from benchmark.errors import ExperimentError
from benchmark.experiment.settings import parse_folds, parse_seeds, parse_settings, parse_sweeps


def test_values_are_json_where_they_can_be() -> None:
    texts = ["recipe.max_epochs=3", "recipe.learning_rate=1e-4", "backbone.trainable_stages=all"]
    assert list(parse_settings(texts).values()) == [3, 1e-4, "all"]


@pytest.mark.parametrize("text", ["recipe.max_epochs", "=3", "recipe.max_epochs="])
def test_a_setting_without_a_value_is_refused(text: str) -> None:
    with pytest.raises(ExperimentError, match="FIELD=VALUE"):
        parse_settings([text])


def test_a_field_set_twice_is_refused() -> None:
    with pytest.raises(ExperimentError, match="twice"):
        parse_settings(["a.b=1", "a.b=2"])


def test_a_sweep_is_every_combination_of_its_values_read_as_set_reads_them() -> None:
    texts = ["recipe.learning_rate=1e-4,1e-3", "head.conditioning=none,gate"]
    assert parse_sweeps(texts, {"recipe.max_epochs": 3}) == [
        {"recipe.max_epochs": 3, "recipe.learning_rate": rate, "head.conditioning": kind}
        for rate in (1e-4, 1e-3)
        for kind in ("none", "gate")
    ]
    assert parse_sweeps([], {"a.b": 1}) == [{"a.b": 1}]
    lists = parse_sweeps(['head.tasks=["race"],["race","gender"]'], {})
    assert [combination["head.tasks"] for combination in lists] == [["race"], ["race", "gender"]]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["recipe.learning_rate"], "--sweep 'recipe.learning_rate' has no value"),
        (["a.b=1,2", "a.b=3"], "--sweep gives 'a.b' twice"),
        (["a.b=1,2,1"], "--sweep 'a.b' is '1,2,1' .allowed: different values"),
        (["a.b=none,,gate"], "--sweep 'a.b' is 'none,,gate'"),
        (["c.d=1,2"], "--sweep and --set both give 'c.d'"),
    ],
)
def test_a_sweep_that_is_none_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        parse_sweeps(texts, {"c.d": 1})


def test_seeds_are_read_in_order() -> None:
    assert parse_seeds("2,0,1") == (2, 0, 1)


@pytest.mark.parametrize("text", ["", "a", "1,1", "-1", "1.5", "0;1"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ExperimentError, match="different whole numbers"):
        parse_seeds(text)


def test_folds_are_read_one_by_one_or_as_a_span() -> None:
    assert parse_folds("0-4") == (0, 1, 2, 3, 4)
    assert parse_folds("3,0-1") == (3, 0, 1)


@pytest.mark.parametrize("text", ["", "5", "0-5", "4-3", "1,1", "0-2,1", "a", "-1"])
def test_folds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ExperimentError, match="--folds is"):
        parse_folds(text)
