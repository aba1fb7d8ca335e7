"""Faces labelled by a table: rows matched to pictures, and what the table leaves out.

Faces whose labels stand in a table: which picture is which row, what is said of it, what is not.

Gives what benchmark.data.packing gives for faces that are labelled by their names, and says how the
table's words were read: a number on such faces is worth no more than that reading.

What a data set's table of labels did not tell, in sentences: kept in its manifest, said again.

Shown wherever numbers on such faces are: after preparing, on the page of who is in it, and beside
an evaluation.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from benchmark.data.archive import Content, Member, Source, Unreadable
from benchmark.data.dataset import NAME_KIND, OTHER_KIND, ROW_KIND
from benchmark.data.duplicates import LABELS
from benchmark.data.label_tables import (
    Given,
    LabelFile,
    Layout,
    Reading,
    parse_label_file,
    read_age,
    read_age_group,
    read_label_file,
    read_word,
)
from benchmark.data.labels import FaceLabels, is_picture_name
from benchmark.data.packing import Census, printable
from benchmark.errors import DataError
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS

SHOWN_WORDS: Final = 4
TITLES: Final[dict[str, str]] = {"age": "age in years"} | {
    task: TASK_TITLES[task] for task in TASKS
}


def labels_digest(table: pd.DataFrame) -> str:
    """Digest who is labelled what."""
    lines = table[["file", *LABELS]].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(lines.encode()).hexdigest()


def counted(labels: Mapping[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """Add to a statement the digest of a table's labels and, by label, how many faces lack it."""
    without = {label: int((table[label] == MISSING).sum()) for label in LABELS}
    return {**labels, "digest": labels_digest(table), "without": without}


def unmapped(labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the words that have no class here: column, word, rows, why, unknown; most rows first."""
    found = [
        {"column": column, **entry}
        for column, entries in labels["mapping"].items()
        for entry in entries
        if entry["class"] is None
    ]
    return sorted(found, key=lambda entry: (-entry["rows"], entry["column"], entry["word"]))


def gaps(labels: Mapping[str, Any], n_faces: int) -> list[str]:
    """Say in a sentence per label what the faces lack; nothing where they have all.

    n_faces: how many faces `labels["without"]` counts among.
    """
    sentences = []
    for label, n_without in labels["without"].items():
        title = TITLES[label]
        if n_without == n_faces:
            what = "no plot of years" if label == "age" else "neither trained nor evaluated here"
            sentences.append(f"No face is labelled with {title}: {what}.")
        elif n_without:
            share = 100 * n_without / n_faces
            sentences.append(
                f"{n_without:,} of {n_faces:,} faces ({share:.1f} %) have no {title}: left out of "
                "whatever needs it."
            )
    return sentences


def notes(labels: Mapping[str, Any]) -> list[str]:
    """Say what was made of the table on the way: repeated rows, spreadsheets' dates, encodings."""
    said = []
    repaired = [
        entry for entries in labels["mapping"].values() for entry in entries if entry["read_as"]
    ]
    if repaired:
        first = repaired[0]
        n_rows = sum(entry["rows"] for entry in repaired)
        said.append(
            f"{n_rows:,} ages had been made dates by a spreadsheet and were read back, as "
            f"{first['word']!r}, which was {first['read_as']}."
        )
    old = [file["name"] for file in labels["files"] if file["encoding"] == "cp1252"]
    if old:
        said.append(f"{', '.join(old)} is no UTF-8 and was read as Windows-1252.")
    if labels["repeated_rows"]:
        said.append(f"{labels['repeated_rows']:,} rows name a file that an earlier row names.")
    return said


def findings(labels: Mapping[str, Any], n_rows_without_picture: int) -> list[str]:
    """Say what is wrong with the table: words nobody told us of, contradictions, lost pictures."""
    found = []
    unknown = [entry for entry in unmapped(labels) if entry["unknown"]]
    if unknown:
        shown = ", ".join(
            f"{entry['column']} {entry['word']!r} ({entry['rows']:,}: {entry['why']})"
            for entry in unknown[:SHOWN_WORDS]
        )
        more = f" and {len(unknown) - SHOWN_WORDS} more" if len(unknown) > SHOWN_WORDS else ""
        found.append(f"{len(unknown)} words of the labels are not known: {shown}{more}")
    if labels["contradicted_faces"]:
        found.append(f"{labels['contradicted_faces']:,} faces have rows that contradict each other")
    if n_rows_without_picture:
        found.append(f"{n_rows_without_picture:,} rows name no picture, or several")
    return found


LABEL_RULES: Final = "words-1"
"""Raised whenever the same table would give other labels."""

Wordings = dict[tuple[str, str], Reading]
"""By column and word as it stands there: how it is read."""


@dataclass(frozen=True, eq=False)
class Labelling:
    """Tables of labels and how their words are to be read, before any picture is looked at."""

    layout: Layout
    files: tuple[LabelFile, ...]
    given: Given = field(default_factory=dict)

    @property
    def source_sha256(self) -> str:
        """Digest of all that decides labels: tables, layout, rules, --map."""
        said = [LABEL_RULES, self.layout.name, *(file.sha256 for file in self.files)]
        said += [f"{task}:{word}={label}" for (task, word), label in sorted(self.given.items())]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()


def labelling_for(
    source: Source, layout: Layout, labels: Sequence[Path], given: Given
) -> Labelling | None:
    """Read the tables of labels that are named, or lie in the source; None for UTKFace's layout.

    Raises DataError where there is none, or one of them is no table of labels.
    """
    if labels:
        return Labelling(layout, tuple(read_label_file(path) for path in labels), given)
    if not layout.label_files:
        if given:
            raise DataError(
                "--map was given for faces whose names tell their labels",
                allowed="--map with --labels, or with the layout fairface",
            )
        return None
    there = {
        member.path
        for member in source.members()
        if member.name in layout.label_files and not member.name.startswith("._")
    }
    if not there:
        raise DataError(
            f"{source.path} holds no {' or '.join(layout.label_files)}",
            allowed=f"the layout {layout.name}, with its tables of labels beside the pictures",
            fix="Put them there, or name them with --labels",
        )
    files = [
        parse_label_file(path, _readable(path, content))
        for path, content in sorted(source.contents(there))
    ]
    return Labelling(layout, tuple(files), given)


def _readable(path: str, content: Content) -> bytes:
    if isinstance(content, Unreadable):
        raise DataError(f"{path} is no table of labels: {content.reason}")
    return content


@dataclass(frozen=True, eq=False)
class LabelledCensus:
    """Whom a source and its tables of labels promise, and how the words were read."""

    census: Census
    statement: dict[str, Any]
    """For the manifest; benchmark.data.labelled completes it and tells it in words."""
    words: pd.DataFrame
    """Column file and those of the table, as they stand there; a row for each face and others."""


def take_labelled_census(source: Source, labelling: Labelling) -> LabelledCensus:
    """Join pictures with the rows of the tables; raise DataError where not a single one fits."""
    pictures, left_out = _pictures(source, labelling)
    rows = _Rows(labelling)
    faces: dict[str, tuple[str, Member, FaceLabels]] = {}
    taken: set[str] = set()
    for file, labels, problem in rows:
        found = _meant(pictures.get(file) or pictures.get(_stem(file), []), file)
        if len(found) != 1 or found[0].path in taken:
            left_out.append((printable(file), ROW_KIND, _why_none(found)))
            continue
        taken.add(found[0].path)
        if problem or labels is None:
            left_out.append((printable(file), NAME_KIND, problem))
        else:
            faces[file] = (file, found[0], labels)
    for path, member in {m.path: m for ms in pictures.values() for m in ms}.items():
        if member.path not in taken:
            left_out.append((printable(path), NAME_KIND, "no row in the table of labels"))
    if not faces:
        raise _no_faces(source, labelling, left_out, bool(taken))
    census = Census([faces[file] for file in sorted(faces)], left_out)
    return LabelledCensus(census, rows.statement(), pd.DataFrame(rows.words, dtype=str))


def _meant(found: list[Member], file: str) -> list[Member]:
    """Take the picture of the very path before those whose paths end in it."""
    return [member for member in found if member.path == file] or found


def _why_none(found: list[Member]) -> str:
    if len(found) == 1:
        return "another row names the same picture"
    return f"{len(found)} pictures of this name" if found else "no picture of this name"


def _pictures(
    source: Source, labelling: Labelling
) -> tuple[dict[str, list[Member]], list[tuple[str, str, str]]]:
    """Give the pictures by every name that a row may call them: the path, or its last parts.

    Each also without its ending: crops are PNG where the table names the JPEG they were cut from.
    """
    tables = {file.name for file in labelling.files}
    by_name: dict[str, list[Member]] = {}
    left_out = []
    for member in source.members():
        if not is_picture_name(member.path):
            if member.path not in tables:
                left_out.append((printable(member.path), OTHER_KIND, "not a picture by its name"))
            continue
        parts = member.path.split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            by_name.setdefault(name, []).append(member)
            by_name.setdefault(_stem(name), []).append(member)
    return by_name, left_out


def _stem(name: str) -> str:
    """Take the ending of a picture's name off; a name of another kind stays what it is."""
    return name.rpartition(".")[0] if is_picture_name(name) else name


class _Rows:
    """The rows of all tables, each file once: its labels, or why there are none."""

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling
        self.readings: Wordings = {}
        self.n_by_word: Counter[tuple[str, str]] = Counter()
        self.n_repeated = 0
        self.n_contradicted = 0
        self.n_without = 0
        self.words: list[dict[str, str]] = []

    def __iter__(self) -> Iterator[tuple[str, FaceLabels | None, str]]:
        columns = [label for label in LABELS if self._has(label)]
        cells_of: dict[str, set[tuple[str, ...]]] = {}
        for table in self.labelling.files:
            cells = table.cells.reindex(columns=["file", *columns], fill_value="")
            for file, *row in cells.itertuples(index=False, name=None):
                name = file.replace("\\", "/").removeprefix("./")
                known = cells_of.setdefault(name, set())
                self.n_repeated += bool(known)
                known.add(tuple(row))
        for file, rows in cells_of.items():
            yield self._face(file, columns, rows)

    def _has(self, label: str) -> bool:
        return any(label in table.cells for table in self.labelling.files)

    def _face(
        self, file: str, columns: list[str], rows: set[tuple[str, ...]]
    ) -> tuple[str, FaceLabels | None, str]:
        if not file.isprintable() or not file:
            return file, None, "the name has characters that cannot be printed, or none"
        if len(rows) > 1:
            self.n_contradicted += 1
            return file, None, "its rows contradict each other"
        (row,) = rows
        words = dict(zip(columns, row, strict=True))
        readings = {column: self._read(column, word) for column, word in words.items()}
        self.n_by_word.update(words.items())
        self.words.append({"file": file, **words})
        labels = _labels(readings)
        if all(getattr(labels, task) == MISSING for task in TASKS):
            self.n_without += 1
            return file, None, "no label that has a class here"
        return file, labels, ""

    def _read(self, column: str, word: str) -> Reading:
        if (column, word) not in self.readings:
            self.readings[column, word] = self._reader(column)(word)
        return self.readings[column, word]

    def _reader(self, column: str) -> Callable[[str], Reading]:
        given, ranges = self.labelling.given, self.labelling.layout.age_ranges
        if column == "age":
            return lambda word: read_age(word, given, ranges)
        if column == "age_group":
            return lambda word: read_age_group(word, given, ranges)
        return lambda word: read_word(column, word, given)  # type: ignore[arg-type]

    def statement(self) -> dict[str, Any]:
        """Say how every word was read, and in how many rows it stands."""
        mapping: dict[str, list[dict[str, Any]]] = {}
        for (column, word), read in sorted(self.readings.items(), key=_in_order):
            if column == "age" and read.age != MISSING and not read.repaired:
                continue  # An age in years means itself.
            task = "age_group" if column == "age" else column
            mapping.setdefault(column, []).append(
                {
                    "word": word,
                    "class": None if read.label == MISSING else CLASS_NAMES[task][read.label],  # type: ignore[index]
                    "rows": self.n_by_word[column, word],
                    "why": read.why,
                    "read_as": read.repaired,
                    "unknown": read.is_unknown,
                }
            )
        return {
            "rules": LABEL_RULES,
            "layout": self.labelling.layout.name,
            "source_sha256": self.labelling.source_sha256,
            "files": [
                {"name": file.name, "sha256": file.sha256, "encoding": file.encoding}
                for file in self.labelling.files
            ],
            "columns": [label for label in LABELS if self._has(label)],
            "mapping": mapping,
            "repeated_rows": self.n_repeated,
            "contradicted_faces": self.n_contradicted,
            "faces_without_label": self.n_without,
        }


def _in_order(reading: tuple[tuple[str, str], Reading]) -> tuple[str, int, str]:
    """Sort words by column, and those that begin with a number by it."""
    (column, word), _ = reading
    number = re.match("[0-9]+", word)
    return column, int(number[0]) if number else 1000, word


def _labels(readings: dict[str, Reading]) -> FaceLabels:
    """Put a face's labels together; years and an age group that disagree are both left out."""
    nothing = Reading(MISSING)
    years, group = readings.get("age", nothing), readings.get("age_group", nothing)
    age, age_group = years.age, years.label if years.label != MISSING else group.label
    if MISSING not in (years.label, group.label) and years.label != group.label:
        age, age_group = MISSING, MISSING
    gender, race = (readings.get(task, nothing).label for task in ("gender", "race"))
    return FaceLabels(age, age_group, gender, race)


def _no_faces(
    source: Source, labelling: Labelling, left_out: list[tuple[str, str, str]], any_taken: bool
) -> DataError:
    tables = ", ".join(file.name for file in labelling.files)
    reasons = [f"{file}: {reason}" for file, kind, reason in left_out if kind != OTHER_KIND]
    shown = "; ".join(reasons[:2]) or "there are no pictures"
    return DataError(
        f"no picture of {source.path} has a label in {tables} that has a class here; {shown}"
        if any_taken
        else f"no row of {tables} names a picture of {source.path}; {shown}",
        allowed="a column `file` with the pictures' paths within the source, or their names",
        fix="--map says what an unknown word means" if any_taken else "",
    )
