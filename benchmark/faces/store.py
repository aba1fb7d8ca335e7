"""Prepared data sets on disk, opened; and pictures in memory stored as one.

How an archive's pictures become pixels is for benchmark.faces.prepare; how batches reach a device
for benchmark.faces.batches.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from benchmark.errors import DataError
from benchmark.faces.clusters import LABELS
from benchmark.faces.folder import (
    MANIFEST_FILE,
    PIXELS_FILE,
    QUARANTINE_COLUMNS,
    QUARANTINE_FILE,
    SCHEMA,
    TABLE_FILE,
    WORDS_FILE,
    PackedFaces,
    check_dataset_name,
    finish_dataset,
)
from benchmark.faces.pictures import SKETCH_SHAPE, THUMBNAIL_SHAPE, sketch_of, thumbnail_of
from benchmark.faces.pixels import Pixels, PixelWriter, open_pixels
from benchmark.faces.splits import check_split_version, split_digest
from benchmark.faces.staging import staged_folder
from benchmark.faces.table import read_table
from benchmark.tasks import MISSING


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
