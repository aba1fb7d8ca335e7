"""Which faces a source has, labelled by their names or by a table; no picture is looked at.

Of a table: which row is which picture, and what the table leaves out. How every word was read, and
in how many rows it stands, is kept in the manifest under `labels` and said wherever numbers on such
faces are: a number is worth no more than that reading.
"""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from benchmark.data.archive import Source, printable
from benchmark.data.dataset import NAME_KIND, OTHER_KIND, ROW_KIND
from benchmark.data.label_tables import CODE, LABEL_RULES, Labelling, Reading, read_column
from benchmark.data.labels import LABELS, NAME_RULE, FaceLabels, is_picture_name, parse_name
from benchmark.errors import DataError
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS

TITLES: Final[dict[str, str]] = {
    "age": "age in years",
    **{str(task): title for task, title in TASK_TITLES.items()},
}
SHOWN_WORDS: Final = 4
SHOWN_LETTERS: Final = 40


@dataclass(frozen=True, eq=False)
class Scan:
    """The faces of a source, found without looking at a picture."""

    table: pd.DataFrame
    """Columns file and LABELS, by file."""
    paths: list[str]
    """The member of each face, row by row."""
    rejected: list[tuple[str, str, str]]
    """File, kind, reason."""


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
    rejected: list[tuple[str, str, str]] = []
    paths: dict[str, str] = {}
    for path in (member.path for member in source.members()):
        name = path.rsplit("/", 1)[-1]
        if not is_picture_name(path):
            rejected.append((printable(path), OTHER_KIND, "not a picture by its name"))
            continue
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
    if not paths:
        raise DataError(
            f"{source.path} holds no pictures ({len(rejected)} other files)",
            allowed=f"pictures called {NAME_RULE}",
        )
    if not faces:
        file, _, reason = next(row for row in rejected if row[1] == NAME_KIND)
        raise DataError(
            f"none of the {len(paths)} pictures of {source.path} has a UTKFace name; "
            f"{file}: {reason}",
            allowed=f"pictures called {NAME_RULE}",
            fix="Rename the pictures so, name another source, or name a table of their labels with "
            "--labels (for FairFace: --layout fairface)",
        )
    return _scan_of(faces, rejected)


def scan_with_tables(
    source: Source, labelling: Labelling
) -> tuple[Scan, dict[str, Any], pd.DataFrame]:
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
    readings: dict[tuple[str, str], Reading] = {}
    codes = []
    for column in columns:
        its, not_read = read_column(
            column,
            words[column].unique(),
            labelling.given,
            layout.age_ranges,
            is_ours=all(column in table.ours for table in tables if column in table.cells),
        )
        readings |= {(column, word): read for word, read in its.items()}
        codes += [not_read] if not_read else []
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
    scan, name_of = _matched(source, said, [table.name for table in tables], codes)
    shortened = [(file, name) for file, name in name_of.items() if file != name]
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
        "codes": codes,
        "rows_matched_by_last_parts": len(shortened),
        "example_of_last_parts": list(shortened[0]) if shortened else [],
        "repeated_rows": n_repeated,
        "contradicted_faces": len(contradicted),
        "faces_without_label": n_without,
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


def _matched(
    source: Source,
    said: Mapping[str, FaceLabels | str],
    tables: list[str],
    codes: Sequence[str],
) -> tuple[Scan, dict[str, str]]:
    """Find the picture of each row: the one whose path agrees with the row's in most last parts.

    So a row may be absolute, or begin higher or lower than the source. A name also finds a picture
    of another ending: crops are PNG where the table names the JPEG they are cut from. Where rows
    agree with one picture, the one that agrees most has it. said: by file, labels or why there are
    none; codes: what columns were not read. Gives for each row's file what it agrees in, too: the
    name of the face.
    """
    members = dict.fromkeys(member.path for member in source.members())
    by_name: dict[str, list[str]] = {}
    rejected: list[tuple[str, str, str]] = []
    for path in members:
        parts = path.split("/") if is_picture_name(path) else []
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            by_name.setdefault(name, []).append(path)
            by_name.setdefault(_stem(name), []).append(path)
        if not parts and path not in tables:
            rejected.append((printable(path), OTHER_KIND, "not a picture by its name"))
    above = source.path.resolve().as_posix().split("/") if source.path.is_dir() else []
    claims: dict[str, list[tuple[float, str, str]]] = {}
    for file in said:
        n_parts, found, name = _nearest(file, by_name, above)
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
        why = "another row names the same picture"
        for _, file, _ in others if is_clear else rows:
            rejected.append((printable(file), ROW_KIND, why))
        _, file, name = best
        labels = said[file] if is_clear else "several rows may name it"
        if isinstance(labels, str):
            rejected.append((printable(file if is_clear else path), NAME_KIND, labels))
        else:
            name_of[file] = name
            faces[name] = path, labels
    for path in members:
        if is_picture_name(path) and path not in claims:
            rejected.append((printable(path), NAME_KIND, "no row in the table of labels"))
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


def _nearest(
    file: str, by_name: Mapping[str, list[str]], above: Sequence[str]
) -> tuple[float, list[str], str]:
    """Give the pictures that agree with a row's path in most last parts: in how many, and these.

    above: the parts of the source's own path. A half more where the ending agrees as well.
    """
    parts = file.split("/")
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        found = by_name.get(name) or by_name.get(_stem(name), [])
        if not found:
            continue
        if start == 0 or parts[start - 1] == (above or [""])[-1]:
            found = [path for path in found if path == name] or found
        n_parts = len(parts) - start + (name in by_name) / 2
        if len(found) == 1 and found[0].count("/") == name.count("/"):
            both = zip(reversed(parts[:start]), reversed(above), strict=False)
            n_parts += len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], both)))
        return n_parts, found, name
    return 0, [], file


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
    if n_rows := labels.get("rows_matched_by_last_parts"):
        file, name = labels["example_of_last_parts"]
        said.append(
            f"{n_rows:,} rows were matched by the last parts of their paths: {file!r} is {name}."
        )
    if labels["repeated_rows"]:
        said.append(f"{labels['repeated_rows']:,} rows name a file that an earlier row names.")
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
    if labels["contradicted_faces"]:
        found.append(f"{labels['contradicted_faces']:,} faces have rows that contradict each other")
    if n_rows_without_picture:
        found.append(f"{n_rows_without_picture:,} rows name no picture, or several")
    return found
