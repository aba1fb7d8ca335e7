"""From the layouts in which weights are published to the tensors of our trunks, and nothing else.

How files are read is in readers, what publishers call their tensors in layouts. Whether a file is
the one that was published, and where the converted one is kept, is for adding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.files import canonical_json
from benchmark.models.layouts import Layout, all_layouts, layouts_of, trunk_tensors
from benchmark.models.readers import FETCH_AGAIN, read_tensors
from benchmark.models.sources import TensorDigest

COUNTER: Final = ".num_batches_tracked"
"""Batch norm's count of steps: files older than torch 0.4.1 have none, and nothing reads it."""


def convert(path: Path, architecture: str | None = None) -> tuple[Layout, dict[str, Tensor]]:
    """Read a file and give its layout and the tensors of our trunk, floats as float32.

    Without an architecture it is told by the names of the tensors; timm's own files only of those
    architectures that are in benchmark.architectures. Raise WeightsError for anything that is not
    wholly in a known layout.
    """
    found = read_tensors(path)
    layout = _recognised(found, architecture, path)
    return layout, fitted(layout, found, str(path))


def fitted(layout: Layout, found: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Turn a file's tensors into those of our trunk; raise WeightsError unless they fit exactly."""
    here = layout.renamed(found)
    unexpected = {
        name for name in here.keys() - set(layout.names.values()) if not layout.is_left_behind(name)
    }
    tensors = {ours: here[theirs] for ours, theirs in layout.names.items() if theirs in here}
    for ours in layout.names.keys() - tensors.keys():
        if ours.endswith(COUNTER):
            tensors[ours] = torch.zeros((), dtype=torch.int64)
    check_fits(layout.architecture, tensors, source, theirs=layout.names, unexpected=unexpected)
    return {name: _ours(tensors[name]) for name in layout.names}


def _ours(tensor: Tensor) -> Tensor:
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


def _recognised(found: Mapping[str, Tensor], architecture: str | None, path: Path) -> Layout:
    candidates: tuple[Layout, ...]
    if architecture is not None:
        candidates = layouts_of(architecture)
    else:
        candidates = tuple(all_layouts(with_timm=False))
        if not _mostly_known(_best(candidates, found), found):
            candidates = tuple(all_layouts(with_timm=True))
    best = _best(candidates, found)
    if best.score(found)[0] == 0:
        some = ", ".join(sorted(found)[:3]) or "none at all"
        raise WeightsError(
            f"{path.name} holds tensors of no known layout ({some} ...)",
            allowed=_described(candidates),
            source=str(path),
            fix="Say what it is with --architecture; a new layout is added in "
            "benchmark/models/layouts.py",
        )
    return best


def _best(layouts: Iterable[Layout], found: Mapping[str, Tensor]) -> Layout:
    return max(layouts, key=lambda layout: layout.score(found))


def _mostly_known(layout: Layout, found: Mapping[str, Tensor]) -> bool:
    """Tell whether it is this layout, whole or damaged, and not another that shares some names."""
    return 2 * layout.score(found)[0] >= len(layout.names)


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
    if tensor.shape != wanted.shape:
        return f"{name} of shape {tuple(tensor.shape)} instead of {tuple(wanted.shape)}"
    if wanted.is_floating_point() != tensor.is_floating_point():
        kind = "a float" if wanted.is_floating_point() else "an integer"
        return f"{name} of type {tensor.dtype} instead of {kind}"
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        return f"{name} with values that are not finite"
    return ""
