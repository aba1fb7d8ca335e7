"""From the layouts in which weights are published to the tensors of our backbones.

A layout is how a publisher names the tensors of an architecture: rules that rename ours to theirs.
Reading files is for benchmark.models.weight_readers; whether a file is the one that was published,
and where the converted one is kept, for benchmark.models.weight_adding.
"""

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

from benchmark.errors import WeightsError
from benchmark.experiment.architectures import ARCHITECTURES, FROM_TIMM, architecture_named
from benchmark.files import canonical_json
from benchmark.models.backbone import VGG_CONVOLUTIONS, build_backbone, options_of
from benchmark.models.weight_manifest import NO_OPTIONS, TensorDigest
from benchmark.models.weight_readers import FETCH_AGAIN, FileTensors, read_weight_file

Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
"""Regular expressions and their replacements, applied one after another."""

OURS: Final = "facebench"
COUNTER: Final = ".num_batches_tracked"
"""Batch norm's count of steps: files older than torch 0.4.1 have none, and nothing reads it."""
PREFIXES: Final = ("module.", "_orig_mod.", "model.", "backbone.", "network.", "net.")
"""What DataParallel, torch.compile, Lightning and training scripts put before all names."""


@dataclass(frozen=True)
class Layout:
    """How one publisher names the tensors of an architecture."""

    name: str
    architecture: str
    rules: Rules = ()
    """From the name of a tensor of our backbone to its name in the file."""
    left: tuple[str, ...] = ()
    """How the names of the classifier's tensors begin, which no backbone has."""
    options: Mapping[str, str] = field(default_factory=lambda: NO_OPTIONS)
    """What the publisher's network decides about the backbone."""
    spellings: Rules = ()
    """Applied to the file's names first: older spellings, and what stands around a backbone."""

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """Tensor of our backbone → tensor of the file."""
        return {name: _renamed(name, self.rules) for name in backbone_tensors(self.architecture)}

    def respelled(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the file's tensors under the names that this layout knows."""
        return {_renamed(name, self.spellings): tensor for name, tensor in found.items()}

    def is_left(self, name: str) -> bool:
        """Tell whether a tensor of the file belongs to its classifier."""
        return bool(self.left) and name.startswith(self.left)

    def score(self, found: Mapping[str, Tensor]) -> tuple[int, int, int]:
        """Count the tensors that this layout knows by name; of two equals the smaller one wins,
        then the one that expects more of the others."""
        here, known = self.respelled(found).keys(), set(self.names.values())
        n_unexpected = sum(not self.is_left(name) for name in here - known)
        n_known = len(known & here)
        return n_known, n_known - len(self.names), -n_unexpected


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@functools.cache
def backbone_tensors(architecture: str) -> dict[str, Tensor]:
    """Give the state of an architecture's backbone on the meta device: names, shapes, types.

    No option changes a shape.
    """
    options = {name: values[0] for name, values in options_of(architecture).items()}
    with torch.device("meta"):
        return build_backbone(architecture, **options).state_dict()


_KERAS: Final[Rules] = ((r"\.weight$", ":kernel"), (r"\.bias$", ":bias"))
_KERAS_SPELLINGS: Final[Rules] = (
    (r"[./](?:kernel|weight)(?::0)?$", ":kernel"),
    (r"[./]bias(?::0)?$", ":bias"),
)
"""Keras's layers in another container: `block1_conv1/kernel:0`, `block1_conv1.weight`.
Not for VGG Face: its two layouts would then be one, and they differ in the channel order."""
_FIRE: Final = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}
"""Fire module → its place in torchvision's `features`, where the pools are counted too."""
_VGG: Final = r"^stages\.block(\d)\.conv(\d)"


def _in_torchvisions_vgg(architecture: str, match: re.Match[str]) -> str:
    """Count a ReLU after each convolution and a pool after each block."""
    block, place = int(match[1]), int(match[2])
    before = sum(2 * n + 1 for n in VGG_CONVOLUTIONS[architecture][: block - 1])
    return f"features.{before + 2 * (place - 1)}"


# fmt: off
PUBLISHED: Final = (
    Layout(
        "keras", "squeezenet1_1",
        ((r"^stages\.conv1\.conv", "conv1"), (r"^stages\.\w+\.(fire\d)\.", r"\1/"),
         ("/squeeze", "/squeeze1x1"), *_KERAS),
        left=("conv10:",), options={"pooling": "floor"}, spellings=_KERAS_SPELLINGS,
    ),
    Layout(
        "torchvision", "squeezenet1_1",
        ((r"^stages\.conv1\.conv", "features.0"),
         (r"^stages\.\w+\.fire(\d)", lambda match: f"features.{_FIRE[int(match[1])]}")),
        left=("classifier.",), options={"pooling": "ceil"},
    ),
    *(Layout("torchvision", vgg, ((_VGG, functools.partial(_in_torchvisions_vgg, vgg)),),
             left=("classifier.",)) for vgg in VGG_CONVOLUTIONS),
    *(Layout("keras", vgg, ((_VGG, r"block\1_conv\2"), *_KERAS),
             left=("fc1:", "fc2:", "predictions:"), spellings=_KERAS_SPELLINGS)
      for vgg in VGG_CONVOLUTIONS),
    Layout("keras_vggface", "vgg16", ((_VGG, r"conv\1_\2"), *_KERAS),
           left=("fc6:", "fc7:", "fc8:")),
    Layout("vgg_face_dag", "vgg16", ((_VGG, r"conv\1_\2"),), left=("fc6.", "fc7.", "fc8.")),
    Layout(
        "torchvision", "resnet50",
        ((r"^stages\.conv1\.conv", "conv1"), (r"^stages\.conv1\.norm", "bn1"),
         (r"^stages\.conv(\d)", lambda match: f"layer{int(match[1]) - 1}")),
        left=("fc.",),
    ),
    Layout(
        "torchvision", "densenet121",
        ((r"^stages\.conv1\.(conv|norm)", r"features.\g<1>0"),
         (r"^stages\.(denseblock\d)\.block", r"features.\1"),
         (r"^stages\.denseblock(\d)\.transition", r"features.transition\1"),
         (r"^stages\.denseblock4\.norm", "features.norm5")),
        left=("classifier.",),
        # `norm.1.weight`, as in the file that torchvision publishes and itself renames when it
        # loads it (torchvision/models/densenet.py, _load_state_dict).
        spellings=((r"^(features\.denseblock\d\.denselayer\d+\.(?:norm|conv))\.", r"\1"),),
    ),
    Layout("torchvision", "mobilenet_v2", ((r"^stages\.\w+\.layer(\d+)", r"features.\1"),),
           left=("classifier.",)),
)
# fmt: on
"""Those that are recognised by their names alone; timm's are built on demand."""


def ours(architecture: str) -> Layout:
    """Give our own layout: a bare backbone, or a network with its head."""
    return Layout(OURS, architecture, left=("head.",), spellings=((r"^trunk\.", ""),))


@functools.cache
def _by_timm(architecture: str) -> Layout:
    from benchmark.experiment import timm_models

    # `fc.weight` and `fc.1.weight`: a head of another make is left as well.
    left = {name.rpartition(".")[0] for name in timm_models.classifier_tensors(architecture)}
    starts = tuple(sorted(f"{name}." for name in left))
    return Layout("timm", architecture, ((r"^model\.", ""),), left=starts)


def layouts_of(architecture: str) -> tuple[Layout, ...]:
    """List the layouts in which files of an architecture come, ours first.

    Raise ExperimentError for an unknown architecture.
    """
    if architecture_named(architecture).from_timm:
        return (ours(architecture), _by_timm(architecture))
    published = (layout for layout in PUBLISHED if layout.architecture == architecture)
    return (ours(architecture), *published)


class Converted(NamedTuple):
    """A file as the tensors of one of our backbones, floats as float32."""

    layout: Layout
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    """What was taken of the file, and what was left in it, where that is more than a backbone."""


@dataclass(frozen=True)
class Unprefixed:
    """A file's tensors without what stands before all their names."""

    tensors: Mapping[str, Tensor]
    prefix: str = ""
    outside: tuple[str, ...] = ()
    """Tensors whose names do not begin so: a head beside the backbone, a loss, a metric."""


def convert(path: Path, architecture: str | None = None) -> Converted:
    """Read a file, recognise its layout, and turn its tensors into those of our backbone.

    Without an architecture the names of the tensors decide; timm's own files only of those
    architectures that are in experiment.architectures. Raise WeightsError for anything that is not
    wholly in a known layout.
    """
    file = read_weight_file(path)
    layout, named = _recognised(file.tensors, architecture, path)
    tensors = fitted(layout, named.tensors, str(path))
    return Converted(layout, tensors, tuple(_notes(file, layout, named)))


def _recognised(
    found: Mapping[str, Tensor], architecture: str | None, path: Path
) -> tuple[Layout, Unprefixed]:
    """Choose layout and prefix by which most of the names are known; of equals the first."""
    readings = tuple(_unprefixed(found))

    def best(layouts: Iterable[Layout]) -> tuple[Layout, Unprefixed]:
        named, layout = max(
            product(readings, layouts), key=lambda choice: choice[1].score(choice[0].tensors)
        )
        return layout, named

    if architecture is not None:
        candidates = list(layouts_of(architecture))
        layout, named = best(candidates)
    else:
        own = [ours(known.name) for known in ARCHITECTURES.values() if not known.from_timm]
        candidates = [*PUBLISHED, *own]
        layout, named = best(candidates)
        # Less than half known is another layout that shares some names; timm takes time to load.
        if 2 * layout.score(named.tensors)[0] < len(layout.names):
            candidates += [layout for known in FROM_TIMM for layout in layouts_of(known.name)]
            layout, named = best(candidates)
    if layout.score(named.tensors)[0]:
        return layout, named
    some = ", ".join(sorted(found)[:3]) or "none at all"
    kinds: dict[str, list[str]] = {}
    for layout in candidates:
        kinds.setdefault(layout.architecture, []).append(layout.name)
    raise WeightsError(
        f"{path.name} holds tensors of no known layout ({some} ...)",
        allowed="; ".join(f"{name} ({', '.join(known)})" for name, known in kinds.items()),
        source=str(path),
        fix="Say what it is with --architecture; a new layout is added in "
        "benchmark/models/weight_formats.py",
    )


def _unprefixed(found: Mapping[str, Tensor]) -> Iterator[Unprefixed]:
    """Give a file's tensors as they are, then without each of the prefixes that most names have."""
    here: Unprefixed | None = Unprefixed(found)
    while here is not None:
        yield here
        before, here = here, None
        for prefix in PREFIXES:
            inside = {
                name.removeprefix(prefix): tensor
                for name, tensor in before.tensors.items()
                if name.startswith(prefix)
            }
            if 2 * len(inside) > len(before.tensors):
                others = [name for name in before.tensors if not name.startswith(prefix)]
                outside = (*before.outside, *(before.prefix + name for name in others))
                here = Unprefixed(inside, before.prefix + prefix, outside)
                break


def _notes(file: FileTensors, layout: Layout, named: Unprefixed) -> Iterator[str]:
    """Say in words what was taken and what was left."""
    if file.entry or named.prefix:
        entry = f"the entry {file.entry!r}" if file.entry else "all entries"
        prefix = f", without the prefix {named.prefix!r}" if named.prefix else ""
        yield f"Taken: {entry}{prefix}."
    taken = set(layout.names.values())
    heads = [
        name
        for name in layout.respelled(named.tensors)
        if layout.is_left(name) and name not in taken
    ]
    left = [*(repr(entry) for entry in file.left), *named.outside, *heads]
    if left:
        more = f" and {len(left) - 8} more" if len(left) > 8 else ""
        yield f"Left: {', '.join(left[:8])}{more}."
    types = {tensor.dtype for tensor in named.tensors.values() if tensor.is_floating_point()}
    if others := types - {torch.float32}:
        kinds = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in others))
        yield f"Values were stored as {kinds}; they are kept as float32."


def fitted(layout: Layout, found: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Turn a file's tensors into those of our backbone; raise WeightsError unless they fit."""
    here, wanted = layout.respelled(found), backbone_tensors(layout.architecture)
    others = here.keys() - set(layout.names.values())
    tensors = {ours: here[theirs] for ours, theirs in layout.names.items() if theirs in here}
    for name in layout.names:
        if name not in tensors and name.endswith(COUNTER):
            tensors[name] = torch.zeros((), dtype=torch.int64)
        elif name in tensors and layout.name == "keras" and tensors[name].ndim == 4:
            # A kernel of Keras's, HWIO, that came in another container than Keras's.
            turned = tensors[name].permute(3, 2, 0, 1)
            if turned.shape == wanted[name].shape != tensors[name].shape:
                tensors[name] = turned
    unexpected = {name for name in others if not layout.is_left(name)}
    check_fits(layout.architecture, tensors, source, theirs=layout.names, unexpected=unexpected)
    return {
        name: (value.float() if value.is_floating_point() else value).contiguous()
        for name, value in ((name, tensors[name].detach()) for name in layout.names)
    }


def check_fits(
    architecture: str,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    theirs: Mapping[str, str] | None = None,
    unexpected: Collection[str] = (),
) -> None:
    """Raise WeightsError unless `tensors` are exactly the state of the architecture's backbone.

    `theirs` gives the names under which a person finds them in the file, `unexpected` those of the
    file's tensors that have no place in the backbone.
    """
    wanted = backbone_tensors(architecture)
    names = theirs or {name: name for name in wanted}
    misfits = [
        misfit
        for name in wanted
        if name in tensors and (misfit := _misfit(names[name], tensors[name], wanted[name]))
    ]
    misfits += [f"missing {names[name]}" for name in wanted if name not in tensors]
    misfits += [f"unexpected {name}" for name in sorted({*unexpected, *tensors} - wanted.keys())]
    if misfits:
        more = f" and {len(misfits) - 4} more" if len(misfits) > 4 else ""
        raise WeightsError(
            f"the tensors do not fit {architecture}: {'; '.join(misfits[:4])}{more}",
            allowed=f"exactly the {len(wanted)} tensors of the {architecture} backbone",
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
    digits = {str(name): str(sha256)[: TensorDigest.N_DIGITS] for name, _, sha256 in lines}
    return TensorDigest(whole, digits)
