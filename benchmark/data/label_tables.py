"""Tables of labels: layouts that are known by name, files in any usual form, words and classes.

A word maps only where it says one class whole. An age range that reaches into two age groups has no
class here: such a face has no truth of that task. Nothing is guessed; `--map` decides otherwise.
Which row is which picture is for benchmark.data.labelled.

FairFace: East and Southeast Asian are Asian; Middle Eastern and Latino_Hispanic are Others, by
UTKFace's rule. 0-2 and 3-9 are 0-14, 30-39 is 26-40, 50-59 is 41-60, more than 70 is 61+. 10-19,
20-29, 40-49 and 60-69 reach into two of our age groups: no age group is said of these faces. Its
own division into training and validation is not used.
"""

import contextlib
import csv
import datetime
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, cast

import pandas as pd

from benchmark.data.archive import Source, decoded
from benchmark.data.labels import AGE_YEARS, age_group_of
from benchmark.errors import DataError
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TaskName

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
ALLOWED: Final = "a CSV file with columns file and one or more of age, age_group, gender, race"
LAYOUTS: Final = ("utkface", "fairface", "table")
"""Labels in the names of the files, in FairFace's tables beside them, in a table that is named."""
FAIRFACE_SHEET: Final = (
    "FairFace (Kärkkäinen, Joo, WACV 2021; github.com/joojs/fairface), licence CC BY 4.0. Faces "
    "from Flickr; age range, gender and race as annotators perceived them, several to a picture. "
    "Known limits: seven words of race and nine age ranges, not all of which have a class here."
)
"""The data sheet of the layout; a source prepared otherwise brings its own."""
FAIRFACE_FILES: Final = ("fairface_label_train.csv", "fairface_label_val.csv")
FAIRFACE_AGES: Final = (
    *("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"),
)
FAIRFACE_RACES: Final = (
    *("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian"),
    "Middle Eastern",
)
ADIENCE_AGES: Final = ("0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60-100")
OUR_TABLE: Final = frozenset(("sha256", "age group", "label conflict"))
"""Columns by which a table.csv of a prepared data set is known; its numbers are ours."""
WORDS: Final[dict[str, dict[str, int]]] = {
    "gender": {"male": 0, "m": 0, "man": 0, "female": 1, "f": 1, "woman": 1},
    "race": {name.lower(): label for label, name in enumerate(CLASS_NAMES["race"])}
    | {"east asian": 2, "southeast asian": 2, "other": 4}
    | dict.fromkeys(("middle eastern", "latino hispanic", "latino", "hispanic"), 4),
}
"""Lower case, with a space for `_` and `-`. That Hispanic, Latino and Middle Eastern people are
`Others` is UTKFace's own rule (the data sheet in labels.py)."""
SCHEMES: Final[dict[str, dict[str, dict[str, str]]]] = {
    "UTKFace": {
        task: {str(label): name for label, name in enumerate(names)}
        for task, names in CLASS_NAMES.items()
    },
    "IMDB-WIKI": {"gender": {"0": "female", "1": "male"}},
    "ISO 5218": {"gender": {"1": "male", "2": "female", "0": "", "9": ""}},
    "CelebA (its column Male)": {"gender": {"1": "male", "-1": "female"}},
    "RAF-DB": {
        "age_group": {"0": "0-3", "1": "4-19", "2": "20-39", "3": "40-69", "4": "70+"},
        "gender": {"0": "male", "1": "female", "2": ""},
        "race": {"0": "White", "1": "Black", "2": "Asian"},
    },
    "FairFace": {
        "age_group": dict(zip("012345678", FAIRFACE_AGES, strict=True)),
        "gender": {"0": "male", "1": "female"},
        "race": dict(zip("0123456", FAIRFACE_RACES, strict=True)),
    },
    "Adience": {
        "age_group": dict(zip("01234567", ADIENCE_AGES, strict=True)),
        "gender": {"0": "male", "1": "female"},
    },
    "decades": {"age_group": {str(n): f"{10 * n}-{10 * n + 9}" for n in range(11)}},
    "decades by their first year": {
        "age_group": {str(10 * n): f"{10 * n}-{10 * n + 9}" for n in range(11)}
    },
    "MORPH": {
        "race": {"w": "White", "b": "Black", "a": "Asian", "h": "Hispanic", "o": "Others"},
        "gender": {"m": "male", "f": "female"},
    },
}
"""What public data sets code their labels as: by data set, task and code; empty: nothing said."""
CODE: Final = "a number that may be of another scheme"
NOTHING_SAID: Final = frozenset(("", "na", "n/a", "nan", "none", "null", "?"))
DATES: Final = (
    *("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m.%d.%Y"),
    *("%d-%b", "%b-%d", "%d %b", "%b %d"),
)
"""What spreadsheets make of a range of ages."""

Given = Mapping[tuple[TaskName, str], int]
"""What --map says: class by task and normal word; MISSING where a word is to have none."""


@dataclass(frozen=True, eq=False)
class LabelFile:
    """A table of labels as text.

    cells: columns file and those of age, age_group, gender, race that it has, every cell a str.
    ours: columns whose name says that numbers are UTKFace's classes, or that ages are years.
    """

    name: str
    sha256: str
    encoding: str
    cells: pd.DataFrame
    ours: frozenset[str]


@dataclass(frozen=True, eq=False)
class Labelling:
    """Tables of labels and how their words are to be read, before any picture is looked at."""

    layout: str
    files: tuple[LabelFile, ...]
    given: Given = field(default_factory=dict)

    @property
    def source_sha256(self) -> str:
        """Digest of all that decides labels: tables, layout, rules, --map."""
        said = [LABEL_RULES, self.layout, *(file.sha256 for file in self.files)]
        said += [f"{task}:{word}={label}" for (task, word), label in sorted(self.given.items())]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()


def labelling_for(
    source: Source, layout: str | None, labels: Sequence[Path], given: Given
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
            raise DataError(
                f"{'--labels' if labels else '--map'} was given for faces whose names tell their "
                "labels",
                allowed="--labels and --map with the layout table or fairface",
            )
        return None
    if labels:
        if absent := [path for path in labels if not path.is_file()]:
            raise DataError(f"there is no table of labels {absent[0]}", allowed=ALLOWED)
        read = [parse_label_file(path.name, path.read_bytes()) for path in labels]
        return Labelling(layout, tuple(read), given)
    if layout == "table":
        raise DataError("the layout table has no table of labels", allowed="--labels FILE.csv")
    members = source.members()
    there = {member.path for member in members if member.path.rpartition("/")[2] in FAIRFACE_FILES}
    if not there:
        raise DataError(
            f"{source.path} holds no {' or '.join(FAIRFACE_FILES)}",
            fix="Put them beside the pictures, or name them with --labels",
        )
    found = [parse_label_file(path, content) for path, content in sorted(source.contents(there))]
    return Labelling(layout, tuple(found), given)


def parse_label_file(name: str, content: bytes | str) -> LabelFile:
    """Read a table of labels from its bytes; raise DataError where they are none."""

    def no_table(problem: str) -> DataError:
        return DataError(f"{name} is no table of labels: {problem}", allowed=ALLOWED)

    if isinstance(content, str):
        raise no_table(content)
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise no_table("it is a spreadsheet; save it as CSV first")
    try:
        text, encoding = decoded(content)
        delimiter = max((",", ";", "\t"), key=text.lstrip().split("\n", 1)[0].count)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except (DataError, csv.Error) as error:
        raise no_table(str(error)) from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise no_table("it has no rows" if rows else "it is empty")
    heads = [normal(head).strip() for head in rows[0]]
    plain = [re.sub(r" ?utkface ?", "", head) for head in heads]
    places: dict[str, int] = {}
    ours = set(HEADINGS) if set(heads) >= OUR_TABLE else set()
    for column, headings in HEADINGS.items():
        found = [place for place, head in enumerate(plain) if head in headings]
        if len(found) > 1:
            both = " and ".join(repr(rows[0][place]) for place in found)
            raise no_table(f"its columns {both} both say {column}")
        for place in found:
            places[column] = place
            if "utkface" in heads[place] or heads[place] == "age years":
                ours.add(column)
    if "file" not in places or len(places) == 1:
        lacking = "labels" if "file" in places else "file"
        shown = ", ".join(repr(head) for head in rows[0][:12])
        raise no_table(f"it has no column of {lacking}, but {shown}")
    for number, row in enumerate(rows, start=1):
        if len(row) <= max(places.values()):
            raise no_table(f"row {number} has {len(row)} cells: {row}")
    cells = {column: [row[place].strip() for row in rows[1:]] for column, place in places.items()}
    digest = hashlib.sha256(content).hexdigest()
    return LabelFile(name, digest, encoding, pd.DataFrame(cells, dtype=object), frozenset(ours))


class Reading(NamedTuple):
    """What one cell says of a task: a class or MISSING, and why it is missing.

    age: years, where the cell tells them. repaired: what a spreadsheet's date was before it was
    one. is_unknown: a word that has no known meaning, a finding; not a gap that is known.
    """

    label: int
    why: str = ""
    age: int = MISSING
    repaired: str = ""
    is_unknown: bool = False


def normal(word: str) -> str:
    """Write a word as the tables of words have it."""
    return re.sub(r"[\s_-]+", " ", word.strip().lower())


def read_label(column: str, cell: str, given: Given, ranges: Sequence[str] = ()) -> Reading:
    """Read a cell of the column age, age_group, gender or race; a number of one of the last three
    as UTKFace's: whether it is that is asked of the whole column (read_column).

    An age may be years or a range of them, an age group one of ours by name or number too.
    ranges: the ranges that the layout is known to have; a spreadsheet's date that can have been
    only one of them is read as that one.
    """
    task, word = cast(TaskName, "age_group" if column == "age" else column), normal(cell)
    if (label := given.get((task, word))) is not None:
        return Reading(label, "left out by --map" if label == MISSING else "")
    if word in NOTHING_SAID:
        return Reading(MISSING, "nothing is said")
    if column != "age" and (code := _code(word)):
        is_ours = code in SCHEMES["UTKFace"][task]
        return Reading(int(code)) if is_ours else Reading(MISSING, CODE, is_unknown=True)
    if column in WORDS:
        if word in WORDS[column]:
            return Reading(WORDS[column][word])
        return Reading(MISSING, "not a word that is known", is_unknown=True)
    read = _read_age(cell.strip(), word, given, ranges)
    return read if column == "age" else read._replace(age=MISSING)


def _code(word: str) -> str:
    """Give the number that a word of the tables is, `-1` and `2` for ` 1` and `2.0`; else empty."""
    found = re.fullmatch(r"( ?)([0-9]{1,9})(?:[.]([0-9]*))?", word)
    if found is None:
        return ""
    fraction = f".{found[3]}" if (found[3] or "").strip("0") else ""
    return f"{'-' if found[1] else ''}{int(found[2])}{fraction}"


def read_column(
    column: str,
    words: Iterable[str],
    given: Given,
    ranges: Sequence[str] = (),
    *,
    is_ours: bool = False,
) -> tuple[dict[str, Reading], str]:
    """Read the words of a column; numbers as classes only where they can be no other scheme's.

    is_ours: the column's name says so; numbers that are no classes here are not read all the same.
    Numbers under `age` are years, unless they are a row of codes from 0 or 1 on. Gives the readings
    and, where numbers or letters are not read, a sentence with the schemes that they may be of and
    the --map options of each.
    """
    task = "age_group" if column == "age" else column
    readings = {word: read_label(column, word, given, ranges) for word in words}
    free = [word for word in readings if (task, normal(word)) not in given]
    codes = {word: code for word in free if (code := _code(normal(word)))}
    numbers = set(codes.values())
    meant = _meanings(task, numbers)
    if column == "age":
        in_a_row = ("0123456789"[: len(numbers)], "123456789"[: len(numbers)])
        are_read = is_ours or len(numbers) < 3 or "".join(sorted(numbers)) not in in_a_row
    else:
        ours = meant.get("UTKFace")
        are_read = ours is not None and (is_ours or all(it == ours for it in meant.values()))
    if numbers and not are_read:
        readings |= dict.fromkeys(codes, Reading(MISSING, CODE, is_unknown=True))
        what = f"The numbers of {column} ({', '.join(sorted(numbers, key=float)[:12])})"
    else:
        letters = {normal(word) for word, read in readings.items() if read.is_unknown}
        if not (meant := _meanings(task, letters)):
            return readings, ""
        what = f"The letters of {column} ({', '.join(sorted(letters))})"
    schemes: dict[str, list[str]] = {}
    for name, known in meant.items():
        options = " ".join(f"--map {task}:{code}={known[code]}" for code in sorted(known))
        schemes.setdefault(options, []).append(name)
    proposed = "; ".join(f"{', '.join(names)}: {options}" for options, names in schemes.items())
    proposed = proposed or f"no scheme that is known; --map {task}:NUMBER=CLASS for each"
    by_name = ", or years: name the column age_years" if column == "age" else ""
    if "UTKFace" in meant and column != "age":
        by_name = f"; UTKFace's are read, too, in a column named {column}_utkface"
    reason = f"{what} are not read, because they may be of another scheme: {proposed}{by_name}"
    return readings, reason


def _meanings(task: str, codes: set[str]) -> dict[str, dict[str, str]]:
    """Give for each scheme that has all these codes the class, or none, that each lies in whole."""
    column = "age" if task == "age_group" else task
    names = [*CLASS_NAMES[cast(TaskName, task)], "none"]  # MISSING is -1, the last
    return {
        name: {code: names[read_label(column, scheme[task][code], {}).label] for code in codes}
        for name, scheme in SCHEMES.items()
        if codes and task in scheme and codes <= scheme[task].keys()
    }


def _read_age(cell: str, word: str, given: Given, ranges: Sequence[str]) -> Reading:
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]*)?", word):
        age = int(float(word))  # full years, as ages are counted
        if age > AGE_YEARS[-1]:
            return Reading(MISSING, f"an age above {AGE_YEARS[-1]}", is_unknown=True)
        # The bins begin above 0; a baby is in the first all the same, but its years have no row.
        return Reading(age_group_of(age), age=age) if age else Reading(0)
    if span := _span(word):
        first, last = (age_group_of(max(age, 1)) for age in span)
        names = CLASS_NAMES["age_group"]
        if first == last:
            return Reading(first)
        return Reading(MISSING, f"reaches from {names[first]} into {names[last]}")
    dates: set[datetime.date] = set()
    cell = re.sub(r"[ T]00:00(:00)?(\.0+)?$", "", cell)
    for form in DATES:
        with contextlib.suppress(ValueError):
            text, form = (cell, form) if "%Y" in form else (f"{cell} 2024", f"{form} %Y")
            dates.add(datetime.datetime.strptime(text, form).date())  # noqa: DTZ007
    if not dates:
        return Reading(MISSING, "not an age", is_unknown=True)
    known = {span for text in ranges if (span := _span(normal(text)))}
    pairs = {(min(day.month, day.day), max(day.month, day.day)) for day in dates} & known
    if len(pairs) != 1:
        return Reading(MISSING, "a date that a spreadsheet made of an age", is_unknown=True)
    was = "{}-{}".format(*pairs.pop())
    return read_label("age", was, given, ranges)._replace(repaired=was)


def _span(word: str) -> tuple[int, int] | None:
    """Give first and last year of `20 29`, `70+`, `more than 70`, `under 15`; None for others."""
    top = AGE_YEARS[-1]
    if found := re.fullmatch(r"\(?([0-9]{1,3})(?: | ?– ?| to |, ?)([0-9]{1,3})[\])]?", word):
        return (int(found[1]), int(found[2])) if int(found[1]) <= int(found[2]) <= top else None
    years = "([0-9]{1,3})"
    for form, is_lowest, more in (
        (rf"{years} ?(?:\+|plus|(?:and|or) (?:over|older|above|more|up))", True, 0),
        (rf"(?:>=|≥|at least|from) ?{years}", True, 0),
        (rf"(?:>|more than|over|above|older than) ?{years}", True, 1),
        (rf"{years} ?(?:and|or) (?:under|younger|below|less)", False, 0),
        (rf"(?:<=|≤|at most|up to) ?{years}", False, 0),
        (rf"(?:<|less than|under|below|younger than) ?{years}", False, -1),
    ):
        if found := re.fullmatch(form, word):
            age = int(found[1]) + more
            return ((age, top) if is_lowest else (0, age)) if 0 <= age <= top else None
    return None


def parse_map(texts: Sequence[str]) -> dict[tuple[TaskName, str], int]:
    """Read what --map says, `race:latino=Others` or `age_group:10-19=none`.

    Raises DataError for a task or a class that there is not.
    """
    given: dict[tuple[TaskName, str], int] = {}
    for text in texts:
        found = re.fullmatch(r"(age_group|gender|race):(.*)=([^=]*)", text, re.DOTALL)
        if found is None:
            raise DataError(f"--map is {text!r}", allowed="TASK:WORD=CLASS, as race:latino=Others")
        task = cast(TaskName, found[1])
        names, wanted = [*CLASS_NAMES[task], "none"], found[3].strip().lower()
        labels = {name.lower(): label for label, name in enumerate(names)} | {"none": MISSING}
        if wanted not in labels:
            raise DataError(
                f"--map {text!r} names a {TASK_TITLES[task]} that there is not",
                allowed=", ".join(names),
            )
        given[task, normal(found[2])] = labels[wanted]
    return given
