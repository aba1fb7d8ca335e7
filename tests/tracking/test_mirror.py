"""MLflow mirrors the runs' folders: once, whatever happens, and without a word to the outside."""

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.evaluation.red_flags import acknowledge
from benchmark.record import RunRecord, all_records
from benchmark.runs.notes import ATTEMPT_TAG, IDENTITY_TAG
from benchmark.runs.plan import Settings, plan_run
from benchmark.tracking import MlflowMirror, import_records, mirror_again, open_store
from benchmark.training.device import Device
from tests.tracking.conftest import EXPERIMENT, mlflow_runs, the_record

pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other


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
    assert "pictures/confusion.png" in pictures


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


def test_runs_made_without_mlflow_are_imported_later(runs_dir: Path) -> None:
    assert mlflow_runs(runs_dir) == []
    imported = list(import_records(all_records(runs_dir), runs_dir))
    assert len(imported) == len(mlflow_runs(runs_dir)) == 1


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
        "pictures/heat_map.png", "pictures/subgroups.png",
        "pictures/reliability.png", "tables/gaps.csv", "tables/subgroups.csv",
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


def test_the_faces_of_each_part_are_inputs_with_their_digests(runs_dir: Path) -> None:
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    (run,) = mlflow_runs(runs_dir)
    about = the_record(runs_dir).about["dataset"]
    found = {item.tags[0].value: item.dataset for item in run.inputs.dataset_inputs}
    assert set(found) == {"training", "validation", "test"}
    assert found["training"].name == "drawn-v1 · train"
    digest = f"{about['pixel_digest'][:8]}-{about['split_digest'][:8]}"
    assert {dataset.digest for dataset in found.values()} == {digest}
    assert json.loads(found["test"].profile) == {"faces": about["counts"]["test"]}
    assert json.loads(found["test"].source)["split_digest"] == about["split_digest"]


def test_a_note_leads_to_the_pictures_and_to_the_network(runs_dir: Path) -> None:
    run_id = MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    (run,) = mlflow_runs(runs_dir)
    lines = run.data.tags["mlflow.note.content"].splitlines()
    # MLflow folds a note, and of what is left only the first lines can be clicked on.
    assert f"/runs/{run_id}/artifacts/pictures/confusion.png)" in lines[0]
    assert f"/runs/{run_id}/artifacts/pictures/subgroups.png)" in lines[0]
    model_id = run.outputs.model_outputs[0].model_id
    assert f'mlflow.pyfunc.load_model("models:/{model_id}")' in "\n".join(lines)


def test_a_card_reaches_mlflow_only_where_the_run_is(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    (record.folder / "card.md").write_text("# A card")
    assert mirror_again(record, runs_dir) is False
    run_id = MlflowMirror(runs_dir, print).mirror(record)
    (record.folder / "card.md").write_text("# A better card")
    assert mirror_again(RunRecord(record.folder), runs_dir) is True
    client = open_store(runs_dir)
    assert [item.path for item in client.list_artifacts(run_id, "card")] == ["card/card.md"]


def test_a_run_folder_without_a_store_gets_none_for_a_card(runs_dir: Path) -> None:
    (runs_dir / "mlflow.db").unlink()
    assert mirror_again(the_record(runs_dir), runs_dir) is False
    assert not (runs_dir / "mlflow.db").exists()


def test_system_metrics_are_kept_of_runs_that_take_their_time(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    record = the_record(runs_dir)
    (record.folder / "done.json").rename(record.folder / "done.later")
    mirror = MlflowMirror(runs_dir, pytest.fail)
    mirror(record)
    deadline = time.monotonic() + 10
    while not _system_metrics(runs_dir) and time.monotonic() < deadline:
        time.sleep(0.05)
    (record.folder / "done.later").rename(record.folder / "done.json")
    mirror(RunRecord(record.folder))
    assert "system/cpu_utilization_percentage" in _system_metrics(runs_dir)
    assert not [item for item in threading.enumerate() if item.name == "SystemMetricsMonitor"]


def _system_metrics(runs_dir: Path) -> set[str]:
    (run,) = mlflow_runs(runs_dir)
    return {name for name in run.data.metrics if name.startswith("system/")}


def test_a_failed_run_says_why_in_its_note(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    (record.folder / "done.json").unlink()
    failed = {"schema": 1, "why": "<b>no</b> memory", "traceback": "line\n" * 9_000 + "The end"}
    (record.folder / "failed.json").write_text(json.dumps(failed))
    MlflowMirror(runs_dir, print).mirror(RunRecord(record.folder))
    (run,) = mlflow_runs(runs_dir)
    note = run.data.tags["mlflow.note.content"]
    assert run.info.status == "FAILED"
    assert "**Failed**: &lt;b&gt;no&lt;/b&gt; memory" in note
    assert "The end\n```" in note
    assert len(note) < 8_000


def test_a_run_of_an_older_layout_is_left_out_and_the_others_are_imported(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    older = runs_dir / "work" / ("0" * 64)
    shutil.copytree(record.folder, older)
    about = json.loads((older / "experiment.json").read_text())
    del about["versions"]
    (older / "experiment.json").write_text(json.dumps(about))
    left_out: list[RunError] = []
    imported = list(import_records(all_records(runs_dir), runs_dir, left_out.append))
    assert [item.folder for item, _ in imported] == [record.folder]
    assert "run 000000000000 hold too little for MLflow (KeyError: 'versions')" in str(left_out[0])


def test_a_run_that_was_created_and_not_described_is_described_later(runs_dir: Path) -> None:
    """As a process leaves it that is killed between the two."""
    record = the_record(runs_dir)
    mirror = MlflowMirror(runs_dir, print)
    experiment = mirror.experiment_id(record.about["dataset"])
    mirror.client().create_run(
        experiment,
        tags={IDENTITY_TAG: record.identity, ATTEMPT_TAG: str(record.about.get("attempt", 1))},
    )
    MlflowMirror(runs_dir, print).mirror(record)
    (run,) = mlflow_runs(runs_dir)
    assert run.data.params["recipe.max_epochs"] == "2"
    assert run.inputs.dataset_inputs
