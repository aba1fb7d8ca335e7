"""The network of a run, through MLflow and without: the stored predictions again, and no pickle."""

import json
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmark.data.dataset import FaceSet
from benchmark.errors import DataError, WeightsError
from benchmark.evaluation.predictions import probability_columns, read_predictions
from benchmark.inference.load import load_trained
from benchmark.record import RunRecord
from benchmark.tasks import TASKS
from benchmark.tracking import MlflowMirror, open_store, store_uri
from tests.tracking.conftest import mlflow_runs, the_record

mlflow = pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other

COLUMNS = [column for task in TASKS for column in probability_columns(task)]


def stored(
    record: RunRecord, faces: FaceSet
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Give a run's test faces as pixels, and the probabilities stored of them."""
    table = read_predictions(record.predictions_path)
    test = table[table["part"] == "test"]
    row_of = {file: row for row, file in enumerate(faces.table["file"])}
    pixels = np.stack([faces.pixels()[row_of[file]] for file in test["file"]])
    return pixels, test[COLUMNS].to_numpy()


def test_a_logged_network_gives_the_stored_predictions_again(
    runs_dir: Path, drawn_faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = the_record(runs_dir)
    MlflowMirror(runs_dir, print).mirror(record)
    (run,) = mlflow_runs(runs_dir)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri(runs_dir))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    pixels, expected = stored(record, drawn_faces)
    for uri in (
        f"models:/{run.outputs.model_outputs[0].model_id}",
        f"runs:/{run.info.run_id}/mtl-cnn-none-full-tiny-seed-0",
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answered = mlflow.pyfunc.load_model(uri).predict(pixels)
        # Sums in batches of another make-up differ in the last digits of fp32.
        np.testing.assert_allclose(answered[COLUMNS], expected, atol=1e-5)


def test_the_file_alone_gives_the_stored_predictions_again(
    runs_dir: Path, drawn_faces: FaceSet
) -> None:
    record = the_record(runs_dir)
    pixels, expected = stored(record, drawn_faces)
    trained = load_trained(record.folder / "model.safetensors")
    assert trained.experiment.as_dict() == {
        **trained.experiment.as_dict(), "name": record.experiment_name
    }  # fmt: skip
    np.testing.assert_allclose(trained.predict(pixels)[COLUMNS], expected, atol=1e-5)


def test_the_definition_in_the_file_is_the_one_that_was_run(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    definition = load_trained(record.folder / "model.safetensors").experiment.as_dict()
    assert json.loads(json.dumps(definition)) == record.about["experiment"]


def test_what_is_no_picture_of_a_face_is_refused(runs_dir: Path) -> None:
    trained = load_trained(the_record(runs_dir).folder / "model.safetensors")
    for pictures in (np.zeros((2, 32, 32, 3)), np.zeros((0, 32, 32, 3), np.uint8)):
        with pytest.raises(DataError, match="pictures as an array"):
            trained.predict(pictures)  # type: ignore[arg-type]


def test_a_file_that_no_run_wrote_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="does not say which network it is"):
        load_trained(tmp_path / "bare.safetensors")


def test_a_network_is_logged_once_and_replaced_when_trained_anew(runs_dir: Path) -> None:
    record = the_record(runs_dir)
    for _ in range(2):
        MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    client = open_store(runs_dir)
    (run,) = mlflow_runs(runs_dir)
    assert len(run.outputs.model_outputs) == 1
    done = json.loads((record.folder / "done.json").read_text())
    done["finished"] = "2027-01-01T00:00:00+00:00"
    (record.folder / "done.json").write_text(json.dumps(done))
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    models = client.search_logged_models([run.info.experiment_id])
    assert [model.name for model in models] == ["mtl-cnn-none-full-tiny-seed-0"]
    assert models[0].model_id != run.outputs.model_outputs[0].model_id


def test_a_run_that_kept_no_weights_has_no_network_in_mlflow(runs_dir: Path) -> None:
    (the_record(runs_dir).folder / "model.safetensors").unlink()
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    (run,) = mlflow_runs(runs_dir)
    assert not run.outputs or not run.outputs.model_outputs
    assert "load_model" not in run.data.tags["mlflow.note.content"]
