"""Which faces a source has, labelled by their names or by tables; no picture is looked at.

Of a table: which row is which picture, and what the table leaves out. How every word was read, and
in how many rows it stands, is kept in the manifest under `labels` and said wherever numbers on such
faces are: a number is worth no more than that reading.
"""

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from benchmark.data import labels as rules
from benchmark.data.archive import Content, PictureIndex, Source, decoded, printable
from benchmark.data.dataset import NAME_KIND, OTHER_KIND, ROW_KIND, FaceSet, Rejected, Scan
from benchmark.data.labels import LABELS, FaceLabels
from benchmark.errors import DataError, and_more
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
Layout = Literal["utkface", "fairface", "table"]
"""Labels in the names of the files, in FairFace's tables beside them, in a table that is named."""
FAIRFACE_FILES: Final = ("fairface_label_train.csv", "fairface_label_val.csv")
MANGLED_AGES: Final = {
    r"(?i)^(?=.*([a-z]|[0-9]{4}))([0-9]{4}-)?"
    rf"({one}[-/. ]{other}|{other}[-/. ]{one})([/.][0-9]{{4}})?([ T]00:00.*)?$": text
    for text, one, other in (("3-9", "(0?3|mar)", "(0?9|sep)"), ("10-19", "(10|oct)", "19"))
}
"""The dates that spreadsheets make of two of FairFace's ranges (a month's name or a year is in
each: 3.9 is an age), and the ranges."""
FAIRFACE_SHEET: Final = (
    "FairFace (Kärkkäinen, Joo, WACV 2021; github.com/joojs/fairface), licence CC BY 4.0. Faces "
    "from Flickr; age range, gender and race as annotators perceived them, several to a picture. "
    "Known limits: seven words of race and nine age ranges, not all of which have a class here."
)
"""The data sheet of the layout; a source prepared otherwise brings its own."""
SHOWN_WORDS: Final = 4
SHOWN_LETTERS: Final = 40

LabelTable = tuple[dict[str, str], pd.DataFrame, set[str]]
"""Name and sha256; columns file and those of age, age_group, gender, race that it has, every cell a
str; columns whose name says that numbers are UTKFace's classes, or ages years."""


def scan_source(
    source: Source, layout: Layout | None, labels: Sequence[Path], given: rules.Given
) -> Scan:
    """Find the faces of a source: by their names, or by tables that are named or lie in it.

    layout: if left out, a table where one is named, else UTKFace's. Raises DataError where a layout
    has no table of labels, one of them is none, or no face is found.
    """
    layout = layout or ("table" if labels else "utkface")
    if layout == "utkface":
        if labels or given:
            found = f"{'--labels' if labels else '--map'} was given for faces whose names tell "
            raise DataError(f"{found}their labels", allowed="the layout table or fairface")
        return scan_names(source)
    if layout == "table" and not labels:
        raise DataError("the layout table has no table of labels", allowed="--labels")
    if missing := [path for path in labels if not path.is_file()]:
        raise DataError(f"there is no table of labels {missing[0]}", allowed=ALLOWED)
    files: list[tuple[str, Content]] = [(path.name, path.read_bytes()) for path in labels]
    if not labels:
        paths = {member.path for member in source.members()}
        inside = {path for path in paths if path.rpartition("/")[2] in FAIRFACE_FILES}
        files = sorted(source.contents(inside))
    if not files:
        fix = "Put them beside the pictures, or name them with --labels"
        raise DataError(f"{source.path} holds no {' or '.join(FAIRFACE_FILES)}", fix=fix)
    tables = [parse_label_table(*file) for file in files]
    return _scan_with_tables(source, *_read(tables, layout, given))


def parse_label_table(name: str, content: Content) -> LabelTable:
    """Read a table of labels from its bytes; raise DataError where they are none."""
    try:
        if isinstance(content, str):
            raise ValueError(content)
        if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
            raise ValueError("it is a spreadsheet; save it as CSV first")
        cells, ours = _cells_of(decoded(content))
    except (ValueError, DataError, csv.Error) as error:
        raise DataError(f"{name} is no table of labels: {error}", allowed=ALLOWED) from error
    return {"name": name, "sha256": hashlib.sha256(content).hexdigest()}, cells, ours


def _cells_of(text: str) -> tuple[pd.DataFrame, set[str]]:
    delimiter = max((",", ";", "\t"), key=text.lstrip().split("\n", 1)[0].count)
    read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    head, *rows = [row for row in read if any(cell.strip() for cell in row)] or [[]]
    if not rows:
        raise ValueError("it has no rows")
    names = [rules.normal(name).strip() for name in head]
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        plain = name.replace("utkface", "").strip()
        column = next((it for it, headings in HEADINGS.items() if plain in headings), None)
        if column in places:
            both = f"{head[places[column]]!r} and {head[place]!r}"
            raise ValueError(f"its columns {both} both say {column}")
        if column is not None:
            places[column] = place
    if "file" not in places or len(places) == 1:
        lacking = "labels" if "file" in places else "file"
        raise ValueError(f"it has no column of {lacking}, but {', '.join(map(repr, head[:12]))}")
    for number, row in enumerate(rows, start=2):
        if len(row) <= max(places.values()):
            raise ValueError(f"row {number} has {len(row)} cells: {row}")
    cells = {column: [row[place].strip() for row in rows] for column, place in places.items()}
    is_table = not OUR_TABLE - set(names)
    ours = {
        it
        for it, at in places.items()
        if is_table or "utkface" in names[at] or names[at] == "age years"
    }
    return pd.DataFrame(cells, dtype=object), ours


def _read(
    tables: Sequence[LabelTable], layout: str, given: rules.Given
) -> tuple[dict[str, Any], pd.DataFrame, dict[str, FaceLabels | str]]:
    """Give a Scan's labels and words, and for every row's file its labels or why it has none."""
    columns = [label for label in LABELS if any(label in cells for _, cells, _ in tables)]
    rows = pd.concat([cells for _, cells, _ in tables], ignore_index=True).fillna("")
    rows = written = rows[["file", *columns]]
    if layout == "fairface":
        rows = rows.replace(dict.fromkeys(("age", "age_group"), MANGLED_AGES), regex=True)
    n_dates = int((rows != written).to_numpy().sum())
    rows["file"] = rows["file"].str.replace("\\", "/", regex=False).str.removeprefix("./")
    rows = rows.drop_duplicates()
    contradicted = set(rows.loc[rows.duplicated("file"), "file"])
    words = rows[~rows["file"].isin(contradicted) & rows["file"].map(str.isprintable)]
    said: dict[str, FaceLabels | str] = dict.fromkeys(rows["file"], "its name cannot be printed")
    said |= dict.fromkeys(contradicted, "its rows contradict each other")
    readings = {label: {"": rules.Reading(MISSING)} for label in LABELS}
    mapping, codes = dict[str, list[dict[str, Any]]](), list[str]()
    for column in columns:
        is_ours = all(column in ours for _, cells, ours in tables if column in cells)
        n_rows = Counter(words[column])
        readings[column], not_read = rules.read_column(column, n_rows, given, is_ours=is_ours)
        codes += [not_read] if not_read else []
        if entries := _entries(column, n_rows, readings[column]):
            mapping[column] = entries
    for row in words.to_dict("records"):
        read = {label: of[row.get(label, "")] for label, of in readings.items()}
        by_age, by_group, gender, race = (it.label for it in read.values())
        age, age_group = read["age"].age, by_group if by_age == MISSING else by_age
        if MISSING not in (by_age, by_group) and by_age != by_group:
            age = age_group = MISSING
        labels = FaceLabels(age, age_group, gender, race)
        has_any = {*labels[1:]} != {MISSING}
        said[row["file"]] = labels if has_any else "no label that has a class here"
    # All that decides labels.
    deciding = [LABEL_RULES, layout, *(about["sha256"] for about, *_ in tables)]
    deciding += [f"{task}:{word}={label}" for (task, word), label in sorted(given.items())]
    about = {
        "rules": LABEL_RULES,
        "layout": layout,
        "source_sha256": hashlib.sha256("\n".join(deciding).encode()).hexdigest(),
        "files": [about for about, *_ in tables],
        "mapping": mapping,
        "codes": codes,
        "dates_read_back": n_dates,
        "contradicted_faces": len(contradicted),
    }
    return about, words, said


def _entries(
    column: str, n_rows: Counter[str], readings: Mapping[str, rules.Reading]
) -> list[dict[str, Any]]:
    """Say how every word is read and in how many rows it stands, the commonest first."""
    classes = [*CLASS_NAMES["age_group" if column == "age" else column], None]  # type: ignore[index]
    return [
        {
            "word": word,
            "class": classes[read.label],  # MISSING is -1, the last
            "rows": n,
            "why": read.why,
            "unknown": read.is_unknown,
        }
        for word, n in n_rows.most_common()
        if (read := readings[word]).age == MISSING  # an age in years means itself
    ]


def scan_names(source: Source) -> Scan:
    """Read the labels of every picture's name; raise DataError if there are none or two alike."""
    faces: dict[str, tuple[str, FaceLabels]] = {}
    paths: dict[str, str] = {}
    pictures, others = source.pictures()
    rejected: Rejected = [(name, OTHER_KIND, why) for name, why in others]
    for path in pictures:
        name = path.rsplit("/", 1)[-1]
        if (other := paths.setdefault(name, path)) != path:
            raise DataError(
                f"two pictures have the name {name!r}: {other} and {path}",
                allowed="each base name once, for faces are known by it",
                source=str(source.path),
                fix="Name the one folder in it that holds each face once",
            )
        try:
            faces[name] = path, rules.parse_name(name)
        except DataError as error:
            rejected.append((printable(name), NAME_KIND, error.found))
    if not faces:
        file, _, why = rejected[-1]
        raise DataError(
            f"none of the {len(paths)} pictures of {source.path} has a UTKFace name; {file}: {why}",
            allowed=f"pictures called {rules.NAME_RULE}",
            fix="Rename the pictures so, name another source, or name a table of their labels with "
            "--labels (for FairFace: --layout fairface)",
        )
    return _scan_of(faces, rejected)


def _scan_with_tables(
    source: Source, about: dict[str, Any], words: pd.DataFrame, said: Mapping[str, FaceLabels | str]
) -> Scan:
    """Find the picture of each row: the one whose path agrees with the row's in most last parts,
    which are the face's name. Where several rows agree with a picture, the one that agrees most has
    it. Raises DataError where not a single one fits."""
    tables = [file["name"] for file in about["files"]]
    pictures, others = source.pictures()
    rejected = [(name, OTHER_KIND, why) for name, why in others if name not in tables]
    # Two folders above the source tell train/1.jpg from val/1.jpg where one of them is the source.
    above = source.path.resolve().parts[-2:] if source.path.is_dir() else ()
    index, rows_of = PictureIndex(pictures, above), defaultdict[str, list[Any]](list)
    for file in said:
        n_parts, found, name = index.find(file)
        if len(found) == 1:
            rows_of[found[0]].append((n_parts, file, name))
        else:
            why = f"{len(found)} pictures of this name" if found else "no picture of this name"
            rejected.append((printable(file), ROW_KIND, why))
    faces: dict[str, tuple[str, FaceLabels]] = {}
    name_of: dict[str, str] = {}
    for path in pictures:
        rows = sorted(rows_of[path], reverse=True)  # by n_parts
        n_best = sum(row[0] == rows[0][0] for row in rows)
        for _, file, _ in rows[n_best == 1 :]:
            rejected.append((printable(file), ROW_KIND, "another row names the same picture"))
        if n_best != 1:
            why = "several rows may name it" if rows else "no row in the table of labels"
            rejected.append((printable(path), NAME_KIND, why))
        elif isinstance(labels := said[rows[0][1]], str):
            rejected.append((printable(rows[0][1]), NAME_KIND, labels))
        else:
            _, file, name = rows[0]
            name_of[file], faces[name] = name, (path, labels)
    if not faces:
        reasons = [f"{file}: {why}" for file, kind, why in rejected if kind != OTHER_KIND]
        raise DataError(
            f"no picture of {source.path} has a row in {', '.join(tables)} and a label that has a "
            f"class here; {'; '.join(reasons[:2])}",
            allowed="a column `file` with the pictures' paths within the source, or their names",
            fix="; ".join(about["codes"]) or "--map says what an unknown word means",
        )
    about["rows_matched_by_last_parts"] = sum(file != name for file, name in name_of.items())
    words = words.assign(file=words["file"].map(name_of))
    return _scan_of(faces, rejected)._replace(labels=about, words=words)


def _scan_of(faces: Mapping[str, tuple[str, FaceLabels]], rejected: Rejected) -> Scan:
    rows = [(file, *faces[file][1]) for file in sorted(faces)]
    table = pd.DataFrame(rows, columns=["file", *LABELS])
    return Scan(table, [faces[file][0] for file in table["file"]], rejected)


def gaps(labels: Mapping[str, Any], n_faces: int) -> list[str]:
    """Say in a sentence per label how many of n_faces lack it; nothing where all have it."""
    return [
        f"{n:,} of {n_faces:,} faces ({100 * n / n_faces:.1f} %) have no "
        f"{TASK_TITLES.get(label, 'age in years')}: left out of whatever needs it."
        for label, n in labels["without"].items()
        if n
    ]


def label_gaps(faces: FaceSet) -> list[str]:
    """Say what faces lack, which tasks have one class alone, and which rows were half matched."""
    labels = faces.manifest.get("labels")
    if labels is None:
        return []
    said = gaps(labels, len(faces.table))
    for task in TASKS:
        if len(classes := set(faces.table[task]) - {MISSING}) == 1:
            whose = f"every face with a label of {TASK_TITLES[task]} is"
            alone = "networks of this task alone are always right, and are not ranked"
            said.append(f"{whose} {CLASS_NAMES[task][classes.pop()]}: {alone}")
    if n_dates := labels.get("dates_read_back"):
        said.append(f"{n_dates:,} dates that a spreadsheet made of ages are read as 3-9 or 10-19.")
    if n_rows := labels.get("rows_matched_by_last_parts"):
        said.append(f"{n_rows:,} rows were matched by the last parts of their paths.")
    return said


def findings(labels: Mapping[str, Any], n_rows_without_picture: int) -> list[str]:
    """Say what is wrong with the table: unknown words, contradictions, lost pictures."""
    found = list(labels.get("codes", ()))
    unknown = sorted(
        (-n, f"{column} {entry['word'][:SHOWN_LETTERS]!r} ({n:,}: {entry['why']})")
        for column, entries in labels["mapping"].items()
        for entry in entries
        if entry["unknown"] and entry["why"] != rules.CODE and (n := entry["rows"])
    )
    if unknown:
        known = f"{len(unknown):,} words of the labels are not known"
        n_rows, words = -sum(n for n, _ in unknown), [word for _, word in unknown]
        found.append(f"{known}, in {n_rows:,} rows: {and_more(words, SHOWN_WORDS)}")
    others = {
        "faces have rows that contradict each other": labels["contradicted_faces"],
        "rows name no picture, or several": n_rows_without_picture,
    }
    return found + [f"{n:,} {what}" for what, n in others.items() if n]
