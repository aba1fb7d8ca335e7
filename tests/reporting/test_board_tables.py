"""The forms of a leaderboard: whole, escaped, the same again; and the words of its cells."""

import csv
import html
import io
import json
import re

import pytest

from benchmark.comparison.rows import Row, TaskScore
from benchmark.comparison.wording import (
    accuracy_text,
    count_text,
    duration_text,
    memory_text,
    number_text,
    percent,
    protocol_text,
)
from benchmark.experiment.definition import Protocol
from benchmark.reporting.board_tables import board_table, differences_table, latex, markdown, page
from benchmark.reporting.columns import FIELDS, csv_text, json_text
from tests.reporting.boards import NASTY, a_board, a_row, outcome

BOARD = a_board(Row("reference", "majority class"), a_row(), Row("missing", NASTY))
ALL = (page, latex, markdown, csv_text, json_text)


def test_numbers_are_written_as_people_read_them() -> None:
    for found, expected in (
        ((count_text(None), count_text(12), count_text(12_345)), ("–", "12", "12.3 k")),
        ((count_text(722_496), count_text(14_800_000)), ("722 k", "14.8 M")),
        ((duration_text(None), duration_text(48.4), duration_text(99.6)), ("–", "48 s", "1.7 min")),
        ((duration_text(596.9), duration_text(597.1)), ("9.9 min", "10 min")),
        ((duration_text(750.0), duration_text(5_971.0)), ("12 min", "1.7 h")),
        ((number_text(None), number_text(0.05123), number_text(1320.4)), ("–", "0.0512", "1,320")),
        ((memory_text(None), memory_text(812.3), memory_text(3482)), ("–", "812 MiB", "3.4 GiB")),
        ((percent(0.71249), percent(None), accuracy_text(None)), ("71.2", "–", "–")),
    ):
        assert found == expected


def test_an_accuracy_shows_its_interval_and_its_sd_where_there_is_one() -> None:
    several = TaskScore(0.712, 0.694, 0.73, macro_f1=0.65, accuracy_sd=0.004)
    assert accuracy_text(TaskScore(0.712, 0.694, 0.73, 0.65)) == "71.2 (69.4–73.0)"
    assert accuracy_text(several) == "71.2 ± 0.4 (69.4–73.0)"


def test_a_protocol_is_named_with_what_it_does_otherwise() -> None:
    assert protocol_text(Protocol()) == "leak-free"
    odd = Protocol(fold=3, input_scaling="unit", shuffling="fixed_batches", selection="last_epoch")
    assert protocol_text(odd) == (
        "leak-free fold 3, inputs scaled to 0-1, batches never re-shuffled, last epoch taken"
    )


def test_every_number_of_a_row_is_in_the_page_and_in_the_documents() -> None:
    text = re.sub(r"<[^>]+>", " ", page(BOARD))
    for number in (
        *("70.0 ± 1.0", "68.0–72.0", "65.0 ± 2.0", "female Others", "56.1 (n 57)", "15.0"),
        *("permuted 8.0", "+3.1*", "p 0.0040", "−1.2", "p 0.30", "mtl-cnn-none-full-b"),
        *("LEAKY 90.3", "722 k", "12.3 k", "0.0512", "12 min", "1,320", "2.0 GiB"),
        *("0, 1, 2", "CPU, 2 threads, fp32", "0123456789ab"),
    ):
        assert number in text, number
        assert number in markdown(BOARD).replace("\\*", "*"), number


def test_a_page_needs_nothing_else_and_escapes_all_it_shows() -> None:
    text = page(BOARD)
    assert "<script>alert" not in text
    assert html.escape(NASTY, quote=False).replace('"', "&#34;") in text
    assert "<b>tags</b>" not in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "@import" not in text
    assert "`" not in text.split("<script>")[0]


def test_a_page_links_runs_and_cards() -> None:
    text = page(BOARD, {"aa": (("run of seed 0", "../work/aa/"), ("card", "../work/aa/card.md"))})
    assert '<a href="../work/aa/">run of seed 0</a> · <a href="../work/aa/card.md">card</a>' in text


def test_what_is_always_shown_is_little() -> None:
    table = board_table(BOARD.tables).keeping(())
    assert [column.heading for column in table.columns] == [
        *("#", "experiment", "val", "age group", "gender", "race", "worst age group subgroup"),
        *("parameters", "time", "seeds"),
    ]


def test_remarks_are_footnotes_and_equal_ones_are_said_once() -> None:
    rows = [a_row(f"mtl-{letter}", remarks=("weights ab",)) for letter in "ab"]
    table = board_table(a_board(*rows, a_row("mtl-c", remarks=("seed 1 failed",))).tables)
    assert table.notes == ("weights ab", "seed 1 failed")
    assert [row.cells[1].marks for row in table.rows] == [(1,), (1,), (2,)]


def test_an_ad_hoc_row_says_its_run_and_what_was_changed() -> None:
    row = a_row(remarks=("ad hoc: recipe.max_epochs=3, head.hidden_units=64",))
    table = board_table(a_board(row).tables)
    note = "run aa, bb, cc · recipe.max_epochs=3 · head.hidden_units=64"
    assert table.rows[0].cells[1].note == note
    assert table.notes == ()


def test_a_leaky_table_carries_its_watermark() -> None:
    for text in (page, markdown, latex):
        assert "LEAKY mtl-cnn" in text(a_board(a_row(leaky=True))).replace("\\_", "_")
    assert "<strong>LEAKY.</strong>" in page(a_board(a_row(leaky=True)))
    assert "LEAKY" not in page(a_board(a_row(study=None)))


def test_a_difference_is_told_with_its_ends_and_what_it_is_to() -> None:
    table = differences_table(BOARD.tables)
    assert [row.cells[0].whole for row in table.rows] == [
        "mtl-cnn-none-full-a (to its STL counterpart)",
        "mtl-cnn-none-full-a (to mtl-cnn-none-full-b)",
    ]
    assert "+3.1* (+1.1 to +5.1, p 0.0040)" in [cell.whole for cell in table.rows[0].cells]
    assert differences_table(a_board(a_row(comparisons=())).tables).rows == ()


def test_a_row_like_the_first_is_marked() -> None:
    tie = a_row("mtl-tie", rank=2, tied=True, comparisons=(outcome("first", None, -0.01, 0.6),))
    assert "| 2= | mtl-tie |" in markdown(a_board(a_row(), tie))


def test_csv_and_json_have_every_column_of_every_row_and_what_is_missing_is_empty() -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(BOARD))))
    rows = json.loads(json_text(BOARD))["rows"]
    assert len(lines) == len(rows) == 3
    for line, row in zip(lines, rows, strict=True):
        assert list(line) == list(row) == list(FIELDS)
    for name in ("gender_accuracy", "gmacs", "rank"):
        assert (rows[2][name], lines[2][name]) == (None, "")
    assert (lines[1]["gender_accuracy"], lines[1]["parameters"]) == ("0.700000", "722496")


def test_json_has_fractions_ends_and_corrected_p() -> None:
    row = json.loads(json_text(BOARD))["rows"][1]
    found = [row[f"twin_gender{end}"] for end in ("", "_low", "_high", "_p_holm")]
    assert found == pytest.approx([0.031, 0.011, 0.051, 0.004])
    assert (row["compared_race"], row["twin_race"]) == (pytest.approx(-0.012), None)
    assert (row["study_row"], row["study_gender"]) == ("2.2", 0.9758)
    assert [row[f"gap{end}"] for end in ("", "_low", "_high", "_chance")] == [
        0.15,
        0.05,
        0.25,
        0.08,
    ]
    assert [row[f"worst_{end}"] for end in ("task", "n")] == ["age_group", 57]
    assert [row[f"combined{end}"] for end in ("", "_sd")] == [0.7, 0.01]


def test_a_spreadsheet_takes_no_text_for_a_formula() -> None:
    assert "'=1+1" in csv_text(a_board(a_row("=1+1")))


def test_every_form_states_the_limitations_and_is_the_same_twice() -> None:
    for text in ALL:
        assert "A limit." in text(BOARD) or text is csv_text
        assert text(BOARD) == text(BOARD)
        assert text(a_board()) != text(BOARD)
