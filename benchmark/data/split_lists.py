"""The parts of any split as lists of names, and where the pictures behind the names are.

A part is a CSV, a text list, or a folder or archive of pictures. What two parts share is for
benchmark.data.split_audit.
"""

import contextlib
import csv
import io
import os
import posixpath
import re
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmark.data.archive import Source, open_source
from benchmark.data.labels import PICTURE_SUFFIXES, is_picture_name
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
    n_others: int = 0
    """Files of a folder or archive that are no pictures by their names."""


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
    endings = re.compile(r"(?i)\.(csv|tsv|txt|lst|zip|tar|tgz|tar\.gz)$")
    stems = [endings.sub("", os.path.basename(os.path.abspath(path))) for path in paths]
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
    pictures = source_at(path)
    if pictures is not None:
        form, (written, n_others) = f"{pictures.kind} of pictures", _picture_paths(pictures)
    else:
        n_others = 0
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
    names, again = tuple(files.values()), tuple(repeated)
    return SplitPart(name, path, form, names, again, n_nameless, pictures, n_others)


def source_at(path: Path) -> Source | None:
    with contextlib.suppress(DataError):
        return open_source(path)
    return None


def _picture_paths(source: Source) -> tuple[list[str], int]:
    """List the pictures of a source, and count its other files."""
    members = source.members()
    paths = sorted({member.path for member in members if is_picture_name(member.path)})
    if not paths:
        raise DataError(
            f"{source.path} holds no pictures ({len(members)} other files)",
            allowed=", ".join(sorted(PICTURE_SUFFIXES)),
        )
    n_others = sum(not is_picture_name(member.path) for member in members)
    return paths, n_others


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
        with path.open("rb") as stream:
            head = stream.read(4096)
            is_wide = head.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
            problem = "is a binary file" if b"\0" in head and not is_wide else "is not UTF-8 text"
            if problem != "is a binary file":
                return (head + stream.read()).decode("utf-16" if is_wide else "utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", allowed=ALLOWED) from error
    except UnicodeDecodeError:
        pass
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


def find_pictures(
    parts: Sequence[SplitPart], images: Path | None
) -> list[list[tuple[Source, str] | None]]:
    """Say where the picture of each file of each part is; None where there is none.

    Lists find theirs under `images`: by their path, else by their base name where only one picture
    there has it, or where most folders above agree; a name without a suffix by the name without it.
    Raises DataError where a list finds none at all.
    """
    source = None if images is None else source_at(images)
    if images is not None and source is None:
        what = "is no folder and no archive" if images.exists() else "does not exist"
        allowed = "a folder, .zip, .tar or .tar.gz of pictures"
        raise DataError(f"--images {images} {what}", allowed=allowed)
    by_path: dict[str, str] = {}
    by_name: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for path in _picture_paths(source)[0] if source is not None else ():
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
    return candidates[shared.index(max(shared))] if shared.count(max(shared)) == 1 else None
