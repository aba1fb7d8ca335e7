"""What a person types after --set and --seeds."""

import pytest

from benchmark.errors import ExperimentError
from benchmark.settings import parse_seeds, parse_settings


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


def test_seeds_are_read_in_order() -> None:
    assert parse_seeds("2,0,1") == (2, 0, 1)


@pytest.mark.parametrize("text", ["", "a", "1,1", "-1", "1.5", "0;1"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ExperimentError, match="different whole numbers"):
        parse_seeds(text)
