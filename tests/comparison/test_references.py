"""Reference rows: fitted once, kept as predictions, scored by the rules that runs are scored by."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.comparison import references
from benchmark.comparison.library import Setting
from benchmark.comparison.references import References
from benchmark.comparison.rows import Row
from benchmark.data.dataset import FaceSet, store_faces
from benchmark.evaluation.predictions import predicted_tasks, read_predictions
from benchmark.experiment.definition import Protocol, Subset
from benchmark.tasks import MISSING, TASKS, TaskName

YEARS = np.array([7, 20, 33, 50, 70])
WOMEN = Subset(gender="female")


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """240 noisy pictures, redder for one gender and greener from race to race."""
    random = np.random.default_rng(0)
    age_group, gender, race = (random.integers(n, size=240) for n in (5, 2, 5))
    images = random.integers(0, 100, size=(240, 32, 32, 3))
    images[..., 0] += 60 * gender[:, None, None]
    images[..., 1] += 30 * race[:, None, None]
    labels = pd.DataFrame(
        {"file": [f"{number:03d}.png" for number in range(240)], "age": YEARS[age_group],
         "age_group": age_group, "gender": gender, "race": race}
    )  # fmt: skip
    data_dir = tmp_path_factory.mktemp("data")
    return store_faces(images.astype(np.uint8), labels, name="painted-32", data_dir=data_dir)


def without_gender(faces: FaceSet, step: int, data_dir: Path) -> FaceSet:
    """Store the same pictures; every so manyth has no gender."""
    labels = faces.table[["file", "age", *TASKS]].copy()
    labels.loc[::step, "gender"] = MISSING
    return store_faces(np.array(faces.pixels()), labels, name="partly-32", data_dir=data_dir)


def setting_of(faces: FaceSet, subset: Subset | None = None) -> Setting:
    digests = faces.split_digest, faces.pixel_digest
    return Setting(faces.name, True, "leak-free-2", *digests, Protocol(), subset)


def rows_of(
    faces: FaceSet,
    runs_dir: Path,
    tasks: tuple[TaskName, ...] = TASKS,
    *,
    fitting: bool = False,
    subset: Subset | None = None,
    data_dir: Path | None = None,
) -> Sequence[Row]:
    references = References(runs_dir, data_dir or faces.folder.parent, fitting)
    return references.rows(setting_of(faces, subset), tasks)


def names(rows: Sequence[Row]) -> list[str]:
    return [row.name for row in rows]


def test_a_regression_on_pixels_is_fitted_once_and_kept(painted: FaceSet, tmp_path: Path) -> None:
    assert names(rows_of(painted, tmp_path)) == [references.MAJORITY]
    majority, logistic = rows_of(painted, tmp_path, fitting=True)
    assert logistic.name == f"logistic regression on {references.ON_PIXELS}"
    assert set(logistic.scores) == set(TASKS)
    assert logistic.scores["gender"].accuracy > 0.9 > majority.scores["gender"].accuracy
    assert logistic.scores["race"].accuracy > 0.9
    assert logistic.combined is not None
    assert logistic.combined.low is not None
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert rows_of(painted, tmp_path, fitting=True) == [majority, logistic]
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert list(rows_of(painted, tmp_path, data_dir=tmp_path / "no data")) == [logistic]
    assert names(rows_of(painted, tmp_path, subset=WOMEN)) == [references.MAJORITY], (
        "of other faces"
    )
    (path,) = tmp_path.rglob("predictions.csv")
    path.write_text("schema\n7\n")
    assert names(rows_of(painted, tmp_path)) == [references.MAJORITY], "it is damaged"


def test_the_labels_ceiling_stands_in_tables_of_all_faces_on_an_honest_split(
    painted: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the faces were pairs of near-duplicates."""
    repeated = painted.table.assign(cluster=np.arange(len(painted.table)) // 2)
    faces = FaceSet(painted.folder, painted.manifest | {"drawn": False}, repeated)
    monkeypatch.setattr("benchmark.comparison.references.prepared_datasets", lambda _: [faces])
    rows = rows_of(faces, tmp_path, ("gender",))
    assert names(rows) == [references.MAJORITY, references.CEILING]
    genders = repeated["gender"].to_numpy().reshape(-1, 2)
    share = (genders[:, 0] != genders[:, 1]).mean()
    assert rows[1].scores["gender"].accuracy == pytest.approx(1 - share / 2)
    assert names(rows_of(faces, tmp_path, ("gender",), subset=WOMEN)) == [references.MAJORITY]
    leaky = replace(setting_of(faces), protocol=Protocol(split="published-1"))
    assert names(References(tmp_path, tmp_path).rows(leaky, ("gender",))) == [references.MAJORITY]


def test_a_subset_of_one_class_is_no_obstacle(painted: FaceSet, tmp_path: Path) -> None:
    logistic = rows_of(painted, tmp_path, fitting=True, subset=WOMEN)[1]
    assert logistic.scores["gender"].accuracy == 1.0


@pytest.mark.parametrize("px", [references.CELLS, 32, 100])
def test_small_pictures_are_means_of_cells(px: int) -> None:
    pictures = np.zeros((2, px, px, 3), dtype=np.uint8)
    pictures[1, :, :, 0] = 255
    pictures[1, 0, 0, 2] = 255
    small = references.small_pictures(pictures).reshape(2, references.CELLS, references.CELLS, 3)
    assert (small[0] == 0).all()
    np.testing.assert_allclose(small[1, :, :, 0], 1, rtol=1e-6)
    first_cell = px // references.CELLS
    assert small[1, 0, 0, 2] == pytest.approx(1 / first_cell**2)


def test_a_face_without_a_label_is_not_learnt_from_and_not_scored(
    painted: FaceSet, tmp_path: Path
) -> None:
    """Its label is written as -1, which as a class would be the last one."""
    faces = without_gender(painted, 3, tmp_path / "data")
    logistic = rows_of(faces, tmp_path, fitting=True)[1]
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
    painted: FaceSet, tmp_path: Path
) -> None:
    faces = without_gender(painted, 3, tmp_path / "data")
    tasks: list[TaskName] = ["gender", "race"]
    for task in tasks:
        assert rows_of(faces, tmp_path, (task,), fitting=True)[1].scores.keys() == {task}
    kept = map(read_predictions, (tmp_path / "references").glob("*/predictions.csv"))
    n_faces = {predicted_tasks(table): len(table) for table in kept}
    placed = faces.table[faces.table["part"].isin(["val", "test"])]
    assert n_faces["race",] == len(placed)
    assert n_faces["gender",] == (placed["gender"] != MISSING).sum()


def test_a_task_that_no_face_is_labelled_for_has_no_reference_rows(
    painted: FaceSet, tmp_path: Path
) -> None:
    faces = without_gender(painted, 1, tmp_path / "data")
    assert rows_of(faces, tmp_path, ("gender",), fitting=True) == []
