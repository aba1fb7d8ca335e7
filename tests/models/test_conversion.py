"""Published layouts become our tensors, exactly; anything else is refused in one sentence."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import squeezenet1_0, squeezenet1_1

from benchmark.errors import WeightsError
from benchmark.models.backbones import build_trunk
from benchmark.models.conversion import convert
from tests.conftest import shared_file
from tests.models import keras_squeezenet

REAL_H5 = "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"


def by_our_trunk(path: Path, picture: np.ndarray, pooling: str) -> Tensor:  # type: ignore[type-arg]
    _, tensors = convert(path)
    trunk = build_trunk("squeezenet1_1", pooling=pooling).eval()
    trunk.load_state_dict(tensors)
    with torch.inference_mode():
        return trunk(torch.from_numpy(picture).float().permute(2, 0, 1)[None])[0].permute(1, 2, 0)


@pytest.mark.parametrize("image_px", [100, 63])
def test_keras_file_computes_what_keras_would(tmp_path: Path, image_px: int) -> None:
    path = keras_squeezenet.write_h5(tmp_path / "any.h5", keras_squeezenet.random_kernels())
    picture = np.random.default_rng(1).normal(0, 1, (image_px, image_px, 3))
    wanted = keras_squeezenet.forward(picture, keras_squeezenet.read_h5(path))
    ours = by_our_trunk(path, picture, "floor").numpy()
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.weights
def test_the_real_keras_file_computes_what_keras_would() -> None:
    path = shared_file("weights", REAL_H5)
    picture = np.random.default_rng(1).uniform(-1, 1, (100, 100, 3))
    wanted = keras_squeezenet.forward(picture, keras_squeezenet.read_h5(path))
    assert wanted.shape == (5, 5, 512)
    assert np.abs(by_our_trunk(path, picture, "floor").numpy() - wanted).max() < 1e-4


def test_torchvision_file_computes_what_torchvision_does(tmp_path: Path) -> None:
    reference = squeezenet1_1().eval()
    torch.save(reference.state_dict(), tmp_path / "any.pth")
    picture = np.random.default_rng(1).normal(0, 1, (100, 100, 3))
    ours = by_our_trunk(tmp_path / "any.pth", picture, "ceil")
    with torch.inference_mode():
        wanted = reference.features(torch.from_numpy(picture).float().permute(2, 0, 1)[None])
    assert torch.allclose(ours, wanted[0].permute(1, 2, 0), atol=1e-5)


def test_the_container_does_not_matter(tmp_path: Path) -> None:
    state = squeezenet1_1().state_dict()
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "any.safetensors")
    first, *others = [convert(path)[1] for path in sorted(tmp_path.iterdir())]
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_another_architecture_is_refused_by_names_and_shapes(tmp_path: Path) -> None:
    torch.save(squeezenet1_0().state_dict(), tmp_path / "squeezenet1_0.pth")
    with pytest.raises(WeightsError, match=r"do not fit squeezenet1_1: features\.0\.weight of"):
        convert(tmp_path / "squeezenet1_0.pth")


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    state = squeezenet1_1().state_dict()
    del state["features.3.squeeze.bias"]
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"missing features\.3\.squeeze\.bias; unexpected extra"):
        convert(tmp_path / "odd.pth")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    kernels = keras_squeezenet.random_kernels()
    kernels["fire9/expand3x3"][1][0] = np.nan
    path = keras_squeezenet.write_h5(tmp_path / "nan.h5", kernels)
    with pytest.raises(WeightsError, match="fire9/expand3x3:bias with values that are not finite"):
        convert(path)


class Evil:
    """Makes a folder when it is unpickled by a loader that runs code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"x": Evil(tmp_path / "made")}, protocol=protocol))
    with pytest.raises(WeightsError):
        convert(path)
    torch.save({"x": Evil(tmp_path / "made")}, path)
    with pytest.raises(WeightsError, match="holds code or objects besides tensors"):
        convert(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("kind", ["h5", "zip.pt", "old.pth", "safetensors"])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path, state = tmp_path / f"cut.{kind}", squeezenet1_1().state_dict()
    if kind == "h5":
        keras_squeezenet.write_h5(path, keras_squeezenet.random_kernels())
    elif kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=r"cut\..* is damaged or cut short"):
        convert(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\n<!DOCTYPE html><title>404</title>", "is an HTML page"),
        (b"", "is empty"),
        (b"hello", "is no weight file"),
    ],
)
def test_what_is_no_weight_file_is_said_to_be_none(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "weights.h5").write_bytes(content)
    with pytest.raises(WeightsError, match=f"weights.h5 {sentence}"):
        convert(tmp_path / "weights.h5")


def test_tensors_of_no_known_layout_are_named(tmp_path: Path) -> None:
    torch.save({"my.weight": torch.zeros(3)}, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match=r"no known layout \(my\.weight"):
        convert(tmp_path / "mine.pth")


def test_more_than_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"x": torch.zeros(1)}}, tmp_path / "checkpoint.pth")
    with pytest.raises(WeightsError, match="of more than tensors"):
        convert(tmp_path / "checkpoint.pth")


def test_an_h5_file_that_keras_did_not_write_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(WeightsError, match=r"other\.h5 is damaged"):
        convert(tmp_path / "other.h5")
