"""The picture of the ratios: how many times faster, with spread and goal."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmark.results.figures import COLOURS, FAINT, INK
from benchmark.speed.answer import ratio_text
from benchmark.speed.session import Machine, RowMeasured


def speed_figure(machine: Machine, rows: Sequence[RowMeasured]) -> Figure:
    """Draw a bar for each row on a logarithmic axis; a diamond is the goal, the line the spread."""
    figure = Figure(figsize=(9, 2.0 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        _draw(axes, place, row)
    labels = [f"{row.row.title}\n{_images(row)}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, size=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    most = max(max(row.ratio().high, row.goal.at_least if row.goal else 1) for row in rows)
    least = min(1.0, *(row.ratio().low for row in rows))
    axes.set_xlim(least * 0.8, most * 4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color=INK, linewidth=1)
    axes.grid(axis="x", color="#EEEEEE", zorder=0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    drawn = " (drawn faces)" if machine.drawn else ""
    figure.suptitle(
        f"How many times faster than the loop it is compared with\n"
        f"{machine.device.description}\n{machine.dataset}{drawn}",
        size=12,
        color=INK,
    )
    figure.supxlabel(
        "bar: median of the rounds · line: least to most · diamond: the goal, open where this "
        "machine is not judged by it",
        size=9,
    )
    return figure


def _images(row: RowMeasured) -> str:
    epochs = f" × {row.epochs} epochs" if row.epochs > 1 else ""
    return f"{row.n_images:,} images{epochs}"


def _draw(axes: Axes, place: int, row: RowMeasured) -> None:
    ratio = row.ratio()
    colour = COLOURS["age_group"] if row.row.kind != "cost" else FAINT
    axes.barh(place, ratio.middle - 1, left=1, height=0.55, color=colour, alpha=0.75, zorder=2)
    axes.plot([ratio.low, ratio.high], [place, place], color=INK, linewidth=1.5, zorder=3)
    if row.goal is not None:
        face = COLOURS["gender"] if row.judged else "white"
        axes.plot(row.goal.at_least, place, "D", mfc=face, mec=COLOURS["gender"], ms=7, zorder=4)
    right = max(ratio.high, row.goal.at_least if row.goal else 1.0)
    axes.text(right * 1.12, place, ratio_text(ratio), va="center", size=9, color=INK)
