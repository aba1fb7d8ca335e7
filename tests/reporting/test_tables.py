"""The table model's renderers: what fits, what is aligned, and that no text breaks a form."""

import pytest
from rich.console import Console

from benchmark.reporting import tables as forms
from benchmark.reporting.tables import Cell, Column, Table, TableRow

NASTY = 'a|b*<script>alert("1")</script>&_$%#{}~^\\ [bold]x[/]'
FULL = (Cell("a"), Cell("3 seeds"), Cell("71.2 ± 0.4", "69.4–73.0", marks=(1,)), Cell("2 GiB"))
BARE = (Cell(NASTY), Cell(), Cell("7.1"), Cell())
TABLE = Table.of(
    ["experiment", "seeds", "accuracy", Column("memory", part="cost")],
    [TableRow(FULL, "Three tasks"), TableRow(BARE, "One task")],
    "Title",
    ["see `facebench list` *<b>*"],
)


@pytest.mark.parametrize("width", [76, 74, 70])
def test_where_not_all_fits_the_widest_cells_are_broken_between_words_alone(width: int) -> None:
    heads = [Column("subset", True), *(Column("a wide heading of a column", False),) * 6]
    wide = Table.of(heads, [["women", *("91.2–94.5",) * 5, "+1.4 to +3.8"]])
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(forms.terminal(wide, width))
    words = capture.get().split()
    assert words.count("91.2–94.5") == 5
    assert {"women", "+1.4", "+3.8"} <= set(words)


def test_numbers_stand_right_and_text_left() -> None:
    for text in ("1,200", "−1.2*", "71.2 ± 0.4", "3.4 h", "<0.0001", "1e-4", "+2.6 (+1.4 to +3.8)"):
        assert not Table.of(["x"], [[text], ["–"]]).is_left(0), text
    for text in ("2026-11-28", "≥ 3", "a"):
        assert Table.of(["x"], [[text], ["–"]]).is_left(0), text


def test_markdown_has_as_many_cells_in_every_line_and_no_html() -> None:
    text = forms.markdown(TABLE)
    tables = [part for part in text.replace("\\|", "").split("\n\n") if part.startswith("|")]
    counts = [{line.count("|") for line in table.splitlines()} for table in tables]
    assert counts == [{5}, {3}]  # what no row of a section has needs no column there
    assert "<script>" not in text
    assert "71.2 ± 0.4 (69.4–73.0) [1]" in text
    assert "1. see `facebench list` \\*&lt;b>\\*" in text


def test_latex_is_booktabs_and_nothing_breaks_it() -> None:
    text = forms.latex(TABLE)
    assert all(text.count(rule) == 1 for rule in ("\\toprule", "\\bottomrule"))
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
    assert "<" not in text
    assert text.isascii()
    ends = [it for it in text.split("\n") if it.endswith("\\\\") and "multicolumn" not in it]
    assert {row.replace("\\&", "").count("&") for row in ends} == {3}
