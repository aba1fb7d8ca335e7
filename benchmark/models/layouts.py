"""How publishers name the tensors of an architecture: one table of names per layout, no files.

Reading a file is for readers, turning its tensors into ours for conversion.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from benchmark.architectures import ARCHITECTURES, FROM_TIMM, architecture_named
from benchmark.models.backbones import build_trunk, options_of
from benchmark.models.sources import NO_OPTIONS

Rename = tuple[re.Pattern[str], str]


@dataclass(frozen=True)
class Layout:
    """How one publisher names the tensors of an architecture."""

    name: str
    architecture: str
    their_name: Callable[[str], str]
    """Name of a tensor of our trunk → its name in the file."""
    left_behind: tuple[str, ...] = ()
    """How the names of the classifier's tensors begin, which no trunk has."""
    options: Mapping[str, str] = field(default_factory=lambda: NO_OPTIONS)
    """What the publisher's network decides about the trunk's layout."""
    renames: tuple[Rename, ...] = ()
    """Applied to the file's names first: older spellings, and what stands around a trunk."""

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """Tensor of our trunk → tensor of the file."""
        return {name: self.their_name(name) for name in trunk_tensors(self.architecture)}

    def renamed(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the file's tensors under the names that this layout knows."""
        return {self._renamed(name): tensor for name, tensor in found.items()}

    def _renamed(self, name: str) -> str:
        for pattern, replacement in self.renames:
            name = pattern.sub(replacement, name)
        return name

    def score(self, found: Mapping[str, Tensor]) -> tuple[int, int, int]:
        """Count the tensors that this layout knows by name; of two equals the smaller one wins,
        then the one that expects more of the others."""
        here, known = self.renamed(found).keys(), self._known
        n_known = len(known & here)
        n_unexpected = sum(not self.is_left_behind(name) for name in here - known)
        return n_known, n_known - len(self.names), -n_unexpected

    @functools.cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names.values())

    def is_left_behind(self, name: str) -> bool:
        """Tell whether a tensor of the file belongs to its classifier."""
        return name.startswith(self.left_behind) if self.left_behind else False


@functools.cache
def trunk_tensors(architecture: str) -> dict[str, Tensor]:
    """Give the state of an architecture's trunk on the meta device: names, shapes, types.

    No option changes a shape.
    """
    options = {name: values[0] for name, values in options_of(architecture).items()}
    with torch.device("meta"):
        return build_trunk(architecture, **options).state_dict()


_KERAS_END: Final = {"weight": "kernel", "bias": "bias"}


def _keras_name(layer: str, end: str) -> str:
    return f"{layer}:{_KERAS_END[end]}"


_KERAS_ELSEWHERE: Final = (
    (re.compile(r"[./](?:kernel|weight)(?::0)?$"), ":kernel"),
    (re.compile(r"[./]bias(?::0)?$"), ":bias"),
)
"""Keras's layers in another container: `block1_conv1/kernel:0`, `block1_conv1.weight`.
Not for VGG Face: its two layouts would then be one, and they differ in the channel order."""

# SqueezeNet 1.1

_TORCHVISION_FIRE: Final = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}
"""Fire module → its place in torchvision's `features`, where the pools are counted too."""


def _fire(name: str) -> tuple[int, str, str]:
    """Split `stages.fire2_3.fire2.squeeze.weight` into 2, `squeeze`, `weight`."""
    _, _, fire, part, end = name.split(".")
    return int(fire.removeprefix("fire")), part, end


def _squeezenet_in_keras(name: str) -> str:
    if name.startswith("stages.conv1."):
        return _keras_name("conv1", name.rpartition(".")[2])
    fire, part, end = _fire(name)
    return _keras_name(f"fire{fire}/{'squeeze1x1' if part == 'squeeze' else part}", end)


def _squeezenet_in_torchvision(name: str) -> str:
    if name.startswith("stages.conv1."):
        return f"features.0.{name.rpartition('.')[2]}"
    fire, part, end = _fire(name)
    return f"features.{_TORCHVISION_FIRE[fire]}.{part}.{end}"


# VGG

CONVOLUTIONS: Final = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions in each block (Simonyan & Zisserman 2015, table 1, configurations D and E)."""


def _convolution(name: str) -> tuple[int, int, str]:
    """Split `stages.block3.conv2.weight` into 3, 2, `weight`."""
    _, block, convolution, end = name.split(".")
    return int(block.removeprefix("block")), int(convolution.removeprefix("conv")), end


def _vgg_in_torchvision(architecture: str, name: str) -> str:
    """Count a ReLU after each convolution and a pool after each block."""
    block, convolution, end = _convolution(name)
    before = sum(2 * n + 1 for n in CONVOLUTIONS[architecture][: block - 1])
    return f"features.{before + 2 * (convolution - 1)}.{end}"


def _vgg_in_keras(name: str) -> str:
    block, convolution, end = _convolution(name)
    return _keras_name(f"block{block}_conv{convolution}", end)


def _vggface_in_keras(name: str) -> str:
    block, convolution, end = _convolution(name)
    return _keras_name(f"conv{block}_{convolution}", end)


def _vggface_in_dag(name: str) -> str:
    block, convolution, end = _convolution(name)
    return f"conv{block}_{convolution}.{end}"


# ResNet-50, DenseNet-121 and MobileNetV2


def _resnet_in_torchvision(name: str) -> str:
    name = name.removeprefix("stages.")
    if name.startswith("conv1.conv."):
        return name.replace("conv1.conv.", "conv1.", 1)
    if name.startswith("conv1.norm."):
        return name.replace("conv1.norm.", "bn1.", 1)
    stage, _, rest = name.partition(".")
    return f"layer{int(stage.removeprefix('conv')) - 1}.{rest}"


def _densenet_in_torchvision(name: str) -> str:
    name = name.removeprefix("stages.")
    for ours, theirs in (
        (r"^conv1\.(conv|norm)\.", r"\g<1>0."),
        (r"^(denseblock\d)\.block\.", r"\1."),
        (r"^denseblock(\d)\.transition\.", r"transition\1."),
        (r"^denseblock4\.norm\.", "norm5."),
    ):
        name = re.sub(ours, theirs, name)
    return f"features.{name}"


def _mobilenet_in_torchvision(name: str) -> str:
    """Drop the stage of `stages.stage2.layer3.conv.0.0.weight`: `features.3.conv.0.0.weight`."""
    return f"features.{name.split('.', 2)[2].removeprefix('layer')}"


_OLD_DENSE_LAYER: Final = re.compile(r"^(features\.denseblock\d\.denselayer\d+\.(?:norm|conv))\.")
"""`norm.1.weight`, as in the file that torchvision publishes and itself renames when it loads it
(torchvision/models/densenet.py, _load_state_dict)."""

PUBLISHED: Final = (
    Layout(
        "keras",
        "squeezenet1_1",
        _squeezenet_in_keras,
        left_behind=("conv10:",),
        options={"pooling": "floor"},
        renames=_KERAS_ELSEWHERE,
    ),
    Layout(
        "torchvision",
        "squeezenet1_1",
        _squeezenet_in_torchvision,
        left_behind=("classifier.",),
        options={"pooling": "ceil"},
    ),
    *(
        Layout(
            "torchvision",
            vgg,
            functools.partial(_vgg_in_torchvision, vgg),
            left_behind=("classifier.",),
        )
        for vgg in CONVOLUTIONS
    ),
    *(
        Layout(
            "keras",
            vgg,
            _vgg_in_keras,
            left_behind=("fc1:", "fc2:", "predictions:"),
            renames=_KERAS_ELSEWHERE,
        )
        for vgg in CONVOLUTIONS
    ),
    Layout("keras_vggface", "vgg16", _vggface_in_keras, left_behind=("fc6:", "fc7:", "fc8:")),
    Layout("vgg_face_dag", "vgg16", _vggface_in_dag, left_behind=("fc6.", "fc7.", "fc8.")),
    Layout("torchvision", "resnet50", _resnet_in_torchvision, left_behind=("fc.",)),
    Layout(
        "torchvision",
        "densenet121",
        _densenet_in_torchvision,
        left_behind=("classifier.",),
        renames=((_OLD_DENSE_LAYER, r"\1"),),
    ),
    Layout(
        "torchvision",
        "mobilenet_v2",
        _mobilenet_in_torchvision,
        left_behind=("classifier.",),
    ),
)
"""Those that can be told by their names alone; timm's are built when they are asked for."""

OURS: Final = "facebench"
_AROUND_A_TRUNK: Final = re.compile(r"^trunk\.")


def ours(architecture: str) -> Layout:
    """Give our own layout: a bare trunk, or a network with its head."""
    return Layout(
        OURS,
        architecture,
        lambda name: name,
        left_behind=("head.",),
        renames=((_AROUND_A_TRUNK, ""),),
    )


@functools.cache
def by_timm(architecture: str) -> Layout:
    """Give the layout of timm's own files of an architecture."""
    from benchmark import timm_models

    return Layout(
        "timm",
        architecture,
        lambda name: name.removeprefix("model."),
        # `fc.weight` and `fc.1.weight`: a head of another make is left behind as well.
        left_behind=tuple(
            sorted(
                {
                    f"{name.rpartition('.')[0]}."
                    for name in timm_models.classifier_tensors(architecture)
                }
            )
        ),
    )


def layouts_of(architecture: str) -> tuple[Layout, ...]:
    """List the layouts in which files of an architecture come, ours first.

    Raise ExperimentError for an unknown architecture.
    """
    if architecture_named(architecture).from_timm:
        return (ours(architecture), by_timm(architecture))
    published = (layout for layout in PUBLISHED if layout.architecture == architecture)
    return (ours(architecture), *published)


def all_layouts(*, with_timm: bool) -> Iterator[Layout]:
    """List the layouts by which a file can be told when nobody says what it is.

    Those of timm cost the time that loading timm takes.
    """
    yield from PUBLISHED
    yield from (ours(known.name) for known in ARCHITECTURES.values() if not known.from_timm)
    if with_timm:
        for known in FROM_TIMM:
            yield from layouts_of(known.name)
