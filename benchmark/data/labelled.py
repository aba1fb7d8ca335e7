"""Faces labelled by a table: which row is which picture, and what the table leaves out.

How every word was read, and in how many rows it stands, is kept in the manifest under `labels` and
said wherever numbers on such faces are: a number is worth no more than that reading.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from benchmark.data.archive import Member, Source
from benchmark.data.dataset import NAME_KIND, OTHER_KIND, ROW_KIND
from benchmark.data.duplicates import LABELS
from benchmark.data.label_tables import LABEL_RULES, Labelling, Reading, read_label
from benchmark.data.labels import FaceLabels, is_picture_name
from benchmark.data.packing import Census, printable
from benchmark.errors import DataError
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS

TITLES: Final[dict[str, str]] = {
    "age": "age in years",
    **{str(task): title for task, title in TASK_TITLES.items()},
}
SHOWN_WORDS: Final = 4


def take_labelled(
    source: Source, labelling: Labelling
) -> tuple[Census, dict[str, Any], pd.DataFrame]:
    """Join pictures with the rows of the tables; raise DataError where not a single one fits.

    Gives the faces, the statement for the manifest (`counted` completes it), and the rows' own
    words: file and the tables' columns.
    """
    tables, layout = labelling.files, labelling.layout
    columns = [label for label in LABELS if any(label in table.cells for table in tables)]
    cells = [table.cells.reindex(columns=["file", *columns], fill_value="") for table in tables]
    rows = pd.concat(cells, ignore_index=True)
    rows["file"] = rows["file"].str.replace("\\", "/", regex=False).str.removeprefix("./")
    n_repeated = len(rows) - rows["file"].nunique()
    rows = rows.drop_duplicates()
    is_usable = rows["file"].map(lambda file: bool(file) and file.isprintable())
    contradicted = set(rows.loc[is_usable & rows.duplicated("file"), "file"])
    words = rows[is_usable & ~rows["file"].isin(contradicted)]
    readings = {
        (column, word): read_label(column, word, labelling.given, layout.age_ranges)
        for column in columns
        for word in words[column].unique()
    }
    said: dict[str, FaceLabels | str] = dict.fromkeys(
        rows["file"], "the name has characters that cannot be printed, or none"
    )
    said |= dict.fromkeys(contradicted, "its rows contradict each other")
    n_without = 0
    for file, *row in words.itertuples(index=False, name=None):
        labels = _labels(
            {column: readings[column, word] for column, word in zip(columns, row, strict=True)}
        )
        is_said = any(getattr(labels, task) != MISSING for task in TASKS)
        said[file] = labels if is_said else "no label that has a class here"
        n_without += not is_said
    statement = {
        "rules": LABEL_RULES,
        "layout": layout.name,
        "source_sha256": labelling.source_sha256,
        "files": [
            {"name": table.name, "sha256": table.sha256, "encoding": table.encoding}
            for table in tables
        ],
        "columns": columns,
        "mapping": _mapping(words, readings),
        "repeated_rows": n_repeated,
        "contradicted_faces": len(contradicted),
        "faces_without_label": n_without,
    }
    return _matched(source, said, [table.name for table in tables]), statement, words


def _labels(readings: Mapping[str, Reading]) -> FaceLabels:
    """Put a face's labels together; years and an age group that disagree are both left out."""
    nothing = Reading(MISSING)
    years, group = readings.get("age", nothing), readings.get("age_group", nothing)
    age, age_group = years.age, years.label if years.label != MISSING else group.label
    if MISSING not in (years.label, group.label) and years.label != group.label:
        age, age_group = MISSING, MISSING
    gender, race = (readings.get(task, nothing).label for task in ("gender", "race"))
    return FaceLabels(age, age_group, gender, race)


def _mapping(
    words: pd.DataFrame, readings: Mapping[tuple[str, str], Reading]
) -> dict[str, list[dict[str, Any]]]:
    """Say how every word is read and in how many rows it stands; numbers by size, then words."""

    def order(key: tuple[str, str]) -> tuple[str, int, str]:
        number = re.match("[0-9]+", key[1])
        return key[0], int(number[0]) if number else 1000, key[1]

    n_rows = {column: words[column].value_counts() for column in words.columns[1:]}
    mapping: dict[str, list[dict[str, Any]]] = {}
    for column, word in sorted(readings, key=order):
        read = readings[column, word]
        if column == "age" and read.age != MISSING and not read.repaired:
            continue  # An age in years means itself.
        names = CLASS_NAMES["age_group" if column == "age" else column]  # type: ignore[index]
        mapping.setdefault(column, []).append(
            {
                "word": word,
                "class": None if read.label == MISSING else names[read.label],
                "rows": int(n_rows[column][word]),
                "why": read.why,
                "read_as": read.repaired,
                "unknown": read.is_unknown,
            }
        )
    return mapping


def _matched(source: Source, said: Mapping[str, FaceLabels | str], tables: list[str]) -> Census:
    """Find the picture of each row: by its path, or by the last parts of it.

    A name also finds a picture of another ending: crops are PNG where the table names the JPEG they
    are cut from. said: by file, labels or why there are none.
    """
    members = {member.path: member for member in source.members()}
    by_name: dict[str, list[Member]] = {}
    left_out: list[tuple[str, str, str]] = []
    for path, member in members.items():
        parts = path.split("/") if is_picture_name(path) else []
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            by_name.setdefault(name, []).append(member)
            by_name.setdefault(_stem(name), []).append(member)
        if not parts and path not in tables:
            left_out.append((printable(path), OTHER_KIND, "not a picture by its name"))
    faces: dict[str, tuple[str, Member, FaceLabels]] = {}
    taken: set[str] = set()
    for file, labels in said.items():
        found = by_name.get(file) or by_name.get(_stem(file), [])
        found = [member for member in found if member.path == file] or found
        if len(found) != 1 or found[0].path in taken:
            several = f"{len(found)} pictures of this name" if found else "no picture of this name"
            why = "another row names the same picture" if len(found) == 1 else several
            left_out.append((printable(file), ROW_KIND, why))
            continue
        taken.add(found[0].path)
        if isinstance(labels, str):
            left_out.append((printable(file), NAME_KIND, labels))
        else:
            faces[file] = (file, found[0], labels)
    for path in members:
        if is_picture_name(path) and path not in taken:
            left_out.append((printable(path), NAME_KIND, "no row in the table of labels"))
    if not faces:
        names = ", ".join(tables)
        reasons = [f"{file}: {why}" for file, kind, why in left_out if kind != OTHER_KIND]
        found_out = (
            f"no picture of {source.path} has a label in {names} that has a class here"
            if taken
            else f"no row of {names} names a picture of {source.path}"
        )
        raise DataError(
            f"{found_out}; {'; '.join(reasons[:2]) or 'there are no pictures'}",
            allowed="a column `file` with the pictures' paths within the source, or their names",
            fix="--map says what an unknown word means" if taken else "",
        )
    return Census([faces[file] for file in sorted(faces)], left_out)


def _stem(name: str) -> str:
    """Take the ending of a picture's name off; a name of another kind stays what it is."""
    return name.rpartition(".")[0] if is_picture_name(name) else name


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
        if n_without == n_faces:
            what = "no plot of years" if label == "age" else "neither trained nor evaluated here"
            sentences.append(f"No face is labelled with {TITLES[label]}: {what}.")
        elif n_without:
            sentences.append(
                f"{n_without:,} of {n_faces:,} faces ({100 * n_without / n_faces:.1f} %) have no "
                f"{TITLES[label]}: left out of whatever needs it."
            )
    return sentences


def notes(labels: Mapping[str, Any]) -> list[str]:
    """Say what was done to the table on the way: repeated rows, spreadsheets' dates, encodings."""
    said = []
    entries = [entry for column in labels["mapping"].values() for entry in column]
    if repaired := [entry for entry in entries if entry["read_as"]]:
        said.append(
            f"{sum(entry['rows'] for entry in repaired):,} ages had been made dates by a "
            f"spreadsheet and were read back, as {repaired[0]['word']!r}, which was "
            f"{repaired[0]['read_as']}."
        )
    if old := [file["name"] for file in labels["files"] if file["encoding"] == "cp1252"]:
        said.append(f"{', '.join(old)} is no UTF-8 and was read as Windows-1252.")
    if labels["repeated_rows"]:
        said.append(f"{labels['repeated_rows']:,} rows name a file that an earlier row names.")
    return said


def findings(labels: Mapping[str, Any], n_rows_without_picture: int) -> list[str]:
    """Say what is wrong with the table: unknown words, contradictions, lost pictures."""
    found = []
    if unknown := [entry for entry in unmapped(labels) if entry["unknown"]]:
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
