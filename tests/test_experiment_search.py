"""What may be searched about an experiment is checked when it is defined, and means one thing."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from benchmark import registry
from benchmark.errors import ExperimentError
from benchmark.experiment.definition import Experiment
from benchmark.experiment.search_points import (
    check_space,
    experiment_at,
    point_of,
    settings_at,
    space_of,
)
from benchmark.experiment.space import (
    AUGMENTATION,
    DECAY,
    DEPTH,
    RATE,
    RATIO,
    Choices,
    Floats,
    Integers,
    Range,
    SearchSpace,
)

FULL = registry.experiment("mtl-squeezenet1_1-imagenet-full")
FROZEN = registry.experiment("mtl-squeezenet1_1-imagenet-frozen-short")
ALONE = registry.experiment("gender-cnn-none-full-short")


def kinds() -> list[Experiment]:
    """One experiment of each architecture, kind of weights and number of tasks."""
    found = {
        (item.backbone.architecture, item.backbone.weights == "none", len(item.head.tasks)): item
        for item in registry.experiments().values()
    }
    return list(found.values())


def test_every_architecture_has_a_space_that_fits_and_holds_its_definition() -> None:
    for experiment in kinds():
        space = space_of(experiment)
        check_space(space, experiment)
        at_home = experiment_at(experiment, point_of(experiment, space))
        found = dataclasses.replace(at_home, ad_hoc=False, search=experiment.search)
        assert found == experiment, experiment.name


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Floats(RATE, 1e-2, 1e-4), "is 0.01 to 0.0001"),
        (lambda: Floats(RATE, 0.0, 1e-2), "by factors and begins at 0.0"),
        (lambda: Floats(RATE, float("nan"), 1e-2), "is nan to 0.01"),
        (lambda: Integers(DEPTH, 3, 3), "is 3 to 3"),
        (lambda: Integers(DEPTH, 0, True), "is 0 to True"),
        (lambda: Choices("recipe.batch_size", ()), "are []"),
        (lambda: Choices("recipe.batch_size", (16, 16)), "are [16, 16]"),
        (lambda: SearchSpace(()), "a search space of []"),
        (lambda: SearchSpace((Integers(DEPTH, 0, 2), Integers(DEPTH, 1, 3))), "two ranges for"),
    ],
)
def test_an_empty_or_contradictory_range_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ExperimentError) as raised:
        make()
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("experiment", "item", "said"),
    [
        (FULL, Integers(DEPTH, 0, 5), "allowed: 0 to 4: squeezenet1_1 has so many"),
        (FULL, Integers(AUGMENTATION, 0, 9), "whole strengths from 0 to 3"),
        (FULL, Floats("recipe.rate", 1e-4, 1e-2), "unknown setting 'recipe.rate'"),
        (FULL, Choices("recipe.batch_size", (0, 32)), "recipe.batch_size is 0"),
        (FULL, Choices("recipe.batch_size", ("many",)), "is 'many'"),
        (FROZEN, Floats(RATIO, 1e-2, 1.0), "varies recipe.trunk_rate_ratio and trains 0 stages"),
        (ALONE, Floats("recipe.loss_weights.race", 0.1, 1.0), "of a single task"),
    ],
)
def test_a_range_that_does_not_fit_its_experiment_is_refused(
    experiment: Experiment, item: Range, said: str
) -> None:
    with pytest.raises(ExperimentError) as raised:
        dataclasses.replace(experiment, search=SearchSpace((item,)))
    assert said in str(raised.value)


def test_a_point_is_written_as_a_definition_would_be() -> None:
    point = {DEPTH: 4, RATIO: 1.0, DECAY: 0.5, RATE: 1e-3}
    assert settings_at(FULL, point) == {DEPTH: "all", RATIO: None, DECAY: 0.5, RATE: 1e-3}
    frozen = settings_at(FULL, {DEPTH: 0, RATIO: 0.1, DECAY: 0.5})
    assert frozen == {DEPTH: 0, RATIO: None, DECAY: None}
    assert settings_at(FULL, {DEPTH: 1, RATIO: 0.1, DECAY: 0.5})[DECAY] is None
    assert settings_at(FULL, {AUGMENTATION: 1})[AUGMENTATION].flip


def test_a_trial_that_changes_nothing_is_still_ad_hoc_and_so_reads_no_test_face() -> None:
    assert experiment_at(FULL, point_of(FULL, space_of(FULL))).ad_hoc


def test_a_definition_outside_of_its_space_says_where() -> None:
    space = SearchSpace((Choices("recipe.batch_size", (64, 128)),))
    with pytest.raises(ExperimentError, match="recipe.batch_size is 32"):
        point_of(FULL, space)


def test_how_it_is_searched_is_no_part_of_what_a_run_keeps() -> None:
    assert "search" not in FULL.as_dict()


def test_only_some_ranges_can_be_kept() -> None:
    space = space_of(FULL)
    assert space.only((DEPTH,)).paths == (DEPTH,)
    with pytest.raises(ExperimentError, match="recipe.batch_size is not searched here"):
        space.only(("recipe.batch_size",))


def test_the_studys_grids_are_whole() -> None:
    sizes = {name: len(list(grid.points())) for name, grid in registry.grids().items()}
    assert sizes == {
        "grid-gender-vgg16-width": 4,
        "grid-gender-vgg16-block5": 25,
        "grid-mtl-vgg16-frozen": 25,
        "grid-mtl-vgg16-block5": 16,
        "grid-mtl-resnet50-frozen": 25,
        "grid-mtl-resnet50-conv5": 6,
    }
    best = max(registry.grid("grid-mtl-vgg16-block5").printed().items(), key=lambda item: item[1])
    assert best == ((32, 1e-4), 0.684550)


STEPS = ALONE.adjusted({"recipe.steps_per_epoch": 50})


def test_epochs_of_counted_steps_are_of_the_same_number_of_faces_whatever_the_batch_size() -> None:
    space = space_of(STEPS)
    (sizes,) = (item.ends for item in space.ranges if item.path == "recipe.batch_size")
    assert sizes == (16, 32, 64)
    recipes = [experiment_at(STEPS, {"recipe.batch_size": size}).recipe for size in sizes]
    assert {(item.steps_per_epoch or 0) * item.batch_size for item in recipes} == {50 * 32}
    assert experiment_at(STEPS, point_of(STEPS, space)).recipe == STEPS.recipe


@pytest.mark.parametrize(
    "ranges",
    [
        (Choices("recipe.batch_size", (32, 128)),),
        (Choices("recipe.batch_size", (32, 64)), Integers("recipe.steps_per_epoch", 10, 50)),
    ],
)
def test_batch_sizes_that_would_change_the_number_of_faces_are_refused(ranges: Any) -> None:
    with pytest.raises(ExperimentError, match="the same number of faces"):
        check_space(SearchSpace(ranges), STEPS)
