"""The forms of a leaderboard for documents, machines, browsers: whole, escaped, the same again."""

import csv
import html
import io
import json
import re

import pytest

from benchmark.comparison.rows import Row
from benchmark.reporting.board_tables import grid_of, latex, markdown, page
from benchmark.reporting.columns import COLUMNS, csv_text, json_text
from tests.results.boards import NASTY, a_board, a_row, outcome

BOARD = a_board(Row("reference", "majority class"), a_row(), Row("missing", NASTY))


def test_every_number_of_a_row_is_in_the_page() -> None:
    text = re.sub(r"<[^>]+>", " ", page(BOARD))
    for number in (
        *("70.0 ± 1.0", "68.0–72.0", "65.0 ± 2.0", "female Others 56.1", "n 57", "15.0"),
        *("by chance 8.0", "+3.1*", "p 0.0040", "−1.2", "p 0.30", "mtl-cnn-none-full-b"),
        *("90.3", "row 2.2", "722 k", "12.3 k", "0.0512", "12 min", "1,320", "2.0 GiB"),
        *("0, 1, 2", "CPU, 2 threads, fp32", "0123456789ab"),
    ):
        assert number in text, number


def test_a_page_needs_nothing_else_and_escapes_all_it_shows() -> None:
    text = page(BOARD)
    assert "<script>alert" not in text
    assert html.escape(NASTY, quote=False).replace('"', "&#34;") in text
    assert "<b>tags</b>" not in text
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "@import" not in text


def test_cells_that_are_sorted_by_numbers_carry_them() -> None:
    (line,) = re.findall(r'<tr class="done">.*?</tr>', page(a_board(a_row())), re.DOTALL)
    assert 'data-v="0.7"' in line
    assert 'data-v="722496"' in line
    assert 'data-v="750.0"' in line


def test_a_leaky_table_carries_its_watermark() -> None:
    text = page(a_board(a_row(leaky=True)))
    assert "<strong>LEAKY.</strong>" in text
    assert "LEAKY mtl-cnn" in text


def test_latex_is_booktabs_and_nothing_breaks_it() -> None:
    text = latex(BOARD)
    body = "\n".join(line for line in text.split("\n") if not line.startswith("%"))
    for rule in ("\\toprule", "\\midrule", "\\bottomrule"):
        assert body.count(rule) == body.count("\\begin{tabular}{") == 3
    assert body.count("{") - body.count("\\{") == body.count("}") - body.count("\\}")
    assert "<" not in body
    assert body.isascii()
    for table in body.split("\\begin{tabular}{")[1:]:
        rows = [line for line in table.split("\n") if line.endswith("\\\\")]
        assert len({line.replace("\\&", "").count("&") for line in rows}) == 1


def test_csv_and_json_have_every_column_of_every_row() -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(BOARD))))
    rows = json.loads(json_text(BOARD))["rows"]
    assert len(lines) == len(rows) == 3
    for line, row in zip(lines, rows, strict=True):
        assert list(line) == list(row) == [column.name for column in COLUMNS]


def test_what_is_missing_is_null_in_json_and_empty_in_csv() -> None:
    row = json.loads(json_text(BOARD))["rows"][2]
    assert (row["gender_accuracy"], row["gmacs"], row["rank"]) == (None, None, None)
    line = list(csv.DictReader(io.StringIO(csv_text(BOARD))))[2]
    assert (line["gender_accuracy"], line["gmacs"], line["rank"]) == ("", "", "")


def test_a_difference_travels_with_its_ends_and_corrected_p() -> None:
    row = json.loads(json_text(BOARD))["rows"][1]
    found = [row[f"twin_gender{end}"] for end in ("", "_low", "_high", "_p_holm")]
    assert found == pytest.approx([0.031, 0.011, 0.051, 0.004])
    assert (row["compared_race"], row["twin_race"]) == (pytest.approx(-0.012), None)
    assert (row["study_row"], row["study_gender"]) == ("2.2", 0.9758)


def test_a_spreadsheet_takes_no_text_for_a_formula() -> None:
    text = csv_text(a_board(a_row("=1+1")))
    assert "'=1+1" in text


def test_columns_without_anything_are_left_out_of_documents() -> None:
    labels = [
        head.label for head in grid_of(a_board(a_row(comparisons=(), study=None)).tables[0]).heads
    ]
    assert not [label for label in labels if "twin" in label or "study" in label]
    assert "gender" in labels


def test_a_row_not_told_from_the_first_is_marked() -> None:
    tie = a_row("mtl-tie", rank=2, tied=True, comparisons=(outcome("first", None, -0.01, 0.6),))
    assert "| 2= | mtl-tie |" in markdown(a_board(a_row(), tie))


@pytest.mark.parametrize("text", [page, latex, markdown, csv_text, json_text])
def test_the_same_leaderboard_gives_the_same_bytes(text: object) -> None:
    assert text(BOARD) == text(BOARD)  # type: ignore[operator]
    assert text(a_board()) != text(BOARD)  # type: ignore[operator]
