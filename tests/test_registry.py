"""Being registered is being tested: every definition is held to the rules of the registry."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark import registry
from benchmark.errors import ExperimentError
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe, Suite
from benchmark.identity import steering_content

ALL = tuple(registry.experiments().values())


def test_no_two_experiments_are_the_same_training() -> None:
    trainings = [
        (item.backbone, item.head, item.recipe, item.protocol, item.subset) for item in ALL
    ]
    assert len(set(trainings)) == len(trainings)


def test_what_bears_the_name_of_a_twin_differs_in_tasks_alone() -> None:
    for experiment in ALL:
        # Replays of the study are let off: it trained its single tasks otherwise.
        if len(experiment.head.tasks) == 1 or experiment.protocol.leaky:
            continue
        for task, twin in registry.counterparts_of(experiment).items():
            named = experiment.counterpart_name(task)
            assert (twin is None) == (named not in registry.experiments()), named
            if twin is not None:
                alone = replace(experiment.head, tasks=(task,), conditioning="none")
                assert twin.head == alone, named


def test_one_trained_otherwise_is_no_twin_whatever_its_name() -> None:
    replayed = registry.experiment("mtl-vgg16-imagenet-block5-published")
    alone = registry.experiment(replayed.counterpart_name("race"))
    assert alone.recipe != replayed.recipe
    assert registry.counterparts_of(replayed) == {"age_group": None, "gender": None, "race": None}


def leaves(fields: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Flatten a definition: dotted path to value."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        is_group = isinstance(value, dict)
        found |= leaves(value, f"{path}{name}.") if is_group else {f"{path}{name}": value}
    return found


def test_compared_experiments_differ_in_one_respect_and_share_their_recipe() -> None:
    for experiment in ALL:
        if experiment.compare_with is None:
            continue
        other = registry.experiment(experiment.compare_with)
        standardised = experiment.recipe.standardise_features
        recipe = replace(other.recipe, standardise_features=standardised)
        assert experiment.recipe == recipe, experiment.name
        ours, others = (leaves(steering_content(item.as_dict())) for item in (experiment, other))
        differing = [path for path in ours | others if ours.get(path) != others.get(path)]
        assert len(differing) == 1, (experiment.name, differing)


def test_quick_suite_holds_what_it_must() -> None:
    names = [item.name for item in registry.experiments_of("quick")]
    quick = registry.experiment("mtl-cnn-none-full-short")
    assert quick.name in names
    assert all(twin is not None and twin.name in names
               for twin in registry.counterparts_of(quick).values())  # fmt: skip
    depths = {item.backbone.depth_name for item in registry.experiments_of("quick")
              if item.backbone.weights == "imagenet"}  # fmt: skip
    assert depths == {"frozen", "fire6_9", "full"}


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ExperimentError, match="did you mean mtl-cnn-none-full-short"):
        registry.experiment("mtl-cnn-none-ful-short")
    with pytest.raises(ExperimentError, match=r"unknown suite 'fast' \(allowed: .*quick, study"):
        registry.suite("fast")


def a_module(name: str, *items: Experiment, suites: tuple[Suite, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(__name__=name, EXPERIMENTS=items, SUITES=suites)


def an_experiment(compare_with: str | None = None) -> Experiment:
    return Experiment(
        name="mtl-cnn-none-full",
        asks="Why?",
        backbone=Backbone("cnn"),
        head=Head(),
        recipe=Recipe(learning_rate=1e-3),
        compare_with=compare_with,
    )


def test_two_experiments_with_one_name_are_refused_with_both_files() -> None:
    modules = [a_module("one", an_experiment()), a_module("two", an_experiment())]
    with pytest.raises(ExperimentError, match="one and two"):
        registry.collect(modules)  # type: ignore[arg-type]


def test_a_suite_or_comparison_with_an_unknown_name_is_refused() -> None:
    suite = Suite("s", "Why?", ("nobody",))
    with pytest.raises(ExperimentError, match="suite 's' lists 'nobody'"):
        registry.collect([a_module("one", suites=(suite,))])  # type: ignore[list-item]
    with pytest.raises(ExperimentError, match="compares itself with 'nobody'"):
        registry.collect([a_module("one", an_experiment("nobody"))])  # type: ignore[list-item]


@pytest.mark.parametrize("wrong", [an_experiment(), ["mtl-cnn-none-full"], None])
def test_definitions_that_are_no_tuple_of_experiments_are_refused(wrong: object) -> None:
    module = SimpleNamespace(__name__="one", EXPERIMENTS=wrong)
    with pytest.raises(ExperimentError, match=r"EXPERIMENTS of one is .*a tuple of Experiment"):
        registry.collect([module])  # type: ignore[list-item]


def test_reading_definitions_loads_no_heavy_package_and_takes_well_under_a_second() -> None:
    code = (
        "import sys, time; start = time.process_time(); from benchmark import registry; "
        "assert len(registry.experiments()) >= 200; print(time.process_time() - start, "
        "[name for name in ('torch', 'mlflow', 'optuna', 'timm') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    seconds, loaded = answer.stdout.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert float(seconds) < 0.8


def test_every_leak_free_experiment_has_folds_that_its_name_finds() -> None:
    for experiment in registry.experiments().values():
        if experiment.protocol.leaky:
            continue
        fold = experiment.in_fold(4)
        assert registry.experiment(fold.name) == fold, experiment.name
        assert registry.folds_of([experiment.name, fold.name]) == {fold.name: fold}


@pytest.mark.parametrize("name", ["mtl-cnn-none-full-fold5", "mtl-none-full-fold1", "fold1"])
def test_what_is_no_fold_of_a_known_experiment_is_unknown(name: str) -> None:
    assert registry.folds_of([name]) == {}
    with pytest.raises(ExperimentError, match="unknown experiment"):
        registry.experiment(name)
