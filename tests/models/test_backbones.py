"""Every trunk has the stages, sizes and parameters that it says."""

import pytest
import torch
from torch import nn
from torchvision.models import squeezenet1_1

from benchmark.architectures import ARCHITECTURES
from benchmark.errors import ExperimentError, WeightsError
from benchmark.models.backbones import BUILDERS, OPTIONS, build_trunk, feature_map_shape


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_architecture_can_be_built_and_no_other() -> None:
    assert set(BUILDERS) == set(OPTIONS) == set(ARCHITECTURES)


def test_cnn_has_the_parameters_of_its_layout() -> None:
    # 3x3 kernels without bias: 9 * (3*24 + 24*48 + 48*96 + 96*192 + 192*256) = 660,744;
    # batch norm: 2 * (24 + 48 + 96 + 192 + 256) = 1,232
    assert n_parameters(build_trunk("cnn")) == 660_744 + 1_232


def test_cnn_block_is_convolution_norm_relu_then_maximum() -> None:
    block = build_trunk("cnn").train().stages["block1"]
    x = torch.randn(4, 3, 20, 20)
    wanted = nn.functional.max_pool2d(block.norm(block.conv(x)).relu(), 2)
    assert torch.equal(block(x), wanted)


def test_squeezenet_has_the_parameters_of_torchvisions_features() -> None:
    n_theirs = n_parameters(squeezenet1_1().features)
    assert n_parameters(build_trunk("squeezenet1_1", pooling="ceil")) == n_theirs == 722_496


@pytest.mark.parametrize(
    ("architecture", "options", "image_px", "shape"),
    [
        # 100 → 50 → 25 → 12 → 6 → 3
        ("cnn", {}, 100, (256, 3, 3)),
        ("cnn", {}, 32, (256, 1, 1)),
        # 100 → 49, then maxima: 24, floor(11.5), floor(5.0) against ceil: 24, 12, 6
        ("squeezenet1_1", {"pooling": "floor"}, 100, (512, 5, 5)),
        ("squeezenet1_1", {"pooling": "ceil"}, 100, (512, 6, 6)),
        # Caffe's own 227: 113, 56, 28, 14
        ("squeezenet1_1", {"pooling": "ceil"}, 227, (512, 14, 14)),
        ("squeezenet1_1", {"pooling": "floor"}, 32, (512, 1, 1)),
    ],
)
def test_the_last_feature_map_has_the_size_worked_by_hand(
    architecture: str, options: dict[str, str], image_px: int, shape: tuple[int, int, int]
) -> None:
    assert feature_map_shape(architecture, options, image_px) == shape
    assert build_trunk(architecture, **options).n_features == shape[0]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_any_prefix_of_stages_can_be_cut(architecture: str) -> None:
    options = {option: values[0] for option, values in OPTIONS[architecture].items()}
    trunk = build_trunk(architecture, **options).eval()
    x = torch.randn(2, 3, 64, 64)
    wanted, stages = trunk(x), list(trunk.stages.values())
    for cut in range(len(stages) + 1):
        middle = nn.Sequential(*stages[:cut])(x)
        assert torch.equal(nn.Sequential(*stages[cut:])(middle), wanted)


@pytest.mark.parametrize("options", [{}, {"pooling": "round"}, {"pooling": "ceil", "x": "1"}])
def test_options_that_a_trunk_does_not_have_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match="allowed: pooling: floor or ceil"):
        build_trunk("squeezenet1_1", **options)


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ExperimentError, match="cnn, squeezenet1_1"):
        build_trunk("alexnet")
