"""A leaderboard's words: numbers as people read them, CSV as machines do, nothing that breaks."""

import csv
import io

import pytest

from benchmark.comparison.cells import (
    accuracy_text,
    count_text,
    duration_text,
    percent,
    protocol_text,
    worst_text,
)
from benchmark.comparison.leaderboard import build
from benchmark.comparison.rows import TaskScore, WorstGroup
from benchmark.evaluation.predictions import LIMITS
from benchmark.experiment.definition import Protocol
from benchmark.reporting.board_tables import csv_text, markdown
from tests.results.conftest import RunBuilder, an_experiment, exact_predictions


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (12, "12"), (12_345, "12.3 k"), (722_496, "722 k"), (14_800_000, "14.8 M")],
)
def test_counts_have_three_digits(count: int | None, text: str) -> None:
    assert count_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (48.4, "48 s"),
        (99.6, "1.7 min"),
        (596.9, "9.9 min"),
        (597.1, "10 min"),
        (750.0, "12 min"),
        (5_971.0, "1.7 h"),
        (12_240.0, "3.4 h"),
    ],
)
def test_durations_have_a_fitting_unit(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


def test_rates_are_percent_and_what_is_missing_is_a_dash() -> None:
    assert (percent(0.71249), percent(None)) == ("71.2", "–")
    assert accuracy_text(None) == "–"
    assert worst_text(None) == "–"


def test_an_accuracy_shows_its_interval_and_its_sd_where_there_is_one() -> None:
    one = TaskScore(0.712, 0.694, 0.73, macro_f1=0.65)
    several = TaskScore(0.712, 0.694, 0.73, macro_f1=0.65, accuracy_sd=0.004)
    assert accuracy_text(one) == "71.2 (69.4–73.0)"
    assert accuracy_text(several) == "71.2 ± 0.4 (69.4–73.0)"


def test_the_worst_subgroup_travels_with_count_and_interval() -> None:
    worst = WorstGroup("age_group", "gender_race", "female Others", 57, 0.561, 0.433, 0.682)
    assert worst_text(worst) == "female Others 56.1 (43.3–68.2), n 57"


def test_a_protocol_is_named_with_what_it_does_otherwise() -> None:
    assert protocol_text(Protocol()) == "leak-free"
    odd = Protocol(fold=3, input_scaling="unit", shuffling="fixed_batches", selection="last_epoch")
    assert protocol_text(odd) == (
        "leak-free fold 3, inputs scaled to 0-1, batches never re-shuffled, last epoch taken"
    )


def test_csv_has_every_row_with_fractions_and_empty_cells(runs: RunBuilder) -> None:
    done = an_experiment("done")
    absent = an_experiment("absent", **{"recipe.learning_rate": 5e-4})
    runs.done(done, exact_predictions(60, 80))
    board = build(runs.records(), [done, absent], "utkface-100", suite="quick")
    first, second = csv.DictReader(io.StringIO(csv_text(board)))
    assert (first["status"], first["rank"], first["gender_accuracy"]) == ("done", "1", "0.800000")
    assert first["split_digest"] == "cd" * 32
    assert (first["parameters"], first["trainable_parameters"]) == ("722496", "12345")
    assert (second["status"], second["gender_accuracy"], second["rank"]) == ("missing", "", "")
    assert second["remarks"] == "not run"


def test_markdown_has_as_many_cells_in_every_line_of_a_table(runs: RunBuilder) -> None:
    experiment = an_experiment()
    runs.failed(experiment, "a | b\n<script>")
    text = markdown(build(runs.records(), [experiment], "utkface-100"))
    tables = [part for part in text.replace("\\|", "").split("\n\n") if part.startswith("|")]
    assert tables
    for table in tables:
        assert len({line.count("|") for line in table.split("\n")}) == 1
    assert "<script>" not in text


def test_every_leaderboard_says_what_its_numbers_are_not(runs: RunBuilder) -> None:
    experiment = an_experiment()
    runs.done(experiment, exact_predictions(60, 80))
    text = markdown(build(runs.records(), [experiment], "utkface-100"))
    assert all(limit in text for limit in LIMITS)
    assert "perceived age, gender and race" in text
