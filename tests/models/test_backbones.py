"""Every backbone, ours or timm's, has the stages and sizes that it says, and can be cut.

What they compute: test_weight_formats; which stages are trained: test_network.
"""

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmark.errors import ExperimentError, WeightsError
from benchmark.experiment import timm_models
from benchmark.experiment.architectures import ARCHITECTURES, FROM_TIMM, OURS, architecture_named
from benchmark.experiment.definition import Backbone
from benchmark.models import backbone as backbones
from benchmark.models.backbone import FeatureExtractor, build_backbone, feature_map_shape


def a_backbone(architecture: str) -> FeatureExtractor:
    return build_backbone(architecture, **backbones.first_options(architecture))


def test_the_stages_a_definition_knows_are_the_backbones_and_hold_all_of_it() -> None:
    assert list(backbones.BUILDERS) == [item.name for item in OURS]
    for architecture in ARCHITECTURES:
        with torch.device("meta"):
            backbone = a_backbone(architecture)
        assert tuple(backbone.stages) == ARCHITECTURES[architecture].stages
        held = [id(item) for name in backbone.stages for item in backbone.stages[name].parameters()]
        assert len(held) == len(set(held)), architecture
        assert set(held) == {id(parameter) for parameter in backbone.parameters()}, architecture
        n_states = sum(len(backbone.stages[name].state_dict()) for name in backbone.stages)
        assert n_states == len(backbone.state_dict()), f"{architecture}: running statistics too"


def test_the_multiply_adds_a_definition_knows_are_those_that_are_counted() -> None:
    for architecture in ARCHITECTURES.values():
        px = 112 if architecture.input_multiple > 1 else 100
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            a_backbone(architecture.name).eval()(torch.empty(1, 3, px, px))
        known = 1e6 * sum(architecture.mega_macs) * (px / 100) ** 2
        assert counter.get_total_flops() / 2 == pytest.approx(known, rel=0.02), architecture.name


def test_any_prefix_of_a_chain_can_be_cut() -> None:
    x = torch.randn(2, 3, 64, 64)
    for architecture in ("cnn", "squeezenet1_1", "densenet121", "mobilenet_v2"):
        backbone = a_backbone(architecture).eval()
        n_stages = len(backbone.stages)
        with torch.inference_mode():
            wanted = backbone(x.clone())
            for cut in range(n_stages + 1):
                middle = backbone(x.clone(), end=cut)
                before = middle.clone()
                assert torch.equal(backbone(middle, first=cut), wanted), (architecture, cut)
                assert cut == n_stages or torch.equal(middle, before), "nothing in place"


def test_what_is_not_known_is_refused() -> None:
    for options in ({}, {"pooling": "round"}, {"pooling": "ceil", "x": "1"}):
        with pytest.raises(WeightsError, match="allowed: pooling: floor or ceil"):
            build_backbone("squeezenet1_1", **options)
    for architecture in ("vgg16", FROM_TIMM[0].name):
        with pytest.raises(WeightsError, match="allowed: none"):
            build_backbone(architecture, pooling="floor")
    with pytest.raises(ExperimentError, match="cnn, convnext_tiny"):
        build_backbone("alexnet")
    with pytest.raises(ExperimentError, match="does not support classification"):
        feature_map_shape("qwen3_vit_88m_enc", 224)
    # 100 → 49, then maxima: 24, floor(11.5), floor(5.0) against ceil: 24, 12, 6
    for pooling, side in (("floor", 5), ("ceil", 6)):
        shape = feature_map_shape("squeezenet1_1", 100, pooling=pooling)
        assert shape == (512, side, side), pooling
    for name, size in (("vit_tiny_patch16_224", 100), ("mixer_s16_224", 112)):
        with pytest.raises(ExperimentError, match=f"{name} cannot take pictures of {size}"):
            feature_map_shape(name, size)


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
    for name, wanted in PARAMETERS.items():
        with torch.device("meta"):
            model = timm_models.create(name)
        stages = timm_models.stages_of(name).values()
        found = [sum(model.get_parameter(it).numel() for it in paths) for paths in stages]
        assert found == wanted, name
    with torch.device("meta"):
        model = timm_models.create("vgg16")
    assert timm_models.n_features(model) == 512, "built without its layers of 4,096"
    left_out = timm_models.classifier_tensors("vgg16")
    assert {name.split(".")[0] for name in left_out} == {"pre_logits", "head"}


def test_stages_of_any_family_are_named_by_their_place_and_hold_everything() -> None:
    stages = ("stem", "layers_0", "layers_1", "layers_2", "layers_3")
    assert architecture_named("swin_tiny_patch4_window7_224").stages == stages
    for name in ("inception_v3", "coat_tiny", "levit_128", "maxvit_tiny_rw_224"):
        stages = timm_models.stages_of(name)
        assert all(re.fullmatch("[a-z0-9_]+", stage) for stage in stages), name
        with torch.device("meta"):
            paths = [path for path, _ in timm_models.create(name).named_parameters()]
        assert sorted(path for own in stages.values() for path in own) == sorted(paths), name


def test_imagenet_means_imagenet_1k_alone() -> None:
    for name, tag in {
        "resnet18": "a1_in1k",
        # timm's own first choice, ns_jft_in1k, learnt from a teacher with pictures of Google's
        "tf_efficientnet_b0": "ap_in1k",
        # only with other pictures, or none published
        "vit_small_patch14_dinov2": None,
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
