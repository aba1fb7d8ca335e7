"""Find what the parts of any split share: by name, by bytes, and as near-duplicates.

A part is a CSV, a text list of names, or a folder or archive of pictures; labels play no role. A
split of films can have more near pairs than fit into memory: they are reported one after another,
and only the nearest of each file is kept.
"""

import contextlib
import csv
import hashlib
import io
import os
import posixpath
import re
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.data.archive import Source, Unreadable, open_source
from benchmark.data.duplicates import METHOD, THRESHOLD_BITS, near_blocks
from benchmark.data.labels import PICTURE_SUFFIXES, is_picture_name
from benchmark.data.pictures import MIN_SIDE_PX, SKETCH_SHAPE, read_picture
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
CSV_SUFFIXES: Final = (".csv", ".tsv")
MAX_LIST_BYTES: Final = 256 << 20
"""Some four million names; a larger file is something else, given by mistake."""
PICTURES_A_CORE: Final = 256
"""Pictures read ahead for each core."""
PAIRS_AT_ONCE: Final = 100_000
NONE: Final = -1
"""In place of a row or number that there is not."""

_SUFFIX: Final = re.compile(
    "(?:" + "|".join(re.escape(suffix) for suffix in sorted(PICTURE_SUFFIXES)) + r")(?=\.|$)"
)


@dataclass(frozen=True, eq=False)
class SplitPart:
    """One part: its names, and the pictures where it is a folder or an archive of them."""

    name: str
    """What it is called in what is reported; no two parts of a split alike."""
    path: Path
    form: str
    """What was read, in words: `CSV, column "file"`."""
    files: tuple[str, ...]
    """Each name once, as it is written, in that order; of pictures, the path in their folder."""
    repeated: tuple[str, ...] = ()
    """Names that are listed again."""
    n_nameless: int = 0
    """Rows of a CSV whose cell of the name is empty."""
    pictures: Source | None = None


def name_key(file: str) -> str:
    """Give what two spellings of one path have in common: `./a\\b.jpg` is `a/b.jpg`."""
    return unicodedata.normalize("NFC", posixpath.normpath(file.replace("\\", "/")))


def base_name(file: str) -> str:
    """Give the last part of a path, whichever slashes it is written with."""
    return name_key(file).rsplit("/", 1)[-1]


def stem_key(file: str) -> str:
    """Give a base name without case and without what follows: `A.jpg`, `a.jpg.chip.jpg` are `a`."""
    base = base_name(file).casefold()
    return _SUFFIX.split(base, maxsplit=1)[0] or base


def printable(file: str) -> str:
    """Give a name that any terminal and any file takes: odd characters as their escapes."""
    encoded = file.encode("utf-8", "backslashreplace").decode()
    return encoded if encoded.isprintable() else encoded.encode("unicode_escape").decode("ascii")


def read_parts(paths: Sequence[Path]) -> list[SplitPart]:
    """Read every part of a split, training first.

    Raises DataError for one that is missing, empty, binary, without names or without pictures.
    """
    if len(paths) < 2:
        raise DataError(
            f"{len(paths)} part of a split was given",
            allowed="two or more, training first",
            fix="Name the training part and then each part that is evaluated on",
        )
    bases = [os.path.basename(os.path.abspath(path)) for path in paths]
    stems = [re.sub(r"(?i)\.(csv|tsv|txt|lst|zip|tar|tgz|tar\.gz)$", "", base) for base in bases]
    parts: dict[str, SplitPart] = {}
    for path, stem in zip(paths, stems, strict=True):
        name, number = stem if stems.count(stem) == 1 else str(path), 2
        while printable(name) in parts:
            name, number = f"{path} ({number})", number + 1
        parts[printable(name)] = _read_part(path, printable(name))
    return list(parts.values())


def _read_part(path: Path, name: str) -> SplitPart:
    if not path.exists():
        raise DataError(f"{path} does not exist", allowed=ALLOWED)
    if not path.is_file() and not path.is_dir():  # opening a pipe would wait for ever
        raise DataError(f"{path} is neither a file nor a folder", allowed=ALLOWED)
    pictures = _source(path)
    if pictures is not None:
        form, written = f"{pictures.kind} of pictures", _picture_paths(pictures)
    else:
        form, written = _names_in(path)
    files: dict[str, str] = {}
    repeated: dict[str, None] = {}
    for file in filter(None, written):
        first = files.setdefault(name_key(file), file)
        if first is not file:
            repeated[first] = None
    if not files:
        raise DataError(f"{path} lists no names", allowed="one name or more", source=form)
    n_nameless = written.count("")
    return SplitPart(name, path, form, tuple(files.values()), tuple(repeated), n_nameless, pictures)


def _source(path: Path) -> Source | None:
    with contextlib.suppress(DataError):
        return open_source(path)
    return None


def _picture_paths(source: Source) -> list[str]:
    members = source.members()
    paths = sorted({member.path for member in members if is_picture_name(member.path)})
    if not paths:
        raise DataError(
            f"{source.path} holds no pictures ({len(members)} other files)",
            allowed=", ".join(sorted(PICTURE_SUFFIXES)),
        )
    return paths


def _names_in(path: Path) -> tuple[str, list[str]]:
    """Read a list: what it is in words, and its names, empty ones included.

    A delimiter is believed where it uncovers a column with a known heading, or a first column of
    picture names. Without one every line is a name, in a CSV only if most look like pictures.
    """
    text = _text_of(path)
    is_csv = path.suffix.lower() in CSV_SUFFIXES
    what = "CSV" if is_csv else "text list"
    tables = [rows for delimiter in ",;\t|" if (rows := _rows(text, delimiter))]
    for rows in sorted(tables, key=lambda rows: -len(rows[0])):
        heads = [re.sub(r"[\s_-]", "", cell).lower() for cell in rows[0]]
        known = [heads.index(heading) for heading in NAME_COLUMNS if heading in heads]
        if known:
            names = [row[known[0]].strip() if known[0] < len(row) else "" for row in rows[1:]]
            return f'{what}, column "{rows[0][known[0]].strip()}"', names
    if not is_csv:  # as Caffe's lists: a name, a space, a class
        tables.append(_rows(text, " "))
    firsts = [rows for rows in tables if rows and min(map(len, rows)) > 1 and _mostly(rows)]
    if firsts:
        return f"{what}, first column", _without_heading(max(firsts, key=lambda rows: len(rows[0])))
    lines = [[line] for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if is_csv and not _mostly(lines):
        raise DataError(
            f"{path} has no column of file names; its first line is {lines[0][0][:60]!r}",
            allowed=f"a column called {', '.join(NAME_COLUMNS[:5])}, or picture names in the first",
            fix="Name the column, or give a text list with one name a line",
        )
    return what, _without_heading(lines) if is_csv else [line[0].strip() for line in lines]


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_LIST_BYTES else None
        if content is None:
            problem = f"has {path.stat().st_size:,} bytes"
        elif content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            return content.decode("utf-16")
        elif b"\0" not in content[:4096]:
            return content.decode("utf-8-sig")
        else:
            problem = "is a binary file"
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", allowed=ALLOWED) from error
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    raise DataError(
        f"{path} {problem} and no list of names",
        allowed=ALLOWED,
        fix="Save the list as UTF-8 text, or name the folder that holds the pictures",
    )


def _rows(text: str, delimiter: str) -> list[list[str]]:
    try:
        read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return [row for row in read if any(cell.strip() for cell in row)]
    except csv.Error:  # quotes that do not close, a cell that never ends: not by this delimiter
        return []


def _mostly(rows: Sequence[list[str]]) -> bool:
    """Tell whether most rows begin with the name of a picture."""
    return 2 * sum(is_picture_name(row[0].strip()) for row in rows) >= len(rows)


def _without_heading(rows: Sequence[list[str]]) -> list[str]:
    names = [row[0].strip() for row in rows]
    return names[1:] if names and not is_picture_name(names[0]) else names


def _find_pictures(
    parts: Sequence[SplitPart], images: Path | None
) -> list[list[tuple[Source, str] | None]]:
    """Say where the picture of each file of each part is; None where there is none.

    Lists find theirs under `images`: by their path, else by their base name where only one picture
    there has it, or where most folders above agree; a name without a suffix by the name without it.
    Raises DataError where a list finds none at all.
    """
    source = None if images is None else _source(images)
    if images is not None and source is None:
        what = "is no folder and no archive" if images.exists() else "does not exist"
        allowed = "a folder, .zip, .tar or .tar.gz of pictures"
        raise DataError(f"--images {images} {what}", allowed=allowed)
    by_path: dict[str, str] = {}
    by_name: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for path in _picture_paths(source) if source is not None else ():
        by_path[name_key(path)] = path
        by_name["base", base_name(path)].append(path)
        by_name["stem", stem_key(path)].append(path)

    def path_of(file: str) -> str | None:
        path = by_path.get(name_key(file)) or _nearest(file, by_name["base", base_name(file)])
        if path is None and not is_picture_name(file):
            path = _nearest(file, by_name["stem", stem_key(file)])
        return path

    places: list[list[tuple[Source, str] | None]] = []
    for part in parts:
        if part.pictures is not None:
            places.append([(part.pictures, file) for file in part.files])
            continue
        found = [path_of(file) for file in part.files]
        if source is not None and not any(found):
            raise DataError(
                f"none of the {len(found):,} names of {part.name} is under {images}; the first "
                f"is {printable(part.files[0])}",
                source=str(part.path),
                fix="Give the folder that the names are relative to, or that holds them",
            )
        places.append([(source, path) if source and path else None for path in found])
    return places


def _nearest(file: str, candidates: Sequence[str]) -> str | None:
    """Choose the one that agrees with `file` in more folders above it than any other does."""
    if len(candidates) < 2:
        return next(iter(candidates), None)

    def above(path: str) -> str:
        return "".join(f"{folder}/" for folder in name_key(path).split("/")[-2::-1])

    shared = [os.path.commonprefix([above(file), above(path)]).count("/") for path in candidates]
    return candidates[int(np.argmax(shared))] if shared.count(max(shared)) == 1 else None


def _read_files(
    parts: Sequence[SplitPart], images: Path | None, on_progress: OnProgress
) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """Read every picture once, on all cores; a row for each file of each part.

    Columns: row, part (its number), file, key, stem, place (of its picture, or NONE), reason (why
    it is not compared as a picture), content (number of its bytes, or NONE), picture (number among
    pictures of different bytes that can be compared, or NONE). And the sketches, (n, 16, 17).
    """
    places = _find_pictures(parts, images)
    row_of = {place: row for row, place in enumerate(dict.fromkeys(filter(None, chain(*places))))}
    seen = pd.DataFrame(
        {"sha256": "", "reason": "it went away meanwhile"}, index=range(len(row_of))
    )
    seen.loc[NONE] = ("", "")
    sketches = np.zeros((len(row_of), *SKETCH_SHAPE), np.uint8)
    order: list[int] = []

    def contents() -> Iterator[bytes]:
        for source in dict.fromkeys(source for source, _ in row_of):
            for path, content in source.contents({path for its, path in row_of if its == source}):
                row = row_of[source, path]
                if isinstance(content, Unreadable):
                    seen.at[row, "reason"] = content.reason
                    continue
                if content:  # All empty files have the same bytes, which makes no picture of them.
                    seen.at[row, "sha256"] = hashlib.sha256(content).hexdigest()
                order.append(row)
                yield content

    results = in_parallel(_sketched, contents(), len(row_of), a_core=PICTURES_A_CORE)
    with contextlib.closing(results):
        for number, result in enumerate(results, start=1):
            row = order[number - 1]
            seen.at[row, "reason"] = result if isinstance(result, str) else ""
            if isinstance(result, bytes):
                sketches[row] = np.frombuffer(result, np.uint8).reshape(SKETCH_SHAPE)
                # Two with fewer unequal neighbours than the threshold are always about as near as
                # copies are. No face of UTKFace is so plain: an empty picture is.
                if (sketches[row, :, 1:] != sketches[row, :, :-1]).sum() < THRESHOLD_BITS:
                    seen.at[row, "reason"] = "it is too plain to be told from other plain pictures"
            if number % 32 == 0 or number == len(row_of):
                on_progress("reading pictures", number, len(row_of))
    rows = [
        (number, file, name_key(file), stem_key(file), row_of[place] if place else NONE)
        for number, (part, its) in enumerate(zip(parts, places, strict=True))
        for file, place in zip(part.files, its, strict=True)
    ]
    files = pd.DataFrame(rows, columns=["part", "file", "key", "stem", "place"])
    files = files.join(seen, on="place").reset_index(names="row")
    files["content"] = pd.factorize(files["sha256"].where(files["sha256"] != ""))[0]
    is_hashed = (files["content"] != NONE) & (files["reason"] == "")
    files["picture"] = pd.factorize(files["content"].where(is_hashed))[0]
    first_of = files[is_hashed].drop_duplicates("picture")
    return files, sketches[first_of["place"].to_numpy(np.int64)]


def _sketched(content: bytes) -> bytes | str:
    """Give the sketch of a picture, or why it has none."""
    try:
        return read_picture(content, MIN_SIDE_PX)[1].sketch
    except DataError as error:
        return f"{error.found} (allowed: {error.allowed})"


class FilePair(NamedTuple):
    """A file of one part and one of another that are, or by their names may be, one picture."""

    part: str
    file: str
    other_part: str
    other_file: str
    finding: str
    """`leak`; `undecided`: only their names are alike, not the same, or the pictures cannot be
    compared; `other pictures`: both were read and differ, only their names are alike."""
    found_by: str
    """`bytes`, `near-duplicate` or `name`: the strongest of what they have in common."""
    name: str
    """How their names are alike: `same`, `other folder`, `case`, `other extension`, or empty."""
    bits_apart: int | None
    """Of 256, for near-duplicates."""
    mirrored: bool


def audit_split(
    paths: Sequence[Path],
    images: Path | None = None,
    on_pair: Callable[[FilePair], object] | None = None,
    on_progress: OnProgress = keep_quiet,
) -> dict[str, Any]:
    """Compare each two parts of a split, training first; give verdict, parts and overlaps as data.

    images: a folder or archive with the pictures that lists name. Without it lists are compared by
    name alone. on_pair is called with every pair of files that two parts share, or may share: by
    bytes, as near-duplicates, by name. In an overlap each file of the later part counts once.
    Raises DataError for parts that cannot be read.
    """
    parts = read_parts(paths)
    files, sketches = _read_files(parts, images, on_progress)
    rows: list[Any] = list(files.itertuples(index=False))
    ranks = list(combinations(range(len(parts)), 2))
    # Where numbers begin anew in each folder, as in cats/1.jpg and dogs/1.jpg, a stem says nothing.
    single = files[~files.duplicated(["part", "stem"], keep=False)]
    named = pd.concat([_across(files, "key", ranks), _across(single, "stem", ranks)])
    named = named.drop_duplicates(["row", "part_other"]).assign(found_by="name")
    read = files[files["content"] != NONE]
    same_bytes = _across(read, "content", ranks).assign(found_by="bytes")

    def described(pairs: pd.DataFrame) -> Iterator[FilePair]:
        pair: Any
        for pair in pairs.itertuples():
            yield _described(pair, rows[pair.row], rows[pair.row_other], parts)

    def is_among(pairs: pd.DataFrame, others: pd.DataFrame) -> "pd.Series[bool]":
        code, codes = (of["row"] * len(files) + of["row_other"] for of in (pairs, others))
        return code.isin(codes)

    best = named.iloc[:0]
    for pairs in chain([same_bytes], _near_pairs(files, sketches, on_progress)):
        if on_pair is not None:
            for pair in described(pairs):
                on_pair(pair)
        # Of each file the nearest match is kept, or its namesake where that is one.
        best = pd.concat([best, pairs.assign(is_other=~is_among(pairs, named))])
        best = best.sort_values(
            ["is_other", "bits_apart", "mirrored", "picture_other", "row_other"]
        )
        best = best.drop_duplicates(["row", "part_other", "found_by"])
    named = named[~is_among(named, best)]
    if on_pair is not None:
        for pair in described(named):
            on_pair(pair)
    matches = pd.concat([best.sort_values("found_by"), named]).sort_values("row", kind="stable")
    overlaps = _overlaps(parts, list(zip(matches["row"], described(matches), strict=True)))
    is_leaking = any(overlap["leaking"] for overlap in overlaps)
    is_undecided = any(overlap["undecided"] for overlap in overlaps)
    return {
        "verdict": "leaking" if is_leaking else "undecided" if is_undecided else "clean",
        "near_duplicates": {"method": METHOD, "threshold_bits": THRESHOLD_BITS},
        "parts": [_part_data(n, part, files[files["part"] == n]) for n, part in enumerate(parts)],
        "overlaps": overlaps,
    }


def _across(files: pd.DataFrame, column: str, ranks: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """Pair the files of each two parts that have the same in a column; ranks: earlier, later."""
    known = dict(iter(files[["part", "row", column]].groupby("part")))
    nothing = files.loc[files["row"] < 0, ["part", "row", column]]
    pairs = [
        known.get(later, nothing).merge(
            known.get(earlier, nothing), on=column, suffixes=("", "_other")
        )
        for earlier, later in ranks
    ]
    return pd.concat(pairs).assign(bits_apart=0, mirrored=0, picture_other=0)


def _near_pairs(
    files: pd.DataFrame, sketches: NDArray[np.uint8], on_progress: OnProgress
) -> Iterator[pd.DataFrame]:
    """Yield the pairs of files of two parts that are near, some PAIRS_AT_ONCE at a time."""
    hashed = files.loc[files["picture"] != NONE, ["picture", "part", "row"]]
    waiting: list[NDArray[np.int64]] = []
    for block in chain(near_blocks(sketches, on_progress=on_progress), [None]):
        waiting += [] if block is None else [block]
        if sum(map(len, waiting)) < (1 if block is None else PAIRS_AT_ONCE):
            continue
        both = np.concatenate([*waiting, *(found[:, [1, 0, 2, 3]] for found in waiting)])
        pairs = pd.DataFrame(both, columns=["picture", "picture_other", "bits_apart", "mirrored"])
        pairs = pairs.merge(hashed, on="picture")
        pairs = pairs.merge(hashed.add_suffix("_other"), on="picture_other")
        yield pairs[pairs["part"] > pairs["part_other"]].assign(found_by="near-duplicate")
        waiting = []


def _described(pair: Any, file: Any, other: Any, parts: Sequence[SplitPart]) -> FilePair:
    """Say what two files are to each other; pair: found_by, bits_apart, mirrored."""
    bases = base_name(file.file), base_name(other.file)
    if file.key == other.key:
        name = "same"
    elif file.stem != other.stem:
        name = ""
    elif bases[0] == bases[1] and file.key.casefold() != other.key.casefold():
        name = "other folder"
    else:
        name = "case" if bases[0].casefold() == bases[1].casefold() else "other extension"
    finding = "leak"
    if pair.found_by == "name" and NONE not in (file.picture, other.picture):
        finding = "other pictures"
    elif pair.found_by == "name" and (name != "same" or NONE not in (file.content, other.content)):
        finding = "undecided"  # Only alike, or their bytes differ and one of them has no hash.
    return FilePair(
        parts[file.part].name,
        printable(file.file),
        parts[other.part].name,
        printable(other.file),
        finding,
        pair.found_by,
        name,
        int(pair.bits_apart) if pair.found_by == "near-duplicate" else None,
        bool(pair.mirrored),
    )


def _overlaps(
    parts: Sequence[SplitPart], matches: Sequence[tuple[int, FilePair]]
) -> list[dict[str, Any]]:
    """Count for each two parts the files of the later one that are in the earlier one."""
    overlaps = []
    for other, part in combinations(parts, 2):
        its = [(row, m) for row, m in matches if (m.part, m.other_part) == (part.name, other.name)]
        leaks = [(row, match) for row, match in its if match.finding == "leak"]
        leaking = {row for row, _ in leaks}
        undecided = {row for row, match in its if match.finding == "undecided"} - leaking
        kinds = {(m.finding, m.found_by, m.name, m.mirrored): m for _, m in reversed(its)}
        overlaps.append(
            {
                "part": part.name,
                "other_part": other.name,
                "files": len(part.files),
                "leaking": len(leaking),
                "leaking_fraction": len(leaking) / len(part.files),
                "same_name": len({row for row, match in leaks if match.name == "same"}),
                "same_bytes": len({row for row, match in leaks if match.found_by == "bytes"}),
                "near_duplicates": len(
                    {row for row, match in leaks if match.found_by == "near-duplicate"}
                ),
                "undecided": len(undecided),
                "alike_in_name_only": len({row for row, _ in its} - leaking - undecided),
                "examples": [match._asdict() for match in reversed(kinds.values())],
            }
        )
    return overlaps


def _part_data(number: int, part: SplitPart, files: pd.DataFrame) -> dict[str, Any]:
    absent = files.loc[files["place"] == NONE, "file"]
    return {
        "name": part.name,
        "path": str(part.path),
        "given_as": part.form,
        "is_training": number == 0,
        "files": len(part.files),
        "compared_by_bytes": int((files["content"] != NONE).sum()),
        "compared_as_near_duplicates": int((files["picture"] != NONE).sum()),
        "repeated_names": [printable(file) for file in part.repeated],
        "rows_without_a_name": part.n_nameless,
        "without_a_picture": len(absent),
        "not_found": [printable(file) for file in absent] if len(absent) < len(files) else [],
        "not_comparable": [
            {"file": printable(file), "reason": reason}
            for file, reason in zip(files["file"], files["reason"], strict=True)
            if reason
        ],
    }


def highest_accuracy(honest: float, seen_fraction: float) -> float:
    """Give the accuracy of a network that is right on every face that it has seen in training.

    honest: its accuracy on faces it has not seen, (0, 1). Those that it has seen are taken to be
    as hard as the others. Where it remembers nothing the accuracy is `honest` itself.
    """
    if not 0 < honest < 1:
        raise DataError(
            f"an honest accuracy of {honest:g}", allowed="above 0 and below 1, as 0.7 for 70 %"
        )
    return honest + seen_fraction * (1 - honest)
