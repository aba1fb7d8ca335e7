"""What a person types after --set, --sweep, --seeds and --folds."""

import pytest

from benchmark.cli.options import parse_folds, parse_seeds, parse_settings, parse_sweeps
from benchmark.errors import ExperimentError


def test_values_are_json_where_they_can_be() -> None:
    texts = ["recipe.max_epochs=3", "recipe.learning_rate=1e-4", "backbone.trainable_stages=all"]
    assert list(parse_settings(texts).values()) == [3, 1e-4, "all"]
    for wrong in (["recipe.max_epochs"], ["=3"], ["recipe.max_epochs="]):
        with pytest.raises(ExperimentError, match="FIELD=VALUE"):
            parse_settings(wrong)
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
    for wrong, said in (
        (["recipe.learning_rate"], "--sweep 'recipe.learning_rate' has no value"),
        (["a.b=1,2", "a.b=3"], "--sweep gives 'a.b' twice"),
        (["a.b=1,2,1"], "--sweep 'a.b' is '1,2,1' .allowed: different values"),
        (["a.b=none,,gate"], "--sweep 'a.b' is 'none,,gate'"),
        (["c.d=1,2"], "--sweep and --set both give 'c.d'"),
    ):
        with pytest.raises(ExperimentError, match=said):
            parse_sweeps(wrong, {"c.d": 1})


def test_seeds_and_folds_are_read_in_order() -> None:
    assert parse_seeds("2,0,1") == (2, 0, 1)
    assert parse_folds("0-4") == (0, 1, 2, 3, 4)
    assert parse_folds("3,0-1") == (3, 0, 1)
    for text in ("", "a", "1,1", "-1", "1.5", "0;1"):
        with pytest.raises(ExperimentError, match="different whole numbers"):
            parse_seeds(text)
    for text in ("", "5", "0-5", "4-3", "1,1", "0-2,1", "a", "-1"):
        with pytest.raises(ExperimentError, match="--folds is"):
            parse_folds(text)
