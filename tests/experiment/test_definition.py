"""Definitions are refused when they contradict themselves; changes and folds are checked alike.

Identity is content: what trains otherwise is another run, what merely reads otherwise is not.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from benchmark import registry
from benchmark.errors import ExperimentError
from benchmark.experiment.definition import Backbone, Experiment, Head, Protocol, Recipe, Suite
from benchmark.experiment.parts import Augmentation, LossWeights, StudyRow, Subset
from benchmark.identity import Ingredients, family_of, identity_of, steering_content

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
    (lambda: Subset(), "a subset of everyone"),
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


def test_a_name_says_where_own_weights_come_from() -> None:
    for source, weights in (("local", "local:mine"), ("run", "run:0123abcd")):
        name = f"mtl-cnn-{source}-full"
        assert an_experiment(name, backbone=Backbone("cnn", weights)).stem == name


POSITIVE = (
    "learning_rate", "batch_size", "max_epochs", "early_stopping_epochs", "steps_per_epoch",
    "until_train_accuracy", "adam_epsilon", "clip_norm", "trunk_rate_ratio", "stage_rate_decay",
)  # fmt: skip
OTHERS: tuple[Callable[[Any], object], ...] = (
    lambda value: LossWeights(race=value),
    lambda value: Augmentation(rotation_degrees=value),
    lambda value: Augmentation(brightness=value),
    lambda value: Augmentation(contrast=value),
    lambda value: Backbone("cnn", input_px=value),
    lambda value: Head(hidden_units=value),
    lambda value: Protocol(fold=value),
    lambda value: Augmentation(flip=value if value is not True else 1),
    lambda value: Subset(gender="female", training=value),
)


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
    for build in OTHERS:
        for value in (math.nan, math.inf, -0.5, True):
            with pytest.raises(ExperimentError):
                build(value)


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
    assert printed.study == StudyRow("1", gender=0.9)
    assert printed.varied(name="mtl-cnn-none-full-2", study=None).study is None
    with pytest.raises(ExperimentError, match="setting 'recipe' is a group of fields"):
        printed.varied(name="mtl-cnn-none-full-3", recipe=None)


def test_adjusted_is_marked_ad_hoc_unless_nothing_changed() -> None:
    base = an_experiment(name="mtl-vgg16-imagenet-full", backbone=Backbone("vgg16", "imagenet"))
    assert base.adjusted({"recipe.max_epochs": 30}) is base
    bare = base.adjusted({"backbone.weights": "none"})  # the name says only where it began
    assert (bare.name, bare.backbone.weights, bare.ad_hoc) == (base.name, "none", True)
    for path, value, message in (
        ("recipe.epochs", 3, "unknown setting 'recipe.epochs'"),
        ("recipe.max_epochs", "3", "setting 'recipe.max_epochs' is '3'"),
        ("recipe.max_epochs", True, "is True"),
        ("recipe.augmentation.flip", 1, "allowed: bool"),
        ("recipe", 1, "is a group of fields"),
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
    assert (fold.recipe, fold.backbone, fold.head) == (whole.recipe, whole.backbone, whole.head)
    assert (fold.compare_with, fold.study, fold.ad_hoc) == (None, None, False)
    assert whole.adjusted({"recipe.max_epochs": 2}).in_fold(0).ad_hoc
    with pytest.raises(ExperimentError, match="is fold 3 already"):
        fold.in_fold(1)


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


def test_two_rows_made_alike_on_the_command_line_stay_two_runs() -> None:
    plan = [registry.experiment(f"mtl-vgg16-{source}-block5") for source in ("imagenet", "vggface")]
    alike = [item.adjusted({"backbone.weights": "none"}) for item in plan]
    first, second = (identity_of(item, WITHOUT_WEIGHTS, 0) for item in alike)
    assert first != second
