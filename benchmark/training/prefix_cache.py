"""The prefix cache: activations of a network's frozen part, computed once and kept for all runs.

Heads, seeds and trials on the same frozen part share one file, whatever else they train, because
its key is a digest of the weights themselves. A file is KEY.npy, mapped into memory, with KEY.json
beside it (shape, type, checksum). One in use is locked (flock, shared) and never evicted. Whatever
goes wrong with the files costs time, never a run, and is said once.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.data.batches import FaceBatches, gathered
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.experiment.definition import Augmentation
from benchmark.files import canonical_json, file_lock, write_json
from benchmark.models.network import FEATURES, Network
from benchmark.training.device import Device, Precision, free_host_bytes

SCHEMA: Final = 1
"""Part of the key: raised when the same key would mean other numbers."""
FILES: Final = ("*.npy", "*.prefix")
"""What is evicted; the second kind is of an older facebench, and not read any more."""
STORED_AS: Final = {"float32": "<f4", "bfloat16": "<i2"}
VIEWS: Final = ("as_is", "mirrored")
"""What a face may look like; mirrored only where the recipe flips."""
DEFAULT_CACHE_GIB: Final = 10.0
"""Fits the block-4 maps of all UTKFace at 100 px under eight VGG16s: 0.87 GiB each in bf16."""
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


@dataclass(frozen=True)
class PrefixRequest:
    """Whose activations are wanted, and how the faces may be changed."""

    pixel_digest: str
    """sha256 of the packed array that the faces come from."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    rows: Tensor | None = None
    """Ascending rows of the packed array, (n,) int64 on the CPU; None for all of them."""


@dataclass(frozen=True)
class CacheSettings:
    """Where activations are kept, and how many."""

    folder: Path | None
    """None: in memory alone, for as long as the run."""
    cap_gib: float = DEFAULT_CACHE_GIB
    """All files together take no more; the least recently used go first."""
    say: Callable[[str], None] = field(default=lambda _sentence: None)
    """Called with a sentence where something does not work."""
    on_progress: OnProgress = keep_quiet
    """Called with how many faces of how many are computed."""


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
    """To read and check them, or to compute them."""
    distance: float
    """Of a random batch from a live forward pass, relative (L2); 0: bit-equal."""
    places: Tensor | None
    """Of each row of the packed array among the rows here, (n_faces,) int64; None where all are."""

    @property
    def activations(self) -> Tensor:
        """The unchanged faces: (n_rows, …) as `Network.suffix` takes them, wherever they lie."""
        return self._as_map(self.views[0])

    @property
    def is_exact_fp32(self) -> bool:
        """Whether stored numbers may be computed from them: bit-equal to a live fp32 pass."""
        return self.distance == 0 and self.precision == "fp32"

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
            "bytes": sum(view.numel() * view.element_size() for view in self.views),
            "precision": self.precision,
            "dtype": str(self.views[0].dtype).removeprefix("torch."),
            "on": self.views[0].device.type,
            "equal_to_live": self.distance == 0,
            "distance_from_live": self.distance,
        }


def views_of(augmentation: Augmentation) -> tuple[str, ...]:
    """Name the views that an augmentation needs; empty where there are endlessly many."""
    if augmentation == Augmentation():
        return VIEWS[:1]
    return VIEWS if augmentation == Augmentation(flip=True) else ()


def why_live(network: Network, augmentation: Augmentation) -> str | None:
    """Say why the frozen part must be computed anew for every batch; None: it need not be."""
    if network.cut is None:
        if len(network.trained_stages) == len(network.backbone.stages):
            return "nothing is frozen"
        return f"the frozen stages of {network.backbone.architecture} cannot be cut off"
    if not views_of(augmentation):
        return "the faces are changed without limit (only flips make a finite bank)"
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
    weights, rows = hashlib.sha256(), request.rows
    for name, module in sorted(prefix_modules(network).items()):
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        for path, value in sorted(tensors.items()):
            weights.update(f"{name}.{path} {value.dtype} {tuple(value.shape)}\n".encode())
            weights.update(_bytes(value.detach().cpu()))
    content = {
        "schema": SCHEMA,
        "weights": weights.hexdigest(),
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
        "rows": None if rows is None else hashlib.sha256(_bytes(rows)).hexdigest(),
        "view": view,
        "torch": torch.__version__,
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _bytes(values: Tensor) -> memoryview:
    return values.contiguous().reshape(-1).view(torch.uint8).numpy().data


def open_prefix(
    network: Network, faces: FaceBatches, device: Device, cache: CacheSettings,
    request: PrefixRequest,
) -> CachedFaces | None:  # fmt: skip
    """Find or make the activations that `network` trains on; None where it must train live.

    The network is placed on the device. `why_live` tells beforehand why not; what comes in between
    (a full disk, too little memory, a prefix that does not repeat itself) is said to `cache.say`.
    """
    if why_live(network, request.augmentation) is not None:
        return None
    started = time.perf_counter()
    device.place(network)
    views, origins, distances = [], set(), []
    for name in views_of(request.augmentation):
        found = _View(network, faces, device, cache, request, name).rows()
        if found is None:
            return None
        views.append(found[0])
        origins.add(found[1])
        distances.append(found[2])
    cut, places = network.cut, None
    assert cut is not None
    if request.rows is not None:
        places = torch.full((len(faces.pixels),), -1, dtype=torch.int64)
        places[request.rows] = torch.arange(len(request.rows))
        places = places.to(device.torch_device)
    return CachedFaces(
        cut=cut,
        views=tuple(_on_device(views, device, cache)),
        device=device.torch_device,
        channels_last=device.channels_last,
        precision=device.precision,
        origin=next(name for name in ("memory", "built", "found") if name in origins),
        seconds=time.perf_counter() - started,
        distance=max(distances),
        places=places,
    )


@dataclass(frozen=True)
class _View:
    """One view of the faces under the frozen part: its rows are found, or computed."""

    network: Network
    faces: FaceBatches
    device: Device
    cache: CacheSettings
    request: PrefixRequest
    name: str

    def rows(self) -> tuple[Tensor, str, float] | None:
        """Give the rows, their origin, and their distance from live ones; None: train live."""
        folder, rows, origin = self.cache.folder, None, "memory"
        key = "" if folder is None else key_of(self.network, self.device, self.request, self.name)
        if folder is not None:
            try:
                if found := self._found(folder, key):
                    return found
                with file_lock(folder / f"{key}.claim", wait=True):
                    # Another process may have built it while this one waited.
                    if found := self._found(folder, key):
                        return found
                    cap_bytes = int(self.cache.cap_gib * 2**30)
                    rows, origin = write_rows(folder, key, *self._computed(), cap_bytes), "built"
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or error
                self.cache.say(f"The cache {folder} cannot be used ({why}). Going on in memory")
        if rows is None:
            rows = self._in_memory()
        if rows is None:
            return None
        distance = self._distance(rows)
        if distance <= TOLERANCES[self.device.precision]:
            return rows, origin, distance
        if folder is not None:
            remove_rows(folder, key)
        self.cache.say(
            f"The frozen part does not repeat itself (twice the same faces, {distance:.1e} apart): "
            "training continues without a cache"
        )
        return None

    def _found(self, folder: Path, key: str) -> tuple[Tensor, str, float] | None:
        """Open the file if it is whole and agrees with a live forward pass; else remove it."""
        try:
            rows = open_rows(folder, key)
        except ValueError as error:
            why = f"are damaged ({error})"
        else:
            if rows is None:
                return None
            distance = self._distance(rows)
            if distance <= TOLERANCES[self.device.precision]:
                return rows, "found", distance
            why = f"differ from a live forward pass by {distance:.1e}"
        self.cache.say(f"The cached features {key[:12]} {why}: they are built again")
        remove_rows(folder, key)
        return None

    def _in_memory(self) -> Tensor | None:
        """Compute the rows into main memory, if they leave enough of it free."""
        shape, dtype, pieces = self._computed()
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes > FREE_FRACTION * free_host_bytes():
            self.cache.say(
                f"The frozen part's features take {n_bytes / 2**30:.2f} GiB, more than half of the "
                "free memory: training continues without a cache"
            )
            return None
        rows, done = torch.empty(shape, dtype=dtype), 0
        for piece in pieces:
            rows[done : done + len(piece)] = piece
            done += len(piece)
        return rows

    def _every_row(self) -> Tensor:
        rows = self.request.rows
        return torch.arange(len(self.faces.pixels)) if rows is None else rows

    def _live(self, indices: Tensor) -> Tensor:
        """Compute the activations of some faces as they are stored: maps with channels last."""
        images = self.faces.images(indices.to(self.faces.device))
        if self.name == "mirrored":
            images = images.flip(-1)
        images = images.contiguous(memory_format=self.device.memory_format)
        with self.device.autocast(), self.device.without_cudnn_benchmark():
            activations = self.network.prefix(images)
        return activations.permute(0, 2, 3, 1) if activations.ndim == 4 else activations

    def _computed(self) -> tuple[tuple[int, ...], torch.dtype, Iterator[Tensor]]:
        """Give shape and type of all rows, and compute them in order, batch by batch."""
        pieces = self._pieces()
        first = next(pieces)
        return (len(self._every_row()), *first.shape[1:]), first.dtype, chain([first], pieces)

    def _pieces(self) -> Iterator[Tensor]:
        # Every batch is full: other kernels would compute a short one, to other bits.
        rows = self._every_row().to(self.faces.device)
        n, size = len(rows), BUILD_BATCH[self.device.kind]
        for start in range(0, n, size):
            first = max(0, min(start, n - size))
            yield self._live(rows[first : first + size])[start - first :].cpu()
            self.cache.on_progress("frozen part, faces", min(start + size, n), n)

    def _distance(self, rows: Tensor) -> float:
        """Compare one random batch with a live forward pass: 0 where they are bit-equal."""
        every = self._every_row()
        # Seeded by the system: every start checks other faces, and no stream of ours moves.
        generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
        chosen = torch.randperm(len(every), generator=generator)[:CHECKED_FACES]
        cached, live = rows[chosen], self._live(every[chosen]).cpu()
        if torch.equal(cached, live):
            return 0.0
        apart = (cached.double() - live.double()).norm() / live.double().norm().clamp_min(1e-30)
        return float(apart)


def _on_device(views: list[Tensor], device: Device, cache: CacheSettings) -> list[Tensor]:
    """Copy the views to a GPU with enough memory for them; a CPU reads them where they are."""
    n_bytes = sum(view.numel() * view.element_size() for view in views)
    if device.kind == "cpu":
        return views
    if n_bytes <= FREE_FRACTION * device.free_bytes():
        with contextlib.suppress(torch.OutOfMemoryError):
            return [view.to(device.torch_device) for view in views]
    cache.say(
        f"The frozen part's features take {n_bytes / 2**30:.2f} GiB, more than half of the GPU's "
        "free memory: they stay in main memory, and batches are copied"
    )
    return views


def open_rows(folder: Path, key: str) -> Tensor | None:
    """Map the rows of a key into memory, changes staying private; None where there is no file.

    Raises ValueError where a byte is missing or changed. The file stays locked against eviction as
    long as the tensor lives.
    """
    path = folder / f"{key}.npy"
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink == 0:  # evicted between opening and locking
            return None
        try:
            about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            # Copy-on-write: torch warns of arrays that it may not write to.
            mapped = np.load(path, mmap_mode="c")
            crc32 = zlib.crc32(mapped.reshape(-1).view(np.uint8))
            found = {"schema": 1, "key": key, "shape": list(mapped.shape), "crc32": crc32}
            stored = np.dtype(STORED_AS[about["dtype"]])
            if found | {"dtype": about["dtype"]} != about or mapped.dtype != stored:
                raise ValueError("it is not what was written")
            rows = torch.from_numpy(mapped).view(getattr(torch, about["dtype"]))
        except (OSError, EOFError, LookupError, TypeError, SyntaxError, TokenError) as error:
            raise ValueError(str(error).splitlines()[0]) from error
        with contextlib.suppress(OSError):
            os.utime(path)  # last used now
        stack.pop_all()
        weakref.finalize(mapped, os.close, descriptor)
        return rows


def write_rows(
    folder: Path, key: str, shape: tuple[int, ...], dtype: torch.dtype, pieces: Iterable[Tensor],
    cap_bytes: int,
) -> Tensor | None:  # fmt: skip
    """Write the pieces, in order, as the rows of a key, and map them.

    Call it under the lock of the key. Raises OSError where they cannot be kept; older files are
    evicted first. Not synchronised to the disk: after a crash the checksum tells.
    """
    partial, crc32, n_bytes = folder / f"{key}.partial", 0, math.prod(shape) * dtype.itemsize
    _make_room(folder, n_bytes, cap_bytes)
    name = str(dtype).removeprefix("torch.")
    header = {"descr": STORED_AS[name], "fortran_order": False, "shape": shape}
    try:
        with partial.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for piece in pieces:
                data = _bytes(piece)
                crc32 = zlib.crc32(data, crc32)
                stream.write(data)
        about = {"schema": 1, "key": key, "shape": shape, "dtype": name, "crc32": crc32}
        write_json(folder / f"{key}.json", about)
        partial.replace(folder / f"{key}.npy")
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return open_rows(folder, key)


def _make_room(folder: Path, n_bytes: int, cap_bytes: int) -> None:
    """Evict least recently used files until `n_bytes` more fit; else raise OSError."""
    files, gib = [], 2**30
    for path in chain.from_iterable(folder.glob(kind) for kind in FILES):
        with contextlib.suppress(OSError):
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    in_use = sum(size for _, size, _ in files)
    for _, size, path in sorted(files) if n_bytes <= cap_bytes else ():
        if in_use + n_bytes > cap_bytes and _evicted(path):
            in_use -= size
    if in_use + n_bytes > cap_bytes:
        raise OSError(
            errno.ENOSPC,
            f"the features take {n_bytes / gib:.2f} GiB and files in use {in_use / gib:.2f} of its "
            f"{cap_bytes / gib:.2f} GiB: raise it with --cache-gib",
        )
    if shutil.disk_usage(folder).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _evicted(path: Path) -> bool:
    """Remove a file unless some process uses it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        path.with_suffix(".json").unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove_rows(folder: Path, key: str) -> None:
    """Remove a file that is of no use; whoever has it mapped keeps what they have."""
    for suffix in ("npy", "json"):
        with contextlib.suppress(OSError):
            (folder / f"{key}.{suffix}").unlink()
