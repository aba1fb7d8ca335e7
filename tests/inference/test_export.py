"""An exported network predicts what the network predicts, or is not kept."""

import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.errors import RunError
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.experiment.parts import Conditioning
from benchmark.inference import export as exporting
from benchmark.inference.export import Portable, export, random_pictures, resizing_matrix
from benchmark.inference.load import TrainedNetwork, load_trained, trained_run
from benchmark.models.network import StandardisedHead, build_network
from benchmark.models.preprocessing import CAFFE, InputScaling
from benchmark.models.weight_formats import header_of
from benchmark.tasks import CLASS_NAMES

FACES = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(trained_runs_dir: Path) -> TrainedNetwork:
    return trained_run("mtl-cnn-none-full-tiny", trained_runs_dir)


def untrained(
    name: str, backbone: Backbone, conditioning: Conditioning = "none", **recipe: bool
) -> TrainedNetwork:
    """A network as it starts, of faces of 32 pixels."""
    experiment = Experiment(
        name=f"mtl-cnn-none-{name}",
        asks="Is it portable?",
        backbone=backbone,
        head=Head(hidden_units=8, conditioning=conditioning),
        recipe=Recipe(learning_rate=1e-3, **recipe),  # type: ignore[arg-type]
    )
    built = build_network(experiment, None, seed=1).eval()
    return TrainedNetwork(built, experiment, Path(__file__), 32, "untrained")


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
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        export(network, "safetensors", tmp_path / "file" / "face")


def check_equal(checks: list[dict[str, Any]], limit: float = 1e-5) -> None:
    assert max(check["max_difference"] for check in checks) < limit
    assert sum(check["labels_that_differ"] for check in checks) == 0


def check_description(said: dict[str, Any], *, is_inside: bool) -> None:
    assert said["outputs"]["race"] == list(CLASS_NAMES["race"])
    assert said["input"]["shape"] == ["n", 3, 32, 32]
    assert said["preprocessing"]["is_inside"] == is_inside


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
        assert np.allclose(answers[0].sum(1), 1, atol=1e-5)


@pytest.mark.slow
def test_standardised_features_are_exported_with_their_statistics(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    backbone = Backbone("cnn", trainable_stages=0, input_px=32)
    run = untrained("frozen-standardised", backbone, standardise_features=True)
    built = run.network
    assert isinstance(built.head, StandardisedHead)
    with torch.inference_mode():
        built.head.measure([built.features(torch.from_numpy(FACES).permute(0, 3, 1, 2))])
    assert not torch.equal(built.head.sd, torch.ones_like(built.head.sd))
    check_equal(export(run, "onnx", tmp_path / "face.onnx", {"faces given": FACES}), 1e-4)


def test_every_head_bgr_input_and_another_input_size_are_portable() -> None:
    for conditioning in get_args(Conditioning):
        name = f"full-{'odd' if conditioning == 'none' else conditioning}"
        run = untrained(name, Backbone("cnn", input_px=40), conditioning)
        built = run.network
        built.scaling = InputScaling(CAFFE, 40)
        with torch.no_grad():  # else untrained weights make logits of hundreds from inputs of 150
            next(built.backbone.parameters()).div_(128)
        portable = Portable(built, run.tasks, run.faces_px).eval()
        images = torch.from_numpy(FACES).permute(0, 3, 1, 2)
        with torch.inference_mode():
            expected = built(images)
            for task, values in zip(run.tasks, portable(images), strict=True):
                np.testing.assert_allclose(values, expected[task].softmax(1), atol=1e-5)
                assert values.max() < 0.99, "a saturated answer would hide a difference"


def test_resizing_by_a_matrix_is_torchs_antialiased_resizing() -> None:
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    for after in (16, 32, 50):
        matrix, size = resizing_matrix(32, after), (after, after)
        expected = nn.functional.interpolate(picture, size, mode="bilinear", antialias=True)
        assert torch.allclose(matrix @ picture @ matrix.T, expected, atol=1e-3), after


def test_a_file_that_predicts_otherwise_is_not_kept(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, path = exporting._write_safetensors, tmp_path / "face"
    path.write_bytes(b"an older file")
    for change in (lambda values: np.roll(values, 1, axis=1), lambda values: values * np.nan):

        def damaged(run: TrainedNetwork, file: Path, change: Any = change) -> exporting.Apply:
            apply = write(run, file)
            return lambda pixels: {task: change(it) for task, it in apply(pixels).items()}

        monkeypatch.setattr(exporting, "_write_safetensors", damaged)
        with pytest.raises(RunError, match="does not predict what the network does"):
            export(network, "safetensors", path)
        assert path.read_bytes() == b"an older file"
        assert list(tmp_path.iterdir()) == [path]


def test_without_the_packages_the_extra_is_named_and_nothing_is_written(
    network: TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(RunError, match="is not installed") as caught:
            export(network, "onnx", tmp_path / "face.onnx")
        assert "facebench[export]" in caught.value.fix
        monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
