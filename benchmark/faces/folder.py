"""The files of a prepared data set, and how they are written once its pixels are packed.

    faces.npy       (n, px, px, 3) uint8 RGB; row i belongs to row i of the table
    table.csv       one row per usable face, by file name (benchmark.faces.table)
    quarantine.csv  every file that was left out: file, kind, reason
    words.csv       where a table told the labels: its words, as they stood there
    manifest.json   source, digests, versions, counts; written last

Reading them back is for benchmark.faces.store.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark import __version__
from benchmark.errors import DataError
from benchmark.faces.clusters import count_duplicates, describe_near, near_duplicates
from benchmark.faces.pictures import RESIZE_FILTER
from benchmark.faces.pixels import pixel_digest
from benchmark.faces.progress import OnProgress, keep_quiet
from benchmark.faces.splits import PARTS, SPLIT_VERSION, check_no_overlap, part_rows, split_digest
from benchmark.faces.table import check_same_faces, placed, placed_as, write_table
from benchmark.files import write_json, write_text
from benchmark.tasks import AGE_GROUP_RULE

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
