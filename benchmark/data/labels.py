"""From a face's file name to its labels; what is in the picture is for other files to look at.

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
Defects     three names lack the race; 375 groups of files are equal byte by byte and 259 of
            these disagree in their labels (docs/DATA.md)
Here        age 0 is refused: its group (0,14] begins above 0, and the archive has no such face
"""

import re
from bisect import bisect_left
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from benchmark.errors import DataError
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, CLASS_NAMES, TASKS

WEBSITE: Final = "https://susanqq.github.io/UTKFace/"
LICENCE: Final = "non-commercial research only"
NAME_RULE: Final = "AGE_GENDER_RACE_DATE, as 25_1_3_20170116174525125.jpg.chip.jpg"

LABELS: Final = ("age", *TASKS)
AGE_YEARS: Final = range(1, AGE_GROUP_UPPER_YEARS[-1] + 1)
PICTURE_SUFFIXES: Final = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
    + (".avif", ".heic", ".heif", ".jxl", ".jp2")
)
"""A picture by its name. Some cannot be read everywhere: then each is listed with the reason."""


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
    parts = file_name.split("_", 3)
    if len(parts) < 4 or not parts[3]:
        missing = ("age", "gender", "race", "date")[min(len(parts) - 1, 3)]
        raise DataError(f"the name has no {missing}", allowed=NAME_RULE, source=file_name)
    ranges = (AGE_YEARS, range(len(CLASS_NAMES["gender"])), range(len(CLASS_NAMES["race"])))
    numbers = []
    for what, text, allowed in zip(("age", "gender", "race"), parts, ranges, strict=False):
        if not text:
            raise DataError(f"the name has no {what}", allowed=NAME_RULE, source=file_name)
        # Nine digits at most: int() refuses numbers of thousands of digits with another error.
        if re.fullmatch(r"[0-9]{1,9}", text) is None or int(text) not in allowed:
            limits = f"{allowed[0]} to {allowed[-1]}"
            found = f"{what} is {text!r} and not {limits}"
            raise DataError(found, allowed=limits, source=file_name)
        numbers.append(int(text))
    age, gender, race = numbers
    return FaceLabels(age, age_group_of(age), gender, race)


def age_group_of(age: int) -> int:
    """Give the group, 0 to 4, of an age in years from 1 to 116: bins closed on the right.

    Source: the study's notebooks, common recipe; benchmark.tasks.AGE_GROUP_RULE.
    """
    return bisect_left(AGE_GROUP_UPPER_YEARS, age)


def is_picture_name(path: str) -> bool:
    """Tell whether a path names a picture; what macOS leaves beside one (`._name`) does not."""
    pure = PurePosixPath(path.replace("\\", "/"))
    is_litter = pure.name.startswith("._") or "__MACOSX" in pure.parts
    return pure.suffix.lower() in PICTURE_SUFFIXES and not is_litter
