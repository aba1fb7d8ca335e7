"""A search is a run of its own in MLflow, its trials beneath it, told in any order and again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.tracking.mirror import MlflowMirror, StudyMirror, TrialView
from benchmark.tracking.store import open_store
from tests.tracking.conftest import logged, mlflow_runs, the_record

pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other
TITLE = "mtl-cnn-none-full-tiny"


def study_mirror(
    runs_dir: Path, identity: str = "5" * 64, say: Callable[[str], Any] = pytest.fail
) -> StudyMirror:
    return StudyMirror(
        MlflowMirror(runs_dir, say), identity=identity, name=TITLE,
        dataset=the_record(runs_dir).about["dataset"],
        space={"recipe.learning_rate": "1e-5 to 1e-2, by factors"},
    )  # fmt: skip


def trial(number: int, value: float | None, state: str = "complete", run: str = "") -> TrialView:
    point = {"recipe.learning_rate": 10.0 ** -(number + 2)}
    return TrialView(number, state, point, value, run=run)


def test_a_trial_is_nested_under_its_study_and_stays_with_the_first(runs_dir: Path) -> None:
    identity = the_record(runs_dir).identity
    study_mirror(runs_dir).update([trial(0, 0.5, run=identity)])
    study_mirror(runs_dir, "6" * 64).update([trial(4, 0.5, run=identity)])
    runs = mlflow_runs(runs_dir)
    parents = {it.data.tags["facebench.study"]: it for it in runs if "trial" not in it.data.tags}
    assert set(parents) == {"5" * 64, "6" * 64}
    (child,), parent = [it for it in runs if "trial" in it.data.tags], parents["5" * 64]
    names = (f"Trial 000 · {TITLE}", f"Search · {TITLE}")
    assert (child.info.run_name, parent.info.run_name) == names
    assert child.data.tags["trial_state"] == "complete"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.info.status, parent.info.status) == ("FINISHED", "RUNNING")
    searches = open_store(runs_dir).get_experiment(parent.info.experiment_id)
    assert searches.tags["mlflow.note.content"].startswith("Searches for recipes.")


def test_a_search_that_resumes_is_the_same_run_repeats_nothing_and_shows_its_best_trial(
    runs_dir: Path, tmp_path: Path
) -> None:
    page = tmp_path / "study.html"
    page.write_text("a page")
    trials = [trial(0, 0.5), trial(1, 0.75), trial(2, None, "failed"), trial(3, 0.6)]
    study_mirror(runs_dir).update(trials[:1], state="interrupted")
    assert mlflow_runs(runs_dir)[0].info.status == "KILLED"
    mirror = study_mirror(runs_dir)
    mirror.update(trials[:3])
    assert mlflow_runs(runs_dir)[0].info.status == "RUNNING"
    mirror.update(trials, files=[page], state="done")
    (run,) = mlflow_runs(runs_dir)
    assert run.info.status == "FINISHED"
    best = logged(runs_dir, run.info.run_id, "best/value")
    assert best == [(0, 0.5), (2, 0.75), (3, 0.75)]
    note = run.data.tags["mlflow.note.content"]
    assert note.endswith("Best so far: trial 001, 0.7500: `recipe.learning_rate` 0.001.")
    assert run.data.params["space.recipe.learning_rate"] == "1e-5 to 1e-2, by factors"
    (kept,) = open_store(runs_dir).list_artifacts(run.info.run_id, "study")
    assert kept.path == "study/study.html"


def test_a_pruned_trial_is_no_finished_run_and_fresh_seeds_are_beneath(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    mirror = study_mirror(runs_dir)
    mirror.update([trial(0, 0.5)], fresh=[(0, record.identity)], state="done")
    assert f"Trial 000, seed 0 · {TITLE}" in {it.info.run_name for it in mlflow_runs(runs_dir)}
    (record.folder / "done.json").unlink()
    (record.folder / "interrupted.json").write_text(json.dumps({"schema": 1}))
    mirror.update([trial(0, 0.5), trial(1, None, "pruned", record.identity)])
    (child,) = (it for it in mlflow_runs(runs_dir) if it.data.tags.get("trial") == "001")
    assert (child.info.status, child.data.tags["trial_state"]) == ("KILLED", "pruned")


def test_trouble_with_the_store_is_said_once_and_caught_up_with(runs_dir: Path) -> None:
    said: list[str] = []
    mirror, trials = study_mirror(runs_dir, say=said.append), [trial(0, 0.5), trial(1, 0.25)]
    mirror.update(trials[:1])
    whole = (runs_dir / "mlflow.db").read_bytes()
    (runs_dir / "mlflow.db").write_bytes(b"this is no database" * 100)
    for _ in range(2):
        mirror.update(trials)
    (runs_dir / "mlflow.db").write_bytes(whole)
    mirror.update([*trials, trial(2, 0.75)])
    assert len(said) == 1
    assert "The search continues" in said[0]
    assert logged(runs_dir, mirror.run_id, "best/value") == [(0, 0.5), (2, 0.75)]
