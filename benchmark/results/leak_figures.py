"""The picture of the leak: a waterfall from a leaky number to an honest one, task by task.

The numbers come from benchmark.results.leak_study and are only drawn here.
"""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.results.figures import COLOURS, FAINT, INK, percent_ticks
from benchmark.results.leak_answer import mark
from benchmark.results.leak_study import PUBLISHED, NetworkLeak
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

LEAKY_COLOUR: Final = "#B22222"


def waterfall_figure(network: NetworkLeak, dataset: str, *, drawn: bool) -> Figure:
    """Draw each step's accuracy with its interval, the fall between steps, and the clean faces.

    The dashed line is the published arm's accuracy on test faces that it never met.
    """
    endings = network.shown
    figure = Figure(figsize=(11, 1.4 + 0.5 * len(endings) + 1.6), layout="constrained")
    panels = figure.subplots(1, len(TASKS), sharey=True)
    for axes, task in zip(panels, TASKS, strict=True):
        _draw_task(axes, network, endings, task)
    panels[0].set_yticks(
        range(len(endings)), [_label(network, ending) for ending in endings], size=10
    )
    panels[0].set_ylim(len(endings) - 0.4, -0.6)
    faces = " (drawn faces)" if drawn else ""
    figure.suptitle(
        f"LEAKY · From a leaky number to an honest one\n{network.label}\n{dataset}{faces}",
        size=12,
        color=INK,
    )
    figure.supxlabel(
        "accuracy on test faces, 95 % interval · steps are cumulative, in one order of many\n"
        "dashed: the same leaky network on the test faces that it never met",
        size=10,
    )
    return figure


def _label(network: NetworkLeak, ending: str) -> str:
    condition = mark(network, ending).replace(", and", ",\nand")
    return f"{condition}\nn {network.arms[ending].n_test:,}"


def _draw_task(axes: Axes, network: NetworkLeak, endings: Sequence[str], task: TaskName) -> None:
    clean = next((group for group in network.groups if group.exposure == "clean"), None)
    if clean is not None and task in clean.rates:
        axes.axvline(clean.rates[task].mean, color=FAINT, linestyle="--", linewidth=1.2, zorder=1)
    before = None
    for row, ending in enumerate(endings):
        arm = network.arms[ending]
        rate = arm.rates[task]
        colour = LEAKY_COLOUR if arm.leaky else COLOURS[task]
        if before is not None:
            axes.plot([before, before], [row - 1, row], color="#BBBBBB", linewidth=1, zorder=1)
            axes.barh(row, rate.mean - before, left=before, height=0.5, color="#E3E3E3", zorder=1)
        axes.plot([rate.low, rate.high], [row, row], color=colour, linewidth=2, zorder=2)
        marker = "D" if ending == PUBLISHED else "o"
        axes.plot(rate.mean, row, marker, color=colour, ms=7, zorder=3)
        axes.text(rate.mean, row - 0.3, f"{100 * rate.mean:.1f}", size=10, color=INK, ha="center")
        before = rate.mean
    printed = getattr(network.study, task) if network.study is not None else None
    if printed is not None:
        axes.plot(printed, 0, "x", color=INK, ms=8, zorder=3)
        axes.text(printed, 0.35, "the study's", size=9, color=INK, ha="center")
    axes.set_title(TASK_TITLES[task], size=11, color=INK)
    axes.xaxis.set_major_formatter(percent_ticks())
    axes.grid(axis="x", color="#EEEEEE", zorder=0)
    axes.tick_params(length=0, labelsize=10)
    axes.spines[:].set_visible(False)
    axes.margins(x=0.12)
