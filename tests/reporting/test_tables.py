"""The table model's renderers: what fits, what is aligned, and that no text breaks a form."""

import pytest
from rich.console import Console

from benchmark.reporting import tables as forms
from benchmark.reporting.tables import Cell, Column, Table, TableRow

NASTY = 'a|b*<script>alert("1")</script>&_$%#{}~^\\ [bold]x[/]'
TABLE = Table.of(
    [
        Column("experiment", left=True),
        Column("seeds", below=True),
        "accuracy",
        Column("verdict", fold=True),
        Column("memory", part="cost"),
    ],
    [
        TableRow(
            (
                Cell("mtl-squeezenet1_1-imagenet-frozen-short", "run 0123 · rate=0.01", "a"),
                Cell("3 seeds"),
                Cell("71.2 ± 0.4", "69.4–73.0, n 57", 0.712, marks=(1,)),
                Cell("no significant difference; minimum detectable difference 1.9 pp"),
                Cell("2 GiB"),
            ),
            "Three tasks",
        ),
        TableRow((Cell(NASTY), Cell(), Cell("7.1"), Cell("better"), Cell()), "One task", "missing"),
    ],
    "Title",
    ["see `facebench list` *<b>*"],
)


def shown(table: Table, width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(forms.terminal(table, width))
    return capture.get()


@pytest.mark.parametrize("width", [80, 100, 130, 250])
def test_a_terminals_table_fits_and_loses_nothing(width: int) -> None:
    text = shown(TABLE.keeping(()), width)
    assert max(map(len, text.splitlines())) <= width
    for found in ("Title", "Three tasks", "71.2", "± 0.4", "69.4–73.0", "n 57", "3 seeds", "0.01"):
        assert found in text.replace("±0.4", "± 0.4"), found
    assert "…" not in text


def test_with_room_a_row_is_a_line_and_without_it_notes_go_below() -> None:
    assert "71.2 ± 0.4 (69.4–73.0, n 57)" in shown(TABLE, 250)
    narrow = shown(TABLE.keeping(()), 80).splitlines()
    assert any(line.startswith("run 0123 · rate=0.01") for line in narrow)
    assert not any("3 seeds" in line and "71.2" in line for line in narrow)
    assert not any("seeds" in line and "accuracy" in line for line in narrow)


def test_where_not_all_fits_the_widest_cells_are_broken_between_words_alone() -> None:
    heads = [Column("subset", True), *(Column("a wide heading of a column", False),) * 6]
    wide = Table.of(heads, [["women", *("91.2–94.5",) * 5, "+1.4 to +3.8"]])
    for width in (76, 74, 70):
        text = shown(wide, width)
        assert text.count("91.2–94.5") == 5
        assert all(piece in text for piece in ("women", "+1.4", "+3.8"))


def test_numbers_stand_right_text_left_and_parts_are_kept_where_a_row_has_something() -> None:
    for text in ("1,200", "−1.2*", "71.2 ± 0.4", "3.4 h", "<0.0001", "1e-4", "+2.6 (+1.4 to +3.8)"):
        assert not Table.of(["x"], [[text], ["–"]]).is_left(0), text
    for text in ("2026-11-28", "≥ 3", "a"):
        assert Table.of(["x"], [[text], ["–"]]).is_left(0), text
    headings = [column.heading for column in TABLE.keeping(("cost",), ["seeds"]).columns]
    assert headings == ["seeds", "memory"]
    empty = Table.of(["a", Column("b", part="cost")], [["x", ""], ["y", "–"]])
    assert len(empty.keeping(("cost",)).columns) == 1


def test_markdown_has_as_many_cells_in_every_line_and_no_html() -> None:
    text = forms.markdown(TABLE)
    tables = [part for part in text.replace("\\|", "").split("\n\n") if part.startswith("|")]
    counts = [{line.count("|") for line in table.splitlines()} for table in tables]
    assert counts == [{6}, {4}]  # what no row of a section has needs no column there
    assert "<script>" not in text
    assert "71.2 ± 0.4 (69.4–73.0, n 57) [1]" in text
    assert "1. see `facebench list` \\*&lt;b>\\*" in text


def test_latex_is_booktabs_and_nothing_breaks_it() -> None:
    text = forms.latex(TABLE)
    assert all(text.count(rule) == 1 for rule in ("\\toprule", "\\bottomrule"))
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
    assert "<" not in text
    assert text.isascii()
    rows = text.split("\\begin{tabular}{")[1].split("\n")
    ends = [row for row in rows if row.endswith("\\\\") and "multicolumn" not in row]
    assert {row.replace("\\&", "").count("&") for row in ends} == {4}
