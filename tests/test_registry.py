"""Being registered is being tested: every definition is held to the rules of the registry."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmark import registry
from benchmark.errors import ExperimentError
from benchmark.experiment import Backbone, Experiment, Head, Recipe, Suite

ALL = tuple(registry.experiments().values())


def test_no_two_experiments_are_the_same_training() -> None:
    trainings = [(item.backbone, item.head, item.recipe, item.protocol) for item in ALL]
    assert len(set(trainings)) == len(trainings)


@pytest.mark.parametrize("experiment", ALL, ids=lambda item: item.name)
def test_every_multi_task_experiment_differs_from_its_twins_in_tasks_alone(
    experiment: Experiment,
) -> None:
    for task, twin in registry.twins_of(experiment).items():
        if twin is not None:
            assert twin.head.tasks == (task,)
            assert twin.backbone == experiment.backbone
            assert twin.recipe == experiment.recipe
            assert twin.protocol == experiment.protocol


@pytest.mark.parametrize("experiment", ALL, ids=lambda item: item.name)
def test_compared_arms_share_their_optimiser_settings(experiment: Experiment) -> None:
    if experiment.compare_with is not None:
        other = registry.experiment(experiment.compare_with)
        assert experiment.recipe == other.recipe


def test_quick_suite_holds_what_it_must() -> None:
    names = [item.name for item in registry.experiments_of("quick")]
    quick = registry.experiment("mtl-cnn-none-full-short")
    assert quick.name in names
    assert all(twin is not None and twin.name in names
               for twin in registry.twins_of(quick).values())  # fmt: skip
    depths = {item.backbone.depth_name for item in registry.experiments_of("quick")
              if item.backbone.weights == "imagenet"}  # fmt: skip
    assert depths == {"frozen", "fire6_9", "full"}


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ExperimentError, match="did you mean mtl-cnn-none-full-short"):
        registry.experiment("mtl-cnn-none-ful-short")
    with pytest.raises(ExperimentError, match=r"unknown suite 'fast' \(allowed: controls, quick"):
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


def test_reading_definitions_loads_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys; from benchmark import registry; registry.experiments(); "
        "print([name for name in ('torch', 'mlflow', 'optuna', 'timm') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
