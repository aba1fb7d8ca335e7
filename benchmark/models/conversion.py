"""From the layouts in which weights are published to the tensors of our trunks, and nothing else.

How files are read is in readers, what publishers call their tensors in layouts. Whether a file is
the one that was published, and where the converted one is kept, is for adding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.files import canonical_json
from benchmark.models.layouts import Layout, all_layouts, layouts_of, trunk_tensors
from benchmark.models.readers import FETCH_AGAIN, FileTensors, read_weight_file
from benchmark.models.sources import TensorDigest

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
            "benchmark/models/layouts.py",
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
