"""A row: one experiment over its seeds, by hand, and what is refused instead of guessed."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.comparison.library import Run, read_run
from benchmark.comparison.references import majority_row
from benchmark.comparison.rows import worst_group
from benchmark.errors import RunError
from benchmark.evaluation.intervals import wilson
from benchmark.files import write_json
from benchmark.tasks import TASKS, TaskName
from tests.results import conftest as made
from tests.results.conftest import RunBuilder, an_experiment


def seeds(runs: RunBuilder, *tables: pd.DataFrame) -> list[Run]:
    """Finish a run of one experiment per table of predictions, of 100 s, 200 s, 600 s."""
    return [
        read_run(runs.done(an_experiment(), table, seed=seed, seconds=seconds))
        for seed, (table, seconds) in enumerate(zip(tables, (100.0, 200.0, 600.0), strict=False))
    ]


def refused(said: str, runs: list[Run]) -> None:
    with pytest.raises(RunError, match=said):
        made.experiment_row("x", runs)


def test_one_seed_has_wilson_and_no_sd(runs: RunBuilder) -> None:
    row = made.experiment_row("x", seeds(runs, made.exact_predictions(70, 80)))
    low, high = wilson(np.array([80]), np.array([100]))
    score = row.scores["gender"]
    assert (score.accuracy, score.low, score.high) == pytest.approx((0.8, low[0], high[0]))
    assert (score.accuracy_sd, row.val_combined_sd) == (None, None)
    assert row.val_combined == pytest.approx(0.7)


def test_several_seeds_have_a_mean_and_a_sample_sd(runs: RunBuilder) -> None:
    # Accuracies 0.8 0.9 0.7: mean 0.8, sd sqrt((0 + 0.01 + 0.01) / 2) = 0.1.
    tables = [made.exact_predictions(60, n_right) for n_right in (80, 90, 70)]
    row = made.experiment_row("x", seeds(runs, *tables))
    assert row.scores["race"].accuracy == pytest.approx(0.8)
    assert row.scores["race"].accuracy_sd == pytest.approx(0.1)
    assert row.val_combined_sd == pytest.approx(0.0)
    assert row.seconds == 300.0, "the mean, not the median"
    assert row.seeds == (0, 1, 2)


def test_seeds_are_not_pooled_as_if_they_were_faces(runs: RunBuilder) -> None:
    # Three seeds that agree on every face are worth one: the interval stays about Wilson's.
    same = seeds(runs, *[made.exact_predictions(60, 80)] * 3)
    scores = [made.experiment_row("x", ours).scores["race"] for ours in (same[:1], same)]
    one, three = (score.high - score.low for score in scores)
    assert three == pytest.approx(one, rel=0.1)


@pytest.mark.parametrize(
    ("tasks", "rows", "expected"),
    [
        (
            TASKS,
            [
                ("age_group", "age_group", "15-25", 50, 0.2),
                ("age_group", "gender", "female", 90, 0.6),
                ("age_group", "race", "Others", 30, 0.5),
                ("age_group", "gender_race", "female Others", 29, 0.1),
                ("gender", "race", "Black", 50, 0.0),
            ],
            ("race", "Others", 30, 0.5),
        ),
        *(
            (
                (task,),
                [
                    (task, task, "first", 50, 0.1),
                    (task, "gender_race", "female Black", 50, 0.2),
                    (task, "age_group", "61+", 50, 0.7),
                ],
                ("age_group", "61+", 50, 0.7),
            )
            for task in ("gender", "race")
        ),
    ],
)
def test_the_worst_subgroup_is_large_and_no_class_of_the_task(
    tasks: tuple[TaskName, ...], rows: list[Any], expected: Any
) -> None:
    table = pd.DataFrame(rows, columns=["task", "by", "group", "n", "accuracy"])
    worst = worst_group(table.assign(low=0.0, high=1.0), tasks)
    assert worst is not None
    assert (worst.by, worst.group, worst.n, worst.accuracy) == expected


def test_without_a_large_subgroup_none_is_the_worst(runs: RunBuilder) -> None:
    found = seeds(runs, made.exact_predictions(20, 20, n=25))
    assert made.experiment_row("x", found).worst is None


def test_the_worst_subgroup_of_several_seeds_is_that_of_their_mean(runs: RunBuilder) -> None:
    skills: dict[TaskName, float] = {"age_group": 1.2, "gender": 1.5, "race": 1.5}
    ours = seeds(runs, *(made.made_up_predictions(skills, n=800, seed=seed) for seed in (0, 1)))
    worst = made.experiment_row("x", ours).worst
    assert worst is not None
    tables = [run.record.subgroups().query("task == 'age_group'") for run in ours]
    found = [table[table["group"] == worst.group]["accuracy"].item() for table in tables]
    assert worst.accuracy == pytest.approx(np.mean(found))
    assert worst.low < worst.accuracy < worst.high


def test_the_majority_class_is_that_of_training_scored_on_test() -> None:
    # Most frequent in training: age group 2, female, race 1. In test 1 of 4, 3 of 4, 2 of 4.
    train = pd.DataFrame({"age_group": [2, 2, 0], "gender": [1, 1, 0], "race": [1, 1, 4]})
    test = pd.DataFrame({"age_group": [2, 0, 1, 4], "gender": [1, 1, 1, 0], "race": [1, 0, 1, 2]})
    row = majority_row(train, test)
    accuracies = [row.scores[task].accuracy for task in TASKS]
    assert accuracies == [0.25, 0.75, 0.5]
    # Macro-F1 of gender: female 2*3/(2*3+1+0) = 6/7, male 0; their mean is 3/7.
    assert row.scores["gender"].macro_f1 == pytest.approx(3 / 7)
    assert row.status == "reference"


def test_seeds_whose_predictions_cannot_be_trusted_are_refused(runs: RunBuilder) -> None:
    ours = seeds(runs, *(made.exact_predictions(60, 80, n=n) for n in (100, 100, 120)))
    refused("tested on different faces", ours)
    path = ours[1].record.predictions_path
    path.write_text(path.read_text() + "\n")
    refused("changed after they were scored", ours[:2])
    path.unlink()
    refused("predictions of run .* cannot be read", ours[:2])


def test_a_definition_of_another_layout_is_refused(runs: RunBuilder) -> None:
    record = runs.begun(an_experiment())
    path = record.folder / "experiment.json"
    content = json.loads(path.read_text())
    content["experiment"]["protocol"]["moon"] = "full"
    write_json(path, content)
    with pytest.raises(RunError, match="is not understood"):
        read_run(record)


def test_metrics_that_hold_too_little_are_refused(runs: RunBuilder) -> None:
    (run,) = seeds(runs, made.exact_predictions(60, 80))
    kept = {"schema": 1, "predictions_sha256": "", "metrics": {}}
    write_json(run.record.folder / "metrics.json", kept)
    refused("hold too little", [run])
