"""The pictures of the leak and of the subsets: rows of marks with their 95 % intervals.

What is drawn comes from benchmark.results.leak_study and .subset_study.
"""

from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmark.results.figures import COLOURS, FAINT, INK, percent_ticks
from benchmark.results.study_page import StudyPanel, StudyPicture

LEAKY_COLOUR: Final = "#B22222"


def study_figure(picture: StudyPicture, dataset: str, *, drawn: bool) -> Figure:
    """Draw a study's panels; significant differences are filled, LEAKY rates are red diamonds."""
    heights = [len(panel.marks) for panel in picture.panels]
    if picture.of_differences:
        figure = Figure(figsize=(9.5, 2.2 + 0.33 * sum(heights)), layout="constrained")
        ratios = {"height_ratios": heights}
        grid = figure.subplots(len(heights), sharex=True, squeeze=False, gridspec_kw=ratios)
    else:
        figure = Figure(figsize=(11.5, 2.2 + 0.62 * max(heights)), layout="constrained")
        grid = figure.subplots(1, len(heights), sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, picture.panels, strict=True):
        _draw(axes, panel, of_differences=picture.of_differences)
    faces = " (drawn faces)" if drawn else ""
    figure.suptitle(f"{picture.title}\n{dataset}{faces}", size=12, color=INK)
    figure.supxlabel(picture.caption.replace("; ", "\n"), size=10)
    return figure


def _draw(axes: Axes, panel: StudyPanel, *, of_differences: bool) -> None:
    for row, mark in enumerate(panel.marks):
        colour = LEAKY_COLOUR if mark.leaky else COLOURS[panel.task]
        axes.plot([mark.low, mark.high], [row, row], color=colour, linewidth=2, zorder=2)
        fill = colour if mark.filled else "white"
        shape = "D" if mark.leaky else "o"
        axes.plot(mark.value, row, shape, color=colour, markerfacecolor=fill, ms=7, zorder=3)
        if not of_differences:
            words = f"{100 * mark.value:.1f}"
            axes.text(mark.value, row - 0.22, words, size=10, color=INK, ha="center")
    if of_differences:
        axes.axvline(0, color=FAINT, linewidth=1.2, zorder=1)
        signed = FuncFormatter(lambda value, _place: f"{round(100 * value):+d}" if value else "0")
        axes.xaxis.set_major_formatter(signed)
    else:
        axes.xaxis.set_major_formatter(percent_ticks())
        axes.margins(x=0.12)
    axes.set_title(panel.title, size=11, color=INK)
    labels = [mark.label.replace(", ", ",\n", 1) for mark in panel.marks]
    axes.set_yticks(range(len(labels)), labels, size=10)
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.grid(axis="x", color="#EEEEEE", zorder=0)
    axes.tick_params(length=0, labelsize=10)
    axes.spines[:].set_visible(False)
