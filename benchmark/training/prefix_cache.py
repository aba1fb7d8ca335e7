"""The prefix cache: activations of a network's frozen part, computed once and kept for all runs.

Heads, seeds and trials on the same frozen part share one file, whatever else they train, because
its key is a digest of the weights themselves. A file is KEY.npy, mapped into memory, with KEY.json
beside it (shape, type, checksum). Whatever goes wrong with the files costs time, never a run: it is
said once, and the run trains without them.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmark.data.batches import FaceBatches, gathered
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.experiment.definition import Augmentation
from benchmark.files import digest_of, file_lock, write_json
from benchmark.models.network import FEATURES, Network
from benchmark.training.device import Device, Precision, first_line

SCHEMA: Final = 1
"""Part of the key: raised when the same key would mean other numbers."""
NOT_READABLE: Final = (
    OSError, EOFError, LookupError, TypeError, ValueError, SyntaxError, TokenError,
)  # fmt: skip
"""What json and numpy raise on files with missing or changed bytes."""
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
"""Of a GPU's free memory, at most, for activations; the rest is for training."""
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

    folder: Path
    cap_gib: float = DEFAULT_CACHE_GIB
    """All files together take no more; the least recently used go first."""
    say: Callable[[str], None] = field(default=lambda _sentence: None)
    """Called with a sentence where something does not work."""
    on_progress: OnProgress = keep_quiet
    """Called with how many faces of how many are computed."""


@dataclass(frozen=True, eq=False)
class CachedFaces:
    """The activations of a data set's faces at a network's cut, in one or two views."""

    views: tuple[Tensor, ...]
    """Each (n_rows, …), maps as (n_rows, height, width, channels): as they are, then mirrored."""
    device: Device
    """Where and how they were computed, whatever they are stored as (a pooled map is always
    float32), and where `gather` puts them; the views are there too, or mapped from the disk."""
    report: Mapping[str, Any]
    """For a run's record: `cut`; `origin`, found or built; `seconds` to read and check them, or to
    compute them; `distance_from_live` of a random batch, relative (L2); and what they take."""
    rows: Tensor | None
    """Rows of the packed array that are here, ascending, (n_rows,) int64; None where all are."""

    @property
    def is_exact_fp32(self) -> bool:
        """Whether stored numbers may be computed from them."""
        return bool(self.report["equal_to_live"]) and self.device.precision == "fp32"

    def gather(self, indices: Tensor, mirrored: Tensor | None = None) -> Tensor:
        """Give the activations of rows of the packed array, as `Network.suffix` takes them.

        indices: (n,) int64; mirrored: (n,) bool, those wanted mirrored, or None for none.
        """
        if self.rows is not None:
            indices = torch.searchsorted(self.rows.to(indices.device), indices)
        place = self.device.torch_device
        rows = gathered(self.views[0], indices, place)
        if mirrored is not None:
            chosen = mirrored.to(place).view(-1, *[1] * (rows.ndim - 1))
            rows = torch.where(chosen, gathered(self.views[1], indices, place), rows)
        if rows.ndim == 4:
            rows = rows.permute(0, 3, 1, 2).contiguous(memory_format=self.device.memory_format)
        return rows


def views_of(augmentation: Augmentation) -> tuple[str, ...]:
    """Name the views that an augmentation needs; empty where there are endlessly many."""
    return {Augmentation(): VIEWS[:1], Augmentation(flip=True): VIEWS}.get(augmentation, ())


def why_live(network: Network, augmentation: Augmentation) -> str | None:
    """Say why the frozen part must be computed anew for every batch; None: it need not be."""
    if not network.frozen:
        return "nothing is frozen"
    if network.cut is None:
        return f"the frozen stages of {network.backbone.architecture} cannot be cut off"
    if not views_of(augmentation):
        return "the faces are changed without limit (only flips make a finite bank)"
    return None


def _bytes(values: Tensor) -> memoryview:
    return values.contiguous().reshape(-1).view(torch.uint8).numpy().data


def open_prefix(
    network: Network, faces: FaceBatches, device: Device, cache: CacheSettings,
    request: PrefixRequest,
) -> CachedFaces | None:  # fmt: skip
    """Find or make the activations that `network` trains on; None where it must train live.

    The network is placed on the device. `why_live` tells beforehand why not; what comes in between
    (a full disk, a prefix that does not repeat itself) is said to `cache.say`.
    """
    started, rows, found = time.perf_counter(), request.rows, []
    if why_live(network, request.augmentation):
        return None
    device.place(network)
    for name in views_of(request.augmentation):
        view = _View(network, faces, device, cache, request, name)
        try:
            with file_lock(view.path.with_suffix(".claim"), wait=True):
                found.append(view.opened())
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            cache.say(f"Training continues without the cache {cache.folder} ({why})")
            return None
    stored, origins, distances = zip(*found, strict=True)
    views = tuple(_on_device(stored, device, cache))
    report = {
        "cut": network.cut, "origin": min(origins), "views": len(views),  # built before found
        "seconds": round(time.perf_counter() - started, 3), "bytes": sum(it.nbytes for it in views),
        "precision": device.precision, "equal_to_live": max(distances) == 0,
        "distance_from_live": max(distances),
    }  # fmt: skip
    rows = None if rows is None else rows.to(device.torch_device)
    return CachedFaces(views, device, report, rows)


@dataclass(frozen=True)
class _View:
    """One view of the faces under the frozen part, and its file."""

    network: Network
    faces: FaceBatches
    device: Device
    cache: CacheSettings
    request: PrefixRequest
    name: str

    @cached_property
    def rows(self) -> Tensor:
        """Rows of the packed array, (n,) int64 on the CPU."""
        rows = self.request.rows
        return torch.arange(len(self.faces.pixels)) if rows is None else rows

    @cached_property
    def path(self) -> Path:
        """Named by a digest of everything that the activations depend on: 64 hexadecimal digits."""
        network, device, request = self.network, self.device, self.request
        backbone, weights = network.backbone, hashlib.sha256()
        frozen = {"trunk": backbone} if network.cut == FEATURES else network.frozen
        for name, module in sorted(frozen.items()):
            tensors = dict(module.named_parameters()) | dict(module.named_buffers())
            for path, value in sorted(tensors.items()):
                weights.update(f"{name}.{path} {value.dtype} {tuple(value.shape)}\n".encode())
                weights.update(_bytes(value.detach().cpu()))
        rows = None if request.rows is None else hashlib.sha256(_bytes(request.rows)).hexdigest()
        content = {
            "schema": SCHEMA, "weights": weights.hexdigest(), "view": self.name, "rows": rows,
            "cut": network.cut, "flattened": network.flattened and network.cut == FEATURES,
            "architecture": backbone.architecture, "options": dict(backbone.options),
            "preprocessing": asdict(network.scaling.preprocessing), "torch": torch.__version__,
            "input_px": network.scaling.input_px, "pixels": request.pixel_digest,
            "precision": device.precision, "channels_last": device.channels_last,
            "kind": device.kind, "exact": device.exact and device.kind != "cpu",
        }  # fmt: skip
        key = digest_of(content)
        return self.cache.folder / f"{key}.npy"

    def opened(self, origin: str = "found") -> tuple[Tensor, str, float]:
        """Give the rows, `found` or `built`, and their distance from a live forward pass.

        A file that is damaged or differs from it is built again. Raises OSError where none can be
        kept, ValueError where the rows just written differ from a live forward pass.
        """
        why = ""
        try:
            rows = open_rows(self.path)
        except FileNotFoundError:
            pass
        except NOT_READABLE as error:
            why = f"are damaged ({first_line(error)})"
        else:
            distance = self.distance(rows)
            if distance <= TOLERANCES[self.device.precision]:
                return rows, origin, distance
            why = f"differ from a live forward pass by {distance:.1e}"
        _remove(self.path)
        if origin == "built":
            raise ValueError(f"the frozen part does not repeat itself: its features {why}")
        if why:
            self.cache.say(f"The cached features {self.path.stem[:12]} {why}: they are built again")
        self._write()
        return self.opened("built")

    def _write(self) -> None:
        """Compute all rows and write them, piece by piece; older files are evicted first.

        Raises OSError where they cannot be kept. Unlike `files.replacing`, not synced, since these
        are gigabytes and the checksum tells after a crash; and under one name, so that what a
        killed process left takes its room on the disk only until the next one writes.
        """
        path, one, crc32 = self.path, self.live(self.rows[:1]), 0
        shape, name = (len(self.rows), *one.shape[1:]), str(one.dtype).removeprefix("torch.")
        _evict(self.cache, math.prod(shape) * one.itemsize)
        header = {"descr": STORED_AS[name], "fortran_order": False, "shape": shape}
        partial = path.with_suffix(".partial")
        try:
            with partial.open("wb") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                for piece in self.pieces():
                    data = _bytes(piece)
                    crc32 = zlib.crc32(data, crc32)
                    stream.write(data)
            about = {"schema": 1, "key": path.stem, "shape": shape, "dtype": name, "crc32": crc32}
            write_json(path.with_suffix(".json"), about)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def live(self, indices: Tensor) -> Tensor:
        """Compute the activations of some faces as they are stored: maps with channels last."""
        images = self.faces.images(indices.to(self.faces.device))
        if self.name == "mirrored":
            images = images.flip(-1)
        images = images.contiguous(memory_format=self.device.memory_format)
        with self.device.autocast(), self.device.without_cudnn_benchmark():
            activations = self.network.prefix(images)
        return activations.permute(0, 2, 3, 1) if activations.ndim == 4 else activations

    def pieces(self) -> Iterator[Tensor]:
        """Compute all rows in order, batch by batch."""
        # Every batch is full: other kernels would compute a short one, to other bits.
        rows = self.rows.to(self.faces.device)
        n, size = len(rows), BUILD_BATCH[self.device.kind]
        for start in range(0, n, size):
            first = max(0, min(start, n - size))
            yield self.live(rows[first : first + size])[start - first :].cpu()
            self.cache.on_progress("frozen part, faces", min(start + size, n), n)

    def distance(self, rows: Tensor) -> float:
        """Compare one random batch with a live forward pass: 0 where they are bit-equal."""
        # Seeded by the system: every start checks other faces, and no stream of ours moves.
        generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
        chosen = torch.randperm(len(rows), generator=generator)[:CHECKED_FACES]
        cached, live = rows[chosen].double(), self.live(self.rows[chosen]).cpu().double()
        return float((cached - live).norm() / live.norm().clamp_min(1e-30))


def _on_device(views: Sequence[Tensor], device: Device, cache: CacheSettings) -> Sequence[Tensor]:
    """Copy the views to a GPU with enough memory for them; a CPU reads them where they are."""
    if device.kind == "cpu":
        return views
    n_bytes, on_cuda = sum(view.nbytes for view in views), device.kind == "cuda"
    free = torch.cuda.mem_get_info(device.torch_device)[0] if on_cuda else n_bytes / FREE_FRACTION
    if n_bytes <= FREE_FRACTION * free:
        with contextlib.suppress(torch.OutOfMemoryError):
            return [view.to(device.torch_device) for view in views]
    cache.say(
        f"The frozen part's features take {n_bytes / 2**30:.2f} GiB, more than half of the GPU's "
        "free memory: they stay in main memory, and batches are copied"
    )
    return views


def open_rows(path: Path) -> Tensor:
    """Map the rows of a file into memory, changes staying private.

    Raises FileNotFoundError where there are none, one of NOT_READABLE where a byte is missing or
    changed. A file that is evicted stays with whoever has it mapped.
    """
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    # Copy-on-write: torch warns of arrays that it may not write to.
    mapped = np.load(path, mmap_mode="c")
    crc32 = zlib.crc32(mapped.reshape(-1).view(np.uint8))
    found = {"schema": 1, "key": path.stem, "shape": list(mapped.shape), "crc32": crc32}
    stored = np.dtype(STORED_AS[about["dtype"]])
    if found | {"dtype": about["dtype"]} != about or mapped.dtype != stored:
        raise ValueError("it is not what was written")
    with contextlib.suppress(OSError):
        os.utime(path)  # last used now
    return torch.from_numpy(mapped).view(getattr(torch, about["dtype"]))


def _evict(cache: CacheSettings, n_bytes: int) -> None:
    """Evict least recently used files until `n_bytes` more fit; else raise OSError."""
    folder, cap_bytes = cache.folder, int(cache.cap_gib * 2**30)
    files = [(path.stat(), path) for path in folder.glob("*.npy")]
    in_use = sum(stat.st_size for stat, _ in files)
    if n_bytes > cap_bytes:
        taken = f"{n_bytes / 2**30:.2f} GiB of {cap_bytes / 2**30:.2f}"
        raise OSError(errno.ENOSPC, f"the features take {taken}: raise it with --cache-gib")
    for stat, path in sorted(files, key=lambda item: item[0].st_mtime):
        if in_use + n_bytes > cap_bytes:
            _remove(path)
            in_use -= stat.st_size
    if shutil.disk_usage(folder).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _remove(path: Path) -> None:
    """Remove a file; whoever has it mapped keeps what they have."""
    for each in (path, path.with_suffix(".json")):
        each.unlink(missing_ok=True)
