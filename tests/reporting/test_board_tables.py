"""The forms of a leaderboard: whole, escaped, the same again; the words of its cells; the study's
rows beside ours; fewer rows or another order, with ranks and p-values as they were."""

import csv
import dataclasses
import html
import io
import json
import re

import pytest

from benchmark import registry
from benchmark.comparison.leaderboard import Leaderboard
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
from benchmark.errors import BenchmarkError, RunError
from benchmark.experiment.definition import Protocol, StudyRow
from benchmark.reporting.board_tables import board_table, differences_table, latex, markdown, page
from benchmark.reporting.columns import (
    FIELDS,
    as_data,
    csv_text,
    json_text,
    narrowed,
    study_table,
)
from tests.reporting.boards import NASTY, a_board, a_row, outcome
from tests.results.conftest import an_experiment

BOARD = a_board(Row("reference", "majority class"), a_row(), Row("missing", NASTY))


def test_numbers_and_protocols_are_written_as_people_read_them() -> None:
    several = TaskScore(0.712, 0.694, 0.73, macro_f1=0.65, accuracy_sd=0.004)
    odd = Protocol(fold=3, input_scaling="unit", shuffling="fixed_batches", selection="last_epoch")
    for found, expected in (
        ((count_text(None), count_text(12), count_text(12_345)), ("–", "12", "12.3 k")),
        ((count_text(722_496), count_text(14_800_000)), ("722 k", "14.8 M")),
        ((duration_text(None), duration_text(48.4), duration_text(99.6)), ("–", "48 s", "1.7 min")),
        ((duration_text(596.9), duration_text(597.1)), ("9.9 min", "10 min")),
        ((duration_text(750.0), duration_text(5_971.0)), ("12 min", "1.7 h")),
        ((number_text(None), number_text(0.05123), number_text(1320.4)), ("–", "0.0512", "1,320")),
        ((memory_text(None), memory_text(812.3), memory_text(3482)), ("–", "812 MiB", "3.4 GiB")),
        ((percent(0.71249), percent(None), accuracy_text(None)), ("71.2", "–", "–")),
        (accuracy_text(TaskScore(0.712, 0.694, 0.73, 0.65)), "71.2 (69.4–73.0)"),
        (accuracy_text(several), "71.2 ± 0.4 (69.4–73.0)"),
        (protocol_text(Protocol()), "leak-free"),
        (
            protocol_text(odd),
            "leak-free fold 3, inputs scaled to 0-1, batches never re-shuffled, last epoch taken",
        ),
    ):
        assert found == expected


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


def test_a_page_needs_nothing_else_escapes_all_it_shows_and_links_runs() -> None:
    text = page(BOARD, {"aa": (("run of seed 0", "#aa"), ("card", "#card"))})
    assert "<script>alert" not in text
    assert html.escape(NASTY, quote=False).replace('"', "&#34;") in text
    assert "<b>tags</b>" not in text
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "@import" not in text
    assert "`" not in text.split("<script>")[0]
    assert '<a href="#aa">run of seed 0</a> · <a href="#card">card</a>' in text


def test_little_is_always_shown_and_remarks_are_footnotes_said_once() -> None:
    rows = [a_row(f"mtl-{letter}", remarks=("weights ab",)) for letter in "ab"]
    table = board_table(a_board(*rows, a_row("mtl-c", remarks=("seed 1 failed",))).tables)
    assert [column.heading for column in table.keeping(()).columns] == [
        *("#", "experiment", "val", "age group", "gender", "race", "worst age group subgroup"),
        *("parameters", "time", "seeds"),
    ]
    assert table.notes == ("weights ab", "seed 1 failed")
    assert [row.cells[1].marks for row in table.rows] == [(1,), (1,), (2,)]


def test_what_must_be_known_of_a_row_stands_in_it() -> None:
    row = a_row(remarks=("ad hoc: recipe.max_epochs=3, head.hidden_units=64",))
    table = board_table(a_board(row).tables)
    note = "run aa, bb, cc · recipe.max_epochs=3 · head.hidden_units=64"
    assert (table.rows[0].cells[1].note, table.notes) == (note, ())
    tie = a_row("mtl-tie", rank=2, tied=True, comparisons=(outcome("first", None, -0.01, 0.6),))
    assert "| 2= | mtl-tie |" in markdown(a_board(a_row(), tie))
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


def test_csv_and_json_have_every_column_as_fractions_and_what_is_missing_is_empty() -> None:
    lines = list(csv.DictReader(io.StringIO(csv_text(BOARD))))
    rows = json.loads(json_text(BOARD))["rows"]
    for line, row in zip(lines, rows, strict=True):
        assert list(line) == list(row) == list(FIELDS)
    for name in ("gender_accuracy", "gmacs", "rank"):
        assert (rows[2][name], lines[2][name]) == (None, "")
    assert (lines[1]["gender_accuracy"], lines[1]["parameters"]) == ("0.700000", "722496")
    row = rows[1]
    found = [row[f"twin_gender{end}"] for end in ("", "_low", "_high", "_p_holm")]
    assert found == pytest.approx([0.031, 0.011, 0.051, 0.004])
    assert (row["compared_race"], row["twin_race"]) == (pytest.approx(-0.012), None)
    assert (row["study_row"], row["study_gender"]) == ("2.2", 0.9758)
    gap = [row[f"gap{end}"] for end in ("", "_low", "_high", "_chance")]
    assert gap == [0.15, 0.05, 0.25, 0.08]
    assert [row[f"worst_{end}"] for end in ("task", "n")] == ["age_group", 57]
    assert [row[f"combined{end}"] for end in ("", "_sd")] == [0.7, 0.01]
    # A spreadsheet takes no text for a formula.
    assert "'=1+1" in csv_text(a_board(a_row("=1+1")))


def test_every_form_states_the_limitations_and_is_the_same_twice() -> None:
    for text in (page, latex, markdown, csv_text, json_text):
        assert "A limit." in text(BOARD) or text is csv_text
        assert text(BOARD) == text(BOARD)
        assert text(a_board()) != text(BOARD)


def study_board() -> Leaderboard:
    """Give two rows of the study, one finished and replayed, and a row that is not the study's."""
    ours = a_row("mtl-vgg16-imagenet-block5", 0.7, devices=("AMD EPYC, 1 thread",))
    face = Row(
        "missing",
        "mtl-vgg16-vggface-block5",
        remarks=("not measured: weights missing (vggface of vgg16; `facebench weights list`)",),
        study=StudyRow("3.2", age_group=0.9109, gender=0.9644, race=0.9440),
        definition=ours.definition,
    )
    other = a_row("mtl-cnn-none-full", 0.6, study=None)
    suites = {"study": (face.name, other.name, ours.name)}
    replay = a_row("mtl-vgg16-imagenet-block5-published", 0.915, leaky=True, seeds=(0,))
    made = a_board(ours, other, face)
    return dataclasses.replace(made, suites=suites, replays={ours.name: replay})


def test_rows_of_the_study_stand_in_the_suite_s_order_with_printed_leak_free_and_replayed() -> None:
    rows = [[cell.text for cell in row.cells] for row in study_table(study_board()).rows]
    scores = [f"{task} 70.0 ± 1.0 (68.0–72.0)" for task in ("age group", "gender", "race")]
    assert rows == [
        ["3.2", "mtl-vgg16-vggface-block5", "printed 91.1 / 96.4 / 94.4", "–", "–"]
        + ["weights not available"],
        ["2.2", "mtl-vgg16-imagenet-block5", "printed 90.3 / 97.6 / 92.5", "\n".join(scores)]
        + ["replayed 91.5 / 91.5 / 91.5", "CPU, 3 seeds"],
    ]
    data = as_data(study_board())["study"]
    assert [row["row"] for row in data] == ["3.2", "2.2"]
    assert data[1]["leak_free"]["gender"]["mean"] == 0.7
    assert data[1]["replayed_leaky"]["gender"]["mean"] == 0.915
    assert "replayed 91.5 / 91.5 / 91.5" in markdown(study_board())
    text = page(study_board())
    assert "age group 70.0 ± 1.0 (68.0–72.0)<br>gender" in text
    # What a phone shows is what has a value.
    assert 'data-value="printed 90.3 / 97.6 / 92.5"' in text


def test_a_leaky_row_is_never_ours_and_other_suites_are_not_the_study_s() -> None:
    leaky = a_row("mtl-vgg16-imagenet-block5", 0.95, leaky=True)
    assert not study_table(
        dataclasses.replace(a_board(leaky), suites={"study": (leaky.name,)})
    ).rows
    assert "study" not in as_data(a_board(a_row()))
    assert registry.is_of_the_study(list(registry.experiments_of("study")))
    assert not registry.is_of_the_study(list(registry.experiments_of("quick")))
    assert not registry.is_of_the_study(())


FAST = a_row("mtl-fast", 0.7, rank=2, seconds=20.0)
SLOW = a_row(
    "mtl-slow",
    0.8,
    rank=1,
    seconds=900.0,
    seeds=(3,),
    leaky=True,
    definition=an_experiment(**{"recipe.learning_rate": 5e-4}).as_dict(),
)
ABSENT = Row("missing", "mtl-absent", definition=an_experiment().as_dict())
RANKED = a_board(Row("reference", "majority class"), SLOW, FAST, ABSENT)


def names(board: Leaderboard) -> list[str]:
    return [row.name for table in board.tables for row in table.rows if row.status != "reference"]


def test_a_condition_keeps_the_rows_that_fit() -> None:
    for text, kept in (
        ("experiment=mtl-fast", ["mtl-fast"]),
        ("experiment=MTL-F*", ["mtl-fast"]),
        ("seconds<100", ["mtl-fast"]),
        ("seconds>=900", ["mtl-slow"]),
        ("gender_accuracy>75%", ["mtl-slow"]),
        ("gender_accuracy=0.7", ["mtl-fast"]),
        ("learning_rate=5e-4", ["mtl-slow"]),
        ("seeds=3", ["mtl-slow"]),
        ("seeds=1", ["mtl-fast"]),
        ("leaky=true", ["mtl-slow"]),
        ("status=missing", ["mtl-absent"]),
        ("gender_accuracy=", ["mtl-absent"]),
        ("twin_gender_p_holm<=0.05", ["mtl-slow", "mtl-fast"]),
        ("gap > 10%", ["mtl-slow", "mtl-fast"]),
    ):
        assert names(narrowed(RANKED, [text])) == kept, text
    both = ["seconds<1000", "gender_accuracy<0.75"]
    assert names(narrowed(RANKED, both)) == ["mtl-fast"]


def test_rows_are_ordered_best_first_and_what_is_missing_last() -> None:
    for text, order in (
        ("gender_accuracy", ["mtl-slow", "mtl-fast", "mtl-absent"]),
        ("gender_accuracy:asc", ["mtl-fast", "mtl-slow", "mtl-absent"]),
        ("seconds", ["mtl-fast", "mtl-slow", "mtl-absent"]),
        ("seconds:desc", ["mtl-slow", "mtl-fast", "mtl-absent"]),
        ("experiment", ["mtl-absent", "mtl-fast", "mtl-slow"]),
        ("experiment:desc", ["mtl-slow", "mtl-fast", "mtl-absent"]),
    ):
        assert names(narrowed(RANKED, [], text)) == order, text
    assert all(len(names(narrowed(RANKED, [], field))) == 3 for field in FIELDS)


def test_ranks_and_reference_rows_stay_and_it_is_said() -> None:
    board = narrowed(RANKED, ["experiment=mtl-fast"], "seconds")
    rows = board.tables[0].rows
    assert [(row.name, row.rank) for row in rows] == [("majority class", None), ("mtl-fast", 2)]
    assert board.notes[0].startswith(
        "1 of 3 rows are shown (experiment=mtl-fast and sorted by seconds)."
    )
    assert board.notes[1:] == RANKED.notes


def test_where_no_row_fits_it_is_said() -> None:
    found = "no row of utkface-100 fits architecture=vgg16 and leaky=false"
    with pytest.raises(RunError, match=found):
        narrowed(RANKED, ["architecture=vgg16", "leaky=false"], "seconds")


def test_what_is_no_condition_and_no_order_is_refused_with_help() -> None:
    for text, said in (
        ("architectur=cnn", "Did you mean architecture?"),
        ("acc>1", "Did you mean"),
        ("moon=1", "Did you mean architecture"),
        ("rank", "COLUMN=VALUE"),
        ("=cnn", "COLUMN=VALUE"),
        ("architecture>3", "holds text"),
        ("seconds>soon", "holds numbers"),
        ("seconds>", "holds numbers"),
    ):
        with pytest.raises(RunError) as refused:
            narrowed(RANKED, [text])
        assert said in str(refused.value), text
    for text in ("seconds:up", "moon", "moon:asc"):
        with pytest.raises(BenchmarkError):
            narrowed(RANKED, [], text)
