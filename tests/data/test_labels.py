"""File names become labels by UTKFace's rule, odd but valid ones too; others say why not."""

import pytest

from benchmark.data.labels import FaceLabels, age_group_of, is_picture_name, parse_name
from benchmark.errors import DataError


def test_a_name_gives_age_group_gender_and_race() -> None:
    for name, labels in (
        ("25_1_3_20170116174525125.jpg.chip.jpg", FaceLabels(25, 1, 1, 3)),
        ("116_0_0_20170116174525125.jpg", FaceLabels(116, 4, 0, 0)),
        # The two odd names of the archive: a space and a missing dot, both after the labels.
        ("24_0_1_20170116220224657 .jpg.chip.jpg", FaceLabels(24, 1, 0, 1)),
        ("55_0_0_20170116232725357jpg.chip.jpg", FaceLabels(55, 3, 0, 0)),
    ):
        assert parse_name(name) == labels


def test_a_name_without_labels_says_what_is_missing() -> None:
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
        with pytest.raises(DataError) as caught:
            parse_name(name)
        assert reason in caught.value.found, name


def test_age_groups_are_closed_on_the_right() -> None:
    ages = (1, 14, 15, 25, 26, 40, 41, 60, 61)
    assert [age_group_of(age) for age in ages] == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_litter_and_documents_are_not_pictures() -> None:
    assert is_picture_name("UTKFace/1_0_0_2017.JPG")
    for path in ("UTKFace/._1_0_0_2017.jpg", "__MACOSX/1_0_0_2017.jpg", "Thumbs.db", "README"):
        assert not is_picture_name(path)
