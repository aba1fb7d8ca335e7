"""Label tables: known layouts, reading any encoding, and mapping words to classes.

From the words of a table of labels to our classes: what maps, what does not, and why.

A word maps only where it says one class whole. An age range that reaches into two age groups has no
class here: such a face has no truth of that task. Nothing is guessed; `--map` decides otherwise.

The layouts of face data sets that are known by name: where their labels are, and in what words.

DATA SHEET of FairFace

Name        FairFace (108,501 JPEG; 86,744 for training and 10,954 for validation are published)
Website     https://github.com/joojs/fairface
Published   Kärkkäinen, Joo: FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age
            for Bias Measurement and Mitigation, WACV 2021
Licence     CC BY 4.0
Label       fairface_label_train.csv and fairface_label_val.csv: file, age (nine ranges), gender
            (Male, Female), race (seven words), service_test
Here        East Asian and Southeast Asian are Asian; Middle Eastern and Latino_Hispanic are Others,
            by UTKFace's rule. 0-2 and 3-9 are 0-14, 30-39 is 26-40, 50-59 is 41-60, more than 70 is
            61+. 10-19, 20-29, 40-49 and 60-69 reach into two of our age groups: no age group is
            said of these faces. Its own division into training and validation is not used: the
            split is ours, by the usual rule
Read        here: 5,000 faces of its validation part at 112 px, docs/DATA.md; and drawn faces
            in its layout

Reading a table of labels: any usual encoding and delimiter; what is no such table is refused.

What its words mean is for benchmark.data.label_tables, whose faces they are for
benchmark.data.labelled.
"""

import csv
import datetime
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from benchmark.data.labels import AGE_YEARS, age_group_of
from benchmark.errors import DataError
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TaskName


@dataclass(frozen=True)
class Layout:
    """How a data set says who is in it."""

    name: str
    label_files: tuple[str, ...] = ()
    """Base names of the tables of labels that lie in the source; empty: they are named, or none."""
    age_ranges: tuple[str, ...] = ()
    """The ranges that its ages are given in; empty: years, or ranges that are not known before."""


UTKFACE: Final = Layout("utkface")
"""Labels in the file names (benchmark.data.labels)."""
TABLE: Final = Layout("table")
"""Any folder or archive with a table of labels: file, and any of age, age_group, gender, race."""
FAIRFACE: Final = Layout(
    "fairface",
    label_files=("fairface_label_train.csv", "fairface_label_val.csv"),
    age_ranges=(
        *("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"),
    ),
)
LAYOUTS: Final = {layout.name: layout for layout in (UTKFACE, FAIRFACE, TABLE)}


def layout_called(name: str | None, *, has_labels: bool) -> Layout:
    """Give the layout asked for; without a name, a table where one is given, else UTKFace's."""
    if name is None:
        return TABLE if has_labels else UTKFACE
    if name not in LAYOUTS:
        raise DataError(f"there is no layout {name!r}", allowed=", ".join(LAYOUTS))
    layout = LAYOUTS[name]
    if layout is UTKFACE and has_labels:
        raise DataError(
            "labels were given for the layout utkface, whose file names tell them",
            allowed="--labels with the layout table or fairface",
        )
    if layout is TABLE and not has_labels:
        raise DataError(
            "the layout table was asked for without a table of labels",
            allowed="--labels FILE.csv",
        )
    return layout


HEADINGS: Final[dict[str, tuple[str, ...]]] = {
    "file": ("file", "filename", "file name", "image", "img name", "path", "image path"),
    "age": ("age", "age years"),
    "age_group": ("age group", "age range", "age bin"),
    "gender": ("gender", "sex"),
    "race": ("race", "ethnicity"),
}
"""Column, and how tables head it: lower case, with a space for `_` and `-`."""
ALLOWED: Final = "columns file and one or more of age, age_group, gender, race"

MAX_BYTES: Final = 256 << 20


@dataclass(frozen=True, eq=False)
class LabelFile:
    """A table of labels as text, by our names of its columns."""

    name: str
    sha256: str
    encoding: str
    cells: pd.DataFrame
    """Columns file and those of age, age_group, gender, race that it has; every cell a str."""


def read_label_file(path: Path) -> LabelFile:
    """Read a table of labels from disk; raise DataError where it is none."""
    if not path.is_file():
        raise DataError(f"there is no table of labels {path}", allowed=f"a CSV file with {ALLOWED}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes", allowed=f"up to {MAX_BYTES:,}"
            )
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return parse_label_file(path.name, content)


def parse_label_file(name: str, content: bytes) -> LabelFile:
    """Read a table of labels from its bytes; raise DataError where they are none."""
    text, encoding = _decoded(name, content)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)))
    except csv.Error as error:
        raise _no_table(name, f"it cannot be read as CSV: {error}") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise _no_table(name, "it has no rows" if rows else "it is empty")
    columns = _columns(name, rows[0])
    short = next((i for i, row in enumerate(rows) if len(row) <= max(columns.values())), None)
    if short is not None:
        raise _no_table(name, f"row {short + 1} has {len(rows[short])} cells: {rows[short]}")
    cells = {ours: [row[place].strip() for row in rows[1:]] for ours, place in columns.items()}
    digest = hashlib.sha256(content).hexdigest()
    return LabelFile(name, digest, encoding, pd.DataFrame(cells, dtype=object))


def _decoded(name: str, content: bytes) -> tuple[str, str]:
    """Decode by the mark at its beginning, else as UTF-8, else as Windows writes Western Europe."""
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise _no_table(name, "it is a spreadsheet", "Save it as CSV first")
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    marked = next((marks[mark] for mark in marks if content.startswith(mark)), None)
    for encoding in (marked,) if marked else ("utf-8", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            raise _no_table(name, "it holds bytes that no text has")
        return text, encoding
    raise _no_table(name, "its encoding is none of UTF-8, UTF-16 and Windows-1252")


def _delimiter(text: str) -> str:
    head = text.lstrip().split("\n", 1)[0]
    return max((",", ";", "\t"), key=head.count)


def _columns(name: str, heads: list[str]) -> dict[str, int]:
    """Find where our columns stand; one that is there twice under whatever heading is refused."""
    normal = [" ".join(head.replace("_", " ").replace("-", " ").lower().split()) for head in heads]
    found: dict[str, int] = {}
    for ours, headings in HEADINGS.items():
        places = [place for place, head in enumerate(normal) if head in headings]
        if len(places) > 1:
            both = " and ".join(repr(heads[place]) for place in places)
            raise _no_table(name, f"its columns {both} both say {ours}")
        if places:
            found[ours] = places[0]
    lacking = []
    if "file" not in found:
        lacking.append("file")
    if not found.keys() - {"file"}:
        lacking.append("age, age_group, gender or race")
    if lacking:
        shown = ", ".join(repr(head) for head in heads[:12])
        raise _no_table(name, f"it has no column {' and none of '.join(lacking)}, but {shown}")
    return found


def _no_table(name: str, problem: str, fix: str = "") -> DataError:
    return DataError(
        f"{name} is no table of labels: {problem}",
        allowed=f"a CSV file with {ALLOWED}",
        fix=fix or "Name its columns so in its first line",
    )


WORDS: Final[dict[TaskName, dict[str, int]]] = {
    "age_group": {},
    "gender": {"male": 0, "m": 0, "man": 0, "female": 1, "f": 1, "woman": 1},
    "race": {
        "white": 0,
        "black": 1,
        "asian": 2,
        "east asian": 2,
        "southeast asian": 2,
        "indian": 3,
        "other": 4,
        "others": 4,
        "middle eastern": 4,
        "latino hispanic": 4,
        "latino": 4,
        "hispanic": 4,
    },
}
"""Lower case, with a space for `_` and `-`. That Hispanic, Latino and Middle Eastern people are
`Others` is UTKFace's own rule (benchmark.data.labels, the data sheet)."""

NOTHING_SAID: Final = frozenset(("", "na", "n/a", "nan", "none", "null", "?"))

MONTHS: Final = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
SERIAL_DAY_0: Final = datetime.date(1899, 12, 30)
"""Day 0 of a spreadsheet's dates from March 1900 on; before, it counts a day that never was."""

Given = Mapping[tuple[TaskName, str], int]
"""What --map says: class by task and normal word; MISSING where a word is to have none."""


@dataclass(frozen=True)
class Reading:
    """What one cell says of a task."""

    label: int
    """A class, or MISSING."""
    why: str = ""
    """Why it is missing, in words that many faces share."""
    age: int = MISSING
    """Years, where the cell tells them."""
    repaired: str = ""
    """What a spreadsheet's date was before it was one."""
    is_unknown: bool = False
    """A word that nobody told us of, which is a finding; not a gap that is known."""


def normal(word: str) -> str:
    """Write a word as the tables of words have it."""
    return re.sub(r"[\s_-]+", " ", word.strip().lower())


def read_word(task: TaskName, cell: str, given: Given) -> Reading:
    """Read gender or race: a name of a class, its number, or a word that is known."""
    word = normal(cell)
    if (task, word) in given:
        return _as_given(task, word, given)
    if word in NOTHING_SAID:
        return Reading(MISSING, "nothing is said")
    names = CLASS_NAMES[task]
    if re.fullmatch(r"[0-9](\.0*)?", word) and int(float(word)) < len(names):
        return Reading(int(float(word)))
    known = {name.lower(): label for label, name in enumerate(names)} | WORDS[task]
    if word in known:
        return Reading(known[word])
    return Reading(MISSING, "not a word that is known", is_unknown=True)


def read_age(cell: str, given: Given, ranges: tuple[str, ...] = ()) -> Reading:
    """Read an age in years, or a range of them, into years and age group.

    ranges: the ranges that the layout is known to have; a spreadsheet's date that can have been
    only one of them is read as that one.
    """
    word = normal(cell)
    if ("age_group", word) in given:
        return _as_given("age_group", word, given)
    if word in NOTHING_SAID:
        return Reading(MISSING, "nothing is said")
    if re.fullmatch(r"[0-9]{1,3}(\.0*)?", word):
        return _years(int(float(word)))
    if (span := _span(word)) is not None:
        return _range(*span)
    if (was := _before_the_date(cell.strip(), ranges)) is not None:
        read = read_age(was, given, ranges)
        return Reading(read.label, read.why, read.age, was, read.is_unknown)
    if _parts_of_date(cell.strip()) is not None:
        return Reading(MISSING, "a date that a spreadsheet made of an age", is_unknown=True)
    return Reading(MISSING, "not an age", is_unknown=True)


def _as_given(task: TaskName, word: str, given: Given) -> Reading:
    label = given[task, word]
    return Reading(label, "left out by --map" if label == MISSING else "")


def read_age_group(cell: str, given: Given, ranges: tuple[str, ...] = ()) -> Reading:
    """Read an age group: one of ours, by name or by number 0 to 4, or a range of years."""
    if re.fullmatch(r"[0-4](\.0*)?", cell.strip()) and ("age_group", normal(cell)) not in given:
        return Reading(int(float(cell)))
    read = read_age(cell, given, ranges)
    return Reading(read.label, read.why, MISSING, read.repaired, read.is_unknown)


def _years(age: int) -> Reading:
    if age == 0:
        # The bins begin above 0; a baby is in the first all the same, but its years have no row.
        return Reading(0)
    if age not in AGE_YEARS:
        return Reading(MISSING, f"an age above {AGE_YEARS[-1]}", is_unknown=True)
    return Reading(age_group_of(age), age=age)


def _span(word: str) -> tuple[int, int] | None:
    """Give first and last year of `20 29`, `70+`, `more than 70`, `61 plus`; None for others."""
    top = AGE_YEARS[-1]
    if found := re.fullmatch(r"\(?([0-9]{1,3})(?: | ?– ?| to |, ?)([0-9]{1,3})[\])]?", word):
        low, high = int(found[1]), int(found[2])
        return (low, high) if low <= high <= top else None
    if found := re.fullmatch(r"([0-9]{1,3}) ?(?:\+|plus|and over|or more)", word):
        return int(found[1]), top
    if found := re.fullmatch(r"(?:more than|over|above|>|>=|≥) ?([0-9]{1,3})", word):
        return int(found[1]), top
    return None


def _range(low: int, high: int) -> Reading:
    first, last = age_group_of(max(low, 1)), age_group_of(max(high, 1))
    if first == last:
        return Reading(first)
    names = CLASS_NAMES["age_group"]
    return Reading(MISSING, f"reaches from {names[first]} into {names[last]}")


def _before_the_date(cell: str, ranges: tuple[str, ...]) -> str | None:
    """Give what a spreadsheet made a date of, where it can have been one thing only."""
    numbers = _parts_of_date(cell)
    if numbers is None:
        return None
    year, pairs = numbers
    if year == 1900:
        ages = {_serial(year, month, day) for month, day in pairs}
        return str(ages.pop()) if len(ages) == 1 else None
    known = {tuple(span) for text in ranges if (span := _span(normal(text))) is not None}
    fits = {tuple(sorted(pair)) for pair in pairs} & known
    return "{}-{}".format(*fits.pop()) if len(fits) == 1 else None


def _serial(year: int, month: int, day: int) -> int:
    days = (datetime.date(year, month, day) - SERIAL_DAY_0).days
    return days - 1 if month < 3 else days


def _parts_of_date(cell: str) -> tuple[int | None, list[tuple[int, int]]] | None:
    """Give year, and the pairs of month and day that a date may mean; None for what is no date."""
    cell = re.sub(r"[ T]00:00(:00)?(\.0+)?$", "", cell)
    months = "|".join(MONTHS)
    if found := re.fullmatch(rf"([0-9]{{1,2}})[- ]({months})", cell, re.IGNORECASE):
        return None, [(MONTHS.index(found[2].lower()) + 1, int(found[1]))]
    if found := re.fullmatch(rf"({months})[- ]([0-9]{{1,2}})", cell, re.IGNORECASE):
        return None, [(MONTHS.index(found[1].lower()) + 1, int(found[2]))]
    if found := re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", cell):
        return _dated(int(found[1]), [(int(found[2]), int(found[3]))])
    if found := re.fullmatch(r"([0-9]{1,2})[/.]([0-9]{1,2})[/.]([0-9]{4})", cell):
        a, b = int(found[1]), int(found[2])
        return _dated(int(found[3]), sorted({(a, b), (b, a)}))
    return None


def _dated(
    year: int, pairs: list[tuple[int, int]]
) -> tuple[int | None, list[tuple[int, int]]] | None:
    real = []
    for month, day in pairs:
        try:
            datetime.date(year, month, day)
        except ValueError:
            continue
        real.append((month, day))
    return (year, real) if real else None


def parse_map(texts: Sequence[str]) -> dict[tuple[TaskName, str], int]:
    """Read what --map says, `race:latino=Others` or `age_group:10-19=none`.

    Raises DataError for a task or a class that there is not.
    """
    given: dict[tuple[TaskName, str], int] = {}
    for text in texts:
        found = re.fullmatch(r"(age_group|gender|race):(.*)=([^=]*)", text, re.DOTALL)
        if found is None:
            raise DataError(f"--map is {text!r}", allowed="TASK:WORD=CLASS, as race:latino=Others")
        task: TaskName = found[1]  # type: ignore[assignment]
        names = [name.lower() for name in CLASS_NAMES[task]]
        wanted = found[3].strip().lower()
        if wanted not in (*names, "none"):
            raise DataError(
                f"--map {text!r} names a {TASK_TITLES[task]} that there is not",
                allowed=", ".join((*CLASS_NAMES[task], "none")),
            )
        given[task, normal(found[2])] = MISSING if wanted == "none" else names.index(wanted)
    return given
