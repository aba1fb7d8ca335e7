"""The parts of anyone's split: lists of names, and the pictures behind them.

The pictures behind the names of a split: found, read once each, digested and sketched.

What they have in common is for benchmark.data.split_audit.

One part of anyone's split as a list of names: from a CSV, a text list, or pictures themselves.

Which pictures the names stand for, and what two parts share, is for other files.
"""

import contextlib
import csv
import hashlib
import io
import os
import posixpath
import re
import tempfile
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmark.data.archive import Source, Unreadable, open_source
from benchmark.data.duplicates import THRESHOLD_BITS
from benchmark.data.labels import PICTURE_SUFFIXES, is_picture_name
from benchmark.data.packing import batched, decoded
from benchmark.data.pictures import SKETCH_SHAPE, Picture
from benchmark.data.progress import OnProgress
from benchmark.data.table import PixelWriter
from benchmark.errors import DataError

ALLOWED: Final = (
    "a CSV, a text list with one name a line, or a folder (.zip, .tar, .tar.gz) of pictures"
)
NAME_COLUMNS: Final = (
    *("file", "filename", "image", "path", "name"),
    *("filepath", "imagefile", "imagename", "imagepath", "img", "imgpath"),
)
"""Headings of a column of names, the likelier first; spaces, `_` and `-` in them do not count."""
DELIMITERS: Final = (",", ";", "\t", "|")
CSV_SUFFIXES: Final = (".csv", ".tsv")
MAX_LIST_BYTES: Final = 256 << 20
"""Some four million names; a larger file is something else, given by mistake."""
HEAD_BYTES: Final = 4096

Cells = list[str]


@dataclass(frozen=True, eq=False)
class SplitPart:
    """One part: its names, and the pictures where it is a folder or an archive of them."""

    name: str
    """What it is called in what is reported; no two parts of a split alike."""
    path: Path
    form: str
    """What was read, in words: `CSV, column "file"`."""
    files: tuple[str, ...]
    """Each name once, as it was written, in that order; of pictures, the path in their folder."""
    repeated: tuple[str, ...] = ()
    """Names that were met again."""
    n_nameless: int = 0
    """Rows of a CSV whose cell of the name was empty."""
    pictures: Source | None = None


def name_key(file: str) -> str:
    """Give what two spellings of one path have in common: `./a\\b.jpg` is `a/b.jpg`."""
    return unicodedata.normalize("NFC", posixpath.normpath(file.replace("\\", "/")))


def base_name(file: str) -> str:
    """Give the last part of a path, whichever slashes it is written with."""
    return name_key(file).rsplit("/", 1)[-1]


def stem_key(file: str) -> str:
    """Give what is left of a base name without case and whatever follows a picture's suffix.

    `A.jpg`, `a.png` and `a.jpg.chip.jpg` are all `a`.
    """
    base = base_name(file).casefold()
    return _SUFFIX.split(base, maxsplit=1)[0] or base


_SUFFIX: Final = re.compile(
    "(?:" + "|".join(re.escape(suffix) for suffix in sorted(PICTURE_SUFFIXES)) + r")(?=\.|$)"
)


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
    return [_read_part(path, name) for path, name in zip(paths, _part_names(paths), strict=True)]


def _part_names(paths: Sequence[Path]) -> Iterator[str]:
    """Call each part by its file's stem, by its path where stems are alike, and by number then."""
    bases = [os.path.basename(os.path.abspath(path)) for path in paths]
    stems = [re.sub(r"(?i)\.(csv|tsv|txt|lst|zip|tar|tgz|tar\.gz)$", "", base) for base in bases]
    taken: set[str] = set()
    for path, stem in zip(paths, stems, strict=True):
        wanted = stem if stems.count(stem) == 1 else str(path)
        numbered = [wanted, *(f"{wanted} ({number})" for number in range(2, len(paths) + 1))]
        name = next(name for name in numbered if name not in taken)
        taken.add(name)
        yield printable(name)


def _read_part(path: Path, name: str) -> SplitPart:
    if not path.exists():
        raise DataError(f"{path} does not exist", allowed=ALLOWED)
    if not path.is_file() and not path.is_dir():  # opening a pipe would wait for ever
        raise DataError(f"{path} is neither a file nor a folder", allowed=ALLOWED)
    pictures = source_of(path)
    n_nameless = 0
    if pictures is not None:
        form, written = f"{pictures.kind} of pictures", picture_paths(pictures)
    else:
        form, listed = _names_in(path)
        written = [file for file in listed if file]
        n_nameless = len(listed) - len(written)
    if not written:
        raise DataError(f"{path} lists no names", allowed="one name or more", source=form)
    files: dict[str, str] = {}
    repeated: dict[str, None] = {}
    for file in written:
        key = name_key(file)
        if key in files:
            repeated[files[key]] = None
        else:
            files[key] = file
    return SplitPart(name, path, form, tuple(files.values()), tuple(repeated), n_nameless, pictures)


def source_of(path: Path) -> Source | None:
    """Open a folder or an archive; None for whatever else may be there."""
    with contextlib.suppress(DataError):
        return open_source(path)
    return None


def picture_paths(source: Source) -> list[str]:
    """List the pictures in a folder or archive, by path; raise DataError if there are none."""
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
    tables = [rows for delimiter in DELIMITERS if (rows := _rows(text, delimiter))]
    headed = [(len(rows[0]), column, rows) for rows in tables for column in _headings(rows[0])[:1]]
    if headed:
        _, column, rows = max(headed, key=lambda found: found[0])
        names = [row[column].strip() if column < len(row) else "" for row in rows[1:]]
        return f'{what}, column "{rows[0][column].strip()}"', names
    if not is_csv and (spaced := _rows(text, " ")):  # as Caffe's lists: a name, a space, a class
        tables.append(spaced)
    firsts = [rows for rows in tables if min(map(len, rows)) > 1 and _mostly_pictures(rows)]
    if firsts:
        return f"{what}, first column", _without_heading(max(firsts, key=lambda rows: len(rows[0])))
    lines = [[line] for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if is_csv and not _mostly_pictures(lines):
        raise DataError(
            f"{path} has no column of file names; its first line is {lines[0][0][:60]!r}",
            allowed=f"a column called {', '.join(NAME_COLUMNS[:5])}, or picture names in the first",
            fix="Name the column, or give a text list with one name a line",
        )
    return what, _without_heading(lines) if is_csv else [line[0].strip() for line in lines]


def _text_of(path: Path) -> str:
    try:
        n_bytes = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            is_wide = head.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
            if b"\0" in head and not is_wide:
                raise _not_a_list(path, "is a binary file")
            if n_bytes > MAX_LIST_BYTES:
                raise _not_a_list(path, f"has {n_bytes:,} bytes")
            content = head + stream.read()
        return content.decode("utf-16" if is_wide else "utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", allowed=ALLOWED) from error
    except UnicodeDecodeError as error:
        raise _not_a_list(path, "is not UTF-8 text") from error


def _not_a_list(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} {what} and no list of names",
        allowed=ALLOWED,
        fix="Save the list as UTF-8 text, or name the folder that holds the pictures",
    )


def _rows(text: str, delimiter: str) -> list[Cells]:
    try:
        read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return [row for row in read if any(cell.strip() for cell in row)]
    except csv.Error:  # quotes that do not close, a cell that never ends: not by this delimiter
        return []


def _headings(cells: Cells) -> list[int]:
    """Give the columns with a known heading, the likeliest first."""
    tidy = [re.sub(r"[\s_-]", "", cell).lower() for cell in cells]
    return [tidy.index(heading) for heading in NAME_COLUMNS if heading in tidy]


def _mostly_pictures(rows: Sequence[Cells]) -> bool:
    return 2 * sum(is_picture_name(row[0].strip()) for row in rows) >= len(rows)


def _without_heading(rows: Sequence[Cells]) -> list[str]:
    names = [row[0].strip() for row in rows]
    return names[1:] if names and not is_picture_name(names[0]) else names


def printable(file: str) -> str:
    """Give a name that any terminal and any file takes: odd characters as their escapes."""
    encoded = file.encode("utf-8", "backslashreplace").decode()
    return encoded if encoded.isprintable() else encoded.encode("unicode_escape").decode("ascii")


NOT_THERE: Final = -1
SCRATCH_PX: Final = 16
"""Side of the pixels that decoding writes to a scratch file, where only the sketch is wanted."""

Place = tuple[Source, str]
"""A folder or archive, and the path of a picture in it."""


@dataclass(frozen=True, eq=False)
class SplitPictures:
    """The pictures of all parts; one that several names stand for is there once."""

    rows: list[list[int]]
    """For each part, the row of each of its files, or NOT_THERE."""
    sha256: list[str]
    """Of the file's bytes; "" where it is empty or cannot be read."""
    sketches: NDArray[np.uint8]
    """(n, 16, 17) grey levels; all the same where there is none."""
    unusable: dict[int, str]
    """Why a row is not, or not wholly, compared."""


def find_pictures(parts: Sequence[SplitPart], images: Path | None) -> list[list[Place | None]]:
    """Say where the picture of each file of each part is; None where it is not at hand.

    Lists find theirs under `images`: by their path, else by their base name where only one picture
    there has it, or where most folders above agree; a name without a suffix by the name without it.
    Raises DataError where a list finds none at all.
    """
    searched = _Searched(images) if images is not None else None
    places: list[list[Place | None]] = []
    for part in parts:
        if part.pictures is not None:
            places.append([(part.pictures, file) for file in part.files])
        elif searched is None:
            places.append([None] * len(part.files))
        else:
            found = [searched.place_of(file) for file in part.files]
            if not any(found):
                raise DataError(
                    f"none of the {len(found):,} names of {part.name} is under {images}; the first "
                    f"is {printable(part.files[0])}",
                    source=str(part.path),
                    fix="Give the folder that the names are relative to, or that holds them",
                )
            places.append(found)
    return places


class _Searched:
    """A folder or archive of pictures in which listed names are looked up."""

    def __init__(self, images: Path) -> None:
        source = source_of(images)
        if source is None:
            allowed = "a folder, .zip, .tar or .tar.gz of pictures"
            what = "is no folder and no archive" if images.exists() else "does not exist"
            raise DataError(f"--images {images} {what}", allowed=allowed)
        self._source = source
        self._by_path: dict[str, str] = {}
        self._by_base: defaultdict[str, list[str]] = defaultdict(list)
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for path in picture_paths(source):
            self._by_path[name_key(path)] = path
            self._by_base[base_name(path)].append(path)
            self._by_stem[stem_key(path)].append(path)

    def place_of(self, file: str) -> Place | None:
        path = self._by_path.get(name_key(file))
        if path is None:
            path = _nearest(file, self._by_base.get(base_name(file), []))
        if path is None and not is_picture_name(file):
            path = _nearest(file, self._by_stem.get(stem_key(file), []))
        return None if path is None else (self._source, path)


def _nearest(file: str, candidates: Sequence[str]) -> str | None:
    """Choose the one that agrees with `file` in more folders above it than any other does."""
    if len(candidates) < 2:
        return next(iter(candidates), None)
    agreeing = [_folders_alike(file, candidate) for candidate in candidates]
    most = max(agreeing)
    return candidates[agreeing.index(most)] if agreeing.count(most) == 1 else None


def _folders_alike(file: str, other: str) -> int:
    above, above_other = name_key(file).split("/")[-2::-1], name_key(other).split("/")[-2::-1]
    pairs = zip(above, above_other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(above), len(above_other)))


def read_pictures(
    places: Sequence[Sequence[Place | None]], on_progress: OnProgress
) -> SplitPictures:
    """Read every picture once, on all cores, with a few batches in memory at a time."""
    row_of: dict[Place, int] = {}
    rows = [
        [NOT_THERE if place is None else row_of.setdefault(place, len(row_of)) for place in part]
        for part in places
    ]
    pictures = SplitPictures(
        rows, [""] * len(row_of), np.zeros((len(row_of), *SKETCH_SHAPE), np.uint8), {}
    )
    answered: set[int] = set()
    contents = _contents(row_of, pictures)
    with contextlib.closing(_decoded(contents, len(row_of))) as results:
        for row, result in results:
            if isinstance(result, Picture):
                sketch = np.frombuffer(result.sketch, np.uint8)
                pictures.sketches[row] = sketch.reshape(SKETCH_SHAPE)
            else:
                pictures.unusable[row] = result
            answered.add(row)
            if len(answered) % 32 == 0 or len(answered) == len(row_of):
                on_progress("reading pictures", len(answered), len(row_of))
    for row in set(row_of.values()) - answered - pictures.unusable.keys():
        pictures.unusable[row] = "it went away while the others were read"
    is_plain = _plain(pictures.sketches)
    for row in answered - pictures.unusable.keys():
        if is_plain[row]:
            pictures.unusable[row] = "it is too plain to be told from other plain pictures"
    return pictures


def _contents(row_of: dict[Place, int], pictures: SplitPictures) -> Iterator[tuple[int, bytes]]:
    """Read the files, source after source; note their digests, and why some cannot be read."""
    by_source: defaultdict[Source, dict[str, int]] = defaultdict(dict)
    for (source, path), row in row_of.items():
        by_source[source][path] = row
    for source, rows in by_source.items():
        for path, content in source.contents(set(rows)):
            row = rows[path]
            if isinstance(content, Unreadable):
                pictures.unusable[row] = content.reason
                continue
            if content:  # All empty files have the same bytes, which makes no picture of them.
                pictures.sha256[row] = hashlib.sha256(content).hexdigest()
            yield row, content


def _decoded(
    contents: Iterable[tuple[int, bytes]], n_pictures: int
) -> Generator[tuple[int, Picture | str]]:
    with (
        tempfile.TemporaryDirectory(prefix="facebench-") as scratch,
        contextlib.ExitStack() as last,
    ):
        try:
            writer = PixelWriter(Path(scratch) / "scratch.npy", n_pictures, SCRATCH_PX)
        except OSError as error:
            raise DataError(
                f"a scratch file cannot be written: {error.strerror}",
                source=scratch,
                fix="Make room there, or name another folder in $TMPDIR",
            ) from error
        last.callback(writer.close)
        answers = last.enter_context(
            contextlib.closing(decoded(batched(contents), n_pictures, writer))
        )
        for results in answers:
            yield from results


def _plain(sketches: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find sketches (n, 16, 17) so flat that their hashes say nothing, (n,).

    Two with fewer unequal neighbours than the threshold are always about as near as copies are. No
    face of UTKFace is so plain: an empty picture is.
    """
    n_unequal = (sketches[:, :, 1:] != sketches[:, :, :-1]).sum(axis=(1, 2))
    is_plain: NDArray[np.bool_] = n_unequal < THRESHOLD_BITS
    return is_plain
