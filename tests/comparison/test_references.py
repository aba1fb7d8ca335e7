"""Reference rows: fitted once, kept as predictions, scored by the rules that runs are scored by."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.comparison.library import Setting
from benchmark.comparison.references import (
    CEILING,
    CELLS,
    MAJORITY,
    ON_PIXELS,
    References,
    small_pictures,
)
from benchmark.comparison.rows import Row
from benchmark.data.dataset import FaceSet, store_faces
from benchmark.evaluation.predictions import predicted_tasks, read_predictions
from benchmark.experiment.definition import Protocol, Subset
from benchmark.tasks import MISSING, TASKS

YEARS = np.array([7, 20, 33, 50, 70])


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """240 noisy pictures, redder for one gender and greener from race to race."""
    random = np.random.default_rng(0)
    age_group, gender, race = (random.integers(n, size=240) for n in (5, 2, 5))
    images = random.integers(0, 100, size=(240, 32, 32, 3))
    images[..., 0] += 60 * gender[:, None, None]
    images[..., 1] += 30 * race[:, None, None]
    labels = pd.DataFrame(
        {
            "file": [f"{number:03d}.png" for number in range(240)],
            "age": YEARS[age_group],
            "age_group": age_group,
            "gender": gender,
            "race": race,
        }
    )
    data_dir = tmp_path_factory.mktemp("data")
    return store_faces(images.astype(np.uint8), labels, name="painted-32", data_dir=data_dir)


@pytest.fixture(scope="module")
def partly_labelled(painted: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """The same pictures, a third of which have no gender."""
    labels = painted.table[["file", "age", *TASKS]].copy()
    labels.loc[::3, "gender"] = MISSING
    data_dir = tmp_path_factory.mktemp("partly")
    return store_faces(np.array(painted.pixels()), labels, name="partly-32", data_dir=data_dir)


def setting_of(faces: FaceSet, subset: Subset | None = None) -> Setting:
    digests = faces.split_digest, faces.pixel_digest
    return Setting(faces.name, True, "leak-free-2", *digests, Protocol(), subset)


def rows_of(faces: FaceSet, runs_dir: Path, *, fitting: bool = False) -> Sequence[Row]:
    references = References(runs_dir, faces.folder.parent, fitting)
    return references.rows(setting_of(faces), TASKS)


def test_a_regression_on_pixels_is_fitted_once_and_kept(painted: FaceSet, tmp_path: Path) -> None:
    assert [row.name for row in rows_of(painted, tmp_path)] == [MAJORITY]
    majority, logistic = rows_of(painted, tmp_path, fitting=True)
    assert logistic.name == f"logistic regression on {ON_PIXELS}"
    assert set(logistic.scores) == set(TASKS)
    assert logistic.scores["gender"].accuracy > 0.9 > majority.scores["gender"].accuracy
    assert logistic.scores["race"].accuracy > 0.9
    assert logistic.combined is not None
    assert logistic.combined.low is not None
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert rows_of(painted, tmp_path, fitting=True) == [majority, logistic]
    assert {path: path.stat().st_mtime_ns for path in files} == files
    without_faces = References(tmp_path, tmp_path / "no data")
    assert list(without_faces.rows(setting_of(painted), TASKS)) == [logistic]
    women = setting_of(painted, Subset(gender="female"))
    references = References(tmp_path, painted.folder.parent)
    assert [row.name for row in references.rows(women, TASKS)] == [MAJORITY], "of other faces"
    (path,) = tmp_path.rglob("predictions.csv")
    path.write_text("schema\n7\n")
    assert [row.name for row in rows_of(painted, tmp_path)] == [MAJORITY], "it is damaged"


def test_the_labels_ceiling_stands_in_tables_of_all_faces_on_an_honest_split(
    painted: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the faces were pairs of near-duplicates."""
    repeated = painted.table.assign(cluster=np.arange(len(painted.table)) // 2)
    faces = FaceSet(painted.folder, painted.manifest | {"drawn": False}, repeated)
    monkeypatch.setattr("benchmark.comparison.references.prepared_datasets", lambda _: [faces])
    references = References(tmp_path, tmp_path)
    everyone = setting_of(faces)
    rows = references.rows(everyone, ("gender",))
    assert [row.name for row in rows] == [MAJORITY, CEILING]
    pairs = repeated["gender"].to_numpy().reshape(-1, 2)
    share = float((pairs[:, 0] != pairs[:, 1]).mean())
    assert rows[1].scores["gender"].accuracy == pytest.approx(1 - share / 2)
    for other in (
        setting_of(faces, Subset(gender="female")),
        replace(everyone, protocol=Protocol(split="published-1")),
    ):
        assert [row.name for row in references.rows(other, ("gender",))] == [MAJORITY]


def test_a_subset_of_one_class_is_no_obstacle(painted: FaceSet, tmp_path: Path) -> None:
    women = setting_of(painted, Subset(gender="female"))
    references = References(tmp_path, painted.folder.parent, fitting=True)
    logistic = references.rows(women, TASKS)[1]
    assert logistic.scores["gender"].accuracy == 1.0


@pytest.mark.parametrize("px", [CELLS, 32, 100])
def test_small_pictures_are_means_of_cells(px: int) -> None:
    pictures = np.zeros((2, px, px, 3), dtype=np.uint8)
    pictures[1, :, :, 0] = 255
    pictures[1, 0, 0, 2] = 255
    small = small_pictures(pictures).reshape(2, CELLS, CELLS, 3)
    assert (small[0] == 0).all()
    np.testing.assert_allclose(small[1, :, :, 0], 1, rtol=1e-6)
    first_cell = px // CELLS
    assert small[1, 0, 0, 2] == pytest.approx(1 / first_cell**2)


def test_a_face_without_a_label_is_not_learnt_from_and_not_scored(
    partly_labelled: FaceSet, tmp_path: Path
) -> None:
    """Its label is written as -1, which as a class would be the last one."""
    logistic = rows_of(partly_labelled, tmp_path, fitting=True)[1]
    assert logistic.scores["gender"].accuracy > 0.9
    assert logistic.combined is not None
    (folder,) = (tmp_path / "references").iterdir()
    kept = read_predictions(folder / "predictions.csv")
    test = kept[kept["part"] == "test"]
    known = test[test["gender"] != MISSING]
    assert len(known) < len(test)
    right = {task: (test[f"{task}_pred"] == test[task]).mean() for task in ("age_group", "race")}
    right["gender"] = (known["gender_pred"] == known["gender"]).mean()
    assert logistic.scores["gender"].accuracy == pytest.approx(right["gender"])
    weighed = 0.4 * right["age_group"] + 0.2 * right["gender"] + 0.4 * right["race"]
    assert logistic.combined.value == pytest.approx(weighed)


def test_a_table_of_another_task_has_all_faces_that_are_labelled_for_it(
    partly_labelled: FaceSet, tmp_path: Path
) -> None:
    references = References(tmp_path, partly_labelled.folder.parent, fitting=True)
    n_faces = {}
    for tasks in (("gender",), ("race",)):
        assert references.rows(setting_of(partly_labelled), tasks)[1].scores.keys() == {*tasks}  # type: ignore[arg-type]
    for folder in (tmp_path / "references").iterdir():
        kept = read_predictions(folder / "predictions.csv")
        n_faces[predicted_tasks(kept)] = len(kept)
    placed = partly_labelled.table[partly_labelled.table["part"].isin(["val", "test"])]
    assert n_faces["race",] == len(placed)
    assert n_faces["gender",] == (placed["gender"] != MISSING).sum()


def test_a_task_that_no_face_is_labelled_for_has_no_reference_rows(
    painted: FaceSet, tmp_path: Path
) -> None:
    labels = painted.table[["file", "age", *TASKS]].assign(gender=MISSING)
    faces = store_faces(np.array(painted.pixels()), labels, name="none-32", data_dir=tmp_path)
    references = References(tmp_path / "runs", tmp_path, fitting=True)
    assert references.rows(setting_of(faces), ("gender",)) == []
