"""Pictures of one run: confusion matrix, learning curves, accuracy by subgroup.

Each function gives a matplotlib Figure, made without pyplot and its global state; `write_png`
writes one. The numbers come from benchmark.results.metrics and are only drawn here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from benchmark.files import replacing
from benchmark.results.subgroups import BYS, SMALL_GROUP, By
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TaskName

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

BY_TITLES: Final[dict[By, str]] = {
    "all": "all",
    "age_group": "age group",
    "gender": "gender",
    "race": "race",
    "gender_race": "gender × race",
}


@dataclass(frozen=True)
class Caption:
    """What every picture says of where it comes from."""

    experiment: str
    dataset: str
    drawn: bool
    """True for drawn faces, which say nothing of people."""

    def under(self, title: str) -> str:
        """Write the title: what is shown, then experiment and data set, each on its line."""
        faces = " (drawn faces)" if self.drawn else ""
        return f"{title}\n{self.experiment}\n{self.dataset}{faces}"


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure atomically; equal figures give equal bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def _percent() -> PercentFormatter:
    return PercentFormatter(xmax=1, decimals=0, symbol=" %")


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
    _finish_cells(axes, names, [f"{name}\nn {n:,}" for name, n in zip(names, totals, strict=True)])
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=_percent())
    bar.set_label("share of the true class", size=11)
    bar.outline.set_visible(False)
    right = f"{100 * np.trace(matrix) / n_faces:.1f} % of {n_faces:,}" if n_faces else "none of 0"
    title = f"{TASK_TITLES[task].capitalize()}: {right} test faces right"
    figure.suptitle(caption.under(title), size=12, color=INK)
    return figure


def _finish_cells(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
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
    accuracy_axes.yaxis.set_major_formatter(_percent())
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


def subgroups_figure(
    subgroups: pd.DataFrame,
    caption: Caption,
    *,
    task: TaskName = "age_group",
    divisions: Sequence[By] | None = None,
) -> Figure:
    """Draw a task's accuracy with its 95 % interval in every subgroup, beside the overall one.

    subgroups: as Scores.subgroups. Groups of under 30 faces are hollow; empty ones say so.
    divisions: all but the task's own classes if left out; for age group these are gender, race
    and gender x race.
    """
    if divisions is None:
        divisions = [by for by in BYS if by not in ("all", task)]
    ours = subgroups[subgroups["task"] == task]
    overall = ours[ours["by"] == "all"].iloc[0]
    parts = [ours[ours["by"] == by] for by in divisions]
    heights = [len(part) for part in parts]
    figure = Figure(figsize=(9, 1.6 + 0.36 * sum(heights) + 0.4 * len(parts)), layout="constrained")
    panels = figure.subplots(
        len(parts), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    for axes, by, part in zip(panels, divisions, parts, strict=True):
        axes.axvspan(overall["low"], overall["high"], color="#E3E3E3", linewidth=0, zorder=0)
        axes.axvline(overall["accuracy"], color=FAINT, linewidth=1.2, zorder=1)
        _draw_groups(axes, part, COLOURS[task])
        axes.set_title(f"by {BY_TITLES[by]}", loc="left", size=11, color=INK, weight="bold")
    small = ours["by"].isin(divisions) & (ours["n"] < SMALL_GROUP)
    hollow = f"\nhollow: under {SMALL_GROUP} faces, not ranked" if small.any() else ""
    panels[-1].xaxis.set_major_formatter(_percent())
    panels[-1].set_xlabel(
        f"{TASK_TITLES[task]} accuracy on test faces, with 95 % interval\n"
        f"grey: all {int(overall['n']):,} faces, {100 * overall['accuracy']:.1f} %{hollow}",
        size=11,
    )
    title = f"{TASK_TITLES[task].capitalize()}: for whom is it right?"
    figure.suptitle(caption.under(title), size=12, color=INK)
    return figure


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
        axes.plot(accuracy, row, "o", color=colour, markerfacecolor=fill, ms=8, zorder=3)
        for x, text in ((1.11, f"{100 * accuracy:.1f} %"), (1.21, f"n {int(n):,}")):
            axes.text(x, row, text, size=10, color=INK, va="center", ha="right", transform=beside)
    axes.set_yticks(range(len(groups)), list(groups["group"]), size=11)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(axis="x", color="#EEEEEE", zorder=0)
    axes.tick_params(length=0, labelsize=11)
    axes.spines[:].set_visible(False)
