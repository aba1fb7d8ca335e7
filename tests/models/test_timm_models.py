"""What is read off timm's models is what timm's own tables say, and nothing is ever fetched."""

import re

import pytest
import torch

from benchmark.errors import ExperimentError
from benchmark.experiment import timm_models
from benchmark.experiment.architectures import FROM_TIMM, architecture_named
from benchmark.experiment.definition import Backbone


def by_stage(name: str) -> list[int]:
    """Parameters of each stage, shallow to deep."""
    with torch.device("meta"):
        model = timm_models.create(name)
    stages = timm_models.stages_of(name)
    return [sum(model.get_parameter(it).numel() for it in paths) for paths in stages.values()]


PARAMETERS = {
    # timm groups VGGs by layer; cut at the maxima instead, without the layers of 4,096
    "vgg16": [38_720, 221_440, 1_475_328, 5_899_776, 7_079_424],
    # two more per channel for each norm: 2 * (64 + 64) in the first block, and so on
    "vgg16_bn": [38_976, 221_952, 1_476_864, 5_902_848, 7_082_496],
    # the last group, norm5 with 2,048, is folded into the block before it
    "densenet121": [9_536, 368_320, 1_051_776, 3_364_096, 2_158_080 + 2_048],
    # likewise the 1,536 of head.norm
    "convnext_tiny": [4_896, 237_888, 992_256, 11_112_960, 15_470_592 + 1_536],
    # conv_head and its norm, 1.23 million, are a stage
    "mobilenetv4_conv_small": [928, 10_368, 34_112, 272_160, 819_296, 124_800, 1_231_360],
}


def test_stages_have_the_parameters_of_timms_groups() -> None:
    assert {name: by_stage(name) for name in PARAMETERS} == PARAMETERS
    with torch.device("meta"):
        model = timm_models.create("vgg16")
    assert timm_models.n_features(model) == 512, "built without its layers of 4,096"
    left_out = timm_models.classifier_tensors("vgg16")
    assert {name.split(".")[0] for name in left_out} == {"pre_logits", "head"}


def test_what_is_written_down_is_what_timm_says() -> None:
    for known in FROM_TIMM:
        assert known.stages == tuple(timm_models.stages_of(known.name))
        has_weights = timm_models.pretrained(known.name) is not None
        assert ("imagenet" in known.weight_sources) == has_weights, known.name


def test_stages_of_any_family_are_named_by_their_place_and_hold_everything() -> None:
    stages = ("stem", "layers_0", "layers_1", "layers_2", "layers_3")
    assert architecture_named("swin_tiny_patch4_window7_224").stages == stages
    for name in ("inception_v3", "coat_tiny", "hrnet_w18", "levit_128", "maxvit_tiny_rw_224"):
        stages = timm_models.stages_of(name)
        assert all(re.fullmatch("[a-z0-9_]+", stage) for stage in stages), name
        with torch.device("meta"):
            paths = [path for path, _ in timm_models.create(name).named_parameters()]
        assert sorted(path for own in stages.values() for path in own) == sorted(paths), name


def test_imagenet_means_imagenet_1k_alone() -> None:
    for name, tag in {
        "convnext_tiny": "fb_in1k",
        "efficientnet_b0": "ra_in1k",
        "mobilenetv4_conv_small": "e2400_r224_in1k",
        "vit_small_patch16_224": "augreg_in1k",
        "resnet18": "a1_in1k",
        # timm's own first choice, ns_jft_in1k, learnt from a teacher with pictures of Google's
        "tf_efficientnet_b0": "ap_in1k",
        # only with other pictures, or none published
        "vit_small_patch14_dinov2": None,
        "vit_tiny_patch16_224": None,
    }.items():
        found = timm_models.pretrained(name)
        assert (found.tag if found else None) == tag, name
        sources = ("none", "imagenet") if tag else ("none",)
        assert architecture_named(name).weight_sources == sources, name


def test_what_is_no_model_or_has_no_groups_is_refused() -> None:
    found = {"resnet18", "resnet18.a1_in1k", "resnet17"} & set(timm_models.names())
    assert found == {"resnet18"}
    for name, reason in (
        ("resnet17", "unknown architecture 'resnet17'.*resnet18"),
        ("rdnet_tiny", "cannot be used here: .*coarse grouping is not implemented"),
        ("poolformer_s12", "cannot be used here: .*no group_matcher"),
    ):
        with pytest.raises(ExperimentError, match=reason):
            Backbone(name)
