"""The files of a prepared data set: faces.npy (pixels) and table.csv (one row per face).

table.csv: one row per usable face, in order of the file names; how it is made and read back.

faces.npy: the packed pixels of all faces, while they are written and when they are read.
"""

import errno
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.typing import NDArray
from pandas.api.types import is_integer_dtype

from benchmark.data.duplicates import LABELS, cluster_of, identical_groups, placement_columns
from benchmark.data.splits import N_FOLDS, PARTS, with_split
from benchmark.errors import DataError
from benchmark.files import write_text
from benchmark.tasks import CLASS_NAMES, MISSING

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


TEXT_COLUMNS: Final = ("file", "sha256", "part", "no_place_reason", "mode")
PLACEMENT_COLUMNS: Final = (
    "cluster",
    "is_copy",
    "label_conflict",
    "part",
    "fold",
    "no_place_reason",
)
TABLE_COLUMNS: Final = (
    *("file", "sha256", *LABELS),
    *PLACEMENT_COLUMNS,
    *("mode", "width", "height"),
)
SHOWN_FILES: Final = 3
"""How many file names a message lists."""


def placed(table: pd.DataFrame, near: Iterable[tuple[int, int]]) -> pd.DataFrame:
    """Add the placement columns: clusters by equal bytes and `near` pairs of rows, then the split.

    Needs file, sha256, the labels, mode, width and height, sorted by file.
    """
    groups = identical_groups(table)
    clusters = cluster_of(len(table), groups, near)
    reasons = placement_columns(table, groups)
    return with_split(table.assign(cluster=clusters).join(reasons))[list(TABLE_COLUMNS)]


def placed_as(table: pd.DataFrame, placement: pd.DataFrame) -> pd.DataFrame:
    """Add the placement columns as another table has them, by file name; checks nothing."""
    theirs = placement.set_index("file").loc[table["file"]]
    columns = {name: theirs[name].to_numpy() for name in PLACEMENT_COLUMNS}
    return table.assign(**columns)[list(TABLE_COLUMNS)]


def check_same_faces(table: pd.DataFrame, placement: pd.DataFrame, source: str) -> None:
    """Raise DataError unless both tables hold the same files with the same labels.

    source: where the other table is from.
    """
    _same_files(table["file"], placement["file"], source)
    theirs = placement.set_index("file").loc[table["file"]]
    for label in LABELS:
        differs = table[label].to_numpy() != theirs[label].to_numpy()
        if differs.any():
            raise DataError(
                f"{int(differs.sum())} faces have another {label} in the table: "
                f"{_some(table['file'][differs])}",
                allowed="the labels of the file names",
                source=source,
                fix="Use the table of a data set with these faces",
            )


def _same_files(here: "pd.Series[str]", there: "pd.Series[str]", source: str) -> None:
    missing, extra = sorted(set(there) - set(here)), sorted(set(here) - set(there))
    if not missing and not extra:
        return
    found = []
    if missing:
        found.append(f"{len(missing)} faces of the table are not in the source: {_some(missing)}")
    if extra:
        found.append(f"{len(extra)} faces of the source are not in the table: {_some(extra)}")
    raise DataError(
        "; ".join(found),
        allowed="a source with the same faces under the same names",
        source=source,
        fix="Prepare without --table, or use the table of a data set with these faces",
    )


def _some(files: Iterable[str]) -> str:
    listed = list(files)
    more = f" and {len(listed) - SHOWN_FILES} more" if len(listed) > SHOWN_FILES else ""
    return ", ".join(listed[:SHOWN_FILES]) + more


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write as CSV, atomically, the same bytes for the same table; missing labels are empty."""
    write_text(path, with_empty_cells(table).to_csv(index=False, lineterminator="\n"))


def with_empty_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Give the labels as they are written: what a face is not labelled with is an empty cell."""
    gaps = [label for label in LABELS if (table[label] == MISSING).any()]
    return table.assign(
        **{label: table[label].astype(object).replace(MISSING, "") for label in gaps}
    )


def read_table(path: Path) -> pd.DataFrame:
    """Read a table.csv; raise DataError if a column is missing or holds what it cannot."""
    try:
        text = path.read_text(encoding="utf-8")
        table = pd.read_csv(
            StringIO(text),
            dtype=dict.fromkeys(TEXT_COLUMNS, str),
            keep_default_na=False,
            na_filter=False,
        )
    except (OSError, ValueError) as error:
        raise _not_a_table(path, f"it cannot be read: {error}") from error
    missing = [name for name in TABLE_COLUMNS if name not in table.columns]
    if missing:
        raise _not_a_table(path, f"it has no column {', '.join(missing)}")
    table = table.assign(**{label: _with_gaps(table[label]) for label in LABELS})
    if problem := _problem_of(table):
        raise _not_a_table(path, problem)
    return table[list(TABLE_COLUMNS)]


def _with_gaps(cells: "pd.Series[Any]") -> "pd.Series[Any]":
    """Read a label's column, whose empty cells are missing labels; leave a damaged one as it is."""
    if is_integer_dtype(cells) or not (cells == "").any():
        return cells
    numbers = pd.to_numeric(cells.where(cells != "", str(MISSING)), errors="coerce")
    return cells if (numbers.isna() | (numbers < MISSING)).any() else numbers.astype("int64")


def _problem_of(table: pd.DataFrame) -> str | None:
    if len(table) == 0:
        return "it has no faces"
    for name in TABLE_COLUMNS:
        if name not in TEXT_COLUMNS and not is_integer_dtype(table[name]):
            return f"column {name} holds something other than integers"
    if table["file"].duplicated().any():
        return f"{table['file'][table['file'].duplicated()].iloc[0]} stands in it twice"
    for task, names in CLASS_NAMES.items():
        if not table[task].between(MISSING, len(names) - 1).all():
            return f"column {task} has labels outside 0 to {len(names) - 1}"
    has_place = table["no_place_reason"] == ""
    if (
        not table["part"].isin(["", *PARTS]).all()
        or not table["fold"].between(-1, N_FOLDS - 1).all()
    ):
        return f"column part or fold has values other than {', '.join(PARTS)} or 0 to {N_FOLDS - 1}"
    if ((table["part"] != "") != has_place).any() or ((table["fold"] != -1) != has_place).any():
        return "a face has both or neither of a part and a reason to have none"
    return None


def _not_a_table(path: Path, problem: str) -> DataError:
    return DataError(
        f"{path.name} is not a table of faces: {problem}",
        allowed="the table.csv that `facebench data prepare` wrote",
        source=str(path),
    )
