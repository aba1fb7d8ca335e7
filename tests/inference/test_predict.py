"""What a trained network says of pictures: as its run stored it, one row per face, none lost."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import benchmark
from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.evaluation.calibration import tempered
from benchmark.evaluation.predictions import probability_columns, read_predictions
from benchmark.inference.load import trained_run
from benchmark.inference.predict import Predictor, predict
from benchmark.record import all_records
from benchmark.tasks import CLASS_NAMES, TASKS
from benchmark.training.device import choose_device
from tests.data.sources import encoded, folder_of, picture
from tests.data.test_pictures import png_header

RUN = "mtl-cnn-none-full-tiny"
Stored = tuple[Path, pd.DataFrame]
COLUMNS = [column for task in TASKS for column in probability_columns(task)]


@pytest.fixture(scope="module")
def test_faces(
    tmp_path_factory: pytest.TempPathFactory, trained_runs_dir: Path, drawn_faces: FaceSet
) -> Stored:
    """The run's test faces as PNG files, and what is stored of them, in the files' order."""
    table = read_predictions(next(all_records(trained_runs_dir)).predictions_path)
    test = table[table["part"] == "test"].sort_values("file", ignore_index=True)
    folder = tmp_path_factory.mktemp("pictures")
    row_of = {file: row for row, file in enumerate(drawn_faces.table["file"])}
    for number, file in enumerate(test["file"]):
        pixels = np.asarray(drawn_faces.pixels()[row_of[file]])
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")
    return folder, test


def test_pictures_get_the_stored_predictions_again_in_order(
    test_faces: Stored, trained_runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stored = test_faces
    found = predict(folder, RUN, runs_dir=trained_runs_dir)
    assert len(found) == len(stored)
    np.testing.assert_allclose(found[COLUMNS], stored[COLUMNS], atol=1e-6)
    for task in TASKS:
        predicted = found[f"{task}_pred"].astype(int)
        assert (predicted == stored[f"{task}_pred"]).all()
        assert found[f"{task}_label"].tolist() == [CLASS_NAMES[task][it] for it in predicted]
        highest = found[probability_columns(task)].max(axis=1)
        assert (found[f"{task}_probability"] == highest).all()
    (checkpoint,) = trained_runs_dir.glob("work/*/model.safetensors")
    pd.testing.assert_frame_equal(benchmark.predict(folder, checkpoint), found)
    monkeypatch.setattr("benchmark.inference.predict.CHUNK_FACES", 7)
    pieces = predict(folder, RUN, runs_dir=trained_runs_dir)
    assert pieces["file"].tolist() == found["file"].tolist()
    np.testing.assert_allclose(pieces[COLUMNS], found[COLUMNS], atol=1e-6)


def test_calibrated_applies_the_temperatures_of_the_run_or_is_refused(
    trained_runs_dir: Path, test_faces: Stored
) -> None:
    network, device = trained_run(RUN, trained_runs_dir), choose_device("cpu", "fp32")
    network.temperatures.update(age_group=2.0, gender=0.5, race=1.0)
    found = Predictor(network, device, calibrated=True).read([test_faces[0]])
    for task, temperature in network.temperatures.items():
        columns = probability_columns(task)
        expected = tempered(test_faces[1][columns].to_numpy(), temperature)
        np.testing.assert_allclose(found[columns], expected, atol=1e-5)
    del network.temperatures["gender"]
    with pytest.raises(RunError, match="no temperature is known for gender") as caught:
        Predictor(network, device, calibrated=True)
    assert "rescore" in caught.value.fix


UNREADABLE = {
    "html.jpg": (b"<html>", "it is not a picture"),
    "cut.png": (encoded(picture(1), "PNG")[:200], "the picture is damaged"),
    "bomb.png": (png_header(60_000, 60_000), "the picture has more than 64,000,000 pixels"),
}


def test_pictures_without_an_answer_have_a_row_that_says_why(
    trained_runs_dir: Path, tmp_path: Path
) -> None:
    files = {name: content for name, (content, _) in UNREADABLE.items()}
    moving = encoded(picture(2), "GIF", save_all=True, append_images=[picture(3)])
    good = {"good.png": encoded(picture(1), "PNG"), "moving.gif": moving}
    folder = folder_of(tmp_path / "in", files | good)
    found = predict([folder, tmp_path / "gone.jpg"], RUN, runs_dir=trained_runs_dir)
    by_name = {Path(row["file"]).name: row for row in found.to_dict("records")}
    for name, (_, reason) in UNREADABLE.items():
        assert by_name[name]["reason"].startswith(reason)
        assert (by_name[name]["face"], by_name[name]["gender_label"]) == (0, "")
        assert pd.isna(by_name[name]["gender_pred"])
        assert np.isnan(by_name[name]["gender_p0"])
    assert by_name["gone.jpg"]["reason"] == "the file does not exist"
    for name in good:
        assert (by_name[name]["face"], by_name[name]["reason"]) == (1, "")
