"""Pictures of one run: confusion matrix, learning curves; and how every picture is written.

Each function gives a matplotlib Figure, made without pyplot and its global state; `write_png`
writes one. The numbers come from benchmark.results.metrics and are only drawn here. Subgroups,
calibration and label suspects are drawn in modules of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from benchmark.files import replacing
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
