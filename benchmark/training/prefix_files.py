"""The files of the prefix cache: written whole or not at all, checked when opened, evicted by age.

A file in use is locked (flock, shared) by each process that reads it, and none such is ever
evicted. What the rows mean, and when a file may be used, is for benchmark.training.prefix_cache.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import weakref
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.errors import RunError
from benchmark.files import canonical_json, claimed

SCHEMA: Final = 1
MAGIC: Final = b"facebench prefix\n"
HEADER_BYTES: Final = 4096
"""A page, so that the rows are mapped where a page begins."""
PIECE_BYTES: Final = 1 << 24
Bytes = NDArray[np.uint8]
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class DamagedPrefix(RunError):
    """Raised when a file of the cache is not what was written; it is then built again."""


class NoRoom(RunError):
    """Raised when a file cannot be kept: the cap, a full disk, or a folder not to be written to."""


@dataclass(frozen=True)
class RowsFormat:
    """What a file holds: `shape` (n_rows, …) as stored, maps as (n, height, width, channels)."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows."""
        return math.prod(self.shape) * self.dtype.itemsize


def path_of(folder: Path, key: str) -> Path:
    """Say where the rows of a key are kept."""
    return folder / f"{key}.prefix"


@contextlib.contextmanager
def only_builder(folder: Path, key: str) -> Iterator[bool]:
    """Wait until no other process builds the rows of `key`; yield whether it can be known.

    A folder where no claim can be made (read-only, full) is no reason to stop: nobody else can
    build there either.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(claimed(folder / f"{key}.claim", wait=True))
        except OSError:
            yield False
            return
        yield True


def open_rows(folder: Path, key: str) -> Tensor | None:
    """Map the rows of a key into memory, read-only in effect; None where there is no file.

    Raises DamagedPrefix where a byte is missing or changed. The file stays locked against eviction
    as long as the tensor lives.
    """
    path = path_of(folder, key)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _is_still(path, descriptor):
            os.close(descriptor)
            return None
        rows = _checked(path, descriptor, key)
    except BaseException:
        os.close(descriptor)
        raise
    with contextlib.suppress(OSError):
        os.utime(path)  # last used now
    return rows


def _is_still(path: Path, descriptor: int) -> bool:
    """Tell whether the file was not evicted between opening and locking it."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except OSError:
        return False


def _checked(path: Path, descriptor: int, key: str) -> Tensor:
    header = _header(os.pread(descriptor, HEADER_BYTES, 0), path)
    if header["key"] != key:
        raise _damaged(path, f"it is of key {str(header['key'])[:12]}")
    shape, dtype = tuple(header["shape"]), DTYPES[header["dtype"]]
    wanted = RowsFormat(shape, dtype)
    size = os.fstat(descriptor).st_size
    if size != HEADER_BYTES + wanted.n_bytes:
        raise _damaged(path, f"it has {size:,} bytes and not {HEADER_BYTES + wanted.n_bytes:,}")
    mapped = _mapped(path)
    if _checksum(mapped) != header["crc32"]:
        raise _damaged(path, "its checksum differs")
    return _as_tensor(mapped, wanted, descriptor)


def _mapped(path: Path) -> Bytes:
    # Copy-on-write, as the pictures are: torch warns of arrays that it may not write to.
    return np.memmap(path, np.uint8, mode="c", offset=HEADER_BYTES)


def _as_tensor(mapped: Bytes, rows: RowsFormat, descriptor: int) -> Tensor:
    """Give the mapped rows as a tensor; when the last view of it is gone, so is the lock."""
    weakref.finalize(mapped, os.close, descriptor)
    return torch.from_numpy(mapped).view(rows.dtype).view(rows.shape)


def _checksum(values: Bytes) -> int:
    checksum = 0
    for start in range(0, len(values), PIECE_BYTES):
        checksum = zlib.crc32(values[start : start + PIECE_BYTES].data, checksum)
    return checksum


def _header(text: bytes, path: Path) -> dict[str, Any]:
    start = len(MAGIC)
    body = text[start + 9 :].rstrip(b"\0")
    if not text.startswith(MAGIC) or text[start : start + 9] != b"%08x\n" % zlib.crc32(body):
        raise _damaged(path, "its header is not what was written")
    header: dict[str, Any] = json.loads(body)
    if header.get("schema") != SCHEMA or header.get("dtype") not in DTYPES:
        raise _damaged(path, f"its header is of schema {header.get('schema')!r}")
    return header


def _damaged(path: Path, why: str) -> DamagedPrefix:
    return DamagedPrefix(f"the cached features {path.name[:12]} are damaged: {why}")


def write_rows(
    folder: Path, key: str, rows: RowsFormat, pieces: Iterable[Tensor], cap_bytes: int
) -> Tensor:
    """Write the pieces, in order, as the rows of a key, and map them.

    Call it as the only builder of the key. Raises NoRoom where they cannot be kept; older files
    are evicted first. Not synchronised to the disk: after a crash the checksum tells.
    """
    partial = folder / f"{key}.partial"
    try:
        with claimed(folder / "room.claim", wait=True):
            _make_room(folder, key, rows.n_bytes, cap_bytes)
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            with _closing_on_error(descriptor, partial):
                _reserve(descriptor, HEADER_BYTES + rows.n_bytes)
        with _closing_on_error(descriptor, partial):
            _fill(descriptor, key, rows, pieces)
            # Locked before it has its name: nobody can evict it in between.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            partial.replace(path_of(folder, key))
    except OSError as error:
        raise NoRoom(
            f"the cached features cannot be kept ({error.strerror or error})", source=str(folder)
        ) from error
    return _as_tensor(_mapped(path_of(folder, key)), rows, descriptor)


@contextlib.contextmanager
def _closing_on_error(descriptor: int, partial: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
        raise


def _reserve(descriptor: int, n_bytes: int) -> None:
    # Learn now, and not after minutes of computing, that the disk is too small.
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)
    except OSError as error:
        # Some file systems cannot reserve; then the writes themselves will tell.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _fill(descriptor: int, key: str, rows: RowsFormat, pieces: Iterable[Tensor]) -> None:
    checksum, offset = 0, HEADER_BYTES
    for piece in pieces:
        data = piece.contiguous().view(torch.uint8).reshape(-1).numpy().data
        checksum = zlib.crc32(data, checksum)
        while data:
            n_written = os.pwrite(descriptor, data, offset)
            data, offset = data[n_written:], offset + n_written
    assert offset == HEADER_BYTES + rows.n_bytes, "the pieces are not all rows"
    name = str(rows.dtype).removeprefix("torch.")
    header = {"schema": SCHEMA, "key": key, "shape": rows.shape, "dtype": name, "crc32": checksum}
    body = canonical_json(header).encode()
    text = MAGIC + b"%08x\n" % zlib.crc32(body) + body
    assert len(text) <= HEADER_BYTES, "the header is too long"
    os.pwrite(descriptor, text.ljust(HEADER_BYTES, b"\0"), 0)


def _make_room(folder: Path, key: str, n_bytes: int, cap_bytes: int) -> None:
    """Evict least recently used files until `n_bytes` more fit under the cap; else raise NoRoom."""
    for abandoned in folder.glob("*.partial"):
        _remove_abandoned(abandoned, but_for=key)
    files = sorted(_sizes(folder, "*.prefix"), key=lambda entry: entry[1])
    in_use = sum(size for _, _, size in files)
    in_use += sum(size for path, _, size in _sizes(folder, "*.partial") if path.stem != key)
    needed = HEADER_BYTES + n_bytes
    if needed > cap_bytes:
        raise NoRoom(
            f"the cached features take {n_bytes / 2**30:.2f} GiB, and the cache may take "
            f"{cap_bytes / 2**30:.2f} GiB",
            fix="Raise it with --cache-gib",
        )
    for path, _, size in files:
        if in_use + needed <= cap_bytes:
            return
        if _evicted(path):
            in_use -= size
    if in_use + needed > cap_bytes:
        raise NoRoom(
            f"the cache is full of files in use ({in_use / 2**30:.2f} of "
            f"{cap_bytes / 2**30:.2f} GiB)",
            source=str(folder),
            fix="Raise it with --cache-gib",
        )


def _sizes(folder: Path, pattern: str) -> list[tuple[Path, float, int]]:
    """List files with the time of their last use and their size; those that vanish are left out."""
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            state = path.stat()
            found.append((path, state.st_mtime, state.st_size))
    return found


def _remove_abandoned(partial: Path, *, but_for: str) -> None:
    """Remove what a builder left that died; one that lives holds the claim of its key."""
    if partial.stem == but_for:
        return
    with claimed(partial.with_suffix(".claim")) as nobody_builds_it:
        if nobody_builds_it:
            partial.unlink(missing_ok=True)


def _evicted(path: Path) -> bool:
    """Remove a file unless some process uses it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def remove_rows(folder: Path, key: str) -> None:
    """Remove a file that is of no use; whoever has it mapped keeps what they have."""
    with contextlib.suppress(OSError):
        path_of(folder, key).unlink()
