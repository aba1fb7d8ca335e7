"""Definitions that contradict themselves are refused; changes, folds, searches are checked alike.

Identity is content: what trains otherwise is another run, what merely reads otherwise is not.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import pytest

from benchmark import registry
from benchmark.errors import ExperimentError
from benchmark.experiment import DECAY, DEPTH, RATE, RATIO, Choices, Floats, Integers, SearchSpace
from benchmark.experiment import space as spaces
from benchmark.experiment.definition import Backbone, Experiment, Head, Protocol, Recipe, Suite
from benchmark.experiment.parts import Augmentation, LossWeights, StudyRow, Subset
from benchmark.experiment.space import AUGMENTATION, check_space, experiment_at, point_of, space_of
from benchmark.identity import Ingredients, group_identity, identity_of, steering_content

RECIPE = Recipe(learning_rate=1e-3)


def an_experiment(name: str = "mtl-cnn-none-full", **changes: Any) -> Experiment:
    fields: dict[str, Any] = {"backbone": Backbone("cnn"), "head": Head(), "recipe": RECIPE}
    return Experiment(name, **({"asks": "Does it work?"} | fields | changes))


ON_BLACK_WOMEN = {
    "subset": Subset(gender="female", race="Black", training="everyone"),
    "head": Head(tasks=("race",)),
}
STOPS_EARLY = dataclasses.replace(RECIPE, early_stopping_epochs=2)
STANDARDISED = dataclasses.replace(RECIPE, standardise_features=True)
REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: Backbone("vgg99"), r"unknown architecture 'vgg99'.*vgg16, vgg19"),
    (lambda: Backbone("cnn", "imagenet"), r"cnn has no 'imagenet' weights \(allowed: none, "),
    (lambda: Backbone("vgg19", "vggface"), r"vgg19 has no 'vggface' .*allowed: none, imagenet,"),
    (lambda: Backbone("cnn", "run:xyz"), "cnn has no 'run:xyz' weights"),
    (lambda: Backbone("vit_small_patch16_224", input_px=100),
     "a multiple of 16, the side of its patches"),
    (lambda: Head(tasks=("age_group", "race")), "one of age_group, gender, race, or all three"),
    (lambda: Head(tasks=("race",), conditioning="gate"), "which has no gender branch"),
    (lambda: Protocol(fold=5), r"a whole number in \[0, 4\] or None"),
    (lambda: Protocol(fold=1, split="published-1"), "folds of leak-free-2 only"),
    (lambda: Subset(), "a subset of all faces"),
    (lambda: Suite("s", "Why?", ("a", "b", "a")), "lists a twice"),
    (lambda: an_experiment(asks="It works."), "a question that ends with"),
    (lambda: an_experiment("mtl-cnn-none-frozen"), r"allowed: mtl-cnn-none-full\[-<variant>\]"),
    (lambda: an_experiment("mtl-cnn-none-fuller"), "contradicts its fields"),
    (lambda: an_experiment("race-cnn-none-full-women_black", **ON_BLACK_WOMEN),
     "allowed: .*-women_black-everyone"),
    (lambda: an_experiment(recipe=STOPS_EARLY, protocol=Protocol(selection="last_epoch")),
     "stops early and selects the last epoch"),
    (lambda: an_experiment(recipe=STANDARDISED), "a backbone that it trains"),
]  # fmt: skip


def test_what_contradicts_itself_is_refused_with_what_is_allowed() -> None:
    for build, why in REFUSED:
        with pytest.raises(ExperimentError, match=why):
            build()


def test_depth_is_named_by_the_shallowest_trained_stage() -> None:
    depths = [Backbone("squeezenet1_1", "imagenet", depth) for depth in (0, 1, 3, "all")]  # type: ignore[arg-type]
    assert [item.depth_name for item in depths] == ["frozen", "fire6_9", "fire2_3", "full"]
    assert [item.trained_stages for item in depths[:2]] == [(), ("fire6_9",)]
    for depth in (-1, 5, 6, True, "some", 1.0):
        with pytest.raises(ExperimentError, match="0 to 4, or 'all' for its 5 stages"):
            Backbone("cnn", trainable_stages=depth)  # type: ignore[arg-type]


POSITIVE = (
    "learning_rate", "batch_size", "max_epochs", "early_stopping_epochs", "steps_per_epoch",
    "until_train_accuracy", "adam_epsilon", "clip_norm", "trunk_rate_ratio", "stage_rate_decay",
)  # fmt: skip
OTHERS: tuple[tuple[Any, str], ...] = (
    (LossWeights, "race"), (Augmentation, "rotation_degrees"), (Augmentation, "brightness"),
    (Augmentation, "contrast"), (Head, "hidden_units"), (Protocol, "fold"),
    (partial(Backbone, "cnn"), "input_px"), (partial(Subset, gender="female"), "training"),
)  # fmt: skip


def test_every_field_is_refused_where_it_says_nothing() -> None:
    names = {field.name for field in dataclasses.fields(Recipe)} - {"loss_weights", "augmentation"}
    wrong: list[tuple[str, object]] = [(it, odd) for it in names for odd in (math.nan, -0.1, "x")]
    wrong += [(it, True) for it in names - {"standardise_features"}]
    wrong += [(it, 0) for it in POSITIVE] + [(it, 1.5) for it in POSITIVE[1:5]]
    wrong += [("constant_epochs", 1.5), ("until_train_accuracy", 1.1), ("decay", math.inf)]
    wrong += [("standardise_features", 1), ("standardise_features", None), ("schedule", None)]
    for name, value in wrong:
        fields: dict[str, Any] = {"learning_rate": 1e-3} | {name: value}
        with pytest.raises(ExperimentError, match=f"recipe.{name} is "):
            Recipe(**fields)
    for (kind, name), value in product(OTHERS, (math.nan, math.inf, -0.5, True)):
        with pytest.raises(ExperimentError):
            kind(**{name: value})


def test_schedules_give_the_rates_that_the_study_printed() -> None:
    recipe = Recipe(learning_rate=1e-4)
    assert recipe.rate_at(0) == recipe.rate_at(19) == 1e-4
    # Epochs 20 to 29 decay once each: 1e-4 * exp(-0.01 * 10) = 9.0484e-05, as the notebooks print.
    assert recipe.rate_at(29) == pytest.approx(9.0484e-05, rel=1e-4)
    recipe = Recipe(learning_rate=1.0, schedule="cosine", max_epochs=4)
    # 0.5 * (1 + cos(pi * e / 4)) for e = 0 and 2
    assert (recipe.rate_at(0), recipe.rate_at(2)) == (1.0, pytest.approx(0.5))


def test_varied_changes_nested_fields_and_checks_the_new_name() -> None:
    base = an_experiment()
    gated = base.varied(name="mtl-cnn-none-full-gate", **{"head.conditioning": "gate"})
    assert (gated.head.conditioning, gated.ad_hoc, gated.recipe) == ("gate", False, base.recipe)
    with pytest.raises(ExperimentError, match="contradicts its fields"):
        base.varied(name="mtl-cnn-none-full", **{"head.conditioning": "gate"})
    printed = base.varied(name="mtl-cnn-none-full-1", study=StudyRow("1", gender=0.9))
    assert printed.varied(name="mtl-cnn-none-full-2", study=None).study is None
    with pytest.raises(ExperimentError, match="recipe is None .allowed: a group of fields: learn"):
        printed.varied(name="mtl-cnn-none-full-3", recipe=None)


def test_adjusted_is_marked_ad_hoc_unless_nothing_changed() -> None:
    base = an_experiment(name="mtl-vgg16-imagenet-full", backbone=Backbone("vgg16", "imagenet"))
    assert base.adjusted({"recipe.max_epochs": 30}) is base
    bare = base.adjusted({"backbone.weights": "none"})  # the name says only where it began
    assert (bare.name, bare.backbone.weights, bare.ad_hoc) == (base.name, "none", True)
    for path, value, message in (
        ("recipe.epochs", 3, "unknown setting 'recipe.epochs'"),
        ("recipe.max_epochs", "3", "recipe.max_epochs is '3'"),
        ("recipe.max_epochs", True, "is True"),
        ("recipe.augmentation.flip", 1, "allowed: True, False"),
        ("recipe", 1, "a group of fields"),
        ("recipe.max_epochs.more", 1, "max_epochs has no fields"),
        ("name", "other", r"allowed: backbone.FIELD"),
    ):
        with pytest.raises(ExperimentError, match=message):
            base.adjusted({path: value})


def test_definitions_survive_a_file() -> None:
    for name in ("mtl-vgg16-imagenet-block5-gate", "age_group-cnn-none-full-steps-women"):
        experiment = registry.experiment(name)
        assert Experiment.from_dict(experiment.as_dict()) == experiment
    for odd in ({}, {"name": 1}, an_experiment().as_dict() | {"backbone": "vgg16"}):
        with pytest.raises(ExperimentError):
            Experiment.from_dict(odd)


def test_a_fold_is_the_same_experiment_on_another_split() -> None:
    whole = registry.experiment("age_group-cnn-none-full-short")
    fold = whole.in_fold(3)
    assert (fold.name, fold.protocol.name) == (f"{whole.name}-fold3", "leak-free fold 3")
    assert fold.protocol == dataclasses.replace(whole.protocol, fold=3)
    kept = {"name": whole.name, "protocol": whole.protocol, "compare_with": whole.compare_with}
    assert dataclasses.replace(fold, **kept, study=whole.study) == whole  # type: ignore[arg-type]
    assert (fold.compare_with, fold.study) == (None, None)
    with pytest.raises(ExperimentError, match="is fold 3 already"):
        fold.in_fold(1)


CNN = registry.experiment("mtl-cnn-none-full-short")
FIRE = registry.experiment("mtl-squeezenet1_1-imagenet-fire6_9-short")
WITHOUT_WEIGHTS = Ingredients(None, "ab" * 32, "cd" * 32, 1)
WITH_WEIGHTS = Ingredients("ef" * 32, "ab" * 32, "cd" * 32, 1)


def test_runs_of_the_first_version_keep_their_identity() -> None:
    """Printed by the version that made the first published runs; new fields must not move it."""
    cnn, depth = (
        dataclasses.replace(item, protocol=Protocol(split="leak-free-1")) for item in (CNN, FIRE)
    )
    assert [identity_of(cnn, WITHOUT_WEIGHTS, 0), identity_of(depth, WITH_WEIGHTS, 2)] == [
        "440c3ac6474acb20e791ebff54f785fc16ec5f4880c7e00289377f90e72e0008",
        "7b84bd077eb810a9d2c0994ece6296148471a41142939bc8557cb19bde0c8ede",
    ]


def test_a_definition_kept_before_a_field_existed_is_the_same_definition() -> None:
    later = {"steps_per_epoch", "until_train_accuracy", "trunk_rate_ratio", "stage_rate_decay",
             "standardise_features"}  # fmt: skip
    kept: dict[str, Any] = CNN.as_dict()
    del kept["subset"]
    kept["recipe"] = {name: it for name, it in kept["recipe"].items() if name not in later}
    assert steering_content(kept) == steering_content(CNN.as_dict())


def test_what_steers_a_training_changes_its_identity_and_words_do_not() -> None:
    settings: dict[str, Any] = {
        "recipe.steps_per_epoch": 100, "recipe.until_train_accuracy": 0.99,
        "recipe.trunk_rate_ratio": 0.1, "recipe.stage_rate_decay": 0.5,
        "recipe.learning_rate": 2e-3, "protocol.split": "published-1",
    }  # fmt: skip
    changed = [CNN.adjusted({path: value}) for path, value in settings.items()]
    for training in ("subset", "everyone"):
        subset = Subset(gender="female", training=training)  # type: ignore[arg-type]
        changed.append(dataclasses.replace(CNN, subset=subset, ad_hoc=True))
    groups = {group_identity(item, WITHOUT_WEIGHTS) for item in (CNN, *changed)}
    assert len(groups) == 1 + len(changed)
    reworded = dataclasses.replace(CNN, asks="Really?", compare_with=FIRE.name)
    assert identity_of(reworded, WITHOUT_WEIGHTS, 0) == identity_of(CNN, WITHOUT_WEIGHTS, 0)


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
        (Floats, (RATE, 0.0, 1e-2), "0.0 to 0.01, by factors"),
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
        (FULL, (Integers(DEPTH, 0, 5),), "stages is 5 (allowed: whole numbers from 0 to 4)"),
        (FULL, (Integers(AUGMENTATION, 0, 9),), "whole numbers from 0 to 3"),
        (FULL, (Floats("recipe.rate", 1e-4, 1e-2),), "unknown setting 'recipe.rate'"),
        (FULL, (Choices(BATCH, (0, 32)),), "recipe.batch_size is 0"),
        (FULL, (Choices(BATCH, ("many",)),), "is 'many'"),
        (FROZEN, (Floats(RATIO, 1e-2, 1.0),), "and trains 0 stages"),
        (ALONE, (Floats("recipe.loss_weights.race", 0.1, 1.0),), "has a single task"),
        (STEPS, (Choices(BATCH, (32, 64)),), "the same number of faces"),
    ):
        assert said in refused(check_space, SearchSpace(ranges), experiment), said
    with pytest.raises(ExperimentError, match="from 0 to 4"):
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
    assert sum(len(grid.printed) for grid in grids.values()) == 4 + 25 + 25 + 16 + 25 + 6
    printed = grids["grid-mtl-vgg16-block5"].printed
    assert max(printed.items(), key=lambda item: item[1]) == ((32, 1e-4), 0.684550)
    without = {name for name, g in grids.items() if g.experiment.recipe.clipping == "none"}
    assert without == {"grid-gender-vgg16-width", "grid-gender-vgg16-block5"}
