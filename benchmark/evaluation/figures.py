"""Figures of one run, and how every figure of facebench looks and is written.

Each function gives a matplotlib Figure, made without pyplot and its global state. Margins are given
in inches: laying out text by constraint takes longer than drawing it. `write_png` writes a file,
`as_svg` text for a page. Numbers come from metrics.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
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
PAGE_COLOURS: Final = {INK: "--ink", FAINT: "--faint", GRID: "--grid", PAPER: "--paper"}
"""Colours that a page sets by itself, for light and dark."""
COLOURS: Final[dict[str, str]] = {
    "age_group": "#0072B2", "gender": "#D55E00", "race": "#009E73", "combined": INK,
}  # fmt: skip
"""Blue, vermilion and bluish green differ for colour-blind readers too.
Source: M. Okabe, K. Ito, "Color Universal Design" (2008). Marker and dash differ as well."""
MARKERS: Final[dict[str, str]] = {"age_group": "o", "gender": "s", "race": "^", "combined": "D"}
LOSS_STYLES: Final = ((INK, "-"), ("#CC79A7", "--"), ("#E69F00", ":"), ("#56B4E9", "-."))
BY_TITLES: Final[dict[By, str]] = {
    "all": "all", "age_group": "age group", "gender": "gender", "race": "race",
    "gender_race": "gender × race",
}  # fmt: skip
ROWS_BY: Final[tuple[By, ...]] = ("gender", "race", "gender_race", "age_group")


@dataclass(frozen=True)
class Caption:
    """What every figure says of where it comes from."""

    experiment: str
    dataset: str
    drawn: bool
    """True for synthetic faces, which say nothing of people."""
    leaky: bool = False
    """True where test faces were seen in training: then every title says so first."""

    def under(self, title: str) -> str:
        """Write the title: what is shown, then experiment and data set."""
        leaky, faces = "LEAKY · " * self.leaky, " (synthetic faces)" * self.drawn
        return f"{leaky}{title}\n{self.experiment}\n{self.dataset}{faces}"


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure atomically; equal figures give equal bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def as_svg(figure: Figure, name: str) -> str:
    """Write a figure as SVG for a page: scalable, its text as text, its colours the page's own.

    name: of the figure, unique on the page; keeps the ids of several figures apart.
    """
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[^"]*"', "", svg.replace("\n", " "), count=2)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = re.sub(colour, f"var({variable})", svg, flags=re.IGNORECASE)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)


def percent_ticks() -> FuncFormatter:
    """Write rates on an axis as percent; ticks between whole percents are not rounded to them."""
    return FuncFormatter(lambda rate, _place: f"{100 * rate:.4g} %".replace("-", "−"))


def pp_ticks() -> FuncFormatter:
    """Write differences of rates on an axis in percentage points, with their sign."""
    return FuncFormatter(
        lambda rate, _place: f"{100 * rate:+.4g}".replace("-", "−") if round(rate, 6) else "0"
    )


def finish(axes: Axes, *, grid: str = "y") -> None:
    """Leave of the frame what tells something; grid: the axis whose lines are drawn, or ''."""
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=10, colors=INK, which="both", length=0)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def new_figure(
    panels: tuple[float, float], title: str, *, rows: int = 1, columns: int = 1, left: float = 0.8,
    right: float = 0.3, top: float = 1.0, below: float = 0.6,
    gap: tuple[float, float] = (0.5, 0.5), **options: Any,
) -> tuple[Figure, npt.NDArray[np.object_]]:  # fmt: skip
    """Make a figure and its axes; all lengths in inches, `panels` of all panels with their gaps."""
    width, height = panels[0] + left + right, panels[1] + top + below
    figure = Figure(figsize=(width, height))
    mean = ((panels[0] - (columns - 1) * gap[0]) / columns,
            (panels[1] - (rows - 1) * gap[1]) / rows)  # fmt: skip
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=options)
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, bottom=below / height, top=1 - top / height,
        wspace=gap[0] / mean[0], hspace=gap[1] / mean[1],
    )  # fmt: skip
    figure.text(0.1 / width, 1 - 0.1 / height, title, va="top", size=11, color=INK)
    return figure, grid


def confusion_figure(confusion: dict[TaskName, npt.NDArray[Any]], caption: Caption) -> Figure:
    """Draw counts and row shares of each task's confusion matrix, (true class, predicted class)."""
    sizes = [len(matrix) for matrix in confusion.values()]
    figure, grid = new_figure(
        (max(0.9 * sum(sizes) + 1.1 * (len(sizes) - 1), 4.0), 0.8 * max(sizes)),
        caption.under("Confusion matrices of the test faces"),
        columns=len(sizes), left=1.1, top=1.3, gap=(1.1, 0.5), width_ratios=sizes,
    )  # fmt: skip
    for axes, (task, matrix) in zip(grid[0], confusion.items(), strict=True):
        names, n_faces, totals = CLASS_NAMES[task], int(matrix.sum()), matrix.sum(axis=1)
        shares = np.divide(
            matrix, totals[:, None], out=np.zeros(matrix.shape), where=totals[:, None] > 0
        )
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(matrix):
            text = f"{100 * shares[row, column]:.1f} %\n{count:,}" if totals[row] else "–\n0"
            colour = PAPER if shares[row, column] > 0.62 else INK
            axes.text(
                column, row, text, ha="center", va="center", color=colour, size=10,
                weight="bold" if row == column else "normal",
            )  # fmt: skip
        right = f"{100 * np.trace(matrix) / n_faces:.1f} %" if n_faces else "–"
        words = f"{TASK_TITLES[task].capitalize()}: accuracy {right}, n {n_faces:,}"
        axes.set_title(words, loc="left", size=11)
        axes.set_xlabel(f"predicted {TASK_TITLES[task]}", size=10)
        axes.set_ylabel(f"true {TASK_TITLES[task]}", size=10)
        labels = [f"{name}\nn {n:,}" for name, n in zip(names, totals, strict=True)]
        finish(axes, grid="")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), labels)
        for place in range(1, len(names)):
            axes.axvline(place - 0.5, color=PAPER, linewidth=2)
            axes.axhline(place - 0.5, color=PAPER, linewidth=2)
    return figure


def curves_figure(
    history: pd.DataFrame, caption: Caption, *, selected_epoch: int | None = None
) -> Figure:
    """Draw loss and validation accuracy by epoch.

    history: a row per epoch; every column `…/loss`, every `val/<task>/accuracy` and
    `val/combined` that is there is drawn, and the selected epoch marked.
    """
    figure, grid = new_figure(
        (9.4, 3.4), caption.under("Loss and validation accuracy by epoch"), columns=2, gap=(0.9, 0)
    )
    loss, accuracy = grid[0]
    epochs = history.get("epoch", history.index + 1)
    losses = [str(name) for name in history.columns if str(name).endswith("/loss")]
    for name, (colour, dash) in zip(losses, LOSS_STYLES, strict=False):
        label = {"train/loss": "training", "val/loss": "validation"}.get(name, name)
        loss.plot(epochs, history[name], dash, color=colour, marker="o", ms=4, label=label)
    for key, colour in COLOURS.items():
        name = "val/combined" if key == "combined" else f"val/{key}/accuracy"
        if name in history:
            accuracy.plot(
                epochs, history[name], "--" if key == "combined" else "-", color=colour,
                marker=MARKERS[key], ms=5, label=key.replace("_", " "),
            )  # fmt: skip
    loss.set_ylabel("loss", size=11)
    accuracy.set_ylabel("validation accuracy", size=11)
    accuracy.yaxis.set_major_formatter(percent_ticks())
    for axes in grid[0]:
        if selected_epoch is not None:
            selected: Any = {"color": FAINT, "linestyle": ":", "label": "selected epoch"}
            axes.axvline(selected_epoch, zorder=0, **selected)
        axes.set_xlabel("epoch", size=11)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        finish(axes)
        axes.legend(frameon=False, fontsize=10)
    return figure


def reliability_figure(calibration: dict[TaskName, Calibration], caption: Caption) -> Figure:
    """Draw accuracy against confidence in bins, with 95 % intervals, and the faces per bin.

    Below the diagonal a network is more confident than it is accurate.
    """
    figure, grid = new_figure(
        (4.6 * len(calibration), 5.2), caption.under("Reliability of the predicted probabilities"),
        rows=2, columns=len(calibration), gap=(0.7, 0.25), top=1.2, height_ratios=(3.4, 1),
    )  # fmt: skip
    for (axes, counts), (task, found) in zip(grid.T, calibration.items(), strict=True):
        bins = found.reliability[found.reliability["n"] > 0]
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=":", zorder=0)
        # Rounding can put an end of the interval a hair on the wrong side of the rate itself.
        ends = (bins["accuracy"] - bins["low"], bins["high"] - bins["accuracy"])
        axes.errorbar(
            bins["confidence"], bins["accuracy"], yerr=np.maximum(ends, 0.0), fmt="o", ms=6,
            color=COLOURS[task], label=f"calibration error {100 * found.ece['test']:.1f} pp",
        )  # fmt: skip
        expected = f"expected if calibrated: {100 * (found.ece_by_chance or 0.0):.1f} pp"
        axes.plot([], [], " ", label=expected)
        axes.set_title(TASK_TITLES[task].capitalize(), loc="left", size=11)
        axes.set_ylim(-0.02, 1.02)
        axes.legend(frameon=False, fontsize=9, loc="upper left")
        axes.yaxis.set_major_formatter(percent_ticks())
        width = 0.92 * (bins["bin_high"] - bins["bin_low"])
        counts.bar(bins["bin_low"], bins["n"], width=width, align="edge", color=COLOURS[task])
        counts.set_xlabel("probability of the predicted class", size=10)
        counts.xaxis.set_major_formatter(percent_ticks())
        axes.set_xticks(counts.get_xticks(), [])
        for panel in (axes, counts):
            panel.set_xlim(0, 1)
            finish(panel)
    grid[0, 0].set_ylabel("accuracy, 95 % interval", size=10)
    grid[1, 0].set_ylabel("faces", size=10)
    return figure


def subgroups_figure(subgroups: pd.DataFrame, gaps: pd.DataFrame, caption: Caption) -> Figure:
    """Draw each task's accuracy with its 95 % interval in every subgroup, beside the overall one.

    subgroups, gaps: as Scores has them. A column per task. Subgroups of under 30 faces are hollow;
    empty ones say so. Over each division stands the gap, and the one expected under permutation;
    the accuracy of a task's own classes is their recall.
    """
    tasks = [task for task in TASKS if (subgroups["task"] == task).any()]
    small = ((subgroups["n"] > 0) & (subgroups["n"] < SMALL_GROUP)).any()
    hollow = f"; hollow: under {SMALL_GROUP} faces, not ranked" if small else ""
    title = f"Test accuracy by subgroup, with 95 % intervals (grey: all test faces{hollow})"
    n_rows = (subgroups["task"] == tasks[0]).sum() - 1 + len(ROWS_BY)
    figure, grid = new_figure(
        (5.2 * len(tasks) - 1.5, 0.26 * n_rows), caption.under(title), columns=len(tasks),
        left=1.3, right=1.2, gap=(1.5, 0),
    )  # fmt: skip
    for axes, task in zip(grid[0], tasks, strict=True):
        ours = subgroups[subgroups["task"] == task]
        overall = ours[ours["by"] == "all"].iloc[0]
        axes.axvspan(overall["low"], overall["high"], color=GRID, linewidth=0, zorder=0)
        axes.axvline(overall["accuracy"], color=FAINT, linewidth=1.2, zorder=1)
        beside = axes.get_yaxis_transform()
        groups = pd.concat([ours[ours["by"] == by] for by in ROWS_BY], ignore_index=True)
        # Before the groups of each division stands its heading.
        groups["row"] = groups.index + 1 + groups["by"].map(ROWS_BY.index)
        for by in ROWS_BY:
            row = groups["row"][groups["by"] == by].min()
            recall = " (recall)" if by == task else ""
            head = f"by {BY_TITLES[by]}{recall}: {_gap_text(gaps, task, by)}"
            axes.text(0, row - 0.9, head, size=9, color=INK, va="center", transform=beside)
        for n, accuracy, row in groups[["n", "accuracy", "row"]].itertuples(index=False):
            words = f"{100 * accuracy:.1f} %, n {n:,}" if n else "no faces"
            axes.text(1.02, row, words, size=9, color=INK if n else FAINT, va="center",
                      transform=beside)  # fmt: skip
        colour, known = COLOURS[task], groups[groups["n"] > 0]
        axes.hlines(known["row"], known["low"], known["high"], color=colour, zorder=2)
        fills = [colour if n >= SMALL_GROUP else PAPER for n in known["n"]]
        axes.scatter(known["accuracy"], known["row"], 36, fills, edgecolors=colour, zorder=3)
        finish(axes, grid="x")
        names = groups["group"] if task == tasks[0] else [""] * len(groups)
        axes.set_yticks(groups["row"], names)
        axes.set_ylim(len(groups) + len(ROWS_BY) - 0.4, -0.5)
        axes.xaxis.set_major_formatter(percent_ticks())
        all_faces = f"all {int(overall['n']):,} faces {100 * overall['accuracy']:.1f} %"
        axes.set_xlabel(f"{TASK_TITLES[task]} accuracy, {all_faces}", size=10)
    return figure


def _gap_text(gaps: pd.DataFrame, task: TaskName, by: By) -> str:
    """Say how far apart worst and best subgroup are, in pp, and what permutation gives."""
    row = gaps[(gaps["task"] == task) & (gaps["by"] == by)].iloc[0]
    if row["n_ranked"] < 2:
        return "too few subgroups to rank"
    gap, low, high, chance = (
        100 * float(row[name]) for name in ("gap", "gap_low", "gap_high", "chance_gap")
    )
    return f"gap {gap:.1f} pp ({low:.1f}–{high:.1f}), permuted {chance:.1f}"


FACES_PER_TASK: Final = 16
FACES_PER_ROW: Final = 8
CAUTION: Final = "The label may be right and the network wrong; nothing was relabelled."


def contact_sheet(suspects: pd.DataFrame, faces: "FaceSet", caption: Caption) -> Figure:
    """Show the first possible label errors of each task, as label_suspects gives them.

    It shows people: it is kept with the run and in MLflow, and belongs on no page and in no
    repository.
    """
    shown = suspects[suspects["rank"] <= FACES_PER_TASK]
    groups = {task: ours for task in TASKS if len(ours := shown[shown["task"] == task])}
    n_rows = [-(-len(ours) // FACES_PER_ROW) for ours in groups.values()]
    width, height = 1.5 * FACES_PER_ROW, 0.8 + sum(0.3 + 1.85 * n for n in n_rows)
    # One panel measured in inches: a panel per face takes a second and more.
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    title = caption.under("Possible label errors: test faces whose label is contradicted")
    axes.text(0.1, 0.08, f"{title}\n{CAUTION}", va="top", size=11, color=INK)
    row_of = dict(zip(faces.table["file"], range(len(faces.table)), strict=True))
    pixels, top = faces.pixels(), 0.8
    for task, ours in groups.items():
        axes.text(0.1, top + 0.2, TASK_TITLES[task], size=12, weight="bold", color=COLOURS[task])
        for place, suspect in enumerate(ours.to_dict("records")):
            left = 1.5 * (place % FACES_PER_ROW) + 0.1
            upper = top + 0.3 + 1.85 * (place // FACES_PER_ROW) + 0.45
            extent = (left, left + 1.3, upper + 1.3, upper)
            axes.imshow(pixels[row_of[suspect["file"]]], extent=extent)
            age = f" ({suspect['age']} years)" if task == "age_group" else ""
            said = f"{suspect['contradicted_by']} {100 * suspect['probability']:.0f} %"
            words = f"label {suspect['label']}{age}\npredicted {said}"
            axes.text(left + 0.65, upper - 0.03, words, ha="center", va="bottom", size=8, color=INK)
        top += 0.3 + 1.85 * -(-len(ours) // FACES_PER_ROW)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return figure


def write_test_figures(folder: Path, scores: Scores, caption: Caption) -> None:
    """Draw what follows from predictions of test faces, all tasks on one figure; no face."""
    write_png(folder / "confusion.png", confusion_figure(scores.confusion, caption))
    subgroups = subgroups_figure(scores.subgroups, scores.gaps, caption)
    write_png(folder / "subgroups.png", subgroups)
    write_png(folder / "reliability.png", reliability_figure(scores.calibration, caption))


def schedule_figure(bars: Sequence[tuple[int, float, float, float, str]], title: str) -> Figure:
    """Draw runs on workers: worker, start, when its caches are there, end (seconds), and group."""
    end = max(bar[3] for bar in bars)
    units = ((3600, "hours"), (60, "minutes"))
    seconds, unit = next((item for item in units if end >= 2 * item[0]), (1, "seconds"))
    n_workers = 1 + max(bar[0] for bar in bars)
    figure = Figure(figsize=(10, 1.8 + 0.35 * n_workers), layout="constrained")
    axes, groups = figure.subplots(), list(dict.fromkeys(bar[4] for bar in bars))
    for worker, start, ready, end, group in bars:
        for left, right, hatch in ((start, ready, "////"), (ready, end, "")):
            axes.barh(
                worker, (right - left) / seconds, left=left / seconds, hatch=hatch,
                color=f"C{groups.index(group) % 10}", edgecolor=PAPER,
            )  # fmt: skip
    for number, group in enumerate(groups):
        axes.barh(0, 0, color=f"C{number % 10}", label=group)
    axes.barh(0, 0, color=INK, edgecolor=PAPER, hatch="////", label="cache of a frozen part")
    axes.set_yticks(range(n_workers), [f"worker {number + 1}" for number in range(n_workers)])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    finish(axes, grid="x")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    return figure
