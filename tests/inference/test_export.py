"""An exported network predicts what the network predicts, or is not kept."""

import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from benchmark.errors import RunError
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.experiment.parts import Conditioning
from benchmark.inference import export as exporting
from benchmark.inference.export import Portable, export, random_pictures
from benchmark.inference.load import TrainedNetwork, load_trained, trained_run
from benchmark.models.network import build_network
from benchmark.models.preprocessing import CAFFE, InputScaling
from benchmark.models.weight_formats import header_of
from benchmark.tasks import CLASS_NAMES

FACES = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
RECIPE = Recipe(learning_rate=1e-3)
IMAGES = torch.from_numpy(FACES).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def network(trained_runs_dir: Path) -> TrainedNetwork:
    return trained_run("mtl-cnn-none-full-tiny", trained_runs_dir)


def check_equal(checks: list[dict[str, Any]], limit: float = 1e-5) -> None:
    assert max(check["max_difference"] for check in checks) < limit
    assert sum(check["labels_that_differ"] for check in checks) == 0


def check_description(said: dict[str, Any], *, is_inside: bool) -> None:
    assert said["outputs"]["race"] == list(CLASS_NAMES["race"])
    assert said["input"]["shape"] == ["n", 3, 32, 32]
    assert said["preprocessing"]["is_inside"] == is_inside


def test_a_safetensors_file_predicts_the_same_and_is_a_checkpoint_like_any_other(
    network: TrainedNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "face.safetensors"
    checks = export(network, "safetensors", path, {"faces given": FACES})
    compared = [(it["on"], it["pictures"]) for it in checks]
    assert compared == [("random pictures", 64), ("faces given", 3)]
    check_equal(checks)
    check_description(json.loads(header_of(path)["facebench"]), is_inside=False)
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
    check_equal(export(network, "onnx", path, {"faces given": FACES}))
    (said,) = onnx.load(path).metadata_props
    check_description(json.loads(said.value), is_inside=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 32])
    assert [output.name for output in session.get_outputs()] == ["age_group", "gender", "race"]
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
    write, path = exporting._write_safetensors, tmp_path / "face"
    path.write_bytes(b"an older file")

    def damaged(run: TrainedNetwork, file: Path) -> exporting.Apply:
        apply = write(run, file)
        return lambda pixels: {task: damage(it) for task, it in apply(pixels).items()}

    monkeypatch.setattr(exporting, "_write_safetensors", damaged)
    with pytest.raises(RunError, match="does not predict what the network does"):
        export(network, "safetensors", path)
    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_the_extra_is_named_and_nothing_is_written(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RunError, match="is not installed") as caught:
        export(network, "onnx", tmp_path / "face.onnx")
    assert "facebench[export]" in caught.value.fix
    assert list(tmp_path.iterdir()) == []
