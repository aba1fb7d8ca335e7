"""Right or wrong, face by face, within metrics.json: what comes back is what was answered."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmark.comparison.library import read_run
from benchmark.errors import RunError
from benchmark.evaluation.answers import kept, read_answers, right_answers
from benchmark.evaluation.artifacts import rescore
from benchmark.evaluation.predictions import read_predictions
from benchmark.files import write_json
from benchmark.record import RunRecord
from benchmark.tasks import TASKS
from tests.results.conftest import RunBuilder, an_experiment, experiment_row, made_up_predictions

SKILLS = {"age_group": 1.0, "gender": 1.5, "race": 1.2}


def seeds_of(runs: RunBuilder, *, n: int = 160) -> list[RunRecord]:
    """Two finished seeds with near-duplicates among the test faces, in no order of their names."""
    records = []
    for seed in (0, 1):
        table = made_up_predictions(SKILLS, n=n, seed=seed).iloc[::-1]
        table = table.assign(cluster=table["cluster"] // 3)
        records.append(runs.done(an_experiment(), table, seed=seed))
    return records


def keep(records: list[RunRecord]) -> list[RunRecord]:
    """Put the answers into metrics.json, take the predictions away, and read the folders anew."""
    for record in records:
        table = read_predictions(record.predictions_path).query("part == 'test'")
        right = {task: (table[task] == table[f"{task}_pred"]).to_numpy() for task in TASKS}
        path = record.folder / "metrics.json"
        write_json(path, json.loads(path.read_text()) | {"answers": kept(table, right)})
        record.predictions_path.unlink()
    return fresh(records)


def fresh(records: list[RunRecord]) -> list[RunRecord]:
    return [RunRecord(record.folder) for record in records]


def test_what_is_kept_equals_what_the_predictions_say(runs: RunBuilder) -> None:
    records = seeds_of(runs)
    from_predictions = read_answers(records, TASKS)
    answers = right_answers(keep(records), TASKS)
    for task in TASKS:
        np.testing.assert_array_equal(answers.right[task], from_predictions.right(task))
        np.testing.assert_array_equal(answers.faces[task], from_predictions.faces[task])
    np.testing.assert_array_equal(answers.faces["cluster"], from_predictions.faces["cluster"])


def test_a_row_over_seeds_is_the_same_from_either(runs: RunBuilder) -> None:
    records = seeds_of(runs)
    before = experiment_row("x", [read_run(record) for record in records])
    after = experiment_row("x", [read_run(record) for record in keep(records)])
    for task in TASKS:
        ours, theirs = (dataclasses.astuple(row.scores[task]) for row in (after, before))
        assert ours == pytest.approx(theirs)
    assert after.worst is not None
    assert before.worst is not None
    assert after.worst.group == before.worst.group
    assert (after.worst.low, after.worst.high) == pytest.approx(
        (before.worst.low, before.worst.high)
    )


def test_a_run_of_an_older_facebench_is_read_from_its_predictions(runs: RunBuilder) -> None:
    records = seeds_of(runs)
    expected = read_answers(records, ["race"]).right("race")
    stored = records[0].predictions_path.read_bytes()
    keep(records[:1])
    records[0].predictions_path.write_bytes(stored)
    right = right_answers(fresh(records), ["race"]).right["race"]
    np.testing.assert_array_equal(right, expected)


def test_scoring_a_run_keeps_its_answers(runs: RunBuilder) -> None:
    predictions = made_up_predictions({"gender": 1.5}, n=80)
    record = runs.done(an_experiment(tasks=("gender",)), predictions)
    expected = read_answers([record], ["gender"]).right("gender")
    rescore(record)
    record.predictions_path.unlink()
    right = right_answers(fresh([record]), ["gender"]).right["gender"]
    np.testing.assert_array_equal(right, expected)


def test_seeds_tested_on_other_faces_are_refused(runs: RunBuilder, tmp_path: Path) -> None:
    records = [*seeds_of(runs)[:1], *seeds_of(RunBuilder(tmp_path / "other"), n=162)[1:]]
    with pytest.raises(RunError, match="tested on different faces"):
        right_answers(keep(records), TASKS)
