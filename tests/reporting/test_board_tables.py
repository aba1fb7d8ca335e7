"""The forms of a leaderboard, the words of its cells, the study's rows; fewer and ordered rows."""

import csv
import dataclasses
import io
import json
import re
from typing import Any

import pytest

from benchmark.comparison.rows import Row
from benchmark.errors import BenchmarkError
from benchmark.experiment.definition import StudyRow
from benchmark.reporting.board_tables import (
    board_table,
    latex,
    markdown,
    page,
    state,
    study_table,
)
from benchmark.reporting.columns import FIELDS, csv_text, json_text, narrowed
from tests.made_runs import an_experiment
from tests.reporting.boards import NASTY, a_board, a_row, outcome

BOARD = a_board(Row("reference", "majority class"), a_row(), Row("missing", NASTY))


def test_every_number_and_link_of_a_row_is_in_the_page_which_needs_nothing_else() -> None:
    run: Any = "a run"
    board = a_board(BOARD.tables[0].rows[0], a_row(runs=(run,)), *BOARD.tables[0].rows[2:])
    written = page(board, lambda _: (("run of seed 0", "#aa"), ("card", "#card")))
    assert not re.search(r"""(src|href)=["'](?!data:|#)|@import""", written)
    assert '<a href="#aa">run of seed 0</a> · <a href="#card">card</a>' in written
    text = re.sub(r"<[^>]+>", " ", written)
    for number in (
        *("70.0 ± 1.0", "68.0–72.0", "65.0 ± 2.0", "female Others", "56.1 (n 57)", "15.0"),
        *("permuted 8.0", "+3.1*", "p 0.0040", "−1.2", "p 0.30", "mtl-cnn-none-full-b"),
        *("LEAKY 90.3", "722 k", "12.3 k", "0.0512", "12 min", "1,320", "2.0 GiB"),
        *("0, 1, 2", "CPU, 2 threads, fp32", "0123456789ab"),
    ):
        assert number in text, number
        assert number in markdown(BOARD).replace("\\*", "*"), number


def test_little_is_always_shown_remarks_are_footnotes_and_what_must_be_known_is_in_the_row() -> (
    None
):
    rows = [a_row(f"mtl-{letter}", remarks=("weights ab",)) for letter in "ab"]
    table = board_table(a_board(*rows, a_row("mtl-c", remarks=("seed 1 failed",))).tables)
    assert [column.heading for column in table.keeping(()).columns] == [
        *("#", "experiment", "val. acc.", "age group", "gender", "race"),
        *("worst age group subgroup", "parameters", "time", "seeds"),
    ]
    assert table.notes == ("weights ab", "seed 1 failed")
    assert [row.cells[1].marks for row in table.rows] == [(1,), (1,), (2,)]
    row = a_row(remarks=("ad hoc: recipe.max_epochs=3, head.hidden_units=64",))
    table = board_table(a_board(row).tables)
    note = "run aa, bb, cc · recipe.max_epochs=3 · head.hidden_units=64"
    assert (table.rows[0].cells[1].note, table.notes) == (note, ())
    tie = a_row("mtl-tie", rank=2, comparisons=(outcome("first", None, -0.01, 0.6),))
    assert "| 2= | mtl-tie |" in markdown(a_board(a_row(), tie))
    for text in (page, markdown, latex):
        assert "LEAKY mtl-cnn" in text(a_board(a_row(leaky=True))).replace("\\_", "_")


def test_csv_and_json_have_every_column_and_what_is_missing_is_empty() -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(BOARD))))
    rows = json.loads(json_text(BOARD))["rows"]
    for line, row in zip(lines, rows, strict=True):
        assert list(line) == list(row) == list(FIELDS)
    for name in ("gender_accuracy", "gmacs", "rank"):
        assert (rows[2][name], lines[2][name]) == (None, "")
    assert (lines[1]["gender_accuracy"], lines[1]["parameters"]) == ("0.700000", "722496")
    assert (rows[1]["compared_race"], rows[1]["twin_race"]) == (pytest.approx(-0.012), None)
    # A spreadsheet takes no text for a formula.
    assert "'=1+1" in csv_text(a_board(a_row("=1+1")))


def test_every_form_is_the_same_twice_and_another_of_other_rows() -> None:
    for text in (page, latex, markdown, csv_text, json_text):
        assert text(BOARD) == text(BOARD) != text(a_board())


def test_rows_of_the_study_stand_in_the_suite_s_order_with_printed_leak_free_and_replayed() -> None:
    ours = a_row("mtl-vgg16-imagenet-block5", 0.7, devices=("AMD EPYC, 1 thread",))
    face = Row(
        "missing", "mtl-vgg16-vggface-block5", unmeasured="not run (weights not available)",
        study=StudyRow("3.2", 0.9109, 0.9644, 0.9440), definition=ours.definition,
    )  # fmt: skip
    assert state(dataclasses.replace(face, unmeasured="not finished")) == "not finished"
    leaky = a_row("mtl-vgg16-imagenet-full", 0.95, leaky=True)
    other = a_row("mtl-cnn-none-full", 0.6, study=None)
    board = dataclasses.replace(
        a_board(ours, leaky, other, face),
        suites={"study": (face.name, leaky.name, other.name, ours.name)},
        replays={ours.name: a_row("replay", 0.915, leaky=True, seeds=(0,))},
    )
    rows = [[cell.text for cell in row.cells] for row in study_table(board).rows]
    scores = [f"{task} 70.0 ± 1.0 (68.0–72.0)" for task in ("age group", "gender", "race")]
    assert rows == [
        ["3.2", face.name, "printed 91.1 / 96.4 / 94.4", "–", "–"]
        + ["not run\n(weights not available)"],
        ["2.2", ours.name, "printed 90.3 / 97.6 / 92.5", "\n".join(scores)]
        + ["replayed 91.5 / 91.5 / 91.5", "CPU, 3 seeds"],
    ]
    for text in (markdown(board), page(board)):
        assert "replayed 91.5 / 91.5 / 91.5" in text
        assert "age group 70.0 ± 1.0 (68.0–72.0)" in text
    assert not study_table(a_board(a_row())).rows, "of another suite"


FAST = a_row("mtl-fast", 0.7, rank=2, seconds=20.0)
SLOW = a_row(
    "mtl-slow", 0.8, seconds=900.0, seeds=(3,), leaky=True,
    definition=an_experiment(**{"recipe.learning_rate": 5e-4}).as_dict(),
)  # fmt: skip
ABSENT = Row("missing", "mtl-absent", definition=an_experiment().as_dict())
RANKED = a_board(Row("reference", "majority class"), SLOW, FAST, ABSENT)


@pytest.mark.parametrize(
    ("where", "sort", "shown"),
    [
        ("experiment=MTL-F*", "", "fast"),
        ("gender_accuracy>75%", "", "slow"),
        ("gender_accuracy=0.7", "", "fast"),
        ("learning_rate=5e-4", "", "slow"),
        ("seeds=1", "", "fast"),
        ("leaky=true", "", "slow"),
        ("gender_accuracy=", "", "absent"),
        ("gap>=10%", "", "slow fast"),
        ("seconds<1000 gender_accuracy<0.75", "", "fast"),
        ("", "gender_accuracy", "slow fast absent"),
        ("", "gender_accuracy:asc", "fast slow absent"),
        ("", "seconds", "fast slow absent"),
        ("", "experiment:desc", "slow fast absent"),
    ],
)
def test_rows_that_fit_are_shown_best_first_and_what_is_missing_last(
    where: str, sort: str, shown: str
) -> None:
    board = narrowed(RANKED, where.split(), sort)
    first, *rows = board.tables[0].rows
    assert first.name == "majority class"
    assert [row.name.removeprefix("mtl-") for row in rows] == shown.split()
    assert all(row.rank == {"mtl-slow": 1, "mtl-fast": 2}.get(row.name) for row in rows)
    assert board.notes[0].startswith(f"{len(rows)} of 3 rows are shown (")
    assert board.notes[1:] == RANKED.notes


@pytest.mark.parametrize(
    ("where", "sort", "said"),
    [
        ("architectur=cnn", "", "Did you mean architecture?"),
        ("rank", "", "COLUMN=VALUE"),
        ("architecture>3", "", "holds text"),
        ("seconds>soon", "", "holds numbers"),
        ("seconds>", "", "holds numbers"),
        ("architecture=vgg16", "seconds", "no row of utkface-100 fits architecture=vgg16"),
        ("seconds>0", "seconds:up", "the order of --sort"),
        ("seconds>0", "moon:asc", "no column 'moon'"),
    ],
)
def test_what_is_no_condition_and_no_order_is_refused_with_help(
    where: str, sort: str, said: str
) -> None:
    with pytest.raises(BenchmarkError) as refused:
        narrowed(RANKED, [where], sort)
    assert said in str(refused.value)
