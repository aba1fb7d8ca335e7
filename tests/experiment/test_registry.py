"""Being registered is being tested: every definition is held to the rules of the registry."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.errors import ExperimentError
from benchmark.experiment.definition import Experiment, Suite
from benchmark.experiment.parts import flattened
from benchmark.identity import steering_content
from benchmark.registry import named, tuned_folder

ALL = tuple(registry.experiments().values())
FULL = registry.experiment("mtl-squeezenet1_1-imagenet-full")


def test_no_two_experiments_are_the_same_training() -> None:
    trainings = [
        (item.backbone, item.head, item.recipe, item.protocol, item.subset) for item in ALL
    ]
    assert len(set(trainings)) == len(trainings)


def test_what_bears_the_name_of_a_counterpart_differs_in_tasks_alone() -> None:
    for experiment in ALL:
        # Replays of the study are let off: it trained its single tasks otherwise.
        if len(experiment.head.tasks) == 1 or experiment.protocol.leaky:
            continue
        for task, stl in registry.counterparts_of(experiment).items():
            name = experiment.counterpart_name(task)
            assert (stl is None) == (name not in registry.experiments()), name
            alone = replace(experiment.head, tasks=(task,), conditioning="none")
            assert stl is None or stl.head == alone, name
    replayed = registry.experiment("mtl-vgg16-imagenet-block5-published")
    assert registry.experiment(replayed.counterpart_name("race")).recipe != replayed.recipe
    assert set(registry.counterparts_of(replayed).values()) == {None}


def test_compared_experiments_differ_in_one_respect_and_share_their_recipe() -> None:
    for experiment in ALL:
        if experiment.compare_with is None:
            continue
        other = registry.experiment(experiment.compare_with)
        standardised = experiment.recipe.standardise_features
        recipe = replace(other.recipe, standardise_features=standardised)
        assert experiment.recipe == recipe, experiment.name
        ours, others = (
            dict(flattened(steering_content(of.as_dict()))) for of in (experiment, other)
        )
        differing = [path for path in ours | others if ours.get(path) != others.get(path)]
        assert len(differing) == 1, (experiment.name, differing)


def test_the_demo_has_three_networks_with_counterparts_and_needs_no_weights() -> None:
    suite = list(registry.experiments_of("demo"))
    assert {item.backbone.weights for item in suite} == {"none"}
    assert sum(all(registry.counterparts_of(item).values()) for item in suite) >= 3


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    for look_up, name, said in (
        (registry.experiment, "mtl-cnn-none-ful-short", "Did you mean mtl-cnn-none-full-short"),
        (registry.suite, "studdy", r"unknown suite 'studdy' .*quick.*Did you mean study\?"),
        (registry.suite, "fast", r"unknown suite 'fast' \(allowed: .*quick, study"),
        (registry.grid, "grid-nobody", "unknown grid 'grid-nobody'"),
        (registry.suite, "tuned", "nothing has been tuned here"),
    ):
        with pytest.raises(ExperimentError, match=said):
            look_up(name)


def a_module(name: str, *items: Experiment, suites: tuple[Suite, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(__name__=name, EXPERIMENTS=items, SUITES=suites)


def test_modules_that_contradict_each_other_are_refused() -> None:
    lost = replace(FULL, compare_with="nobody")
    no_tuple = "EXPERIMENTS of one is {}.*a tuple of Experiment"
    for said, modules in (
        ("one and two", [a_module("one", FULL), a_module("two", FULL)]),
        ("suite 's' lists 'nobody'", [a_module("one", suites=(Suite("s", "Why?", ("nobody",)),))]),
        ("compares itself with 'nobody'", [a_module("one", lost)]),
        *((no_tuple.format(written), [SimpleNamespace(__name__="one", EXPERIMENTS=wrong)])
          for written, wrong in ((r"Experiment\(", FULL), (r"\[", [FULL.name]), ("None", None))),
    ):  # fmt: skip
        with pytest.raises(ExperimentError, match=said):
            registry.collect(modules)  # type: ignore[arg-type]


def test_reading_definitions_loads_no_heavy_package_and_takes_well_under_a_second() -> None:
    code = (
        "import sys, time; start = time.process_time(); from benchmark import registry; "
        "assert len(registry.experiments()) >= 200; print(time.process_time() - start, "
        "[name for name in ('torch', 'mlflow', 'optuna', 'timm') if name in sys.modules])"
    )
    answer = subprocess.check_output([sys.executable, "-c", code], text=True)
    seconds, loaded = answer.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert float(seconds) < 0.8


def test_every_leak_free_experiment_has_folds_that_its_name_finds() -> None:
    for experiment in ALL:
        if not experiment.protocol.leaky:
            fold = experiment.in_fold(4)
            assert registry.experiment(fold.name) == fold, experiment.name
            assert registry.folds_of([experiment.name, fold.name]) == {fold.name: fold}
    for name in ("mtl-cnn-none-full-fold5", "mtl-none-full-fold1", "fold1"):
        assert registry.folds_of([name]) == {}
        with pytest.raises(ExperimentError, match="unknown experiment"):
            registry.experiment(name)


def written(runs_dir: Path, tuned: Experiment, untuned: Experiment | None = None) -> Path:
    path = tuned_folder(runs_dir) / f"{FULL.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = untuned.as_dict() if untuned else None
    recipe = {"schema": 1, "base": FULL.name, "tuned": tuned.as_dict(), "untuned": beside}
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def tuned(base: Experiment = FULL, **settings: object) -> Experiment:
    return named(FULL, base.adjusted(settings), "tuned")


def test_a_tuned_recipe_is_registered_beside_its_base_where_it_is_asked_for(tmp_path: Path) -> None:
    here = tmp_path / "one"
    found = tuned(**{"recipe.learning_rate": 2e-4})
    written(here, found)
    with registry.with_tuned(here):
        assert registry.suite("tuned").experiments == (found.name, FULL.name)
        assert registry.experiment(found.name) == replace(found, compare_with=FULL.name)
        with registry.with_tuned(tmp_path / "two"):
            assert found.name not in registry.experiments()
    shown = CliRunner().invoke(app, ["list", "--runs-dir", str(here), "--json"])
    assert f"{FULL.name}-tuned" in shown.stdout
    assert found.name not in registry.experiments()


def test_a_recipe_that_changed_is_read_again_with_what_was_changed_besides(tmp_path: Path) -> None:
    with registry.with_tuned(tmp_path):
        for decay in (0.5, 0.25):
            short = FULL.adjusted({"recipe.max_epochs": 2})
            found = tuned(short, **{"recipe.decay": decay})
            path = written(tmp_path, found, named(FULL, short, "untuned"))
            os.utime(path, ns=(0, int(decay * 1e9)))
            names = registry.suite("tuned").experiments
            assert names == (f"{FULL.name}-tuned", f"{FULL.name}-untuned")
            assert registry.experiment(names[0]).recipe.decay == decay
            assert registry.experiment(names[1]).recipe.max_epochs == 2


def test_a_damaged_recipe_is_refused_by_itself(tmp_path: Path) -> None:
    for number, text in enumerate(("no json", "{}", '{"schema": 9}', '{"schema": 1, "tuned": {}}')):
        path = tuned_folder(tmp_path / str(number)) / "broken.json"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        with registry.with_tuned(tmp_path / str(number)):
            (refused,) = registry.refused()
            assert str(path) in refused.source
            assert FULL.name in registry.experiments()


def test_a_tuned_name_says_where_it_began_when_the_depth_moved() -> None:
    deeper = FULL.adjusted({"backbone.trainable_stages": 2})
    name = "mtl-squeezenet1_1-imagenet-fire4_5-tuned_from_full"
    assert named(FULL, deeper, "tuned").name == name
