"""Figures of pages, as SVG, and of the studies; matrices of pages, as tables of coloured cells.

A panel is as wide as a phone, so that its text can be read there; a wide screen shows several side
by side. One meaning per mark: hollow is a difference that is not significant, a red diamond is
LEAKY, a colour is a task (or a line that is named beneath). The panels of a figure have scales of
one width in percentage points. A screen reader gets the numbers.
"""

import io
import re
import textwrap
from collections.abc import Sequence
from typing import Final, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from benchmark.comparison.library import RunGroup
from benchmark.comparison.wording import StudyFigure, StudyPanel, percent, pp
from benchmark.evaluation import figures as style
from benchmark.evaluation.intervals import confusion
from benchmark.evaluation.predictions import RunPredictions
from benchmark.evaluation.subgroups import SMALL_GROUP
from benchmark.reporting.tables import Cell, Table
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TASKS, TaskName, n_classes

PAGE_COLOURS: Final = {
    style.INK: "--ink",
    style.FAINT: "--faint",
    style.GRID: "--grid",
    style.PAPER: "--paper",
}
"""Colours that a page sets by itself, for light and dark."""
WIDTH: Final = 4.0
"""Inches of a panel: 9 points are then 11 pixels on a phone."""
ROW: Final = 0.42
"""Inches of a row with its label above its mark."""
LABEL_WIDTH: Final = 50
"""Characters of a label's line: what a panel holds."""
FURTHER_LINE: Final = 0.3
"""Rows that each further line of a label takes."""
LEAKY_COLOUR: Final = "#D0342C"
FULL_COLOUR: Final = 0.1
"""So far from the accuracy of all faces a cell of a heat map has the full colour."""
HIGHEST_RATE: Final = 1.01
LINE_STYLES: Final = cycler(linestyle=["-", "--", ":"]) * cycler(
    color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9"]
)


class PageFigure(NamedTuple):
    """Panels under one heading, as SVG that follows the page's light and dark."""

    title: str
    caption: str
    panels: tuple[Markup, ...]


def svg(figure: Figure, name: str, says: str, *, leaky: bool = False) -> Markup:
    """Write a figure as SVG for a page: scalable, its text as text, its colours the page's own.

    name: of the figure, unique on the page; keeps the ids of several figures apart. says: what a
    screen reader reads out. leaky: written across it.
    """
    if leaky:
        figure.text(0.5, 0.5, "LEAKY", size=44, weight="bold", color=LEAKY_COLOUR, alpha=0.1,
                    rotation=24, ha="center", va="center")  # fmt: skip
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[^"]*"', "", text.replace("\n", " "), count=2)
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", text)
    for colour, variable in PAGE_COLOURS.items():
        text = re.sub(colour, f"var({variable})", text, flags=re.IGNORECASE)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    label = escape(f"LEAKY. {says}" if leaky else says)
    return Markup(text.replace("<svg", f'<svg class="plot" role="img" aria-label="{label}"', 1))


def same_width(ranges: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Widen ranges of rates about their middles to the widest of them, and a margin."""
    width = max(max(high - low for low, high in ranges) * 1.12, 0.02)
    # No rate is above 1: a range of the common width ends a little after it at most.
    tops = [min((low + high + width) / 2, HIGHEST_RATE) for low, high in ranges]
    return [(top - width, top) for top in tops]


def common_limits(study: StudyFigure) -> list[tuple[float, float]]:
    """Give each panel's axis, all of one width; differences are shown with their 0."""
    zero = (0.0,) if study.of_differences else ()
    ends = [(*zero, *(end for m in it.marks for end in (m.low, m.high))) for it in study.panels]
    return same_width([(min(ours), max(ours)) for ours in ends])


def _labels(panel: StudyPanel) -> list[str]:
    # A no-break space keeps a count with its letter.
    labels = (mark.label.replace(", n ", ", n\N{NO-BREAK SPACE}") for mark in panel.marks)
    return [textwrap.fill(label, LABEL_WIDTH) for label in labels]


def _height(panel: StudyPanel) -> float:
    """Give the inches that a panel's rows take, with further lines of their labels."""
    return ROW * sum(1 + FURTHER_LINE * label.count("\n") for label in _labels(panel)) + 0.2


def _draw(axes: Axes, study: StudyFigure, number: int) -> None:
    """Draw a panel: per mark a row, its label above its interval, its value at the right."""
    panel, differences, row = study.panels[number], study.of_differences, -1.0
    across = axes.get_yaxis_transform()
    for label, mark in zip(_labels(panel), panel.marks, strict=True):
        row += 1 + FURTHER_LINE * label.count("\n")
        ends, marker = (mark.low, mark.value, mark.high), "D" if mark.leaky else "o"
        colour = LEAKY_COLOUR if mark.leaky else style.COLOURS[panel.task]
        style.draw_interval(axes, row, ends, colour, filled=mark.filled, marker=marker)
        axes.text(0, row - 0.24, label, va="bottom", transform=across)
        words = pp(mark.value) if differences else f"{percent(mark.value)} %"
        axes.text(1.02, row, words, va="center", transform=across)
    limits = common_limits(study)[number]
    axes.set(title=panel.title, yticks=[], xlim=limits, ylim=(row + 0.5, -0.75))
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(style.pp_ticks() if differences else style.percent_ticks())
    if differences:
        axes.axvline(0, color=style.FAINT, linewidth=1.2, zorder=1)
        axes.set_xlabel("percentage points")


def _panel(
    height: float, left: float = 0.05, right: float = 0.6, below: float = 0.0, grid: str = "y"
) -> tuple[Figure, list[Axes]]:
    """Make a panel; height: of its axes; below: for a legend. Lengths in inches."""
    size, below = (WIDTH - left - right, height), 0.5 + below
    return style.new_figure(size, "", left=left, right=right, top=0.35, below=below, grid=grid)


@style.drawing
def intervals_figure(name: str, study: StudyFigure) -> PageFigure:
    """Draw rates or differences with their 95 % intervals, a panel per task.

    name: unique on the page.
    """
    what = "differences in pp" if study.of_differences else "test accuracy in percent"
    write, unit = (pp, " pp") if study.of_differences else (percent, "")
    panels = []
    for number, panel in enumerate(study.panels):
        figure, (axes,) = _panel(_height(panel), grid="x")
        _draw(axes, study, number)
        numbers = "; ".join(
            f"{it.label}: {write(it.value)}{unit}, {write(it.low)} to {write(it.high)}"
            for it in panel.marks
        )
        says = f"{panel.title}, {what} with 95 % intervals. {numbers}."
        leaky = study.title.startswith("LEAKY")
        panels.append(svg(figure, f"{name}-{number}", says, leaky=leaky))
    return PageFigure(study.title, study.caption, tuple(panels))


@style.drawing
def study_figure(study: StudyFigure, dataset: str, *, drawn: bool) -> Figure:
    """Draw a study's panels side by side, for a file."""
    n, caption = len(study.panels), study.caption.replace("; ", "\n")
    title = f"{study.title}\n{dataset}{' (synthetic faces)' if drawn else ''}"
    size = (WIDTH * n - 0.6, max(map(_height, study.panels)))
    figure, panels = style.new_figure(
        size, title, n, left=0.1, right=0.6, below=1.2, gap=0.7, grid="x"
    )
    for number, axes in enumerate(panels):
        _draw(axes, study, number)
    width, height = figure.get_size_inches()
    figure.text(0.1 / width, 0.1 / height, caption, va="bottom", size=10)
    return figure


@style.drawing
def curves_panels(name: str, histories: Sequence[pd.DataFrame]) -> list[Markup]:
    """Draw training loss and validation accuracy by epoch, a line per seed; name: see svg."""
    panels, made = list[Markup](), [_panel(2.0, 0.7, 0.15) for _ in range(2)]
    loss, accuracy = (axes for _, (axes,) in made)
    style.draw_curves(loss, accuracy, histories)
    titles = ("Training loss", "Validation accuracy")
    for what, (figure, (axes,)) in zip(titles, made, strict=True):
        axes.set_title(what)
        lines = [(str(line.get_label()), line) for line in axes.lines]
        if len(named := dict(lines)) > 1:
            axes.legend([*named.values()], [*named])
        numbers = (f"{n}: {np.round(np.asarray(it.get_ydata()), 3).tolist()}" for n, it in lines)
        says = f"{what} by epoch. {'; '.join(numbers)}."
        panels.append(svg(figure, f"{name}-{len(panels)}", says))
    return panels


@style.drawing
def depth_figure(scores: pd.DataFrame) -> PageFigure:
    """Draw test accuracy by the share of stages trained, a panel per task.

    scores: a row per network and task: task, label (of its line), share, accuracy, low, high.
    """
    by_task = {it: ours for it in TASKS if len(ours := scores[scores["task"] == it])}
    limits = same_width([(ours["low"].min(), ours["high"].max()) for ours in by_task.values()])
    panels = []
    for (task, ours), its_limits in zip(by_task.items(), limits, strict=True):
        figure, (axes,) = _panel(2.0, 0.6, 0.15, below=0.19 * ours["label"].nunique())
        title, says = TASK_TITLES[task].capitalize(), []
        axes.set_prop_cycle(LINE_STYLES)
        for label, line in ours.groupby("label", sort=False):
            (drawn,) = axes.plot(line["share"], line["accuracy"], marker="o", ms=4, label=label)
            colour = drawn.get_color()
            axes.vlines(line["share"], line["low"], line["high"], color=colour, linewidth=1)
            says.append(f"{label}: {', '.join(map(percent, line['accuracy']))}")
        axes.set(title=title, xlabel="share of stages trained", ylim=its_limits)
        axes.set_xticks([0.0, 0.5, 1.0], ["frozen", "half", "full"])
        axes.yaxis.set_major_formatter(style.percent_ticks())
        figure.legend(loc="lower left", borderpad=0)
        said = f"{title}, percent, by share of stages trained. {'; '.join(says)}."
        panels.append(svg(figure, f"depth-lines-{task}", said))
    caption = "Test accuracy with its 95 % interval, from a frozen backbone to a fully trained one."
    return PageFigure("Accuracy by unfreezing depth", caption, tuple(panels))


@style.drawing
def cost_panel(name: str, heading: str, networks: pd.DataFrame, x_title: str) -> Markup:
    """Draw scores against a cost on a logarithmic axis, and the Pareto front as a line of steps.

    networks: label, cost (ascending), score and on_front, by the number that names one in the table
    beside.
    """
    figure, (axes,) = _panel(2.4, left=0.6, right=0.25, grid="both")
    axes.set_xscale("log")
    front = networks[networks["on_front"]]
    costs = [*front["cost"], networks["cost"].max() * 1.3]
    scores = [*front["score"], front["score"].iloc[-1]]
    axes.step(costs, scores, where="post", color=style.COLOURS["age_group"], linewidth=1.5)
    axes.plot(networks["cost"], networks["score"], "o", color=style.INK, ms=5)
    axes.margins(x=0.1, y=0.15)
    # Networks whose marks lie on each other share a label.
    marks = axes.transData.transform(networks[["cost", "score"]].to_numpy())
    places = np.round(axes.transAxes.inverted().transform(marks) * (25, 18))
    for _, ours in networks.groupby([*places.T], sort=False):
        at, words = ours[["cost", "score"]].to_numpy()[0], ", ".join(map(str, ours.index))
        axes.annotate(words, at, (5, 4), textcoords="offset points")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
    axes.yaxis.set_major_formatter(style.percent_ticks())
    axes.set(title=heading, xlabel=x_title)
    named = zip(front["label"], front["score"], strict=True)
    best = ", ".join(f"{label} ({percent(score)} %)" for label, score in named)
    says = f"{heading}: {len(networks)} networks, score against {x_title}. On the front: {best}."
    return svg(figure, name, says)


def heat_map(group: RunGroup, task: TaskName) -> Table:
    """Show a task's accuracy by gender and race, averaged over seeds; a cell has its colour as
    style, and the colour's strength in percent as value."""
    subgroups = pd.concat([run.record.subgroups() for run in group.runs])
    rates = subgroups[subgroups["task"] == task].groupby("group")[["n", "accuracy"]].mean()
    ours = rates.to_dict("index")

    def cell(name: str) -> Cell:
        n, rate, overall = ours[name]["n"], ours[name]["accuracy"], ours["all"]["accuracy"]
        if n == 0:
            return Cell(value=0, style="empty")
        if n < SMALL_GROUP:
            return Cell(f"{percent(rate)}*", f"{n:.0f}", 0, style="small")
        strength = round(70 * min(abs(rate - overall) / FULL_COLOUR, 1))
        return Cell(percent(rate), f"{n:.0f}", strength, style="low" if rate < overall else "high")

    genders, races = CLASS_NAMES["gender"], CLASS_NAMES["race"]
    rows = [[Cell(it), *(cell(f"{it} {race}") for race in races), cell(it)] for it in genders]
    rows.append([Cell("all"), *map(cell, races), cell("all")])
    caption = (
        "Red: lower than of all faces; blue: higher. Small: number of faces. "
        f"* Under {SMALL_GROUP} faces: hatched, not ranked."
    )
    title = f"{TASK_TITLES[task].capitalize()} accuracy by gender and race, %"
    return Table.of(["", *races, "all"], rows, title, (caption,))


def confusion_matrix(predictions: RunPredictions, task: TaskName) -> Table:
    """Show the shares of each true class's faces by predicted class, averaged over seeds."""
    predictions = predictions.labelled(task)
    truth, names = predictions.faces[task].to_numpy(dtype=np.int64), CLASS_NAMES[task]
    each = [confusion(truth, one, n_classes(task)) for one in predictions.predicted[task]]
    rows: list[list[str | Cell]] = []
    for name, counts in zip(names, np.mean(each, axis=0), strict=True):
        n, cells = counts.sum(), [Cell(value=0, style="empty")] * len(names)
        for column, share in enumerate(counts / n if n else ()):
            style = "right" if column == len(rows) else "share"
            cells[column] = Cell(f"{100 * share:.0f}", "", round(75 * share), style=style)
        rows.append([f"{name} ({n:,.0f})", *cells])
    title = f"{TASK_TITLES[task].capitalize()}: confusion matrix, % of the true class"
    caption = "Rows: the label, and its test faces; columns: predicted. Framed: correct."
    return Table.of(["", *names], rows, title, (caption,))
