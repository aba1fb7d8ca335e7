"""MLflow mirrors the runs' folders: once, whatever happens, with what runs are compared by."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.cli.maintenance import import_
from benchmark.cli.output import CommandResult
from benchmark.data.dataset import FaceSet
from benchmark.evaluation.predictions import probability_columns, read_predictions
from benchmark.evaluation.red_flags import acknowledge
from benchmark.files import write_json
from benchmark.tasks import TASKS
from benchmark.tracking.store import local_folder, open_store, run_places, store_uri
from tests.runs.small import Place, edit_json
from tests.tracking.conftest import MakeStore, logged, mirrored, mlflow_runs, the_record

mlflow = pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other
NAME = "mtl-cnn-none-full-tiny"


@pytest.fixture(scope="module")
def shown(make_runs_dir: MakeStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A runs folder and its one run in MLflow, to be read alone."""
    runs_dir = make_runs_dir(tmp_path_factory.mktemp("shown") / "mlruns")
    return runs_dir, mirrored(runs_dir)


def updated(runs_dir: Path, file: str, part: str, **values: Any) -> None:
    """Change values of a part of a JSON file of the run's folder; of the whole without a part."""
    path = the_record(runs_dir).folder / file
    edit_json(path, lambda content: (content[part] if part else content).update(values))


def test_a_finished_run_has_its_faces_as_inputs_and_what_runs_are_compared_by(
    shown: tuple[Path, Any],
) -> None:
    runs_dir, run = shown
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "done")
    assert run.info.run_name == f"{NAME} · seed 0"
    assert (run.data.tags["architecture"], run.data.params["recipe.max_epochs"]) == ("cnn", "2")
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
    assert json.loads(found["test"].profile) == {"faces": about["counts"]["test"]}
    assert json.loads(found["test"].source)["split_digest"] == about["split_digest"]


def test_artifacts_are_few_and_not_stored_twice_and_tables_hold_every_bound_and_subgroup(
    shown: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs_dir, run), record = shown, the_record(shown[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(runs_dir))
    scores, subgroups = (
        open_store(runs_dir).load_table(run.info.experiment_id, f"tables/{name}.json")
        for name in ("scores", "subgroups")
    )
    low = scores.set_index("score").loc["test/race/accuracy", "low"]
    assert low == pytest.approx(record.metrics["test/race/accuracy/low"])
    assert len(subgroups) == len(record.subgroups())
    folder = Path(str(local_folder(run.info.artifact_uri)))
    by_name = {path.name: path for path in folder.rglob("*") if path.is_file()}
    assert len(by_name) <= 20
    assert sum(path.stat().st_size for path in by_name.values()) < 2_000_000
    assert {"confusion.png", "subgroups.csv", "gaps.csv", "experiment.json"} <= set(by_name)
    for name in ("metrics.json", "curves.png"):
        assert os.path.samefile(by_name[name], record.folder / name), name
    note = run.data.tags["mlflow.note.content"]
    assert f"**{record.about['experiment']['asks']}**" in note
    # MLflow folds a note, and of what is left only the first lines can be clicked on.
    page = f"/runs/{run.info.run_id}/artifacts/pictures/confusion.png)"
    assert page in note.splitlines()[0]


def test_mirroring_twice_changes_nothing(shown: tuple[Path, Any]) -> None:
    runs_dir, first = shown
    assert first.to_dictionary() == mirrored(runs_dir).to_dictionary()
    assert [step for step, _ in logged(runs_dir, first.info.run_id, "val/combined")] == [1, 2]


def test_a_run_is_shown_as_it_stands_reopened_and_no_epoch_is_logged_again(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    history = record.history()
    (record.folder / "done.json").rename(record.folder / "done.later")
    (record.folder / "history.csv").write_text(history.head(1).to_csv(index=False))
    (record.folder / "interrupted.json").write_text("{}")
    assert mirrored(runs_dir).info.status == "KILLED"
    (record.folder / "interrupted.json").unlink()
    failed = {"schema": 1, "why": "<b>no</b> memory", "traceback": "line\n" * 9_000 + "The end"}
    write_json(record.folder / "failed.json", failed)
    run = mirrored(runs_dir)
    note = run.data.tags["mlflow.note.content"]
    assert run.info.status == "FAILED"
    assert "**Failed**: &lt;b&gt;no&lt;/b&gt; memory" in note
    assert len(note) < 8_000, "MLflow takes no longer one"
    (record.folder / "failed.json").unlink()
    run = mirrored(runs_dir)
    assert (run.info.status, run.data.tags["state"]) == ("RUNNING", "running")
    (record.folder / "history.csv").write_text(history.to_csv(index=False))
    (record.folder / "done.later").rename(record.folder / "done.json")
    assert mirrored(runs_dir).info.status == "FINISHED"
    assert [step for step, _ in logged(runs_dir, run.info.run_id, "train/loss")] == [1, 2]


def test_a_run_that_was_scored_again_has_its_new_numbers_once(runs_dir: Path) -> None:
    run_id, name = mirrored(runs_dir).info.run_id, "test/race/accuracy"
    old = the_record(runs_dir).metrics[name]
    updated(runs_dir, "metrics.json", "metrics", **{name: old / 2})
    mirrored(runs_dir)
    assert mirrored(runs_dir).data.metrics[name] == old / 2
    assert [value for _, value in logged(runs_dir, run_id, name)] == [old, old / 2]
    # A mark of an older version is brought up to date, and logs nothing again.
    finished = the_record(runs_dir).done["finished"]
    open_store(runs_dir).set_tag(run_id, "facebench.mirrored", finished)
    (the_record(runs_dir).folder / "card.md").write_text("# A card")
    assert mirrored(runs_dir).data.tags["facebench.mirrored"].startswith(finished + " ")
    assert len(logged(runs_dir, run_id, "test/gender/accuracy")) == 1
    assert open_store(runs_dir).list_artifacts(run_id, "card")[0].path == "card/card.md"


def test_a_red_flag_is_in_the_note(runs_dir: Path) -> None:
    updated(runs_dir, "experiment.json", "dataset", name="utkface-100", drawn=False)
    updated(runs_dir, "metrics.json", "metrics", **{"test/age_group/accuracy": 0.9})
    note = mirrored(runs_dir).data.tags["mlflow.note.content"]
    assert "LEAK WARNING, not ranked: age group 90.0 % is above 83 %" in note
    acknowledge(the_record(runs_dir), "Looked at", "2026-11-24T10:00:00+00:00")
    assert "RED FLAG, acknowledged" in mirrored(runs_dir).data.tags["mlflow.note.content"]


def test_a_run_of_an_older_layout_is_left_out_and_the_others_are_imported(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    older = runs_dir / "work" / ("0" * 64)
    shutil.copytree(record.folder, older)
    edit_json(older / "experiment.json", lambda content: content.pop("versions"))
    import_(answer := CommandResult(), runs_dir)
    assert [item["identity"] for item in answer.data["runs"]] == [record.identity]
    (said,) = answer.warnings
    assert "left out: the files of run 000000000000 hold too little for MLflow" in said


def test_a_logged_network_gives_the_stored_predictions_again(
    shown: tuple[Path, Any], drawn_faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs_dir, run), record = shown, the_record(shown[0])
    model_id = run.outputs.model_outputs[0].model_id
    assert f'load_model("models:/{model_id}")' in run.data.tags["mlflow.note.content"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(runs_dir))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    table = read_predictions(record.predictions_path)
    test = table[table["part"] == "test"]
    rows = pd.Index(drawn_faces.table["file"]).get_indexer(test["file"])
    pixels = drawn_faces.pixels()[rows]
    columns = [column for task in TASKS for column in probability_columns(task)]
    model = mlflow.pyfunc.load_model(f"models:/{model_id}")
    predicted = model.predict(pixels)
    # Sums in batches of another make-up differ in the last digits of fp32.
    np.testing.assert_allclose(predicted[columns], test[columns].to_numpy(), atol=1e-5)
    assert [it.name for it in model.metadata.signature.outputs] == list(predicted.columns)
    kept = open_store(runs_dir).get_logged_model(model_id)
    assert kept.tags["mlflow.note.content"].startswith(f"{NAME}, seed 0")
    assert {metric.dataset_name for metric in kept.metrics} == {"drawn-v1 · test"}
    weights = Path(str(local_folder(kept.artifact_location))) / "model.safetensors"
    assert os.path.samefile(weights, record.folder / "model.safetensors")


def test_a_network_is_replaced_when_trained_anew_and_a_second_attempt_is_another_run(
    runs_dir: Path,
) -> None:
    first = mirrored(runs_dir)
    updated(runs_dir, "done.json", "", finished="2027-01-01T00:00:00+00:00")
    mirrored(runs_dir)
    (model,) = open_store(runs_dir).search_logged_models([first.info.experiment_id])
    assert model.model_id != first.outputs.model_outputs[0].model_id
    updated(runs_dir, "experiment.json", "", attempt=2)
    (the_record(runs_dir).folder / "model.safetensors").unlink()
    bare = mirrored(runs_dir)
    assert len(mlflow_runs(runs_dir)) == 2
    assert not bare.outputs or not bare.outputs.model_outputs
    assert "load_model" not in bare.data.tags["mlflow.note.content"]


def test_a_folder_removed_and_trained_again_is_another_run_with_its_own_curve(
    runs_dir: Path, drawn_faces: FaceSet
) -> None:
    first, record = mirrored(runs_dir), the_record(runs_dir)
    updated(runs_dir, "experiment.json", "", commit="later")
    assert mirrored(runs_dir).info.run_id == first.info.run_id, "the same training"
    shutil.rmtree(record.folder)
    Place(drawn_faces, runs_dir).done()
    table = record.history().assign(**{"train/loss": [7.0, 6.0]})
    table.to_csv(record.folder / "history.csv", index=False)
    mirrored(runs_dir)
    run_id = mirrored(runs_dir).info.run_id
    (before,) = (run.data for run in mlflow_runs(runs_dir) if run.info.run_id != run_id)
    assert logged(runs_dir, run_id, "train/loss") == [(1, 7.0), (2, 6.0)]
    assert before.metrics["train/loss"] == first.data.metrics["train/loss"]
    assert (before.tags["superseded_by"], before.tags["state"]) == (run_id, "superseded")
    assert run_places(runs_dir)[record.identity][1] == run_id


def test_of_two_runs_that_processes_made_at_once_one_is_superseded(runs_dir: Path) -> None:
    first = mirrored(runs_dir)
    open_store(runs_dir).create_run(first.info.experiment_id, tags=first.data.tags)
    kept = mirrored(runs_dir).info.run_id
    by = {it.info.run_id: it.data.tags.get("superseded_by") for it in mlflow_runs(runs_dir)}
    assert (by.pop(kept), [*by.values()]) == (None, [kept])


def test_artifacts_that_are_gone_are_logged_again(runs_dir: Path) -> None:
    found = []
    for _ in range(2):
        run = mirrored(runs_dir)
        found.append(sorted(path.name for path in (runs_dir / "artifacts").rglob("*.*")))
        shutil.rmtree(runs_dir / "artifacts")
    assert found[0] == found[1]
    assert "model.safetensors" in found[0]
    assert len(open_store(runs_dir).search_logged_models([run.info.experiment_id])) == 1
