"""A word maps where it says one class whole; the rest has no class, and a reason."""

import pytest

from benchmark.data.label_tables import FAIRFACE, parse_map, read_age, read_age_group, read_word
from benchmark.errors import DataError
from benchmark.tasks import CLASS_NAMES, MISSING

FAIRFACE_GROUPS = {
    "0-2": "0-14",
    "3-9": "0-14",
    "10-19": None,
    "20-29": None,
    "30-39": "26-40",
    "40-49": None,  # 40 is in 26-40
    "50-59": "41-60",
    "60-69": None,  # 60 is in 41-60
    "more than 70": "61+",
}


def test_fairfaces_ranges_map_where_they_lie_within_one_group() -> None:
    assert tuple(FAIRFACE_GROUPS) == FAIRFACE.age_ranges
    for word, group in FAIRFACE_GROUPS.items():
        read = read_age(word, {}, FAIRFACE.age_ranges)
        label = MISSING if group is None else CLASS_NAMES["age_group"].index(group)
        assert (read.label, read.age, read.is_unknown) == (label, MISSING, False), word
        assert bool(read.why) == (group is None)


def test_fairfaces_seven_races_map_by_utkfaces_rule() -> None:
    words = ("White", "Black", "East Asian", "Southeast Asian", "Indian", "Middle Eastern")
    labels = [read_word("race", word, {}).label for word in (*words, "Latino_Hispanic")]
    assert labels == [0, 1, 2, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("cell", "age", "age_group"),
    [("14", 14, 0), ("15", 15, 1), ("25.0", 25, 1), (" 61 ", 61, 4), ("116", 116, 4)],
)
def test_years_are_kept_with_their_group(cell: str, age: int, age_group: int) -> None:
    read = read_age(cell, {})
    assert (read.age, read.label) == (age, age_group)


def test_a_baby_is_in_the_first_group_without_years() -> None:
    read = read_age("0", {})
    assert (read.label, read.age) == (0, MISSING)


@pytest.mark.parametrize("cell", ["117", "25.5", "-3", "old", "Mar-26", "26 years"])
def test_what_is_no_age_is_unknown(cell: str) -> None:
    read = read_age(cell, {})
    assert (read.label, read.is_unknown) == (MISSING, True)


@pytest.mark.parametrize("cell", ["", "NA", "none", "?"])
def test_an_empty_cell_is_no_finding(cell: str) -> None:
    for read in (read_age(cell, {}), read_word("race", cell, {})):
        assert (read.label, read.is_unknown, read.why) == (MISSING, False, "nothing is said")


@pytest.mark.parametrize(
    ("cell", "was"),
    [
        ("9-Mar", "3-9"),  # as English spreadsheets of America show it
        ("03-Sep", "3-9"),  # and of Britain
        ("Oct-19", "10-19"),
        ("2026-03-09 00:00:00", "3-9"),
        ("1900-01-25", "25"),  # day 25 of a spreadsheet's time
        ("1900-03-25", "85"),  # 31 January + 29 February, as it believes, + 25
        ("25/01/1900", "25"),
    ],
)
def test_a_spreadsheets_date_is_read_back_where_it_was_one_thing_only(cell: str, was: str) -> None:
    read = read_age(cell, {}, FAIRFACE.age_ranges)
    assert read.repaired == was
    assert (read.label, read.age) == (
        read_age(was, {}, FAIRFACE.age_ranges).label,
        int(was) if was.isdigit() else MISSING,
    )


@pytest.mark.parametrize("cell", ["9-Mar", "1/2/1900", "2026-04-05"])
def test_a_date_that_may_have_been_several_things_is_not_guessed(cell: str) -> None:
    read = read_age(cell, {})
    assert (read.label, read.is_unknown) == (MISSING, True)
    assert "a date" in read.why


def test_age_groups_go_by_name_number_or_range() -> None:
    labels = [read_age_group(cell, {}).label for cell in ("15-25", "61+", "3", "50-59", "10-19")]
    assert labels == [1, 4, 3, 3, MISSING]


def test_a_word_nobody_knows_is_unknown_until_it_is_told() -> None:
    assert read_word("race", "Latina", {}).is_unknown
    given = parse_map(["race:Latina=Others", "age_group:10-19=0-14", "race:black=none"])
    assert read_word("race", "latina", given).label == 4
    assert read_age("10-19", given).label == 0
    assert read_word("race", "Black", given).label == MISSING


@pytest.mark.parametrize("text", ["race=Others", "hair:red=Others", "race:x=Martian", ""])
def test_a_map_that_says_nothing_of_ours_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="--map"):
        parse_map([text])
