"""For whom is it right? Accuracy by group of people, as dots with intervals and as a heat map.

The numbers come from benchmark.results.subgroups and gaps and are only drawn here.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from benchmark.results.figures import (
    COLOURS,
    FAINT,
    INK,
    Caption,
    finish_cells,
    percent_ticks,
)
from benchmark.results.subgroups import BYS, SMALL_GROUP, By
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TaskName, n_classes

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
