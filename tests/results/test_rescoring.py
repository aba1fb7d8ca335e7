"""Scoring again from the stored predictions: everything anew, nothing twice, and no laundering."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.data.dataset import FaceSet
from benchmark.data.splits import parts_of
from benchmark.errors import RunError
from benchmark.evaluation.artifacts import (
    RunFaces,
    costs_of,
    faces_of,
    is_scored,
    parts_of_run,
    rescore,
)
from benchmark.evaluation.metrics import SCORING_VERSION, score
from benchmark.evaluation.predictions import predictions_table, read_predictions
from benchmark.experiment.definition import Experiment
from benchmark.files import claimed, write_json
from benchmark.record import RunRecord
from tests.results.conftest import (
    RunBuilder,
    an_experiment,
    certain,
    made_up_faces,
    made_up_predictions,
    made_up_probabilities,
)

GENDER = an_experiment(tasks=("gender",))


@pytest.fixture
def record(runs: RunBuilder) -> RunRecord:
    """A finished run of an older facebench: predictions, and a metrics.json without subgroups."""
    return runs.done(GENDER, made_up_predictions({"gender": 1.5}, n=160))


def contents(record: RunRecord) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(record.folder.iterdir())}


def again(record: RunRecord) -> RunRecord:
    return RunRecord(record.folder)


def test_everything_is_made_from_the_predictions_alone(record: RunRecord) -> None:
    for name in ("metrics.json", "subgroups.csv"):
        (record.folder / name).unlink()
    assert rescore(record) == "rescored"
    made = {path.name for path in record.folder.iterdir()}
    assert made >= {
        "calibration.json", "confusion_gender.json", "confusion.png", "curves.png",
        "gaps.csv", "heat_map.png", "intervals.csv", "label_suspects.csv", "metrics.json",
        "mistakes.csv", "reliability_gender.csv", "reliability.png", "report_gender.csv",
        "subgroups.csv", "subgroups.png", "subgroup_ece.csv", "subgroup_rates.csv",
        "gender_gaps.csv",
    }  # fmt: skip
    expected = score(read_predictions(record.predictions_path)).metrics
    assert {k: v for k, v in again(record).metrics.items() if "cost/" not in k} == expected


def test_what_is_up_to_date_is_left_alone(record: RunRecord) -> None:
    assert not is_scored(record)
    rescore(record)
    assert is_scored(record)
    before = contents(record)
    assert rescore(again(record)) == "current"
    assert contents(record) == before


def test_scoring_again_gives_equal_bytes(record: RunRecord) -> None:
    rescore(record)
    before = contents(record)
    assert rescore(again(record), again=True) == "rescored"
    after = contents(record)
    assert {name for name in before if before[name] != after[name]} <= {"claim"}


def test_an_older_version_of_the_rules_is_scored_again(record: RunRecord) -> None:
    rescore(record)
    path = record.folder / "metrics.json"
    write_json(path, json.loads(path.read_text()) | {"scoring_version": SCORING_VERSION - 1})
    assert rescore(again(record)) == "rescored"


def test_costs_are_kept_and_made_up_for_where_they_are_lost(record: RunRecord) -> None:
    path = record.folder / "metrics.json"
    content = json.loads(path.read_text())
    content["metrics"] |= {"cost/seconds": 7.0, "cost/joules": 9.0, "test/gender/moon": 1.0}
    write_json(path, content)
    rescore(again(record))
    metrics = again(record).metrics
    assert (metrics["cost/seconds"], metrics["cost/joules"]) == (7.0, 9.0)
    assert metrics["cost/parameters"] == 722_496
    assert metrics["cost/gmacs"] == 0.05
    assert "test/gender/moon" not in metrics
    path.unlink()
    assert costs_of(again(record))["cost/seconds"] == 200.0


def test_changed_predictions_are_not_given_sound_numbers(record: RunRecord) -> None:
    with record.predictions_path.open("a") as stream:
        stream.write("\n")
    with pytest.raises(RunError, match="changed after they were scored"):
        rescore(record)


def test_a_run_without_predictions_is_refused(record: RunRecord) -> None:
    record.predictions_path.unlink()
    with pytest.raises(RunError, match="there are no predictions"):
        rescore(record)


def test_predictions_that_miss_faces_are_refused(record: RunRecord) -> None:
    path = record.folder / "experiment.json"
    content = json.loads(path.read_text())
    content["dataset"]["counts"]["test"] += 1
    write_json(path, content)
    with pytest.raises(RunError, match=r"hold 80 faces of part 'test'.*the 81"):
        rescore(again(record))


def test_a_run_without_test_faces_has_validation_numbers_alone(runs: RunBuilder) -> None:
    predictions = made_up_predictions({"gender": 1.5}, n=160).query("part == 'val'")
    record = runs.done(GENDER, predictions)
    rescore(record)
    assert again(record).metrics["selected/val/gender/accuracy"] > 0
    made = {path.name for path in record.folder.iterdir()}
    assert "calibration.json" in made
    assert "gaps.csv" not in made


def test_an_unfinished_run_is_refused_with_the_way_on(runs: RunBuilder) -> None:
    with pytest.raises(RunError, match=r"is not done.*--seeds 0"):
        rescore(runs.begun(GENDER))


def test_a_run_that_somebody_works_on_is_left_alone(record: RunRecord) -> None:
    with claimed(record.folder / "claim"), pytest.raises(RunError, match="is at run"):
        rescore(record)


def test_the_confusion_matrix_is_stored_as_counts_and_as_shares(record: RunRecord) -> None:
    rescore(record)
    stored = json.loads((record.folder / "confusion_gender.json").read_text())
    for counts, shares in zip(stored["counts"], stored["shares"], strict=True):
        assert shares == pytest.approx(np.array(counts) / sum(counts))


def test_the_temperature_is_stored_and_applied_nowhere(record: RunRecord) -> None:
    rescore(record)
    stored = json.loads((record.folder / "calibration.json").read_text())
    found = stored["tasks"]["gender"]
    metrics = again(record).metrics
    assert stored["fitted_on"] == "val"
    assert found["temperature"] == metrics["selected/val/gender/temperature"]
    assert found["ece"]["test"] == metrics["test/gender/ece"]
    assert found["ece_tempered"]["test"] == metrics["test/gender/ece_tempered"]


def test_what_is_missing_is_null_in_json_and_comes_back_as_missing(record: RunRecord) -> None:
    rescore(record)
    assert "NaN" not in (record.folder / "metrics.json").read_text()
    stored = pd.read_csv(record.folder / "subgroups.csv", dtype={"group": str})
    pd.testing.assert_frame_equal(again(record).subgroups(), stored, check_dtype=False)
    (record.folder / "subgroups.csv").unlink()
    assert len(again(record).subgroups()) == len(stored)


def drawn_run(
    runs_dir: Path, faces: FaceSet, experiment: Experiment = GENDER, *, seed: int = 0
) -> RunRecord:
    """Write a finished run on the drawn faces, with made-up predictions of its fold."""
    runs = RunBuilder(runs_dir)
    parts = parts_of(faces, experiment.protocol.fold)
    runs.dataset |= {
        "name": faces.name,
        "drawn": True,
        "pixel_digest": faces.pixel_digest,
        "split_digest": faces.split_digest,
    }
    tables = []
    for part in ("val", "test"):
        table = faces.table.iloc[parts[part]].reset_index(drop=True)
        tasks = experiment.head.tasks
        answers = {task: made_up_probabilities(table, task, 1.2, seed=seed) for task in tasks}
        tables.append(predictions_table(table, part, answers))
    about: dict[str, Any] = {}
    counts = {part: len(rows) for part, rows in parts.items()}
    about["dataset"] = runs.dataset | {"counts": counts}
    return runs.done(experiment, pd.concat(tables, ignore_index=True), seed=seed, **about)


def test_with_the_data_set_at_hand_suspects_are_shown_and_leaks_looked_for(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    record = drawn_run(tmp_path, drawn_faces)
    rescore(record, [drawn_faces])
    assert (record.folder / "label_suspects.png").is_file()
    checks = json.loads((record.folder / "leak_checks.json").read_text())["checks"]
    assert [(check["by"], check["found"]) for check in checks] == [
        ("sha256", 0),
        ("cluster", 0),
        ("file", 0),
    ]
    assert rescore(again(record), [drawn_faces]) == "current"


def test_the_data_set_coming_to_hand_later_completes_a_run(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    record = drawn_run(tmp_path, drawn_faces)
    rescore(record)
    assert not (record.folder / "label_suspects.png").exists()
    assert rescore(again(record), [drawn_faces]) == "rescored"


def test_errors_in_years_are_of_the_training_faces_means_and_come_with_the_data_set(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    record = drawn_run(tmp_path, drawn_faces, an_experiment(tasks=("age_group",)))
    rescore(record)
    assert not (record.folder / "age_years.csv").exists()
    assert rescore(again(record), [drawn_faces]) == "rescored"
    found = pd.read_csv(record.folder / "age_years.csv").set_index(["read_as", "group"])
    table = drawn_faces.table
    means = table[table["part"] == "train"].groupby("age_group")["age"].mean()
    test = read_predictions(record.predictions_path).query("part == 'test'")
    errors = (test["age_group_pred"].map(means) - test["age"]).abs()
    assert found.loc[("predicted group", "all"), "mae_years"] == pytest.approx(errors.mean())


def test_another_data_set_is_not_taken_for_the_run_s_own(
    record: RunRecord, drawn_faces: FaceSet
) -> None:
    assert faces_of(record, [drawn_faces]) is None


def test_predictions_about_other_labels_are_refused(tmp_path: Path, drawn_faces: FaceSet) -> None:
    record = drawn_run(tmp_path, drawn_faces)
    table = drawn_faces.table.assign(age=drawn_faces.table["age"] % 116 + 1)
    changed = FaceSet(drawn_faces.folder, drawn_faces.manifest, table)
    with pytest.raises(RunError, match="age of face .* as the data set has it"):
        rescore(record, [changed])


def test_predictions_of_another_split_are_refused(tmp_path: Path, drawn_faces: FaceSet) -> None:
    record = drawn_run(tmp_path, drawn_faces)
    other = drawn_faces.table["part"].replace({"val": "test", "test": "val"})
    changed = FaceSet(
        drawn_faces.folder, drawn_faces.manifest, drawn_faces.table.assign(part=other)
    )
    with pytest.raises(RunError, match="not about the val faces of this data set: 48 stand"):
        rescore(record, [changed])


def test_a_specialist_s_parts_are_those_of_its_subset(drawn_faces: FaceSet) -> None:
    subset = {"gender": "female", "race": None, "training": "subset"}
    definition = GENDER.as_dict() | {"subset": subset}
    parts = parts_of_run({"experiment": definition, "seed": 0}, drawn_faces)
    assert (drawn_faces.table["gender"].to_numpy()[parts["test"]] == 1).all()


def test_pictures_are_those_of_the_files_asked_for(drawn_faces: FaceSet) -> None:
    run_faces = RunFaces(drawn_faces, parts_of(drawn_faces))
    files = drawn_faces.table["file"].tolist()
    shown = run_faces.pictures([files[5], files[2]])
    np.testing.assert_array_equal(shown, drawn_faces.pixels()[[5, 2]])


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


@pytest.mark.parametrize("case", ODD)
def test_odd_test_sets_have_intervals_and_pictures_and_no_crash(
    case: str, runs: RunBuilder
) -> None:
    record = runs.done(GENDER, ODD[case])
    rescore(record)
    metrics = again(record).metrics
    low, high = (metrics[f"test/gender/accuracy/{end}"] for end in ("low", "high"))
    assert low <= metrics["test/gender/accuracy"] <= high
    assert low < high
    assert (record.folder / "heat_map.png").is_file()
