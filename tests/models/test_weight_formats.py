"""Files as publishers and training scripts write them become our tensors, exactly, or are refused.

Each forward pass to compare with shares nothing with ours: Keras's rules in numpy, torchvision's
own models, timm's own. Pictures are fed as the publisher says, so that channel order and range are
part of the proof. What is written here are random values, VGGs are narrow.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import timm
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, squeezenet1_0, squeezenet1_1
from torchvision.transforms.functional import normalize

from benchmark.errors import WeightsError
from benchmark.models import backbone
from benchmark.models.backbone import build_backbone
from benchmark.models.network import InputScaling
from benchmark.models.weight_formats import backbone_tensors, convert, read_weight_file
from benchmark.models.weight_formats import tensor_digest as digest_of
from benchmark.models.weight_manifest import FILES, PublishedFile, files_for
from tests.models import keras

IMAGENET_BGR = (103.939, 116.779, 123.68)
VGGFACE_BGR = (93.5940, 104.7624, 129.1863)
PICTURE = np.random.default_rng(7).integers(0, 256, (48, 48, 3), dtype=np.uint8)
CAFFE_PICTURE = PICTURE[..., ::-1].astype(np.float32)


def published(architecture: str, layout: str) -> PublishedFile:
    (file,) = [file for file in FILES if (file.architecture, file.layout) == (architecture, layout)]
    return file


def by_our_backbone(path: Path, known: PublishedFile) -> Tensor:
    """Feed one RGB picture as the manifest says: (n_features, h', w')."""
    converted = convert(path)
    layout = converted.layout
    assert (layout.architecture, layout.name) == (known.architecture, known.layout)
    built = build_backbone(known.architecture, **known.options).eval()
    built.load_state_dict(converted.tensors)
    scaling = InputScaling(known.preprocessing, len(PICTURE))
    with torch.inference_mode():
        return built(scaling(torch.from_numpy(PICTURE.copy()).permute(2, 0, 1)[None]))[0]


def assert_close(ours: Tensor, wanted: Any) -> None:
    wanted = torch.as_tensor(wanted)
    assert ours.shape == wanted.shape
    assert (ours - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Build VGGs as narrow as the files that are written here."""
    monkeypatch.setattr(backbone, "VGG_WIDTHS", keras.WIDTHS)
    backbone_tensors.cache_clear()
    yield
    backbone_tensors.cache_clear()


def test_keras_squeezenet_computes_what_keras_would(tmp_path: Path) -> None:
    kernels = keras.squeezenet_kernels()
    path = keras.write_h5(tmp_path / "any.h5", kernels)
    wanted = keras.squeezenet(CAFFE_PICTURE - np.float32((104.006, 116.669, 122.679)), kernels)
    ours = by_our_backbone(path, published("squeezenet1_1", "keras"))
    assert_close(ours, wanted.transpose(2, 0, 1).copy())


@pytest.mark.usefixtures("narrow")
def test_every_layout_of_keras_vggs_computes_what_keras_would(tmp_path: Path) -> None:
    for architecture, layout, mean, name, data_sets in (
        ("vgg16", "keras", IMAGENET_BGR, "block{}_conv{}", ("{}_W_1:0", "{}_b_1:0")),
        ("vgg19", "keras", IMAGENET_BGR, "block{}_conv{}", ("{}_W_1:0", "{}_b_1:0")),
        ("vgg16", "keras_vggface", VGGFACE_BGR, "conv{}_{}", ("{}/kernel:0", "{}/bias:0")),
    ):
        kernels = keras.vgg_kernels(architecture, name)
        path = keras.write_h5(tmp_path / "any.h5", kernels, data_sets)
        wanted = keras.vgg(CAFFE_PICTURE - np.float32(mean), kernels, architecture)
        assert wanted.shape == (1, 1, keras.WIDTHS[-1])
        ours = by_our_backbone(path, published(architecture, layout))
        assert_close(ours, wanted.transpose(2, 0, 1).copy())
    # The last network with red first, and its classifier beside it.
    state = {"fc6.weight": torch.zeros(4, 25), "fc8.bias": torch.zeros(4)}
    for layer, (kernel, bias) in kernels.items():
        turned = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        state[f"{layer}.weight"] = turned.flip(1) if layer == "conv1_1" else turned
        state[f"{layer}.bias"] = torch.from_numpy(bias)
    torch.save(state, tmp_path / "any.pth")
    assert_close(by_our_backbone(tmp_path / "any.pth", published("vgg16", "vgg_face_dag")), ours)


def lively(model: nn.Module) -> nn.Module:
    """Give batch norm statistics and weights that a mistaken order would show in."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight, module.running_mean, module.bias):
                assert values is not None
                values.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def fed(mean: Any, std: Any) -> Tensor:
    unit = torch.from_numpy(PICTURE).permute(2, 0, 1)[None].float() / 255
    return normalize(unit, list(mean), list(std))


@pytest.mark.usefixtures("narrow")
def test_torchvisions_files_compute_what_torchvision_does(tmp_path: Path) -> None:
    models = {name: lively(getattr(torchvision.models, name)())
              for name in ("resnet50", "densenet121", "mobilenet_v2", "squeezenet1_1")}  # fmt: skip
    states = {name: model.state_dict() for name, model in models.items()}
    # Older than torch 0.4.1, without counted batches; `norm.1` for `norm1`, as is published.
    states["resnet50"] = {k: v for k, v in states["resnet50"].items() if "num_batches" not in k}
    states["densenet121"] = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): tensor
        for name, tensor in states["densenet121"].items()
    }
    features: dict[str, Any] = {name: model.features for name, model in models.items()
                                if name != "resnet50"}  # fmt: skip
    features["resnet50"] = nn.Sequential(*list(models["resnet50"].children())[:-2])
    features["densenet121"] = nn.Sequential(features["densenet121"], nn.ReLU())
    for name, letter in (("vgg16", "D"), ("vgg19", "E")):
        layers: list[Any] = []
        for layer in torchvision.models.vgg.cfgs[letter]:
            layers.append(layer if layer == "M" else keras.WIDTHS[layers.count("M")])
        features[name] = torchvision.models.vgg.make_layers(layers).eval()
        state = {f"features.{key}": value for key, value in features[name].state_dict().items()}
        states[name] = {**state, "classifier.0.weight": torch.zeros(4, 25)}
    for name, state in states.items():
        torch.save(state, tmp_path / name)
        with torch.inference_mode():
            wanted = features[name](fed((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))[0]
        assert_close(by_our_backbone(tmp_path / name, published(name, "torchvision")), wanted)


@pytest.mark.parametrize(
    "name",
    ["efficientnet_b0", "mobilenetv4_conv_small",
     pytest.param("convnext_tiny", marks=pytest.mark.slow),
     pytest.param("vit_small_patch16_224", marks=pytest.mark.slow)],
)  # fmt: skip
def test_timms_files_compute_what_timm_does(tmp_path: Path, name: str) -> None:
    options = {"dynamic_img_size": True} if "vit" in name else {}
    model: Any = lively(timm.create_model(name, **options))
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    scaled = fed(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    with torch.inference_mode():
        wanted = model.forward_head(model.forward_features(scaled), pre_logits=True)[0]
    (known,) = files_for(name, "imagenet")
    assert_close(by_our_backbone(tmp_path / "model.safetensors", known).flatten(), wanted)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


STATE = squeezenet1_1(num_classes=7).state_dict()
BACKBONE = {name: tensor for name, tensor in STATE.items() if name.startswith("features.")}
HEAD = "Left: classifier.1.weight, classifier.1.bias."
CHECKPOINTS: dict[str, tuple[object, tuple[str, ...]]] = {
    "a head of another size": (STATE, (HEAD,)),
    "torch.compile inside DataParallel": (
        prefixed(STATE, "module._orig_mod."),
        ("Taken: all entries, without the prefix 'module._orig_mod.'.", HEAD)),
    "a training script of torchvision's": (
        {"model": STATE, "model_ema": prefixed(STATE, "module."), "optimizer": {"state": {}}},
        ("Taken: the entry 'model'.", f"Left: 'model_ema', 'optimizer', {HEAD[6:]}")),
    "averaged weights alone": (
        {"state_dict_ema": STATE, "epoch": 3},
        ("Taken: the entry 'state_dict_ema'.", f"Left: 'epoch', {HEAD[6:]}")),
    "Lightning": (
        {"state_dict": prefixed(STATE, "model."), "pytorch-lightning_version": "2.4.0"},
        ("Taken: the entry 'state_dict', without the prefix 'model.'.",
         f"Left: 'pytorch-lightning_version', {HEAD[6:]}")),
    "a backbone beside a head": (
        prefixed(BACKBONE, "backbone.") | {"head.0.weight": torch.zeros(5, 512)},
        ("Taken: all entries, without the prefix 'backbone.'.", "Left: head.0.weight.")),
    "double precision": (
        {name: tensor.double() for name, tensor in BACKBONE.items()},
        ("Values were stored as float64; they are kept as float32.",)),
    "parameters with gradients": (
        {name: torch.nn.Parameter(tensor) for name, tensor in BACKBONE.items()}, ()),
}  # fmt: skip


def test_what_training_scripts_write_is_read_and_said(tmp_path: Path) -> None:
    path = tmp_path / "any.pth"
    torch.save(BACKBONE, path)
    bare = digest_of(convert(path).tensors)
    for kind, (content, notes) in CHECKPOINTS.items():
        torch.save(content, path)
        found = convert(path)
        assert (found.layout.name, found.notes) == ("torchvision", notes), kind
        assert digest_of(found.tensors) == bare, kind
    torch.save({name: tensor.half() for name, tensor in BACKBONE.items()}, path)
    assert {tensor.dtype for tensor in convert(path).tensors.values()} == {torch.float32}


def test_any_model_of_timm_with_ones_own_head_is_converted_once_it_is_named(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    state = {name.replace("fc.", "fc.1."): tensor for name, tensor in state.items()}
    torch.save({"state_dict": prefixed(state, "model.")}, tmp_path / "last.ckpt")
    found = convert(tmp_path / "last.ckpt", "resnet18")
    assert (found.layout.name, found.notes[-1]) == ("timm", "Left: fc.1.weight, fc.1.bias.")


def test_keras_names_and_kernels_are_read_from_another_container(tmp_path: Path) -> None:
    path = keras.write_h5(tmp_path / "any.h5", keras.squeezenet_kernels())
    turned = {}
    for name, tensor in read_weight_file(path).tensors.items():
        layer, end = name.split(":", 1)
        values = tensor.permute(2, 3, 1, 0) if end == "kernel" else tensor
        turned[f"{layer}/{end}:0"] = values.contiguous()
    save_file(turned, tmp_path / "any.safetensors")
    wanted, found = convert(path), convert(tmp_path / "any.safetensors")
    assert found.layout == wanted.layout
    assert digest_of(found.tensors) == digest_of(wanted.tensors)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"x": keras.Evil(tmp_path / "made")}, protocol=protocol))
        with pytest.raises(WeightsError):
            convert(path)
    torch.save({"x": keras.Evil(tmp_path / "made")}, path)
    with pytest.raises(WeightsError, match=r"code or objects besides tensors \(posix.mkdir\)"):
        convert(path)
    assert not (tmp_path / "made").exists()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = {name: it for name, it in STATE.items() if name != "features.3.squeeze.bias"}
    odd = {**STATE, "features.0.bias": torch.full((64,), torch.nan)}
    older = {name.replace(".conv.0.0.", ".conv.0."): tensor
             for name, tensor in mobilenet_v2().state_dict().items()}  # fmt: skip
    for content, sentence in (
        (squeezenet1_0().state_dict(), r"do not fit squeezenet1_1: features\.0\.weight of"),
        ({**state, "extra": torch.zeros(1)}, r"missing features\.3\.squeeze\.bias; unexpected ex"),
        (odd, r"features\.0\.bias with values that are not finite"),
        (older, r"do not fit mobilenet_v2: missing features\.1\.conv\.0\.0\.weight"),
        ({"my.weight": torch.zeros(3)}, r"no known layout \(my\.weight"),
        ({"epoch": 3, "weights": [torch.zeros(1)]}, r"no state dict .*\(epoch, weights\)"),
    ):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(WeightsError, match=sentence):
            convert(tmp_path / "odd.pth")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    keras.write_h5(tmp_path / "any.h5", keras.squeezenet_kernels())
    save_file(STATE, tmp_path / "any.safetensors")
    torch.save(STATE, tmp_path / "zip.pt")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for share in (0.5, 0.999):
            path.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(WeightsError, match=f"{path.name} is damaged or cut short"):
                convert(path)


def test_what_is_not_read_is_named_with_the_way_out(tmp_path: Path) -> None:
    # The records that torch.jit.save and torch.export.save of torch 2.14 write, by name.
    for name, records in (
        ("scripted.pt", ("any/data.pkl", "any/code/__torch__.py", "any/constants.pkl")),
        ("exported.pt2", ("any/archive_format", "any/models/model.json")),
        ("tuned.keras", ("config.json", "model.weights.h5")),
    ):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for record in records:
                archive.writestr(record, b"")
    with h5py.File(tmp_path / "tuned.weights.h5", "w") as file:
        file.create_group("layers/conv2d/vars")["0"] = np.zeros((3, 3, 3, 64), np.float32)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    for name, content in (
        ("net.onnx", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x02\x0a\x00"),
        ("page.h5", b"\n<!DOCTYPE html><title>404</title>"),
        ("empty.pth", b""),
        ("text.pth", b"hello"),
    ):
        (tmp_path / name).write_bytes(content)
    for name, what, way_out in (
        ("scripted.pt", "is a TorchScript program", "torch.jit.load"),
        ("exported.pt2", "is a program of torch.export", "torch.export.load"),
        ("tuned.weights.h5", "is a Keras 3 weight file", "model.save"),
        ("tuned.keras", "is a Keras 3 file", "keras.saving.load_model"),
        ("arrays.npz", "is numpy arrays", "safetensors.numpy"),
        ("net.onnx", "is an ONNX graph", "state_dict"),
        ("other.h5", "is damaged", "Fetch it again"),
        ("page.h5", "is an HTML page", "Fetch it again"),
        ("empty.pth", "is empty", "Fetch it again"),
        ("text.pth", "is no weight file", "Fetch it again"),
    ):
        with pytest.raises(WeightsError) as raised:
            convert(tmp_path / name)
        assert raised.value.found.startswith(f"{name} {what}"), name
        assert way_out in raised.value.fix, name
