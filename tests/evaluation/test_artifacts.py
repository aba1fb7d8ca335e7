"""What is written beside predictions, scored again and kept: nothing twice, nothing made sound."""

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
    RebuiltRecord,
    RunFaces,
    costs_of,
    faces_of,
    is_scored,
    parts_of_run,
    rescore,
)
from benchmark.evaluation.correctness import (
    correctness_of,
    packed_correctness,
    read_run_predictions,
)
from benchmark.evaluation.metrics import SCORING_VERSION, score
from benchmark.evaluation.predictions import predictions_table, read_predictions
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
        "calibration.json", "confusion_gender.json", "confusion.png", "curves.png", "gaps.csv",
        "heat_map.png", "intervals.csv", "label_suspects.csv", "metrics.json", "mistakes.csv",
        "reliability_gender.csv", "reliability.png", "report_gender.csv", "subgroups.csv",
        "subgroups.png", "subgroup_ece.csv", "subgroup_rates.csv", "gender_gaps.csv",
    }  # fmt: skip
    metrics = again(record).metrics
    expected = score(read_predictions(record.predictions_path)).metrics
    assert {k: v for k, v in metrics.items() if "cost/" not in k} == expected
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


def test_costs_are_kept_and_made_up_for_where_they_are_lost(record: RunRecord) -> None:
    path = record.folder / "metrics.json"
    content = stored(record, "metrics.json")
    content["metrics"] |= {"cost/seconds": 7.0, "cost/joules": 9.0, "test/gender/moon": 1.0}
    write_json(path, content)
    rescore(again(record))
    metrics = again(record).metrics
    names = ("cost/seconds", "cost/joules", "cost/parameters", "cost/gmacs")
    assert [metrics[name] for name in names] == [7.0, 9.0, 722_496, 0.05]
    assert "test/gender/moon" not in metrics
    path.unlink()
    assert costs_of(again(record))["cost/seconds"] == 200.0


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
    with pytest.raises(RunError, match="there are no predictions"):
        rescore(again(record))


def test_a_run_without_test_faces_has_validation_numbers_alone(runs: RunBuilder) -> None:
    predictions = made_up_predictions({"gender": 1.5}, n=160).query("part == 'val'")
    record = runs.done(GENDER, predictions)
    rescore(record)
    assert again(record).metrics["selected/val/gender/accuracy"] > 0
    assert "calibration.json" in contents(record)
    assert "gaps.csv" not in contents(record)


def test_the_data_set_coming_later_completes_a_run(tmp_path: Path, drawn_faces: FaceSet) -> None:
    record = drawn_run(tmp_path, drawn_faces, an_experiment(tasks=("age_group",)))
    rescore(record)
    assert contents(record).keys().isdisjoint({"label_suspects.png", "age_years.csv"})
    assert rescore(again(record), [drawn_faces]) == "rescored"
    assert (record.folder / "label_suspects.png").is_file()
    checks = stored(record, "leak_checks.json")["checks"]
    found = [(check["by"], check["found"]) for check in checks]
    assert found == [("sha256", 0), ("cluster", 0), ("file", 0)]
    # Errors in years are of the training faces' means.
    years = pd.read_csv(record.folder / "age_years.csv").set_index(["read_as", "group"])
    table = drawn_faces.table
    means = table[table["part"] == "train"].groupby("age_group")["age"].mean()
    test = read_predictions(record.predictions_path).query("part == 'test'")
    errors = (test["age_group_pred"].map(means) - test["age"]).abs()
    assert years.loc[("predicted group", "all"), "mae_years"] == pytest.approx(errors.mean())
    assert rescore(again(record), [drawn_faces]) == "current"


def test_predictions_of_other_labels_or_another_split_are_refused(
    tmp_path: Path, drawn_faces: FaceSet, record: RunRecord
) -> None:
    assert faces_of(record, [drawn_faces]) is None
    ours, table = drawn_run(tmp_path, drawn_faces), drawn_faces.table
    part = table["part"].replace({"val": "test", "test": "val"})
    for changed, why in (
        (table.assign(age=table["age"] % 116 + 1), "age of face .* as the data set has it"),
        (table.assign(part=part), "not about the val faces of this data set: 48 stand"),
    ):
        with pytest.raises(RunError, match=why):
            rescore(ours, [FaceSet(drawn_faces.folder, drawn_faces.manifest, changed)])


def test_a_run_s_parts_are_those_of_its_subset(drawn_faces: FaceSet) -> None:
    subset = {"gender": "female", "race": None, "training": "subset"}
    definition = GENDER.as_dict() | {"subset": subset}
    parts = parts_of_run({"experiment": definition, "seed": 0}, drawn_faces)
    assert (drawn_faces.table["gender"].to_numpy()[parts["test"]] == 1).all()
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
def test_odd_test_sets_have_intervals_and_figures_and_no_crash(case: str, runs: RunBuilder) -> None:
    record = runs.done(GENDER, ODD[case])
    rescore(record)
    metrics = again(record).metrics
    low, high = (metrics[f"test/gender/accuracy/{end}"] for end in ("low", "high"))
    assert low <= metrics["test/gender/accuracy"] <= high
    assert low < high
    assert (record.folder / "heat_map.png").is_file()


def seeds_of(runs: RunBuilder, *, n: int = 160) -> list[RunRecord]:
    """Two finished seeds with near-duplicates among the test faces, in no order of their names."""
    records = []
    for seed in (0, 1):
        table = made_up_predictions(SKILLS, n=n, seed=seed).iloc[::-1]
        table = table.assign(cluster=table["cluster"] // 3)
        records.append(runs.done(an_experiment(), table, seed=seed))
    return records


def keep(records: list[RunRecord]) -> list[RunRecord]:
    """Put the answers into metrics.json, take the predictions away, and read the folders again."""
    for record in records:
        table = read_predictions(record.predictions_path).query("part == 'test'")
        right = {task: (table[task] == table[f"{task}_pred"]).to_numpy() for task in TASKS}
        content = stored(record, "metrics.json") | {"answers": packed_correctness(table, right)}
        write_json(record.folder / "metrics.json", content)
        record.predictions_path.unlink()
    return [again(record) for record in records]


def test_what_metrics_json_keeps_equals_what_the_predictions_say(runs: RunBuilder) -> None:
    records = seeds_of(runs)
    from_predictions = read_run_predictions(records, TASKS)
    answers = correctness_of(keep(records), TASKS)
    for task in TASKS:
        np.testing.assert_array_equal(answers.right[task], from_predictions.right(task))
    for name in ("cluster", *TASKS):
        np.testing.assert_array_equal(answers.faces[name], from_predictions.faces[name])


def test_a_run_of_an_older_facebench_is_read_from_its_predictions(runs: RunBuilder) -> None:
    records = seeds_of(runs)
    expected = read_run_predictions(records, ["race"]).right("race")
    predictions = records[0].predictions_path.read_bytes()
    keep(records[:1])
    records[0].predictions_path.write_bytes(predictions)
    right = correctness_of([again(record) for record in records], ["race"]).right["race"]
    np.testing.assert_array_equal(right, expected)
    rescore(again(records[1]))  # Scoring a run keeps its answers.
    records[1].predictions_path.unlink()
    right = correctness_of([again(record) for record in records], ["race"]).right["race"]
    np.testing.assert_array_equal(right, expected)


def test_seeds_tested_on_other_faces_are_refused(runs: RunBuilder, tmp_path: Path) -> None:
    records = [*seeds_of(runs)[:1], *seeds_of(RunBuilder(tmp_path / "other"), n=162)[1:]]
    with pytest.raises(RunError, match="tested on different faces"):
        read_run_predictions(records, TASKS)
    with pytest.raises(RunError, match="tested on different faces"):
        correctness_of(keep(records), TASKS)


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
