"""Two files of two parts that are one picture, or may be; and the files of a part, to look up.

How near two pictures are is for split_near; what is counted and shown, for split_audit.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmark.faces.split_lists import SplitPart, base_name, name_key, stem_key
from benchmark.faces.split_near import Near

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
