"""Can its probabilities be taken at their word? The reliability diagram of one task.

The numbers come from benchmark.results.calibration and are only drawn here.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.results.calibration import AS_PREDICTED, TEMPERED, Calibration
from benchmark.results.figures import COLOURS, FAINT, INK, Caption, percent_ticks
from benchmark.tasks import TASK_TITLES, TaskName


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
