"""Reference rows: fitted once, kept as predictions, scored by the rules that runs are scored by;
what the labels of one photograph say of each other, by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.comparison import references
from benchmark.comparison.library import Setting
from benchmark.comparison.references import MAJORITY, References, label_noise, majority_row
from benchmark.comparison.rows import Row
from benchmark.data.dataset import FaceSet, store_faces
from benchmark.evaluation.predictions import predicted_tasks, read_predictions
from benchmark.experiment.definition import Protocol, Subset
from benchmark.tasks import MISSING, TASKS, TaskName, combined
from tests.made_runs import YEARS

WOMEN = Subset(gender="female")
GENDER: tuple[TaskName, ...] = ("gender",)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """240 noisy pictures, redder for one gender and greener from race to race."""
    random = np.random.default_rng(0)
    age_group, gender, race = (random.integers(n, size=240) for n in (5, 2, 5))
    images = random.integers(0, 100, size=(240, 32, 32, 3))
    images[..., 0] += 60 * gender[:, None, None]
    images[..., 1] += 30 * race[:, None, None]
    labels = pd.DataFrame({"file": [f"{number:03d}.png" for number in range(240)]})
    labels = labels.assign(age=YEARS[age_group], age_group=age_group, gender=gender, race=race)
    data_dir = tmp_path_factory.mktemp("data")
    return store_faces(images.astype(np.uint8), labels, name="painted-32", data_dir=data_dir)


def without_gender(faces: FaceSet, step: int, data_dir: Path) -> FaceSet:
    labels = faces.table[["file", "age", *TASKS]].copy()
    labels.loc[::step, "gender"] = MISSING
    return store_faces(np.array(faces.pixels()), labels, name="partly-32", data_dir=data_dir)


def setting_of(faces: FaceSet, subset: Subset | None = None) -> Setting:
    digests = faces.split_digest, faces.pixel_digest
    return Setting(faces.name, True, "leak-free-2", *digests, Protocol(), subset)


def rows_of(
    faces: FaceSet, runs_dir: Path, tasks: Any = TASKS, *, fitting: bool = False, subset: Any = None
) -> Sequence[Row]:
    made = References(runs_dir, faces.folder.parent, fitting)
    return made.rows(setting_of(faces, subset), tasks)


def names(rows: Sequence[Row]) -> list[str]:
    return [row.name for row in rows]


def test_the_majority_class_is_that_of_training_scored_on_test() -> None:
    # Most frequent in training: age group 2, female, race 1. In test 1 of 4, 3 of 4, 2 of 4.
    train = pd.DataFrame({"age_group": [2, 2, 0], "gender": [1, 1, 0], "race": [1, 1, 4]})
    test = pd.DataFrame({"age_group": [2, 0, 1, 4], "gender": [1, 1, 1, 0], "race": [1, 0, 1, 2]})
    test["cluster"] = test.index
    row = majority_row(train, test)
    assert [row.scores[task].accuracy for task in TASKS] == [0.25, 0.75, 0.5]
    # Macro-F1 of gender: female 2*3/(2*3+1+0) = 6/7, male 0; their mean is 3/7.
    assert row.scores["gender"].macro_f1 == pytest.approx(3 / 7)


def test_a_regression_on_pixels_is_fitted_once_and_kept(painted: FaceSet, tmp_path: Path) -> None:
    assert names(rows_of(painted, tmp_path)) == [MAJORITY]
    majority, logistic = rows_of(painted, tmp_path, fitting=True)
    assert logistic.name == f"logistic regression on {references.ON_PIXELS}"
    assert logistic.scores["gender"].accuracy > 0.9 > majority.scores["gender"].accuracy
    assert logistic.scores["race"].accuracy > 0.9
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert rows_of(painted, tmp_path, fitting=True) == [majority, logistic]
    assert {path: path.stat().st_mtime_ns for path in files} == files
    elsewhere = References(tmp_path, tmp_path / "no data")
    assert elsewhere.rows(setting_of(painted), TASKS) == [logistic]
    assert names(rows_of(painted, tmp_path, subset=WOMEN)) == [MAJORITY], "of other faces"
    of_one_class = rows_of(painted, tmp_path / "women", fitting=True, subset=WOMEN)[1]
    assert of_one_class.scores["gender"].accuracy == 1.0
    (path,) = tmp_path.glob("references/*/predictions.csv")
    for damaged in (path.read_text().replace("race_", "size_"), "schema\n7\n"):
        path.write_text(damaged)
        assert names(rows_of(painted, tmp_path)) == [MAJORITY], "it is damaged"


def test_a_face_without_a_label_is_not_learnt_from_and_not_scored(
    painted: FaceSet, tmp_path: Path
) -> None:
    faces = without_gender(painted, 3, tmp_path / "data")
    logistic = rows_of(faces, tmp_path, fitting=True)[1]
    (path,) = tmp_path.glob("references/*/predictions.csv")
    test = read_predictions(path).query("part == 'test'")
    known = test[test["gender"] != MISSING]
    assert len(known) < len(test)
    right = {task: (test[f"{task}_pred"] == test[task]).mean() for task in ("age_group", "race")}
    right["gender"] = (known["gender_pred"] == known["gender"]).mean()
    assert logistic.scores["gender"].accuracy == pytest.approx(right["gender"])
    assert logistic.combined is not None
    assert logistic.combined.value == pytest.approx(combined(right))
    path.unlink()
    for tasks in (GENDER, ("race",)):
        assert rows_of(faces, tmp_path, tasks, fitting=True)[1].tasks == tasks
    kept = map(read_predictions, tmp_path.glob("references/*/predictions.csv"))
    n_faces = {predicted_tasks(table): len(table) for table in kept}
    placed = faces.table[faces.table["part"].isin(["val", "test"])]
    assert n_faces["race",] == len(placed)
    assert n_faces["gender",] == (placed["gender"] != MISSING).sum()
    nobody = without_gender(painted, 1, tmp_path / "none")
    assert rows_of(nobody, tmp_path, GENDER, fitting=True) == []


def photographs(genders: list[list[int]], *, equal: bool = False) -> pd.DataFrame:
    """Give each photograph one file per gender listed, of equal bytes or not."""
    table = pd.DataFrame({"gender": genders}).explode("gender").reset_index(names="cluster")
    table = table.assign(age_group=2, race=0, file=[f"{n}.jpg" for n in range(len(table))])
    return table.assign(sha256=table["cluster"].astype(str) if equal else table["file"])


def noise_of(table: pd.DataFrame) -> Any:
    return label_noise(table).query("task == 'gender'").set_index("files")


def test_disagreement_is_averaged_over_photographs_and_the_error_rate_by_hand() -> None:
    # 30 pairs, 6 of which disagree; 10 photographs of three files, of whose three pairs two
    # disagree; 20 single files, which say nothing. d = (6 · 1 + 10 · 2/3) / 40 = 0.3167.
    genders = [[0, 1]] * 6 + [[1, 1]] * 24 + [[0, 0, 1]] * 10 + [[0]] * 20
    found = noise_of(photographs(genders)).loc[references.NEAR]
    assert found[["n_pairs", "n_photographs"]].tolist() == [60, 40]
    assert found["disagree"] == pytest.approx((6 + 20 / 3) / 40)
    assert found["ceiling"] == pytest.approx(1 - (6 + 20 / 3) / 80)
    assert found["low"] < found["disagree"] < found["high"]
    assert found["ceiling_low"] == pytest.approx(1 - found["high"] / 2)
    # Equal bytes and near-duplicates are counted apart.
    near, equal = photographs([[0, 0]] * 40), photographs([[0, 1]] * 30, equal=True)
    both = pd.concat([near, equal.assign(cluster=equal["cluster"] + 100)], ignore_index=True)
    found = noise_of(both)["disagree"]
    assert (found[references.EQUAL], found[references.NEAR]) == (1, 0)
    for disagree, n_labels, expected in (
        (0.18, 2, 0.1),  # 2 · 0.1 · 0.9
        (0.1875, 5, 0.1),  # 2 · 0.1 · 0.9 + 0.1² · 3/4
        (0.8, 5, 0.8),  # By lot: 4/5 of pairs differ, and 4/5 of labels are wrong.
        (0.9, 5, 0.8),  # No rate gives more.
    ):
        assert references.error_rate(disagree, n_labels) == pytest.approx(expected)


def test_missing_labels_are_in_no_pair_and_few_photographs_give_no_bound() -> None:
    table = photographs([[0, 1]] * 31)
    assert not np.isnan(noise_of(table).loc[references.NEAR]["ceiling"])
    table.loc[:3, "gender"] = MISSING
    found = noise_of(table).loc[references.NEAR]
    assert (found["n_photographs"], found["n_pairs"]) == (29, 29)
    assert np.isnan(found["ceiling"])
    assert references.ceiling_row(table, GENDER) is None


def test_the_ceiling_is_a_reference_row_with_its_interval() -> None:
    row = references.ceiling_row(photographs([[0, 1]] * 10 + [[0, 0]] * 90), TASKS)
    assert row is not None
    assert (row.status, row.name, row.rank) == ("reference", references.CEILING, None)
    assert row.scores["gender"].accuracy == pytest.approx(0.95)
    assert row.scores["gender"].low < 0.95 < row.scores["gender"].high
    assert row.combined is not None
    assert row.combined.value == pytest.approx(0.4 + 0.2 * 0.95 + 0.4)
    # d = 0.1: e = (1 − √0.8) / 2 = 0.0528.
    assert "gender 94.7" in row.remarks[0]


def test_the_ceiling_stands_in_tables_of_all_faces_on_an_honest_split(
    painted: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated = painted.table.assign(cluster=np.arange(len(painted.table)) // 2)
    faces = FaceSet(painted.folder, painted.manifest | {"drawn": False}, repeated)
    monkeypatch.setattr("benchmark.comparison.references.prepared_datasets", lambda _: [faces])
    assert names(rows_of(faces, tmp_path, GENDER)) == [MAJORITY, references.CEILING]
    assert names(rows_of(faces, tmp_path, GENDER, subset=WOMEN)) == [MAJORITY]
    leaky = replace(setting_of(faces), protocol=Protocol(split="published-1"))
    assert names(References(tmp_path, tmp_path).rows(leaky, GENDER)) == [MAJORITY]
