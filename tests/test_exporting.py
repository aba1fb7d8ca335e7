"""An exported network says what the network says, or is not left behind."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.errors import RunError
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.inference import export as exporting
from benchmark.inference.export import (
    ENDINGS,
    FORMATS,
    Exported,
    Format,
    Portable,
    export,
    random_pictures,
    read_description,
    resizing_matrix,
)
from benchmark.inference.load import Trained, TrainedRun, load_trained, network_of_run
from benchmark.models.heads import StandardisedHead
from benchmark.models.network import build_network
from benchmark.models.preprocessing import CAFFE, InputScaling
from benchmark.tasks import CLASS_NAMES

FACES = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(trained_runs_dir: Path) -> TrainedRun:
    return network_of_run("mtl-cnn-none-full-tiny", trained_runs_dir)


def untrained(conditioning: str = "none", input_px: int = 32) -> TrainedRun:
    """A network as it starts, of BGR input and another size than its faces."""
    experiment = Experiment(
        name="mtl-cnn-none-full-odd"
        if conditioning == "none"
        else f"mtl-cnn-none-full-{conditioning}",
        asks="Is it portable?",
        backbone=Backbone("cnn", input_px=input_px),
        head=Head(hidden_units=8, conditioning=conditioning),  # type: ignore[arg-type]
        recipe=Recipe(learning_rate=1e-3, max_epochs=1),
    )
    built = build_network(experiment, None, seed=1).eval()
    return TrainedRun(Trained(built, experiment), Path(__file__), 32, "untrained")


@pytest.mark.slow
def test_standardised_features_are_exported_with_their_statistics(tmp_path: Path) -> None:
    experiment = Experiment(
        name="mtl-cnn-none-frozen-standardised",
        asks="Is it portable?",
        backbone=Backbone("cnn", trainable_stages=0, input_px=32),
        head=Head(hidden_units=8),
        recipe=Recipe(learning_rate=1e-3, standardise_features=True),
    )
    built = build_network(experiment, None, seed=1).eval()
    assert isinstance(built.head, StandardisedHead)
    with torch.inference_mode():
        built.head.measure([built.features(torch.from_numpy(FACES).permute(0, 3, 1, 2))])
    assert not torch.equal(built.head.sd, torch.ones_like(built.head.sd))
    network = TrainedRun(Trained(built, experiment), Path(__file__), 32, "untrained")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export(network, "onnx", tmp_path / "face.onnx", {"faces given": FACES})
    assert (tmp_path / "face.onnx").is_file()


@pytest.fixture(scope="module")
def onnx_file(network: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Written once: importing what writes it takes seconds."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("onnx") / "face.onnx"
    return export(network, "onnx", path, {"faces given": FACES})


@pytest.mark.parametrize(
    "to", [pytest.param(to, marks=pytest.mark.slow if to == "onnx" else ()) for to in FORMATS]
)
def test_what_is_written_says_the_same_and_describes_itself(
    network: TrainedRun, tmp_path: Path, to: Format, request: pytest.FixtureRequest
) -> None:
    if to == "onnx":
        done = request.getfixturevalue("onnx_file")
    else:
        path = tmp_path / f"face{ENDINGS[to]}"
        done = export(network, to, path, {"faces given": FACES})
    assert [found.on for found in done.comparisons] == ["random pictures", "faces given"]
    assert [found.n_pictures for found in done.comparisons] == [64, 3]
    assert max(found.max_difference for found in done.comparisons) < 1e-5
    assert sum(found.n_labels_differ for found in done.comparisons) == 0
    told = read_description(done.path)
    assert told["outputs"]["race"] == list(CLASS_NAMES["race"])
    assert told["input"]["shape"] == ["n", 3, 32, 32]
    assert told["preprocessing"]["is_inside"] == (to != "safetensors")
    assert list(done.path.parent.iterdir()) == [done.path]


@pytest.mark.slow
def test_the_onnx_file_works_without_us_for_any_number_of_faces(onnx_file: Exported) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(onnx_file.path, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 32])
    assert [output.name for output in session.get_outputs()] == ["age_group", "gender", "race"]
    for n_faces in (1, 7):
        given = random_pictures(32)[:n_faces].transpose(0, 3, 1, 2)
        answers = session.run(None, {"images": np.ascontiguousarray(given)})
        assert [answer.shape for answer in answers] == [(n_faces, 5), (n_faces, 2), (n_faces, 5)]
        assert np.allclose(answers[0].sum(1), 1, atol=1e-5)


def test_an_exported_safetensors_file_is_a_checkpoint_like_any_other(
    network: TrainedRun, tmp_path: Path
) -> None:
    export(network, "safetensors", tmp_path / "face.safetensors")
    again = load_trained(tmp_path / "face.safetensors")
    assert again.predict(FACES).equals(network.trained.predict(FACES))


@pytest.mark.parametrize("conditioning", ["none", "embedding", "gate", "attention"])
def test_every_head_and_another_input_size_are_portable(conditioning: str) -> None:
    run = untrained(conditioning, input_px=40)
    built = run.trained.network
    built.scaling = InputScaling(CAFFE, 40)
    with torch.no_grad():  # else untrained weights make logits of hundreds from inputs of 150
        next(built.trunk.parameters()).div_(128)
    portable = Portable(built, run.tasks, run.faces_px).eval()
    images = torch.from_numpy(FACES).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = built(images)
        for task, values in zip(run.tasks, portable(images), strict=True):
            np.testing.assert_allclose(values, expected[task].softmax(1), atol=1e-5)
            assert values.max() < 0.99, "a saturated answer would hide a difference"


@pytest.mark.parametrize("after", [16, 32, 50])
def test_resizing_by_a_matrix_is_torchs_antialiased_resizing(after: int) -> None:
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    matrix = resizing_matrix(32, after)
    expected = torch.nn.functional.interpolate(
        picture, (after, after), mode="bilinear", antialias=True
    )
    assert torch.allclose(matrix @ picture @ matrix.T, expected, atol=1e-3)


def test_a_file_that_answers_otherwise_is_not_left_behind(
    network: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to: Format = "safetensors"
    write = exporting._WRITERS[to]

    def damaged(original: Portable, run: TrainedRun, path: Path) -> exporting.Apply:
        with torch.no_grad():
            head = original.network.head.gender.output.bias  # type: ignore[union-attr]
            before = head.clone()
            head.add_(torch.tensor([3.0, 0.0]))
        try:
            apply = write(original, run, path)
            apply(FACES)  # while it is damaged
            return lambda pixels: {
                task: np.roll(values, 1, axis=1) for task, values in apply(pixels).items()
            }
        finally:
            with torch.no_grad():
                head.copy_(before)

    monkeypatch.setitem(exporting._WRITERS, to, damaged)
    path = tmp_path / "face"
    path.write_bytes(b"an older file")
    with pytest.raises(RunError, match="answers otherwise than the network"):
        export(network, to, path)
    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]


def test_a_nan_is_a_difference(network: TrainedRun) -> None:
    def nowhere(pixels: exporting.Pixels) -> exporting.Probabilities:
        return {
            task: np.full((len(pixels), len(CLASS_NAMES[task])), np.nan) for task in network.tasks
        }  # type: ignore[misc]

    found = exporting._compared(nowhere, exporting._reference(network), "noise", FACES)
    assert found.max_difference == np.inf


def test_without_the_packages_the_extra_is_named_and_nothing_is_written(
    network: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(RunError, match="is not installed") as caught:
            export(network, "onnx", tmp_path / "face.onnx")
        assert "facebench[export]" in caught.value.fix
        monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(network: TrainedRun, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        export(replace(network), "safetensors", tmp_path / "file" / "face")
