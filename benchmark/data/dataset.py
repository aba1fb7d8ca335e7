"""Prepared data sets: written under a hidden name, renamed at the end, opened and checked.

Prepared data sets on disk, opened; and pictures in memory stored as one.

How an archive's pictures become pixels is for benchmark.data.prepare; how batches reach a device
for benchmark.data.batches.

A folder that is either whole or not there: made under a hidden name, renamed at the end.

The files of a prepared data set, and how they are written once its pixels are packed.

    faces.npy       (n, px, px, 3) uint8 RGB; row i belongs to row i of the table
    table.csv       one row per usable face, by file name (benchmark.data.table)
    quarantine.csv  every file that was left out: file, kind, reason
    words.csv       where a table told the labels: its words, as they stood there
    manifest.json   source, digests, versions, counts; written last

Reading them back is for benchmark.data.dataset.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from benchmark import __version__
from benchmark.data.duplicates import LABELS, count_duplicates, describe_near, near_duplicates
from benchmark.data.pictures import (
    RESIZE_FILTER,
    SKETCH_SHAPE,
    THUMBNAIL_SHAPE,
    sketch_of,
    thumbnail_of,
)
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.data.splits import (
    PARTS,
    SPLIT_VERSION,
    check_no_overlap,
    check_split_version,
    part_rows,
    split_digest,
)
from benchmark.data.table import (
    Pixels,
    PixelWriter,
    check_same_faces,
    open_pixels,
    pixel_digest,
    placed,
    placed_as,
    read_table,
    write_table,
)
from benchmark.errors import DataError
from benchmark.files import write_json, write_text
from benchmark.tasks import AGE_GROUP_RULE, MISSING

SUFFIX: Final = ".partial"
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room on the disk, in the user's quota, or under the process's limit of file size."""
TAKEN: Final = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""What renaming a folder onto a folder with something in it, or onto a file, ends in."""


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `final`, renamed to it if the block ends well.

    If it does not, the folder is removed. What a killed process left is removed by the next one
    that makes the same folder; a folder at work is locked and let be. Raises DataError on a full
    disk, and where there is no writing.
    """
    with _disk_troubles_told(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(final)
        staging = final.parent / f".{final.name}.{secrets.token_hex(4)}{SUFFIX}"
        staging.mkdir()
    lock = os.open(staging, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _disk_troubles_told(final.parent):
            yield staging
            _take_name(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _remove_leftovers(final: Path) -> None:
    for leftover in final.parent.glob(f".{final.name}.*{SUFFIX}"):
        lock = os.open(leftover, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)
        except BlockingIOError:
            continue  # another process is at work on it
        finally:
            os.close(lock)


def _take_name(staging: Path, final: Path) -> None:
    try:
        staging.rename(final)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        raise DataError(
            f"there is something called {final.name!r} already",
            allowed="a new name",
            source=str(final.parent),
            fix="Remove it, or choose another --name",
        ) from error


@contextlib.contextmanager
def _disk_troubles_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DataError(
                f"the disk is full: {error.strerror}",
                allowed="about image_px * image_px * 3 bytes a face, 0.7 GB for UTKFace at 100",
                source=str(folder),
                fix="Free some space or name another place with --data-dir; nothing was left here",
            ) from error
        raise DataError(
            f"the data set cannot be written: {error.strerror}",
            allowed="a folder that may be written to",
            source=str(error.filename or folder),
            fix="Name another place with --data-dir",
        ) from error


SCHEMA: Final = 1
PIXELS_FILE: Final = "faces.npy"
TABLE_FILE: Final = "table.csv"
QUARANTINE_FILE: Final = "quarantine.csv"
MANIFEST_FILE: Final = "manifest.json"
WORDS_FILE: Final = "words.csv"

QUARANTINE_COLUMNS: Final = ("file", "kind", "reason")
NAME_KIND: Final = "name"
PICTURE_KIND: Final = "picture"
OTHER_KIND: Final = "other"
ROW_KIND: Final = "row"
"""Why a file was left out: no labels in its name, or in the table of labels; a picture that cannot
be used; not a picture by its name, and not counted as one; a row of the table of labels that names
no picture, or several."""

RESERVED_NAMES: Final = ("cache", "weights")
DRAWN_NAME: Final = "drawn"
"""For drawn faces alone."""


@dataclass(frozen=True, eq=False)
class PackedFaces:
    """What was packed into faces.npy, and what was left out."""

    table: pd.DataFrame
    """Columns file, sha256, the labels, mode, width, height; sorted by file, as the pixels are."""
    sketches: NDArray[np.uint8]
    """(n, 16, 17) grey levels for the perceptual hash."""
    thumbnails: NDArray[np.uint8]
    """(n, 64, 64) grey levels for aligned correlation."""
    quarantine: pd.DataFrame
    """Columns file, kind, reason."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Clusters and split taken from the table of another data set, and where it is from."""

    table: pd.DataFrame
    sha256: str
    source: str
    split_version: str = SPLIT_VERSION


def check_dataset_name(name: str, *, drawn: bool) -> None:
    """Raise DataError unless `name` can be a folder's name and a word on the command line."""
    is_reserved = name in RESERVED_NAMES or (name == DRAWN_NAME and not drawn)
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", name) is None or is_reserved:
        raise DataError(
            f"a data set cannot be called {name!r}",
            allowed="lower-case letters, digits, '.', '_', '-', and not "
            + " or ".join((*RESERVED_NAMES, DRAWN_NAME)),
            fix="Choose another --name",
        )


def finish_dataset(
    folder: Path,
    packed: PackedFaces,
    about: dict[str, Any],
    placement: Placement | None = None,
    on_progress: OnProgress = keep_quiet,
) -> None:
    """Find duplicates, split, and write every file but faces.npy, which is there already.

    about: name, drawn, image_px, source, source_sha256, and `labels` where a table told them.
    Raises DataError if the split leaks, which only one that was taken from elsewhere can.
    """
    with ThreadPoolExecutor(1) as pool:
        # Both take a second or two for UTKFace, and neither holds the interpreter.
        digest = pool.submit(_settled_digest, folder / PIXELS_FILE)
        table, near = _placed(packed, placement, on_progress)
        about = {**about, "near_duplicates": near, "pixel_digest": digest.result()}
    check_no_overlap(table, part_rows(table))
    write_table(folder / TABLE_FILE, table)
    write_text(
        folder / QUARANTINE_FILE,
        packed.quarantine[list(QUARANTINE_COLUMNS)].to_csv(index=False, lineterminator="\n"),
    )
    manifest = {
        **about,
        "schema": SCHEMA,
        "table_source_sha256": placement.sha256 if placement else None,
        "split_version": placement.split_version if placement else SPLIT_VERSION,
        "split_digest": split_digest(table),
        "age_group_rule": AGE_GROUP_RULE,
        "resize_filter": RESIZE_FILTER,
        "versions": _versions(),
        "counts": counts_of(table, packed.quarantine, about["image_px"]),
    }
    write_json(folder / MANIFEST_FILE, manifest)


def write_words(folder: Path, words: pd.DataFrame, table: pd.DataFrame) -> None:
    """Keep what a table of labels says of the faces of `table`, in its own words."""
    kept = words.set_index("file").loc[table["file"]].reset_index()
    write_text(folder / WORDS_FILE, kept.to_csv(index=False, lineterminator="\n"))


def _placed(
    packed: PackedFaces, placement: Placement | None, on_progress: OnProgress
) -> tuple[pd.DataFrame, dict[str, Any]]:
    if placement is not None:
        check_same_faces(packed.table, placement.table, placement.source)
        return placed_as(packed.table, placement.table), {
            "method": "clusters taken from another table",
            "threshold_bits": None,
        }
    near = near_duplicates(packed.table, packed.sketches, packed.thumbnails, on_progress)
    return placed(packed.table, near.pairs()), describe_near(packed.table, near)


def _settled_digest(path: Path) -> str:
    """Wait until the pixels are on the disk, and digest them."""
    with path.open("rb") as written:
        os.fsync(written.fileno())
    return pixel_digest(path)


def _versions() -> dict[str, str]:
    return {
        "facebench": __version__,
        **{name: metadata.version(name) for name in ("numpy", "pillow")},
    }


def counts_of(table: pd.DataFrame, quarantine: pd.DataFrame, image_px: int) -> dict[str, Any]:
    """Count what a manifest tells of a placed table and of what was left out."""
    kinds = quarantine["kind"].value_counts()
    left_out = {kind: int(kinds.get(kind, 0)) for kind in (NAME_KIND, PICTURE_KIND, OTHER_KIND)}
    cluster_sizes = table["cluster"].value_counts()
    converted = table["mode"][table["mode"] != "RGB"].value_counts()
    smaller_side = table[["width", "height"]].min(axis=1)
    return {
        "image_files": len(table) + left_out[NAME_KIND] + left_out[PICTURE_KIND],
        "usable": len(table),
        "quarantined_names": left_out[NAME_KIND],
        "quarantined_pictures": left_out[PICTURE_KIND],
        "not_pictures": left_out[OTHER_KIND],
        "converted_modes": {str(mode): int(n) for mode, n in converted.items()},
        "not_square": int((table["width"] != table["height"]).sum()),
        "enlarged": int((smaller_side < image_px).sum()),
        "placed": int((table["part"] != "").sum()),
        **{name: int((table["part"] == name).sum()) for name in PARTS},
        "copies": int(table["is_copy"].sum()),
        "label_conflicts": int(table["label_conflict"].sum()),
        "clusters": len(cluster_sizes),
        "clusters_of_several": int((cluster_sizes > 1).sum()),
        "faces_in_clusters_of_several": int(cluster_sizes[cluster_sizes > 1].sum()),
        "largest_cluster": int(cluster_sizes.max()),
        "identical": count_duplicates(table),
    }


@dataclass(frozen=True, eq=False)
class FaceSet:
    """A prepared data set; made by `open_faces`."""

    folder: Path
    manifest: dict[str, Any]
    table: pd.DataFrame
    """One row per usable face, by file name; row i belongs to row i of the pixels."""

    @property
    def name(self) -> str:
        """The folder's name, as --dataset takes it."""
        return str(self.manifest["name"])

    @property
    def drawn(self) -> bool:
        """Whether the faces are drawn and not photographed; said wherever they are shown."""
        return bool(self.manifest["drawn"])

    @property
    def image_px(self) -> int:
        """Side of the packed faces in pixels."""
        return int(self.manifest["image_px"])

    @property
    def pixel_digest(self) -> str:
        """sha256 of the packed array's bytes."""
        return str(self.manifest["pixel_digest"])

    @property
    def split_version(self) -> str:
        """Version of the rule that gave the faces their parts."""
        return str(self.manifest["split_version"])

    @property
    def split_digest(self) -> str:
        """sha256 of the sorted lines `file,part` of the faces with a place."""
        return str(self.manifest["split_digest"])

    @property
    def labels_digest(self) -> str | None:
        """Digest of labels that came from a table; None where the faces' names tell them."""
        labels = self.manifest.get("labels")
        return str(labels["digest"]) if labels else None

    def n_labelled(self, label: str) -> int:
        """Count the faces with a place in the split that have this label."""
        placed = self.table[self.table["part"] != ""]
        return int((placed[label] != MISSING).sum())

    def pixels(self) -> Pixels:
        """Map the packed faces into memory: (n, px, px, 3) uint8 RGB, copy-on-write."""
        return open_pixels(self.folder / PIXELS_FILE)

    def words(self) -> pd.DataFrame | None:
        """What a table of labels said of each face, in its own words, row by row of the table.

        None where the faces' names tell the labels, and for data sets prepared before words were
        kept.
        """
        path = self.folder / WORDS_FILE
        if not path.is_file():
            return None
        try:
            words = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise _damaged(self.folder, f"{path.name} cannot be read: {error}") from error
        if list(words.get("file", ())) != list(self.table["file"]):
            raise _damaged(self.folder, f"{path.name} is not of these faces")
        return words

    def quarantine(self) -> pd.DataFrame:
        """Every file that was left out: file, kind, reason."""
        path = self.folder / QUARANTINE_FILE
        try:
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise _damaged(self.folder, f"{path.name} cannot be read: {error}") from error


def open_faces(folder: Path) -> FaceSet:
    """Open a prepared data set; raise DataError if it is damaged or of another schema."""
    manifest = read_manifest(folder / MANIFEST_FILE)
    table = read_table(folder / TABLE_FILE)
    n_faces, image_px = len(table), manifest["image_px"]
    shape = open_pixels(folder / PIXELS_FILE).shape
    if shape != (n_faces, image_px, image_px, 3):
        raise _damaged(folder, f"its pixels are of shape {shape} and its table has {n_faces} rows")
    if split_digest(table) != manifest["split_digest"]:
        raise _damaged(folder, f"{TABLE_FILE} was changed after it was prepared")
    return FaceSet(folder, manifest, table)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a data set's manifest.json; raise DataError if it is damaged or of another schema."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path.parent, f"{path.name} cannot be read: {error}") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise _damaged(path.parent, f"{path.name} has schema {schema!r} and not {SCHEMA}")
    needed = {"name", "drawn", "image_px", "source_sha256", "pixel_digest", "split_digest"}
    needed |= {"split_version"}
    if missing := needed - manifest.keys():
        raise _damaged(path.parent, f"{path.name} does not say {', '.join(sorted(missing))}")
    return dict(manifest)


def _damaged(folder: Path, problem: str) -> DataError:
    return DataError(
        f"{folder} is not a whole data set: {problem}",
        allowed="a folder that this version of `facebench data prepare` wrote",
        fix="Remove the folder and prepare the data set again",
    )


def prepared_datasets(data_dir: Path) -> list[FaceSet]:
    """Open every data set under `data_dir`, by name; raise DataError if one is damaged."""
    manifests = sorted(data_dir.glob(f"[!.]*/{MANIFEST_FILE}"))
    return [open_faces(manifest.parent) for manifest in manifests]


def store_faces(
    images: Iterable[NDArray[np.uint8]] | NDArray[np.uint8],
    labels: pd.DataFrame,
    *,
    name: str,
    data_dir: Path,
    drawn: bool = True,
) -> FaceSet:
    """Store pictures that are in memory as a data set; clusters and split by the usual code.

    images: (n, px, px, 3) uint8 RGB, or an iterable of such stacks. labels: columns file (unique),
    age, age_group, gender, race; row i is picture i. A data set of this name with the same
    pictures is opened as it is; with others it is refused by DataError.
    """
    check_dataset_name(name, drawn=drawn)
    if labels["file"].duplicated().any():
        repeated = labels["file"][labels["file"].duplicated()].iloc[0]
        raise DataError(f"two faces are called {repeated!r}", allowed="each file name once")
    final = data_dir / name
    pictures = _one_by_one([images] if isinstance(images, np.ndarray) else images)
    if final.exists():
        return _same_faces(final, pictures, labels)
    with staged_folder(final) as folder:
        packed, image_px = _packed(pictures, labels, folder / PIXELS_FILE)
        about = {
            "name": name,
            "drawn": drawn,
            "image_px": image_px,
            "source": "drawn by facebench" if drawn else "stored from memory",
            "source_sha256": _digest(packed.table),
        }
        finish_dataset(folder, packed, about)
    return open_faces(final)


def _one_by_one(stacks: Iterable[NDArray[np.uint8]]) -> Iterable[NDArray[np.uint8]]:
    for stack in stacks:
        if (
            stack.dtype != np.uint8
            or stack.ndim != 4
            or stack.shape[1:] != (*stack.shape[1:2] * 2, 3)
        ):
            raise DataError(
                f"pictures of shape {stack.shape} and type {stack.dtype}",
                allowed="(n, px, px, 3) of uint8",
            )
        yield from stack


def _packed(
    pictures: Iterable[NDArray[np.uint8]], labels: pd.DataFrame, path: Path
) -> tuple[PackedFaces, int]:
    """Write the pictures in order of their file names; give their table and their side."""
    order = np.argsort(labels["file"].to_numpy(dtype=object), kind="stable")
    row_of = np.argsort(order)
    sketches = np.empty((len(labels), *SKETCH_SHAPE), np.uint8)
    thumbnails = np.empty((len(labels), *THUMBNAIL_SHAPE), np.uint8)
    sha256 = [""] * len(labels)
    writer: PixelWriter | None = None
    try:
        for row, picture in zip(row_of.tolist(), pictures, strict=True):
            writer = writer or PixelWriter(path, len(labels), picture.shape[0])
            pixels = picture.tobytes()
            writer.write(row, pixels)
            sha256[row] = hashlib.sha256(pixels).hexdigest()
            image = Image.fromarray(picture)
            sketches[row] = np.frombuffer(sketch_of(image), np.uint8).reshape(SKETCH_SHAPE)
            thumbnail = np.frombuffer(thumbnail_of(image), np.uint8)
            thumbnails[row] = thumbnail.reshape(THUMBNAIL_SHAPE)
        if writer is None:
            raise DataError("there are no pictures to store", allowed="one face or more")
        writer.finish(range(len(labels)))
    finally:
        if writer is not None:
            writer.close()
    px = writer.image_px
    table = labels.iloc[order].reset_index(drop=True)[["file", *LABELS]]
    table = table.assign(sha256=sha256, mode="RGB", width=px, height=px)
    nothing_left_out = pd.DataFrame(columns=list(QUARANTINE_COLUMNS))
    return PackedFaces(table, sketches, thumbnails, nothing_left_out), px


def _digest(table: pd.DataFrame) -> str:
    rows = table[["file", "sha256", *LABELS]].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(rows.encode()).hexdigest()


def _same_faces(
    folder: Path, pictures: Iterable[NDArray[np.uint8]], labels: pd.DataFrame
) -> FaceSet:
    """Open a data set that is there already, having made sure that it holds these pictures."""
    sha256 = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures]
    table = labels.assign(sha256=sha256).sort_values("file", kind="stable")
    faces = open_faces(folder)
    check_split_version(faces)
    if faces.manifest["source_sha256"] != _digest(table):
        raise DataError(
            f"data set {folder.name!r} holds other faces",
            source=str(folder),
            fix="Remove the folder, or store these under another name",
        )
    return faces
