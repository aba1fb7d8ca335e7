"""MLflow mirrors the runs' folders: once, whatever happens, and without a word to the outside."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.errors import TrackingError
from benchmark.experiment import Backbone, Experiment, Head, Recipe
from benchmark.faces.store import FaceSet
from benchmark.plans import Settings, plan_run
from benchmark.results.record import RunRecord, all_records
from benchmark.results.red_flags import acknowledge
from benchmark.runs import run_all
from benchmark.tracking import (
    MlflowMirror,
    import_records,
    landing_path,
    open_store,
    server_command,
)
from benchmark.training.device import Device

pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other

EXPERIMENT = Experiment(
    name="mtl-cnn-none-full-tiny",
    asks="Is it mirrored?",
    backbone=Backbone("cnn", input_px=32),
    head=Head(hidden_units=16),
    recipe=Recipe(learning_rate=1e-3, max_epochs=2),
)


@pytest.fixture(scope="module")
def runs_template(tmp_path_factory: pytest.TempPathFactory, drawn_faces: FaceSet) -> Path:
    """A runs folder with one finished run and a fresh MLflow store, made once and copied."""
    runs_dir = tmp_path_factory.mktemp("template") / "mlruns"
    where = Settings(runs_dir, runs_dir / "weights", Device(torch.device("cpu"), "fp32"))
    list(run_all([EXPERIMENT], [0], drawn_faces, where))
    open_store(runs_dir)
    # A copy must look like a store that was never moved.
    (runs_dir / ".artifact_root").unlink()
    return runs_dir


@pytest.fixture
def runs_dir(runs_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs_template, tmp_path / "mlruns"))


def the_record(runs_dir: Path) -> RunRecord:
    return next(all_records(runs_dir))


def mlflow_runs(runs_dir: Path) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = open_store(runs_dir)
        experiments = [item.experiment_id for item in client.search_experiments()]
        return list(client.search_runs(experiments))


def test_a_finished_run_is_found_with_metrics_tags_note_and_pictures(runs_dir: Path) -> None:
    run_id = MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    (run,) = mlflow_runs(runs_dir)
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mtl-cnn-none-full-tiny · seed 0"
    assert run.data.tags["architecture"] == "cnn"
    assert run.data.tags["state"] == "done"
    assert "**Is it mirrored?**" in run.data.tags["mlflow.note.content"]
    assert run.data.params["recipe.max_epochs"] == "2"
    assert (
        run.data.metrics["test/race/accuracy"] == the_record(runs_dir).metrics["test/race/accuracy"]
    )
    client = open_store(runs_dir)
    pictures = {item.path for item in client.list_artifacts(run_id, "pictures")}
    assert "pictures/confusion_race.png" in pictures
    assert (
        run.inputs.dataset_inputs[0].dataset.name == the_record(runs_dir).about["dataset"]["name"]
    )


def test_mirroring_twice_changes_nothing(runs_dir: Path) -> None:
    first = MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    second = MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    assert first == second
    history = open_store(runs_dir).get_metric_history(first, "val/combined")
    assert [metric.step for metric in history] == [1, 2]


def test_an_epoch_logged_before_a_crash_is_not_logged_again(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    history = record.history()
    (record.folder / "done.json").rename(record.folder / "done.later")
    (record.folder / "history.csv").write_text(history.head(1).to_csv(index=False))
    run_id = MlflowMirror(runs_dir, print).mirror(record)
    (run,) = mlflow_runs(runs_dir)
    assert run.info.status == "RUNNING"
    (record.folder / "history.csv").write_text(history.to_csv(index=False))
    (record.folder / "done.later").rename(record.folder / "done.json")
    MlflowMirror(runs_dir, print).mirror(RunRecord(record.folder))
    steps = open_store(runs_dir).get_metric_history(run_id, "train/loss")
    assert [metric.step for metric in steps] == [1, 2]
    assert mlflow_runs(runs_dir)[0].info.status == "FINISHED"


def test_an_interrupted_run_is_reopened(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    (record.folder / "done.json").rename(record.folder / "done.later")
    (record.folder / "interrupted.json").write_text("{}")
    MlflowMirror(runs_dir, print).mirror(record)
    assert mlflow_runs(runs_dir)[0].info.status == "KILLED"
    (record.folder / "interrupted.json").unlink()
    MlflowMirror(runs_dir, print).mirror(record)
    (run,) = mlflow_runs(runs_dir)
    assert run.info.status == "RUNNING"
    assert run.data.tags["state"] == "running"


def test_a_second_attempt_is_a_new_run_that_names_the_old(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    first = MlflowMirror(runs_dir, print).mirror(record)
    text = (record.folder / "experiment.json").read_text()
    (record.folder / "experiment.json").write_text(text.replace('"attempt": 1', '"attempt": 2'))
    second = MlflowMirror(runs_dir, print).mirror(RunRecord(record.folder))
    tags = {run.info.run_id: run.data.tags for run in mlflow_runs(runs_dir)}
    assert set(tags) == {first, second}
    assert tags[second]["previous_attempt"] == first


def test_pictures_are_still_there_after_the_folder_moved(runs_dir: Path, tmp_path: Path) -> None:
    run_id = MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    moved = runs_dir.rename(tmp_path / "elsewhere")
    client = open_store(moved)
    assert client.list_artifacts(run_id, "pictures")
    assert str(moved) in client.get_run(run_id).info.artifact_uri


def test_runs_made_without_mlflow_are_imported_later(runs_dir: Path) -> None:
    assert mlflow_runs(runs_dir) == []
    imported = list(import_records(all_records(runs_dir), runs_dir))
    assert len(imported) == len(mlflow_runs(runs_dir)) == 1


def test_a_store_that_is_no_database_is_a_sentence_and_the_run_goes_on(runs_dir: Path) -> None:
    (runs_dir / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(TrackingError, match="the MLflow store cannot be used"):
        MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    heard: list[str] = []
    MlflowMirror(runs_dir, heard.append)(the_record(runs_dir))
    assert "facebench runs import" in heard[0]


def test_the_ui_is_served_on_this_machine_alone(runs_dir: Path) -> None:
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    command = server_command(runs_dir, 5055)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "/runs?workflowType=machine_learning&viewStateShareKey=facebench" in landing_path(
        runs_dir
    )
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_plans_name_one_folder(drawn_faces: FaceSet, runs_dir: Path) -> None:
    where = Settings(runs_dir, runs_dir / "weights", Device(torch.device("cpu"), "bf16"))
    assert plan_run(EXPERIMENT, 0, drawn_faces, where).folder == the_record(runs_dir).folder


def test_a_run_that_was_scored_again_has_its_new_numbers_once(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    run_id = MlflowMirror(runs_dir, print).mirror(record)
    path = record.folder / "metrics.json"
    content = json.loads(path.read_text())
    old = content["metrics"]["test/race/accuracy"]
    content["metrics"] |= {"test/race/accuracy": old / 2, "test/race/moon": 1.0}
    path.write_text(json.dumps(content))
    for _ in range(2):
        MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    client = open_store(runs_dir)
    history = client.get_metric_history(run_id, "test/race/accuracy")
    assert [metric.value for metric in history] == [old, old / 2]
    assert len(client.get_metric_history(run_id, "test/gender/accuracy")) == 1
    assert [metric.value for metric in client.get_metric_history(run_id, "test/race/moon")] == [1.0]


def test_a_mark_of_an_older_facebench_is_brought_up_to_date_once(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    run_id = MlflowMirror(runs_dir, print).mirror(record)
    client = open_store(runs_dir)
    client.set_tag(run_id, "facebench.mirrored", record.done["finished"])
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    (run,) = mlflow_runs(runs_dir)
    assert run.data.tags["facebench.mirrored"].startswith(record.done["finished"] + " ")
    assert len(client.get_metric_history(run_id, "test/race/accuracy")) == 1


def test_groups_and_gaps_are_metrics_tables_and_pictures(runs_dir: Path) -> None:
    run_id = MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    (run,) = mlflow_runs(runs_dir)
    assert "test/race/accuracy/low" in run.data.metrics
    client = open_store(runs_dir)
    paths = {
        item.path
        for folder in ("pictures", "tables", "record")
        for item in client.list_artifacts(run_id, folder)
    }
    assert paths >= {
        "pictures/heat_map_age_group.png", "pictures/subgroups_race.png",
        "pictures/reliability_gender.png", "tables/gaps.csv", "tables/subgroups.csv",
        "tables/label_suspects.csv", "record/calibration.json",
    }  # fmt: skip


def test_a_red_flag_is_a_tag_and_in_the_note(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    about = json.loads((record.folder / "experiment.json").read_text())
    about["dataset"] |= {"name": "utkface-100", "drawn": False}
    (record.folder / "experiment.json").write_text(json.dumps(about))
    path = record.folder / "metrics.json"
    content = json.loads(path.read_text())
    content["metrics"]["test/age_group/accuracy"] = 0.9
    path.write_text(json.dumps(content))
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    (run,) = mlflow_runs(runs_dir)
    assert run.data.tags["red_flag"] == "stopped: age group 90.0 % is above 83 %"
    assert "LEAK WARNING" in run.data.tags["mlflow.note.content"]
    acknowledge(the_record(runs_dir), "Looked at", "2026-11-24T10:00:00+00:00")
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    (run,) = mlflow_runs(runs_dir)
    assert run.data.tags["red_flag"].startswith("acknowledged: ")
