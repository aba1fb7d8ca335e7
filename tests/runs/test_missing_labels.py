"""Faces that lack some labels: each task is trained, selected, tested and compared on its own."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmark.comparison.library import Library, read_run
from benchmark.comparison.pairs import group_difference
from benchmark.data.dataset import FaceSet, store_faces
from benchmark.evaluation.metrics import score
from benchmark.evaluation.predictions import predictions_table, read_predictions
from benchmark.experiment.definition import Head
from benchmark.inference.evaluate import verify
from benchmark.record import RunRecord
from benchmark.tasks import MISSING, TASKS, TaskName, combined, n_classes
from tests.runs.small import Place, an_experiment
from tests.training.small import CPU

Runs = tuple[RunRecord, RunRecord]
MTL = an_experiment(batch_size=8)
STL = replace(MTL, name="gender-cnn-none-full-tiny", head=Head(tasks=("gender",), hidden_units=16))


@pytest.fixture(scope="module")
def faces(drawn_faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """Synthetic faces: half have no gender, the first batch among them, and some no race."""
    labels = drawn_faces.table[["file", "age", *TASKS]].copy()
    labels.loc[np.r_[:8, 8:240:2], "gender"] = MISSING
    labels.loc[::7, "race"] = MISSING
    data_dir = tmp_path_factory.mktemp("partly")
    return store_faces(drawn_faces.pixels(), labels, name="partly-32", data_dir=data_dir)


@pytest.fixture(scope="module")
def runs(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    place = Place(faces, tmp_path_factory.mktemp("runs"))
    return place.done(MTL, device=replace(CPU, probes=True)), place.done(STL)


def labelled(faces: FaceSet, task: TaskName, part: str) -> int:
    return int(((faces.table["part"] == part) & (faces.table[task] != MISSING)).sum())


def test_every_face_is_used_and_each_task_scored_on_its_own(faces: FaceSet, runs: Runs) -> None:
    record, single = runs
    placed = dict(faces.table["part"].value_counts())
    known = {task: {part: labelled(faces, task, part) for part in placed} for task in TASKS}
    assert record.about["speed"]["probe_step_seconds"]
    assert record.about["dataset"]["counts"] == placed
    assert record.about["labelled"] == known
    assert single.about["dataset"]["counts"] == known["gender"]
    predictions, metrics = read_predictions(record.predictions_path), record.metrics
    for part, name in (("val", "selected/val"), ("test", "test")):
        asked = predictions[predictions["part"] == part]
        assert len(asked) == placed[part]
        told = {task: asked[asked[task] != MISSING] for task in TASKS}
        rates = {t: float((rows[t] == rows[f"{t}_pred"]).mean()) for t, rows in told.items()}
        assert {task: metrics[f"{name}/{task}/accuracy"] for task in TASKS} == pytest.approx(rates)
        assert metrics[f"{name}/combined"] == pytest.approx(combined(rates))
    epoch = record.history().iloc[record.done["selected_epoch"] - 1]
    assert epoch["val/gender/accuracy"] == metrics["selected/val/gender/accuracy"]
    n_right = epoch["train/gender/accuracy"] * known["gender"]["train"]
    assert n_right == pytest.approx(round(n_right), abs=1e-6)


def test_its_numbers_hold_when_they_are_computed_again(faces: FaceSet, runs: Runs) -> None:
    for record in runs:
        assert {finding.verdict for finding in verify(record, [faces])} == {"holds"}


def test_counterparts_are_compared_on_faces_that_both_have(faces: FaceSet, runs: Runs) -> None:
    library = Library(tuple(map(read_run, runs)), {}, {})
    mtl, stl = (library.groups_of(run.record.identity, "")[0] for run in library.runs)
    found = group_difference((stl, mtl), stl, mtl, task="gender")
    assert found.n_faces == labelled(faces, "gender", "test")
    rates = [record.metrics["test/gender/accuracy"] for record in runs]
    assert found.accuracy == pytest.approx(rates[0] - rates[1])


def test_a_task_is_scored_as_if_faces_without_its_label_were_not_there(faces: FaceSet) -> None:
    table, random = faces.table, np.random.default_rng(1)
    answers = {task: random.dirichlet(np.ones(n_classes(task)), len(table)) for task in TASKS}
    known = (table["gender"] != MISSING).to_numpy()
    whole = score(predictions_table(table, "test", answers))
    alone = score(predictions_table(table[known], "test", {"gender": answers["gender"][known]}))
    names = [name for name in alone.metrics if name.startswith("test/gender/")]
    assert len(names) > 30
    assert {name: whole.metrics[name] for name in names} == {n: alone.metrics[n] for n in names}
    for mine, other in ((whole.subgroups, alone.subgroups), (whole.gaps, alone.gaps)):
        # Corrected over the rows of all tasks.
        expected = other.drop(columns="p_holm", errors="ignore")
        ours = mine[mine["task"] == "gender"].reset_index(drop=True)[expected.columns]
        pd.testing.assert_frame_equal(ours, expected, check_dtype=False)
