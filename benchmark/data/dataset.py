"""Prepared data sets on disk: written whole or not at all, opened, checked, chosen and sampled.

faces.npy       (n, px, px, 3) uint8 RGB; row i belongs to row i of the table
table.csv       one row per usable face, by file name: labels, cluster, part, fold
quarantine.csv  every file that was rejected: file, kind, reason
words.csv       where a table gave the labels: its words, as they stood there
manifest.json   source, digests, versions, counts, data sheet; written last
"""

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from benchmark import __version__
from benchmark.data import pictures as pixels_of
from benchmark.data import splits
from benchmark.data.drawn import DRAWING_VERSION, draw_faces
from benchmark.data.duplicates import count_duplicates, near_duplicates, placement_columns
from benchmark.data.labels import LABELS
from benchmark.data.pictures import SKETCH_SHAPE, THUMBNAIL_SHAPE, Picture, Pixels, grey_of
from benchmark.data.progress import OnProgress, keep_quiet, owned
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
    *("name", "drawn", "image_px", "source", "source_sha256", "pixel_digest", "split_digest"),
    *("split_version", "table_source_sha256", "near_duplicates", "counts"),
)
NAME_KIND, PICTURE_KIND, OTHER_KIND, ROW_KIND = "name", "picture", "other", "row"
"""Why a file was rejected: no labels in its name, or in the table of labels; a picture that cannot
be used; not a picture by its name, and not counted as one; a row of the table of labels that names
no picture, or several."""

Rejected = list[tuple[str, str, str]]
"""Files that are no faces: file, kind, reason."""
TEXT_COLUMNS: Final = ("file", "sha256", "part", "no_place_reason", "mode")
PLACEMENT_COLUMNS: Final = (
    *("cluster", "is_copy", "label_conflict", "part", "fold", "no_place_reason"),
)
TABLE_COLUMNS: Final = (
    *("file", "sha256", *LABELS, *PLACEMENT_COLUMNS, "mode", "width", "height"),
)
DRAWN_NAME: Final = "drawn"
"""For synthetic faces alone, 3,000 of seed 1."""
STORED_NAME: Final = f"drawn-v{DRAWING_VERSION}"
SAMPLE_VERSION: Final = "clusters-1"


class Scan(NamedTuple):
    """The faces of a source, found without looking at a picture.

    table: columns file and LABELS, by file. paths: the member of each face, row by row. labels: of
    tables, for the manifest's `labels`. words: file and the tables' columns, of usable rows.
    placement: a table of these faces, to take clusters and split from.
    """

    table: pd.DataFrame
    paths: Sequence[str] = ()
    rejected: Rejected = []
    labels: dict[str, Any] | None = None
    words: pd.DataFrame | None = None
    placement: pd.DataFrame | None = None


class Prepared(NamedTuple):
    """A data set, and whether it was made now; else it was there, of the same source."""

    faces: "FaceSet"
    is_new: bool


def made_once(
    final: Path, write: Callable[[Path], object], on_progress: OnProgress = keep_quiet
) -> Prepared:
    """Open the data set `final`; where it is not there, let `write` fill a hidden folder first, and
    rename that to it.

    One process at a time makes a folder: another waits, and finds it done. On an error the folder
    is removed; what a killed process left is removed by the next that makes the same.
    """
    is_new = False
    if not final.exists():
        with owned(final, on_progress):
            if is_new := not final.exists():
                staging = final.parent / f".{final.name}.partial"
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir()
                try:
                    write(staging)
                    staging.rename(final)
                finally:
                    shutil.rmtree(staging, ignore_errors=True)
    return Prepared(open_faces(final), is_new)


def check_dataset_name(name: str, *, drawn: bool) -> None:
    """Raise DataError unless `name` can be a folder's name and a word on the command line."""
    reserved = ("cache", "weights", *(() if drawn else (DRAWN_NAME,)))
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", name) is None or name in reserved:
        raise DataError(
            f"a data set cannot be called {name!r}",
            allowed=f"lower-case letters, digits, '.', '_', '-', and not {' or '.join(reserved)}",
        )


def finish_dataset(
    folder: Path,
    scan: Scan,
    pictures: Sequence[Picture],
    about: dict[str, Any],
    on_progress: OnProgress = keep_quiet,
) -> None:
    """Find duplicates, split, and write every file but faces.npy, which is there already.

    pictures: of the faces of `scan`, row by row, as the pixels are. about: all of the manifest that
    is known before. Raises DataError if the split leaks, which only one from elsewhere can.
    """
    table = scan.table.join(pd.DataFrame(pictures, columns=list(Picture._fields)))
    if scan.placement is not None:
        theirs = scan.placement.set_index("file").loc[table["file"]].reset_index(drop=True)
        table = table.join(theirs[list(PLACEMENT_COLUMNS)])
        near = {"method": "clusters taken from another table", "threshold_bits": None}
    else:
        pairs, near = near_duplicates(table, on_progress)
        table = splits.with_split(table.join(placement_columns(table, pairs)))
    manifest = {
        **about,
        "near_duplicates": near,
        "schema": SCHEMA,
        "age_group_rule": AGE_GROUP_RULE,
        "resize_filter": pixels_of.RESIZE_FILTER,
        "versions": {"facebench": __version__}
        | {name: metadata.version(name) for name in ("numpy", "pillow")},
    }
    _write_files(folder, scan._replace(table=table[list(TABLE_COLUMNS)]), manifest)


def _write_files(folder: Path, scan: Scan, manifest: dict[str, Any]) -> None:
    """Write a placed table, what was rejected, what a table of labels says of the faces in its own
    words and, completed by digests and counts, the manifest."""
    table = scan.table
    splits.check_no_overlap(table, splits.part_rows(table))
    write_text(folder / TABLE_FILE, as_csv(with_empty_cells(table)))
    left_out = pd.DataFrame(sorted(scan.rejected), columns=["file", "kind", "reason"])
    write_text(folder / REJECTED_FILE, as_csv(left_out))
    if scan.words is not None:
        words = scan.words.set_index("file").loc[table["file"]].reset_index()
        write_text(folder / WORDS_FILE, as_csv(words))
    counts = _counts(table, left_out["kind"], manifest["image_px"])
    manifest = {**manifest, "split_digest": splits.split_digest(table), "counts": counts}
    manifest["pixel_digest"] = pixels_of.pixel_digest(folder / PIXELS_FILE)
    if labels := manifest.get("labels"):
        without = {label: int((table[label] == MISSING).sum()) for label in LABELS}
        manifest["labels"] = labels | {"digest": labels_digest(table), "without": without}
    write_json(folder / MANIFEST_FILE, manifest)


def as_csv(table: pd.DataFrame) -> str:
    """Write the same text for the same table on every machine."""
    return table.to_csv(index=False, lineterminator="\n")


def _counts(table: pd.DataFrame, kinds: "pd.Series[str]", image_px: int) -> dict[str, Any]:
    n_of = Counter(kinds)
    cluster_sizes = table["cluster"].value_counts()
    converted = table.loc[table["mode"] != "RGB", "mode"].value_counts()
    return {
        "image_files": len(table) + n_of[NAME_KIND] + n_of[PICTURE_KIND],
        "usable": len(table),
        "quarantined_names": n_of[NAME_KIND],
        "quarantined_pictures": n_of[PICTURE_KIND],
        "not_pictures": n_of[OTHER_KIND],
        "converted_modes": converted.to_dict(),
        "not_square": int((table["width"] != table["height"]).sum()),
        "enlarged": int((table[["width", "height"]].min(axis=1) < image_px).sum()),
        "placed": int((table["part"] != "").sum()),
        **{name: int((table["part"] == name).sum()) for name in splits.PARTS},
        "copies": int(table["is_copy"].sum()),
        "label_conflicts": int(table["label_conflict"].sum()),
        "clusters": len(cluster_sizes),
        "largest_cluster": int(cluster_sizes.max()),
        "identical": count_duplicates(table),
    }


def check_same_faces(table: pd.DataFrame, other: pd.DataFrame) -> None:
    """Raise DataError unless both tables hold the same files with the same labels."""
    here, there = (
        set(faces[["file", *LABELS]].itertuples(index=False, name=None)) for faces in (table, other)
    )
    if unlike := sorted({file for file, *_ in here ^ there}):
        raise DataError(
            f"{len(unlike):,} faces are in the source or the table alone, or labelled otherwise "
            f"there: {', '.join(unlike[:3])}",
            allowed="a --table with the same faces under the same names, labelled alike",
        )


def with_empty_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Give the labels as they are written: what a face is not labelled with is an empty cell."""
    gaps = [label for label in LABELS if (table[label] == MISSING).any()]
    return table.assign(**{gap: table[gap].astype(object).replace(MISSING, "") for gap in gaps})


def labels_digest(table: pd.DataFrame) -> str:
    """Digest who is labelled what."""
    return hashlib.sha256(as_csv(table[["file", *LABELS]]).encode()).hexdigest()


def read_table(path: Path) -> pd.DataFrame:
    """Read a table.csv; raise DataError if a column is missing or holds what it cannot."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if missing := [name for name in TABLE_COLUMNS if name not in table.columns]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        table[[*LABELS]] = table[[*LABELS]].replace("", str(MISSING))
        table = table.astype({name: "int64" for name in TABLE_COLUMNS if name not in TEXT_COLUMNS})
        allowed = {"part": ["", *splits.PARTS], "fold": range(-1, splits.N_FOLDS)}
        allowed |= {task: range(MISSING, len(names)) for task, names in CLASS_NAMES.items()}
        for name, values in allowed.items():
            if not table[name].isin(values).all():
                raise ValueError(f"column {name} has other values")
        if table["file"].duplicated().any() or not len(table):
            raise ValueError("it has no face, or one twice")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path.name} is not a table of faces: {error}",
            allowed="the table.csv that `facebench data prepare` wrote",
            source=str(path),
        ) from error
    return table[list(TABLE_COLUMNS)]


@dataclass(frozen=True, eq=False)
class FaceSet:
    """A prepared data set; made by `open_faces`. What its manifest says has attributes, too."""

    folder: Path
    manifest: dict[str, Any]
    table: pd.DataFrame
    """One row per usable face, by file name; row i belongs to row i of the pixels."""
    name: str = field(init=False)
    """The folder's name, as --dataset takes it."""
    drawn: bool = field(init=False)
    """Whether the faces are synthetic and not photographed; said wherever they are shown."""
    image_px: int = field(init=False)
    """Side of the packed faces in pixels."""
    pixel_digest: str = field(init=False)
    """sha256 of the packed array's bytes."""
    split_version: str = field(init=False)
    """Version of the rule that gave the faces their parts."""
    split_digest: str = field(init=False)
    """sha256 of the sorted lines `file,part` of the faces with a place."""
    datasheet: str = field(init=False)
    """Source, licence, how labelled, known limits, in words; no part of the identity."""

    def __post_init__(self) -> None:
        for of in fields(self):
            if not of.init:
                object.__setattr__(self, of.name, self.manifest.get(of.name, ""))

    @property
    def labels_digest(self) -> str | None:
        """Digest of labels that came from a table; None where the faces' names give them."""
        return (self.manifest.get("labels") or {}).get("digest")

    def pixels(self) -> Pixels:
        """Map the packed faces into memory: (n, px, px, 3) uint8 RGB, copy-on-write."""
        return pixels_of.open_pixels(self.folder / PIXELS_FILE)

    def words(self) -> pd.DataFrame | None:
        """What a table of labels said of each face, in its own words, row by row of the table; None
        where the faces' names give the labels, or words were not kept."""
        return self._read(WORDS_FILE) if (self.folder / WORDS_FILE).is_file() else None

    def rejected(self) -> pd.DataFrame:
        """Every file that was rejected: file, kind, reason."""
        return self._read(REJECTED_FILE)

    def left_out(self) -> pd.DataFrame:
        """Count by kind and reason the files that were rejected and the faces without a place."""
        reasons = self.table["no_place_reason"]
        # "copy of FILE" and "label conflict with FILE, ..." are counted by their first words.
        short = reasons[reasons != ""].str.replace(r" (of|with) .*", "", regex=True)
        without_place = pd.DataFrame({"kind": "no place", "reason": short})
        both = pd.concat([self.rejected(), without_place])
        return both.groupby(["kind", "reason"]).size().reset_index(name="n")

    def _read(self, name: str) -> pd.DataFrame:
        try:
            return pd.read_csv(self.folder / name, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise _damaged(self.folder, f"{name} cannot be read: {error}") from error


def open_faces(folder: Path) -> FaceSet:
    """Open a prepared data set; raise DataError if it is damaged or of another schema."""
    manifest = read_manifest(folder / MANIFEST_FILE)
    table = read_table(folder / TABLE_FILE)
    shape, px = pixels_of.open_pixels(folder / PIXELS_FILE).shape, manifest["image_px"]
    if shape != (len(table), px, px, 3):
        raise _damaged(folder, f"its pixels are {shape}, and its table has {len(table)} rows")
    if splits.split_digest(table) != manifest["split_digest"]:
        raise _damaged(folder, f"{TABLE_FILE} was changed after it was prepared")
    return FaceSet(folder, manifest, table)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a data set's manifest.json; raise DataError if it is damaged or of another schema."""
    try:
        manifest = dict(json.loads(path.read_text(encoding="utf-8")))
        if manifest.get("schema") != SCHEMA:
            raise ValueError(f"it has schema {manifest.get('schema')!r} and not {SCHEMA}")
        if missing := sorted({*MANIFEST_KEYS} - manifest.keys()):
            raise ValueError(f"it does not say {', '.join(missing)}")
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path.parent, f"{path.name} cannot be read: {error}") from error
    return manifest


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
    images: Pixels, labels: pd.DataFrame, *, name: str, data_dir: Path, drawn: bool = True
) -> FaceSet:
    """Store pictures that are in memory as a data set; clusters and split by the usual code.

    images: (n, px, px, 3) uint8 RGB. labels: columns file (unique), age, age_group, gender, race;
    row i is picture i. A data set of this name is opened as it is.
    """
    ordered, px = labels.reset_index(drop=True).sort_values("file"), images.shape[1]
    images, ordered = images[ordered.index], ordered[["file", *LABELS]].reset_index(drop=True)
    sha256 = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    rows = ordered.assign(sha256=sha256)[["file", "sha256", *LABELS]]
    about = {
        "name": name,
        "drawn": drawn,
        "image_px": px,
        "source": "drawn by facebench" if drawn else "stored from memory",
        "split_version": splits.SPLIT_VERSION,
        "table_source_sha256": None,
        "source_sha256": hashlib.sha256(as_csv(rows).encode()).hexdigest(),
    }

    def write(folder: Path) -> None:
        pixels_of.write_pixels(folder / PIXELS_FILE, px, enumerate(map(np.ndarray.tobytes, images)))
        pictures = []
        for image, digest in zip(map(Image.fromarray, images), sha256, strict=True):
            greys = (grey_of(image, shape) for shape in (SKETCH_SHAPE, THUMBNAIL_SHAPE))
            pictures.append(Picture(digest, "RGB", px, px, *greys))
        finish_dataset(folder, Scan(ordered), pictures, about)

    return made_once(data_dir / name, write).faces


def choose_dataset(data_dir: Path, asked: str | None = None) -> FaceSet:
    """Give the data set asked for, or the only photographed one prepared; raise DataError where
    there is none of this name, or not one. `drawn` is made of synthetic faces on first use."""
    if asked == DRAWN_NAME:
        if (data_dir / STORED_NAME).is_dir():
            return open_faces(data_dir / STORED_NAME)
        return store_faces(*draw_faces(3_000, seed=1), name=STORED_NAME, data_dir=data_dir)
    prepared = {faces.name: faces for faces in prepared_datasets(data_dir)}
    photographed = [faces.name for faces in prepared.values() if not faces.drawn]
    if asked is None and len(photographed) == 1:
        return prepared[photographed[0]]
    if asked in prepared:
        return prepared[asked]
    several = f"{len(photographed)} data sets of photographs are prepared, and --dataset names none"
    raise DataError(
        f"no data set {asked!r} is prepared" if asked else several,
        allowed=", ".join([*sorted(prepared), DRAWN_NAME]),
        source=str(data_dir),
        fix="Name one: --dataset NAME, of make DATASET=NAME"
        if photographed and asked is None
        else "`facebench data prepare SOURCE` prepares one from an archive or a folder of faces; "
        f"`--dataset {DRAWN_NAME}` uses synthetic faces, without a download",
    )


def draw_sample(faces: FaceSet, n_faces: int, name: str) -> FaceSet:
    """Store about `n_faces` of `faces` as the data set `name` beside it, clusters whole.

    Each face stays in the part it was in. Clusters, with copies and conflicts that have no place,
    are taken in the order of a hash of their first face's name, until there are `n_faces` or more;
    every machine draws the same. Raises DataError for a size out of range or a name that is taken.
    """
    check_dataset_name(name, drawn=faces.drawn)
    if not 100 <= n_faces < len(faces.table):
        raise DataError(
            f"a sample of {n_faces:,} faces",
            allowed=f"100 faces or more, and fewer than the {len(faces.table):,} of {faces.name}",
        )
    about = {"version": SAMPLE_VERSION, "of": faces.name, "n_asked": n_faces}
    about |= {"pixel_digest": faces.pixel_digest}

    def write(folder: Path) -> None:
        firsts = faces.table.sort_values("file").drop_duplicates("cluster")
        keys = splits.hash_keys(firsts["file"], SAMPLE_VERSION)
        order = firsts.assign(key=keys).sort_values("key")["cluster"]
        n_before = order.map(faces.table["cluster"].value_counts()).cumsum().shift(fill_value=0)
        rows = np.flatnonzero(faces.table["cluster"].isin(order[n_before < n_faces]))
        table, pixels = faces.table.iloc[rows].reset_index(drop=True), faces.pixels()
        contents = enumerate(pixels[row].tobytes() for row in rows)
        pixels_of.write_pixels(folder / PIXELS_FILE, faces.image_px, contents)
        near = {"method": f"clusters of {faces.name}, kept whole", "threshold_bits": None}
        manifest = faces.manifest | {"name": name, "sample": about, "near_duplicates": near}
        _write_files(folder, Scan(table, words=faces.words()), manifest)

    sample, _ = made_once(faces.folder.parent / name, write)
    if sample.manifest.get("sample") != about:
        raise DataError(
            f"data set {name!r} is there already and is another one",
            source=str(sample.folder),
            fix="Remove the folder, or choose another --name",
        )
    return sample
