"""What the parts of anyone's split share: by name, by bytes, and as near-duplicates.

And what that does to an accuracy. How parts are given is for split_lists, their pictures are for
split_pictures; nothing here knows labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from benchmark.errors import DataError
from benchmark.faces.progress import OnProgress, keep_quiet
from benchmark.faces.split_lists import SplitPart, read_parts
from benchmark.faces.split_matches import (
    NO_PICTURE,
    ComparedFile,
    ComparedPart,
    Finding,
    FoundBy,
    Likeness,
    Match,
    compared_part,
    match_by_bytes,
    match_by_hash,
    match_by_name,
)
from benchmark.faces.split_near import Near, NearPictures
from benchmark.faces.split_pictures import (
    NOT_THERE,
    SplitPictures,
    find_pictures,
    read_pictures,
)

Verdict = Literal["clean", "leaking", "undecided"]


@dataclass
class PartOverlap:
    """How many files of one part have a match in another; a file counts once in each number."""

    numbers: tuple[int, int]
    """Of the two parts as they were given, from 0; the first is the later one."""
    part: str
    other_part: str
    n_files: int
    """Of `part`."""
    n_leaking: int = 0
    """Files that are in the other part by name, bytes or near-duplicate."""
    n_same_name: int = 0
    n_same_bytes: int = 0
    n_near_duplicates: int = 0
    """With a picture in the other part that is near and whose bytes differ."""
    n_undecided: int = 0
    """Files that do not leak for certain, but may."""
    n_other_pictures: int = 0
    """Files whose names are alike others' while the pictures are not: harmless."""
    examples: dict[tuple[Finding, FoundBy, Likeness, bool], Match] = field(default_factory=dict)
    """The first match of each kind, to be shown."""

    @property
    def is_training(self) -> bool:
        """Whether the other part is the training part."""
        return self.numbers[1] == 0

    @property
    def leaking_fraction(self) -> float:
        """Share of the part that is in the other one, in [0, 1]."""
        return self.n_leaking / self.n_files

    def count(self, matches: Sequence[Match]) -> None:
        """Add one file with its nearest match of each kind."""
        leaks = [match for match in matches if match.finding == "leak"]
        findings = {match.finding for match in matches}
        self.n_leaking += bool(leaks)
        self.n_same_name += any(match.name == "same" for match in leaks)
        self.n_same_bytes += any(match.found_by == "bytes" for match in leaks)
        self.n_near_duplicates += any(match.found_by == "near-duplicate" for match in leaks)
        self.n_undecided += not leaks and "undecided" in findings
        self.n_other_pictures += findings == {"other pictures"}
        for match in matches:
            kind = (match.finding, match.found_by, match.name, match.is_mirrored)
            self.examples.setdefault(kind, match)


@dataclass(frozen=True, eq=False)
class SplitAudit:
    """All that was found; made by `audit_split`."""

    parts: list[SplitPart]
    """Training first."""
    pictures: SplitPictures
    overlaps: list[PartOverlap]
    """Of each two parts, those with training first."""
    _compared: list[ComparedPart]
    _near: NearPictures

    @property
    def verdict(self) -> Verdict:
        """`undecided` where nothing leaks for certain, but names are alike."""
        if any(overlap.n_leaking for overlap in self.overlaps):
            return "leaking"
        is_undecided = any(overlap.n_undecided for overlap in self.overlaps)
        return "undecided" if is_undecided else "clean"

    def n_compared(self, part: int) -> tuple[int, int]:
        """Count the files of a part that were compared by bytes, and by near-duplicate."""
        files = self._compared[part].files
        by_bytes = sum(file.content != NO_PICTURE for file in files)
        return by_bytes, sum(file.picture != NO_PICTURE for file in files)

    def not_at_hand(self, part: int) -> list[str]:
        """List the files of a part whose pictures were not found, or not looked for."""
        rows = zip(self.parts[part].files, self.pictures.rows[part], strict=True)
        return [file for file, row in rows if row == NOT_THERE]

    def unusable(self, part: int) -> list[tuple[str, str]]:
        """List the files of a part whose pictures are not compared as pictures, and why."""
        rows = zip(self.parts[part].files, self.pictures.rows[part], strict=True)
        reasons = self.pictures.unusable
        return [(file, reasons[row]) for file, row in rows if row in reasons]

    def pairs(self, on_progress: OnProgress = keep_quiet) -> Iterator[tuple[PartOverlap, Match]]:
        """Yield every pair of files that two parts share, or may share; near-duplicates last."""
        for overlap in self.overlaps:
            part, other = (self._compared[number] for number in overlap.numbers)
            for file in part.files:
                for twin in other.by_content.get(file.content, ()):
                    yield overlap, match_by_bytes(file, twin)
                named = other.namesake(file, part)
                if named is None or _same_bytes(file, named):
                    continue
                if _compare(file, named, self._near) is None:
                    yield overlap, match_by_name(file, named)
        for picture, near in self._near.pairs(on_progress):
            yield from self._pairs_of(picture, near)
            yield from self._pairs_of(near.picture, replace(near, picture=picture))

    def _pairs_of(self, picture: int, near: Near) -> Iterator[tuple[PartOverlap, Match]]:
        """Yield the files with a picture and those of other parts with the one near it."""
        for overlap in self.overlaps:
            part, other = (self._compared[number] for number in overlap.numbers)
            for file in part.by_picture.get(picture, ()):
                for twin in other.by_picture.get(near.picture, ()):
                    yield overlap, match_by_hash(file, twin, near)


def audit_split(
    paths: Sequence[Path], images: Path | None = None, on_progress: OnProgress = keep_quiet
) -> SplitAudit:
    """Compare each two parts of a split, training first.

    images: a folder or archive with the pictures that lists name. Without it lists are compared by
    name alone. Raises DataError for parts that cannot be read.
    """
    parts = read_parts(paths)
    pictures = read_pictures(find_pictures(parts, images), on_progress)
    compared, near = _compared(parts, pictures, on_progress)
    overlaps = []
    for first, second in combinations(range(len(parts)), 2):
        n_files = len(parts[second].files)
        overlap = PartOverlap((second, first), parts[second].name, parts[first].name, n_files)
        for file in compared[second].files:
            overlap.count(_matches(file, compared[second], compared[first], near, first))
        overlaps.append(overlap)
    return SplitAudit(parts, pictures, overlaps, compared, near)


def _compared(
    parts: Sequence[SplitPart], pictures: SplitPictures, on_progress: OnProgress
) -> tuple[list[ComparedPart], NearPictures]:
    """Number what was read, equal bytes alike, and compare the pictures that have a hash."""
    contents: dict[str, int] = {}
    content_of = {NOT_THERE: NO_PICTURE}
    hashed: dict[int, int] = {}
    rows_hashed = []
    for row, digest in enumerate(pictures.sha256):
        content = contents.setdefault(digest, len(contents)) if digest else NO_PICTURE
        content_of[row] = content
        if digest and row not in pictures.unusable and content not in hashed:
            hashed[content] = len(hashed)
            rows_hashed.append(row)
    compared = []
    members = np.zeros((len(hashed), len(parts)), np.bool_)
    for number, (part, rows) in enumerate(zip(parts, pictures.rows, strict=True)):
        its_contents = [content_of[row] for row in rows]
        its_pictures = [hashed.get(content, NO_PICTURE) for content in its_contents]
        compared.append(compared_part(part, its_contents, its_pictures))
        members[list(compared[-1].by_picture), number] = True
    sketches = pictures.sketches[np.array(rows_hashed, np.int64)]
    return compared, NearPictures(sketches, members, on_progress)


def _matches(
    file: ComparedFile,
    part: ComparedPart,
    other: ComparedPart,
    near: NearPictures,
    other_number: int,
) -> list[Match]:
    """Give one match of each kind that a file has in another part.

    With its namesake where that is one; else with the first of the same bytes, or the nearest.
    """
    matches = []
    named = other.namesake(file, part)
    if twins := other.by_content.get(file.content):
        same = named if named is not None and named.content == file.content else twins[0]
        matches.append(match_by_bytes(file, same))
    near_named = _compare(file, named, near)
    if named is not None and near_named is not None:
        matches.append(match_by_hash(file, named, near_named))
    elif file.picture != NO_PICTURE:
        nearest = near.nearest(file.picture, other_number)
        if nearest is not None:
            twin = other.by_picture[nearest.picture][0]
            matches.append(match_by_hash(file, twin, nearest))
    if named is not None and near_named is None and not _same_bytes(file, named):
        matches.append(match_by_name(file, named))
    return matches


def _same_bytes(file: ComparedFile, other: ComparedFile) -> bool:
    return file.content == other.content != NO_PICTURE


def _compare(file: ComparedFile, other: ComparedFile | None, near: NearPictures) -> Near | None:
    """Tell how near two files of different bytes are; None if they are not, or have no hash."""
    if other is None or NO_PICTURE in (file.picture, other.picture) or _same_bytes(file, other):
        return None
    return near.compare(file.picture, other.picture)


def highest_accuracy(honest: float, seen_fraction: float) -> float:
    """Give the accuracy where a network answers every face that it has seen in training.

    honest: its accuracy on faces it has not seen, (0, 1). Those that it has seen are taken to be
    as hard as the others. Where it remembers nothing the accuracy is `honest` itself.
    """
    if not 0 < honest < 1:
        raise DataError(
            f"an honest accuracy of {honest:g}", allowed="above 0 and below 1, as 0.7 for 70 %"
        )
    return honest + seen_fraction * (1 - honest)
