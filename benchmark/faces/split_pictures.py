"""The pictures behind the names of a split: found, read once each, digested and sketched.

What they have in common is for benchmark.faces.split_audit.
"""

import contextlib
import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import DataError
from benchmark.faces.archive import Source, Unreadable
from benchmark.faces.hashing import THRESHOLD_BITS
from benchmark.faces.labels import is_picture_name
from benchmark.faces.packing import batched, decoded
from benchmark.faces.pictures import SKETCH_SHAPE, Picture
from benchmark.faces.pixels import PixelWriter
from benchmark.faces.progress import OnProgress
from benchmark.faces.split_lists import (
    SplitPart,
    base_name,
    name_key,
    picture_paths,
    printable,
    source_of,
    stem_key,
)

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
