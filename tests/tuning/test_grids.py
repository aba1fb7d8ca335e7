"""A grid of the study: a part of the faces, every point once, the study's numbers beside ours."""

from pathlib import Path

import pandas as pd
import pytest

from benchmark import registry
from benchmark.data.dataset import FaceSet
from benchmark.errors import DataError, ExperimentError
from benchmark.experiment.space import RATE
from benchmark.tuning.outcome import grid_faces, write_grid
from benchmark.tuning.search import Limits, search
from benchmark.tuning.study import Study
from benchmark.tuning.trials import Told
from tests.tuning.planted import a_ledger

pytestmark = pytest.mark.filterwarnings("ignore")  # optuna and plotly warn of each other

GRID = registry.grid("grid-mtl-vgg16-block5")


def test_the_gender_grids_are_without_clipping_as_the_studys_were() -> None:
    clipping = {name: grid.experiment.recipe.clipping for name, grid in registry.grids().items()}
    without = {name for name, kind in clipping.items() if kind == "none"}
    assert without == {"grid-gender-vgg16-width", "grid-gender-vgg16-block5"}


def test_a_tenth_trains_and_a_twentieth_validates(drawn_faces: FaceSet) -> None:
    faces = grid_faces(GRID, drawn_faces)
    counts = faces.table["part"].value_counts()
    assert counts["train"] == 24
    assert counts["val"] == 12
    assert faces.split_digest != drawn_faces.split_digest
    placed = faces.table["part"] == "train"
    assert (drawn_faces.table["part"][placed] == "train").all()
    assert grid_faces(GRID, drawn_faces).table.equals(faces.table)


def test_too_few_faces_are_refused(drawn_faces: FaceSet) -> None:
    from dataclasses import replace

    few = replace(drawn_faces, table=drawn_faces.table.head(60))
    with pytest.raises(DataError, match="10 or more"):
        grid_faces(GRID, few)


def test_a_row_that_is_not_there_is_refused() -> None:
    with pytest.raises(ExperimentError, match="has no row 33"):
        list(GRID.points((33,)))


def test_every_point_of_a_row_is_tried_once_and_rows_add_up(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    def study(*rows: int) -> Study:
        points = tuple(GRID.points(rows))
        return Study(
            GRID.experiment, GRID.space, drawn_faces, tmp_path, "random", 0, "none", points
        )

    def objective(point: object, number: int) -> object:
        from benchmark.tuning.search import Score

        yield Score(0, 0.5)

    for rows in ((32,), (64,)):
        ledger = a_ledger(study(*rows), f"journal:{tmp_path}/log")
        list(search(ledger, objective, Limits(ledger.n_queued)))  # type: ignore[arg-type]
    points = [tuple(trial.point.values()) for trial in ledger.trials()]
    assert len(points) == len(set(points)) == 8
    assert {trial.state for trial in ledger.trials()} == {"complete"}


def test_ours_stand_beside_the_studys(tmp_path: Path, drawn_faces: FaceSet) -> None:
    study = Study(GRID.experiment, GRID.space, drawn_faces, tmp_path)
    study.own_folder.mkdir(parents=True)
    trials = [
        Told(number, "complete", point, 0.4 + number / 100, {})
        for number, point in enumerate(GRID.points((32,)))
    ]
    files = {path.name for path in write_grid(GRID, study, trials)}
    assert files == {"grid.csv", "grid.html"}
    table = pd.read_csv(study.own_folder / "grid.csv")
    assert len(table) == 16
    row = table[(table["recipe.batch_size"] == 32) & (table[RATE] == 1e-4)].iloc[0]
    assert (row["ours"], row["study"]) == (pytest.approx(0.42), 0.684550)
    assert table["ours"].isna().sum() == 12
