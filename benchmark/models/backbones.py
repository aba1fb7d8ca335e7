"""The trunks by name: every architecture of ours as a chain of stages, every other from timm.

What weights a trunk starts from, what scales its input and what reads its features are left to
weights, preprocessing and heads. Names of the stages are those of benchmark.architectures.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Final

import torch

from benchmark.architectures import ARCHITECTURES, architecture_named
from benchmark.errors import ExperimentError, WeightsError
from benchmark.models.densenet import densenet121
from benchmark.models.mobilenet import mobilenet_v2
from benchmark.models.resnet import resnet50
from benchmark.models.small_cnn import small_cnn
from benchmark.models.squeezenet import squeezenet1_1
from benchmark.models.trunk import Trunk as Trunk
from benchmark.models.vgg import vgg

BUILDERS: Final[dict[str, Callable[..., Trunk]]] = {
    "cnn": small_cnn,
    "vgg16": functools.partial(vgg, "vgg16"),
    "vgg19": functools.partial(vgg, "vgg19"),
    "resnet50": resnet50,
    "densenet121": densenet121,
    "mobilenet_v2": mobilenet_v2,
    "squeezenet1_1": squeezenet1_1,
}
"""Of our own architectures; what is not here is timm's."""

OPTIONS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    **{name: {} for name in ARCHITECTURES},
    "squeezenet1_1": {"pooling": ("floor", "ceil")},
}
"""What weights may decide about a trunk's layout, by architecture, with the values allowed.
An architecture that is not listed has none: `options_of`."""

NOT_TAKEN: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What timm's models were seen to raise, or can, on pictures of a size that they do not take."""


def options_of(architecture: str) -> dict[str, tuple[str, ...]]:
    """Give the options of an architecture, ours or timm's, with the values allowed."""
    return OPTIONS.get(architecture, {})


def build_trunk(architecture: str, **options: str) -> Trunk:
    """Build a trunk with its library's own initialisation; every option of the architecture is due.

    Raise ExperimentError for an unknown architecture, WeightsError for options it does not have.
    """
    known = options_of(architecture_named(architecture).name)
    fits = options.keys() == known.keys() and all(options[key] in known[key] for key in known)
    if not fits:
        allowed = "; ".join(f"{key}: {' or '.join(values)}" for key, values in known.items())
        raise WeightsError(
            f"options of the {architecture} trunk are {options}", allowed=allowed or "none"
        )
    trunk = BUILDERS[architecture](**options) if architecture in BUILDERS else _timm(architecture)
    trunk.options = dict(options)
    return trunk


def _timm(architecture: str) -> Trunk:
    # Imported here: timm and torchvision take two seconds, and the quick suite does without.
    from benchmark.models.timm_trunk import TimmTrunk

    return TimmTrunk(architecture)


def feature_map_shape(
    architecture: str, options: Mapping[str, str], input_px: int
) -> tuple[int, int, int]:
    """Give (n_features, height, width) of the last feature map, without computing anything.

    Raise ExperimentError where the architecture does not take pictures of that size.
    """
    return _map_shape(architecture, tuple(sorted(options.items())), input_px)


@functools.cache
def _map_shape(
    architecture: str, options: tuple[tuple[str, str], ...], input_px: int
) -> tuple[int, int, int]:
    with torch.device("meta"), torch.no_grad():
        trunk = build_trunk(architecture, **dict(options)).eval()
        try:
            n_maps, n_features, height, width = trunk(torch.empty(1, 3, input_px, input_px)).shape
        except NOT_TAKEN as error:
            raise _size_refused(architecture, input_px, str(error)) from error
    if (n_maps, n_features) != (1, trunk.n_features):
        reason = f"it gives {n_features} features instead of {trunk.n_features}"
        raise _size_refused(architecture, input_px, reason)
    return n_features, height, width


def _size_refused(architecture: str, input_px: int, reason: str) -> ExperimentError:
    return ExperimentError(
        f"{architecture} cannot take pictures of {input_px} x {input_px} pixels "
        f"({' '.join(reason.split()).rstrip('.')})",
        allowed="a size that its stages and patches divide",
        fix="Set backbone.input_px to another size; most of timm's models take 224",
    )
