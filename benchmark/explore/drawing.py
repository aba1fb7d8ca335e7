"""How the figures of a data set are drawn and written: colours, axes, PNG, and SVG for a page.

Every figure is drawn once and written twice: as a PNG for documents, and as SVG for the page, whose
colours of text, lines and paper are the page's own, so that it can be read by day and by night.
"""

import io
import re
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.files import replacing
from benchmark.results.figures import FAINT, INK
from benchmark.tasks import TaskName

PAPER: Final = "#FFFFFF"
GRID: Final = "#E5E5E5"
PAGE_COLOURS: Final = {INK: "--ink", FAINT: "--faint", PAPER: "--paper", GRID: "--grid"}
"""Colours that the page sets by itself, for light and dark."""

PALETTES: Final[dict[TaskName, tuple[str, ...]]] = {
    "age_group": ("#5DA5D9", "#3987BF", "#1F6BA6", "#B5651D", "#8A4A12"),
    "gender": ("#4C86C6", "#D9773F"),
    "race": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B"),
}
"""Told apart by colour-blind readers, and of a middle lightness that shows on white and black.
Every class is named beside its colour too."""
PLAIN: Final = "#4C86C6"
STRONG: Final = "#D55E00"

SIZE: Final = 11
WIDTH: Final = 9.0
PNG_DPI: Final = 110


def write_small_png(path: Path, figure: Figure) -> None:
    """Write a figure atomically, small enough for a document; equal figures give equal bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=PNG_DPI, metadata={"Software": None})


def as_svg(figure: Figure, name: str) -> str:
    """Write a figure as SVG for a page: scalable, its text as text, its colours the page's own.

    name: of the figure; keeps the ids of several figures on one page apart.
    """
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg width="[^"]*" height="[^"]*"', "<svg", svg.replace("\n", " "), count=1)
    for attribute in ("width", "height"):
        svg = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = re.sub(colour, f"var({variable})", svg, flags=re.IGNORECASE)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)


def new_figure(
    height: float, columns: int = 1, rows: int = 1, **options: object
) -> tuple[Figure, list[Axes]]:
    """Give a figure of the usual width and its panels, row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)  # type: ignore[call-overload]
    return figure, list(grid.ravel())


def finish(axes: Axes, *, grid: str | None = "y") -> None:
    """Leave of the frame what tells something; grid: the axis whose lines are drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_edgecolor(FAINT)
    axes.tick_params(labelsize=SIZE, colors=INK, which="both", length=0)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def title(axes: Axes, text: str) -> None:
    """Write a panel's title over its left end."""
    axes.set_title(text, size=SIZE + 1, color=INK, loc="left")


def beside(axes: Axes, value: float, place: float, text: str) -> None:
    """Write a bar's number a little to the right of its end."""
    axes.annotate(
        text, (value, place), (4, 0), textcoords="offset points", va="center", size=SIZE, color=INK
    )
