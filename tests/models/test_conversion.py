"""Published layouts become our tensors, exactly; anything else is refused in one sentence."""

import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import mobilenet_v2, squeezenet1_0, squeezenet1_1

from benchmark.errors import WeightsError
from benchmark.models.backbone import build_backbone
from benchmark.models.weight_formats import convert
from benchmark.models.weight_readers import read_weight_file
from tests.conftest import shared_file
from tests.models import keras_squeezenet

REAL_H5 = "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"


def by_our_backbone(path: Path, picture: np.ndarray, pooling: str) -> Tensor:  # type: ignore[type-arg]
    backbone = build_backbone("squeezenet1_1", pooling=pooling).eval()
    backbone.load_state_dict(convert(path).tensors)
    with torch.inference_mode():
        found = backbone(torch.from_numpy(picture).float().permute(2, 0, 1)[None])
    return found[0].permute(1, 2, 0)


def compare_with_keras(path: Path, image_px: int) -> None:
    picture = np.random.default_rng(1).normal(0, 1, (image_px, image_px, 3))
    wanted = keras_squeezenet.forward(picture, keras_squeezenet.read_h5(path))
    ours = by_our_backbone(path, picture, "floor").numpy()
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_keras_file_computes_what_keras_would(tmp_path: Path) -> None:
    path = keras_squeezenet.write_h5(tmp_path / "any.h5", keras_squeezenet.random_kernels())
    compare_with_keras(path, 100)
    compare_with_keras(path, 63)


@pytest.mark.weights
def test_the_real_keras_file_computes_what_keras_would() -> None:
    compare_with_keras(shared_file("weights", REAL_H5), 100)


def test_torchvisions_file_computes_what_torchvision_does_in_any_container(tmp_path: Path) -> None:
    reference = squeezenet1_1().eval()
    state = reference.state_dict()
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "any.safetensors")
    picture = np.random.default_rng(1).normal(0, 1, (100, 100, 3))
    with torch.inference_mode():
        wanted = reference.features(torch.from_numpy(picture).float().permute(2, 0, 1)[None])
    for path in tmp_path.iterdir():
        ours = by_our_backbone(path, picture, "ceil")
        assert torch.allclose(ours, wanted[0].permute(1, 2, 0), atol=1e-5), path.name


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state, path = squeezenet1_1().state_dict(), tmp_path / "odd.pth"
    del state["features.3.squeeze.bias"]
    older = {
        name.replace(".conv.0.0.", ".conv.0."): tensor
        for name, tensor in mobilenet_v2().state_dict().items()
    }
    for content, sentence in (
        (squeezenet1_0().state_dict(), r"do not fit squeezenet1_1: features\.0\.weight of"),
        ({**state, "extra": torch.zeros(1)}, r"missing features\.3\.squeeze\.bias; unexpected ex"),
        (older, r"do not fit mobilenet_v2: missing features\.1\.conv\.0\.0\.weight"),
    ):
        torch.save(content, path)
        with pytest.raises(WeightsError, match=sentence):
            convert(path)
    kernels = keras_squeezenet.random_kernels()
    kernels["fire9/expand3x3"][1][0] = np.nan
    h5 = keras_squeezenet.write_h5(tmp_path / "nan.h5", kernels)
    with pytest.raises(WeightsError, match="fire9/expand3x3:bias with values that are not finite"):
        convert(h5)


class Evil:
    """Makes a folder when it is unpickled by a loader that runs code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"x": Evil(tmp_path / "made")}, protocol=protocol))
        with pytest.raises(WeightsError):
            convert(path)
    torch.save({"x": Evil(tmp_path / "made")}, path)
    with pytest.raises(
        WeightsError, match=r"holds code or objects besides tensors \(posix.mkdir\)"
    ):
        convert(path)
    assert not (tmp_path / "made").exists()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    state = squeezenet1_1().state_dict()
    keras_squeezenet.write_h5(tmp_path / "any.h5", keras_squeezenet.random_kernels())
    save_file(state, tmp_path / "any.safetensors")
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for share in (0.5, 0.999):
            path.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(WeightsError, match=f"{path.name} is damaged or cut short"):
                convert(path)


def test_what_is_no_weight_file_is_said_to_be_none(tmp_path: Path) -> None:
    html = b"\n<!DOCTYPE html><title>404</title>"
    for content, sentence in (
        (html, "is an HTML page"), (b"", "is empty"), (b"hello", "is no weight file"),
    ):  # fmt: skip
        (tmp_path / "weights.h5").write_bytes(content)
        with pytest.raises(WeightsError, match=f"weights.h5 {sentence}"):
            convert(tmp_path / "weights.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(WeightsError, match=r"other\.h5 is damaged"):
        convert(tmp_path / "other.h5")
    for content, sentence in (
        ({"my.weight": torch.zeros(3)}, r"no known layout \(my\.weight"),
        ({"epoch": 3, "weights": [torch.zeros(1)]}, r"no state dict: .*\(epoch, weights\)"),
    ):
        torch.save(content, tmp_path / "mine.pth")
        with pytest.raises(WeightsError, match=sentence):
            convert(tmp_path / "mine.pth")


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


STATE = squeezenet1_1(num_classes=7).state_dict()
TRUNK = {name: tensor for name, tensor in STATE.items() if name.startswith("features.")}
HEAD = "Left: classifier.1.weight, classifier.1.bias."
CHECKPOINTS: dict[str, tuple[object, tuple[str, ...]]] = {
    "a head of another size": (STATE, (HEAD,)),
    "DataParallel": (
        prefixed(STATE, "module."), ("Taken: all entries, without the prefix 'module.'.", HEAD),
    ),
    "torch.compile inside DataParallel": (
        prefixed(STATE, "module._orig_mod."),
        ("Taken: all entries, without the prefix 'module._orig_mod.'.", HEAD),
    ),
    "a training script of torchvision's": (
        {"model": STATE, "model_ema": prefixed(STATE, "module."), "optimizer": {"state": {}}},
        ("Taken: the entry 'model'.",
         "Left: 'model_ema', 'optimizer', classifier.1.weight, classifier.1.bias."),
    ),
    "averaged weights alone": (
        {"state_dict_ema": STATE, "epoch": 3}, (
            "Taken: the entry 'state_dict_ema'.",
            "Left: 'epoch', classifier.1.weight, classifier.1.bias."),
    ),
    "Lightning": (
        {"state_dict": prefixed(STATE, "model."), "pytorch-lightning_version": "2.4.0"},
        ("Taken: the entry 'state_dict', without the prefix 'model.'.",
         "Left: 'pytorch-lightning_version', classifier.1.weight, classifier.1.bias."),
    ),
    "a backbone beside a head": (
        prefixed(TRUNK, "backbone.") | {"head.0.weight": torch.zeros(5, 512)},
        ("Taken: all entries, without the prefix 'backbone.'.", "Left: head.0.weight."),
    ),
    "double precision": (
        {name: tensor.double() for name, tensor in TRUNK.items()},
        ("Values were stored as float64; they are kept as float32.",),
    ),
    "parameters with gradients": (
        {name: torch.nn.Parameter(tensor) for name, tensor in TRUNK.items()}, (),
    ),
}  # fmt: skip


def test_what_training_scripts_write_is_read_and_said(tmp_path: Path) -> None:
    torch.save(TRUNK, tmp_path / "bare.pth")
    bare = convert(tmp_path / "bare.pth")
    assert bare.notes == ()
    for kind, (content, notes) in CHECKPOINTS.items():
        torch.save(content, tmp_path / "any.pth")
        found = convert(tmp_path / "any.pth")
        assert (found.layout.name, found.notes) == ("torchvision", notes), kind
        assert found.tensors.keys() == bare.tensors.keys(), kind
        assert all(torch.equal(found.tensors[it], bare.tensors[it]) for it in bare.tensors), kind
    torch.save({name: tensor.half() for name, tensor in TRUNK.items()}, tmp_path / "half.pth")
    found = convert(tmp_path / "half.pth")
    assert found.notes == ("Values were stored as float16; they are kept as float32.",)
    assert {tensor.dtype for tensor in found.tensors.values()} == {torch.float32}


def test_a_head_of_ones_own_on_timms_trunk_is_left(tmp_path: Path) -> None:
    import timm

    state = timm.create_model("resnet18", num_classes=7).state_dict()
    state = {name.replace("fc.", "fc.1."): tensor for name, tensor in state.items()}
    torch.save({"state_dict": prefixed(state, "model.")}, tmp_path / "last.ckpt")
    found = convert(tmp_path / "last.ckpt", "resnet18")
    assert found.notes[-1] == "Left: fc.1.weight, fc.1.bias."


def test_keras_names_and_kernels_are_read_from_another_container(tmp_path: Path) -> None:
    path = keras_squeezenet.write_h5(tmp_path / "any.h5", keras_squeezenet.random_kernels())
    turned = {}
    for name, tensor in read_weight_file(path).tensors.items():
        layer, end = name.split(":", 1)
        is_kernel = end == "kernel"
        turned[f"{layer}/{end}:0"] = (
            tensor.permute(2, 3, 1, 0) if is_kernel else tensor
        ).contiguous()
    save_file(turned, tmp_path / "any.safetensors")
    wanted, found = convert(path), convert(tmp_path / "any.safetensors")
    assert found.layout == wanted.layout
    assert all(torch.equal(found.tensors[name], wanted.tensors[name]) for name in wanted.tensors)


def test_kernels_in_theanos_order_are_named_and_not_guessed(tmp_path: Path) -> None:
    path = keras_squeezenet.write_h5(tmp_path / "any.h5", keras_squeezenet.random_kernels())
    with h5py.File(path, "r+") as file:
        group = file["conv1"]
        name = next(name for name in group.attrs["weight_names"] if group[name].ndim == 4)
        values = np.asarray(group[name]).transpose(3, 2, 0, 1)
        del group[name]
        group[name] = values
    with pytest.raises(WeightsError, match=r"conv1:kernel stored as \(out, in, height, width\)"):
        convert(path)


def zipped(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")


def write_keras3(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_group("layers/conv2d/vars")["0"] = np.zeros((3, 3, 3, 64), np.float32)
    return path


def test_other_formats_are_named_with_the_way_out(tmp_path: Path) -> None:
    # The records that torch.jit.save and torch.export.save of torch 2.14 write, by name.
    zipped(tmp_path / "scripted.pt", "any/data.pkl", "any/code/__torch__.py", "any/constants.pkl")
    zipped(tmp_path / "exported.pt2", "any/archive_format", "any/models/model.json")
    write_keras3(tmp_path / "tuned.weights.h5")
    with zipfile.ZipFile(tmp_path / "tuned.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(tmp_path / "tuned.weights.h5", "model.weights.h5")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x02\x0a\x00")
    (tmp_path / "net.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(60))
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01\x12\x04\x0a\x02\x10\x01")
    (tmp_path / "VGG_FACE.t7").write_bytes(b"\x04\x00\x00\x00\x01\x00\x00\x00")
    expected = {
        "scripted.pt": ("a TorchScript program", "torch.jit.load"),
        "exported.pt2": ("a program of torch.export", "torch.export.load"),
        "tuned.weights.h5": ("a Keras 3 weight file", "model.save"),
        "tuned.keras": ("a Keras 3 file", "keras.saving.load_model"),
        "arrays.npz": ("numpy arrays", "safetensors.numpy"),
        "net.onnx": ("an ONNX graph", "state_dict"),
        "net.tflite": ("a TensorFlow Lite model", "Keras"),
        "saved_model.pb": ("a TensorFlow SavedModel", "Keras"),
        "VGG_FACE.t7": ("a LuaTorch file", "two other files"),
    }
    for name, (what, way_out) in expected.items():
        with pytest.raises(WeightsError) as raised:
            convert(tmp_path / name)
        assert raised.value.found.startswith(f"{name} is {what}"), name
        assert way_out in raised.value.fix, name
        assert "damaged" not in str(raised.value), name
