"""Tensor names of published weight formats, and their conversion to our backbones.

From the layouts in which weights are published to the tensors of our trunks, and nothing else.

How files are read is in readers, what publishers call their tensors in layouts. Whether a file is
the one that was published, and where the converted one is kept, is for adding.

How publishers name the tensors of an architecture: one table of names per layout, no files.

Reading a file is for readers, turning its tensors into ours for conversion.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from benchmark.architectures import ARCHITECTURES, FROM_TIMM, architecture_named
from benchmark.errors import WeightsError
from benchmark.files import canonical_json
from benchmark.models.chains import build_trunk, options_of
from benchmark.models.weight_manifest import NO_OPTIONS, TensorDigest
from benchmark.models.weight_readers import FETCH_AGAIN, FileTensors, read_weight_file

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


COUNTER: Final = ".num_batches_tracked"
"""Batch norm's count of steps: files older than torch 0.4.1 have none, and nothing reads it."""


PREFIXES: Final = ("module.", "_orig_mod.", "model.", "backbone.", "network.", "net.")
"""What DataParallel, torch.compile, Lightning and people's own modules put before all names."""


class Converted(NamedTuple):
    """A file as the tensors of one of our trunks, floats as float32."""

    layout: Layout
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    """What was taken of the file, and what was left in it, where that is more than a trunk."""


def convert(path: Path, architecture: str | None = None) -> Converted:
    """Read a file, recognise its layout, and turn its tensors into those of our trunk.

    Without an architecture it is told by the names of the tensors; timm's own files only of those
    architectures that are in benchmark.architectures. Raise WeightsError for anything that is not
    wholly in a known layout.
    """
    file = read_weight_file(path)
    layout, named = _recognised(file.tensors, architecture, path)
    tensors = fitted(layout, named.tensors, str(path))
    return Converted(layout, tensors, tuple(_notes(file, layout, named)))


@dataclass(frozen=True)
class Unprefixed:
    """A file's tensors without what stands before all their names."""

    tensors: Mapping[str, Tensor]
    prefix: str = ""
    outside: tuple[str, ...] = ()
    """Tensors whose names do not begin so: a head beside the trunk, a loss, a metric."""


def unprefixed(found: Mapping[str, Tensor]) -> Iterator[Unprefixed]:
    """Give a file's tensors as they are, then without each of the prefixes that most names have."""
    here = Unprefixed(found)
    while True:
        yield here
        for prefix in PREFIXES:
            inside = [name for name in here.tensors if name.startswith(prefix)]
            if 2 * len(inside) > len(here.tensors):
                outside = [here.prefix + name for name in here.tensors if name not in set(inside)]
                here = Unprefixed(
                    {name.removeprefix(prefix): here.tensors[name] for name in inside},
                    here.prefix + prefix,
                    (*here.outside, *outside),
                )
                break
        else:
            return


def _notes(file: FileTensors, layout: Layout, named: Unprefixed) -> Iterator[str]:
    """Say in words what was taken and what was left."""
    if file.entry or named.prefix:
        entry = f"the entry {file.entry!r}" if file.entry else "all entries"
        prefix = f", without the prefix {named.prefix!r}" if named.prefix else ""
        yield f"Taken: {entry}{prefix}."
    heads = [name for name in layout.renamed(named.tensors)
             if layout.is_left_behind(name) and name not in layout.names.values()]  # fmt: skip
    left = [*(repr(entry) for entry in file.left), *named.outside, *heads]
    if left:
        more = f" and {len(left) - 8} more" if len(left) > 8 else ""
        yield f"Left: {', '.join(left[:8])}{more}."
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in named.tensors.values()
             if tensor.is_floating_point() and tensor.dtype != torch.float32}  # fmt: skip
    if kinds:
        yield f"Values were stored as {', '.join(sorted(kinds))}; they are kept as float32."


def fitted(layout: Layout, found: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Turn a file's tensors into those of our trunk; raise WeightsError unless they fit exactly."""
    here = layout.renamed(found)
    unexpected = {
        name for name in here.keys() - set(layout.names.values()) if not layout.is_left_behind(name)
    }
    tensors = {ours: here[theirs] for ours, theirs in layout.names.items() if theirs in here}
    if layout.name == "keras":
        wanted = trunk_tensors(layout.architecture)
        tensors = {name: _turned(tensor, wanted[name]) for name, tensor in tensors.items()}
    for ours in layout.names.keys() - tensors.keys():
        if ours.endswith(COUNTER):
            tensors[ours] = torch.zeros((), dtype=torch.int64)
    check_fits(layout.architecture, tensors, source, theirs=layout.names, unexpected=unexpected)
    return {name: _ours(tensors[name]) for name in layout.names}


def _turned(tensor: Tensor, wanted: Tensor) -> Tensor:
    """Turn a kernel of Keras's, HWIO, that came in another container than Keras's."""
    is_keras = tensor.ndim == 4 and tensor.shape != wanted.shape
    turned = tensor.permute(3, 2, 0, 1) if is_keras else tensor
    return turned if turned.shape == wanted.shape else tensor


def _ours(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


def tensor_digest(tensors: Mapping[str, Tensor]) -> TensorDigest:
    """Digest converted tensors: equal for equal weights, whatever file and layout they came in.

    Over each tensor's name and shape and its float32 values, little endian; batch norm's counters
    are no weights, and not every file has them.
    """
    lines = []
    for name in sorted(tensors):
        if not name.endswith(COUNTER):
            values = tensors[name].detach().cpu().float().contiguous().numpy().astype("<f4")
            lines.append([name, list(values.shape), hashlib.sha256(values.tobytes()).hexdigest()])
    whole = hashlib.sha256(canonical_json(lines).encode()).hexdigest()
    return TensorDigest(
        whole, {str(name): str(sha256)[: TensorDigest.N_DIGITS] for name, _, sha256 in lines}
    )


def _recognised(
    found: Mapping[str, Tensor], architecture: str | None, path: Path
) -> tuple[Layout, Unprefixed]:
    candidates: tuple[Layout, ...]
    if architecture is not None:
        candidates = layouts_of(architecture)
        best = _best(candidates, found)
    else:
        candidates = tuple(all_layouts(with_timm=False))
        best = _best(candidates, found)
        if not _mostly_known(*best):
            candidates = tuple(all_layouts(with_timm=True))
            best = _best(candidates, found)
    layout, named = best
    if layout.score(named.tensors)[0] == 0:
        some = ", ".join(sorted(found)[:3]) or "none at all"
        raise WeightsError(
            f"{path.name} holds tensors of no known layout ({some} ...)",
            allowed=_described(candidates),
            source=str(path),
            fix="Say what it is with --architecture; a new layout is added in "
            "benchmark/models/weight_formats.py",
        )
    return best


def _best(layouts: Iterable[Layout], found: Mapping[str, Tensor]) -> tuple[Layout, Unprefixed]:
    """Choose layout and prefix by which most of the names are known; of equals the first."""
    choices = product(tuple(unprefixed(found)), layouts)
    named, layout = max(choices, key=lambda choice: choice[1].score(choice[0].tensors))
    return layout, named


def _mostly_known(layout: Layout, named: Unprefixed) -> bool:
    """Tell whether it is this layout, whole or damaged, and not another that shares some names."""
    return 2 * layout.score(named.tensors)[0] >= len(layout.names)


def _described(layouts: Iterable[Layout]) -> str:
    by_architecture: dict[str, list[str]] = {}
    for layout in layouts:
        by_architecture.setdefault(layout.architecture, []).append(layout.name)
    return "; ".join(f"{name} ({', '.join(kinds)})" for name, kinds in by_architecture.items())


def check_fits(
    architecture: str,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    theirs: Mapping[str, str] | None = None,
    unexpected: Collection[str] = (),
) -> None:
    """Raise WeightsError unless `tensors` are exactly the state of the architecture's trunk.

    `theirs` gives the names under which a person finds them in the file, `unexpected` those of the
    file's tensors that have no place in the trunk.
    """
    wanted = trunk_tensors(architecture)
    names = theirs or {name: name for name in wanted}
    found = [
        _misfit(names[name], tensors[name], wanted[name]) for name in wanted if name in tensors
    ]
    misfits = [misfit for misfit in found if misfit]
    misfits += [f"missing {names[name]}" for name in wanted if name not in tensors]
    misfits += [f"unexpected {name}" for name in sorted({*unexpected, *tensors} - wanted.keys())]
    if misfits:
        more = f" and {len(misfits) - 4} more" if len(misfits) > 4 else ""
        raise WeightsError(
            f"the tensors do not fit {architecture}: {'; '.join(misfits[:4])}{more}",
            allowed=f"exactly the {len(wanted)} tensors of the {architecture} trunk",
            source=source,
            fix=FETCH_AGAIN,
        )


def _misfit(name: str, tensor: Tensor, wanted: Tensor) -> str:
    """Say what keeps a tensor from taking the place of `wanted`; nothing where it fits."""
    if tensor.ndim == 4 and tensor.permute(2, 3, 1, 0).shape == wanted.shape != tensor.shape:
        # As Keras wrote kernels for Theano, which are also turned by 180 degrees: never guessed.
        return (
            f"{name} stored as (out, in, height, width), where Keras has (height, width, in, out)"
        )
    if tensor.shape != wanted.shape:
        return f"{name} of shape {tuple(tensor.shape)} instead of {tuple(wanted.shape)}"
    if wanted.is_floating_point() != tensor.is_floating_point():
        kind = "a float" if wanted.is_floating_point() else "an integer"
        return f"{name} of type {tensor.dtype} instead of {kind}"
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        return f"{name} with values that are not finite"
    return ""
