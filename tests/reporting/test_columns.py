"""Fewer rows or another order: by any column, with ranks and p-values as they were."""

import pytest

from benchmark.comparison.leaderboard import Leaderboard
from benchmark.comparison.rows import Row
from benchmark.errors import BenchmarkError, RunError
from benchmark.reporting.columns import FIELDS, narrowed
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
BOARD = a_board(Row("reference", "majority class"), SLOW, FAST, ABSENT)


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
        assert names(narrowed(BOARD, [text])) == kept, text
    both = ["seconds<1000", "gender_accuracy<0.75"]
    assert names(narrowed(BOARD, both)) == ["mtl-fast"]


def test_rows_are_ordered_best_first_and_what_is_missing_last() -> None:
    for text, order in (
        ("gender_accuracy", ["mtl-slow", "mtl-fast", "mtl-absent"]),
        ("gender_accuracy:asc", ["mtl-fast", "mtl-slow", "mtl-absent"]),
        ("seconds", ["mtl-fast", "mtl-slow", "mtl-absent"]),
        ("seconds:desc", ["mtl-slow", "mtl-fast", "mtl-absent"]),
        ("experiment", ["mtl-absent", "mtl-fast", "mtl-slow"]),
        ("experiment:desc", ["mtl-slow", "mtl-fast", "mtl-absent"]),
    ):
        assert names(narrowed(BOARD, [], text)) == order, text
    for field in FIELDS:
        assert len(names(narrowed(BOARD, [], field))) == 3, field


def test_ranks_and_reference_rows_stay_and_it_is_said() -> None:
    board = narrowed(BOARD, ["experiment=mtl-fast"], "seconds")
    rows = board.tables[0].rows
    assert [(row.name, row.rank) for row in rows] == [("majority class", None), ("mtl-fast", 2)]
    assert board.notes[0].startswith(
        "1 of 3 rows are shown (experiment=mtl-fast and sorted by seconds)."
    )
    assert board.notes[1:] == BOARD.notes


def test_where_no_row_fits_it_is_said() -> None:
    found = "no row of utkface-100 fits architecture=vgg16 and leaky=false"
    with pytest.raises(RunError, match=found):
        narrowed(BOARD, ["architecture=vgg16", "leaky=false"], "seconds")


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
            narrowed(BOARD, [text])
        assert said in str(refused.value), text
    for text in ("seconds:up", "moon"):
        with pytest.raises(BenchmarkError):
            narrowed(BOARD, [], text)
