"""From the words of a table of labels to our classes: what maps, what does not, and why.

A word maps only where it says one class whole. An age range that reaches into two age groups has no
class here: such a face has no truth of that task. Nothing is guessed; `--map` decides otherwise.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmark.errors import DataError
from benchmark.faces.labels import AGE_YEARS, age_group_of
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TaskName

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
`Others` is UTKFace's own rule (benchmark.faces.labels, the data sheet)."""

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
