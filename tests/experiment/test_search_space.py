"""What may be searched about an experiment is checked when it is defined, and means one thing."""

from dataclasses import replace
from typing import Any

import pytest

from benchmark import registry
from benchmark.errors import ExperimentError
from benchmark.experiment import DECAY, DEPTH, RATE, RATIO, Choices, Floats, Integers, SearchSpace
from benchmark.experiment import space as spaces
from benchmark.experiment.space import AUGMENTATION, check_space, experiment_at, point_of, space_of

FULL = registry.experiment("mtl-squeezenet1_1-imagenet-full")
FROZEN = registry.experiment("mtl-squeezenet1_1-imagenet-frozen-short")
ALONE = registry.experiment("gender-cnn-none-full-short")
STEPS = ALONE.adjusted({"recipe.steps_per_epoch": 50})
BATCH = "recipe.batch_size"


def refused(make: Any, *arguments: Any) -> str:
    with pytest.raises(ExperimentError) as raised:
        make(*arguments)
    return str(raised.value)


def test_every_architecture_has_a_space_that_fits_and_holds_its_definition() -> None:
    kinds = {
        (item.backbone.architecture, item.backbone.weights == "none", len(item.head.tasks)): item
        for item in registry.experiments().values()
    }
    for experiment in kinds.values():
        space = space_of(experiment)
        check_space(space, experiment)
        at_home = experiment_at(experiment, point_of(experiment, space))
        found = replace(at_home, ad_hoc=False, search=experiment.search)
        assert found == experiment, experiment.name


def test_an_empty_or_contradictory_range_is_refused() -> None:
    for make, arguments, said in (
        (Floats, (RATE, 1e-2, 1e-4), "is 0.01 to 0.0001"),
        (Floats, (RATE, 0.0, 1e-2), "by factors and begins at 0.0"),
        (Floats, (RATE, float("nan"), 1e-2), "is nan to 0.01"),
        (Integers, (DEPTH, 3, 3), "is 3 to 3"),
        (Integers, (DEPTH, 0, True), "is 0 to True"),
        (Choices, (BATCH, ()), "are []"),
        (Choices, (BATCH, (16, 16)), "are [16, 16]"),
        (SearchSpace, ((),), "a search space of []"),
        (SearchSpace, ((Integers(DEPTH, 0, 2), Integers(DEPTH, 1, 3)),), "two ranges for"),
    ):
        assert said in refused(make, *arguments), said


def test_a_range_that_does_not_fit_its_experiment_is_refused() -> None:
    for experiment, ranges, said in (
        (FULL, (Integers(DEPTH, 0, 5),), "from 0 to 4: squeezenet1_1 has so many"),
        (FULL, (Integers(AUGMENTATION, 0, 9),), "whole numbers from 0 to 3: none, flip"),
        (FULL, (Floats("recipe.rate", 1e-4, 1e-2),), "unknown setting 'recipe.rate'"),
        (FULL, (Choices(BATCH, (0, 32)),), "recipe.batch_size is 0"),
        (FULL, (Choices(BATCH, ("many",)),), "is 'many'"),
        (FROZEN, (Floats(RATIO, 1e-2, 1.0),), "and trains 0 stages"),
        (ALONE, (Floats("recipe.loss_weights.race", 0.1, 1.0),), "of a single task"),
        (STEPS, (Choices(BATCH, (32, 64)),), "the same number of faces"),
    ):
        assert said in refused(check_space, SearchSpace(ranges), experiment), said
    with pytest.raises(ExperimentError, match="so many stages"):
        replace(FULL, search=SearchSpace((Integers(DEPTH, 0, 5),)))


def test_a_point_is_written_as_a_definition_would_be() -> None:
    point = {DEPTH: 4, RATIO: 1.0, DECAY: 0.5, RATE: 1e-3}
    assert spaces.settings_at(FULL, point) == {DEPTH: "all", RATIO: None, DECAY: 0.5, RATE: 1e-3}
    frozen = spaces.settings_at(FULL, {DEPTH: 0, RATIO: 0.1, DECAY: 0.5})
    assert frozen == {DEPTH: 0, RATIO: None, DECAY: None}
    assert spaces.settings_at(FULL, {DEPTH: 1, RATIO: 0.1, DECAY: 0.5})[DECAY] is None
    assert spaces.settings_at(FULL, {AUGMENTATION: 1})[AUGMENTATION].flip
    # A trial that changes nothing is still ad hoc: it is not evaluated on the test set.
    assert experiment_at(FULL, point_of(FULL, space_of(FULL))).ad_hoc
    assert "search" not in FULL.as_dict()


def test_a_definition_outside_of_its_space_says_where_and_only_some_ranges_can_be_kept() -> None:
    outside = SearchSpace((Choices(BATCH, (64, 128)),))
    assert "recipe.batch_size is 32" in refused(point_of, FULL, outside)
    space = space_of(FULL)
    assert space.only((DEPTH,)).paths == (DEPTH,)
    assert "recipe.epochs is not searched here" in refused(space.only, ("recipe.epochs",))
    assert BATCH in space_of(ALONE).paths
    assert BATCH not in space_of(STEPS).paths


def test_the_studys_grids_are_whole() -> None:
    grids = registry.grids()
    assert {name: len(list(grid.points())) for name, grid in grids.items()} == {
        "grid-gender-vgg16-width": 4,
        "grid-gender-vgg16-block5": 25,
        "grid-mtl-vgg16-frozen": 25,
        "grid-mtl-vgg16-block5": 16,
        "grid-mtl-resnet50-frozen": 25,
        "grid-mtl-resnet50-conv5": 6,
    }
    printed = grids["grid-mtl-vgg16-block5"].printed()
    assert max(printed.items(), key=lambda item: item[1]) == ((32, 1e-4), 0.684550)
    without = {name for name, g in grids.items() if g.experiment.recipe.clipping == "none"}
    assert without == {"grid-gender-vgg16-width", "grid-gender-vgg16-block5"}
