"""File names and words of tables become labels where they say one class whole, or say why not."""

import re
from pathlib import Path

import pytest

from benchmark.data import labels as rules
from benchmark.data.labelled import parse_label_table
from benchmark.errors import DataError
from benchmark.tasks import CLASS_NAMES, MISSING


def test_a_name_gives_age_group_gender_and_race_or_says_what_is_missing() -> None:
    for name, labels in (
        ("25_1_3_20170116174525125.jpg.chip.jpg", (25, 1, 1, 3)),
        ("116_0_0_20170116174525125.jpg", (116, 4, 0, 0)),
        # The two odd names of the archive: a space and a missing dot, both after the labels.
        ("24_0_1_20170116220224657 .jpg.chip.jpg", (24, 1, 0, 1)),
        ("55_0_0_20170116232725357jpg.chip.jpg", (55, 3, 0, 0)),
    ):
        assert rules.parse_name(name) == labels
    ages = (1, 14, 15, 25, 26, 40, 41, 60, 61)  # age groups are closed on the right
    assert [rules.age_group_of(age) for age in ages] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    for name, reason in (
        ("39_1_20170116174525125.jpg.chip.jpg", "the name has no race"),
        ("53__0_20170116184028385.jpg", "the name has no gender"),
        ("25_1_3_", "the name has no date"),
        ("portrait.jpg", "the name has no age"),
        ("0_1_2_20170116174525125.jpg", "age is '0' and not 1 to 116"),
        ("117_1_2_20170116174525125.jpg", "age is '117' and not 1 to 116"),
        ("25_2_2_20170116174525125.jpg", "gender is '2' and not 0 to 1"),
        ("25_1_5_20170116174525125.jpg", "race is '5' and not 0 to 4"),
        ("-5_1_2_20170116174525125.jpg", "age is '-5' and not 1 to 116"),
        ("1" * 5000 + "_1_2_20170116174525125.jpg", "and not 1 to 116"),
        ("25_1_3_2017\n.jpg", "characters that cannot be printed"),
        ("25_1_3_\udcff.jpg", "characters that cannot be printed"),
    ):
        with pytest.raises(DataError, match=reason):
            rules.parse_name(name)


def test_tables_of_usual_delimiters_and_headings_are_read_alike_and_others_refused() -> None:
    for delimiter in (",", ";", "\t"):
        rows = [["Image_Path", "Sex", "AGE"], ['"a, b.jpg"', "F", "7"]]
        text = "\r\n".join(delimiter.join(row) for row in rows)
        _, cells, _ = parse_label_table("labels.csv", text.encode("utf-16"))
        assert cells.to_dict("list") == {"file": ["a, b.jpg"], "age": ["7"], "gender": ["F"]}
    for content, found in (
        (b"", "it has no rows"),
        (b"file,age\n", "it has no rows"),
        (b"name,years\na.jpg,3\n", "no column of file, but 'name', 'years'"),
        (b"file,hair\na.jpg,red\n", "no column of labels"),
        (b"file,gender,sex\na.jpg,m,f\n", "'gender' and 'sex' both say gender"),
        (b"file,age\na.jpg,3\nb.jpg\n", "row 3 has 1 cells"),
        (b"PK\x03\x04rest", "it is a spreadsheet"),
        (b"file,age\n\0\0\0", "no text in UTF-8"),
    ):
        with pytest.raises(DataError, match=found):
            parse_label_table("labels.csv", content)


def test_words_and_ages_map_where_they_lie_within_one_class() -> None:
    for column, group, cells in (
        ("age", "0-14", ("0-2", "3-9", "under 15", "<15", "<= 14", "below 10", "14 or younger")),
        ("age", "0-14", ("up to 14", "younger than 15", "14", "14.99", "0")),
        ("age", "15-25", ("15", "25.0", "25.5", "20.37")),
        ("age", "26-40", ("30-39",)),  # 40 is in 26-40, and 60 in 41-60
        ("age", "41-60", ("50-59",)),
        ("age", "61+", ("more than 70", ">60", "over 60", "more than 60", "older than 60", "61+")),
        ("age", "61+", (">= 61", "61 and older", "at least 61", " 61 ")),
        ("age", None, ("10-19", "20-29", "40-49", "60-69", "60+", ">= 60", "<= 15", "under 16")),
        *(("age_group", name, (name,)) for name in CLASS_NAMES["age_group"]),
        *(("age_group", "41-60", ("3", "50-59")), ("age_group", None, ("10-19", "over 59"))),
        *(("gender", "female", ("F", "Female", "1")), ("gender", "male", ("man", "0.0"))),
        *(("race", "White", ("White",)), ("race", "Black", ("Black",))),
        *(("race", "Asian", ("East Asian", "Southeast Asian")), ("race", "Indian", ("Indian",))),
        ("race", "Others", ("Middle Eastern", "Latino_Hispanic")),
        *((column, None, ("", "NA", "none", "?")) for column in ("age", "age_group", "race")),
    ):
        names = CLASS_NAMES["age_group" if column == "age" else column]  # type: ignore[index]
        label = MISSING if group is None else names.index(group)
        for cell in cells:
            read = rules.read_label(column, cell, {})
            assert (read.label, read.is_unknown) == (label, False), (column, cell)
            assert bool(read.why) == (group is None), (column, cell)
    # Full years are kept; UTKFace's begin at 1.
    ages = {" 61 ": 61, "20.37": 20, "25.5": 25, "30-39": MISSING, "0": MISSING}
    assert {cell: rules.read_label("age", cell, {}).age for cell in ages} == ages
    for cell in ("117", "117.5", "-3", "old", "Mar-26", "9-Mar", "26 years", "over 200"):
        read = rules.read_label("age", cell, {})
        assert (read.label, read.is_unknown) == (MISSING, True), cell


def test_numbers_of_other_schemes_are_not_read_and_their_map_is_proposed() -> None:
    for column, numbers, proposed in (
        ("age_group", "012345678", ("FairFace: --map age_group:0=0-14", "decades: ")),
        ("age_group", ["10", "20", "30"], ("decades by their first year", "age_group:30=26-40")),
        ("race", "01234", ("FairFace: --map", "UTKFace: --map")),
        ("age_group", "01234567", ("Adience: --map age_group:0=0-14", "age_group:7=none")),
        ("age_group", "01234", ("UTKFace: --map age_group:0=0-14 --map age_group:1=15-25",)),
        ("age_group", ["7"], ("age_group:7=61+",)),  # never seven years
        ("age_group", ["25", "31"], ("--map age_group:NUMBER=CLASS",)),
        ("age", "012345678", ("FairFace", "age_years")),
        ("gender", "0129", ("ISO 5218: --map gender:0=none --map gender:1=male",)),
        ("gender", "01", ("IMDB-WIKI: --map gender:0=female", "gender_utkface")),
        ("gender", ["1", "-1"], ("CelebA (its column Male): --map gender:-1=female",)),
        ("race", "0123456", ("FairFace: --map race:0=White --map race:1=Black --map race:2=Oth",)),
        ("race", "WBH", ("MORPH: --map race:b=Black --map race:h=Others",)),
    ):
        readings, not_read = rules.read_column(column, numbers, {})
        assert {read.label for read in readings.values()} == {MISSING}, (column, numbers)
        assert all(read.is_unknown for read in readings.values()), (column, numbers)
        assert all(text in not_read for text in proposed), (column, not_read)


def test_numbers_are_classes_where_they_can_be_no_other_or_the_name_or_map_says_so() -> None:
    given = rules.parse_map(["gender:1=male", "gender:2=female"])
    for column, numbers, said, is_ours, labels in (
        ("gender", "01", {}, True, [0, 1]),
        ("race", "01234", {}, True, [0, 1, 2, 3, 4]),
        ("age_group", "01234", {}, True, [0, 1, 2, 3, 4]),
        ("race", "01", {}, False, [0, 1]),  # White and Black in every scheme
        ("gender", "12", given, False, [0, 1]),
        ("age", ["5", "6", "7"], {}, False, [0, 0, 0]),  # years
        ("age", "012345678", {}, True, [0] * 9),
    ):
        readings, not_read = rules.read_column(column, numbers, said, is_ours=is_ours)
        assert ([read.label for read in readings.values()], not_read) == (labels, ""), column
    for head, ours in (
        ("file,gender_utkface,age", {"gender"}),
        ("file,UTKFace gender,age_years", {"gender", "age"}),
        ("file,sha256,age,age_group,gender,label_conflict", {"file", "age", "age_group", "gender"}),
    ):
        row = ",".join("1" for _ in head.split(","))
        assert parse_label_table("labels.csv", f"{head}\n{row}\n".encode())[2] == ours, head


def test_a_word_is_unknown_until_map_says_it() -> None:
    assert rules.read_label("race", "Latina", {}).is_unknown
    given = rules.parse_map(["race:Latina=Others", "age_group:10-19=0-14", "race:black=none"])
    for column, word, label in (("race", "latina", 4), ("age", "10-19", 0), ("race", "Black", -1)):
        assert rules.read_label(column, word, given).label == label
    for text in ("race=Others", "hair:red=Others", "race:x=Martian", ""):
        with pytest.raises(DataError, match="--map"):
            rules.parse_map([text])


def test_the_documented_list_of_what_is_read_is_true() -> None:
    text = (Path(__file__).parents[2] / "docs" / "DATA.md").read_text(encoding="utf-8")
    section = text.split("### What is read, and what is refused")[1].split("\n### ")[0]
    pictures = section.split("by their names: ")[1].split(". Of these")[0]
    assert set(re.findall(r"`(\.\w+)`", pictures)) == rules.PICTURE_SUFFIXES
    for cell, said in re.findall(r"(?m)^\| (\w+ [-\w, ]+) \| (.*) \|$", section)[1:]:
        (column, _, words), (schemes, _, verdict) = cell.partition(" "), said.partition(": ")
        readings, not_read = rules.read_column(column, words.split(", "), {})
        found = ", ".join(re.findall("[:;] ([^:;]+): --map", not_read)).split(", ")
        assert not not_read or sorted(found) == sorted(schemes.split(", ")), cell
        assert (MISSING in {read.label for read in readings.values()}) == (verdict == "not read")
    for line in re.findall(r"(?m)^\| (`.*) \|$", section):
        cell, group = line.split(" | ")
        label = rules.read_label("age", cell.strip("`"), {}).label
        said = "none" if label == MISSING else CLASS_NAMES["age_group"][label]
        assert group.partition(":")[0] == said, cell
