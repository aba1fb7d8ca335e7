"""Figures of one run: confusion, curves, calibration, subgroups, possible label errors.

The contact sheet of label suspects: the faces themselves, beside what label and network say.

It shows people. It is kept with the run and in MLflow, and belongs on no page and in no repository.

Pictures of one run: confusion matrix, learning curves; and how every picture is written.

Each function gives a matplotlib Figure, made without pyplot and its global state; `write_png`
writes one. The numbers come from benchmark.evaluation.metrics and are only drawn here. Subgroups,
calibration and label suspects are drawn in modules of their own.

Can its probabilities be taken at their word? The reliability diagram of one task.

The numbers come from benchmark.evaluation.calibration and are only drawn here.

For whom is it right? Accuracy by group of people, as dots with intervals and as a heat map.

The numbers come from benchmark.evaluation.subgroups and gaps and are only drawn here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from benchmark.evaluation.calibration import AS_PREDICTED, TEMPERED, Calibration
from benchmark.evaluation.subgroups import BYS, SMALL_GROUP, By
from benchmark.evaluation.suspects import CAUTION
from benchmark.files import replacing
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TASKS, TaskName, n_classes

DPI: Final = 150
INK: Final = "#222222"
FAINT: Final = "#767676"
COLOURS: Final[dict[str, str]] = {
    "age_group": "#0072B2",
    "gender": "#D55E00",
    "race": "#009E73",
    "combined": INK,
}
"""Blue, vermilion and bluish green are told apart by colour-blind readers too.
Source: M. Okabe, K. Ito, "Color Universal Design" (2008). Marker and dash differ as well."""
MARKERS: Final[dict[str, str]] = {"age_group": "o", "gender": "s", "race": "^", "combined": "D"}

LOSS_COLOURS: Final = (INK, "#CC79A7", "#E69F00", "#56B4E9")
LOSS_DASHES: Final = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Caption:
    """What every picture says of where it comes from."""

    experiment: str
    dataset: str
    drawn: bool
    """True for drawn faces, which say nothing of people."""
    leaky: bool = False
    """True where test faces were seen in training: then every title says so first."""

    def under(self, title: str) -> str:
        """Write the title: what is shown, then experiment and data set, each on its line."""
        faces = " (drawn faces)" if self.drawn else ""
        return (
            f"{'LEAKY · ' if self.leaky else ''}{title}\n{self.experiment}\n{self.dataset}{faces}"
        )


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure atomically; equal figures give equal bytes.

    The bytes are `savefig`'s, which draws every figure a second time, unseen, to lay it out.
    """
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")
    with replacing(path) as temporary:
        canvas.print_png(  # type: ignore[no-untyped-call]
            temporary, metadata={"Software": None}
        )


def percent_ticks() -> FuncFormatter:
    """Write rates on an axis as percent; ticks between whole percents are not rounded to them."""
    return FuncFormatter(lambda rate, _place: f"{100 * rate:.4g} %".replace("-", "−"))


def confusion_figure(
    matrix: npt.NDArray[np.integer[Any]], task: TaskName, caption: Caption
) -> Figure:
    """Draw counts and row percentages of a confusion matrix, (true class, predicted class)."""
    names, n_faces = CLASS_NAMES[task], int(matrix.sum())
    totals = matrix.sum(axis=1)
    shares = np.divide(
        matrix, totals[:, None], out=np.zeros(matrix.shape), where=totals[:, None] > 0
    )
    side = 2.8 + 0.95 * len(names)
    # Wide enough for the longest experiment's name in the title, however few the classes.
    figure = Figure(figsize=(max(side + 0.9, 6.4), side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        text = f"{100 * shares[row, column]:.1f} %\n{count:,}" if totals[row] else "–\n0"
        colour = "white" if shares[row, column] > 0.62 else INK
        weight = "bold" if row == column else "normal"
        axes.text(column, row, text, ha="center", va="center", color=colour, weight=weight, size=11)
    axes.set_xlabel(f"predicted {TASK_TITLES[task]}", size=12)
    axes.set_ylabel(f"true {TASK_TITLES[task]}", size=12, labelpad=10)
    finish_cells(axes, names, [f"{name}\nn {n:,}" for name, n in zip(names, totals, strict=True)])
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=percent_ticks())
    bar.set_label("share of the true class", size=11)
    bar.outline.set_visible(False)
    right = f"{100 * np.trace(matrix) / n_faces:.1f} % of {n_faces:,}" if n_faces else "none of 0"
    title = f"{TASK_TITLES[task].capitalize()}: {right} test faces right"
    figure.suptitle(caption.under(title), size=12, color=INK)
    return figure


def finish_cells(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Name the cells and draw white lines between them."""
    axes.set_xticks(range(len(columns)), columns, size=11)
    axes.set_yticks(range(len(rows)), rows, size=11)
    axes.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def curves_figure(
    history: pd.DataFrame, caption: Caption, *, selected_epoch: int | None = None
) -> Figure:
    """Draw loss and validation accuracy by epoch.

    history: a row per epoch; every column `…/loss`, every `val/<task>/accuracy` and
    `val/combined` that is there is drawn. Epochs are numbered as the column `epoch` has them,
    from 1 without one; the selected one is marked.
    """
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    epochs = history["epoch"] if "epoch" in history else np.arange(1, len(history) + 1)
    losses = [str(name) for name in history.columns if str(name).endswith("/loss")]
    for name, colour, dash in zip(losses, LOSS_COLOURS, LOSS_DASHES, strict=False):
        label = {"train/loss": "training", "val/loss": "validation"}.get(name, name)
        loss_axes.plot(epochs, history[name], dash, color=colour, marker="o", ms=4, label=label)
    loss_axes.set_ylabel("loss", size=12)
    for key, colour in COLOURS.items():
        name = "val/combined" if key == "combined" else f"val/{key}/accuracy"
        if name in history:
            dash = "--" if key == "combined" else "-"
            label = key.replace("_", " ")
            accuracy_axes.plot(
                epochs, history[name], dash, color=colour, marker=MARKERS[key], ms=5, label=label
            )
    accuracy_axes.set_ylabel("validation accuracy", size=12)
    accuracy_axes.yaxis.set_major_formatter(percent_ticks())
    for axes in (loss_axes, accuracy_axes):
        _finish_curves(axes, selected_epoch)
    figure.suptitle(caption.under("Loss and validation accuracy by epoch"), size=12, color=INK)
    return figure


def _finish_curves(axes: Axes, selected_epoch: int | None) -> None:
    if selected_epoch is not None:
        axes.axvline(selected_epoch, color=FAINT, linestyle=":", label="selected epoch", zorder=0)
    axes.set_xlabel("epoch", size=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#E5E5E5")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=11)


def reliability_figure(calibration: Calibration, caption: Caption, *, task: TaskName) -> Figure:
    """Draw accuracy against probability in bins, with 95 % intervals, and the faces per bin.

    Dots: the probabilities as predicted. Crosses: at the temperature fitted on validation. Below
    the diagonal a network is surer than it is right.
    """
    table = calibration.reliability
    figure = Figure(figsize=(7, 7.6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.4, 1]})
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", zorder=0)
    before, after = (
        table[(table["probabilities"] == name) & (table["n"] > 0)]
        for name in (AS_PREDICTED, TEMPERED)
    )
    _draw_bins(axes, before, COLOURS[task])
    axes.plot(
        before["confidence"], before["accuracy"], "o", color=COLOURS[task], ms=7, zorder=3,
        label=f"as predicted: error {100 * calibration.error['test']:.1f} points",
    )  # fmt: skip
    if len(after):
        axes.plot(
            after["confidence"], after["accuracy"], "x", color=INK, ms=7, mew=1.6, zorder=4,
            label=f"at temperature {calibration.temperature:.2f}: "
            f"error {100 * calibration.error_tempered['test']:.1f} points",
        )  # fmt: skip
    by_chance = 100 * (calibration.by_chance or 0.0)
    axes.plot([], [], " ", label=f"were it right as often as sure: {by_chance:.1f} by chance")
    axes.set_ylabel("share that is right, with 95 % interval", size=12)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=11, loc="upper left")
    axes.yaxis.set_major_formatter(percent_ticks())
    _draw_counts(below, before, COLOURS[task])
    for panel in (axes, below):
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=11)
        panel.grid(axis="y", color="#E5E5E5")
        panel.set_axisbelow(True)
    title = f"{TASK_TITLES[task].capitalize()}: is it right as often as it is sure?"
    figure.suptitle(caption.under(title), size=12, color=INK)
    return figure


def _draw_bins(axes: Axes, bins: pd.DataFrame, colour: str) -> None:
    errors = np.array(
        [bins["accuracy"] - bins["low"], bins["high"] - bins["accuracy"]], dtype=np.float64
    )
    # Rounding can put an end of the interval a hair on the wrong side of the rate itself.
    errors = np.maximum(errors, 0.0)
    axes.errorbar(
        bins["confidence"], bins["accuracy"], yerr=errors, fmt="none", ecolor=colour, zorder=2
    )


def _draw_counts(axes: Axes, bins: pd.DataFrame, colour: str) -> None:
    width = bins["bin_high"] - bins["bin_low"]
    bars = axes.bar(bins["bin_low"], bins["n"], width=0.92 * width, align="edge", color=colour)
    axes.bar_label(bars, labels=[f"{n:,}" for n in bins["n"]], size=8, color=INK, padding=1)
    axes.set_xlim(0, 1)
    axes.margins(y=0.18)
    axes.set_ylabel("faces", size=12)
    axes.set_xlabel("probability of the predicted class", size=12)
    axes.xaxis.set_major_formatter(percent_ticks())


BY_TITLES: Final[dict[By, str]] = {
    "all": "all",
    "age_group": "age group",
    "gender": "gender",
    "race": "race",
    "gender_race": "gender × race",
}
SMALLEST_SCALE: Final = 0.05
"""The heat map's colours span at least this much accuracy on either side of the mean, so that
differences within chance stay pale."""


def subgroups_figure(
    subgroups: pd.DataFrame, gaps: pd.DataFrame, caption: Caption, *, task: TaskName = "age_group"
) -> Figure:
    """Draw a task's accuracy with its 95 % interval in every group, beside the overall one.

    subgroups, gaps: as Scores has them. Groups of under 30 faces are hollow; empty ones say so.
    The task's own classes come last: how well a class is read is its recall. Over each division
    stands the gap, and the gap that chance alone would give.
    """
    others: list[By] = [by for by in BYS if by not in ("all", task)]
    divisions: list[By] = [*others, task]
    ours = subgroups[subgroups["task"] == task]
    overall = ours[ours["by"] == "all"].iloc[0]
    parts = [ours[ours["by"] == by] for by in divisions]
    heights = [len(part) for part in parts]
    figure = Figure(figsize=(9, 1.9 + 0.34 * sum(heights) + 0.4 * len(parts)), layout="constrained")
    panels = figure.subplots(
        len(parts), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, by, part in zip(panels, divisions, parts, strict=True):
        axes.axvspan(overall["low"], overall["high"], color="#E3E3E3", linewidth=0, zorder=0)
        axes.axvline(overall["accuracy"], color=FAINT, linewidth=1.2, zorder=1)
        _draw_groups(axes, part, COLOURS[task])
        recall = " (recall of its classes)" if by == task else ""
        axes.set_title(f"by {BY_TITLES[by]}{recall}", loc="left", size=11, color=INK, weight="bold")
        axes.set_title(_gap_text(gaps, task, by), loc="right", size=10, color=FAINT)
    small = (ours["n"] > 0) & (ours["n"] < SMALL_GROUP)
    hollow = f" · hollow: under {SMALL_GROUP} faces, not ranked" if small.any() else ""
    panels[-1].xaxis.set_major_formatter(percent_ticks())
    panels[-1].set_xlabel(
        f"{TASK_TITLES[task]} accuracy on test faces, with 95 % interval\n"
        f"grey: all {int(overall['n']):,} faces, {100 * overall['accuracy']:.1f} %{hollow}\n"
        "by chance: the mean gap when faces are dealt to the groups at random",
        size=11,
    )
    title = f"{TASK_TITLES[task].capitalize()}: for whom is it right?"
    figure.suptitle(caption.under(title), size=12, color=INK)
    return figure


def _gap_text(gaps: pd.DataFrame, task: TaskName, by: By) -> str:
    """Say how far apart worst and best are, in points, and what chance does."""
    row = gaps[(gaps["task"] == task) & (gaps["by"] == by)].iloc[0]
    if row["n_ranked"] < 2:
        return "too few groups to rank"
    gap, low, high, chance = (
        100 * float(row[name]) for name in ("gap", "gap_low", "gap_high", "chance_gap")
    )
    return f"gap {gap:.1f} points ({low:.1f}–{high:.1f}), by chance {chance:.1f}"


def _draw_groups(axes: Axes, groups: pd.DataFrame, colour: str) -> None:
    """Draw one row per group, first on top: interval, dot, accuracy and count."""
    beside = axes.get_yaxis_transform()
    for row in range(len(groups)):
        n, accuracy, low, high = (
            float(groups[column].iloc[row]) for column in ("n", "accuracy", "low", "high")
        )
        if n == 0:
            axes.text(1.03, row, "no faces", size=10, color=FAINT, va="center", transform=beside)
            continue
        ranked = n >= SMALL_GROUP
        axes.plot([low, high], [row, row], color=colour, linewidth=2 if ranked else 1, zorder=2)
        fill = colour if ranked else "white"
        axes.plot(accuracy, row, "o", color=colour, markerfacecolor=fill, ms=7, zorder=3)
        for x, text in ((1.12, f"{100 * accuracy:.1f} %"), (1.23, f"n {int(n):,}")):
            axes.text(x, row, text, size=10, color=INK, va="center", ha="right", transform=beside)
    axes.set_yticks(range(len(groups)), list(groups["group"]), size=11)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(axis="x", color="#EEEEEE", zorder=0)
    axes.tick_params(length=0, labelsize=11)
    axes.spines[:].set_visible(False)


def heat_map_figure(
    subgroups: pd.DataFrame, gaps: pd.DataFrame, caption: Caption, *, task: TaskName = "age_group"
) -> Figure:
    """Draw a task's accuracy in every gender × race, with its interval and count in each cell.

    subgroups, gaps: as Scores has them. The colour is the difference to the accuracy of all faces.
    Groups of under 30 faces are hatched and have no colour; empty ones say so.
    """
    cells = _crossed(subgroups[subgroups["task"] == task])
    overall = float(cells["accuracy"][-1, -1])
    shown = np.where(cells["n"] >= SMALL_GROUP, cells["accuracy"] - overall, np.nan)
    reach = max(SMALLEST_SCALE, float(np.nanmax(np.abs(shown), initial=0.0)))
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shown, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto")
    for row, column in np.ndindex(*shown.shape):
        values = {name: float(table[row, column]) for name, table in cells.items()}
        pale = np.isnan(shown[row, column]) or abs(shown[row, column]) < 0.65 * reach
        _draw_cell(axes, (column, row), values, INK if pale else "white")
    columns, rows = (*CLASS_NAMES["race"], "all"), (*CLASS_NAMES["gender"], "all")
    finish_cells(axes, columns, rows)
    for place, draw in ((len(columns) - 1.5, axes.axvline), (len(rows) - 1.5, axes.axhline)):
        draw(place, color=INK, linewidth=1.2)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=FuncFormatter(_points))
    bar.set_label("difference to all faces, in points", size=11)
    bar.outline.set_visible(False)
    hatched = (cells["n"] > 0) & (cells["n"] < SMALL_GROUP)
    small = f" · hatched: under {SMALL_GROUP} faces, not ranked" if hatched.any() else ""
    axes.set_xlabel(
        f"{TASK_TITLES[task]} accuracy on test faces, 95 % interval, number of faces{small}\n"
        f"{_gap_text(gaps, task, 'gender_race')}",
        size=11,
        labelpad=8,
    )
    title = f"{TASK_TITLES[task].capitalize()}: right for whom, by gender × race"
    figure.suptitle(caption.under(title), size=12, color=INK)
    return figure


def _crossed(ours: pd.DataFrame) -> dict[str, npt.NDArray[np.float64]]:
    """Lay a task's groups out as genders and all (rows) by races and all (columns)."""
    genders, races = n_classes("gender"), n_classes("race")
    laid_out = {}
    for name in ("accuracy", "low", "high", "n"):
        values = {by: ours[ours["by"] == by][name].to_numpy(dtype=np.float64) for by in BYS}
        table = np.empty((genders + 1, races + 1))
        table[:-1, :-1] = values["gender_race"].reshape(genders, races)
        table[:-1, -1], table[-1, :-1] = values["gender"], values["race"]
        table[-1, -1] = values["all"][0]
        laid_out[name] = table
    return laid_out


def _draw_cell(axes: Axes, place: tuple[int, int], values: dict[str, float], colour: str) -> None:
    if values["n"] == 0:
        axes.text(*place, "no faces", ha="center", va="center", size=11, color=FAINT)
        return
    if values["n"] < SMALL_GROUP:
        corner = (place[0] - 0.5, place[1] - 0.5)
        hatch: dict[str, Any] = {"fill": False, "hatch": "///", "edgecolor": "#DDDDDD"}
        axes.add_patch(Rectangle(corner, 1, 1, linewidth=0, **hatch))
    shift = 0.2
    rate = f"{100 * values['accuracy']:.1f} %"
    span = f"{100 * values['low']:.1f}–{100 * values['high']:.1f}"
    lines = ((-shift, rate, 14, "bold"), (0.04, span, 10, "normal"))
    for offset, text, size, weight in (
        *lines,
        (shift + 0.06, f"n {values['n']:,.0f}", 10, "normal"),
    ):
        axes.text(
            place[0], place[1] + offset, text, size=size, weight=weight, color=colour,
            ha="center", va="center",
        )  # fmt: skip


def _points(difference: float, _: int) -> str:
    points = round(100 * difference)
    return f"{points:+d}" if points else "0"


FACES_PER_TASK: Final = 16
FACES_PER_ROW: Final = 8
FACE: Final = 1.4
CELL: Final = (1.5, 1.8)
"""Inches: the side of a face; width and height of a face with its two lines of text."""
TITLE: Final = 1.0
HEADING: Final = 0.35
"""Inches above all faces, and above those of each task."""


def contact_sheet(
    suspects: pd.DataFrame,
    pictures: Callable[[Sequence[str]], npt.NDArray[np.uint8]],
    caption: Caption,
) -> Figure:
    """Show the surest suspects of each task with stated and contradicting class.

    suspects: as label_suspects gives them. pictures: gives (n, px, px, 3) RGB by file name.
    """
    shown: dict[TaskName, pd.DataFrame] = {}
    for task in TASKS:
        ours = suspects[suspects["task"] == task].head(FACES_PER_TASK)
        if len(ours):
            shown[task] = ours
    n_rows = {task: -(-len(ours) // FACES_PER_ROW) for task, ours in shown.items()}
    width = CELL[0] * FACES_PER_ROW
    height = TITLE + sum(HEADING + CELL[1] * rows for rows in n_rows.values())
    # One panel measured in inches: laying out a panel per face takes a second and more.
    figure = Figure(figsize=(width, height + (0 if shown else 0.5)))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    title = caption.under("Label suspects: the test faces whose label is contradicted most surely")
    nothing = "" if shown else "\nNo label is contradicted surely."
    axes.text(
        width / 2, 0.08, f"{title}\n{CAUTION}{nothing}", ha="center", va="top", size=11, color=INK
    )
    top = TITLE
    for task, ours in shown.items():
        heading = TASK_TITLES[task].capitalize()
        axes.text(0.05, top + 0.22, heading, size=12, weight="bold", color=COLOURS[task])
        _draw_faces(axes, ours, pictures(list(ours["file"])), top + HEADING)
        top += HEADING + CELL[1] * n_rows[task]
    axes.set_xlim(0, width)
    axes.set_ylim(figure.get_figheight(), 0)
    axes.set_axis_off()
    return figure


def _draw_faces(
    axes: Axes, suspects: pd.DataFrame, images: npt.NDArray[np.uint8], top: float
) -> None:
    for place, suspect in enumerate(suspects.to_dict("records")):
        left = CELL[0] * (place % FACES_PER_ROW) + (CELL[0] - FACE) / 2
        upper = top + CELL[1] * (place // FACES_PER_ROW) + (CELL[1] - FACE - 0.05)
        axes.imshow(images[place], extent=(left, left + FACE, upper + FACE, upper))
        age = f" ({suspect['age']} years)" if suspect["task"] == "age_group" else ""
        axes.text(
            left + FACE / 2,
            upper - 0.03,
            f"label {suspect['label']}{age}\n"
            f"read {suspect['contradicted_by']} {100 * suspect['probability']:.0f} %",
            ha="center",
            va="bottom",
            size=8,
            color=INK,
        )
