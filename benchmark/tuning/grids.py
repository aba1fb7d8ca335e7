"""A grid of the study: its faces, and what it shows, the study's numbers beside ours."""

import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from plotly import graph_objects
from plotly.subplots import make_subplots

from benchmark.errors import DataError
from benchmark.experiment_grids import GridSpace
from benchmark.faces.splits import split_digest
from benchmark.faces.store import FaceSet
from benchmark.files import write_text
from benchmark.tuning.ledger import Told
from benchmark.tuning.pages import label_of
from benchmark.tuning.study import Study

GRID_FILE: Final = "grid.csv"
GRID_PAGE: Final = "grid.html"
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
    """Write a grid's table and, of two dimensions, its page; nothing of points not tried."""
    ours, printed = grid_values(grid, trials), grid.printed()
    rows = [
        {grid.rows.path: row, grid.columns.path: column, "ours": ours.get((row, column)),
         "study": value}
        for (row, column), value in printed.items()
    ]  # fmt: skip
    files = [study.own_folder / GRID_FILE]
    write_text(files[0], pd.DataFrame(rows).to_csv(index=False))
    if ours and len(grid.rows.values) > 1 and len(grid.columns.values) > 1:
        files.append(study.own_folder / GRID_PAGE)
        page = _figure(grid, study, ours).to_html(
            include_plotlyjs="inline", config={"displaylogo": False}
        )
        write_text(files[1], page)
    return files


def _figure(grid: GridSpace, study: Study, ours: Mapping[tuple[Any, Any], float]) -> Any:
    """Draw ours and the study's side by side: as numbers on colours, and as the study's surface."""
    both = {
        f"ours: {study.experiment.backbone.architecture}, {study.faces.name}": ours,
        f"the study: {grid.experiment.backbone.architecture}": grid.printed(),
    }
    # Plotly draws some tags of a title, links among them: a name must not hold one.
    titles = [html.escape(title, quote=False) for title in both]
    drawn = " (drawn faces)" if study.faces.drawn else ""
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=titles,
        specs=[[{"type": "heatmap"}] * 2, [{"type": "surface"}] * 2],
    )  # fmt: skip
    rows, columns = grid.rows.values, grid.columns.values
    for place, values in enumerate(both.values(), start=1):
        matrix = np.array(
            [[values.get((row, column), np.nan) for column in columns] for row in rows]
        )
        best = np.unravel_index(np.nanargmax(matrix), matrix.shape)
        row, column, highest = rows[best[0]], columns[best[1]], matrix[best]
        heat_map = graph_objects.Heatmap(
            x=[f"{value:g}" for value in columns], y=[f"{value:g}" for value in rows],
            z=100 * matrix, texttemplate="%{z:.1f}", colorscale="Viridis", showscale=False,
            zmin=100 * min([*ours.values(), *grid.printed().values()]),
            zmax=100 * max([*ours.values(), *grid.printed().values()]),
        )  # fmt: skip
        surface = graph_objects.Surface(
            x=list(rows), y=list(columns), z=matrix.T, colorscale="Viridis", showscale=False
        )
        marker = graph_objects.Scatter3d(
            x=[row], y=[column], z=[highest], mode="markers+text", showlegend=False,
            marker={"color": "red", "size": 6},
            text=[f"Max: {highest:.4f}, lr: {column:g}, batch_size={row:g}"],
        )  # fmt: skip
        figure.add_trace(heat_map, row=1, col=place)
        figure.add_traces([surface, marker], rows=2, cols=place)
    scene = {
        "xaxis": {"title": label_of(grid.rows.path)},
        "yaxis": {"title": label_of(grid.columns.path), "type": "log"},
        "zaxis": {"title": "validation accuracy"},
    }
    title = html.escape(f"{grid.asks}{drawn}", quote=False)
    figure.update_layout(
        title=f"{title}<br><sup>validation accuracy, % above</sup>",
        scene=scene, scene2=scene, width=1300, height=1200,
    )  # fmt: skip
    figure.update_xaxes(title=label_of(grid.columns.path), type="category")
    figure.update_yaxes(title=label_of(grid.rows.path), type="category")
    return figure
