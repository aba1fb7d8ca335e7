"""A search is a run of its own in MLflow, its trials beneath it, told in any order and again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.record import RunRecord
from benchmark.tracking import MlflowMirror, Study, StudyMirror, Trial, open_store
from tests.tracking.conftest import mlflow_runs, the_record

pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other


def the_study(runs_dir: Path) -> Study:
    return Study(
        identity="5" * 64,
        name="mtl-cnn-none-full-tiny",
        asks="Which rate is best?",
        dataset=the_record(runs_dir).about["dataset"],
        space={"recipe.learning_rate": "1e-5 to 1e-2, by factors"},
    )


def study_mirror(runs_dir: Path) -> StudyMirror:
    return StudyMirror(MlflowMirror(runs_dir, print), the_study(runs_dir))


def a_trial(number: int, value: float | None, **changes: Any) -> Trial:
    settings = {"recipe.learning_rate": 10.0 ** -(number + 2)}
    return replace(Trial(number, "complete", settings, value), **changes)


def test_a_trial_is_nested_under_its_study(runs_dir: Path) -> None:
    mirror = study_mirror(runs_dir)
    mirror.tell(a_trial(0, 0.5), the_record(runs_dir))
    runs = {run.info.run_name: run for run in mlflow_runs(runs_dir)}
    assert set(runs) == {
        "Search · mtl-cnn-none-full-tiny",
        "Trial 000 · mtl-cnn-none-full-tiny",
    }
    trial = runs["Trial 000 · mtl-cnn-none-full-tiny"]
    assert trial.data.tags["mlflow.parentRunId"] == mirror.run_id()
    assert trial.data.tags["trial_state"] == "complete"
    assert trial.info.status == "FINISHED"


def test_the_best_trial_is_shown_as_the_search_goes_on(runs_dir: Path) -> None:
    mirror = study_mirror(runs_dir)
    told = (a_trial(0, 0.5), a_trial(1, 0.75), a_trial(2, None, state="failed"), a_trial(3, 0.6))
    for trial in told:
        mirror.tell(trial)
    mirror.end()
    client = open_store(runs_dir)
    run = client.get_run(mirror.run_id())
    assert run.info.status == "FINISHED"
    best = client.get_metric_history(mirror.run_id(), "best/value")
    assert [(item.step, item.value) for item in best] == [(0, 0.5), (1, 0.75), (3, 0.75)]
    note = run.data.tags["mlflow.note.content"]
    assert "Best so far: trial 001, 0.7500." in note
    assert "| 002 | failed | – | `recipe.learning_rate` 0.0001 |" in note
    assert run.data.params["space.recipe.learning_rate"] == "1e-5 to 1e-2, by factors"


def test_a_search_that_goes_on_later_is_the_same_run_and_repeats_nothing(runs_dir: Path) -> None:
    first = study_mirror(runs_dir)
    first.tell(a_trial(0, 0.5))
    first.end("interrupted")
    second = study_mirror(runs_dir)
    second.tell(a_trial(0, 0.5))
    second.tell(a_trial(1, 0.25))
    assert second.run_id() == first.run_id()
    client = open_store(runs_dir)
    assert client.get_run(first.run_id()).info.status == "RUNNING"
    values = client.get_metric_history(first.run_id(), "trial/value")
    assert [(item.step, item.value) for item in values] == [(0, 0.5), (1, 0.25)]


def test_a_pruned_trial_is_no_finished_run(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    (record.folder / "done.json").unlink()
    (record.folder / "interrupted.json").write_text(json.dumps({"schema": 1}))
    study_mirror(runs_dir).tell(a_trial(0, None, state="pruned"), RunRecord(record.folder))
    (trial,) = [run for run in mlflow_runs(runs_dir) if run.info.run_name.startswith("Trial")]
    assert trial.info.status == "KILLED"
    assert trial.data.tags["trial_state"] == "pruned"


def test_a_run_that_two_searches_tried_stays_with_the_first(runs_dir: Path) -> None:
    first = study_mirror(runs_dir)
    first.tell(a_trial(0, 0.5), the_record(runs_dir))
    other = replace(the_study(runs_dir), identity="6" * 64)
    StudyMirror(MlflowMirror(runs_dir, print), other).tell(a_trial(4, 0.5), the_record(runs_dir))
    (trial,) = [run for run in mlflow_runs(runs_dir) if run.info.run_name.startswith("Trial")]
    assert trial.data.tags["mlflow.parentRunId"] == first.run_id()
    assert trial.info.run_name == "Trial 000 · mtl-cnn-none-full-tiny"


def test_a_long_search_shows_its_best_trials_and_fits_in_a_note(runs_dir: Path) -> None:
    mirror = study_mirror(runs_dir)
    for number in range(60):
        mirror._trials[number] = a_trial(number, number / 100)
    note = mirror._note()
    assert len(note) < 8_000
    assert note.index("| 059 | complete | 0.5900 |") < note.index("| 058 | complete | 0.5800 |")
    assert "The best 30 of 60 trials" in note
