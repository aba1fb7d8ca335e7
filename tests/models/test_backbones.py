"""Every backbone, ours or timm's, has the stages and sizes that it says, and can be cut.

What they compute: test_weight_formats; which stages are trained: test_network.
"""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.errors import ExperimentError, WeightsError
from benchmark.experiment.architectures import ARCHITECTURES, FROM_TIMM, OURS
from benchmark.models import backbone as backbones
from benchmark.models.backbone import FeatureExtractor, build_backbone, feature_map_shape
from tests.models.steps import OTHERS_OF_TIMM


def a_backbone(architecture: str, which: int = 0) -> FeatureExtractor:
    options = backbones.OPTIONS.get(architecture, {}).items()
    return build_backbone(architecture, **{name: values[which] for name, values in options})


def test_the_stages_a_definition_knows_are_the_backbones_and_hold_all_of_it() -> None:
    assert list(backbones.BUILDERS) == [item.name for item in OURS]
    for architecture in ARCHITECTURES:
        with torch.device("meta"):
            backbone = a_backbone(architecture)
        assert tuple(backbone.stages) == ARCHITECTURES[architecture].stages
        held = [id(item) for name in backbone.stages for item in backbone.stages[name].parameters()]
        assert len(held) == len(set(held)), architecture
        assert set(held) == {id(parameter) for parameter in backbone.parameters()}, architecture
        states = [key for name in backbone.stages for key in backbone.stages[name].state_dict()]
        assert len(states) == len(backbone.state_dict()), f"{architecture}: running statistics too"


def test_the_multiply_adds_a_definition_knows_are_those_that_are_counted() -> None:
    for architecture in ARCHITECTURES.values():
        px = 112 if architecture.input_multiple > 1 else 100
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            a_backbone(architecture.name).eval()(torch.empty(1, 3, px, px))
        known = 1e6 * sum(architecture.mega_macs) * (px / 100) ** 2
        assert counter.get_total_flops() / 2 == pytest.approx(known, rel=0.02), architecture.name


def test_cnn_block_is_convolution_norm_relu_then_maximum() -> None:
    block = build_backbone("cnn").train().stages["block1"]
    x = torch.randn(4, 3, 20, 20)
    wanted = nn.functional.max_pool2d(block.norm(block.conv(x)).relu(), 2)
    assert torch.equal(block(x), wanted)


SHAPES: list[tuple[str, dict[str, str], int, tuple[int, int, int]]] = [
    # 100 → 50 → 25 → 12 → 6 → 3
    ("cnn", {}, 100, (256, 3, 3)),
    ("vgg16", {}, 100, (512, 3, 3)),
    # halved five times, rounded up: 50, 25, 13, 7, 4
    ("resnet50", {}, 100, (2048, 4, 4)),
    # convolution and maximum round up: 50, 25; transitions round down: 12, 6, 3
    ("densenet121", {}, 100, (1024, 3, 3)),
    ("mobilenet_v2", {}, 100, (1280, 4, 4)),
    # 100 → 49, then maxima: 24, floor(11.5), floor(5.0) against ceil: 24, 12, 6
    ("squeezenet1_1", {"pooling": "floor"}, 100, (512, 5, 5)),
    ("squeezenet1_1", {"pooling": "ceil"}, 100, (512, 6, 6)),
    # timm pools by itself
    ("vit_small_patch16_224", {}, 112, (384, 1, 1)),
]


def test_the_last_feature_map_has_the_size_worked_by_hand() -> None:
    for architecture, options, image_px, shape in SHAPES:
        assert feature_map_shape(architecture, image_px, **options) == shape, architecture
    for architecture, input_px in OTHERS_OF_TIMM.items():
        with torch.device("meta"):
            backbone = build_backbone(architecture)
        shape = feature_map_shape(architecture, input_px)
        assert shape == (backbone.n_features, 1, 1), architecture


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
    for name, size in (("vit_tiny_patch16_224", 100), ("mixer_s16_224", 112)):
        with pytest.raises(ExperimentError, match=f"{name} cannot take pictures of {size}"):
            feature_map_shape(name, size)
