"""The manifest says of every source what its publisher says, as far as that is installed here."""

import pytest
import timm
import torch
import torchvision.models
from timm.models import get_pretrained_cfg

from benchmark import timm_models
from benchmark.architectures import ARCHITECTURES, FROM_TIMM
from benchmark.models.chains import build_trunk
from benchmark.models.preprocessing import CENTRED, IMAGENET
from benchmark.models.weight_formats import layouts_of
from benchmark.models.weight_manifest import FILES, PublishedFile, files_for, untrained_start


def by(layout: str) -> list[PublishedFile]:
    return [file for file in FILES if file.layout == layout]


def test_the_manifest_covers_every_source_of_every_architecture() -> None:
    sources = {
        (architecture.name, source)
        for architecture in ARCHITECTURES.values()
        for source in architecture.weight_sources
    }
    assert sources - {(name, "none") for name in ARCHITECTURES} == {
        (file.architecture, file.source) for file in FILES
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.file_name)
def test_every_entry_of_the_manifest_fits_its_trunk(file: PublishedFile) -> None:
    with torch.device("meta"):
        build_trunk(file.architecture, **file.options)
    (layout,) = [known for known in layouts_of(file.architecture) if known.name == file.layout]
    assert dict(layout.options) == dict(file.options)
    assert len(file.sha256 or "8 digits") in (8, 64)
    assert len(file.md5 or "0" * 32) == 32
    assert file.url.startswith(("https://", "http://www.robots.ox.ac.uk/"))


def test_no_two_files_have_one_name() -> None:
    names = [file.file_name for file in FILES]
    assert len(set(names)) == len(names)


def test_an_address_ends_with_the_files_name_but_on_timms_hub() -> None:
    for file in FILES:
        end = "model.safetensors" if file.layout == "timm" else file.file_name
        assert file.url.endswith(f"/{end}")


@pytest.mark.parametrize(
    ("architecture", "weights"),
    [
        ("squeezenet1_1", torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1),
        ("vgg16", torchvision.models.VGG16_Weights.IMAGENET1K_V1),
        ("vgg19", torchvision.models.VGG19_Weights.IMAGENET1K_V1),
        ("resnet50", torchvision.models.ResNet50_Weights.IMAGENET1K_V1),
        ("densenet121", torchvision.models.DenseNet121_Weights.IMAGENET1K_V1),
        ("mobilenet_v2", torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1),
    ],
)
def test_torchvisions_files_are_as_torchvision_says(
    architecture: str, weights: torchvision.models.WeightsEnum
) -> None:
    (file,) = [file for file in by("torchvision") if file.architecture == architecture]
    transforms = weights.transforms()
    assert file.url == weights.url
    assert file.sha256 in weights.url
    assert file.preprocessing == IMAGENET
    assert (tuple(transforms.mean), tuple(transforms.std)) == (IMAGENET.mean, IMAGENET.std)


@pytest.mark.parametrize("file", by("timm"), ids=lambda file: file.architecture)
def test_timms_files_are_as_timm_says(file: PublishedFile) -> None:
    cfg = get_pretrained_cfg(file.file_name.removesuffix(".safetensors"))
    assert file.url == f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors"
    assert (file.preprocessing.mean, file.preprocessing.std) == (cfg.mean, cfg.std)
    assert (file.preprocessing.channels, file.preprocessing.scale) == ("RGB", 1 / 255)
    assert file.licence.lower() == cfg.license
    assert cfg.num_classes == 1000


def test_what_is_written_down_of_timm_is_what_would_be_asked_of_it() -> None:
    for architecture in FROM_TIMM:
        (file,) = files_for(architecture.name, "imagenet")
        tag = timm_models.imagenet_tag(architecture.name)
        assert file.file_name == f"{architecture.name}.{tag}.safetensors"


def test_any_other_model_of_timm_has_the_source_that_timm_knows() -> None:
    (file,) = files_for("resnet18", "imagenet")
    assert f"resnet18.{timm_models.imagenet_tag('resnet18')}" in timm.list_pretrained("resnet18*")
    assert file.url.startswith("https://huggingface.co/timm/resnet18.")
    assert (file.preprocessing, file.sha256) == (IMAGENET, None)
    assert files_for("vit_small_patch14_dinov2", "imagenet") == ()


def test_what_starts_from_nothing_is_fed_from_minus_one_to_one() -> None:
    assert {untrained_start(name).preprocessing for name in ARCHITECTURES} == {CENTRED}
    with torch.device("meta"):
        for name in ARCHITECTURES:
            build_trunk(name, **untrained_start(name).options)
