"""A grid of the study: its faces, and what it shows, the study's numbers beside ours."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmark.errors import DataError
from benchmark.experiment_grids import GridSpace
from benchmark.faces.splits import split_digest
from benchmark.faces.store import FaceSet
from benchmark.files import write_text
from benchmark.results.figures import write_png
from benchmark.tuning.ledger import Told
from benchmark.tuning.study import Study
from benchmark.tuning.surfaces import heat_map_figure, surface_figure, write_surface_page

GRID_FILE: Final = "grid.csv"
NOT_USED: Final = ""
FEWEST: Final = 10


def grid_faces(grid: GridSpace, faces: FaceSet) -> FaceSet:
    """Give as many faces as the study's grids had: a tenth trains, a twentieth validates.

    Of the training and validation faces of the split, those of lowest hash; the rest, and all test
    faces, have no place. Every machine takes the same. Raises DataError where there are too few.
    """
    table = faces.table.copy()
    keys = [hashlib.sha256(f"grid-1\n{file}".encode()).hexdigest() for file in table["file"]]
    order = np.argsort(np.array(keys), kind="stable")
    part = table["part"].to_numpy(dtype=object).copy()
    kept = np.zeros(len(table), dtype=bool)
    for name, fraction in (("train", grid.train_fraction), ("val", grid.val_fraction)):
        n_wanted = round(fraction * len(table))
        rows = order[part[order] == name][:n_wanted]
        if len(rows) < FEWEST:
            raise DataError(
                f"{fraction:.0%} of {faces.name} are {len(rows)} faces", allowed=f"{FEWEST} or more"
            )
        kept[rows] = True
    # The test part keeps its place: a run wants one, and an ad-hoc run does not read it.
    part[~kept & (part != "test")] = NOT_USED
    table["part"] = part
    manifest = faces.manifest | {"name": f"{faces.name}", "split_digest": split_digest(table)}
    return replace(faces, manifest=manifest, table=table)


def grid_values(grid: GridSpace, trials: Sequence[Told]) -> dict[tuple[Any, Any], float]:
    """Give our score at each point that is complete, by row and column value."""
    return {
        (trial.point[grid.rows.path], trial.point[grid.columns.path]): trial.value
        for trial in trials
        if trial.state == "complete" and trial.value is not None
    }


def write_grid(grid: GridSpace, study: Study, trials: Sequence[Told]) -> list[Path]:
    """Write table, heat map and surface of a grid; nothing of a point that was not tried."""
    ours, printed = grid_values(grid, trials), grid.printed()
    rows = [
        {grid.rows.path: row, grid.columns.path: column, "ours": ours.get((row, column)),
         "study": value}
        for (row, column), value in printed.items()
    ]  # fmt: skip
    folder = study.own_folder
    write_text(folder / GRID_FILE, pd.DataFrame(rows).to_csv(index=False))
    files = [folder / GRID_FILE]
    if ours:
        write_png(folder / "heat_map.png", heat_map_figure(grid, study, ours))
        files.append(folder / "heat_map.png")
    if len(grid.rows.values) > 1 and len(grid.columns.values) > 1 and ours:
        write_png(folder / "surface.png", surface_figure(grid, study, ours))
        files.append(folder / "surface.png")
        files += write_surface_page(folder / "surface.html", grid, study, ours)
    return files
