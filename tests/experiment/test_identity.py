"""Identity is content: what trains otherwise is another run, what merely reads otherwise is not."""

import dataclasses
from typing import Any

import pytest

from benchmark import registry
from benchmark.experiment.definition import Protocol, Subset
from benchmark.identity import Ingredients, family_of, identity_of, steering_content

CNN = registry.experiment("mtl-cnn-none-full-short")
DEPTH = registry.experiment("mtl-squeezenet1_1-imagenet-fire6_9-short")
WITHOUT_WEIGHTS = Ingredients(None, "ab" * 32, "cd" * 32, 1)
WITH_WEIGHTS = Ingredients("ef" * 32, "ab" * 32, "cd" * 32, 1)


def test_runs_of_the_first_version_keep_their_identity() -> None:
    """Printed by the version that made the first published runs; new fields must not move it."""
    cnn, depth = (
        dataclasses.replace(item, protocol=Protocol(split="leak-free-1")) for item in (CNN, DEPTH)
    )
    assert [identity_of(cnn, WITHOUT_WEIGHTS, 0), identity_of(depth, WITH_WEIGHTS, 2)] == [
        "440c3ac6474acb20e791ebff54f785fc16ec5f4880c7e00289377f90e72e0008",
        "7b84bd077eb810a9d2c0994ece6296148471a41142939bc8557cb19bde0c8ede",
    ]


def test_a_definition_kept_before_a_field_existed_is_the_same_definition() -> None:
    kept: dict[str, Any] = CNN.as_dict()
    del kept["subset"]
    for name in (
        "steps_per_epoch", "until_train_accuracy", "trunk_rate_ratio", "stage_rate_decay",
        "standardise_features",
    ):  # fmt: skip
        del kept["recipe"][name]
    assert steering_content(kept) == steering_content(CNN.as_dict())


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe.steps_per_epoch": 100}, {"recipe.until_train_accuracy": 0.99},
        {"recipe.trunk_rate_ratio": 0.1}, {"recipe.stage_rate_decay": 0.5},
        {"recipe.learning_rate": 2e-3}, {"subset": Subset(gender="female")},
        {"subset": Subset(gender="female", training="everyone")}, {"protocol.split": "published-1"},
    ],
)  # fmt: skip
def test_what_steers_a_training_changes_its_identity(changes: dict[str, Any]) -> None:
    ending = f"-{changes['subset'].ending}" if "subset" in changes else ""
    changed = CNN.varied(name=CNN.name + ending, **changes)
    assert family_of(changed, WITHOUT_WEIGHTS) != family_of(CNN, WITHOUT_WEIGHTS)


def test_words_change_nothing() -> None:
    reworded = dataclasses.replace(CNN, asks="Really?", compare_with=DEPTH.name)
    assert identity_of(reworded, WITHOUT_WEIGHTS, 0) == identity_of(CNN, WITHOUT_WEIGHTS, 0)
