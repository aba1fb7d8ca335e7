"""MLflow mirrors the runs' folders: once, whatever happens, with what runs are compared by."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.evaluation.predictions import probability_columns, read_predictions
from benchmark.evaluation.red_flags import acknowledge
from benchmark.record import RunRecord, all_records
from benchmark.runs.plan import Settings
from benchmark.runs.run import run_all
from benchmark.tasks import TASKS
from benchmark.tracking import MlflowMirror, import_records, mirror_again, open_store, run_places
from benchmark.tracking import store as stores
from benchmark.tracking.notes import ATTEMPT_TAG, IDENTITY_TAG, TRAINING_TAG
from benchmark.training.device import Device
from tests.tracking.conftest import EXPERIMENT, MakeStore, mlflow_runs, the_record

mlflow = pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other


def mirrored(runs_dir: Path) -> Any:
    """Mirror the run as it is now, by a mirror of its own, and give what MLflow has."""
    run_id = MlflowMirror(runs_dir, pytest.fail).mirror(the_record(runs_dir))
    return open_store(runs_dir).get_run(run_id)


@pytest.fixture(scope="module")
def shown(make_runs_dir: MakeStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A runs folder and its one run in MLflow, to be read alone."""
    runs_dir = make_runs_dir(tmp_path_factory.mktemp("shown") / "mlruns")
    return runs_dir, mirrored(runs_dir)


def changed_json(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_finished_run_has_its_faces_as_inputs_and_what_runs_are_compared_by(
    shown: tuple[Path, Any],
) -> None:
    runs_dir, run = shown
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "done")
    assert run.info.run_name == "mtl-cnn-none-full-tiny · seed 0"
    assert run.data.tags["architecture"] == "cnn"
    assert run.data.params["recipe.max_epochs"] == "2"
    expected = {"train/loss", "val/combined", "selected/val/combined", "test/combined"}
    for task in TASKS:
        expected |= {f"train/{task}/accuracy", f"val/{task}/accuracy"}
        # Of so few faces, no crossing of gender and race has enough for a worst and a gap.
        expected |= {f"test/{task}/{name}" for name in ("accuracy", "macro_f1")}
    costs = ("parameters", "gmacs", "images_per_second", "seconds", "peak_memory_mib")
    assert set(run.data.metrics) == expected | {f"cost/{name}" for name in costs}
    metrics = the_record(runs_dir).metrics
    assert run.data.metrics["test/race/accuracy"] == metrics["test/race/accuracy"]
    assert len(run.data.params) <= 31
    about = the_record(runs_dir).about["dataset"]
    found = {item.tags[0].value: item.dataset for item in run.inputs.dataset_inputs}
    assert set(found) == {"training", "validation", "test"}
    assert found["training"].name == "drawn-v1 · train"
    digest = f"{about['pixel_digest'][:8]}-{about['split_digest'][:8]}"
    assert {dataset.digest for dataset in found.values()} == {digest}
    assert json.loads(found["test"].profile) == {"faces": about["counts"]["test"]}
    assert json.loads(found["test"].source)["split_digest"] == about["split_digest"]


def test_every_bound_and_subgroup_is_in_a_table_of_mlflow(
    shown: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_dir, run = shown
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stores.store_uri(runs_dir))
    client = open_store(runs_dir)
    scores = client.load_table(run.info.experiment_id, "tables/scores.json").set_index("score")
    metrics = the_record(runs_dir).metrics
    low = scores.loc["test/race/accuracy", "low"]
    assert low == pytest.approx(metrics["test/race/accuracy/low"])
    assert scores.loc["test/race/ece", "value"] == pytest.approx(metrics["test/race/ece"])
    subgroups = client.load_table(run.info.experiment_id, "tables/subgroups.json")
    assert len(subgroups) == len(the_record(runs_dir).subgroups())


def test_artifacts_are_few_and_not_stored_twice(shown: tuple[Path, Any]) -> None:
    run, record = shown[1], the_record(shown[0])
    folder = stores.local_folder(run.info.artifact_uri)
    assert folder is not None
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) <= 20
    assert sum(path.stat().st_size for path in files) < 2_000_000
    by_name = {path.name: path for path in files}
    assert {"confusion.png", "subgroups.csv", "gaps.csv", "experiment.json"} <= set(by_name)
    for name in ("metrics.json", "curves.png"):
        assert os.path.samefile(by_name[name], record.folder / name), name
    note = run.data.tags["mlflow.note.content"]
    assert "**Is it mirrored?**" in note
    # MLflow folds a note, and of what is left only the first lines can be clicked on.
    page = f"/runs/{run.info.run_id}/artifacts/pictures/confusion.png)"
    assert page in note.splitlines()[0]


def test_mirroring_twice_changes_nothing(shown: tuple[Path, Any]) -> None:
    runs_dir, first = shown
    assert first.to_dictionary() == mirrored(runs_dir).to_dictionary()
    history = open_store(runs_dir).get_metric_history(first.info.run_id, "val/combined")
    assert [metric.step for metric in history] == [1, 2]
    models = open_store(runs_dir).search_logged_models([first.info.experiment_id])
    assert [model.name for model in models] == ["mtl-cnn-none-full-tiny-seed-0"]


def test_an_interrupted_run_is_reopened_and_no_epoch_is_logged_again(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    history = record.history()
    (record.folder / "done.json").rename(record.folder / "done.later")
    (record.folder / "history.csv").write_text(history.head(1).to_csv(index=False))
    (record.folder / "interrupted.json").write_text("{}")
    assert mirrored(runs_dir).info.status == "KILLED"
    (record.folder / "interrupted.json").unlink()
    run = mirrored(runs_dir)
    assert (run.info.status, run.data.tags["state"]) == ("RUNNING", "running")
    (record.folder / "history.csv").write_text(history.to_csv(index=False))
    (record.folder / "done.later").rename(record.folder / "done.json")
    assert mirrored(runs_dir).info.status == "FINISHED"
    steps = open_store(runs_dir).get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in steps] == [1, 2]


def test_a_run_that_was_scored_again_has_its_new_numbers_once(runs_dir: Path) -> None:
    run_id = mirrored(runs_dir).info.run_id
    old, metrics = the_record(runs_dir).metrics["test/race/accuracy"], "metrics.json"
    new = {"test/race/accuracy": old / 2}
    changed_json(the_record(runs_dir).folder / metrics, lambda it: it["metrics"].update(new))
    mirrored(runs_dir)
    run = mirrored(runs_dir)
    client = open_store(runs_dir)
    history = client.get_metric_history(run_id, "test/race/accuracy")
    assert [metric.value for metric in history] == [old, old / 2]
    assert run.data.metrics["test/race/accuracy"] == old / 2
    # A mark of an older version is brought up to date, and logs nothing again.
    finished = the_record(runs_dir).done["finished"]
    client.set_tag(run_id, "facebench.mirrored", finished)
    assert mirrored(runs_dir).data.tags["facebench.mirrored"].startswith(finished + " ")
    assert len(client.get_metric_history(run_id, "test/gender/accuracy")) == 1


def test_a_red_flag_is_a_tag_and_in_the_note(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    photographs = {"name": "utkface-100", "drawn": False}
    changed_json(record.folder / "experiment.json", lambda it: it["dataset"].update(photographs))
    flagged = {"test/age_group/accuracy": 0.9}
    changed_json(record.folder / "metrics.json", lambda it: it["metrics"].update(flagged))
    run = mirrored(runs_dir)
    assert run.data.tags["red_flag"] == "stopped: age group 90.0 % is above 83 %"
    assert "LEAK WARNING" in run.data.tags["mlflow.note.content"]
    acknowledge(the_record(runs_dir), "Looked at", "2026-11-24T10:00:00+00:00")
    assert mirrored(runs_dir).data.tags["red_flag"].startswith("acknowledged: ")


def test_a_run_that_was_created_and_not_described_is_described_later(runs_dir: Path) -> None:
    """As a process leaves it that is killed between the two."""
    record = the_record(runs_dir)
    mirror = MlflowMirror(runs_dir, pytest.fail)
    experiment = mirror.experiment_id(record.about["dataset"], of_searches=False)
    tags = {IDENTITY_TAG: record.identity, ATTEMPT_TAG: "1"}
    tags[TRAINING_TAG] = record.about["training"]
    made = mirror.client.create_run(experiment, tags=tags)
    run = mirrored(runs_dir)
    assert run.info.run_id == made.info.run_id
    assert run.data.params["recipe.max_epochs"] == "2"
    assert run.inputs.dataset_inputs


def test_a_card_reaches_mlflow_only_where_the_run_is(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    (record.folder / "card.md").write_text("# A card")
    assert mirror_again(record, runs_dir) is False
    run_id = mirrored(runs_dir).info.run_id
    (record.folder / "card.md").unlink()
    (record.folder / "card.md").write_text("# A better card")
    assert mirror_again(RunRecord(record.folder), runs_dir) is True
    client = open_store(runs_dir)
    assert [item.path for item in client.list_artifacts(run_id, "card")] == ["card/card.md"]
    (runs_dir / "mlflow.db").unlink()
    assert mirror_again(record, runs_dir) is False
    assert not (runs_dir / "mlflow.db").exists()


def test_a_failed_run_says_why_in_its_note(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    (record.folder / "done.json").unlink()
    failed = {"schema": 1, "why": "<b>no</b> memory", "traceback": "line\n" * 9_000 + "The end"}
    (record.folder / "failed.json").write_text(json.dumps(failed))
    run = mirrored(runs_dir)
    note = run.data.tags["mlflow.note.content"]
    assert run.info.status == "FAILED"
    assert "**Failed**: &lt;b&gt;no&lt;/b&gt; memory" in note
    assert len(note) < 8_000


def test_a_run_of_an_older_layout_is_left_out_and_the_others_are_imported(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    older = runs_dir / "work" / ("0" * 64)
    shutil.copytree(record.folder, older)
    changed_json(older / "experiment.json", lambda content: content.pop("versions"))
    left_out: list[RunError] = []
    imported = list(import_records(all_records(runs_dir), runs_dir, left_out.append))
    assert [item.folder for item, _ in imported] == [record.folder]
    assert "run 000000000000 hold too little for MLflow (KeyError: 'versions')" in str(left_out[0])


def test_a_logged_network_gives_the_stored_predictions_again(
    shown: tuple[Path, Any], drawn_faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs_dir, run), record = shown, the_record(shown[0])
    model_id = run.outputs.model_outputs[0].model_id
    assert f'load_model("models:/{model_id}")' in run.data.tags["mlflow.note.content"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stores.store_uri(runs_dir))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    table = read_predictions(record.predictions_path)
    test = table[table["part"] == "test"]
    row_of = {file: row for row, file in enumerate(drawn_faces.table["file"])}
    pixels = np.stack([drawn_faces.pixels()[row_of[file]] for file in test["file"]])
    columns = [column for task in TASKS for column in probability_columns(task)]
    for uri in (f"models:/{model_id}", f"runs:/{run.info.run_id}/mtl-cnn-none-full-tiny-seed-0"):
        model = mlflow.pyfunc.load_model(uri)
        predicted = model.predict(pixels)
        # Sums in batches of another make-up differ in the last digits of fp32.
        np.testing.assert_allclose(predicted[columns], test[columns].to_numpy(), atol=1e-5)
    signature = model.metadata.signature
    assert [column.name for column in signature.outputs] == list(predicted.columns)
    logged = open_store(runs_dir).get_logged_model(model_id)
    assert logged.tags["mlflow.note.content"].startswith("mtl-cnn-none-full-tiny, seed 0")
    assert {metric.dataset_name for metric in logged.metrics} == {"drawn-v1 · test"}
    weights = Path(str(stores.local_folder(logged.artifact_location))) / "model.safetensors"
    assert os.path.samefile(weights, record.folder / "model.safetensors")


def test_a_network_is_replaced_when_trained_anew_and_a_second_attempt_names_the_first(
    runs_dir: Path,
) -> None:
    first, record = mirrored(runs_dir), the_record(runs_dir)
    changed_json(
        record.folder / "done.json",
        lambda content: content.update(finished="2027-01-01T00:00:00+00:00"),
    )
    mirrored(runs_dir)
    (model,) = open_store(runs_dir).search_logged_models([first.info.experiment_id])
    assert model.model_id != first.outputs.model_outputs[0].model_id
    changed_json(record.folder / "experiment.json", lambda content: content.update(attempt=2))
    (record.folder / "model.safetensors").unlink()
    bare = mirrored(runs_dir)
    assert bare.data.tags["previous_attempt"] == first.info.run_id
    assert len(mlflow_runs(runs_dir)) == 2
    assert not bare.outputs or not bare.outputs.model_outputs
    assert "load_model" not in bare.data.tags["mlflow.note.content"]


def test_a_folder_removed_and_trained_again_is_another_run_with_its_own_curve(
    runs_dir: Path, drawn_faces: FaceSet
) -> None:
    first, record = mirrored(runs_dir), the_record(runs_dir)
    kept = the_record(runs_dir).about["training"]
    changed_json(record.folder / "experiment.json", lambda content: content.update(commit="later"))
    assert mirrored(runs_dir).info.run_id == first.info.run_id, "the same training"
    shutil.rmtree(record.folder)
    where = Settings(runs_dir, runs_dir / "weights", Device(torch.device("cpu"), "fp32"))
    list(run_all([EXPERIMENT], [0], drawn_faces, where))
    assert the_record(runs_dir).about["training"] != kept
    table = record.history().assign(**{"train/loss": [7.0, 6.0]})
    table.to_csv(record.folder / "history.csv", index=False)
    MlflowMirror(runs_dir, pytest.fail).mirror(record)
    MlflowMirror(runs_dir, pytest.fail).mirror(record)
    runs = {run.info.run_id: run for run in mlflow_runs(runs_dir)}
    assert len(runs) == 2
    before = runs.pop(first.info.run_id)
    ((run_id, after),) = runs.items()
    client = open_store(runs_dir)
    curve = [(m.step, m.value) for m in client.get_metric_history(run_id, "train/loss")]
    assert curve == [(1, 7.0), (2, 6.0)]
    assert before.data.metrics["train/loss"] == first.data.metrics["train/loss"]
    assert before.data.tags["superseded_by"] == run_id
    assert before.data.tags["state"] == "superseded"
    assert after.data.tags["state"] == "done"
    assert run_places(runs_dir)[record.identity][1] == run_id


def test_artifacts_that_are_gone_are_logged_again(runs_dir: Path) -> None:
    mirrored(runs_dir)
    names = sorted(path.name for path in (runs_dir / "artifacts").rglob("*.*"))
    assert "model.safetensors" in names
    shutil.rmtree(runs_dir / "artifacts")
    run = mirrored(runs_dir)
    assert sorted(path.name for path in (runs_dir / "artifacts").rglob("*.*")) == names
    assert len(open_store(runs_dir).search_logged_models([run.info.experiment_id])) == 1
