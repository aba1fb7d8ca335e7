"""The five folds of one experiment: found among all runs, joined, and kept with fold 0."""

from pathlib import Path

import pandas as pd
import pytest

from benchmark.errors import RunError
from benchmark.experiment import Experiment
from benchmark.faces.store import FaceSet
from benchmark.results.out_of_fold import SHEET, TABLE, fold_runs, write_suspects
from benchmark.results.rows import Run, read_run
from tests.results.conftest import RunBuilder, an_experiment, exact_predictions
from tests.results.test_rescoring import drawn_run


def fold(number: int, **changes: object) -> Experiment:
    name = f"mtl-cnn-none-full-fold{number}"
    base = an_experiment(f"fold{number}")
    return base.varied(name=name, **{"protocol.fold": number}, **changes)


def five(runs_dir: Path, faces: FaceSet, *, seed: int = 0) -> list[Run]:
    return [read_run(drawn_run(runs_dir, faces, fold(k), seed=seed)) for k in range(5)]


def test_folds_that_differ_in_nothing_else_belong_together(runs: RunBuilder) -> None:
    predictions = exact_predictions(20, 20, n=25)
    for number in range(5):
        runs.done(fold(number), predictions, seed=0)
    runs.done(fold(0), predictions, seed=1)
    runs.done(fold(1, **{"recipe.learning_rate": 0.01}), predictions)
    runs.done(an_experiment(), predictions)
    runs.begun(fold(2), seed=1)
    found = fold_runs(map(read_run, runs.records()))
    assert sorted(sorted(folds.by_fold) for folds in found) == [[0], [0, 1, 2, 3, 4], [1]]
    (whole,) = [folds for folds in found if folds.is_whole]
    assert whole.name == "mtl-cnn-none-full-fold0, seed 0"


def test_suspects_of_every_face_are_kept_with_fold_0(tmp_path: Path, drawn_faces: FaceSet) -> None:
    (folds,) = fold_runs(five(tmp_path, drawn_faces))
    suspects = write_suspects(folds, [drawn_faces])
    folder = folds.by_fold[0].record.folder
    assert (folder / SHEET).is_file()
    stored = pd.read_csv(folder / TABLE)
    assert stored["file"].tolist() == suspects["file"].tolist()
    parts = [run.record.predictions_path for run in folds.by_fold.values()]
    tested = pd.concat([pd.read_csv(path).query("part == 'test'") for path in parts])
    assert len(tested) == (drawn_faces.table["part"] != "").sum()
    assert set(stored["file"]) <= set(tested["file"])


def test_without_the_faces_there_is_no_sheet(tmp_path: Path, drawn_faces: FaceSet) -> None:
    (folds,) = fold_runs(five(tmp_path, drawn_faces))
    write_suspects(folds)
    assert not (folds.by_fold[0].record.folder / SHEET).exists()


def test_a_missing_fold_is_said(tmp_path: Path, drawn_faces: FaceSet) -> None:
    (folds,) = fold_runs(five(tmp_path, drawn_faces)[:4])
    assert not folds.is_whole
    with pytest.raises(RunError, match="fold 4 is missing"):
        write_suspects(folds)
