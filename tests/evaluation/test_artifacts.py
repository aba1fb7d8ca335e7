"""What is written beside predictions, scored again and kept: nothing twice, nothing made sound.

At the end, the most confident errors and possible label errors, by hand.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.errors import RunError
from benchmark.evaluation import artifacts
from benchmark.evaluation.artifacts import RebuiltRecord, rescore
from benchmark.evaluation.metrics import SCORING_VERSION, score
from benchmark.evaluation.predictions import (
    correctness_of,
    predictions_table,
    read_predictions,
    read_run_predictions,
)
from benchmark.files import file_lock, write_json
from benchmark.record import RunRecord
from benchmark.tasks import TASKS
from tests import made_runs as made
from tests.made_runs import RunBuilder, an_experiment, made_up_predictions

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
    costs = {k: v for k, v in metrics.items() if "cost/" in k}
    assert metrics == score(read_predictions(record.predictions_path)).metrics | costs
    assert (len(costs), costs["cost/seconds"], costs["cost/gmacs"]) == (6, 200.0, 0.05)
    confusion = stored(record, "confusion_gender.json")
    for counts, shares in zip(confusion["counts"], confusion["shares"], strict=True):
        assert shares == pytest.approx(np.array(counts) / sum(counts))
    found = stored(record, "calibration.json")["tasks"]["gender"]
    assert found["temperature"] == metrics["selected/val/gender/temperature"]
    assert found["ece"]["test"] == metrics["test/gender/ece"]
    # What is missing is null in JSON, and comes back as missing.
    assert "NaN" not in (record.folder / "metrics.json").read_text()
    subgroups = pd.read_csv(record.folder / "subgroups.csv", dtype={"group": str})
    (record.folder / "subgroups.csv").unlink()
    pd.testing.assert_frame_equal(again(record).subgroups(), subgroups, check_dtype=False)


def test_what_is_up_to_date_is_left_alone_and_scoring_again_gives_equal_bytes(
    record: RunRecord,
) -> None:
    assert rescore(record) == "rescored"
    before = contents(record)
    assert rescore(again(record)) == "current"
    assert rescore(again(record), again=True) == "rescored"
    after = contents(record)
    assert {name for name in before if before[name] != after[name]} <= {"claim"}
    older = stored(record, "metrics.json") | {"scoring_version": SCORING_VERSION - 1}
    write_json(record.folder / "metrics.json", older)
    assert rescore(again(record)) == "rescored"


def test_what_cannot_be_scored_is_refused(record: RunRecord) -> None:
    def refused(said: str) -> None:
        with pytest.raises(RunError, match=said):
            rescore(again(record))

    with file_lock(record.folder / "claim"):
        refused("is at run")
    about = stored(record, "experiment.json")
    about["dataset"]["counts"]["test"] = 81
    write_json(record.folder / "experiment.json", about)
    refused(r"hold 80 faces of part 'test'.*the 81")
    with record.predictions_path.open("a") as stream:
        stream.write("\n")
    refused("changed after they were scored")
    record.predictions_path.unlink()
    refused("cannot be read")


def test_odd_test_sets_have_intervals_and_figures_and_no_crash(runs: RunBuilder) -> None:
    women = made.exact_predictions(40, 40, n=40, tasks=["gender"]).query("gender == 1")
    odd = {
        "one face, wrong": made.exact_predictions(0, 0, n=1, tasks=["gender"]),
        "one class, all right": women,
        "one cluster": made_up_predictions({"gender": 1.0}, n=160).assign(cluster=3),
    }
    for seed, (case, predictions) in enumerate(odd.items()):
        record = runs.done(GENDER, predictions, seed=seed)
        rescore(record)
        metrics = again(record).metrics
        low, high = (metrics[f"test/gender/accuracy/{end}"] for end in ("low", "high"))
        assert low <= metrics["test/gender/accuracy"] <= high, case
        assert low < high, case
        assert (record.folder / "subgroups.png").is_file(), case


def seeds_of(runs: RunBuilder, *, n: int = 160) -> list[RunRecord]:
    """Two seeds with near-duplicates among the test faces, in no order of their names."""
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


def test_what_metrics_json_keeps_equals_what_the_predictions_say(
    runs: RunBuilder, tmp_path: Path
) -> None:
    records = seeds_of(runs)
    others = [*records[:1], *seeds_of(RunBuilder(tmp_path / "other"), n=162)[1:]]
    with pytest.raises(RunError, match="tested on different faces"):
        read_run_predictions(others, TASKS)
    read = read_run_predictions(records, TASKS)
    older = correctness_of(records, TASKS)  # as scored before metrics.json kept it
    for answers in (older, correctness_of(kept(records), TASKS)):
        for task in TASKS:
            np.testing.assert_array_equal(answers.right[task], read.right(task))
        for name in ("cluster", *TASKS):
            np.testing.assert_array_equal(answers.faces[name], read.faces[name])
    with pytest.raises(RunError, match="tested on different faces"):
        correctness_of([again(records[0]), *kept(others[1:])], TASKS)


def test_numbers_computed_from_predictions_equal_the_kept_ones_and_write_nothing(
    record: RunRecord,
) -> None:
    rescore(record)
    before, fresh, rebuilt = contents(record), again(record), RebuiltRecord(record.folder)
    metrics = {k: v for k, v in fresh.metrics.items() if "cost/" not in k}
    assert rebuilt.metrics == pytest.approx(metrics)
    pd.testing.assert_frame_equal(rebuilt.subgroups(), fresh.subgroups())
    assert rebuilt.kept_correctness == fresh.kept_correctness
    assert contents(record) == before
    path = record.predictions_path
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    with pytest.raises(RunError):
        _ = RebuiltRecord(record.folder).metrics


def gender_table(labels: list[int], women: list[float]) -> pd.DataFrame:
    """Predict faces named by their place from the probability of being female."""
    faces = made.made_up_faces(len(labels)).assign(gender=labels)
    answers = {"gender": np.column_stack([1 - np.array(women), women])}
    return predictions_table(faces, "test", answers)


def test_the_most_confident_errors_come_first_and_right_predictions_never() -> None:
    found = artifacts.mistakes(gender_table([0, 0, 1], [0.1, 0.95, 0.4]))
    rows = found[["file", "truth", "predicted"]].to_numpy().tolist()
    assert rows == [["00001.jpg", "male", "female"], ["00002.jpg", "female", "male"]]
    assert found["probability"].tolist() == pytest.approx([0.95, 0.6])
    assert found["probability_of_label"].tolist() == pytest.approx([0.05, 0.4])


def test_possible_label_errors_by_hand() -> None:
    # Female labels have 0.9, 0.8 and 0.1 of female, mean 0.6; male ones 0.1, 0.4, 0.3 of female,
    # so of male 0.9, 0.6, 0.7, mean 0.733. Face 2 is labelled female and predicted male at 0.9:
    # sure. No male label is predicted female.
    table = gender_table([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.1, 0.1, 0.4, 0.3])
    (row,) = artifacts.possible_label_errors(table).to_dict("records")
    assert (row["file"], row["label"], row["contradicted_by"]) == ("00002.jpg", "female", "male")
    numbers = [row[name] for name in ("probability_of_label", "probability", "margin")]
    assert numbers == pytest.approx([0.1, 0.9, 0.8])
    # The widest margin comes first, and other faces are in no list.
    found = artifacts.possible_label_errors(gender_table([0, 0, 0, 1], [0.7, 0.95, 0.8, 0.6]))
    assert found["file"].tolist() == ["00001.jpg", "00002.jpg", "00000.jpg"]
    assert found["rank"].tolist() == [1, 2, 3]
    for why, table in {
        "below the usual probability": gender_table([1, 0, 0], [0.45, 0.1, 0.1]),
        "a class nobody is labelled with": gender_table([0, 0], [0.99, 0.2]),
    }.items():
        assert artifacts.possible_label_errors(table).empty, why
