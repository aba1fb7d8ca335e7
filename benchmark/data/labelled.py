"""Which faces a source has, labelled by their names or by a table; no picture is looked at.

Of a table: which row is which picture, and what the table leaves out. How every word was read, and
in how many rows it stands, is kept in the manifest under `labels` and said wherever numbers on such
faces are: a number is worth no more than that reading.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import pandas as pd

from benchmark.data.archive import PictureIndex, Source, printable
from benchmark.data.dataset import NAME_KIND, OTHER_KIND, ROW_KIND, FaceSet
from benchmark.data.label_tables import (
    CODE,
    FAIRFACE_AGES,
    LABEL_RULES,
    Labelling,
    Reading,
    read_column,
)
from benchmark.data.labels import LABELS, NAME_RULE, FaceLabels, is_picture_name, parse_name
from benchmark.errors import DataError
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS

TITLES: Final[dict[str, str]] = {
    "age": "age in years",
    **{str(task): title for task, title in TASK_TITLES.items()},
}
NO_LABEL: Final = "no label that has a class here"
SHOWN_WORDS: Final = 4
SHOWN_LETTERS: Final = 40


class Scan(NamedTuple):
    """The faces of a source, found without looking at a picture.

    table: columns file and LABELS, by file. paths: the member of each face, row by row. rejected:
    file, kind, reason.
    """

    table: pd.DataFrame
    paths: list[str]
    rejected: list[tuple[str, str, str]]


def _scan_of(
    faces: Mapping[str, tuple[str, FaceLabels]], rejected: list[tuple[str, str, str]]
) -> Scan:
    """Put the faces, path and labels by file, in order of the files."""
    rows = [(file, *faces[file][1]) for file in sorted(faces)]
    table = pd.DataFrame(rows, columns=["file", *LABELS])
    return Scan(table, [faces[file][0] for file in table["file"]], rejected)


def scan_names(source: Source) -> Scan:
    """Read the labels of every picture's name; raise DataError if there are none or two alike."""
    faces: dict[str, tuple[str, FaceLabels]] = {}
    paths: dict[str, str] = {}
    pictures, rejected = _pictures_of(source)
    for path in pictures:
        name = path.rsplit("/", 1)[-1]
        if name in paths:
            raise DataError(
                f"two pictures have the name {name!r}: {paths[name]} and {path}",
                allowed="each base name once, for faces are known by it",
                source=str(source.path),
                fix="Name the one folder in it that holds each face once",
            )
        paths[name] = path
        try:
            faces[name] = path, parse_name(name)
        except DataError as error:
            rejected.append((printable(name), NAME_KIND, error.found))
    if not faces:
        named = [f"{file}: {reason}" for file, kind, reason in rejected if kind == NAME_KIND]
        raise DataError(
            f"none of the {len(paths)} pictures of {source.path} has a UTKFace name; {named[0]}"
            if named
            else f"{source.path} holds no pictures ({len(rejected)} other files)",
            allowed=f"pictures called {NAME_RULE}",
            fix="Rename the pictures so, name another source, or name a table of their labels with "
            "--labels (for FairFace: --layout fairface)",
        )
    return _scan_of(faces, rejected)


def _pictures_of(source: Source) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Give the pictures of a source, each path once, and rows of what is none by its name."""
    members = {member.path: member.problem for member in source.members()}
    others = [
        (printable(path), OTHER_KIND, problem or "not a picture by its name")
        for path, problem in members.items()
        if not is_picture_name(path)
    ]
    return [path for path in members if is_picture_name(path)], others


def scan_with_tables(
    source: Source, labelling: Labelling
) -> tuple[Scan, dict[str, Any], pd.DataFrame]:
    """Join pictures with the rows of the tables; raise DataError where not a single one fits.

    Gives the faces, the statement for the manifest (`counted` completes it), and the rows' own
    words: file and the tables' columns.
    """
    tables = labelling.files
    columns = [label for label in LABELS if any(label in table.cells for table in tables)]
    cells = [table.cells.reindex(columns=["file", *columns], fill_value="") for table in tables]
    rows = pd.concat(cells, ignore_index=True)
    rows["file"] = rows["file"].str.replace("\\", "/", regex=False).str.removeprefix("./")
    n_repeated = len(rows) - rows["file"].nunique()
    rows = rows.drop_duplicates()
    is_usable = rows["file"].map(lambda file: bool(file) and file.isprintable())
    contradicted = set(rows.loc[is_usable & rows.duplicated("file"), "file"])
    words = rows[is_usable & ~rows["file"].isin(contradicted)]
    readings: dict[str, dict[str, Reading]] = {}
    codes = []
    for column in columns:
        is_ours = all(column in table.ours for table in tables if column in table.cells)
        ranges = FAIRFACE_AGES if labelling.layout == "fairface" else ()
        readings[column], not_read = read_column(
            column, words[column].unique(), labelling.given, ranges, is_ours=is_ours
        )
        codes += [not_read] if not_read else []
    unprintable = "the name has characters that cannot be printed, or none"
    said: dict[str, FaceLabels | str] = dict.fromkeys(rows["file"], unprintable)
    said |= dict.fromkeys(contradicted, "its rows contradict each other")
    for file, *row in words.itertuples(index=False, name=None):
        cells_of = zip(columns, row, strict=True)
        labels = _labels({column: readings[column][word] for column, word in cells_of})
        has_one = any(getattr(labels, task) != MISSING for task in TASKS)
        said[file] = labels if has_one else NO_LABEL
    scan, name_of = _matched(source, said, [table.name for table in tables], codes)
    shortened = [(file, name) for file, name in name_of.items() if file != name]
    statement = {
        "rules": LABEL_RULES,
        "layout": labelling.layout,
        "source_sha256": labelling.source_sha256,
        "files": [
            {key: getattr(table, key) for key in ("name", "sha256", "encoding")} for table in tables
        ],
        "columns": columns,
        "mapping": {
            column: entries
            for column in sorted(columns)
            if (entries := _entries(column, words[column], readings[column]))
        },
        "codes": codes,
        "rows_matched_by_last_parts": len(shortened),
        "example_of_last_parts": list(shortened[0]) if shortened else [],
        "repeated_rows": n_repeated,
        "contradicted_faces": len(contradicted),
        "faces_without_label": sum(labels == NO_LABEL for labels in said.values()),
    }
    return scan, statement, words.assign(file=words["file"].map(name_of).fillna(words["file"]))


def _labels(readings: Mapping[str, Reading]) -> FaceLabels:
    """Put a face's labels together; years and an age group that disagree are both left out."""
    nothing = Reading(MISSING)
    years, group = readings.get("age", nothing), readings.get("age_group", nothing)
    age, age_group = years.age, years.label if years.label != MISSING else group.label
    if MISSING not in (years.label, group.label) and years.label != group.label:
        age, age_group = MISSING, MISSING
    gender, race = (readings.get(task, nothing).label for task in ("gender", "race"))
    return FaceLabels(age, age_group, gender, race)


def _entries(
    column: str, words: "pd.Series[str]", readings: Mapping[str, Reading]
) -> list[dict[str, Any]]:
    """Say how every word is read and in how many rows it stands; numbers by size, then words."""
    names = CLASS_NAMES["age_group" if column == "age" else column]  # type: ignore[index]
    n_rows = words.value_counts()

    def order(word: str) -> tuple[int, str]:
        number = re.match("[0-9]+", word)
        return int(number[0]) if number else 1000, word

    return [
        {
            "word": word,
            "class": None if read.label == MISSING else names[read.label],
            "rows": int(n_rows[word]),
            "why": read.why,
            "read_as": read.repaired,
            "unknown": read.is_unknown,
        }
        for word in sorted(readings, key=order)
        for read in [readings[word]]
        if read.age == MISSING or read.repaired  # an age in years means itself
    ]


def _matched(
    source: Source, said: Mapping[str, FaceLabels | str], tables: list[str], codes: Sequence[str]
) -> tuple[Scan, dict[str, str]]:
    """Find the picture of each row: the one whose path agrees with the row's in most last parts.

    Where rows agree with one picture, the one that agrees most has it. said: by file, labels or why
    there are none; codes: what columns were not read. Gives for each row's file what it agrees in,
    too: the name of the face.
    """
    pictures, rejected = _pictures_of(source)
    rejected = [row for row in rejected if row[0] not in tables]
    above = source.path.resolve().as_posix().split("/") if source.path.is_dir() else []
    index = PictureIndex(pictures, above)
    claims: dict[str, list[tuple[float, str, str]]] = {}
    for file in said:
        n_parts, found, name = index.find(file)
        if len(found) == 1:
            claims.setdefault(found[0], []).append((n_parts, file, name))
        else:
            why = f"{len(found)} pictures of this name" if found else "no picture of this name"
            rejected.append((printable(file), ROW_KIND, why))
    faces: dict[str, tuple[str, FaceLabels]] = {}
    name_of: dict[str, str] = {}
    for path, rows in claims.items():
        best, *others = sorted(rows, key=lambda row: -row[0])
        is_clear = not others or others[0][0] < best[0]
        rejected += [
            (printable(file), ROW_KIND, "another row names the same picture")
            for _, file, _ in (others if is_clear else rows)
        ]
        _, file, name = best
        labels = said[file] if is_clear else "several rows may name it"
        if isinstance(labels, str):
            rejected.append((printable(file if is_clear else path), NAME_KIND, labels))
        else:
            name_of[file] = name
            faces[name] = path, labels
    rejected += [
        (printable(path), NAME_KIND, "no row in the table of labels")
        for path in pictures
        if path not in claims
    ]
    if not faces:
        names = ", ".join(tables)
        reasons = [f"{file}: {why}" for file, kind, why in rejected if kind != OTHER_KIND]
        found_out = (
            f"no picture of {source.path} has a label in {names} that has a class here"
            if claims
            else f"no row of {names} names a picture of {source.path}"
        )
        raise DataError(
            f"{found_out}; {'; '.join(reasons[:2]) or 'there are no pictures'}",
            allowed="a column `file` with the pictures' paths within the source, or their names",
            fix="; ".join(codes) or ("--map says what an unknown word means" if claims else ""),
        )
    return _scan_of(faces, rejected), name_of


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


def label_gaps(faces: FaceSet) -> list[str]:
    """Say what faces lack, which tasks have one class alone, and which rows were half matched."""
    labels = faces.manifest.get("labels")
    if labels is None:
        return []
    classes = {task: set(faces.table[task]) - {MISSING} for task in TASKS}
    said = gaps(labels, len(faces.table)) + [
        f"every face with a label of {TASK_TITLES[task]} is {CLASS_NAMES[task][min(found)]}: "
        "networks of this task alone are always right, and are not ranked"
        for task, found in classes.items()
        if len(found) == 1
    ]
    if n_rows := labels.get("rows_matched_by_last_parts"):
        file, name = labels["example_of_last_parts"]
        said.append(
            f"{n_rows:,} rows were matched by the last parts of their paths: {file!r} is {name}."
        )
    return said


def findings(labels: Mapping[str, Any], n_rows_without_picture: int) -> list[str]:
    """Say what is wrong with the table: unknown words, contradictions, lost pictures."""
    found = list(labels.get("codes", ()))
    unknown = [entry for entry in unmapped(labels) if entry["unknown"] and entry["why"] != CODE]
    if unknown:
        shown = ", ".join(
            f"{entry['column']} {entry['word'][:SHOWN_LETTERS]!r} ({entry['rows']:,}: "
            f"{entry['why']})"
            for entry in unknown[:SHOWN_WORDS]
        )
        more = f" and {len(unknown) - SHOWN_WORDS:,} more" if len(unknown) > SHOWN_WORDS else ""
        n_rows = sum(entry["rows"] for entry in unknown)
        found.append(
            f"{len(unknown):,} words of the labels are not known, in {n_rows:,} rows: {shown}{more}"
        )
    for n, what in (
        (labels["contradicted_faces"], "faces have rows that contradict each other"),
        (n_rows_without_picture, "rows name no picture, or several"),
    ):
        if n:
            found.append(f"{n:,} {what}")
    return found
