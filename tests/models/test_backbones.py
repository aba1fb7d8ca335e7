"""Every trunk has the stages, sizes and parameters that it says, and computes what it should."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from benchmark.architectures import ARCHITECTURES, FROM_TIMM, OURS
from benchmark.errors import ExperimentError, WeightsError
from benchmark.models.backbone import Trunk
from benchmark.models.chains import BUILDERS, OPTIONS, build_trunk, feature_map_shape, options_of

OUR_NAMES = [item.name for item in OURS]


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def a_trunk(architecture: str) -> Trunk:
    return build_trunk(
        architecture, **{option: values[0] for option, values in options_of(architecture).items()}
    )


def test_every_architecture_can_be_built() -> None:
    assert list(BUILDERS) == OUR_NAMES
    assert set(OPTIONS) == set(ARCHITECTURES)
    assert options_of("resnet18") == {}


def test_the_stages_a_definition_knows_are_the_trunks_and_hold_all_of_it() -> None:
    for architecture in ARCHITECTURES:
        with torch.device("meta"):
            trunk = a_trunk(architecture)
        assert tuple(trunk.stages) == ARCHITECTURES[architecture].stages
        held = [id(item) for name in trunk.stages for item in trunk.stages[name].parameters()]
        assert len(held) == len(set(held)), architecture
        assert set(held) == {id(parameter) for parameter in trunk.parameters()}, architecture
        states = [key for name in trunk.stages for key in trunk.stages[name].state_dict()]
        assert len(states) == len(trunk.state_dict()), f"{architecture}: running statistics too"


def test_cnn_has_the_parameters_of_its_layout() -> None:
    # 3x3 kernels without bias: 9 * (3*24 + 24*48 + 48*96 + 96*192 + 192*256) = 660,744;
    # batch norm: 2 * (24 + 48 + 96 + 192 + 256) = 1,232
    assert n_parameters(build_trunk("cnn")) == 660_744 + 1_232


def test_cnn_block_is_convolution_norm_relu_then_maximum() -> None:
    block = build_trunk("cnn").train().stages["block1"]
    x = torch.randn(4, 3, 20, 20)
    wanted = nn.functional.max_pool2d(block.norm(block.conv(x)).relu(), 2)
    assert torch.equal(block(x), wanted)


@pytest.mark.parametrize(
    ("architecture", "by_stage"),
    [
        ("vgg16", [38_720, 221_440, 1_475_328, 5_899_776, 7_079_424]),
        # four convolutions of 256 * 256 * 9 + 256 less one on 128; four of 512 * 512 * 9 + 512
        ("vgg19", [38_720, 221_440, 2_065_408, 8_259_584, 9_439_232]),
        ("resnet50", [9_536, 215_808, 1_219_584, 7_098_368, 14_964_736]),
        # norm5, 2,048 of them, belongs to the last block
        ("densenet121", [9_536, 368_320, 1_051_776, 3_364_096, 2_158_080 + 2_048]),
        # 2,223,872 in all (torchvision: 3,504,872 less a classifier of 1,281,000)
        ("mobilenet_v2", [1_824, 13_968, 39_696, 487_040, 1_681_344]),
        # a fire module of (n, s, e): s * (n + 1) + e * (s + 1) + e * (9 * s + 1)
        ("squeezenet1_1", [1_792, 11_408 + 12_432, 45_344 + 49_440, 602_080]),
    ],
)
def test_stages_have_the_parameters_of_the_published_layout(
    architecture: str, by_stage: list[int]
) -> None:
    with torch.device("meta"):
        trunk = a_trunk(architecture)
    assert [n_parameters(stage) for stage in trunk.stages.values()] == by_stage


def torchvisions(architecture: str) -> nn.Module:
    """torchvision's own network up to what it pools."""
    whole = getattr(torchvision.models, architecture)
    if architecture.startswith("vgg"):
        # The whole has a classifier of 120 million parameters, which nobody asks here.
        depths = {"vgg16": "D", "vgg19": "E"}
        layers = torchvision.models.vgg.cfgs[depths[architecture]]
        return torchvision.models.vgg.make_layers(layers)
    if architecture == "resnet50":
        return nn.Sequential(*list(whole().children())[:-2])
    if architecture == "densenet121":
        return nn.Sequential(whole().features, nn.ReLU())
    return whole().features


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param("vgg16", marks=pytest.mark.slow),
        pytest.param("vgg19", marks=pytest.mark.slow),
        "resnet50",
        "densenet121",
        "mobilenet_v2",
        "squeezenet1_1",
    ],
)
def test_our_chains_compute_what_torchvision_does(architecture: str) -> None:
    theirs = torchvisions(architecture).eval()
    ours = build_trunk(architecture, **{option: "ceil" for option in OPTIONS[architecture]}).eval()
    values = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = theirs(x)
        assert torch.allclose(ours(x), wanted, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("vgg16", "stages.block5.conv3.bias"),
        ("vgg19", "stages.block3.conv4.weight"),
        ("resnet50", "stages.conv1.norm.running_mean"),
        ("resnet50", "stages.conv3.0.downsample.1.weight"),
        ("resnet50", "stages.conv5.2.bn3.running_var"),
        ("densenet121", "stages.conv1.conv.weight"),
        ("densenet121", "stages.denseblock1.block.denselayer6.norm2.weight"),
        ("densenet121", "stages.denseblock3.transition.conv.weight"),
        ("densenet121", "stages.denseblock4.norm.running_var"),
        ("convnext_tiny", "model.stages.3.blocks.2.gamma"),
    ],
)
def test_stored_weights_find_their_tensors_by_these_names(architecture: str, name: str) -> None:
    with torch.device("meta"):
        assert name in a_trunk(architecture).state_dict()


@pytest.mark.parametrize(
    ("architecture", "options", "image_px", "shape"),
    [
        # 100 → 50 → 25 → 12 → 6 → 3
        ("cnn", {}, 100, (256, 3, 3)),
        ("cnn", {}, 32, (256, 1, 1)),
        ("vgg16", {}, 100, (512, 3, 3)),
        ("vgg19", {}, 32, (512, 1, 1)),
        # halved five times, rounded up: 50, 25, 13, 7, 4
        ("resnet50", {}, 100, (2048, 4, 4)),
        # convolution and maximum round up: 50, 25; transitions round down: 12, 6, 3
        ("densenet121", {}, 100, (1024, 3, 3)),
        # halved five times, rounded up: 50, 25, 13, 7, 4
        ("mobilenet_v2", {}, 100, (1280, 4, 4)),
        # 100 → 49, then maxima: 24, floor(11.5), floor(5.0) against ceil: 24, 12, 6
        ("squeezenet1_1", {"pooling": "floor"}, 100, (512, 5, 5)),
        ("squeezenet1_1", {"pooling": "ceil"}, 100, (512, 6, 6)),
        # Caffe's own 227: 113, 56, 28, 14
        ("squeezenet1_1", {"pooling": "ceil"}, 227, (512, 14, 14)),
        ("squeezenet1_1", {"pooling": "floor"}, 32, (512, 1, 1)),
        # timm pools by itself
        ("vit_small_patch16_224", {}, 112, (384, 1, 1)),
        ("efficientnet_b0", {}, 100, (1280, 1, 1)),
    ],
)
def test_the_last_feature_map_has_the_size_worked_by_hand(
    architecture: str, options: dict[str, str], image_px: int, shape: tuple[int, int, int]
) -> None:
    assert feature_map_shape(architecture, options, image_px) == shape
    with torch.device("meta"):
        assert build_trunk(architecture, **options).n_features == shape[0]


@pytest.mark.parametrize("architecture", OUR_NAMES)
def test_any_prefix_of_a_chain_can_be_cut(architecture: str) -> None:
    trunk = a_trunk(architecture).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        maps: list[Tensor] = [x]
        for stage in trunk.stages.values():
            maps.append(stage(maps[-1].clone()))
        wanted, untouched = trunk(x.clone()), [value.clone() for value in maps]
        for cut, middle in enumerate(maps):
            assert torch.equal(nn.Sequential(*list(trunk.stages.values())[cut:])(middle), wanted)
    assert all(torch.equal(*pair) for pair in zip(maps, untouched, strict=True)), "none in place"


@pytest.mark.parametrize("options", [{}, {"pooling": "round"}, {"pooling": "ceil", "x": "1"}])
def test_options_that_a_trunk_does_not_have_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match="allowed: pooling: floor or ceil"):
        build_trunk("squeezenet1_1", **options)


@pytest.mark.parametrize("architecture", ["vgg16", FROM_TIMM[0].name])
def test_options_of_a_trunk_without_any_are_refused(architecture: str) -> None:
    with pytest.raises(WeightsError, match="allowed: none"):
        build_trunk(architecture, pooling="floor")


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ExperimentError, match="cnn, convnext_tiny"):
        build_trunk("alexnet")
