"""The prefix cache: its key, and activations of the frozen part computed once.

What the frozen part of a network makes of every face, computed once and kept for all runs.

Heads, seeds and tuning trials on the same frozen part share one file, whatever else they train:
the key is the weights themselves (prefix_key). The files are prefix_files' room; whatever goes
wrong with them costs time, never a run, and is said once.

When the frozen part of a network may be computed once, and what makes two of them the same.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmark.data.batches import FaceBatches, gathered
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.experiment.definition import Augmentation
from benchmark.files import canonical_json
from benchmark.models.network import FEATURES, Network
from benchmark.training.device import Device, Precision, free_host_bytes
from benchmark.training.prefix_files import (
    DamagedPrefix,
    NoRoom,
    RowsFormat,
    only_builder,
    open_rows,
    remove_rows,
    write_rows,
)

SCHEMA: Final = 1
"""Raised when the same key would mean other numbers."""
VIEWS: Final = ("as_is", "mirrored")
"""What a face may look like; mirrored only where the recipe flips."""


@dataclass(frozen=True)
class PrefixRequest:
    """Whose activations are wanted, and how the faces may be changed."""

    pixel_digest: str
    """sha256 of the packed array that the faces come from."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    rows: Tensor | None = None
    """Ascending rows of the packed array, (n,) int64 on the CPU; None for all of them."""


def views_of(augmentation: Augmentation) -> tuple[str, ...]:
    """Name the views that make up the declared bank of an augmentation; empty where none can."""
    if augmentation == Augmentation():
        return VIEWS[:1]
    return VIEWS if augmentation == Augmentation(flip=True) else ()


def why_live(network: Network, augmentation: Augmentation) -> str | None:
    """Say why the frozen part must be computed anew for every batch; None: it need not be."""
    if network.cut is None:
        frozen = len(network.backbone.stages) - len(network.trained_stages)
        if frozen == 0:
            return "nothing is frozen"
        return f"the frozen stages of {network.backbone.architecture} cannot be cut off"
    if not views_of(augmentation):
        return "the faces are changed in endlessly many ways (only flips make a finite bank)"
    for name, module in prefix_modules(network).items():
        if any(parameter.requires_grad for parameter in module.parameters()):
            return f"{name} is frozen by name, but has parameters that are trained"
        for inner in module.modules():
            if inner.training:
                return f"{name} is frozen, but {type(inner).__name__} in it is in train mode"
            is_norm = isinstance(inner, nn.modules.batchnorm._BatchNorm)
            if is_norm and not inner.track_running_stats:
                return f"a batch norm in {name} depends on which faces share a batch"
    return None


def prefix_modules(network: Network) -> dict[str, nn.Module]:
    """Give the modules before the cut, by name."""
    if network.cut == FEATURES:
        return {"trunk": network.backbone}
    stages = network.backbone.stages
    assert isinstance(stages, nn.ModuleDict)
    return {name: stages[name] for name in stages if name not in network.trained_stages}


def key_of(network: Network, device: Device, request: PrefixRequest, view: str) -> str:
    """Digest everything that the activations of one view depend on: 64 hexadecimal digits."""
    content = {
        "schema": SCHEMA,
        "weights": _digest_of_weights(network),
        "architecture": network.backbone.architecture,
        "options": dict(network.backbone.options),
        "cut": network.cut,
        "flattened": network.flattened and network.cut == FEATURES,
        "preprocessing": network.scaling.preprocessing.as_dict(),
        "input_px": network.scaling.input_px,
        "precision": device.precision,
        "channels_last": device.channels_last,
        "kind": device.kind,
        "exact": device.exact and device.kind != "cpu",
        "pixels": request.pixel_digest,
        "rows": _digest_of_rows(request.rows),
        "view": view,
        "torch": torch.__version__,
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _digest_of_weights(network: Network) -> str:
    """Digest parameters and buffers before the cut, by name: what they are, not whose."""
    digest = hashlib.sha256()
    for name, module in sorted(prefix_modules(network).items()):
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        for path, value in sorted(tensors.items()):
            digest.update(f"{name}.{path} {value.dtype} {tuple(value.shape)}\n".encode())
            values = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(values.numpy().data)
    return digest.hexdigest()


def _digest_of_rows(rows: Tensor | None) -> str | None:
    return None if rows is None else hashlib.sha256(rows.contiguous().numpy().data).hexdigest()


DEFAULT_CACHE_GIB: Final = 10.0
"""Room for the block-4 maps of all UTKFace at 100 px under eight VGG16s: 0.87 GiB each in bf16."""
BUILD_BATCH: Final[Mapping[str, int]] = {"cpu": 64, "cuda": 512, "mps": 128}
"""Faces at once. Measured on a CPU, fp32, five architectures: from 32 faces on every batch size
gives equal bits, below some do not; and 64 faces at 100 px of VGG16 take 330 MB, not gigabytes."""
CHECKED_FACES: Final = 32
FREE_FRACTION: Final = 0.5
"""Of the free memory, at most, for activations; the rest is for training."""
TOLERANCES: Final[Mapping[Precision, float]] = {"fp32": 1e-3, "bf16": 2e-2}
"""Largest accepted distance between cached and live activations, relative to the live ones (L2).
fp32 takes in TF32's 10 bits; on a CPU the distance is 0 from 32 faces on. bf16 has 8 bits:
2**-9 is what one rounding costs, and layers add up."""


def _say_nothing(_sentence: str) -> None:
    """Stand in for a listener."""


@dataclass(frozen=True)
class CacheSettings:
    """Where activations are kept, how many, and who is told."""

    folder: Path | None
    """None: in memory alone, for as long as the run."""
    cap_gib: float = DEFAULT_CACHE_GIB
    """All files together take no more; the least recently used go first."""
    say: Callable[[str], None] = field(default=_say_nothing)
    """Told in a sentence whatever goes otherwise than wished."""
    on_progress: OnProgress = keep_quiet
    """Told how many faces of how many are computed."""


@dataclass(frozen=True, eq=False)
class CachedFaces:
    """The activations of a data set's faces at a network's cut, in one or two views."""

    cut: str
    views: tuple[Tensor, ...]
    """Each (n_rows, …), maps as (n_rows, height, width, channels): as they are, then mirrored."""
    device: torch.device
    """Where `gather` puts them; the views are there too, or mapped from the disk, or in memory."""
    channels_last: bool
    precision: Precision
    """That they were computed in, whatever they are stored as: a pooled map is always float32."""
    origin: str
    """`found`, `built` (both on disk), or `memory`."""
    seconds: float
    """From the asking to here: reading and checking, or computing."""
    is_exact: bool
    """Whether a random batch was bit-equal to a live forward pass."""
    distance: float
    """Between the two, relative (L2)."""
    places: Tensor | None
    """Of each row of the packed array among the rows here, (n_faces,) int64; None where all are."""

    @property
    def activations(self) -> Tensor:
        """The unchanged faces: (n_rows, …) as `Network.suffix` takes them, wherever they lie."""
        return self._as_map(self.views[0])

    @property
    def is_exact_fp32(self) -> bool:
        """Whether stored numbers may come from here: nobody could tell them from live ones."""
        return self.is_exact and self.precision == "fp32"

    @property
    def n_bytes(self) -> int:
        """Bytes of all views."""
        return sum(view.numel() * view.element_size() for view in self.views)

    def gather(self, indices: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """Give the activations of rows of the packed array, as `Network.suffix` takes them.

        indices: (n,) int64; mirrored: (n,) bool, those wanted mirrored, or None for none.
        """
        if self.places is not None:
            indices = self.places.to(indices.device)[indices]
        if mirrored is None:
            return self._as_map(gathered(self.views[0], indices, self.device))
        pieces = [gathered(view, indices, self.device) for view in self.views]
        chosen = mirrored.to(self.device).view(-1, *[1] * (pieces[0].ndim - 1))
        return self._as_map(torch.where(chosen, pieces[1], pieces[0]))

    def _as_map(self, rows: Tensor) -> Tensor:
        if rows.ndim != 4:
            return rows
        maps = rows.permute(0, 3, 1, 2)
        return maps if self.channels_last else maps.contiguous()

    def report(self) -> dict[str, Any]:
        """Say what was used, as plain values for a run's record."""
        return {
            "cut": self.cut,
            "origin": self.origin,
            "views": len(self.views),
            "seconds": round(self.seconds, 3),
            "bytes": self.n_bytes,
            "precision": self.precision,
            "dtype": str(self.views[0].dtype).removeprefix("torch."),
            "on": self.views[0].device.type,
            "equal_to_live": self.is_exact,
            "distance_from_live": self.distance,
        }


def open_prefix(
    network: Network,
    faces: FaceBatches,
    device: Device,
    cache: CacheSettings,
    request: PrefixRequest,
) -> CachedFaces | None:
    """Find or make the activations that `network` trains on; None where it must train live.

    The network is placed on the device. Why not is answered by `why_live` beforehand; what comes
    in between (a full disk, too little memory, a prefix that does not repeat itself) is said to
    `cache.say`.
    """
    if why_live(network, request.augmentation) is not None:
        return None
    started = time.perf_counter()
    device.place(network)
    source = _Source(network, faces, device, request)
    views, origins, distances = [], set(), []
    for view in views_of(request.augmentation):
        found = _view(source, cache, view)
        if found is None:
            return None
        rows, origin, distance = found
        views.append(rows)
        origins.add(origin)
        distances.append(distance)
    on_device = _on_device(views, device, cache)
    cut = network.cut
    assert cut is not None
    return CachedFaces(
        cut=cut,
        views=tuple(on_device),
        device=device.torch_device,
        channels_last=device.channels_last,
        precision=device.precision,
        origin=next(name for name in ("memory", "built", "found") if name in origins),
        seconds=time.perf_counter() - started,
        is_exact=max(distances) == 0,
        distance=max(distances),
        places=source.places(),
    )


@dataclass(frozen=True)
class _Source:
    """What makes activations: the frozen part and the faces."""

    network: Network
    faces: FaceBatches
    device: Device
    request: PrefixRequest

    def rows(self) -> Tensor:
        if self.request.rows is not None:
            return self.request.rows
        return torch.arange(len(self.faces.pixels))

    def places(self) -> Tensor | None:
        if self.request.rows is None:
            return None
        places = torch.full((len(self.faces.pixels),), -1, dtype=torch.int64)
        places[self.request.rows] = torch.arange(len(self.request.rows))
        return places.to(self.device.torch_device)

    def live(self, indices: Tensor, view: str) -> Tensor:
        """Compute the activations of some faces, in the order in which they are stored."""
        images = self.faces.images(indices.to(self.faces.device))
        if view == "mirrored":
            images = images.flip(-1)
        images = images.contiguous(memory_format=self.device.memory_format)
        with self.device.autocast(), self.device.without_contest():
            activations = self.network.prefix(images)
        return activations.permute(0, 2, 3, 1) if activations.ndim == 4 else activations

    def computed(self, view: str, cache: CacheSettings) -> tuple[RowsFormat, Iterator[Tensor]]:
        """Say how all rows will lie, and compute them in order, in main memory, batch by batch."""
        pieces = in_main_memory(self._pieces(view, cache))
        first = next(pieces)
        rows = RowsFormat((len(self.rows()), *first.shape[1:]), first.dtype)
        return rows, chain([first], pieces)

    def _pieces(self, view: str, cache: CacheSettings) -> Iterator[Tensor]:
        """Compute all rows in order, on the device.

        Every batch is full: a short one would be computed by other kernels, to other bits.
        """
        # All at once: a copy for every batch would wait for the batch before.
        rows = self.rows().to(self.faces.device)
        n, size = len(rows), BUILD_BATCH[self.device.kind]
        for start in range(0, n, size):
            first = max(0, min(start, n - size))
            yield self.live(rows[first : first + size], view)[start - first :]
            cache.on_progress("frozen part, faces", min(start + size, n), n)


def in_main_memory(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Bring pieces to the host; those of a GPU while it computes the one after."""
    on_the_way: deque[tuple[Tensor, torch.cuda.Event]] = deque()
    for piece in pieces:
        if not piece.is_cuda:
            yield piece.cpu()
            continue
        # Only into pinned memory does a copy run by itself.
        there = torch.empty(piece.shape, dtype=piece.dtype, pin_memory=True)
        there.copy_(piece, non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrival.record()
        on_the_way.append((there, arrival))
        if len(on_the_way) > 1:
            yield _arrived(*on_the_way.popleft())
    while on_the_way:
        yield _arrived(*on_the_way.popleft())


def _arrived(there: Tensor, arrival: "torch.cuda.Event") -> Tensor:
    arrival.synchronize()
    return there


def _view(source: _Source, cache: CacheSettings, view: str) -> tuple[Tensor, str, float] | None:
    """Find or make the rows of one view; give them, where from, and their distance from live."""
    if cache.folder is None:
        return _in_memory(source, cache, view)
    key = key_of(source.network, source.device, source.request, view)
    found = _found(source, cache, key, view)
    if found is not None:
        return found
    with only_builder(cache.folder, key) as can_write:
        if not can_write:
            cache.say(f"The cache {cache.folder} cannot be written to: going on in memory")
            return _in_memory(source, cache, view)
        # Another process may have built it while this one waited.
        found = _found(source, cache, key, view)
        if found is not None:
            return found
        try:
            wanted, pieces = source.computed(view, cache)
            cap_bytes = int(cache.cap_gib * 2**30)
            rows = write_rows(cache.folder, key, wanted, pieces, cap_bytes)
        except NoRoom as error:
            cache.say(f"{error} Going on in memory")
            return _in_memory(source, cache, view)
    return _unless_it_differs(source, cache, rows, "built", view)


def _found(
    source: _Source, cache: CacheSettings, key: str, view: str
) -> tuple[Tensor, str, float] | None:
    """Open what is there, if it is whole and agrees with a live forward pass; else remove it."""
    assert cache.folder is not None
    try:
        rows = open_rows(cache.folder, key)
    except DamagedPrefix as error:
        cache.say(f"{error} It is built again")
        remove_rows(cache.folder, key)
        return None
    if rows is None:
        return None
    distance = _distance(source, rows, view)
    if distance > TOLERANCES[source.device.precision]:
        cache.say(
            f"The cached features {key[:12]} differ from a live forward pass by {distance:.1e}: "
            "they are built again"
        )
        remove_rows(cache.folder, key)
        return None
    return rows, "found", distance


def _in_memory(
    source: _Source, cache: CacheSettings, view: str
) -> tuple[Tensor, str, float] | None:
    """Compute the rows into main memory, if they leave enough of it free."""
    wanted, pieces = source.computed(view, cache)
    if wanted.n_bytes > FREE_FRACTION * free_host_bytes():
        cache.say(
            f"The frozen part's features take {wanted.n_bytes / 2**30:.2f} GiB, more than half of "
            "the free memory: training goes on without a cache"
        )
        return None
    rows = torch.empty(wanted.shape, dtype=wanted.dtype)
    done = 0
    for piece in pieces:
        rows[done : done + len(piece)] = piece
        done += len(piece)
    return _unless_it_differs(source, cache, rows, "memory", view)


def _unless_it_differs(
    source: _Source, cache: CacheSettings, rows: Tensor, origin: str, view: str
) -> tuple[Tensor, str, float] | None:
    """Give rows just made, unless the frozen part says something else when it is asked again."""
    distance = _distance(source, rows, view)
    if distance <= TOLERANCES[source.device.precision]:
        return rows, origin, distance
    if cache.folder is not None:
        remove_rows(cache.folder, key_of(source.network, source.device, source.request, view))
    cache.say(
        f"The frozen part does not repeat itself (twice the same faces, {distance:.1e} apart): "
        "training goes on without a cache"
    )
    return None


def _distance(source: _Source, rows: Tensor, view: str) -> float:
    """Compare one random batch with a live forward pass: 0 where they are bit-equal."""
    every = source.rows()
    # From the system, so that every start looks at other faces and no stream of ours moves.
    generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
    chosen = torch.randperm(len(every), generator=generator)[:CHECKED_FACES]
    cached = rows[chosen]
    live = source.live(every[chosen], view).cpu()
    if torch.equal(cached, live):
        return 0.0
    apart = (cached.double() - live.double()).norm() / live.double().norm().clamp_min(1e-30)
    return float(apart)


def _on_device(views: list[Tensor], device: Device, cache: CacheSettings) -> list[Tensor]:
    """Copy the views to a GPU that has room for them; a CPU reads them where they are."""
    if device.kind == "cpu":
        return views
    n_bytes = sum(view.numel() * view.element_size() for view in views)
    if n_bytes > FREE_FRACTION * device.free_bytes():
        cache.say(
            f"The frozen part's features take {n_bytes / 2**30:.2f} GiB, more than half of the "
            "GPU's free memory: they stay in main memory, and batches are copied"
        )
        return views
    try:
        return [view.to(device.torch_device) for view in views]
    except torch.OutOfMemoryError:
        cache.say("The GPU has no room for the frozen part's features: batches are copied")
        return views
