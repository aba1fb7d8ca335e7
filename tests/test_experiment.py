"""Definitions are refused at birth when they contradict themselves."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from benchmark import registry
from benchmark.errors import ExperimentError
from benchmark.experiment.definition import (
    Augmentation,
    Backbone,
    Experiment,
    Head,
    LossWeights,
    Protocol,
    Recipe,
    StudyRow,
    Subset,
    Suite,
)


def an_experiment(**changes: object) -> Experiment:
    fields: dict[str, object] = {
        "name": "mtl-cnn-none-full",
        "asks": "Does it work?",
        "backbone": Backbone("cnn"),
        "head": Head(),
        "recipe": Recipe(learning_rate=1e-3),
    }
    return Experiment(**(fields | changes))  # type: ignore[arg-type]


def test_unknown_architecture_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ExperimentError, match=r"unknown architecture 'vgg99'.*vgg16, vgg19"):
        Backbone("vgg99")


def test_weights_an_architecture_does_not_have_are_refused() -> None:
    with pytest.raises(ExperimentError, match=r"cnn has no 'imagenet' weights \(allowed: none, "):
        Backbone("cnn", weights="imagenet")
    with pytest.raises(ExperimentError, match=r"vgg19 has no 'vggface' .*allowed: none, imagenet,"):
        Backbone("vgg19", weights="vggface")


def test_weights_of_ones_own_fit_any_architecture() -> None:
    named = [Backbone("cnn", weights=weights) for weights in ("local:mine", "run:0123abcd")]
    assert [an_experiment(name=f"mtl-cnn-{label}-full", backbone=item).stem
            for label, item in zip(("local", "run"), named, strict=True)] == [
        "mtl-cnn-local-full", "mtl-cnn-run-full"]  # fmt: skip
    with pytest.raises(ExperimentError, match="cnn has no 'run:xyz' weights"):
        Backbone("cnn", weights="run:xyz")


def test_a_transformers_input_is_a_multiple_of_its_patch() -> None:
    assert Backbone("vit_small_patch16_224", "none", "all", 112).input_px == 112
    with pytest.raises(ExperimentError, match="a multiple of 16, the side of its patches"):
        Backbone("vit_small_patch16_224", "none", "all", 100)


@pytest.mark.parametrize("depth", [-1, 5, 6, True, "some", 1.0])
def test_unfreezing_depth_out_of_range_is_refused(depth: object) -> None:
    with pytest.raises(ExperimentError, match="0 to 4, or 'all' for its 5 stages"):
        Backbone("cnn", trainable_stages=depth)  # type: ignore[arg-type]


def test_depth_is_named_by_the_shallowest_trained_stage() -> None:
    depths = [Backbone("squeezenet1_1", "imagenet", depth) for depth in (0, 1, 3, "all")]  # type: ignore[arg-type]
    assert [item.depth_name for item in depths] == ["frozen", "fire6_9", "fire2_3", "full"]
    assert depths[1].trained_stages == ("fire6_9",)
    assert depths[0].trained_stages == ()


def test_a_name_that_contradicts_its_fields_is_refused() -> None:
    with pytest.raises(ExperimentError, match=r"allowed: mtl-cnn-none-full\[-<variant>\]"):
        an_experiment(name="mtl-cnn-none-frozen")
    with pytest.raises(ExperimentError, match="contradicts its fields"):
        an_experiment(name="mtl-cnn-none-fuller")


def test_two_tasks_are_neither_single_nor_multi_task() -> None:
    with pytest.raises(ExperimentError, match="one of age_group, gender, race, or all three"):
        Head(tasks=("age_group", "race"))


def test_conditioning_needs_a_gender_branch() -> None:
    with pytest.raises(ExperimentError, match="which has no gender branch"):
        Head(tasks=("race",), conditioning="gate")


@pytest.mark.parametrize("rate", [0.0, -1e-3, math.nan, math.inf])
def test_a_learning_rate_that_cannot_train_is_refused(rate: float) -> None:
    with pytest.raises(ExperimentError, match="recipe.learning_rate"):
        Recipe(learning_rate=rate)


def test_study_schedule_is_constant_for_twenty_epochs_then_decays_ten_times() -> None:
    recipe = Recipe(learning_rate=1e-4)
    assert recipe.rate_at(0) == recipe.rate_at(19) == 1e-4
    # Epochs 20 to 29 decay once each: 1e-4 * exp(-0.01 * 10) = 9.0484e-05, as the notebooks print.
    assert recipe.rate_at(29) == pytest.approx(9.0484e-05, rel=1e-4)


def test_cosine_schedule_starts_at_the_rate_and_nears_zero() -> None:
    recipe = Recipe(learning_rate=1.0, schedule="cosine", max_epochs=4)
    # 0.5 * (1 + cos(pi * e / 4)) for e = 0 and 2
    assert recipe.rate_at(0) == 1.0
    assert recipe.rate_at(2) == pytest.approx(0.5)


def test_varied_changes_nested_fields_and_checks_the_new_name() -> None:
    base = an_experiment()
    gated = base.varied(name="mtl-cnn-none-full-gate", **{"head.conditioning": "gate"})
    assert gated.head.conditioning == "gate"
    assert not gated.ad_hoc
    assert gated.recipe == base.recipe
    with pytest.raises(ExperimentError, match="contradicts its fields"):
        base.varied(name="mtl-cnn-none-full", **{"head.conditioning": "gate"})


def test_varied_may_add_and_take_away_what_the_study_printed() -> None:
    printed = an_experiment().varied(name="mtl-cnn-none-full-1", study=StudyRow("1", gender=0.9))
    assert printed.study == StudyRow("1", gender=0.9)
    assert printed.varied(name="mtl-cnn-none-full-2", study=None).study is None
    with pytest.raises(ExperimentError, match="setting 'recipe' is a group of fields"):
        printed.varied(name="mtl-cnn-none-full-3", recipe=None)


def test_the_name_of_a_subset_ends_with_it() -> None:
    subset = Subset(gender="female", race="Black", training="everyone")
    fields = {"subset": subset, "head": Head(tasks=("race",))}
    named = an_experiment(name="race-cnn-none-full-x-women_black-everyone", **fields)
    assert named.subset == subset
    with pytest.raises(ExperimentError, match="allowed: .*-women_black-everyone"):
        an_experiment(name="race-cnn-none-full-women_black", **fields)


def test_adjusted_is_marked_ad_hoc_unless_nothing_changed() -> None:
    base = an_experiment()
    assert base.adjusted({"recipe.max_epochs": 3}).ad_hoc
    assert base.adjusted({"recipe.max_epochs": 30}) is base


def test_adjusted_may_contradict_the_name_which_says_only_where_it_began() -> None:
    base = an_experiment(name="mtl-vgg16-imagenet-full", backbone=Backbone("vgg16", "imagenet"))
    bare = base.adjusted({"backbone.weights": "none"})
    assert (bare.name, bare.backbone.weights, bare.ad_hoc) == (base.name, "none", True)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("recipe.epochs", 3, "unknown setting 'recipe.epochs'"),
        ("recipe.max_epochs", "3", "setting 'recipe.max_epochs' is '3'"),
        ("recipe.max_epochs", True, "is True"),
        ("recipe.augmentation.flip", 1, "allowed: bool"),
        ("recipe", 1, "is a group of fields"),
        ("recipe.max_epochs.more", 1, "max_epochs has no fields"),
        ("name", "other", r"allowed: backbone.FIELD"),
    ],
)
def test_settings_that_do_not_fit_are_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        an_experiment().adjusted({path: value})


def test_twin_has_one_task_and_no_conditioning() -> None:
    gated = an_experiment(name="mtl-cnn-none-full-gate-short", head=Head(conditioning="gate"))
    assert gated.counterpart_name("race") == "race-cnn-none-full-short"


def test_a_question_is_asked_with_a_question_mark() -> None:
    with pytest.raises(ExperimentError, match="a question that ends with"):
        an_experiment(asks="It works.")


def test_definitions_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        an_experiment().name = "other"  # type: ignore[misc]


def test_folds_run_from_zero_to_four() -> None:
    assert Protocol(fold=4).name == "leak-free fold 4"
    with pytest.raises(ExperimentError, match=r"\[0, 4\] or None"):
        Protocol(fold=5)


def test_a_suite_lists_each_experiment_once() -> None:
    with pytest.raises(ExperimentError, match="lists a twice"):
        Suite("s", "Why?", ("a", "b", "a"))


WRONG: dict[str, tuple[object, ...]] = {
    "learning_rate": (True, "1e-3"),
    "batch_size": (0, 1.5, True, math.nan),
    "max_epochs": (0, 2.0, True),
    "early_stopping_epochs": (0, 1.5, True, math.nan),
    "steps_per_epoch": (0, 1.5, True),
    "until_train_accuracy": (0.0, 1.1, math.nan, True),
    "constant_epochs": (-1, 1.5, True, math.nan),
    "decay": (-0.1, math.inf, math.nan, True),
    "weight_decay": (-0.1, math.inf, math.nan, True),
    "adam_epsilon": (0, math.inf, math.nan, True),
    "clip_norm": (0, math.inf, math.nan, True),
    "trunk_rate_ratio": (0, math.inf, math.nan, True),
    "stage_rate_decay": (0, math.inf, math.nan, True),
    "standardise_features": (1, None, "yes"),
}


def test_every_number_of_a_recipe_is_refused_where_it_says_nothing() -> None:
    numbers = {field.name for field in dataclasses.fields(Recipe)} - {
        "schedule", "clipping", "head_initialisation", "loss_weights", "augmentation",
    }  # fmt: skip
    assert numbers == WRONG.keys()
    for name, values in WRONG.items():
        for value in values:
            fields: dict[str, Any] = {"learning_rate": 1e-3} | {name: value}
            with pytest.raises(ExperimentError, match=f"recipe.{name} is "):
                Recipe(**fields)


@pytest.mark.parametrize(
    "build",
    [
        lambda value: LossWeights(race=value),
        lambda value: Augmentation(rotation_degrees=value),
        lambda value: Augmentation(brightness=value),
        lambda value: Augmentation(contrast=value),
        lambda value: Backbone("cnn", input_px=value),
        lambda value: Head(hidden_units=value),
        lambda value: Protocol(fold=value),
    ],
)
@pytest.mark.parametrize("value", [True, math.nan, math.inf, -0.5])
def test_other_numbers_are_refused_alike(build: Callable[[Any], object], value: object) -> None:
    with pytest.raises(ExperimentError):
        build(value)


def test_early_stopping_needs_a_score_to_wait_for() -> None:
    recipe = Recipe(learning_rate=1e-3, early_stopping_epochs=2)
    an_experiment(recipe=recipe)
    with pytest.raises(ExperimentError, match="stops early and selects the last epoch"):
        an_experiment(recipe=recipe, protocol=Protocol(selection="last_epoch"))


def test_only_a_frozen_trunks_features_are_standardised() -> None:
    recipe = Recipe(learning_rate=1e-3, standardise_features=True)
    frozen = Backbone("cnn", trainable_stages=0)
    an_experiment(recipe=recipe, backbone=frozen, name="mtl-cnn-none-frozen-standardised")
    with pytest.raises(ExperimentError, match="a backbone that it trains"):
        an_experiment(recipe=recipe)


def test_a_fold_is_the_same_experiment_on_another_split() -> None:
    whole = registry.experiment("age_group-cnn-none-full-short")
    fold = whole.in_fold(3)
    assert fold.name == "age_group-cnn-none-full-short-fold3"
    assert fold.protocol == dataclasses.replace(whole.protocol, fold=3)
    assert (fold.recipe, fold.backbone, fold.head) == (whole.recipe, whole.backbone, whole.head)
    assert not fold.ad_hoc
    assert (fold.compare_with, fold.study) == (None, None)


def test_a_fold_of_an_ad_hoc_experiment_stays_ad_hoc() -> None:
    changed = registry.experiment("mtl-cnn-none-full").adjusted({"recipe.max_epochs": 2})
    assert changed.in_fold(0).ad_hoc


def test_a_fold_has_no_folds() -> None:
    with pytest.raises(ExperimentError, match="is fold 1 already"):
        registry.experiment("mtl-cnn-none-full").in_fold(1).in_fold(1)
