"""The manifest says of every source what its publisher says, as far as that is installed here."""

import timm
import torch
import torchvision.models
from timm.models import get_pretrained_cfg

from benchmark.experiment import timm_models
from benchmark.experiment.architectures import ARCHITECTURES, FROM_TIMM
from benchmark.models.backbone import build_backbone
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


def test_every_entry_of_the_manifest_fits_its_backbone() -> None:
    names = [file.file_name for file in FILES]
    assert len(set(names)) == len(names)
    for file in FILES:
        with torch.device("meta"):
            build_backbone(file.architecture, **file.options)
        (layout,) = [known for known in layouts_of(file.architecture) if known.name == file.layout]
        assert dict(layout.options) == dict(file.options), file.file_name
        assert len(file.sha256 or "8 digits") in (8, 64), file.file_name
        assert len(file.md5 or "0" * 32) == 32, file.file_name
        assert file.url.startswith(("https://", "http://www.robots.ox.ac.uk/")), file.file_name
        end = "model.safetensors" if file.layout == "timm" else file.file_name
        assert file.url.endswith(f"/{end}")


def test_torchvisions_files_are_as_torchvision_says() -> None:
    for file in by("torchvision"):
        weights = torchvision.models.get_model_weights(file.architecture)["IMAGENET1K_V1"]
        transforms = weights.transforms()
        assert file.url == weights.url, file.file_name
        assert (file.sha256 or "no sum") in weights.url, file.file_name
        assert file.preprocessing == IMAGENET, file.file_name
        assert (tuple(transforms.mean), tuple(transforms.std)) == (IMAGENET.mean, IMAGENET.std)


def test_timms_files_are_as_timm_says() -> None:
    for file in by("timm"):
        cfg = get_pretrained_cfg(file.file_name.removesuffix(".safetensors"))
        assert file.url == f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors"
        assert (file.preprocessing.mean, file.preprocessing.std) == (cfg.mean, cfg.std)
        assert (file.preprocessing.channels, file.preprocessing.scale) == ("RGB", 1 / 255)
        assert file.licence.lower() == cfg.license, file.file_name
        assert cfg.num_classes == 1000
    # What is written down of timm is what would be asked of it.
    for architecture in FROM_TIMM:
        (known,) = files_for(architecture.name, "imagenet")
        asked = timm_models.pretrained(architecture.name)
        assert asked is not None
        assert known.file_name == f"{architecture.name}.{asked.tag}.safetensors"


def test_any_other_model_of_timm_has_the_source_that_timm_knows() -> None:
    (file,) = files_for("resnet18", "imagenet")
    assert file.file_name.removesuffix(".safetensors") in timm.list_pretrained("resnet18*")
    assert file.url.startswith("https://huggingface.co/timm/resnet18.")
    assert (file.preprocessing, file.sha256) == (IMAGENET, None)
    assert files_for("vit_small_patch14_dinov2", "imagenet") == ()


def test_what_starts_from_nothing_is_fed_from_minus_one_to_one() -> None:
    for name in ARCHITECTURES:
        preprocessing, options = untrained_start(name)
        assert preprocessing == CENTRED, name
        with torch.device("meta"):
            build_backbone(name, **options)
