"""faces.npy: the packed pixels of all faces, while they are written and when they are read."""

import errno
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from benchmark.errors import DataError

HEADER_BYTES: Final = 128
"""What numpy writes before the array for any number of faces: it keeps room to grow."""

Pixels = NDArray[np.uint8]


class PixelWriter:
    """An .npy file of shape (n, px, px, 3) uint8 whose rows come in any order, from any process.

    Written with pwrite and not through a memory map: on a full disk a write raises OSError, where
    a store into a map kills the process with SIGBUS.
    """

    def __init__(self, path: Path, n_faces: int, image_px: int) -> None:
        self._open(path, image_px, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            self._reserve(HEADER_BYTES + n_faces * self.row_bytes)
        except OSError:
            self.close()
            raise

    @classmethod
    def joining(cls, path: Path, image_px: int) -> "PixelWriter":
        """Open a file that another process has made, to write rows of it."""
        writer = cls.__new__(cls)
        writer._open(path, image_px, os.O_RDWR)
        return writer

    def _open(self, path: Path, image_px: int, flags: int) -> None:
        self.path = path
        self.image_px = image_px
        self.row_bytes = image_px * image_px * 3
        self._descriptor = os.open(path, flags, 0o666)

    def _reserve(self, n_bytes: int) -> None:
        # Learn now, and not after a minute of decoding, that the disk is too small.
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._descriptor, 0, n_bytes)
        except OSError as error:
            # Some file systems cannot reserve; then the writes themselves will tell.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise

    def write(self, row: int, pixels: bytes) -> None:
        """Write one face; processes may do so at once, each to rows of its own."""
        self._write_at(HEADER_BYTES + row * self.row_bytes, pixels)

    def finish(self, rows: Sequence[int]) -> None:
        """Keep these rows, ascending, close ranks, write the header and reach the disk."""
        for new, old in enumerate(rows):
            if new != old:
                start = HEADER_BYTES + old * self.row_bytes
                self.write(new, os.pread(self._descriptor, self.row_bytes, start))
        os.ftruncate(self._descriptor, HEADER_BYTES + len(rows) * self.row_bytes)
        self._write_at(0, _header(len(rows), self.image_px))

    def sync(self) -> None:
        """Wait until everything written is on the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _write_at(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            n_written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[n_written:], offset + n_written


def _header(n_faces: int, image_px: int) -> bytes:
    stream = io.BytesIO()
    shape = (n_faces, image_px, image_px, 3)
    npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    header = stream.getvalue()
    assert len(header) == HEADER_BYTES, "numpy's header has another length"
    return header


def open_pixels(path: Path) -> Pixels:
    """Map a written file into memory, (n, px, px, 3); raise DataError if it is not whole.

    Mapped copy-on-write: torch warns of arrays that it may not write to, and what somebody does
    write stays in that process and never reaches the file.
    """
    try:
        pixels: Pixels = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"the packed faces cannot be read: {error}",
            allowed="the faces.npy that `facebench data prepare` wrote",
            source=str(path),
            fix="Remove the folder and prepare the data set again",
        ) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        raise DataError(
            f"the packed faces are {pixels.dtype} of shape {pixels.shape}",
            allowed="uint8 of shape (faces, px, px, 3)",
            source=str(path),
            fix="Remove the folder and prepare the data set again",
        )
    return pixels


def pixel_digest(path: Path) -> str:
    """Give the sha256 of the array's bytes, which is the file without its header."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        stream.seek(HEADER_BYTES)
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
