"""A tuned recipe is an experiment like any other, wherever the runs that it came from are."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.errors import ExperimentError
from benchmark.experiment.definition import Experiment
from benchmark.registry import named, tuned_folder, tuned_module

FULL = registry.experiment("mtl-squeezenet1_1-imagenet-full")


def changed(base: Experiment, **settings: object) -> Experiment:
    return base.adjusted(settings)


def written(runs_dir: Path, tuned: Experiment, untuned: Experiment | None = None) -> Path:
    path = tuned_folder(runs_dir) / f"{FULL.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    recipe = {
        "schema": 1,
        "base": FULL.name,
        "tuned": tuned.as_dict(),
        "untuned": untuned.as_dict() if untuned else None,
    }
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def test_a_tuned_recipe_is_registered_beside_its_base(tmp_path: Path) -> None:
    tuned = named(FULL, changed(FULL, **{"recipe.learning_rate": 2e-4}), "tuned")
    written(tmp_path, tuned)
    with registry.with_tuned(tmp_path):
        found = registry.experiment("mtl-squeezenet1_1-imagenet-full-tuned")
        assert registry.suite("tuned").experiments == (found.name, FULL.name)
    assert found.recipe == tuned.recipe
    assert found.compare_with == FULL.name


def test_what_was_changed_besides_stands_beside_it_as_untuned(tmp_path: Path) -> None:
    short = changed(FULL, **{"recipe.max_epochs": 2})
    tuned = named(FULL, changed(short, **{"recipe.learning_rate": 2e-4}), "tuned")
    written(tmp_path, tuned, named(FULL, short, "untuned"))
    with registry.with_tuned(tmp_path):
        names = registry.suite("tuned").experiments
        assert names == (f"{FULL.name}-tuned", f"{FULL.name}-untuned")
        assert registry.experiment(names[1]).recipe.max_epochs == 2


def test_recipes_of_a_folder_are_registered_only_where_they_are_asked_for(tmp_path: Path) -> None:
    written(tmp_path / "one", named(FULL, changed(FULL, **{"recipe.decay": 0.5}), "tuned"))
    with registry.with_tuned(tmp_path / "one"):
        assert f"{FULL.name}-tuned" in registry.experiments()
        with registry.with_tuned(tmp_path / "two"):
            assert f"{FULL.name}-tuned" not in registry.experiments()
    with pytest.raises(ExperimentError, match="nothing has been tuned here"):
        registry.suite("tuned")


def test_a_recipe_written_anew_is_read_anew(tmp_path: Path) -> None:
    with registry.with_tuned(tmp_path):
        for decay in (0.5, 0.25):
            path = written(tmp_path, named(FULL, changed(FULL, **{"recipe.decay": decay}), "tuned"))
            os.utime(path, ns=(0, int(decay * 1e9)))
            assert registry.experiment(f"{FULL.name}-tuned").recipe.decay == decay


def test_a_command_leaves_the_registry_as_it_was(tmp_path: Path) -> None:
    written(tmp_path, named(FULL, changed(FULL, **{"recipe.decay": 0.5}), "tuned"))
    shown = CliRunner().invoke(app, ["list", "--runs-dir", str(tmp_path), "--json"])
    assert f"{FULL.name}-tuned" in shown.stdout
    assert f"{FULL.name}-tuned" not in registry.experiments()


def test_a_damaged_recipe_is_refused_by_itself(tmp_path: Path) -> None:
    path = tuned_folder(tmp_path) / "broken.json"
    path.parent.mkdir(parents=True)
    for text in ("no json", "{}", '{"schema": 9}', '{"schema": 1, "tuned": {}}'):
        path.write_text(text, encoding="utf-8")
        with registry.with_tuned(tmp_path):
            (refused,) = registry.refused()
            assert str(path) in refused.source, text
            assert FULL.name in registry.experiments()


def test_a_tuned_name_says_where_it_began_when_the_depth_moved() -> None:
    deeper = changed(FULL, **{"backbone.trainable_stages": 2})
    assert named(FULL, deeper, "tuned").name == "mtl-squeezenet1_1-imagenet-fire4_5-tuned_from_full"
    short = registry.experiment("mtl-squeezenet1_1-imagenet-frozen-short")
    assert named(short, short, "tuned").name == "mtl-squeezenet1_1-imagenet-frozen-short-tuned"


def test_a_tuned_definition_survives_the_file(tmp_path: Path) -> None:
    base = registry.experiment("mtl-squeezenet1_1-imagenet-frozen-short")
    tuned = named(base, changed(base, **{"recipe.trunk_rate_ratio": 0.5}), "tuned")
    (found,) = tuned_module(written(tmp_path, tuned)).EXPERIMENTS
    assert replace(found, compare_with=None) == tuned
