"""Compare the parts of anyone's split by name, bytes and near-duplicates.

What the parts of anyone's split share: by name, by bytes, and as near-duplicates.

And what that does to an accuracy. How parts are given is for split_lists, their pictures are for
split_pictures; nothing here knows labels.

Near-duplicates among the pictures of a split: the nearest in each part, and all pairs in turn.

A split of films can have more pairs than fit into memory; only the nearest are kept.

Two files of two parts that are one picture, or may be; and the files of a part, to look up.

How near two pictures are is for split_near; what is counted and shown, for split_audit.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from benchmark.data.duplicates import THRESHOLD_BITS, difference_hashes, near_blocks
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.data.split_lists import (
    NOT_THERE,
    SplitPart,
    SplitPictures,
    base_name,
    find_pictures,
    name_key,
    read_parts,
    read_pictures,
    stem_key,
)
from benchmark.errors import DataError


@dataclass(frozen=True, slots=True)
class Near:
    """A picture that is near another one."""

    picture: int
    bits_apart: int
    """Of 256."""
    is_mirrored: bool


class NearPictures:
    """Pictures of different bytes, numbered from 0, compared with each other once."""

    def __init__(
        self,
        sketches: NDArray[np.uint8],
        members: NDArray[np.bool_],
        on_progress: OnProgress,
    ) -> None:
        """sketches: (n, 16, 17). members: (n, parts), whether a part has the picture."""
        self._sketches = sketches
        self._upright = difference_hashes(sketches)
        self._mirrored = difference_hashes(sketches[:, :, ::-1])
        self._no_code = (2 * THRESHOLD_BITS + 2) * len(sketches)
        # The nearest in each part, as one number that is the smaller the nearer it is.
        self._nearest = np.full(members.shape, self._no_code, np.int64)
        for block in near_blocks(sketches, on_progress=on_progress):
            first, second, bits, mirrored = block.T
            for one, other in ((first, second), (second, first)):
                code = (2 * bits + mirrored) * len(sketches) + other
                for part in range(members.shape[1]):
                    is_in_part = members[other, part]
                    np.minimum.at(self._nearest[:, part], one[is_in_part], code[is_in_part])

    def nearest(self, picture: int, part: int) -> Near | None:
        """Give the nearest picture of a part, the first of several; None if none is near."""
        code = int(self._nearest[picture, part])
        if code == self._no_code:
            return None
        cost, other = divmod(code, len(self._sketches))
        return Near(other, cost // 2, cost % 2 == 1)

    def compare(self, picture: int, other: int) -> Near | None:
        """Tell how near one other picture is; None if it is not."""
        low, high = min(picture, other), max(picture, other)  # as near_blocks has them
        bits = [
            int(np.bitwise_count(self._upright[:, low] ^ hashes[:, high]).sum())
            for hashes in (self._upright, self._mirrored)
        ]
        if min(bits) > THRESHOLD_BITS:
            return None
        return Near(other, min(bits), bits[1] < bits[0])

    def pairs(self, on_progress: OnProgress) -> Iterator[tuple[int, Near]]:
        """Yield all pairs again, each once, as they are found."""
        for block in near_blocks(self._sketches, on_progress=on_progress):
            for first, second, bits, mirrored in block.tolist():
                yield first, Near(second, bits, mirrored == 1)


Finding = Literal["leak", "undecided", "other pictures"]
FoundBy = Literal["bytes", "near-duplicate", "name"]
Likeness = Literal["", "same", "other folder", "case", "other extension"]

NO_PICTURE: Final = -1


@dataclass(frozen=True, slots=True)
class Match:
    """A file of one part and one of another that are, or by their names may be, one picture."""

    file: str
    other_file: str
    found_by: FoundBy
    """The strongest of what they have in common."""
    name: Likeness
    """How their names are alike; "" if they are not."""
    finding: Finding
    """`undecided`: only their names are alike, not the same, or the pictures cannot be compared.
    `other pictures`: both were read and differ, only their names are alike."""
    bits_apart: int | None = None
    """Of 256, for near-duplicates."""
    is_mirrored: bool = False


@dataclass(frozen=True, slots=True)
class ComparedFile:
    """One name of a part, with what it is compared by."""

    file: str
    key: str
    stem: str
    content: int
    """Number of its bytes, alike for equal bytes; or NO_PICTURE."""
    picture: int
    """Number of its hash among those of different bytes; NO_PICTURE where there is none."""


@dataclass(frozen=True, eq=False)
class ComparedPart:
    """The files of a part, to be looked up by what they are compared by."""

    files: list[ComparedFile]
    by_key: dict[str, ComparedFile]
    by_stem: dict[str, ComparedFile]
    """Those that stand in the part once. Where numbers begin anew in each folder, as in
    `cats/001.jpg` and `dogs/001.jpg`, a base name says nothing."""
    by_content: dict[int, list[ComparedFile]]
    by_picture: dict[int, list[ComparedFile]]

    def namesake(self, file: ComparedFile, its_part: "ComparedPart") -> ComparedFile | None:
        """Find the file here whose name is that of a file of another part, or is like it."""
        same = self.by_key.get(file.key)
        if same is None and file.stem in its_part.by_stem:
            return self.by_stem.get(file.stem)
        return same


def compared_part(
    part: SplitPart, contents: Sequence[int], pictures: Sequence[int]
) -> ComparedPart:
    """Index the files of a part; contents, pictures: for each, its number or NO_PICTURE."""
    files = [
        ComparedFile(file, name_key(file), stem_key(file), content, picture)
        for file, content, picture in zip(part.files, contents, pictures, strict=True)
    ]
    n_alike = Counter(file.stem for file in files)
    by_content: defaultdict[int, list[ComparedFile]] = defaultdict(list)
    by_picture: defaultdict[int, list[ComparedFile]] = defaultdict(list)
    for file in files:
        by_content[file.content].append(file)
        by_picture[file.picture].append(file)
    by_content.pop(NO_PICTURE, None)
    by_picture.pop(NO_PICTURE, None)
    return ComparedPart(
        files,
        {file.key: file for file in files},
        {file.stem: file for file in files if n_alike[file.stem] == 1},
        dict(by_content),
        dict(by_picture),
    )


def likeness_of(file: ComparedFile, other: ComparedFile) -> Likeness:
    """Say how two names are alike, the strongest likeness first."""
    if file.key == other.key:
        return "same"
    if file.stem != other.stem:
        return ""
    if file.key.casefold() == other.key.casefold():
        return "case"
    base, other_base = base_name(file.file), base_name(other.file)
    if base == other_base:
        return "other folder"
    return "case" if base.casefold() == other_base.casefold() else "other extension"


def match_by_name(file: ComparedFile, other: ComparedFile) -> Match:
    """Judge two files alike in name whose pictures were not found to be the same."""
    likeness = likeness_of(file, other)
    finding: Finding
    if NO_PICTURE not in (file.picture, other.picture):
        finding = "other pictures"
    elif NO_PICTURE not in (file.content, other.content):
        finding = "undecided"  # Their bytes differ, and there is no hash of one of them.
    else:
        finding = "leak" if likeness == "same" else "undecided"
    return Match(file.file, other.file, "name", likeness, finding)


def match_by_bytes(file: ComparedFile, other: ComparedFile) -> Match:
    """Say that two files have the same bytes."""
    return Match(file.file, other.file, "bytes", likeness_of(file, other), "leak")


def match_by_hash(file: ComparedFile, other: ComparedFile, near: Near) -> Match:
    """Say that two files of different bytes show the same picture."""
    return Match(
        file.file,
        other.file,
        "near-duplicate",
        likeness_of(file, other),
        "leak",
        near.bits_apart,
        near.is_mirrored,
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
