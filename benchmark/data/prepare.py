"""From an archive or a folder to a packed data set: read, label, decode, find duplicates, split.

The source is read twice: once for the names, so that the size and order of the packed array are
known and an unsafe or damaged archive is refused before anything is written; once for the
pictures.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmark.data.archive import Source, open_source
from benchmark.data.dataset import (
    MANIFEST_FILE,
    PICTURE_KIND,
    PIXELS_FILE,
    QUARANTINE_COLUMNS,
    FaceSet,
    PackedFaces,
    Placement,
    check_dataset_name,
    finish_dataset,
    open_faces,
    read_manifest,
    staged_folder,
    write_words,
)
from benchmark.data.label_tables import Given, Labelling, labelling_for
from benchmark.data.labelled import counted, take_labelled
from benchmark.data.packing import Census, pack_pictures, take_census
from benchmark.data.pictures import SKETCH_SHAPE, THUMBNAIL_SHAPE, Picture
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.data.splits import SPLIT_VERSION, check_split_version
from benchmark.data.table import PixelWriter, check_same_faces, read_table
from benchmark.errors import DataError
from benchmark.files import sha256_of

IMAGE_PX: Final = range(16, 1025)


@dataclass(frozen=True, eq=False)
class PrepareResult:
    """A data set, and how it came about."""

    faces: FaceSet
    is_new: bool
    """False if it was there already, from the same source with the same options."""
    seconds: float

    @property
    def n_findings(self) -> int:
        """How many pictures could not be used, though a name or a row promised a face."""
        return int(self.faces.manifest["counts"]["quarantined_pictures"])


def prepare(
    source: Path,
    data_dir: Path,
    *,
    image_px: int = 100,
    name: str | None = None,
    table: Path | None = None,
    layout: str | None = None,
    labels: Sequence[Path] = (),
    given: Given | None = None,
    on_progress: OnProgress = keep_quiet,
) -> PrepareResult:
    """Pack the faces of `source` under `data_dir`, or find that it was done before.

    table: the table.csv of a data set with the same faces, to take clusters and split from.
    layout, labels, given: which faces these are where their names do not tell: a layout's name, the
    tables of labels, and what their words mean (benchmark.data.label_tables).
    Raises DataError on a source that is missing, damaged, unsafe or without faces, on a table of
    other faces, and on a full disk; then no data set is left behind.
    """
    started = time.perf_counter()
    if image_px not in IMAGE_PX:
        allowed = f"{IMAGE_PX[0]} to {IMAGE_PX[-1]}"
        raise DataError(f"faces of {image_px} pixels a side were asked for", allowed=allowed)
    opened = open_source(source)
    source_name = os.path.basename(os.path.abspath(source))
    name = name or f"{_stem(source_name)}-{image_px}"
    check_dataset_name(name, drawn=False)
    labelling = labelling_for(opened, layout, labels, given or {})
    placement = _read_placement(table) if table is not None else None
    about: dict[str, Any] = {
        "name": name,
        "drawn": False,
        "image_px": image_px,
        "source": source_name,
        "source_sha256": opened.sha256(on_progress),
    }
    final = data_dir / name
    is_new = not final.exists()
    if is_new:
        _make(opened, final, about, placement, labelling, on_progress)
    faces = open_faces(final)
    _check_same(faces, about, placement, labelling)
    return PrepareResult(faces, is_new, time.perf_counter() - started)


def _stem(source_name: str) -> str:
    stem = re.sub(r"\.(tar\.gz|tgz|tar|zip)$", "", source_name.lower())
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._") or "faces"


def _read_placement(table: Path) -> Placement:
    if not table.is_file():
        raise DataError(f"{table} does not exist", allowed="a table.csv of a prepared data set")
    manifest = table.with_name(MANIFEST_FILE)
    version = read_manifest(manifest)["split_version"] if manifest.is_file() else SPLIT_VERSION
    return Placement(read_table(table), sha256_of(table), table.name, version)


def _check_same(
    faces: FaceSet,
    about: dict[str, Any],
    placement: Placement | None,
    labelling: Labelling | None,
) -> None:
    """Raise DataError if the data set of this name came from elsewhere or by other options."""
    if placement is None:
        check_split_version(faces)
    told = faces.manifest.get("labels") or {}
    if told.get("source_sha256") != (labelling.source_sha256 if labelling else None):
        raise DataError(
            f"data set {faces.name!r} was prepared with other labels",
            allowed="the same layout, --labels and --map as before",
            source=str(faces.folder),
            fix="Choose another --name, or remove that folder to prepare it anew",
        )
    wanted = {**about, "table_source_sha256": placement.sha256 if placement else None}
    for key in ("source_sha256", "image_px", "table_source_sha256"):
        if faces.manifest[key] != wanted[key]:
            raise DataError(
                f"data set {faces.name!r} was prepared otherwise: its {key} is "
                f"{faces.manifest[key]}, and {wanted[key]} was asked for",
                source=str(faces.folder),
                fix="Choose another --name, or remove that folder to prepare it anew",
            )


def _make(
    source: Source,
    final: Path,
    about: dict[str, Any],
    placement: Placement | None,
    labelling: Labelling | None,
    on_progress: OnProgress,
) -> None:
    if labelling is None:
        census = take_census(source)
    else:
        census, statement, words = take_labelled(source, labelling)
        about = about | {"labels": statement}
    if placement is not None:
        check_same_faces(census.table(), placement.table, placement.source)
    with staged_folder(final) as folder:
        writer = PixelWriter(folder / PIXELS_FILE, len(census.faces), about["image_px"])
        try:
            pictures, unusable = pack_pictures(source, census, writer, on_progress)
            kept = sorted(pictures)
            if not kept:
                raise DataError(
                    f"none of the {len(census.faces)} pictures of {source.path} can be used; "
                    f"{census.faces[0][0]}: {next(iter(unusable.values()))}",
                    allowed="whole pictures of faces",
                )
            writer.finish(kept)
        finally:
            writer.close()
        packed = _packed(census, pictures, unusable)
        if "labels" in about:
            about["labels"] = counted(about["labels"], packed.table)
            write_words(folder, words, packed.table)
        finish_dataset(folder, packed, about, placement, on_progress)


def _packed(census: Census, pictures: dict[int, Picture], unusable: dict[int, str]) -> PackedFaces:
    kept = sorted(pictures)
    in_order = [pictures[row] for row in kept]
    table = census.table().iloc[kept].reset_index(drop=True)
    for column in ("sha256", "mode", "width", "height"):
        table[column] = [getattr(picture, column) for picture in in_order]
    sketches, thumbnails = (
        np.frombuffer(b"".join(getattr(picture, name) for picture in in_order), np.uint8)
        for name in ("sketch", "thumbnail")
    )
    left_out = [
        *census.left_out,
        *((census.faces[row][0], PICTURE_KIND, reason) for row, reason in unusable.items()),
    ]
    quarantine = pd.DataFrame(sorted(left_out), columns=list(QUARANTINE_COLUMNS))
    return PackedFaces(
        table,
        sketches.reshape(-1, *SKETCH_SHAPE),
        thumbnails.reshape(-1, *THUMBNAIL_SHAPE),
        quarantine,
    )
