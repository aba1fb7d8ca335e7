"""Fewer rows or another order: by any column, with ranks and p-values as they were."""

import pytest

from benchmark.comparison.leaderboard import Leaderboard
from benchmark.comparison.rows import Row
from benchmark.errors import RunError
from benchmark.reporting.columns import FIELDS, condition, narrowed, sort_by
from tests.reporting.boards import a_board, a_row
from tests.results.conftest import an_experiment

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
MAJORITY = Row("reference", "majority class")
BOARD = a_board(MAJORITY, SLOW, FAST, ABSENT)


def names(board: Leaderboard) -> list[str]:
    return [row.name for table in board.tables for row in table.rows if row.status != "reference"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("experiment=mtl-fast", ["mtl-fast"]),
        ("experiment=MTL-F*", ["mtl-fast"]),
        ("architecture!=cnn", []),
        ("seconds<100", ["mtl-fast"]),
        ("seconds>=900", ["mtl-slow"]),
        ("gender_accuracy>75%", ["mtl-slow"]),
        ("gender_accuracy=0.7", ["mtl-fast"]),
        ("learning_rate=5e-4", ["mtl-slow"]),
        ("seeds=3", ["mtl-slow"]),
        ("seeds=1", ["mtl-fast"]),
        ("leaky=yes", ["mtl-slow"]),
        ("status=missing", ["mtl-absent"]),
        ("gender_accuracy=", ["mtl-absent"]),
        ("twin_gender_p_holm<=0.05", ["mtl-slow", "mtl-fast"]),
        ("gap > 10%", ["mtl-slow", "mtl-fast"]),
    ],
)
def test_a_condition_keeps_the_rows_that_fit(text: str, kept: list[str]) -> None:
    if kept:
        assert names(narrowed(BOARD, [condition(text)])) == kept
    else:
        with pytest.raises(RunError, match="no row of utkface-100 has architecture!=cnn"):
            narrowed(BOARD, [condition(text)])


def test_all_conditions_must_hold() -> None:
    both = [condition("seconds<1000"), condition("gender_accuracy<0.75")]
    assert names(narrowed(BOARD, both)) == ["mtl-fast"]


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("gender_accuracy", ["mtl-slow", "mtl-fast", "mtl-absent"]),
        ("gender_accuracy:asc", ["mtl-fast", "mtl-slow", "mtl-absent"]),
        ("seconds", ["mtl-fast", "mtl-slow", "mtl-absent"]),
        ("seconds:desc", ["mtl-slow", "mtl-fast", "mtl-absent"]),
        ("experiment", ["mtl-absent", "mtl-fast", "mtl-slow"]),
        ("experiment:desc", ["mtl-slow", "mtl-fast", "mtl-absent"]),
    ],
)
def test_rows_are_ordered_best_first_and_what_is_missing_last(text: str, order: list[str]) -> None:
    assert names(narrowed(BOARD, [], sort_by(text))) == order


def test_every_column_orders() -> None:
    for field in FIELDS:
        assert len(names(narrowed(BOARD, [], sort_by(field.name)))) == 3, field.name


def test_ranks_and_reference_rows_stay_and_it_is_said() -> None:
    board = narrowed(BOARD, [condition("experiment=mtl-fast")], sort_by("seconds"))
    rows = board.tables[0].rows
    assert [(row.name, row.rank) for row in rows] == [("majority class", None), ("mtl-fast", 2)]
    assert board.notes[0].startswith(
        "1 of 3 rows are shown (experiment=mtl-fast, by seconds, ascending)."
    )
    assert board.notes[1:] == BOARD.notes


def test_nothing_asked_for_changes_nothing() -> None:
    assert narrowed(BOARD, []) is BOARD


def test_where_no_row_fits_the_values_there_are_named() -> None:
    with pytest.raises(RunError, match=r"architecture=vgg16 \(allowed: architecture: cnn\)"):
        narrowed(BOARD, [condition("architecture=vgg16")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("architectur=cnn", "did you mean architecture?"),
        ("acc>1", "did you mean"),
        ("moon=1", "did you mean architecture, weights"),
        ("rank", "is no condition"),
        ("=cnn", "is no condition"),
        ("architecture>3", "holds text"),
        ("seconds>soon", "'soon' is no number"),
        ("seconds>", "'' is no number"),
        ("leaky=perhaps", "allowed: true, false"),
    ],
)
def test_a_condition_that_is_none_is_refused_with_help(text: str, said: str) -> None:
    with pytest.raises(RunError) as refused:
        condition(text)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["seconds:up", "moon"])
def test_an_order_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RunError):
        sort_by(text)
