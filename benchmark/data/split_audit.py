"""Find what the parts of any split share: by name, by bytes, and as near-duplicates.

Labels play no role. A split of films can have more near pairs than fit into memory: they are
reported one after another, and only the nearest of each file is kept.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.data.archive import Unreadable
from benchmark.data.duplicates import METHOD, THRESHOLD_BITS, near_blocks
from benchmark.data.pictures import MIN_SIDE_PX, SKETCH_SHAPE, pillow_quiet, read_picture
from benchmark.data.progress import OnProgress, in_parallel, keep_quiet
from benchmark.data.split_lists import (
    SplitPart,
    base_name,
    find_pictures,
    name_key,
    printable,
    read_parts,
    stem_key,
)
from benchmark.errors import DataError

PICTURES_A_CORE: Final = 256
"""Pictures read ahead for each core."""
PAIRS_AT_ONCE: Final = 100_000
NONE: Final = -1
"""In place of a row or number that there is not."""


def _read_files(
    parts: Sequence[SplitPart], images: Path | None, on_progress: OnProgress
) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """Read every picture once, on all cores; a row for each file of each part.

    Columns: row, part (its number), file, key, stem, place (of its picture, or NONE), reason (why
    it is not compared as a picture), content (number of its bytes, or NONE), picture (number among
    pictures of different bytes that can be compared, or NONE). And the sketches, (n, 16, 17).
    """
    places = find_pictures(parts, images)
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
                    seen.at[row, "reason"] = (
                        "it is too plain to be distinguished from other plain pictures"
                    )
            if number % 32 == 0 or number == len(row_of):
                on_progress("reading pictures", number, len(row_of))
    rows = [
        (
            number,
            *map(printable, (file, name_key(file), stem_key(file))),
            row_of[place] if place else NONE,
        )
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
    with pillow_quiet():
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

    def described(pairs: Any) -> Iterator[FilePair]:
        for pair in pairs.itertuples():
            yield _described(pair, rows[pair.row], rows[pair.row_other], parts)

    def is_among(pairs: pd.DataFrame, others: pd.DataFrame) -> "pd.Series[bool]":
        code, codes = (of["row"] * len(files) + of["row_other"] for of in (pairs, others))
        return code.isin(codes)

    best = named.iloc[:0]
    for pairs in chain([same_bytes], _near_pairs(files, sketches, on_progress)):
        if on_pair is not None:
            list(map(on_pair, described(pairs)))
        # Of each file the nearest match is kept, or its namesake where that is one.
        best = pd.concat([best, pairs.assign(is_other=~is_among(pairs, named))])
        best = best.sort_values(
            ["is_other", "bits_apart", "mirrored", "picture_other", "row_other"]
        )
        best = best.drop_duplicates(["row", "part_other", "found_by"])
    named = named[~is_among(named, best)]
    if on_pair is not None:
        list(map(on_pair, described(named)))
    matches = pd.concat([best.sort_values("found_by"), named]).sort_values("row", kind="stable")
    overlaps = _overlaps(parts, list(zip(matches["row"], described(matches), strict=True)))
    base = files["key"].str.rsplit("/", n=1).str[-1]
    for (other, part), overlap in zip(ranks, overlaps, strict=True):
        its, theirs = files["part"] == part, files["part"] == other
        alike = its & base.isin(base[theirs]) & ~files["key"].isin(files.loc[theirs, "key"])
        overlap["same_base_name"] = int(alike.sum())
        overlap["example_of_base_name"] = "" if not alike.any() else base[alike].iloc[0]
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
    known = files[["part", "row", column]]
    pairs = [
        known[known["part"] == later].merge(
            known[known["part"] == earlier], on=column, suffixes=("", "_other")
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
    base, other_base = base_name(file.file), base_name(other.file)
    name, finding = "", "leak"
    if file.key == other.key:
        name = "same"
    elif file.stem == other.stem and base == other_base:
        name = "case" if file.key.casefold() == other.key.casefold() else "other folder"
    elif file.stem == other.stem:
        name = "case" if base.casefold() == other_base.casefold() else "other extension"
    if pair.found_by == "name" and NONE not in (file.picture, other.picture):
        finding = "other pictures"
    elif pair.found_by == "name" and (name != "same" or NONE not in (file.content, other.content)):
        finding = "undecided"  # Only alike, or their bytes differ and one of them has no hash.
    bits_apart = int(pair.bits_apart) if pair.found_by == "near-duplicate" else None
    return FilePair(
        *(parts[file.part].name, printable(file.file)),
        *(parts[other.part].name, printable(other.file)),
        *(finding, pair.found_by, name),
        bits_apart=bits_apart,
        mirrored=bool(pair.mirrored),
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
        by = Counter(how for _, how in {(row, match.found_by) for row, match in leaks})
        kinds = {(m.finding, m.found_by, m.name, m.mirrored): m for _, m in reversed(its)}
        overlaps.append(
            {
                "part": part.name,
                "other_part": other.name,
                "files": len(part.files),
                "leaking": len(leaking),
                "leaking_fraction": len(leaking) / len(part.files),
                "same_name": len({row for row, match in leaks if match.name == "same"}),
                "same_bytes": by["bytes"],
                "near_duplicates": by["near-duplicate"],
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
        "not_pictures": part.n_others,
        "without_a_picture": len(absent),
        "not_found": [printable(file) for file in absent] if len(absent) < len(files) else [],
        "not_comparable": [
            {"file": printable(file), "reason": reason}
            for file, reason in zip(files["file"], files["reason"], strict=True)
            if reason
        ],
    }
