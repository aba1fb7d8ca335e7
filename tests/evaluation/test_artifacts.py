"""What is written beside predictions, scored again and kept: nothing twice, nothing made sound."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.evaluation.artifacts import (
    RebuiltRecord,
    faces_of,
    is_scored,
    parts_of_run,
    rescore,
)
from benchmark.evaluation.metrics import SCORING_VERSION, score
from benchmark.evaluation.predictions import (
    correctness_of,
    predictions_table,
    read_predictions,
    read_run_predictions,
)
from benchmark.experiment.definition import Subset
from benchmark.files import file_lock, write_json
from benchmark.record import RunRecord
from benchmark.tasks import TASKS
from tests.results.conftest import (
    RunBuilder,
    an_experiment,
    certain,
    drawn_run,
    made_up_faces,
    made_up_predictions,
)

GENDER = an_experiment(tasks=("gender",))
SKILLS = {"age_group": 1.0, "gender": 1.5, "race": 1.2}


@pytest.fixture
def record(runs: RunBuilder) -> RunRecord:
    """A finished run of an older facebench: predictions, and a metrics.json without subgroups."""
    return runs.done(GENDER, made_up_predictions({"gender": 1.5}, n=160))


def contents(record: RunRecord) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(record.folder.iterdir())}


def again(record: RunRecord) -> RunRecord:
    return RunRecord(record.folder)


def stored(record: RunRecord, name: str) -> Any:
    return json.loads((record.folder / name).read_text())


def test_everything_is_made_from_the_predictions_alone(record: RunRecord) -> None:
    for name in ("metrics.json", "subgroups.csv"):
        (record.folder / name).unlink()
    assert rescore(record) == "rescored"
    assert contents(record).keys() >= {
        "calibration.json", "confusion.png", "curves.png", "gaps.csv", "intervals.csv",
        "metrics.json", "mistakes.csv", "reliability.png", "report_gender.csv", "subgroups.csv",
        "subgroups.png", "subgroup_ece.csv", "subgroup_rates.csv", "gender_gaps.csv",
        "label_suspects.csv", "confusion_gender.json",
    }  # fmt: skip
    metrics = again(record).metrics
    expected = score(read_predictions(record.predictions_path)).metrics
    assert {k: v for k, v in metrics.items() if "cost/" not in k} == expected
    costs = {k: v for k, v in metrics.items() if "cost/" in k}
    assert costs == {
        "cost/seconds": 200.0, "cost/images_per_second": 500.0, "cost/peak_memory_mib": 800.0,
        "cost/parameters": 722_496, "cost/trainable_parameters": 12_345, "cost/gmacs": 0.05,
    }  # fmt: skip
    confusion = stored(record, "confusion_gender.json")
    for counts, shares in zip(confusion["counts"], confusion["shares"], strict=True):
        assert shares == pytest.approx(np.array(counts) / sum(counts))
    calibration = stored(record, "calibration.json")
    found = calibration["tasks"]["gender"]
    assert calibration["fitted_on"] == "val"
    assert found["temperature"] == metrics["selected/val/gender/temperature"]
    assert found["ece"]["test"] == metrics["test/gender/ece"]
    assert found["ece_tempered"]["test"] == metrics["test/gender/ece_tempered"]
    # What is missing is null in JSON, and comes back as missing.
    assert "NaN" not in (record.folder / "metrics.json").read_text()
    subgroups = pd.read_csv(record.folder / "subgroups.csv", dtype={"group": str})
    (record.folder / "subgroups.csv").unlink()
    pd.testing.assert_frame_equal(again(record).subgroups(), subgroups, check_dtype=False)


def test_what_is_up_to_date_is_left_alone_and_scoring_again_gives_equal_bytes(
    record: RunRecord,
) -> None:
    assert not is_scored(record)
    rescore(record)
    assert is_scored(record)
    before = contents(record)
    assert rescore(again(record)) == "current"
    assert contents(record) == before
    assert rescore(again(record), again=True) == "rescored"
    after = contents(record)
    assert {name for name in before if before[name] != after[name]} <= {"claim"}
    older = stored(record, "metrics.json") | {"scoring_version": SCORING_VERSION - 1}
    write_json(record.folder / "metrics.json", older)
    assert rescore(again(record)) == "rescored"


def test_what_cannot_be_scored_is_refused(record: RunRecord, runs: RunBuilder) -> None:
    with pytest.raises(RunError, match=r"is not done.*--seeds 1"):
        rescore(runs.begun(GENDER, seed=1))
    with file_lock(record.folder / "claim"), pytest.raises(RunError, match="is at run"):
        rescore(record)
    about = stored(record, "experiment.json")
    counts = {**about["dataset"]["counts"], "test": 81}
    changed = about | {"dataset": about["dataset"] | {"counts": counts}}
    write_json(record.folder / "experiment.json", changed)
    with pytest.raises(RunError, match=r"hold 80 faces of part 'test'.*the 81"):
        rescore(again(record))
    with record.predictions_path.open("a") as stream:
        stream.write("\n")
    with pytest.raises(RunError, match="changed after they were scored"):
        rescore(again(record))
    record.predictions_path.unlink()
    with pytest.raises(RunError, match="cannot be read: No such file"):
        rescore(again(record))


def test_a_run_without_test_faces_has_validation_numbers_alone(runs: RunBuilder) -> None:
    predictions = made_up_predictions({"gender": 1.5}, n=160).query("part == 'val'")
    record = runs.done(GENDER, predictions)
    rescore(record)
    assert again(record).metrics["selected/val/gender/accuracy"] > 0
    assert "calibration.json" in contents(record)
    assert "gaps.csv" not in contents(record)


def test_a_run_s_faces_and_parts_are_found_again(
    tmp_path: Path, drawn_faces: FaceSet, record: RunRecord
) -> None:
    assert faces_of(record, [drawn_faces]) is None
    assert faces_of(drawn_run(tmp_path, drawn_faces), [drawn_faces]) is drawn_faces
    name = f"{GENDER.name}-women"
    women = replace(GENDER, name=name, subset=Subset(gender="female", training="subset"))
    whole, parts = parts_of_run(women, 0, drawn_faces)
    assert (drawn_faces.table["gender"].to_numpy()[parts["test"]] == 1).all()
    assert {name: len(rows) for name, rows in whole.items()} == {
        name: int((drawn_faces.table["part"] == name).sum()) for name in whole
    }


def odd_faces(n: int, *, all_right: bool) -> pd.DataFrame:
    """Predict n women of one age group and race, for validation and again for test."""
    faces = made_up_faces(n).assign(age_group=2, gender=1, race=0)
    answers = {"gender": certain(np.full(n, int(all_right)), "gender")}
    tables = [predictions_table(faces, part, answers) for part in ("val", "test")]
    return pd.concat(tables, ignore_index=True)


ODD = {
    "one face, wrong": odd_faces(1, all_right=False),
    "one class, all right": odd_faces(40, all_right=True),
    "one cluster": made_up_predictions({"gender": 1.0}, n=160).assign(cluster=3),
}


def test_odd_test_sets_have_intervals_and_figures_and_no_crash(runs: RunBuilder) -> None:
    for seed, (case, predictions) in enumerate(ODD.items()):
        record = runs.done(GENDER, predictions, seed=seed)
        rescore(record)
        metrics = again(record).metrics
        low, high = (metrics[f"test/gender/accuracy/{end}"] for end in ("low", "high"))
        assert low <= metrics["test/gender/accuracy"] <= high, case
        assert low < high, case
        assert (record.folder / "subgroups.png").is_file(), case


def seeds_of(runs: RunBuilder, *, n: int = 160) -> list[RunRecord]:
    """Two finished seeds with near-duplicates among the test faces, in no order of their names."""
    records = []
    for seed in (0, 1):
        table = made_up_predictions(SKILLS, n=n, seed=seed).iloc[::-1]
        table = table.assign(cluster=table["cluster"] // 3)
        records.append(runs.done(an_experiment(), table, seed=seed))
    return records


def kept(records: list[RunRecord]) -> list[RunRecord]:
    """Score runs, take their predictions away, and read the folders again."""
    for record in records:
        rescore(record)
        record.predictions_path.unlink()
    return [again(record) for record in records]


def test_what_metrics_json_keeps_equals_what_the_predictions_say(runs: RunBuilder) -> None:
    records = seeds_of(runs)
    read = read_run_predictions(records, TASKS)
    older = correctness_of(records, TASKS)  # as scored before metrics.json kept it
    for answers in (older, correctness_of(kept(records), TASKS)):
        for task in TASKS:
            np.testing.assert_array_equal(answers.right[task], read.right(task))
        for name in ("cluster", *TASKS):
            np.testing.assert_array_equal(answers.faces[name], read.faces[name])


def test_seeds_tested_on_other_faces_are_refused(runs: RunBuilder, tmp_path: Path) -> None:
    records = [*seeds_of(runs)[:1], *seeds_of(RunBuilder(tmp_path / "other"), n=162)[1:]]
    with pytest.raises(RunError, match="tested on different faces"):
        read_run_predictions(records, TASKS)
    with pytest.raises(RunError, match="tested on different faces"):
        correctness_of(kept(records), TASKS)


def test_numbers_computed_from_predictions_equal_the_kept_ones_and_write_nothing(
    runs: RunBuilder, record: RunRecord
) -> None:
    rescore(record)
    before, fresh = contents(record), again(record)
    rebuilt = RebuiltRecord(record.folder)
    metrics = {k: v for k, v in fresh.metrics.items() if "cost/" not in k}
    assert rebuilt.metrics == pytest.approx(metrics)
    pd.testing.assert_frame_equal(rebuilt.subgroups(), fresh.subgroups())
    assert rebuilt.kept_correctness == fresh.kept_correctness
    assert contents(record) == before
    (record.folder / "metrics.json").unlink()
    assert RebuiltRecord(record.folder).metrics == rebuilt.metrics
    (record.folder / "metrics.json").write_bytes(before["metrics.json"])
    path = record.predictions_path
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    with pytest.raises(RunError):
        _ = RebuiltRecord(record.folder).metrics
