"""Prepared data sets on disk: written whole or not at all, opened and checked.

    faces.npy       (n, px, px, 3) uint8 RGB; row i belongs to row i of the table
    table.csv       one row per usable face, by file name: labels, cluster, part, fold
    quarantine.csv  every file that was rejected: file, kind, reason
    words.csv       where a table gave the labels: its words, as they stood there
    manifest.json   source, digests, versions, counts; written last

How an archive's pictures become pixels is for benchmark.data.prepare; how batches reach a device
for benchmark.data.batches.
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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_integer_dtype
from PIL import Image

from benchmark import __version__
from benchmark.data.duplicates import count_duplicates, near_duplicates, placement_columns
from benchmark.data.labels import LABELS
from benchmark.data.pictures import (
    RESIZE_FILTER,
    SKETCH_SHAPE,
    THUMBNAIL_SHAPE,
    Picture,
    Pixels,
    PixelWriter,
    open_pixels,
    pixel_digest,
    sketch_of,
    thumbnail_of,
)
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.data.splits import (
    N_FOLDS,
    PARTS,
    SPLIT_VERSION,
    check_no_overlap,
    check_split_version,
    part_rows,
    split_digest,
    with_split,
)
from benchmark.errors import DataError
from benchmark.files import write_json, write_text
from benchmark.tasks import AGE_GROUP_RULE, CLASS_NAMES, MISSING

SCHEMA: Final = 1
PIXELS_FILE: Final = "faces.npy"
TABLE_FILE: Final = "table.csv"
REJECTED_FILE: Final = "quarantine.csv"
MANIFEST_FILE: Final = "manifest.json"
WORDS_FILE: Final = "words.csv"
MANIFEST_KEYS: Final = (
    *("name", "drawn", "image_px", "source_sha256", "pixel_digest", "split_digest"),
    "split_version",
)

REJECTED_COLUMNS: Final = ("file", "kind", "reason")
NAME_KIND: Final = "name"
PICTURE_KIND: Final = "picture"
OTHER_KIND: Final = "other"
ROW_KIND: Final = "row"
"""Why a file was rejected: no labels in its name, or in the table of labels; a picture that cannot
be used; not a picture by its name, and not counted as one; a row of the table of labels that names
no picture, or several."""

TEXT_COLUMNS: Final = ("file", "sha256", "part", "no_place_reason", "mode")
PLACEMENT_COLUMNS: Final = (
    *("cluster", "is_copy", "label_conflict", "part", "fold", "no_place_reason"),
)
TABLE_COLUMNS: Final = (
    *("file", "sha256", *LABELS, *PLACEMENT_COLUMNS),
    *("mode", "width", "height"),
)
SHOWN_FILES: Final = 3
"""How many file names a message lists."""

RESERVED_NAMES: Final = ("cache", "weights")
DRAWN_NAME: Final = "drawn"
"""For synthetic faces alone."""

STAGING_SUFFIX: Final = ".partial"
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space on the disk, in the user's quota, or under the process's limit of file size."""
TAKEN: Final = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""What renaming a folder onto a folder with something in it, or onto a file, ends in."""


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `final`, renamed to it if the block ends well.

    If it does not, the folder is removed. What a killed process left is removed by the next one
    that makes the same folder; a folder in use is locked and kept. Raises DataError on a full
    disk, where there is no right to write, and where `final` is taken meanwhile.
    """
    with _disk_errors_explained(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in final.parent.glob(f".{final.name}.*{STAGING_SUFFIX}"):
            # Where another process holds the lock, it is at work there.
            with (
                contextlib.suppress(BlockingIOError),
                _locked(abandoned, fcntl.LOCK_EX | fcntl.LOCK_NB),
            ):
                shutil.rmtree(abandoned, ignore_errors=True)
        staging = final.parent / f".{final.name}.{secrets.token_hex(4)}{STAGING_SUFFIX}"
        staging.mkdir()
    with _locked(staging, fcntl.LOCK_EX):
        try:
            with _disk_errors_explained(final.parent):
                yield staging
                staging.rename(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Hold the kernel's lock of a folder."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, how)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _disk_errors_explained(folder: Path) -> Iterator[None]:
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
        if error.errno in TAKEN and error.filename2:
            raise DataError(
                f"there is something called {Path(error.filename2).name!r} already",
                allowed="a new name",
                source=str(folder),
                fix="Remove it, or choose another --name",
            ) from error
        raise DataError(
            f"the data set cannot be written: {error.strerror}",
            allowed="a folder that may be written to",
            source=str(error.filename or folder),
            fix="Name another place with --data-dir",
        ) from error


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


@dataclass(frozen=True, eq=False)
class Placement:
    """Clusters and split taken from the table of another data set, and where it is from."""

    table: pd.DataFrame
    sha256: str
    source: str
    split_version: str = SPLIT_VERSION


def finish_dataset(
    folder: Path,
    labels: pd.DataFrame,
    pictures: Sequence[Picture],
    about: dict[str, Any],
    *,
    rejected: Iterable[tuple[str, str, str]] = (),
    placement: Placement | None = None,
    on_progress: OnProgress = keep_quiet,
) -> None:
    """Find duplicates, split, and write every file but faces.npy, which is there already.

    labels: columns file and LABELS, by file name, as `pictures` and the pixels are. about: name,
    drawn, image_px, source, source_sha256, and `labels` where a table gave them. rejected: rows of
    REJECTED_COLUMNS. Raises DataError if the split leaks, which only one that was taken from
    elsewhere can.
    """
    columns = ("sha256", "mode", "width", "height")
    table = labels.assign(**{name: [getattr(p, name) for p in pictures] for name in columns})
    with ThreadPoolExecutor(1) as pool:
        # Both take a second or two for UTKFace, and neither holds the interpreter.
        digest = pool.submit(_synced_digest, folder / PIXELS_FILE)
        if placement is not None:
            check_same_faces(table, placement.table, placement.source)
            theirs = placement.table.set_index("file").loc[table["file"]]
            columns_of = {name: theirs[name].to_numpy() for name in PLACEMENT_COLUMNS}
            table = table.assign(**columns_of)[list(TABLE_COLUMNS)]
            method = {"method": "clusters taken from another table", "threshold_bits": None}
            about = {**about, "near_duplicates": method}
        else:
            sketches = np.frombuffer(b"".join(p.sketch for p in pictures), np.uint8)
            thumbnails = np.frombuffer(b"".join(p.thumbnail for p in pictures), np.uint8)
            near, counts = near_duplicates(
                table,
                sketches.reshape(-1, *SKETCH_SHAPE),
                thumbnails.reshape(-1, *THUMBNAIL_SHAPE),
                on_progress,
            )
            table = placed(table, near)
            about = {**about, "near_duplicates": counts}
        about = {**about, "pixel_digest": digest.result()}
    versions = {name: metadata.version(name) for name in ("numpy", "pillow")}
    manifest = {
        **about,
        "schema": SCHEMA,
        "table_source_sha256": placement.sha256 if placement else None,
        "split_version": placement.split_version if placement else SPLIT_VERSION,
        "age_group_rule": AGE_GROUP_RULE,
        "resize_filter": RESIZE_FILTER,
        "versions": {"facebench": __version__, **versions},
    }
    write_files(folder, table, rejected, manifest)


def _synced_digest(path: Path) -> str:
    """Wait until the pixels are on the disk, and digest them."""
    with path.open("rb") as written:
        os.fsync(written.fileno())
    return pixel_digest(path)


def write_files(
    folder: Path,
    table: pd.DataFrame,
    rejected: Iterable[tuple[str, str, str]],
    manifest: dict[str, Any],
) -> None:
    """Write a placed table, what was rejected and, completed by digest and counts, the manifest."""
    check_no_overlap(table, part_rows(table))
    write_table(folder / TABLE_FILE, table)
    left_out = pd.DataFrame(sorted(rejected), columns=list(REJECTED_COLUMNS))
    write_text(folder / REJECTED_FILE, left_out.to_csv(index=False, lineterminator="\n"))
    counts = _counts(table, left_out["kind"], manifest["image_px"])
    manifest = {**manifest, "split_digest": split_digest(table), "counts": counts}
    write_json(folder / MANIFEST_FILE, manifest)


def write_words(folder: Path, words: pd.DataFrame, table: pd.DataFrame) -> None:
    """Keep what a table of labels says of the faces of `table`, in its own words."""
    kept = words.set_index("file").loc[table["file"]].reset_index()
    write_text(folder / WORDS_FILE, kept.to_csv(index=False, lineterminator="\n"))


def _counts(table: pd.DataFrame, kinds: "pd.Series[str]", image_px: int) -> dict[str, Any]:
    n_names, n_pictures, n_others = (
        int((kinds == kind).sum()) for kind in (NAME_KIND, PICTURE_KIND, OTHER_KIND)
    )
    cluster_sizes = table["cluster"].value_counts()
    converted = table["mode"][table["mode"] != "RGB"].value_counts()
    return {
        "image_files": len(table) + n_names + n_pictures,
        "usable": len(table),
        "quarantined_names": n_names,
        "quarantined_pictures": n_pictures,
        "not_pictures": n_others,
        "converted_modes": {str(mode): int(n) for mode, n in converted.items()},
        "not_square": int((table["width"] != table["height"]).sum()),
        "enlarged": int((table[["width", "height"]].min(axis=1) < image_px).sum()),
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


def placed(
    table: pd.DataFrame, near: Iterable[tuple[int, int]] | NDArray[np.int64]
) -> pd.DataFrame:
    """Add the placement columns: clusters by equal bytes and `near` pairs of rows, then the split.

    Needs file, sha256, the labels, mode, width and height, sorted by file.
    """
    return with_split(table.join(placement_columns(table, near)))[list(TABLE_COLUMNS)]


def check_same_faces(table: pd.DataFrame, placement: pd.DataFrame, source: str) -> None:
    """Raise DataError unless both tables hold the same files with the same labels.

    source: where the other table is from.
    """
    here, there = set(table["file"]), set(placement["file"])
    found = {
        "faces of the table are not in the source": sorted(there - here),
        "faces of the source are not in the table": sorted(here - there),
    }
    if here == there:
        theirs = placement.set_index("file").loc[table["file"]]
        for label in LABELS:
            differs = table[label].to_numpy() != theirs[label].to_numpy()
            found[f"faces have another {label} in the table"] = table["file"][differs].tolist()
    said = [
        f"{len(files)} {what}: {', '.join(files[:SHOWN_FILES])}"
        + (f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else "")
        for what, files in found.items()
        if files
    ]
    if said:
        raise DataError(
            "; ".join(said),
            allowed="a source with the same faces under the same names, labelled alike",
            source=source,
            fix="Prepare without --table, or use the table of a data set with these faces",
        )


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
        table = pd.read_csv(
            path, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, na_filter=False
        )
        problem = _problem_of(table)
    except (OSError, ValueError) as error:
        problem = f"it cannot be read: {error}"
    if problem:
        raise DataError(
            f"{path.name} is not a table of faces: {problem}",
            allowed="the table.csv that `facebench data prepare` wrote",
            source=str(path),
        )
    return table[list(TABLE_COLUMNS)]


def _problem_of(table: pd.DataFrame) -> str | None:
    """Say what is wrong with a table as it was read; fill the empty cells of its labels."""
    if missing := [name for name in TABLE_COLUMNS if name not in table.columns]:
        return f"it has no column {', '.join(missing)}"
    if len(table) == 0:
        return "it has no faces"
    for label in LABELS:
        if not is_integer_dtype(table[label]) and (table[label] == "").any():
            cells = table[label].where(table[label] != "", str(MISSING))
            numbers = pd.to_numeric(cells, errors="coerce")
            if (numbers >= MISSING).all():
                table[label] = numbers.astype("int64")
    for name in TABLE_COLUMNS:
        if name not in TEXT_COLUMNS and not is_integer_dtype(table[name]):
            return f"column {name} holds something other than integers"
    if (repeated := table["file"].duplicated()).any():
        return f"{table['file'][repeated].iloc[0]} stands in it twice"
    for task, names in CLASS_NAMES.items():
        if not table[task].between(MISSING, len(names) - 1).all():
            return f"column {task} has labels outside 0 to {len(names) - 1}"
    part, fold, has_place = table["part"], table["fold"], table["no_place_reason"] == ""
    if not part.isin(["", *PARTS]).all() or not fold.between(-1, N_FOLDS - 1).all():
        return f"column part or fold has values other than {', '.join(PARTS)} or 0 to {N_FOLDS - 1}"
    if ((part != "") != has_place).any() or ((fold != -1) != has_place).any():
        return "a face has both or neither of a part and a reason to have none"
    return None


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
        """Whether the faces are synthetic and not photographed; said wherever they are shown."""
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
        """Digest of labels that came from a table; None where the faces' names give them."""
        labels = self.manifest.get("labels")
        return str(labels["digest"]) if labels else None

    def pixels(self) -> Pixels:
        """Map the packed faces into memory: (n, px, px, 3) uint8 RGB, copy-on-write."""
        return open_pixels(self.folder / PIXELS_FILE)

    def words(self) -> pd.DataFrame | None:
        """What a table of labels said of each face, in its own words, row by row of the table.

        None where the faces' names give the labels, and for data sets prepared before words were
        kept.
        """
        if not (self.folder / WORDS_FILE).is_file():
            return None
        words = self._read(WORDS_FILE)
        if list(words.get("file", ())) != list(self.table["file"]):
            raise _damaged(self.folder, f"{WORDS_FILE} is not of these faces")
        return words

    def rejected(self) -> pd.DataFrame:
        """Every file that was rejected: file, kind, reason."""
        return self._read(REJECTED_FILE)

    def _read(self, name: str) -> pd.DataFrame:
        try:
            return pd.read_csv(self.folder / name, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise _damaged(self.folder, f"{name} cannot be read: {error}") from error


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
    if missing := set(MANIFEST_KEYS) - manifest.keys():
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
    images: NDArray[np.uint8],
    labels: pd.DataFrame,
    *,
    name: str,
    data_dir: Path,
    drawn: bool = True,
) -> FaceSet:
    """Store pictures that are in memory as a data set; clusters and split by the usual code.

    images: (n, px, px, 3) uint8 RGB. labels: columns file (unique), age, age_group, gender, race;
    row i is picture i. A data set of this name with the same pictures is opened as it is; with
    others it is refused by DataError.
    """
    check_dataset_name(name, drawn=drawn)
    if (repeated := labels["file"].duplicated()).any():
        found = f"two faces are called {labels['file'][repeated].iloc[0]!r}"
        raise DataError(found, allowed="each file name once")
    px = images.shape[1] if images.ndim == 4 else 0
    if images.dtype != np.uint8 or images.shape != (len(labels), px, px, 3) or not len(labels):
        raise DataError(
            f"pictures of shape {images.shape} and type {images.dtype} for {len(labels)} labels",
            allowed="(n, px, px, 3) of uint8, one face or more",
        )
    order = np.argsort(labels["file"].to_numpy(dtype=object), kind="stable")
    ordered = labels.iloc[order].reset_index(drop=True)[["file", *LABELS]]
    sha256 = [hashlib.sha256(images[i].tobytes()).hexdigest() for i in order]
    rows = ordered.assign(sha256=sha256)[["file", "sha256", *LABELS]]
    digest = hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()
    final = data_dir / name
    if final.exists():
        faces = open_faces(final)
        check_split_version(faces)
        if faces.manifest["source_sha256"] != digest:
            raise DataError(
                f"data set {name!r} holds other faces",
                source=str(final),
                fix="Remove the folder, or store these under another name",
            )
        return faces
    about = {
        "name": name,
        "drawn": drawn,
        "image_px": px,
        "source": "drawn by facebench" if drawn else "stored from memory",
        "source_sha256": digest,
    }
    with staged_folder(final) as folder:
        write_pixels(folder, (images[i] for i in order), len(order), px)
        pictures = []
        for i, digest in zip(order, sha256, strict=True):
            image = Image.fromarray(images[i])
            grey = sketch_of(image), thumbnail_of(image)
            pictures.append(Picture(digest, "RGB", px, px, *grey))
        finish_dataset(folder, ordered, pictures, about)
    return open_faces(final)


def write_pixels(
    folder: Path, images: Iterable[NDArray[np.uint8]], n_faces: int, image_px: int
) -> None:
    """Write faces of (px, px, 3) one after another."""
    with PixelWriter(folder / PIXELS_FILE, image_px, n_faces) as writer:
        for row, image in enumerate(images):
            writer.write(row, image.tobytes())
        writer.finish(range(n_faces))
