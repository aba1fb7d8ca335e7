"""Find what the parts of any split share: by name, by bytes, and as near-duplicates.

A part is a CSV, a text list, or a folder or archive of pictures. Labels play no role.
"""

import contextlib
import csv
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from benchmark.data import archive
from benchmark.data.archive import Source, name_key, printable
from benchmark.data.duplicates import METHOD, THRESHOLD_BITS, Greys, near_pairs
from benchmark.data.labels import is_picture_name
from benchmark.data.pictures import MIN_SIDE_PX, SKETCH_SHAPE, decode
from benchmark.data.progress import OnProgress, in_parallel, keep_quiet
from benchmark.errors import DataError

ALLOWED: Final = (
    "a CSV, a text list with one name a line, or a folder (.zip, .tar, .tar.gz) of pictures"
)
NAME_COLUMNS: Final = (
    *("file", "filename", "image", "path", "name"),
    *("filepath", "imagefile", "imagename", "imagepath", "img", "imgpath"),
)
"""Headings of a column of names, the likelier first; spaces, `_` and `-` in them do not count."""
NONE: Final = -1
"""In place of a row or number that there is not."""


class SplitPart(NamedTuple):
    """One part of a split: its names, and the pictures where it is a folder or an archive.

    files: each name once, as it is written; of pictures, the path in their folder. rows_left_out:
    those without a name, or with one once more. not_pictures: files that are none by their names.
    """

    name: str
    path: Path
    files: tuple[str, ...]
    rows_left_out: int = 0
    not_pictures: int = 0
    pictures: Source | None = None


def read_parts(paths: Sequence[Path]) -> list[SplitPart]:
    """Read every part of a split, training first; raise DataError for one that is missing, empty,
    binary, without names or without pictures."""
    if len(set(paths)) < max(2, len(paths)):
        found = f"{len(set(paths))} different parts of a split were given"
        raise DataError(found, allowed="two or more, training first")
    endings = re.compile(r"(?i)\.(csv|tsv|txt|lst|zip|tar|tgz|tar\.gz)$")
    stems = [endings.sub("", path.resolve().name) for path in paths]
    return [
        _read_part(path, printable(stem if stems.count(stem) == 1 else str(path)))
        for path, stem in zip(paths, stems, strict=True)
    ]


def _read_part(path: Path, name: str) -> SplitPart:
    if not path.is_file() and not path.is_dir():
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}", allowed=ALLOWED)
    source, others = _source_at(path), list[tuple[str, str]]()
    if source is not None:
        written, others = source.pictures()
        written.sort()
    else:
        written = _names_in(path)
    files: dict[str, str] = {}
    for file in filter(None, written):
        files.setdefault(name_key(file), file)
    if not files:
        raise DataError(f"{path} lists no names", allowed="one name or more")
    n_left_out = len(written) - len(files)
    return SplitPart(name, path, (*files.values(),), n_left_out, len(others), source)


def _source_at(path: Path) -> Source | None:
    with contextlib.suppress(DataError):
        return archive.open_source(path)
    return None


def _names_in(path: Path) -> list[str]:
    """Read the names of a list, empty ones included.

    A delimiter is believed where it uncovers a column with a known heading, or a first column of
    picture names. Without one every line is a name, in a CSV only if most look like pictures.
    """
    try:
        text = archive.decoded(path.read_bytes())
    except (OSError, DataError) as error:
        raise DataError(f"{path} is no list of names: {error}", allowed=ALLOWED) from error
    is_csv = path.suffix.lower() in (".csv", ".tsv")
    lines = [[line.strip()] for line in io.StringIO(text, newline=None) if line.strip()]
    tables = [rows for delimiter in ",;\t|" if (rows := _rows(text, delimiter))]
    tables.sort(key=lambda rows: -len(rows[0]))
    for rows in tables:
        heads = [re.sub(r"[\s_-]", "", cell).lower() for cell in rows[0]]
        if known := [heads.index(heading) for heading in NAME_COLUMNS if heading in heads]:
            return [row[known[0]].strip() if known[0] < len(row) else "" for row in rows[1:]]
    # As Caffe's lists: a name, a space, a class.
    tables += [] if is_csv else [_rows(text, " ")]
    table = next((of for of in tables if min(map(len, of), default=0) > 1 and _mostly(of)), None)
    if table is None and is_csv and not _mostly(lines):
        raise DataError(
            f"{path} has no column of file names; its first line is {lines[0][0][:60]!r}",
            allowed=f"a column {', '.join(NAME_COLUMNS[:5])}, or a list with one name a line",
        )
    names = [row[0].strip() for row in table or lines]
    has_heading = (is_csv or table) and names and not is_picture_name(names[0])
    return names[1:] if has_heading else names


def _rows(text: str, delimiter: str) -> list[list[str]]:
    try:
        read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return [row for row in read if any(cell.strip() for cell in row)]
    except csv.Error:  # quotes that do not close, a cell that never ends: not by this delimiter
        return []


def _mostly(rows: Sequence[list[str]]) -> bool:
    """Tell whether most rows begin with the name of a picture."""
    return 2 * sum(is_picture_name(row[0].strip()) for row in rows) >= len(rows)


def _listed(parts: Sequence[SplitPart], images: Path | None) -> pd.DataFrame:
    """Give a row for each file of each part: row, part (its name, ordered), file, key, place (its
    source and path, or None); raise DataError where a list finds no picture at all."""
    source = images and _source_at(images)
    if images is not None and source is None:
        what = "is no folder and no archive" if images.exists() else "does not exist"
        allowed = "a folder, .zip, .tar or .tar.gz of pictures"
        raise DataError(f"--images {images} {what}", allowed=allowed)
    index = archive.PictureIndex(source.pictures()[0] if source else ())
    rows: list[tuple[str, str, str, tuple[Source, str] | None]] = []
    for part in parts:
        its = [[file] if part.pictures else index.find(file)[1] for file in part.files]
        if source and not any(len(paths) == 1 for paths in its):
            raise DataError(
                f"none of the {len(its):,} names of {part.name} is under {images}; the first is "
                f"{printable(part.files[0])}",
                source=str(part.path),
                fix="Give the folder that the names are relative to, or that holds them",
            )
        where = part.pictures or source
        for file, paths in zip(part.files, its, strict=True):
            place = (where, paths[0]) if where and len(paths) == 1 else None
            rows.append((part.name, printable(file), printable(name_key(file)), place))
    files = pd.DataFrame(rows, columns=["part", "file", "key", "place"]).reset_index(names="row")
    in_order = pd.CategoricalDtype([part.name for part in parts], ordered=True)
    return files.astype({"part": in_order})


def _read_files(files: pd.DataFrame, on_progress: OnProgress) -> tuple[pd.DataFrame, Greys]:
    """Read every picture once, on all cores; give more columns, and the sketches, (n, 16, 17).

    base, stem, reason (why it is not compared as a picture), content (number of its bytes, or
    NONE), picture (number among pictures of different bytes that can be compared, or NONE).
    """
    wanted = set(files["place"].dropna())

    def contents() -> Iterator[tuple[tuple[Source, str], bytes | str]]:
        for source in {source for source, _ in wanted}:
            for path, content in source.contents({path for its, path in wanted if its == source}):
                yield (source, path), content

    seen: dict[tuple[Source, str] | None, tuple[str, bytes, str]] = {None: ("", b"", "")}
    results = in_parallel(_seen, contents(), len(wanted))
    with contextlib.closing(results):
        for number, (place, found) in enumerate(results, start=1):
            seen[place] = found
            if number % 32 == 0 or number == len(wanted):
                on_progress("reading pictures", number, len(wanted))
    gone = ("", b"", "it went away meanwhile")
    rows = [seen.get(place, gone) for place in files["place"]]
    files = files.join(pd.DataFrame(rows, columns=["sha256", "sketch", "reason"]))
    files["base"] = files["key"].str.rpartition("/")[2]
    files["stem"] = files["base"].map(archive.without_ending).str.casefold()
    files["content"] = pd.factorize(files["sha256"].where(files["sha256"] != ""))[0]
    is_hashed = (files["content"] != NONE) & (files["reason"] == "")
    files["picture"] = pd.factorize(files["content"].where(is_hashed))[0]
    sketches = b"".join(files[is_hashed].drop_duplicates("picture")["sketch"])
    return files, np.frombuffer(sketches, np.uint8).reshape(-1, *SKETCH_SHAPE)


def _seen(content: bytes | str) -> tuple[str, bytes, str]:
    """Give the sha256 of a file, the sketch of its picture, and why it is not compared by that."""
    if isinstance(content, str) or not content:
        # All empty files have the same bytes, which makes no picture of them.
        return "", b"", content or "the file is empty"
    digest = hashlib.sha256(content).hexdigest()
    _, picture = decode(MIN_SIDE_PX, content)
    if isinstance(picture, str):
        return digest, b"", picture
    grey = np.frombuffer(picture.sketch, np.uint8).reshape(SKETCH_SHAPE)
    # Two with fewer unequal neighbours than the threshold are always about as near as copies are.
    # No face of UTKFace is so plain: an empty picture is.
    is_plain = (grey[:, 1:] != grey[:, :-1]).sum() < THRESHOLD_BITS
    plain = "it is too plain to be distinguished from other plain pictures"
    return digest, picture.sketch, plain if is_plain else ""


PAIR_COLUMNS: Final = (
    *("part", "file", "other_part", "other_file", "finding", "found_by", "name", "bits_apart"),
    "mirrored",
)
KIND: Final = ("finding", "found_by", "name", "mirrored")


def audit_split(
    paths: Sequence[Path], images: Path | None = None, on_progress: OnProgress = keep_quiet
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Compare each two parts of a split, training first; give what was found, and every pair.

    images: a folder or archive with the pictures that lists name. Without it lists are compared by
    name alone. The pairs of files have PAIR_COLUMNS: found by bytes, as near-duplicates, else by
    name. finding: `leak`; `undecided` where names are only alike or the pictures cannot be
    compared; `other pictures` where both were read and differ. name: `same`, `alike` (in another
    folder or case, with another ending) or empty. bits_apart: of 256. Raises DataError for parts
    that cannot be read.
    """
    parts = read_parts(paths)
    files, sketches = _read_files(_listed(parts, images), on_progress)
    pairs = _described(_pairs(files, sketches, on_progress), files)
    two_and_two = combinations(files["part"].cat.categories, 2)
    overlaps = [_overlap(pairs, files, *two) for two in two_and_two]
    is_leaking, is_undecided = (any(o[key] for o in overlaps) for key in ("leaking", "undecided"))
    audit = {
        "verdict": "leaking" if is_leaking else "undecided" if is_undecided else "clean",
        "near_duplicates": {"method": METHOD, "threshold_bits": THRESHOLD_BITS},
        "parts": [_part_data(part, files[files["part"] == part.name]) for part in parts],
        "overlaps": overlaps,
    }
    return audit, pairs[list(PAIR_COLUMNS)]


def _pairs(files: pd.DataFrame, sketches: Greys, on_progress: OnProgress) -> pd.DataFrame:
    """Pair the files of each two parts, later and earlier: of equal bytes, near, then by name."""
    near = near_pairs(sketches, on_progress=on_progress)
    near.columns = pd.Index(["picture", "picture_other", "bits_apart", "mirrored"])
    hashed = files.loc[files["picture"] != NONE, ["picture", "part", "row"]]
    near = near.merge(hashed, on="picture").merge(hashed.add_suffix("_other"), on="picture_other")
    turned = {"part": "part_other", "row": "row_other", "part_other": "part", "row_other": "row"}
    both = (near, near.rename(columns=turned))
    near = pd.concat([it[it["part"] > it["part_other"]] for it in both])
    near = near.assign(found_by="near-duplicate").sort_values(["row", "row_other"])
    # Where numbers begin anew in each folder, as in cats/1.jpg and dogs/1.jpg, a stem says nothing.
    single = files[~files.duplicated(["part", "stem"], keep=False)]
    same_bytes = _across(files[files["content"] != NONE], "content", "bytes")
    named = [_across(files, "key", "name"), _across(single, "stem", "name")]
    pairs = pd.concat([same_bytes, near, *named])
    return pairs.drop_duplicates(["row", "row_other"], ignore_index=True)


def _across(files: pd.DataFrame, column: str, found_by: str) -> pd.DataFrame:
    """Pair the files of each two parts, later and earlier, that have the same in a column."""
    known = files[["part", "row", column]]
    pairs = known.merge(known, on=column, suffixes=("", "_other"))
    pairs = pairs[pairs["part"] > pairs["part_other"]].sort_values("row", kind="stable")
    return pairs.assign(found_by=found_by, bits_apart=0, mirrored=False)


def _described(pairs: pd.DataFrame, files: pd.DataFrame) -> pd.DataFrame:
    """Add what two files are to each other: PAIR_COLUMNS."""
    one, two = (files.loc[pairs[row]].set_axis(pairs.index) for row in ("row", "row_other"))
    is_same, is_alike = one["key"] == two["key"], one["stem"] == two["stem"]
    by_name, by_hash = pairs["found_by"] == "name", pairs["found_by"] == "near-duplicate"
    compared = (one["picture"] != NONE) & (two["picture"] != NONE)
    read = (one["content"] != NONE) & (two["content"] != NONE)
    # Undecided: only alike, or their bytes differ and one of them has no hash.
    finding = np.select(
        [by_name & compared, by_name & (~is_same | read)], ["other pictures", "undecided"], "leak"
    )
    return pairs.assign(
        other_part=pairs["part_other"],
        file=one["file"],
        other_file=two["file"],
        name=np.select([is_same, is_alike], ["same", "alike"], ""),
        finding=finding,
        bits_apart=pairs["bits_apart"].astype(object).where(by_hash, None),
    )


def _overlap(pairs: pd.DataFrame, files: pd.DataFrame, other: str, part: str) -> dict[str, Any]:
    """Count the files of a part that are in an earlier one; each counts once."""
    pairs = pairs[(pairs["part"] == part) & (pairs["other_part"] == other)]
    its, theirs = files[files["part"] == part], files[files["part"] == other]
    leaks, found = pairs[pairs["finding"] == "leak"], pairs[pairs["finding"] == "undecided"]
    n_leaking, undecided = leaks["row"].nunique(), set(found["row"]) - set(leaks["row"])
    n_alike = int((its["base"].isin(theirs["base"]) & ~its["key"].isin(theirs["key"])).sum())
    return {
        "part": part,
        "other_part": other,
        "files": len(its),
        "leaking": n_leaking,
        "leaking_fraction": n_leaking / len(its),
        "same_name": leaks.loc[leaks["name"] == "same", "row"].nunique(),
        "same_bytes": leaks.loc[leaks["found_by"] == "bytes", "row"].nunique(),
        "near_duplicates": leaks.loc[leaks["found_by"] == "near-duplicate", "row"].nunique(),
        "undecided": len(undecided),
        "same_base_name": n_alike,
        "examples": pairs.drop_duplicates(KIND)[list(PAIR_COLUMNS)].to_dict("records"),
    }


def _part_data(part: SplitPart, files: pd.DataFrame) -> dict[str, Any]:
    absent = files.loc[files["place"].isna(), "file"].tolist()
    unlike = files[files["reason"] != ""]
    about = part._asdict()
    del about["pictures"]
    return about | {
        "files": len(files),
        "compared_by_bytes": int((files["content"] != NONE).sum()),
        "without_a_picture": len(absent),
        "not_found": absent if len(absent) < len(files) else [],
        "not_comparable": unlike[["file", "reason"]].to_dict("records"),
    }
