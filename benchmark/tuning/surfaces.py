"""A grid as pictures: the surface that the study drew, and a heat map that can be read.

Both show the study's numbers beside ours; a point that was not tried is left blank.
"""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmark.experiment_grids import GridSpace
from benchmark.files import write_text
from benchmark.results.figures import INK
from benchmark.tuning.figures import label_of, title_of
from benchmark.tuning.study import Study

Values = Mapping[tuple[Any, Any], float]
COLOURS: Final = "viridis"


def matrix_of(grid: GridSpace, values: Values) -> npt.NDArray[np.float64]:
    """Give values by row and column; what was not tried is NaN."""
    return np.array(
        [
            [values.get((row, column), np.nan) for column in grid.columns.values]
            for row in grid.rows.values
        ]
    )


def panels(grid: GridSpace, study: Study, ours: Values) -> dict[str, npt.NDArray[np.float64]]:
    """Give the study's matrix and ours, each under its title."""
    theirs = grid.experiment.backbone.architecture
    here = study.experiment.backbone.architecture
    return {
        f"ours: {here}, {study.faces.name}": matrix_of(grid, ours),
        f"the study: {theirs}": matrix_of(grid, grid.printed()),
    }


def heat_map_figure(grid: GridSpace, study: Study, ours: Values) -> Figure:
    """Draw both grids as numbers on colours, the maximum framed."""
    n_rows, n_columns = len(grid.rows.values), len(grid.columns.values)
    figure = Figure(
        figsize=(2.2 + 2 * max(0.95 * n_columns, 2.6), 2.2 + 0.62 * n_rows), layout="constrained"
    )
    both = panels(grid, study, ours)
    low = min(np.nanmin(matrix) for matrix in both.values())
    high = max(np.nanmax(matrix) for matrix in both.values())
    axes_of = figure.subplots(1, 2, sharey=True)
    for axes, (title, matrix) in zip(axes_of, both.items(), strict=True):
        image = axes.imshow(matrix, cmap=COLOURS, vmin=low, vmax=high, aspect="auto")
        _write_cells(axes, matrix, (low + high) / 2)
        axes.set_title(title, size=10)
        axes.set_xticks(range(n_columns), [f"{value:g}" for value in grid.columns.values])
        axes.set_yticks(range(n_rows), [f"{value:g}" for value in grid.rows.values])
        axes.set_xlabel(label_of(grid.columns.path))
    axes_of[0].set_ylabel(label_of(grid.rows.path))
    figure.colorbar(image, ax=axes_of, label="validation accuracy, %", format=_percent)
    figure.suptitle(title_of(study, grid.asks), ha="left", x=0.02, size=11)
    return figure


def _percent(value: float, _position: int) -> str:
    return f"{100 * value:.0f}"


def _write_cells(axes: Axes, matrix: npt.NDArray[np.float64], middle: float) -> None:
    best = np.unravel_index(np.nanargmax(matrix), matrix.shape)
    for place, value in np.ndenumerate(matrix):
        text = "–" if np.isnan(value) else f"{100 * value:.1f}"
        colour = "white" if value < middle else INK
        weight = "bold" if place == best else "normal"
        axes.text(place[1], place[0], text, ha="center", va="center", color=colour, weight=weight)
    corner = (float(best[1]) - 0.48, float(best[0]) - 0.46)
    axes.add_patch(Rectangle(corner, 0.96, 0.92, fill=False, edgecolor="#D55E00", linewidth=2.5))


def surface_figure(grid: GridSpace, study: Study, ours: Values) -> Figure:
    """Draw both grids as surfaces over batch size and the logarithm of the rate."""
    figure = Figure(figsize=(11.5, 5.6))
    for place, (title, matrix) in enumerate(panels(grid, study, ours).items()):
        axes = figure.add_subplot(1, 2, place + 1, projection="3d")
        x, y = np.meshgrid(
            np.array(grid.rows.values, dtype=float),
            np.log10(np.array(grid.columns.values, dtype=float)), indexing="ij",
        )  # fmt: skip
        if np.isfinite(matrix).all():
            axes.plot_surface(x, y, matrix, cmap=COLOURS, alpha=0.85)
        axes.scatter(x, y, matrix, color=INK, s=10)
        best = np.unravel_index(np.nanargmax(matrix), matrix.shape)
        axes.scatter(*(item[best] for item in (x, y, matrix)), color="red", s=60)
        where = (
            f"{label_of(grid.rows.path)} {grid.rows.values[best[0]]:g}, "
            f"{label_of(grid.columns.path)} {grid.columns.values[best[1]]:g}"
        )
        axes.set_xlabel(label_of(grid.rows.path))
        axes.set_ylabel(f"{label_of(grid.columns.path)}, log10")
        axes.set_zlabel("validation accuracy")
        axes.set_title(f"{title}\nmaximum {matrix[best]:.1%} at {where}", size=10)
    figure.suptitle(title_of(study, grid.asks), ha="left", x=0.02, size=11)
    figure.subplots_adjust(left=0.02, right=0.95, bottom=0.05, top=0.8, wspace=0.12)
    return figure


def write_surface_page(path: Path, grid: GridSpace, study: Study, ours: Values) -> list[Path]:
    """Write both surfaces as one interactive page; nothing where plotly is not installed."""
    try:
        from plotly import graph_objects
        from plotly.subplots import make_subplots
    except ImportError:
        return []
    both = panels(grid, study, ours)
    # Plotly draws some tags of a title, links among them: a name must not hold one.
    titles = [html.escape(title, quote=False) for title in both]
    above = html.escape(title_of(study, grid.asks), quote=False).replace("\n", " · ")
    figure = make_subplots(rows=1, cols=2, specs=[[{"type": "surface"}] * 2], subplot_titles=titles)
    for place, matrix in enumerate(both.values()):
        best = np.unravel_index(np.nanargmax(matrix), matrix.shape)
        row, column = grid.rows.values[best[0]], grid.columns.values[best[1]]
        figure.add_trace(
            graph_objects.Surface(
                x=list(grid.rows.values), y=list(grid.columns.values), z=matrix.T,
                colorscale="Viridis", showscale=False,
            ), row=1, col=place + 1,
        )  # fmt: skip
        figure.add_trace(
            graph_objects.Scatter3d(
                x=[row], y=[column], z=[matrix[best]], mode="markers+text",
                marker={"color": "red", "size": 6}, showlegend=False,
                text=[f"Max: {matrix[best]:.4f}, lr: {column:g}, batch_size={row:g}"],
            ), row=1, col=place + 1,
        )  # fmt: skip
    scene = {
        "xaxis": {"title": label_of(grid.rows.path)},
        "yaxis": {"title": label_of(grid.columns.path), "type": "log"},
        "zaxis": {"title": "validation accuracy"},
    }
    figure.update_layout(
        title=f"Validation Accuracy 3D Surface Plot with Maximum Value<br><sup>{above}</sup>",
        scene=scene, scene2=scene, width=1300, height=700,
    )  # fmt: skip
    write_text(path, figure.to_html(include_plotlyjs="inline", config={"displaylogo": False}))
    return [path]
