"""Every published layout, written as its publisher writes it, computes what its publisher's does.

Each forward pass to compare with shares nothing with ours: Keras's rules in numpy, torchvision's
own models, timm's own. Pictures are fed as the publisher says, so channel order and range are part
of the proof. What is written here are random values.
"""

from collections.abc import Callable
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

from benchmark.models.chains import build_trunk
from benchmark.models.preprocessing import InputScaling
from benchmark.models.weight_formats import convert
from benchmark.models.weight_manifest import FILES, PublishedFile, files_for
from tests.models import keras_vgg

IMAGENET_BGR = (103.939, 116.779, 123.68)
VGGFACE_BGR = (93.5940, 104.7624, 129.1863)
PICTURE = np.random.default_rng(7).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def published(architecture: str, layout: str) -> PublishedFile:
    (file,) = [file for file in FILES if (file.architecture, file.layout) == (architecture, layout)]
    return file


def by_our_trunk(path: Path, known: PublishedFile, picture: npt.NDArray[np.uint8]) -> Tensor:
    """Feed one RGB picture (h, w, 3) as the manifest says: (n_features, h', w')."""
    layout, tensors, _ = convert(path)
    assert (layout.architecture, layout.name) == (known.architecture, known.layout)
    trunk = build_trunk(known.architecture, **known.options).eval()
    trunk.load_state_dict(tensors)
    scaling = InputScaling(known.preprocessing, picture.shape[0])
    with torch.inference_mode():
        return trunk(scaling(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]))[0]


def assert_close(ours: Tensor, wanted: Any) -> None:
    wanted = torch.as_tensor(wanted)
    assert ours.shape == wanted.shape
    assert (ours - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.fixture(scope="module")
def vgg16_kernels() -> keras_vgg.Kernels:
    return keras_vgg.random_kernels(keras_vgg.VGG16)


@pytest.fixture(scope="module")
def vggface_features(vgg16_kernels: keras_vgg.Kernels) -> Tensor:
    """What a network of these kernels says of PICTURE when it is fed as VGG Face: CHW."""
    scaled = keras_vgg.caffe_input(PICTURE, VGGFACE_BGR)
    return torch.from_numpy(keras_vgg.forward(scaled, vgg16_kernels)).permute(2, 0, 1)


def test_keras_vgg16_computes_what_keras_would(
    tmp_path: Path, vgg16_kernels: keras_vgg.Kernels
) -> None:
    path = keras_vgg.write_imagenet_h5(tmp_path / "any.h5", vgg16_kernels)
    scaled = keras_vgg.caffe_input(PICTURE, IMAGENET_BGR)
    wanted = keras_vgg.forward(scaled, vgg16_kernels).transpose(2, 0, 1)
    assert wanted.shape == (512, 1, 1)
    assert_close(by_our_trunk(path, published("vgg16", "keras"), PICTURE), wanted.copy())


@pytest.mark.slow
def test_keras_vgg19_computes_what_keras_would(tmp_path: Path) -> None:
    kernels = keras_vgg.random_kernels(keras_vgg.VGG19)
    path = keras_vgg.write_imagenet_h5(tmp_path / "any.h5", kernels)
    wanted = keras_vgg.forward(keras_vgg.caffe_input(PICTURE, IMAGENET_BGR), kernels)
    ours = by_our_trunk(path, published("vgg19", "keras"), PICTURE)
    assert_close(ours, wanted.transpose(2, 0, 1).copy())


def test_keras_vggface_computes_what_keras_would(
    tmp_path: Path, vgg16_kernels: keras_vgg.Kernels, vggface_features: Tensor
) -> None:
    path = keras_vgg.write_vggface_h5(tmp_path / "any.h5", vgg16_kernels)
    ours = by_our_trunk(path, published("vgg16", "keras_vggface"), PICTURE)
    assert_close(ours, vggface_features)


def oihw(kernels: keras_vgg.Kernels, *, rgb: bool) -> list[tuple[str, Any, Any]]:
    """Give name, kernel in torch's order and bias; `rgb` turns the first for red first."""
    found = []
    for block, pairs in enumerate(kernels, start=1):
        for number, (kernel, bias) in enumerate(pairs, start=1):
            turned = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
            if rgb and not found:
                turned = np.ascontiguousarray(turned[:, ::-1])
            found.append((f"conv{block}_{number}", turned, bias))
    return found


def test_vgg_face_dag_is_the_same_network_with_red_first(
    tmp_path: Path, vgg16_kernels: keras_vgg.Kernels, vggface_features: Tensor
) -> None:
    state = {}
    for name, kernel, bias in oihw(vgg16_kernels, rgb=True):
        state |= {f"{name}.weight": torch.from_numpy(kernel), f"{name}.bias": torch.tensor(bias)}
    for name, n_out, n_in in (("fc6", 4096, 25088), ("fc7", 4096, 4096), ("fc8", 2622, 4096)):
        state[f"{name}.weight"] = torch.zeros(1).expand(n_out, n_in)
        state[f"{name}.bias"] = torch.zeros(n_out)
    torch.save(state, tmp_path / "any.pth")
    known = published("vgg16", "vgg_face_dag")
    assert known.preprocessing.channels == "RGB"
    assert_close(by_our_trunk(tmp_path / "any.pth", known, PICTURE), vggface_features)


def lively(model: nn.Module) -> nn.Module:
    """Give batch norm statistics and weights that a mistaken order would show in."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_var, module.weight, module.running_mean, module.bias):
                assert values is not None
                values.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def as_torchvision_feeds(picture: npt.NDArray[np.uint8]) -> Tensor:
    unit = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    return normalize(unit, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename as the densenet121 that torchvision publishes: `norm.1` for `norm1`."""
    return {
        name.replace("norm1", "norm.1").replace("norm2", "norm.2")
        .replace("conv1.", "conv.1.").replace("conv2.", "conv.2.")
        if "denselayer" in name else name: tensor
        for name, tensor in state.items()
    }  # fmt: skip


def vgg_features(architecture: str) -> nn.Module:
    """Torchvision's convolutions alone; its classifier would be 120 M values of no use here."""
    with torch.device("meta"):
        features = getattr(torchvision.models, architecture)().features
    features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(4)
    for parameter in features.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 2
        parameter.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    return features.eval()


@pytest.mark.parametrize("architecture", ["vgg16", pytest.param("vgg19", marks=pytest.mark.slow)])
def test_torchvision_vgg_computes_what_torchvision_does(tmp_path: Path, architecture: str) -> None:
    features = vgg_features(architecture)
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(1).expand(4096, 25088)
    torch.save(state, tmp_path / "any.pth")
    with torch.inference_mode():
        wanted = features(as_torchvision_feeds(PICTURE))[0]
    known = published(architecture, "torchvision")
    assert_close(by_our_trunk(tmp_path / "any.pth", known, PICTURE), wanted)


def test_torchvision_resnet50_computes_what_torchvision_does(tmp_path: Path) -> None:
    model = lively(torchvision.models.resnet50())
    # As files older than torch 0.4.1; `test_torchvision_mobilenet_v2` has counted batches.
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "any.pth")
    with torch.inference_mode():
        wanted = nn.Sequential(*list(model.children())[:-2])(as_torchvision_feeds(PICTURE))[0]
    assert_close(
        by_our_trunk(tmp_path / "any.pth", published("resnet50", "torchvision"), PICTURE), wanted
    )


@pytest.mark.parametrize("renamed", [old_names, dict])
def test_torchvision_densenet121_computes_what_torchvision_does(
    tmp_path: Path, renamed: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    model = lively(torchvision.models.densenet121())
    state = renamed(model.state_dict())
    assert ("features.denseblock1.denselayer1.norm.1.weight" in state) == (renamed is old_names)
    torch.save(state, tmp_path / "any.pth")
    with torch.inference_mode():
        wanted = model.features(as_torchvision_feeds(PICTURE)).relu()[0]
    known = published("densenet121", "torchvision")
    assert_close(by_our_trunk(tmp_path / "any.pth", known, PICTURE), wanted)


def test_torchvision_mobilenet_v2_computes_what_torchvision_does(tmp_path: Path) -> None:
    model = lively(torchvision.models.mobilenet_v2())
    torch.save(model.state_dict(), tmp_path / "any.pth")
    with torch.inference_mode():
        wanted = model.features(as_torchvision_feeds(PICTURE))[0]
    known = published("mobilenet_v2", "torchvision")
    assert_close(by_our_trunk(tmp_path / "any.pth", known, PICTURE), wanted)


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
    cfg = model.pretrained_cfg
    scaled = torch.from_numpy(PICTURE).permute(2, 0, 1)[None].float() / 255
    scaled = normalize(scaled, list(cfg["mean"]), list(cfg["std"]))
    with torch.inference_mode():
        wanted = model.forward_head(model.forward_features(scaled), pre_logits=True)[0]
    (known,) = files_for(name, "imagenet")
    assert_close(by_our_trunk(path, known, PICTURE).flatten(), wanted)


def test_any_other_model_of_timm_is_converted_once_it_is_named(tmp_path: Path) -> None:
    model = lively(timm.create_model("test_vit"))
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    layout, tensors, _ = convert(tmp_path / "model.safetensors", "test_vit")
    assert (layout.architecture, layout.name) == ("test_vit", "timm")
    trunk = build_trunk("test_vit").eval()
    trunk.load_state_dict(tensors)
    images = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        wanted = model.forward_head(model.forward_features(images), pre_logits=True)
        assert torch.allclose(trunk(images).flatten(1), wanted, atol=1e-5)
