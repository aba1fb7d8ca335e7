"""A leaderboard's rows: one experiment over its seeds, by hand; what rows are compared with
(counterparts, what their definitions name, the first); what is refused instead of guessed."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.comparison.leaderboard import Leaderboard, LeaderboardQuery, arrange
from benchmark.comparison.library import Run, read_run, read_runs
from benchmark.comparison.rows import Row, done_row, worst_group
from benchmark.comparison.statistics import holm, mcnemar_p
from benchmark.comparison.wording import TaskComparison
from benchmark.errors import RunError
from benchmark.evaluation.intervals import wilson
from benchmark.experiment.definition import Experiment
from benchmark.files import write_json
from benchmark.tasks import TASKS, TaskName
from tests import made_runs as made
from tests.made_runs import RunBuilder, an_experiment, exact_predictions

GENDER: tuple[TaskName, ...] = ("gender",)
MTL = an_experiment("a")
STL = an_experiment("a", tasks=GENDER)
OTHER, THIRD, FOURTH = (
    an_experiment(name, tasks=GENDER, **{"recipe.learning_rate": rate})
    for name, rate in (("b", 5e-4), ("c", 2e-4), ("d", 3e-4))
)
NAMING = dataclasses.replace(OTHER, compare_with=STL.name)


def seeds(runs: RunBuilder, *tables: pd.DataFrame) -> list[Run]:
    """Finish a run of one experiment per table of predictions, of 0 s, 100 s, 200 s."""
    return [
        read_run(runs.done(MTL, table, seed=seed, seconds=100.0 * seed))
        for seed, table in enumerate(tables)
    ]


def refused(said: str, runs: list[Run]) -> None:
    with pytest.raises(RunError, match=said):
        done_row("x", runs)


def test_one_seed_has_wilson_and_several_have_a_mean_and_a_sample_sd(runs: RunBuilder) -> None:
    # Accuracies 0.8 0.9 0.7: mean 0.8, sd sqrt((0 + 0.01 + 0.01) / 2) = 0.1.
    ours = seeds(runs, *(exact_predictions(60, n_right) for n_right in (80, 90, 70)))
    one, several = done_row("x", ours[:1]), done_row("x", ours)
    score, ends = one.scores["gender"], wilson(np.array([80]), np.array([100]))
    assert (score.accuracy, score.low, score.high) == pytest.approx(
        (0.8, *(end[0] for end in ends))
    )
    assert (score.accuracy_sd, one.val_combined_sd) == (None, None)
    score = several.scores["gender"]
    assert (score.accuracy, score.accuracy_sd) == pytest.approx((0.8, 0.1))
    assert (several.val_combined, several.val_combined_sd) == pytest.approx((0.6, 0.0))
    assert several.seconds == 100.0


def test_seeds_are_not_pooled_as_if_they_were_faces(runs: RunBuilder) -> None:
    # Three seeds that agree on every face are worth one: the interval stays about Wilson's.
    same = seeds(runs, *[exact_predictions(60, 80)] * 3)
    one, three = (done_row("x", ours).scores["race"] for ours in (same[:1], same))
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)


def test_the_worst_subgroup_is_large_and_no_class_of_the_task() -> None:
    rows = [
        ("age_group", "age_group", "15-25", 50, 0.2),
        ("age_group", "gender", "female", 90, 0.6),
        ("age_group", "race", "Others", 30, 0.5),
        ("age_group", "gender_race", "female Others", 29, 0.1),
        ("gender", "gender", "male", 50, 0.1),
        ("gender", "gender_race", "female Black", 50, 0.2),
        ("gender", "age_group", "61+", 50, 0.7),
    ]
    columns = ["task", "by", "group", "n", "accuracy"]
    table = pd.DataFrame(rows, columns=columns).assign(low=0.0, high=1.0)
    for tasks, by, group in ((TASKS, "race", "Others"), (GENDER, "age_group", "61+")):
        worst = worst_group(table, tasks)
        assert worst is not None
        assert (worst.by, worst.group) == (by, group)
        assert worst_group(table.assign(n=29), tasks) is None


def test_what_cannot_be_trusted_or_understood_is_refused(runs: RunBuilder) -> None:
    ours = seeds(runs, *(exact_predictions(60, 80, n=n) for n in (100, 100, 120)))
    refused("tested on different faces", ours)
    ours[1].record.predictions_path.unlink()
    refused("predictions of run .* cannot be read", ours[:2])
    folder = ours[2].record.folder
    write_json(folder / "metrics.json", {"schema": 1, "predictions_sha256": "", "metrics": {}})
    refused("hold too little", [read_run(made.RunRecord(folder))])
    record = runs.begun(MTL, seed=9)
    content = json.loads((record.folder / "experiment.json").read_text())
    protocol = content["experiment"]["protocol"] | {"moon": "full"}
    odd = {"weights": "text"}, {"experiment": content["experiment"] | {"protocol": protocol}}
    for changes in odd:
        write_json(record.folder / "experiment.json", content | changes)
        with pytest.raises(RunError, match="is not understood"):
            read_run(made.RunRecord(record.folder))


def done(
    runs: RunBuilder, experiment: Experiment, n_val: int, *n_test: int, n: int = 100, **about: Any
) -> None:
    """Finish a run per seed that predicts so many of n validation and test faces rightly."""
    for seed, n_right in enumerate(n_test):
        answers = exact_predictions(n_val, n_right, n=n, tasks=experiment.head.tasks)
        runs.done(experiment, answers, seed=seed, **about)


def board_of(runs: RunBuilder, *experiments: Experiment, **options: Any) -> Leaderboard:
    return made.build(runs.records(), experiments, "utkface-100", **options)


def row_of(board: Leaderboard, experiment: Experiment) -> Row:
    (row,) = (row for table in board.tables for row in table.rows if row.name == experiment.name)
    return row


def outcomes(board: Leaderboard, experiment: Experiment) -> Mapping[str, Any]:
    found = row_of(board, experiment).comparisons
    return {f"{family} {item.task or 'together'}": item for family, item in found}


def test_mtl_and_stl_are_compared_on_the_task_they_share(runs: RunBuilder) -> None:
    done(runs, MTL, 70, 80)
    done(runs, STL, 70, 60)
    board = board_of(runs, MTL, STL)
    found = outcomes(board, MTL)
    ours = found["mtl_stl gender"]
    # 80 and 60 of 100 right, the first so many: 20 faces MTL alone, none STL alone.
    assert ours.difference.accuracy == pytest.approx(0.2)
    assert ours.difference.p == pytest.approx(mcnemar_p(0, 20))
    assert ours.of_trainings_alone
    assert found["mtl_stl race"].why == "not registered"
    theirs = outcomes(board, STL)["mtl_stl gender"]
    assert theirs.reference.label == MTL.name
    assert theirs.difference.accuracy == pytest.approx(-0.2)


def test_rows_are_compared_with_the_first_by_validation_and_may_tie(runs: RunBuilder) -> None:
    # Of 100 faces one alone is right on 2: p = 0.5. One alone on 20: p = 2 / 2^20.
    done(runs, STL, 90, 60)
    for other, n_right, tied in ((THIRD, 58, True), (OTHER, 40, False)):
        done(runs, other, 70, n_right)
        board = board_of(runs, STL, other)
        assert not row_of(board, STL).comparisons
        row = row_of(board, other)
        ((_, found),) = row.comparisons
        assert found.difference.accuracy == pytest.approx(n_right / 100 - 0.6)
        assert (row.tied, found.significant) == (tied, not tied)
        assert any(note.startswith("= marks") for note in board.notes) is tied


def test_all_tasks_together_count_as_combined_does(runs: RunBuilder) -> None:
    other = an_experiment("b", **{"recipe.learning_rate": 5e-4})
    done(runs, MTL, 90, 60)
    done(runs, other, 80, 50)
    found = outcomes(board_of(runs, MTL, other), other)["first together"]
    # The same 10 faces are lost on all three tasks: 10 of 100, whatever the weights.
    assert found.difference.accuracy == pytest.approx(-0.1)
    assert found.difference.p == pytest.approx(2 / 2**10)


def test_a_comparison_has_one_p_of_one_family_however_often_it_is_shown(runs: RunBuilder) -> None:
    ours = (STL, NAMING, THIRD, FOURTH)
    for experiment, n_val, n_test in zip(ours, (90, 80, 70, 60), (60, 66, 54, 50), strict=True):
        done(runs, experiment, n_val, n_test)
    board = board_of(runs, *ours)
    # NAMING is compared with STL both as the one it names and as the first: one comparison, of the
    # question of what definitions name. The two others are corrected with each other.
    p = pytest.approx(mcnemar_p(6, 0))
    third, fourth = holm([mcnemar_p(6, 0), mcnemar_p(10, 0)])[0]
    found = {
        (item.name[-1], family): (it.p_holm, it.n_family)
        for item in ours
        for family, it in row_of(board, item).comparisons
        if isinstance(it, TaskComparison)
    }
    assert found == {
        ("b", "compare_with"): (p, 1),
        ("b", "first"): (p, 1),
        ("c", "first"): (pytest.approx(third), 2),
        ("d", "first"): (pytest.approx(fourth), 2),
    }


def test_rows_that_are_not_comparable_say_why(runs: RunBuilder) -> None:
    done(runs, NAMING, 70, 80, n=90)
    for leaky, why in ((True, "one of the two is LEAKY"), (False, "tested on different faces")):
        done(runs, STL, 90, 60, leaky=leaky)
        found = outcomes(board_of(runs, STL, NAMING), NAMING)
        assert {item.why for item in found.values()} == {why}


def test_rows_that_are_not_shown_are_compared_all_the_same(runs: RunBuilder) -> None:
    done(runs, MTL, 70, 80)
    notes = " ".join(board_of(runs, MTL, STL).notes)
    assert f"gender ({STL.name}: not run here), race (not registered)" in notes
    done(runs, STL, 70, 60)
    query = LeaderboardQuery([MTL], "utkface-100", known={STL.name: STL})
    board = arrange(read_runs(runs.records())[0], query)
    assert [row.name for table in board.tables for row in table.rows] == [MTL.name]
    assert isinstance(outcomes(board, MTL)["mtl_stl gender"], TaskComparison)
