"""Which faces a source has, labelled by their names or by tables; no picture is looked at.

Of a table: which row is which picture, and what the table leaves out. How every word was read, and
in how many rows it stands, is kept in the manifest under `labels` and said wherever numbers on such
faces are: a number is worth no more than that reading.
"""

import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd

from benchmark.data import labels as rules
from benchmark.data.archive import PictureIndex, Source, decoded, printable
from benchmark.data.dataset import NAME_KIND, OTHER_KIND, ROW_KIND, FaceSet
from benchmark.data.labels import LABELS, FaceLabels
from benchmark.errors import DataError
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS

LABEL_RULES: Final = "words-2"
"""Raised whenever the same table would give other labels."""
HEADINGS: Final[dict[str, tuple[str, ...]]] = {
    "file": ("file", "filename", "file name", "image", "img name", "path", "image path"),
    "age": ("age", "age years"),
    "age_group": ("age group", "age range", "age bin"),
    "gender": ("gender", "sex"),
    "race": ("race", "ethnicity"),
}
"""Column, and how tables head it: lower case, with a space for `_` and `-`."""
OUR_TABLE: Final = frozenset(("sha256", "age group", "label conflict"))
"""Columns by which a table.csv of a prepared data set is known; its numbers are ours."""
ALLOWED: Final = "a CSV file with columns file and one or more of age, age_group, gender, race"
LAYOUTS: Final = ("utkface", "fairface", "table")
"""Labels in the names of the files, in FairFace's tables beside them, in a table that is named."""
FAIRFACE_FILES: Final = ("fairface_label_train.csv", "fairface_label_val.csv")
FAIRFACE_SHEET: Final = (
    "FairFace (Kärkkäinen, Joo, WACV 2021; github.com/joojs/fairface), licence CC BY 4.0. Faces "
    "from Flickr; age range, gender and race as annotators perceived them, several to a picture. "
    "Known limits: seven words of race and nine age ranges, not all of which have a class here."
)
"""The data sheet of the layout; a source prepared otherwise brings its own."""
NO_LABEL: Final = "no label that has a class here"
SHOWN_WORDS: Final = 4
SHOWN_LETTERS: Final = 40

Rejected = list[tuple[str, str, str]]
"""Files that are no faces: file, kind, reason."""
LabelTable = tuple[dict[str, str], pd.DataFrame, set[str]]
"""Name, sha256 and encoding; columns file and those of age, age_group, gender, race that it has,
every cell a str; columns whose name says that numbers are UTKFace's classes, or ages years."""


class Labelling(NamedTuple):
    """What tables say, before any picture is looked at.

    about: as the manifest's `labels`. words: file and the tables' columns, of rows that can be
    used. said: for every row's file the labels, or why it has none.
    """

    about: dict[str, Any]
    words: pd.DataFrame
    said: dict[str, FaceLabels | str]


class Scan(NamedTuple):
    """The faces of a source, found without looking at a picture.

    table: columns file and LABELS, by file. paths: the member of each face, row by row. labels,
    words: of tables, for the manifest's `labels` (`counted` completes it), and what they say.
    """

    table: pd.DataFrame
    paths: list[str]
    rejected: Rejected
    labels: dict[str, Any] | None = None
    words: pd.DataFrame | None = None


def labelling_for(
    source: Source, layout: str | None, labels: Sequence[Path], given: rules.Given
) -> Labelling | None:
    """Read the tables of labels that are named, or lie in the source; None for UTKFace's layout.

    layout: if left out, a table where one is named, else UTKFace's. Raises DataError where a layout
    has no table of labels, or one of them is none.
    """
    layout = layout or ("table" if labels else "utkface")
    if layout not in LAYOUTS:
        raise DataError(f"there is no layout {layout!r}", allowed=", ".join(LAYOUTS))
    if layout == "utkface":
        if labels or given:
            option = "--labels" if labels else "--map"
            raise DataError(
                f"{option} was given for faces whose names tell their labels",
                allowed="--labels and --map with the layout table or fairface",
            )
        return None
    if layout == "table" and not labels:
        raise DataError("the layout table has no table of labels", allowed="--labels FILE.csv")
    if absent := [path for path in labels if not path.is_file()]:
        raise DataError(f"there is no table of labels {absent[0]}", allowed=ALLOWED)
    files: list[tuple[str, bytes | str]] = [(path.name, path.read_bytes()) for path in labels]
    if not labels:
        members = {member.path for member in source.members()}
        there = {path for path in members if path.rpartition("/")[2] in FAIRFACE_FILES}
        files = sorted(source.contents(there))
    if not files:
        raise DataError(
            f"{source.path} holds no {' or '.join(FAIRFACE_FILES)}",
            fix="Put them beside the pictures, or name them with --labels",
        )
    return _read([parse_label_table(*file) for file in files], layout, given)


def parse_label_table(name: str, content: bytes | str) -> LabelTable:
    """Read a table of labels from its bytes; raise DataError where they are none."""
    try:
        if isinstance(content, str):
            raise ValueError(content)
        if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
            raise ValueError("it is a spreadsheet; save it as CSV first")
        text, encoding = decoded(content)
        cells, ours = _cells_of(text)
    except (ValueError, DataError, csv.Error) as error:
        raise DataError(f"{name} is no table of labels: {error}", allowed=ALLOWED) from error
    digest = hashlib.sha256(content).hexdigest()
    return {"name": name, "sha256": digest, "encoding": encoding}, cells, ours


def _cells_of(text: str) -> tuple[pd.DataFrame, set[str]]:
    delimiter = max((",", ";", "\t"), key=text.lstrip().split("\n", 1)[0].count)
    read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    head, *rows = [row for row in read if any(cell.strip() for cell in row)] or [[]]
    if not rows:
        raise ValueError("it has no rows" if head else "it is empty")
    names = [rules.normal(name).strip() for name in head]
    plain = [re.sub(" ?utkface ?", "", name) for name in names]
    places: dict[str, int] = {}
    for column, headings in HEADINGS.items():
        found = [place for place, name in enumerate(plain) if name in headings]
        if len(found) > 1:
            both = " and ".join(repr(head[place]) for place in found)
            raise ValueError(f"its columns {both} both say {column}")
        places.update((column, place) for place in found)
    if "file" not in places or len(places) == 1:
        lacking = "labels" if "file" in places else "file"
        shown = ", ".join(map(repr, head[:12]))
        raise ValueError(f"it has no column of {lacking}, but {shown}")
    for number, row in enumerate(rows, start=2):
        if len(row) <= max(places.values()):
            raise ValueError(f"row {number} has {len(row)} cells: {row}")
    cells = {column: [row[place].strip() for row in rows] for column, place in places.items()}
    ours = {
        column
        for column, place in places.items()
        if "utkface" in names[place] or names[place] == "age years"
    }
    return pd.DataFrame(cells, dtype=object), ours if OUR_TABLE - set(names) else set(HEADINGS)


def _read(tables: Sequence[LabelTable], layout: str, given: rules.Given) -> Labelling:
    """Read every word of the tables, and say how."""
    columns = [label for label in LABELS if any(label in cells for _, cells, _ in tables)]
    rows = pd.concat([cells for _, cells, _ in tables], ignore_index=True).fillna("")
    rows = rows[["file", *columns]]
    rows["file"] = rows["file"].str.replace("\\", "/", regex=False).str.removeprefix("./")
    n_repeated = len(rows) - rows["file"].nunique()
    rows = rows.drop_duplicates()
    is_usable = rows["file"].map(lambda file: bool(file) and file.isprintable())
    contradicted = set(rows.loc[is_usable & rows.duplicated("file"), "file"])
    words = rows[is_usable & ~rows["file"].isin(contradicted)]
    readings: dict[str, dict[str, rules.Reading]] = {}
    codes = []
    for column in columns:
        readings[column], not_read = rules.read_column(
            column,
            words[column].unique(),
            given,
            rules.FAIRFACE_AGES if layout == "fairface" else (),
            is_ours=all(column in ours for _, cells, ours in tables if column in cells),
        )
        codes += [not_read] if not_read else []
    unprintable = "the name has characters that cannot be printed, or none"
    said: dict[str, FaceLabels | str] = dict.fromkeys(rows["file"], unprintable)
    said |= dict.fromkeys(contradicted, "its rows contradict each other")
    for row in words.to_dict("records"):
        labels = _labels({column: readings[column][row[column]] for column in columns})
        has_one = any(getattr(labels, task) != MISSING for task in TASKS)
        said[row["file"]] = labels if has_one else NO_LABEL
    # All that decides labels.
    deciding = [LABEL_RULES, layout, *(about["sha256"] for about, *_ in tables)]
    deciding += [f"{task}:{word}={label}" for (task, word), label in sorted(given.items())]
    mapping = {column: _entries(column, words[column], readings[column]) for column in columns}
    about = {
        "rules": LABEL_RULES,
        "layout": layout,
        "source_sha256": hashlib.sha256("\n".join(deciding).encode()).hexdigest(),
        "files": [about for about, *_ in tables],
        "columns": columns,
        "mapping": {column: mapping[column] for column in sorted(mapping) if mapping[column]},
        "codes": codes,
        "repeated_rows": n_repeated,
        "contradicted_faces": len(contradicted),
        "faces_without_label": sum(labels == NO_LABEL for labels in said.values()),
    }
    return Labelling(about, words, said)


def _labels(readings: Mapping[str, rules.Reading]) -> FaceLabels:
    """Put a face's labels together; years and an age group that disagree are both left out."""
    nothing = rules.Reading(MISSING)
    years, group, gender, race = (readings.get(label, nothing) for label in LABELS)
    age, age_group = years.age, years.label if years.label != MISSING else group.label
    if MISSING not in (years.label, group.label) and years.label != group.label:
        age, age_group = MISSING, MISSING
    return FaceLabels(age, age_group, gender.label, race.label)


def _entries(
    column: str, words: "pd.Series[str]", readings: Mapping[str, rules.Reading]
) -> list[dict[str, Any]]:
    """Say how every word is read and in how many rows it stands; numbers by size, then words."""
    names = CLASS_NAMES["age_group" if column == "age" else column]  # type: ignore[index]
    n_rows = words.value_counts()
    return [
        {
            "word": word,
            "class": None if read.label == MISSING else names[read.label],
            "rows": int(n_rows[word]),
            "why": read.why,
            "read_as": read.repaired,
            "unknown": read.is_unknown,
        }
        for word, read in sorted(readings.items(), key=lambda item: _by_size(item[0]))
        if read.age == MISSING or read.repaired  # an age in years means itself
    ]


def _by_size(word: str) -> tuple[int, str]:
    number = re.match("[0-9]+", word)
    return int(number[0]) if number else 1000, word


def scan_names(source: Source) -> Scan:
    """Read the labels of every picture's name; raise DataError if there are none or two alike."""
    faces: dict[str, tuple[str, FaceLabels]] = {}
    paths: dict[str, str] = {}
    pictures, rejected = _pictures_of(source)
    named = []
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
            faces[name] = path, rules.parse_name(name)
        except DataError as error:
            named.append((printable(name), NAME_KIND, error.found))
    if not faces:
        raise DataError(
            f"none of the {len(paths)} pictures of {source.path} has a UTKFace name; "
            f"{named[0][0]}: {named[0][2]}"
            if named
            else f"{source.path} holds no pictures ({len(rejected)} other files)",
            allowed=f"pictures called {rules.NAME_RULE}",
            fix="Rename the pictures so, name another source, or name a table of their labels with "
            "--labels (for FairFace: --layout fairface)",
        )
    return _scan_of(faces, rejected + named)


def scan_with_tables(source: Source, labelling: Labelling) -> Scan:
    """Find the picture of each row: the one whose path agrees with the row's in most last parts.

    Where rows agree with one picture, the one that agrees most has it; what they agree in is the
    face's name. Raises DataError where not a single one fits.
    """
    tables, codes = [file["name"] for file in labelling.about["files"]], labelling.about["codes"]
    pictures, others = _pictures_of(source)
    rejected = [row for row in others if row[0] not in tables]
    above = source.path.resolve().as_posix().split("/") if source.path.is_dir() else []
    index = PictureIndex(pictures, above)
    rows_of: defaultdict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for file in labelling.said:
        n_parts, found, name = index.find(file)
        if len(found) == 1:
            rows_of[found[0]].append((n_parts, file, name))
        else:
            why = f"{len(found)} pictures of this name" if found else "no picture of this name"
            rejected.append((printable(file), ROW_KIND, why))
    faces: dict[str, tuple[str, FaceLabels]] = {}
    name_of: dict[str, str] = {}
    for path in pictures:
        rows = sorted(rows_of.get(path, ()), key=lambda row: -row[0])
        best = [row for row in rows if row[0] == rows[0][0]]
        rejected += [
            (printable(file), ROW_KIND, "another row names the same picture")
            for _, file, _ in rows[len(best) == 1 :]
        ]
        if len(best) != 1:
            why = "several rows may name it" if best else "no row in the table of labels"
            rejected.append((printable(path), NAME_KIND, why))
            continue
        _, file, name = best[0]
        labels = labelling.said[file]
        if isinstance(labels, str):
            rejected.append((printable(file), NAME_KIND, labels))
        else:
            name_of[file] = name
            faces[name] = path, labels
    if not faces:
        reasons = [f"{file}: {why}" for file, kind, why in rejected if kind != OTHER_KIND]
        found_out = (
            f"no picture of {source.path} has a label in {', '.join(tables)} that has a class here"
            if rows_of
            else f"no row of {', '.join(tables)} names a picture of {source.path}"
        )
        raise DataError(
            f"{found_out}; {'; '.join(reasons[:2]) or 'there are no pictures'}",
            allowed="a column `file` with the pictures' paths within the source, or their names",
            fix="; ".join(codes) or ("--map says what an unknown word means" if rows_of else ""),
        )
    shortened = [[file, name] for file, name in name_of.items() if file != name]
    matching = {
        "rows_matched_by_last_parts": len(shortened),
        "example_of_last_parts": shortened[0] if shortened else [],
    }
    files = labelling.words["file"].map(lambda file: name_of.get(file, file))
    words, about = labelling.words.assign(file=files), labelling.about | matching
    return _scan_of(faces, rejected)._replace(labels=about, words=words)


def _pictures_of(source: Source) -> tuple[list[str], Rejected]:
    pictures, others = source.pictures()
    no_name = "not a picture by its name"
    return pictures, [(name, OTHER_KIND, problem or no_name) for name, problem in others]


def _scan_of(faces: Mapping[str, tuple[str, FaceLabels]], rejected: Rejected) -> Scan:
    """Put the faces, path and labels by file, in order of the files."""
    rows = [(file, *faces[file][1]) for file in sorted(faces)]
    table = pd.DataFrame(rows, columns=["file", *LABELS])
    return Scan(table, [faces[file][0] for file in table["file"]], rejected)


def gaps(labels: Mapping[str, Any], n_faces: int) -> list[str]:
    """Say in a sentence per label what the faces lack; nothing where they have all.

    n_faces: how many faces `labels["without"]` counts among.
    """
    sentences = []
    for label, n_without in labels["without"].items():
        title = "age in years" if label == "age" else TASK_TITLES[label]
        if n_without == n_faces:
            what = "no plot of years" if label == "age" else "neither trained nor evaluated here"
            sentences.append(f"No face is labelled with {title}: {what}.")
        elif n_without:
            share = f"{n_without:,} of {n_faces:,} faces ({100 * n_without / n_faces:.1f} %)"
            sentences.append(f"{share} have no {title}: left out of whatever needs it.")
    return sentences


def label_gaps(faces: FaceSet) -> list[str]:
    """Say what faces lack, which tasks have one class alone, and which rows were half matched."""
    labels = faces.manifest.get("labels")
    if labels is None:
        return []
    said = gaps(labels, len(faces.table))
    for task in TASKS:
        classes = set(faces.table[task]) - {MISSING}
        if len(classes) == 1:
            said.append(
                f"every face with a label of {TASK_TITLES[task]} is "
                f"{CLASS_NAMES[task][classes.pop()]}: networks of this task alone are always "
                "right, and are not ranked"
            )
    if n_rows := labels.get("rows_matched_by_last_parts"):
        file, name = labels["example_of_last_parts"]
        said.append(
            f"{n_rows:,} rows were matched by the last parts of their paths: {file!r} is {name}."
        )
    return said


def findings(labels: Mapping[str, Any], n_rows_without_picture: int) -> list[str]:
    """Say what is wrong with the table: unknown words, contradictions, lost pictures."""
    found = list(labels.get("codes", ()))
    entries = [(column, entry) for column, of in labels["mapping"].items() for entry in of]
    unknown = [
        (c, entry) for c, entry in entries if entry["unknown"] and entry["why"] != rules.CODE
    ]
    if unknown:
        unknown.sort(key=lambda item: (-item[1]["rows"], item[0], item[1]["word"]))
        shown = [
            f"{column} {entry['word'][:SHOWN_LETTERS]!r} ({entry['rows']:,}: {entry['why']})"
            for column, entry in unknown[:SHOWN_WORDS]
        ]
        more = f" and {len(unknown) - SHOWN_WORDS:,} more" if len(unknown) > SHOWN_WORDS else ""
        n_rows = sum(entry["rows"] for _, entry in unknown)
        known = f"{len(unknown):,} words of the labels are not known, in {n_rows:,} rows"
        found.append(f"{known}: {', '.join(shown)}{more}")
    for n, what in (
        (labels["contradicted_faces"], "faces have rows that contradict each other"),
        (n_rows_without_picture, "rows name no picture, or several"),
    ):
        if n:
            found.append(f"{n:,} {what}")
    return found
