"""Every published layout, written as its publisher writes it, computes what its publisher's does.

Each forward pass to compare with shares nothing with ours: Keras's rules in numpy, torchvision's
own models, timm's own. Pictures are fed as the publisher says, so channel order and range are part
of the proof. What is written here are random values, VGGs are narrow.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from benchmark.models import backbone
from benchmark.models.backbone import build_backbone
from benchmark.models.preprocessing import InputScaling
from benchmark.models.weight_formats import backbone_tensors, convert
from benchmark.models.weight_manifest import FILES, PublishedFile, files_for
from tests.models import keras_vgg

IMAGENET_BGR = (103.939, 116.779, 123.68)
VGGFACE_BGR = (93.5940, 104.7624, 129.1863)
PICTURE = np.random.default_rng(7).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def published(architecture: str, layout: str) -> PublishedFile:
    (file,) = [file for file in FILES if (file.architecture, file.layout) == (architecture, layout)]
    return file


def by_our_backbone(path: Path, known: PublishedFile, picture: npt.NDArray[np.uint8]) -> Tensor:
    """Feed one RGB picture (h, w, 3) as the manifest says: (n_features, h', w')."""
    layout, tensors, _ = convert(path)
    assert (layout.architecture, layout.name) == (known.architecture, known.layout)
    backbone = build_backbone(known.architecture, **known.options).eval()
    backbone.load_state_dict(tensors)
    scaling = InputScaling(known.preprocessing, picture.shape[0])
    with torch.inference_mode():
        return backbone(scaling(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]))[0]


def assert_close(ours: Tensor, wanted: Any) -> None:
    wanted = torch.as_tensor(wanted)
    assert ours.shape == wanted.shape
    assert (ours - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Build VGGs as narrow as the files that are written here."""
    monkeypatch.setattr(backbone, "VGG_WIDTHS", keras_vgg.WIDTHS)
    backbone_tensors.cache_clear()
    yield
    backbone_tensors.cache_clear()


@pytest.mark.usefixtures("narrow")
def test_keras_vggs_compute_what_keras_would(tmp_path: Path) -> None:
    for architecture, blocks in (("vgg16", keras_vgg.VGG16), ("vgg19", keras_vgg.VGG19)):
        kernels = keras_vgg.random_kernels(blocks)
        path = keras_vgg.write_imagenet_h5(tmp_path / f"{architecture}.h5", kernels)
        scaled = keras_vgg.caffe_input(PICTURE, IMAGENET_BGR)
        wanted = keras_vgg.forward(scaled, kernels).transpose(2, 0, 1)
        assert wanted.shape == (keras_vgg.WIDTHS[-1], 1, 1)
        ours = by_our_backbone(path, published(architecture, "keras"), PICTURE)
        assert_close(ours, wanted.copy())


@pytest.mark.usefixtures("narrow")
def test_both_layouts_of_vgg_face_compute_what_keras_would(tmp_path: Path) -> None:
    kernels = keras_vgg.random_kernels(keras_vgg.VGG16)
    scaled = keras_vgg.caffe_input(PICTURE, VGGFACE_BGR)
    wanted = torch.from_numpy(keras_vgg.forward(scaled, kernels)).permute(2, 0, 1)
    path = keras_vgg.write_vggface_h5(tmp_path / "any.h5", kernels)
    assert_close(by_our_backbone(path, published("vgg16", "keras_vggface"), PICTURE), wanted)
    # The same network with red first, and its classifier beside it.
    state = {"fc6.weight": torch.zeros(4, 25), "fc8.bias": torch.zeros(4)}
    for block, pairs in enumerate(kernels, start=1):
        for number, (kernel, bias) in enumerate(pairs, start=1):
            turned = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            is_first = (block, number) == (1, 1)
            state[f"conv{block}_{number}.weight"] = turned.flip(1) if is_first else turned
            state[f"conv{block}_{number}.bias"] = torch.from_numpy(bias)
    torch.save(state, tmp_path / "any.pth")
    known = published("vgg16", "vgg_face_dag")
    assert known.preprocessing.channels == "RGB"
    assert_close(by_our_backbone(tmp_path / "any.pth", known, PICTURE), wanted)


def lively(model: nn.Module) -> nn.Module:
    """Give batch norm statistics and weights that a mistaken order would show in."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight, module.running_mean, module.bias):
                assert values is not None
                values.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def fed(picture: npt.NDArray[np.uint8], mean: Any, std: Any) -> Tensor:
    unit = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    return normalize(unit, list(mean), list(std))


def compare_with_torchvision(path: Path, architecture: str, features: nn.Module) -> None:
    with torch.inference_mode():
        wanted = features(fed(PICTURE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))[0]
    assert_close(by_our_backbone(path, published(architecture, "torchvision"), PICTURE), wanted)


@pytest.mark.usefixtures("narrow")
def test_torchvisions_vggs_compute_what_torchvision_does(tmp_path: Path) -> None:
    for architecture, letter in (("vgg16", "D"), ("vgg19", "E")):
        layers: list[Any] = []
        for layer in torchvision.models.vgg.cfgs[letter]:
            layers.append(layer if layer == "M" else keras_vgg.WIDTHS[layers.count("M")])
        features = torchvision.models.vgg.make_layers(layers).eval()
        state = {f"features.{name}": value for name, value in features.state_dict().items()}
        state["classifier.0.weight"] = torch.zeros(4, 25)
        torch.save(state, tmp_path / f"{architecture}.pth")
        compare_with_torchvision(tmp_path / f"{architecture}.pth", architecture, features)


def test_torchvisions_resnet50_computes_what_torchvision_does(tmp_path: Path) -> None:
    model = lively(torchvision.models.resnet50())
    # As files older than torch 0.4.1; that of mobilenet_v2 has counted batches.
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "any.pth")
    features = nn.Sequential(*list(model.children())[:-2])
    compare_with_torchvision(tmp_path / "any.pth", "resnet50", features)


def test_torchvisions_densenet121_computes_what_torchvision_does(tmp_path: Path) -> None:
    model = lively(torchvision.models.densenet121())
    new = model.state_dict()
    # As the file that torchvision publishes: `norm.1` for `norm1`.
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): tensor
        for name, tensor in new.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    for name, state in (("new", new), ("old", old)):
        torch.save(state, tmp_path / name)
        features = nn.Sequential(model.features, nn.ReLU())
        compare_with_torchvision(tmp_path / name, "densenet121", features)


def test_torchvisions_mobilenet_v2_computes_what_torchvision_does(tmp_path: Path) -> None:
    model = lively(torchvision.models.mobilenet_v2())
    torch.save(model.state_dict(), tmp_path / "any.pth")
    compare_with_torchvision(tmp_path / "any.pth", "mobilenet_v2", model.features)


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_b0",
        "mobilenetv4_conv_small",
        pytest.param("convnext_tiny", marks=pytest.mark.slow),
        pytest.param("vit_small_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_timms_files_compute_what_timm_does(tmp_path: Path, name: str) -> None:
    model = lively(timm.create_model(name, dynamic_img_size=True) if "vit" in name
                   else timm.create_model(name))  # fmt: skip
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, metadata={"format": "pt"})
    scaled = fed(PICTURE, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    with torch.inference_mode():
        wanted = model.forward_head(model.forward_features(scaled), pre_logits=True)[0]
    (known,) = files_for(name, "imagenet")
    assert_close(by_our_backbone(path, known, PICTURE).flatten(), wanted)


def test_any_other_model_of_timm_is_converted_once_it_is_named(tmp_path: Path) -> None:
    model = lively(timm.create_model("test_vit"))
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    layout, tensors, _ = convert(tmp_path / "model.safetensors", "test_vit")
    assert (layout.architecture, layout.name) == ("test_vit", "timm")
    backbone = build_backbone("test_vit").eval()
    backbone.load_state_dict(tensors)
    images = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        wanted = model.forward_head(model.forward_features(images), pre_logits=True)
        assert torch.allclose(backbone(images).flatten(1), wanted, atol=1e-5)
