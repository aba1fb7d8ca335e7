"""Every backbone, ours or timm's, has the stages, sizes and parameters that it says, and computes
what it should; which are trained at which depth is asked of networks: test_network.
"""

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.errors import ExperimentError, WeightsError
from benchmark.experiment.architectures import ARCHITECTURES, FROM_TIMM, OURS
from benchmark.experiment.timm_models import classifier_tensors
from benchmark.models import backbone as backbones
from benchmark.models.backbone import FeatureExtractor, build_backbone, feature_map_shape
from tests.models.steps import OTHERS_OF_TIMM


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


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


PARAMETERS = {
    # 3x3 kernels without bias, and two for each channel's norm
    "cnn": [9 * n * m + 2 * m for n, m in ((3, 24), (24, 48), (48, 96), (96, 192), (192, 256))],
    "vgg16": [38_720, 221_440, 1_475_328, 5_899_776, 7_079_424],
    # four convolutions of 256 * 256 * 9 + 256 less one on 128; four of 512 * 512 * 9 + 512
    "vgg19": [38_720, 221_440, 2_065_408, 8_259_584, 9_439_232],
    "resnet50": [9_536, 215_808, 1_219_584, 7_098_368, 14_964_736],
    # norm5, 2,048 of them, belongs to the last block
    "densenet121": [9_536, 368_320, 1_051_776, 3_364_096, 2_158_080 + 2_048],
    # 2,223,872 in all (torchvision: 3,504,872 less a classifier of 1,281,000)
    "mobilenet_v2": [1_824, 13_968, 39_696, 487_040, 1_681_344],
    # a fire module of (n, s, e): s * (n + 1) + e * (s + 1) + e * (9 * s + 1)
    "squeezenet1_1": [1_792, 11_408 + 12_432, 45_344 + 49_440, 602_080],
}


def test_stages_have_the_parameters_of_the_published_layout() -> None:
    for architecture, by_stage in PARAMETERS.items():
        with torch.device("meta"):
            stages = a_backbone(architecture).stages
        assert [n_parameters(stage) for stage in stages.values()] == by_stage, architecture


SHAPES: list[tuple[str, dict[str, str], int, tuple[int, int, int]]] = [
    # 100 → 50 → 25 → 12 → 6 → 3
    ("cnn", {}, 100, (256, 3, 3)),
    ("vgg16", {}, 100, (512, 3, 3)),
    ("vgg19", {}, 32, (512, 1, 1)),
    # halved five times, rounded up: 50, 25, 13, 7, 4
    ("resnet50", {}, 100, (2048, 4, 4)),
    # convolution and maximum round up: 50, 25; transitions round down: 12, 6, 3
    ("densenet121", {}, 100, (1024, 3, 3)),
    ("mobilenet_v2", {}, 100, (1280, 4, 4)),
    # 100 → 49, then maxima: 24, floor(11.5), floor(5.0) against ceil: 24, 12, 6
    ("squeezenet1_1", {"pooling": "floor"}, 100, (512, 5, 5)),
    ("squeezenet1_1", {"pooling": "ceil"}, 100, (512, 6, 6)),
    # Caffe's own 227: 113, 56, 28, 14
    ("squeezenet1_1", {"pooling": "ceil"}, 227, (512, 14, 14)),
    # timm pools by itself
    ("vit_small_patch16_224", {}, 112, (384, 1, 1)),
    ("efficientnet_b0", {}, 100, (1280, 1, 1)),
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


def test_our_chains_compute_what_torchvision_does_at_any_size() -> None:
    """VGGs, and files in torchvision's layout: test_weight_formats."""
    whole = torchvision.models
    theirs = {
        "resnet50": nn.Sequential(*list(whole.resnet50().children())[:-2]),
        "squeezenet1_1": whole.squeezenet1_1().features,
    }
    x = torch.randn(2, 3, 65, 65)
    for architecture, reference in theirs.items():
        ours = a_backbone(architecture, which=-1).eval()
        values = reference.eval().state_dict().values()
        ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
        with torch.inference_mode():
            wanted = reference(x)
            limit = 1e-5 * wanted.abs().max().item()
            assert torch.allclose(ours(x), wanted, atol=limit), architecture


def test_features_are_what_timms_own_classifier_reads() -> None:
    """Those of our definitions: test_weight_formats."""
    whole, seen = timm.create_model("resnet18", pretrained=False).eval(), list[Tensor]()
    whole.get_classifier().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    backbone, state = build_backbone("resnet18").eval(), whole.state_dict()
    tensors = {name: state.pop(name.removeprefix("model.")) for name in backbone.state_dict()}
    assert set(state) == set(classifier_tensors("resnet18"))
    backbone.load_state_dict(tensors)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        found = backbone(x)
        whole(x)
    assert found.shape == (2, backbone.n_features, 1, 1)
    assert torch.allclose(found.flatten(1), seen[0], atol=1e-5)


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
