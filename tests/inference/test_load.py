"""Which network is meant; of pictures it says what its run stored; exported, it says the same."""

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import benchmark
from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError, WeightsError
from benchmark.evaluation.calibration import tempered
from benchmark.evaluation.predictions import probability_columns, read_predictions
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.experiment.parts import Conditioning
from benchmark.inference import export as exporting
from benchmark.inference.export import Portable, export, random_pictures
from benchmark.inference.load import TrainedNetwork, load_trained, trained_run
from benchmark.inference.predict import Predictor, predict
from benchmark.models.network import InputScaling, build_network
from benchmark.models.weight_formats import header_of
from benchmark.models.weight_manifest import CAFFE
from benchmark.record import RunRecord, all_records
from benchmark.tasks import CLASS_NAMES, TASKS
from benchmark.training.device import choose_device
from tests.data.sources import encoded, folder_of, picture
from tests.data.test_pictures import png_header
from tests.models.keras import Evil


@pytest.fixture
def runs_dir(trained_runs_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_runs_dir, tmp_path / "mlruns"))


@pytest.fixture
def record(runs_dir: Path) -> RunRecord:
    return next(all_records(runs_dir))


def test_a_run_is_named_by_its_first_digits_its_experiment_or_its_file(
    runs_dir: Path, record: RunRecord, tmp_path: Path
) -> None:
    path, model = record.folder / "calibration.json", record.folder / "model.safetensors"
    said = json.loads(path.read_text())
    said["tasks"]["race"] |= {"temperature": 20.0, "temperature_is_at_an_end": True}
    path.write_text(json.dumps(said))
    for name in (record.identity, record.identity[:8], "mtl-cnn-none-full-tiny", model):
        network = trained_run(name, runs_dir)
        assert (network.path, network.faces_px) == (model, 32)
        assert network.record is not None
        assert network.temperatures == {"age_group": 1.5, "gender": 1.5}
    moved = trained_run(Path(shutil.copy(model, tmp_path / "mine.safetensors")), runs_dir)
    assert (moved.record, moved.faces_px, moved.temperatures) == (None, 32, {})


def test_a_run_that_cannot_be_used_is_said_to_be_so(runs_dir: Path, record: RunRecord) -> None:
    for name in ("ffffffff", "mtl-vgg16-imagenet-full", "../..", "abc", "*"):
        with pytest.raises(RunError, match="there is no run"):
            trained_run(name, runs_dir)
    other = Path(shutil.copytree(record.folder, record.folder.with_name("0" * 64)))
    with pytest.raises(RunError, match="means 2 finished runs") as caught:
        trained_run("mtl-cnn-none-full-tiny", runs_dir)
    assert record.identity[:12] in caught.value.allowed
    about = json.loads((other / "experiment.json").read_text())
    (other / "experiment.json").write_text(json.dumps(about | {"ad_hoc": True}))
    assert trained_run("mtl-cnn-none-full-tiny", runs_dir).record == record  # the other has --set
    (record.folder / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"kept no weights.*--keep-weights"):
        trained_run(record.identity, runs_dir)
    (record.folder / "done.json").unlink()
    with pytest.raises(RunError, match="is not done but interrupted"):
        trained_run(record.identity, runs_dir)


def test_files_that_are_no_checkpoints_are_refused_and_their_code_is_not_run(
    record: RunRecord, tmp_path: Path
) -> None:
    folder, trap = tmp_path / "files", tmp_path / "ran"
    folder.mkdir()
    model = record.folder / "model.safetensors"
    (folder / "cut").write_bytes(model.read_bytes()[:-100])
    (folder / "plain.pt").write_bytes(pickle.dumps(Evil(trap)))
    torch.save({"weight": Evil(trap)}, folder / "zip.pt")
    torch.save({"weight": torch.zeros(2)}, folder / "tensors.pt")
    header = header_of(model)
    for name, changes in {
        "other": {"experiment": header["experiment"].replace("cnn", "vgg16")},
        "odd1": {"experiment": "{}"}, "odd2": {"experiment": "not json"},
        "odd3": {"network": "null"}, "odd4": {"network": '{"schema": 1}'},
        "odd5": {"network": '{"schema": 1, "preprocessing": {}, "options": {}}'},
        "odd6": {"network": '{"schema": 99, "preprocessing": {}, "options": {}}'},
    }.items():  # fmt: skip
        save_file(load_file(model), folder / name, header | changes)
    said = {}
    for path in (*folder.iterdir(), folder / "none", folder):
        with pytest.raises(WeightsError) as caught:
            load_trained(path)
        said[path.name] = str(caught.value)
    for name in ("plain.pt", "zip.pt", "tensors.pt"):
        assert "does not say which network it is" in said[name]
    assert "do not fit 'mtl-vgg16-none-full-tiny'" in said["other"]
    assert not trap.exists()


FACES = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
RECIPE = Recipe(learning_rate=1e-3)
IMAGES = torch.from_numpy(FACES).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def network(trained_runs_dir: Path) -> TrainedNetwork:
    return trained_run("mtl-cnn-none-full-tiny", trained_runs_dir)


def check(checks: list[dict[str, Any]], said: dict[str, Any], *, is_inside: bool) -> None:
    assert [(it["on"], it["pictures"]) for it in checks] == [
        ("random pictures", 64), ("faces given", 3),
    ]  # fmt: skip
    assert max(it["max_difference"] for it in checks) < 1e-5
    assert sum(it["labels_that_differ"] for it in checks) == 0
    assert said["outputs"]["race"] == list(CLASS_NAMES["race"])
    assert said["input"]["shape"] == ["n", 3, 32, 32]
    assert said["preprocessing"]["is_inside"] == is_inside


def test_a_safetensors_file_predicts_the_same_and_is_a_checkpoint_like_any_other(
    network: TrainedNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "face.safetensors"
    checks = export(network, "safetensors", path, {"faces given": FACES})
    check(checks, json.loads(header_of(path)["facebench"]), is_inside=False)
    assert list(tmp_path.iterdir()) == [path]
    assert load_trained(path).predict(FACES).equals(network.predict(FACES))
    with pytest.raises(RunError, match="cannot be written"):
        export(network, "safetensors", path / "face")


@pytest.mark.slow
def test_an_onnx_file_works_without_us_for_any_number_of_faces(
    network: TrainedNetwork, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    path = tmp_path / "face.onnx"
    checks = export(network, "onnx", path, {"faces given": FACES})
    (said,) = onnx.load(path).metadata_props
    check(checks, json.loads(said.value), is_inside=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 32])
    assert [output.name for output in session.get_outputs()] == list(network.tasks)
    for n_faces in (1, 7):
        given = random_pictures(32)[:n_faces].transpose(0, 3, 1, 2)
        answers = session.run(None, {"images": np.ascontiguousarray(given)})
        assert [answer.shape for answer in answers] == [(n_faces, 5), (n_faces, 2), (n_faces, 5)]


@pytest.mark.parametrize("conditioning", get_args(Conditioning))
def test_every_head_bgr_input_and_another_input_size_are_portable(
    conditioning: Conditioning,
) -> None:
    head = Head(hidden_units=8, conditioning=conditioning)
    experiment = Experiment("any", "?", Backbone("cnn", input_px=40), head, RECIPE, ad_hoc=True)
    built = build_network(experiment, None, seed=1).eval()
    built.scaling = InputScaling(CAFFE, 40)
    with torch.no_grad():  # else untrained weights make logits of hundreds from inputs of 150
        next(built.backbone.parameters()).div_(128)
    portable = Portable(built, head.tasks, faces_px=32).eval()
    with torch.inference_mode():
        expected = built(IMAGES)
        for task, values in zip(head.tasks, portable(IMAGES), strict=True):
            np.testing.assert_allclose(values, expected[task].softmax(1), atol=1e-5)
            assert values.max() < 0.99, "a saturated answer would hide a difference"


@pytest.mark.parametrize("damage", [lambda it: np.roll(it, 1, axis=1), lambda it: it * np.nan])
def test_a_file_that_predicts_otherwise_is_not_kept(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    path = tmp_path / "face"
    path.write_bytes(b"an older file")

    def damaged(run: TrainedNetwork, _file: Path) -> exporting.Apply:
        return lambda pixels: {task: damage(it) for task, it in run.probabilities(pixels).items()}

    monkeypatch.setattr(exporting, "_write_safetensors", damaged)
    with pytest.raises(RunError, match="does not predict what the network does"):
        export(network, "safetensors", path)
    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]


def test_without_the_packages_the_extra_is_named_and_nothing_is_written(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RunError, match="is not installed") as caught:
        export(network, "onnx", tmp_path / "face.onnx")
    assert "facebench[export]" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


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
