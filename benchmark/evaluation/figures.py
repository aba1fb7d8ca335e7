"""Figures of one run, and how every figure of facebench looks and is written.

Each function gives a matplotlib Figure, made without pyplot and its global state. Margins are given
in inches: laying out text by constraint takes longer than drawing it. Numbers come from metrics.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from benchmark.evaluation.calibration import Calibration
from benchmark.evaluation.metrics import Scores
from benchmark.evaluation.subgroups import SMALL_GROUP, By
from benchmark.files import replacing
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TASKS, TaskName

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

DPI: Final = 100
INK: Final = "#222222"
FAINT: Final = "#767676"
GRID: Final = "#E5E5E5"
PAPER: Final = "#FFFFFF"
COLOURS: Final = {"age_group": "#0072B2", "gender": "#D55E00", "race": "#009E73", "combined": INK}
"""Blue, vermilion and bluish green differ for colour-blind readers too; markers differ as well.
Source: M. Okabe, K. Ito, "Color Universal Design" (2008)."""
MARKERS: Final = {"age_group": "o", "gender": "s", "race": "^", "combined": "D"}
LOOK: Final[dict[Any, Any]] = {
    "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.titlelocation": "left",
    "axes.titlesize": 11, "axes.axisbelow": True, "legend.frameon": False,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
}  # fmt: skip
drawing: Final = mpl.rc_context(LOOK)
"""Decorates a function that draws."""
BY_TITLES: Final[dict[By, str]] = {
    "all": "all",
    "age_group": "age group",
    "gender": "gender",
    "race": "race",
    "gender_race": "gender × race",
}
ROWS_BY: Final[tuple[By, ...]] = ("gender", "race", "gender_race", "age_group")


def caption_of(experiment: str, dataset: str, *, drawn: bool, leaky: bool) -> str:
    """Say below a figure's title where it comes from; leaky: test faces were seen in training."""
    return f"{'LEAKY · ' * leaky}{experiment}\n{dataset}{' (synthetic faces)' * drawn}"


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure atomically; equal figures give equal bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def percent_ticks() -> FuncFormatter:
    """Write rates on an axis as percent; ticks between whole percents are not rounded to them."""
    return FuncFormatter(lambda rate, _place: f"{100 * rate:.4g} %".replace("-", "−"))


def pp_ticks() -> FuncFormatter:
    """Write differences of rates on an axis in percentage points, with their sign."""
    return FuncFormatter(
        lambda rate, _place: f"{100 * rate:+.4g}".replace("-", "−") if round(rate, 6) else "0"
    )


def finish(axes: Axes, grid: str = "y") -> None:
    """Show no ticks, and the grid of an axis (x, y, both) or, for '', none."""
    axes.tick_params(colors=INK, which="both", length=0)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]


@drawing
def new_figure(
    panels: tuple[float, float], title: str, n: int = 1, *, left: float = 0.8, right: float = 0.3,
    top: float = 1.0, below: float = 0.6, gap: float = 0.5, grid: str = "y",
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Make a figure with n axes beside each other, as wide as `ratios` say; all lengths in inches,
    `panels` of all panels with their gaps."""
    width, height = panels[0] + left + right, panels[1] + top + below
    figure = Figure(figsize=(width, height))
    axes = list(figure.subplots(1, n, squeeze=False, width_ratios=ratios)[0])
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=below / height,
        top=1 - top / height,
        wspace=gap * n / (panels[0] - (n - 1) * gap),
    )
    for panel in axes:
        finish(panel, grid)
    figure.text(0.1 / width, 1 - 0.1 / height, title, va="top", size=11)
    return figure, axes


def draw_interval(
    axes: Axes, row: float, ends: tuple[float, float, float], colour: str, *, filled: bool = True,
    marker: str = "o",
) -> None:  # fmt: skip
    """Draw a value on a line from one end of its interval to the other: low, value, high."""
    axes.plot(
        ends, [row] * 3, color=colour, linewidth=1.8, marker=marker, markevery=[1], markersize=6,
        markerfacecolor=colour if filled else PAPER,
    )  # fmt: skip


@drawing
def confusion_figure(confusion: dict[TaskName, npt.NDArray[Any]], caption: str) -> Figure:
    """Draw counts and row shares of each task's confusion matrix, (true class, predicted class)."""
    sizes = [len(matrix) for matrix in confusion.values()]
    figure, panels = new_figure(
        (max(0.9 * sum(sizes) + 1.1 * (len(sizes) - 1), 4.0), 0.8 * max(sizes)),
        f"Confusion matrices of the test faces\n{caption}", len(sizes),
        left=1.1, top=1.3, gap=1.1, grid="", ratios=sizes,
    )  # fmt: skip
    for axes, (task, matrix) in zip(panels, confusion.items(), strict=True):
        names, n_faces, totals = CLASS_NAMES[task], int(matrix.sum()), matrix.sum(axis=1)
        shares = matrix / np.maximum(totals, 1)[:, None]
        # White lines between the cells.
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolor=PAPER, linewidth=2)
        axes.invert_yaxis()
        for (row, column), count in np.ndenumerate(matrix):
            text = f"{100 * shares[row, column]:.1f} %\n{count:,}" if totals[row] else "–\n0"
            axes.text(
                column + 0.5, row + 0.5, text, ha="center", va="center",
                color=PAPER if shares[row, column] > 0.62 else INK,
                weight="bold" if row == column else "normal",
            )  # fmt: skip
        accuracy = f"{100 * np.trace(matrix) / n_faces:.1f} %" if n_faces else "–"
        title = TASK_TITLES[task]
        axes.set(
            title=f"{title.capitalize()}: accuracy {accuracy}, n {n_faces:,}",
            xlabel=f"predicted {title}",
            ylabel=f"true {title}",
        )
        places = np.arange(len(names)) + 0.5
        axes.set_xticks(places, names)
        axes.set_yticks(places, [f"{name}\nn {n:,}" for name, n in zip(names, totals, strict=True)])
    return figure


def draw_curves(loss: Axes, accuracy: Axes, histories: Sequence[pd.DataFrame]) -> None:
    """Draw training loss, and validation accuracies of each task and weighted, by epoch; a line per
    history, which has a row per epoch."""
    for history in histories:
        loss.plot(history["epoch"], history["train/loss"], "o-", color=INK, ms=4, label="loss")
    for key, colour in COLOURS.items():
        name, dash = ("val/combined", "--") if key == "combined" else (f"val/{key}/accuracy", "-")
        look: Any = {"color": colour, "marker": MARKERS[key], "label": key.replace("_", " ")}
        for history in (it for it in histories if name in it):
            accuracy.plot(history["epoch"], history[name], dash, ms=4, **look)
    accuracy.yaxis.set_major_formatter(percent_ticks())
    for axes, title in ((loss, "training loss"), (accuracy, "validation accuracy")):
        axes.set(xlabel="epoch", ylabel=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@drawing
def curves_figure(history: pd.DataFrame, caption: str, selected_epoch: int) -> Figure:
    """Draw training loss and validation accuracy by epoch; history: a row per epoch."""
    title = f"Loss and validation accuracy by epoch\n{caption}"
    figure, (loss, accuracy) = new_figure((9.4, 3.4), title, 2, gap=0.9)
    draw_curves(loss, accuracy, [history])
    for axes in (loss, accuracy):
        axes.axvline(selected_epoch, zorder=0, color=FAINT, ls=":", label="selected epoch")
        axes.legend()
    return figure


@drawing
def reliability_figure(calibration: dict[TaskName, Calibration], caption: str) -> Figure:
    """Draw accuracy against confidence in bins, with 95 % intervals.

    Below the diagonal a network is more confident than it is accurate.
    """
    n, title = len(calibration), f"Reliability of the predicted probabilities\n{caption}"
    figure, panels = new_figure((4.6 * n, 3.8), title, n, gap=0.7, top=1.2)
    for axes, (task, found) in zip(panels, calibration.items(), strict=True):
        bins, colour = found.reliability[found.reliability["n"] > 0], COLOURS[task]
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", zorder=0)
        expected = f"expected if calibrated: {100 * (found.ece_by_chance or 0.0):.1f} pp"
        said = f"calibration error {100 * found.ece['test']:.1f} pp\n{expected}"
        axes.plot(bins["confidence"], bins["accuracy"], "o", ms=6, color=colour, label=said)
        axes.vlines(bins["confidence"], bins["low"], bins["high"], color=colour)
        axes.legend(loc="upper left")
        axes.set(title=TASK_TITLES[task].capitalize(), xlim=(0, 1), ylim=(-0.02, 1.02))
        axes.set_xlabel("probability of the predicted class")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(percent_ticks())
    panels[0].set_ylabel("accuracy, 95 % interval")
    return figure


@drawing
def subgroups_figure(subgroups: pd.DataFrame, gaps: pd.DataFrame, caption: str) -> Figure:
    """Draw each task's accuracy with its 95 % interval in every subgroup, beside the overall one.

    subgroups, gaps: as Scores has them. A column per task. Subgroups of under 30 faces are hollow;
    empty ones say so. Over each division stands the gap, and the one expected under permutation;
    the accuracy of a task's own classes is their recall.
    """
    tasks = [task for task in TASKS if (subgroups["task"] == task).any()]
    hollow = f"hollow: under {SMALL_GROUP} faces, not ranked"
    title = f"Test accuracy by subgroup, with 95 % intervals (grey: all test faces; {hollow})"
    n_rows = (subgroups["task"] == tasks[0]).sum() - 1 + len(ROWS_BY)
    figure, panels = new_figure(
        (5.2 * len(tasks) - 1.5, 0.26 * n_rows), f"{title}\n{caption}", len(tasks),
        left=1.3, right=1.2, gap=1.5, grid="x",
    )  # fmt: skip
    for axes, task in zip(panels, tasks, strict=True):
        ours = subgroups[subgroups["task"] == task]
        overall = ours[ours["by"] == "all"].iloc[0].to_dict()
        axes.axvspan(overall["low"], overall["high"], color=GRID, linewidth=0, zorder=0)
        axes.axvline(overall["accuracy"], color=FAINT, linewidth=1.2, zorder=1)
        names: dict[int, str] = {}
        for number, by in enumerate(ROWS_BY):
            head = f"by {BY_TITLES[by]}{' (recall)' * (by == task)}: {_gap_text(gaps, task, by)}"
            beside: Any = {"va": "center", "transform": axes.get_yaxis_transform()}
            axes.text(0, len(names) + number + 0.1, head, **beside)
            for group in ours[ours["by"] == by].to_dict("records"):
                n, row = group["n"], len(names) + number + 1
                names[row] = group["group"]
                words = f"{100 * group['accuracy']:.1f} %, n {n:,}" if n else "no faces"
                axes.text(1.02, row, words, **beside)
                ends = (group["low"], group["accuracy"], group["high"])
                draw_interval(axes, row, ends, COLOURS[task], filled=n >= SMALL_GROUP)
        axes.set_yticks([*names], [*names.values()] if task == tasks[0] else [""] * len(names))
        axes.set_ylim(n_rows - 0.4, -0.5)
        axes.xaxis.set_major_formatter(percent_ticks())
        all_faces = f"all {overall['n']:,} faces {100 * overall['accuracy']:.1f} %"
        axes.set_xlabel(f"{TASK_TITLES[task]} accuracy, {all_faces}")
    return figure


def _gap_text(gaps: pd.DataFrame, task: TaskName, by: By) -> str:
    """Say how far apart worst and best subgroup are, in pp, and what permutation gives."""
    row = gaps[(gaps["task"] == task) & (gaps["by"] == by)].iloc[0]
    if row["n_ranked"] < 2:
        return "too few subgroups to rank"
    names = ("gap", "gap_low", "gap_high", "chance_gap")
    gap, low, high, permuted = (100 * float(row[name]) for name in names)
    return f"gap {gap:.1f} pp ({low:.1f}–{high:.1f}), permuted {permuted:.1f}"


FACES_PER_TASK: Final = 16
FACES_PER_ROW: Final = 8
CAUTION: Final = "The label may be right and the network wrong; nothing was relabelled."


@drawing
def contact_sheet(errors: pd.DataFrame, faces: "FaceSet", caption: str) -> Figure:
    """Show the first possible label errors of each task, as possible_label_errors gives them.

    It shows people: it is kept with the run and in MLflow, and belongs on no page and in no
    repository.
    """
    # One panel measured in inches: a panel per face takes a second and more.
    figure = Figure()
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    title = "Possible label errors: test faces whose label is contradicted"
    axes.text(0.1, 0.08, f"{title}\n{caption}\n{CAUTION}", va="top", size=11)
    row_of = dict(zip(faces.table["file"], range(len(faces.table)), strict=True))
    pixels, top = faces.pixels(), 0.8
    shown = errors[errors["rank"] <= FACES_PER_TASK]
    for task in shown["task"].unique().tolist():
        axes.text(0.1, top + 0.2, TASK_TITLES[task], size=12, weight="bold", color=COLOURS[task])
        top += 0.75
        for place, error in enumerate(shown[shown["task"] == task].to_dict("records")):
            left, upper = 0.1 + 1.5 * (place % FACES_PER_ROW), top + 1.85 * (place // FACES_PER_ROW)
            extent = (left, left + 1.3, upper + 1.3, upper)
            axes.imshow(pixels[row_of[error["file"]]], extent=extent)
            age = f" ({error['age']} years)" if task == "age_group" else ""
            said = f"{error['contradicted_by']} {100 * error['probability']:.0f} %"
            words = f"label {error['label']}{age}\npredicted {said}"
            axes.text(left + 0.65, upper - 0.03, words, ha="center", va="bottom", size=8)
        top = upper + 1.4
    width = 1.5 * FACES_PER_ROW
    figure.set_size_inches(width, top)
    axes.set(xlim=(0, width), ylim=(top, 0))
    axes.set_axis_off()
    return figure


def write_test_figures(folder: Path, scores: Scores, caption: str) -> None:
    """Draw what follows from predictions of test faces, all tasks on one figure; no face."""
    write_png(folder / "confusion.png", confusion_figure(scores.confusion, caption))
    subgroups = subgroups_figure(scores.subgroups, scores.gaps, caption)
    write_png(folder / "subgroups.png", subgroups)
    write_png(folder / "reliability.png", reliability_figure(scores.calibration, caption))


@drawing
def schedule_figure(bars: Sequence[tuple[int, float, float, float, str]], title: str) -> Figure:
    """Draw runs on workers: worker, start, when its caches are there, end (seconds), and group."""
    found = pd.DataFrame(bars, columns=["worker", "start", "ready", "end", "group"])
    latest, n_workers = found["end"].max(), 1 + found["worker"].max()
    units = ((3600, "hours"), (60, "minutes"))
    seconds, unit = next((item for item in units if latest >= 2 * item[0]), (1, "seconds"))
    size = (6.5, max(0.35 * n_workers, 0.2 * found["group"].nunique()) + 0.2)
    figure, (axes,) = new_figure(size, title, left=0.9, right=2.6, top=0.5, grid="x")
    found[["start", "ready", "end"]] /= seconds
    for number, (group, ours) in enumerate(found.groupby("group", sort=False)):
        look: Any = {"color": f"C{number % 10}", "edgecolor": PAPER}
        cached, trained = ours["ready"] - ours["start"], ours["end"] - ours["ready"]
        axes.barh(ours["worker"], cached, left=ours["start"], hatch="////", **look)
        axes.barh(ours["worker"], trained, left=ours["ready"], label=group, **look)
    axes.barh(0, 0, color=INK, edgecolor=PAPER, hatch="////", label="cache of a frozen part")
    axes.set_yticks(range(n_workers), [f"worker {number + 1}" for number in range(n_workers)])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
