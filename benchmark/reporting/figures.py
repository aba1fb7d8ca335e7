"""Figures of the report and of the studies: intervals, lines, accuracy against cost.

A panel is as wide as a phone, so that its text can be read there; a wide screen shows several side
by side. One meaning per mark: hollow is a difference that is not significant, a red diamond is
LEAKY, a colour is a task (or a line that is named beneath). The panels of a figure have scales of
one width in percentage points. A screen reader gets the numbers.
"""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.comparison.wording import (
    StudyPanel,
    StudyPicture,
    percent,
    points,
    points_span,
    span,
)
from benchmark.evaluation.figures import (
    COLOURS,
    FAINT,
    INK,
    PAPER,
    as_svg,
    finish,
    new_figure,
    percent_ticks,
    pp_ticks,
)
from benchmark.evaluation.intervals import cluster_bootstrap, confusion, wilson
from benchmark.evaluation.predictions import RunPredictions
from benchmark.evaluation.subgroups import SMALL_GROUP, By, group_codes, group_names
from benchmark.reporting.tables import Cell, Table
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TaskName, n_classes

WIDTH: Final = 4.0
"""Inches of a panel: 9 points are then 11 pixels on a phone."""
ROW: Final = 0.42
"""Inches of a row with its label above its mark."""
LABEL_WIDTH: Final = 50
"""Characters of a label's line: what a panel holds."""
FURTHER_LINE: Final = 0.3
"""Rows that each further line of a label takes."""
LEAKY_COLOUR: Final = "#D0342C"
SMALLEST_REACH: Final = 0.05
"""Colours span at least this much accuracy on either side, so that chance stays pale."""
BYS: Final[tuple[By, ...]] = ("gender_race", "gender", "race", "all")
EMPTY: Final = Cell(value=0, style="empty", about="no faces")
HIGHEST_RATE: Final = 1.01
LINE_STYLES: Final = tuple(
    (colour, dash)
    for dash in ("-", "--", ":")
    for colour in ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9")
)


@dataclass(frozen=True)
class PageFigure:
    """Panels under one heading, as SVG that follows the page's light and dark."""

    title: str
    caption: str
    panels: tuple[Markup, ...]


@dataclass(frozen=True)
class Line:
    """Values at places of an axis, with the ends of their intervals where there are any."""

    label: str
    places: Sequence[float]
    values: Sequence[float]
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()


def svg(figure: Figure, name: str, says: str, *, leaky: bool = False) -> Markup:
    """Write a panel for a page; says: what a screen reader reads out; leaky: written across it."""
    if leaky:
        figure.text(0.5, 0.5, "LEAKY", size=44, weight="bold", color=LEAKY_COLOUR, alpha=0.1,
                    rotation=24, ha="center", va="center")  # fmt: skip
    label = escape(f"LEAKY. {says}" if leaky else says)
    head = f'<svg class="plot" role="img" aria-label="{label}"'
    return Markup(as_svg(figure, name).replace("<svg", head, 1))


def common_limits(picture: StudyPicture) -> list[tuple[float, float]]:
    """Give each panel's axis: of rates about its middle, of differences from 0 on; of one width."""
    ends = [(m.low, m.high) for panel in picture.panels for m in panel.marks]
    if picture.of_differences:
        low, high = min(0.0, *(low for low, _ in ends)), max(0.0, *(high for _, high in ends))
        margin = max(0.06 * (high - low), 0.01)
        return [(low - margin, high + margin)] * len(picture.panels)
    of_panels = [[end for m in panel.marks for end in (m.low, m.high)] for panel in picture.panels]
    return same_width([(min(ours), max(ours)) for ours in of_panels])


def same_width(ranges: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Widen ranges of rates about their middles to the widest of them, and a margin."""
    width = max(max(high - low for low, high in ranges) * 1.12, 0.02)
    # No rate is above 1: a range of the common width ends a little after it at most.
    tops = [min((low + high + width) / 2, HIGHEST_RATE) for low, high in ranges]
    return [(top - width, top) for top in tops]


def _labels(panel: StudyPanel) -> list[str]:
    # A no-break space keeps a count with its letter.
    labels = (mark.label.replace(", n ", ", n\N{NO-BREAK SPACE}") for mark in panel.marks)
    return [textwrap.fill(label, LABEL_WIDTH) for label in labels]


def _n_rows(panel: StudyPanel) -> float:
    """Count the rows that a panel takes, with those that labels of several lines add."""
    return sum(1 + FURTHER_LINE * label.count("\n") for label in _labels(panel))


def _draw(
    axes: Axes, panel: StudyPanel, limits: tuple[float, float], labels: Sequence[str], *,
    differences: bool,
) -> None:  # fmt: skip
    """Draw a row per mark: its label above its interval, if it has one, its value at the right."""
    across = axes.get_yaxis_transform()
    row = -1.0
    for label, mark in zip(labels, panel.marks, strict=True):
        row += 1 + FURTHER_LINE * label.count("\n")
        colour = LEAKY_COLOUR if mark.leaky else COLOURS[panel.task]
        axes.plot([mark.low, mark.high], [row, row], color=colour, linewidth=2)
        axes.plot(
            mark.value, row, "D" if mark.leaky else "o", color=colour, ms=6,
            markerfacecolor=colour if mark.filled else PAPER,
        )  # fmt: skip
        axes.text(0, row - 0.24, label, size=9, color=INK, va="bottom", transform=across)
        words = points(mark.value) if differences else f"{percent(mark.value)} %"
        axes.text(1.02, row, words, size=9, color=INK, va="center", transform=across)
    finish(axes, grid="x")
    axes.set_yticks([])
    axes.set_ylim(row + 0.5, -0.75)
    axes.set_xlim(limits)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(pp_ticks() if differences else percent_ticks())
    if differences:
        axes.axvline(0, color=FAINT, linewidth=1.2, zorder=1)
        axes.set_xlabel("percentage points", size=9, color=INK)
    axes.set_title(panel.title, loc="left", size=11, color=INK)


def _panel(
    height: float, left: float = 0.05, right: float = 0.6, below: float = 0.0
) -> tuple[Figure, Axes]:
    """Make a panel; height: of its axes; below: for a legend. Lengths in inches."""
    size = (WIDTH - left - right, height)
    figure, grid = new_figure(size, "", left=left, right=right, top=0.35, below=0.5 + below)
    return figure, grid[0, 0]


def intervals_figure(name: str, picture: StudyPicture) -> PageFigure:
    """Draw rates or differences with their 95 % intervals, a panel per task.

    name: unique on the page.
    """
    leaky = picture.title.startswith("LEAKY")
    panels: list[Markup] = []
    for panel, limits in zip(picture.panels, common_limits(picture), strict=True):
        figure, axes = _panel(ROW * _n_rows(panel) + 0.2)
        _draw(axes, panel, limits, _labels(panel), differences=picture.of_differences)
        numbers = "; ".join(
            f"{mark.label}: {points(mark.value)} pp, {points_span(mark.low, mark.high)}"
            if picture.of_differences
            else f"{mark.label}: {percent(mark.value)}, {percent(mark.low)} to {percent(mark.high)}"
            for mark in panel.marks
        )
        what = "differences in pp" if picture.of_differences else "test accuracy in percent"
        says = f"{panel.title}, {what} with 95 % intervals. {numbers}."
        panels.append(svg(figure, f"{name}-{len(panels)}", says, leaky=leaky))
    return PageFigure(picture.title, picture.caption, tuple(panels))


def study_figure(picture: StudyPicture, dataset: str, *, drawn: bool) -> Figure:
    """Draw a study's panels side by side, for a file; labels that all have stand once, at left."""
    n, rows = len(picture.panels), max(map(_n_rows, picture.panels))
    title = f"{picture.title}\n{dataset}{' (synthetic faces)' if drawn else ''}"
    labels = [_labels(panel) for panel in picture.panels]
    are_shared = n > 1 and labels.count(labels[0]) == n
    size, left, gap = (4.6 * n - 0.7, ROW * rows + 0.2), 0.3, 1.1
    if are_shared:  # A page shows the file so much larger.
        size, left, gap = (2.6 * n - 0.8, 0.38 * len(labels[0])), 3.6, 0.8
    figure, grid = new_figure(
        size, title, columns=n, left=left, right=0.7, below=0.85, gap=(gap, 0.0)
    )
    every = zip(grid[0], picture.panels, common_limits(picture), labels, strict=True)
    for axes, panel, limits, own in every:
        above = [""] * len(own) if are_shared else own
        _draw(axes, panel, limits, above, differences=picture.of_differences)
    if are_shared:
        for axes in grid[0]:
            axes.locator_params(axis="x", nbins=3)
        grid[0, 0].set_yticks(range(len(labels[0])), labels[0], size=9)
        for text, mark in zip(grid[0, 0].get_yticklabels(), picture.panels[0].marks, strict=True):
            text.set_color(LEAKY_COLOUR if mark.leaky else INK)
    width, height = figure.get_size_inches()
    caption = picture.caption.replace("; ", "\n")
    figure.text(0.1 / width, 0.1 / height, caption, va="bottom", size=10, color=INK)
    return figure


def lines_panel(
    name: str,
    heading: str,
    lines: Sequence[Line],
    *,
    x_title: str,
    ticks: Mapping[float, str] | None = None,
    limits: tuple[float, float] | None = None,
    colour: str = "",
    rates: bool = True,
) -> Markup:
    """Draw lines over an axis, named beneath; with `colour` all have it and no name.

    limits: of the values; rates: whether these are fractions, to be written in percent.
    """
    legend = 0.0 if colour else 0.19 * len(lines)
    figure, axes = _panel(2.0, 0.6, 0.15, below=legend)
    for line, (own, dash) in zip(lines, itertools.cycle(LINE_STYLES), strict=False):
        shown = {"color": colour or own, "linestyle": "-" if colour else dash, "linewidth": 1.5}
        axes.plot(line.places, line.values, marker="o", ms=4, label=line.label, **shown)  # type: ignore[arg-type]
        if line.lows:
            axes.vlines(line.places, line.lows, line.highs, color=colour or own, linewidth=1)
    finish(axes)
    if ticks:
        axes.set_xticks(list(ticks), list(ticks.values()))
    else:
        axes.locator_params(axis="x", integer=True)
    if limits:
        axes.set_ylim(limits)
    if rates:
        axes.yaxis.set_major_formatter(percent_ticks())
    axes.set_xlabel(x_title, size=9, color=INK)
    axes.set_title(heading, loc="left", size=11, color=INK)
    if legend:
        figure.legend(loc="lower left", frameon=False, fontsize=9, labelcolor=INK, borderpad=0)
    numbers = "; ".join(
        f"{line.label}: {', '.join(percent(v) if rates else f'{v:.3g}' for v in line.values)}"
        for line in lines
    )
    says = f"{heading}{', percent' if rates else ''}, by {x_title}. {numbers}."
    return svg(figure, name, says)


def depth_figure(lines: Mapping[TaskName, Sequence[Line]]) -> PageFigure:
    """Draw test accuracy by the share of stages trained, a panel per task."""
    ends = [[end for line in ours for end in (*line.lows, *line.highs)] for ours in lines.values()]
    limits = same_width([(min(ours), max(ours)) for ours in ends])
    panels = tuple(
        lines_panel(
            f"depth-lines-{task}", TASK_TITLES[task].capitalize(), ours,
            x_title="share of stages trained", ticks={0.0: "frozen", 0.5: "half", 1.0: "full"},
            limits=its_limits,
        )
        for (task, ours), its_limits in zip(lines.items(), limits, strict=True)
    )  # fmt: skip
    caption = "Test accuracy with its 95 % interval, from a frozen backbone to a fully trained one."
    return PageFigure("Accuracy by unfreezing depth", caption, panels)


def cost_panel(name: str, heading: str, networks: pd.DataFrame, x_title: str) -> Markup:
    """Draw scores against a cost on a logarithmic axis, and the Pareto front as a line of steps.

    networks: label, cost, score and on_front, by the number that names one in the table beside.
    """
    figure, axes = _panel(2.4, left=0.6, right=0.25)
    axes.set_xscale("log")
    front = networks[networks["on_front"]].sort_values("cost", kind="stable")
    costs = [*front["cost"], networks["cost"].max() * 1.3]
    scores = [*front["score"], front["score"].iloc[-1]]
    axes.step(costs, scores, where="post", color=COLOURS["age_group"], linewidth=1.5)
    axes.plot(networks["cost"], networks["score"], "o", color=INK, ms=5)
    finish(axes, grid="both")
    axes.margins(x=0.1, y=0.15)
    # Networks whose marks lie on each other share a label.
    marks = axes.transData.transform(networks[["cost", "score"]].to_numpy())
    places = np.round(axes.transAxes.inverted().transform(marks) * (25, 18))
    for _, ours in networks.groupby([*places.T], sort=False):
        x, y = ours[["cost", "score"]].to_numpy()[0]
        words = ", ".join(map(str, ours.index))
        axes.annotate(words, (x, y), (5, 4), textcoords="offset points", size=9, color=INK)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
    axes.tick_params(axis="x", which="minor", labelsize=9)
    axes.yaxis.set_major_formatter(percent_ticks())
    axes.set_xlabel(x_title, size=9, color=INK)
    axes.set_title(heading, loc="left", size=11, color=INK)
    best = ", ".join(
        f"{label} ({percent(score)} %)"
        for label, score in zip(front["label"], front["score"], strict=True)
    )
    says = f"{heading}: {len(networks)} networks, score against {x_title}. On the front: {best}."
    return svg(figure, name, says)


def heat_map(predictions: RunPredictions, task: TaskName) -> Table:
    """Show a task's accuracy by gender and race; a cell has its colour as style, and the colour's
    strength in percent as value.

    Intervals are Wilson's for one seed, else a cluster bootstrap of seed-averaged correctness.
    """
    predictions = predictions.labelled(task)
    right = predictions.right(task)
    member = np.column_stack(
        [group_codes(predictions.faces, by) == code
         for by in BYS for code in range(len(group_names(by)))]
    )  # fmt: skip
    n_faces = member.sum(axis=0).astype(int)
    values = np.where(member, right.mean(axis=0)[:, None], np.nan)
    rates = np.nansum(values, axis=0) / np.maximum(n_faces, 1)
    if len(right) == 1:
        low, high = wilson((right[0][:, None] & member).sum(axis=0), n_faces)
    else:
        low, high = cluster_bootstrap(values, predictions.faces["cluster"].to_numpy())
    shades = np.where(n_faces >= SMALL_GROUP, rates - rates[-1], 0.0)
    reach = max(SMALLEST_REACH, float(np.abs(shades).max(initial=0.0)))
    cells = []
    for n, rate, shade, *ends in np.column_stack([n_faces, rates, shades, low, high]).tolist():
        if n == 0:
            cells.append(EMPTY)
            continue
        is_small = n < SMALL_GROUP
        colour = "small" if is_small else "low" if shade < 0 else "high"
        text, strength = percent(rate) + "*" * is_small, round(70 * abs(shade) / reach)
        cells.append(Cell(text, f"{n:.0f}", strength, style=colour, about=span(*ends)))
    # They are in the order of BYS: gender and race, gender, race, all.
    races, genders = n_classes("race"), n_classes("gender")
    both, ours, others = np.split(np.arange(len(cells)), [genders * races, genders * (races + 1)])
    places = [*np.column_stack([both.reshape(genders, races), ours]), others]
    caption = (
        "Red: lower than of all faces; blue: higher. Small: number of faces. "
        f"* Under {SMALL_GROUP} faces: hatched, not ranked."
    )
    names = (*CLASS_NAMES["gender"], "all")
    rows = ([name, *(cells[i] for i in row)] for name, row in zip(names, places, strict=True))
    title = f"{TASK_TITLES[task].capitalize()} accuracy by gender and race, %"
    return Table.of(["", *CLASS_NAMES["race"], "all"], rows, title, (caption,))


def confusion_matrix(predictions: RunPredictions, task: TaskName) -> Table:
    """Show the shares of each true class's faces by predicted class, averaged over seeds."""
    predictions = predictions.labelled(task)
    truth, names = predictions.faces[task].to_numpy(dtype=np.int64), CLASS_NAMES[task]
    each = [confusion(truth, one, n_classes(task)) for one in predictions.predicted[task]]
    rows: list[list[Any]] = []
    for at, (name, counts) in enumerate(zip(names, np.mean(each, axis=0), strict=True)):
        n = int(counts.sum())
        cells = [EMPTY] * len(names)
        for column, share in enumerate(counts / n if n else ()):
            colour, strength = "right" if at == column else "share", round(75 * float(share))
            cells[column] = Cell(f"{100 * share:.0f}", "", strength, style=colour)
        rows.append([f"{name} ({n:,})", *cells])
    title = f"{TASK_TITLES[task].capitalize()}: confusion matrix, % of the true class"
    caption = "Rows: the label, and its test faces; columns: predicted. Framed: correct."
    return Table.of(["", *names], rows, title, (caption,))
