"""What words say of a face: UTKFace's file names, and the cells of tables, become labels.

DATA SHEET

Name        UTKFace, aligned and cropped (23,708 JPEG, 200 x 200 pixels, one face each)
Website     https://susanqq.github.io/UTKFace/
Published   Zhang, Song, Qi: Age Progression/Regression by Conditional Adversarial Autoencoder,
            CVPR 2017 (arXiv 1702.08423)
Licence     non-commercial research only; the copyright of the pictures stays with their owners
Input       a face found by dlib, turned upright, scaled; black where it left the picture
Label       the file name, AGE_GENDER_RACE_DATE: age in years, 0 to 116 by the website; gender
            0 male, 1 female; race 0 White, 1 Black, 2 Asian, 3 Indian, 4 Others (Hispanic,
            Latino, Middle Eastern); the date is when the picture was collected
Annotation  labels were estimated by a model (DEX) and checked by one annotator (the README of
            github.com/aicip/UTKFace): they say how a face was perceived, and they are noisy
Not there   who a person is; consent; the camera; anything that would make two pictures of one
            person known as such
Defects     three names lack the race; 375 groups of equal files, 259 with labels in conflict

Of a table, a word maps only where it says one class whole: an age range that reaches into two age
groups has no class here. Nothing is guessed; `--map` decides otherwise.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import Final, NamedTuple, cast

from benchmark.errors import DataError
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, CLASS_NAMES, MISSING, TASKS, TaskName

WEBSITE: Final = "https://susanqq.github.io/UTKFace/"
LICENCE: Final = "non-commercial research only"
NAME_RULE: Final = "AGE_GENDER_RACE_DATE, as 25_1_3_20170116174525125.jpg.chip.jpg"

LABELS: Final = ("age", *TASKS)
AGE_YEARS: Final = range(1, AGE_GROUP_UPPER_YEARS[-1] + 1)
"""Not 0: its group (0,14] begins above it, and the archive has no such face."""
PICTURE_SUFFIXES: Final = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
    + (".avif", ".heic", ".heif", ".jxl", ".jp2")
)
"""A picture by its name. Some cannot be read everywhere: then each is listed with the reason."""

WORDS: Final[dict[str, dict[str, int]]] = {
    "gender": {"male": 0, "m": 0, "man": 0, "female": 1, "f": 1, "woman": 1},
    "race": {name.lower(): label for label, name in enumerate(CLASS_NAMES["race"])}
    | {"east asian": 2, "southeast asian": 2, "other": 4}
    | dict.fromkeys(("middle eastern", "latino hispanic", "latino", "hispanic"), 4),
}
"""Lower case, with a space for `_` and `-`. That Hispanic, Latino and Middle Eastern people are
`Others` is UTKFace's own rule."""
DECADES: Final = [f"{first}-{first + 9}" for first in range(0, 110, 10)]


def _codes(words: str) -> dict[str, str]:
    return {str(code): word for code, word in enumerate(words.split())}


MALE_FIRST: Final = _codes("male female")
SCHEMES: Final[dict[str, dict[str, dict[str, str]]]] = {
    "UTKFace": {task: _codes(" ".join(names)) for task, names in CLASS_NAMES.items()},
    "IMDB-WIKI": {"gender": _codes("female male")},
    "ISO 5218": {"gender": {"1": "male", "2": "female", "0": "", "9": ""}},
    "CelebA (its column Male)": {"gender": {"1": "male", "-1": "female"}},
    "RAF-DB": {
        "age_group": _codes("0-3 4-19 20-39 40-69 70+"),
        "gender": MALE_FIRST | {"2": ""},
        "race": _codes("White Black Asian"),
    },
    "FairFace": {
        "age_group": _codes("0-2 3-9 10-19 20-29 30-39 40-49 50-59 60-69 70+"),
        "gender": MALE_FIRST,
        "race": _codes("White Black Latino East-Asian Southeast-Asian Indian Middle-Eastern"),
    },
    "Adience": {
        "age_group": _codes("0-2 4-6 8-13 15-20 25-32 38-43 48-53 60-100"),
        "gender": MALE_FIRST,
    },
    "decades": {"age_group": _codes(" ".join(DECADES))},
    "decades by their first year": {"age_group": {of.partition("-")[0]: of for of in DECADES}},
    "MORPH": {
        "race": {"w": "White", "b": "Black", "a": "Asian", "h": "Hispanic", "o": "Others"},
        "gender": {"m": "male", "f": "female"},
    },
}
"""What public data sets code their labels as: by data set, task and code; empty: nothing said."""
CODE: Final = "a number that may be of another scheme"
NOTHING_SAID: Final = frozenset(("", "na", "n/a", "nan", "none", "null", "?"))
OPEN_AGES: Final = (
    (r"{} ?(?:\+|plus|(?:and|or) (?:over|older|above|more|up))", "from", 0),
    (r"(?:>=|≥|at least|from) ?{}", "from", 0),
    (r"(?:>|more than|over|above|older than) ?{}", "from", 1),
    (r"{} ?(?:and|or) (?:under|younger|below|less)", "to", 0),
    (r"(?:<=|≤|at most|up to) ?{}", "to", 0),
    (r"(?:<|less than|under|below|younger than) ?{}", "to", -1),
)
"""How an open range is written, with {} for its years, and what is added to these."""

Given = Mapping[tuple[TaskName, str], int]
"""What --map says: class by task and normal word; MISSING where a word is to have none."""


class FaceLabels(NamedTuple):
    """The labels of one face, as LABELS: age in years (1 to 116), and the class of each task."""

    age: int
    age_group: int
    gender: int
    race: int


def parse_name(file_name: str) -> FaceLabels:
    """Read the labels of a base name; raise DataError with the reason where it has none.

    Only the first three parts are looked at: two valid names of the archive have an odd date
    (`..._20170116220224657 .jpg.chip.jpg`, `..._20170116232725357jpg.chip.jpg`), and a stricter
    pattern would drop them silently.
    """
    if not file_name.isprintable():
        raise DataError("the name has characters that cannot be printed", source=repr(file_name))
    *parts, rest = file_name.split("_", 3)
    names = ("age", "gender", "race", "date")
    texts = [*parts, rest] if len(parts) == 3 else parts  # of fewer, the last follows the labels
    if missing := [what for what, text in zip_longest(names, texts) if not text]:
        raise DataError(f"the name has no {missing[0]}", allowed=NAME_RULE, source=file_name)
    for what, text, allowed in zip(names, texts, (AGE_YEARS, range(2), range(5)), strict=False):
        # Nine digits at most: int() refuses numbers of thousands of digits with another error.
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) not in allowed:
            limits = f"{allowed[0]} to {allowed[-1]}"
            found = f"{what} is {text!r} and not {limits}"
            raise DataError(found, allowed=limits, source=file_name)
    age, gender, race = map(int, parts)
    return FaceLabels(age, age_group_of(age), gender, race)


def age_group_of(age: int) -> int:
    """Give the group, 0 to 4, of an age in years up to 116 (benchmark.tasks.AGE_GROUP_RULE)."""
    return bisect_left(AGE_GROUP_UPPER_YEARS, age)


def is_picture_name(path: str) -> bool:
    """Tell whether a path names a picture; what macOS leaves beside one (`._name`) does not."""
    pure = PurePosixPath(path.replace("\\", "/"))
    is_litter = pure.name.startswith("._") or "__MACOSX" in pure.parts
    return pure.suffix.lower() in PICTURE_SUFFIXES and not is_litter


class Reading(NamedTuple):
    """What one cell says of a task: a class or MISSING, and why it is missing.

    age: years, where the cell tells them. is_unknown: a word that has no known meaning, a finding;
    not a gap that is known.
    """

    label: int
    why: str = ""
    age: int = MISSING
    is_unknown: bool = False


def normal(word: str) -> str:
    """Write a word as the tables of words have it."""
    return re.sub(r"[\s_-]+", " ", word.strip().lower())


def read_label(column: str, cell: str, given: Given) -> Reading:
    """Read a cell of the column age, age_group, gender or race; a number of one of the last three
    as UTKFace's: whether it is that is asked of the whole column (read_column)."""
    task, word = cast(TaskName, "age_group" if column == "age" else column), normal(cell)
    if (label := given.get((task, word))) is not None:
        return Reading(label, "left out by --map" if label == MISSING else "")
    if word in NOTHING_SAID:
        return Reading(MISSING, "nothing is said")
    if column != "age" and (code := _code(word)):
        is_ours = code in SCHEMES["UTKFace"][task]
        return Reading(int(code)) if is_ours else Reading(MISSING, CODE, is_unknown=True)
    if column in WORDS:
        unknown = Reading(MISSING, "not a word that is known", is_unknown=True)
        return Reading(WORDS[column][word]) if word in WORDS[column] else unknown
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]*)?", word):
        age = int(float(word))  # full years, as ages are counted
        if age > AGE_YEARS[-1]:
            return Reading(MISSING, f"an age above {AGE_YEARS[-1]}", is_unknown=True)
        # The bins begin above 0; a baby is in the first all the same, but its years have no row.
        return Reading(age_group_of(age), age=age or MISSING)
    if (span := _span(word)) is None:
        why = "not an age, or a date that a spreadsheet made of one"
        return Reading(MISSING, why, is_unknown=True)
    first, last = map(age_group_of, span)
    if first == last:
        return Reading(first)
    names = CLASS_NAMES["age_group"]
    return Reading(MISSING, f"reaches from {names[first]} into {names[last]}")


def _code(word: str) -> str:
    """Give the number that a normal word is, `-1` and `2` for ` 1` and `2.0`; else empty."""
    is_number = re.fullmatch(r" ?[0-9]{1,9}(\.[0-9]*)?", word)
    return f"{float(word.replace(' ', '-')):.12g}" if is_number else ""


def read_column(
    column: str, words: Iterable[str], given: Given, *, is_ours: bool = False
) -> tuple[dict[str, Reading], str]:
    """Read the words of a column; numbers as classes only where they can be no other scheme's.

    is_ours: the column's name says so; numbers that are no classes here are not read all the same.
    Numbers under `age` are years, unless they are a row of codes from 0 or 1 on. Gives the readings
    and, where numbers or letters are not read, a sentence with the schemes that they may be of.
    """
    task = "age_group" if column == "age" else column
    readings = {word: read_label(column, word, given) for word in words}
    free = [word for word in readings if (task, normal(word)) not in given]
    numbers = {word: code for word in free if (code := _code(normal(word)))}
    what, codes = "numbers", sorted(set(numbers.values()), key=float)
    meant = _meanings(task, codes)
    if column == "age":
        in_a_row = ("0123456789"[: len(codes)], "123456789"[: len(codes)])
        are_read = is_ours or len(codes) < 3 or "".join(codes) not in in_a_row
    else:
        ours = meant.get("UTKFace")
        are_read = ours is not None and (is_ours or all(it == ours for it in meant.values()))
    if numbers and not are_read:
        readings |= dict.fromkeys(numbers, Reading(MISSING, CODE, is_unknown=True))
    else:
        letters = {normal(word) for word, read in readings.items() if read.is_unknown}
        what, codes = "letters", sorted(letters)
        if not (meant := _meanings(task, codes)):
            return readings, ""
    schemes: dict[str, list[str]] = {}
    for name, known in meant.items():
        options = " ".join(f"--map {task}:{code}={known[code]}" for code in sorted(known))
        schemes.setdefault(options, []).append(name)
    proposed = [f"{', '.join(names)}: {options}" for options, names in schemes.items()]
    proposed = proposed or [f"no scheme that is known; --map {task}:NUMBER=CLASS for each"]
    if column == "age" or "UTKFace" in meant:
        own = "years" if column == "age" else "UTKFace's"
        heading = "age_years" if column == "age" else f"{column}_utkface"
        proposed.append(f"{own} are read in a column named {heading}")
    found = f"The {what} of {column} ({', '.join(codes[:12])}) are not read"
    return readings, f"{found}, because they may be of another scheme: {'; '.join(proposed)}"


def _meanings(task: str, codes: Sequence[str]) -> dict[str, dict[str, str]]:
    """Give for each scheme that has all these codes the class, or none, that each lies in whole."""
    column = "age" if task == "age_group" else task
    names = [*CLASS_NAMES[cast(TaskName, task)], "none"]  # MISSING is -1, the last
    return {
        name: {code: names[read_label(column, scheme[task][code], {}).label] for code in codes}
        for name, scheme in SCHEMES.items()
        if codes and scheme.get(task, {}).keys() >= set(codes)
    }


def _span(word: str) -> tuple[int, int] | None:
    """Give first and last year of `20 29`, `70+`, `more than 70`, `under 15`; None for others."""
    top, years = AGE_YEARS[-1], "([0-9]{1,3})"
    first, last = 0, -1
    if found := re.fullmatch(rf"\(?{years}(?: | ?– ?| to |, ?){years}[\])]?", word):
        first, last = int(found[1]), int(found[2])
    for form, direction, more in OPEN_AGES:
        if found := re.fullmatch(form.replace("{}", years), word):
            age = int(found[1]) + more
            first, last = (age, top) if direction == "from" else (0, age)
    return (first, last) if first <= last <= top else None


def parse_map(texts: Sequence[str]) -> dict[tuple[TaskName, str], int]:
    """Read what --map says, `race:latino=Others` or `age_group:10-19=none`; raise DataError for a
    task or a class that there is not."""
    given: dict[tuple[TaskName, str], int] = {}
    for text in texts:
        found = re.fullmatch(r"(age_group|gender|race):(.*)=([^=]*)", text, re.DOTALL)
        task = cast(TaskName, found[1] if found else "race")
        classes = {name.lower(): label for label, name in enumerate(CLASS_NAMES[task])}
        classes["none"] = MISSING
        if found is None or found[3].strip().lower() not in classes:
            allowed = f"TASK:WORD=CLASS, as race:latino=Others; of {task} {', '.join(classes)}"
            raise DataError(f"--map is {text!r}", allowed=allowed)
        given[task, normal(found[2])] = classes[found[3].strip().lower()]
    return given
