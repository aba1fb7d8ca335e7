"""The ages of a data set, drawn: every year, rounded years, the edges of groups, by race."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from benchmark.explore.drawing import (
    PALETTES,
    PLAIN,
    SIZE,
    STRONG,
    beside,
    finish,
    new_figure,
    title,
)
from benchmark.explore.numbers import (
    DIGIT_AGES,
    EDGES,
    FEWEST_FOR_A_DENSITY,
    OLDEST,
    Counts,
    Explored,
    density,
    quantile_of,
)
from benchmark.faces.labels import age_group_of
from benchmark.results.figures import FAINT, INK, percent_ticks
from benchmark.tasks import CLASS_NAMES


def _group_colours(first: int, last: int) -> list[str]:
    """Give each age from `first` to `last` the colour of its group."""
    return [PALETTES["age_group"][age_group_of(age)] for age in range(first, last + 1)]


def ages_figure(explored: Explored) -> Figure:
    """Draw the faces of every age in years, coloured by age group, with the edges between these."""
    figure, (axes,) = new_figure(3.6)
    axes.bar(range(1, OLDEST + 1), explored.ages[1:], width=0.9, color=_group_colours(1, OLDEST))
    top = int(explored.ages.max())
    for edge in EDGES:
        axes.axvline(edge + 0.5, color=FAINT, linestyle=":", linewidth=1)
    counts, lowers = explored.counts("age_group"), (1, *(edge + 1 for edge in EDGES))
    for name, n, low, high in zip(
        CLASS_NAMES["age_group"], counts.tolist(), lowers, (*EDGES, 100), strict=True
    ):
        axes.text((low + high) / 2, top * 1.12, f"{name}\n{n:,}", ha="center", va="center",
                  size=SIZE, color=INK)  # fmt: skip
    axes.set_xticks(range(0, OLDEST + 1, 10))
    axes.set_xlim(0, OLDEST + 1)
    axes.set_ylim(0, top * 1.22)
    axes.set_xlabel("age in years", size=SIZE, color=INK)
    axes.set_ylabel("faces", size=SIZE, color=INK)
    finish(axes)
    return figure


def heaping_figure(explored: Explored) -> Figure:
    """Draw the shares of the last digits of ages, and the ages that stand out from their own."""
    heaping = explored.heaping
    assert heaping is not None, "only where ages are told"
    figure, (digits, peaks) = new_figure(3.2, columns=2)
    shares = np.array(heaping.digit_shares)
    colours = [STRONG if digit in (0, 5) else PLAIN for digit in range(10)]
    digits.bar(range(10), shares, color=colours, width=0.75)
    digits.axhline(0.1, color=FAINT, linestyle="--", linewidth=1)
    digits.set_xticks(range(10))
    digits.set_xlabel(f"last digit of the age, {DIGIT_AGES[0]} to {DIGIT_AGES[-1]} years",
                      size=SIZE, color=INK)  # fmt: skip
    digits.yaxis.set_major_locator(MultipleLocator(0.05))
    digits.yaxis.set_major_formatter(percent_ticks())
    title(digits, f"Last digits · Whipple's index {heaping.whipple:.0f}")
    finish(digits)
    top = heaping.peaks.head(8)
    places = np.arange(len(top))
    rounded = [STRONG if age % 5 == 0 else PLAIN for age in top["age"]]
    peaks.barh(places, top["times"], color=rounded, height=0.72)
    for place, (n, times) in enumerate(top[["n", "times"]].to_numpy()):
        beside(peaks, times, place, f"{times:.1f} × · {n:,.0f} faces")
    peaks.axvline(1, color=FAINT, linestyle="--", linewidth=1)
    peaks.set_yticks(places, [f"age {age}" for age in top["age"]])
    peaks.invert_yaxis()
    peaks.set_xlim(0, float(top["times"].max()) * 1.6 if len(top) else 1)
    peaks.set_xticks([])
    title(peaks, "As often as the ages around it")
    finish(peaks, grid=None)
    peaks.spines["bottom"].set_visible(False)
    return figure


def edges_figure(explored: Explored) -> Figure:
    """Draw the ages about each edge between age groups; what lies on the edge stands out."""
    figure, panels = new_figure(2.8, columns=len(EDGES), sharey=True)
    for axes, edge in zip(panels, EDGES, strict=True):
        years = range(edge - 4, edge + 6)
        bars = axes.bar(years, explored.ages[years], width=0.8,
                        color=_group_colours(years[0], years[-1]))  # fmt: skip
        on_edge = bars[years.index(edge)]
        on_edge.set_facecolor(STRONG)
        share = 100 * explored.ages[edge] / explored.n_aged
        axes.axvline(edge + 0.5, color=FAINT, linestyle=":", linewidth=1)
        axes.set_xticks([edge - 4, edge, edge + 5])
        title(axes, f"{edge} years: {share:.1f} %")
        finish(axes)
    panels[0].set_ylabel("faces", size=SIZE, color=INK)
    return figure


def ages_by_race_figure(explored: Explored) -> Figure:
    """Draw a smoothed density of age for each race, its middle half and its median."""
    names = CLASS_NAMES["race"]
    figure, panels = new_figure(0.6 + 1.05 * len(names), rows=len(names), sharex=True, sharey=True)
    years = np.arange(OLDEST + 1)
    everyone = density(explored.ages)
    drawn = [explored.ages_of(race) for race in range(len(names))]
    top = max(density(ages).max() for ages in (explored.ages, *drawn))
    for race, (axes, name) in enumerate(zip(panels, names, strict=True)):
        ages, colour = drawn[race], PALETTES["race"][race]
        axes.plot(years[1:], everyone[1:], color=FAINT, linewidth=1, linestyle=":")
        if ages.sum() >= FEWEST_FOR_A_DENSITY:
            _density(axes, years, ages, colour)
            said = f"median {quantile_of(ages, 0.5)}"
        else:
            said = f"under {FEWEST_FOR_A_DENSITY}: not drawn"
        axes.text(0.995, 0.92, f"{name} · {ages.sum():,} · {said}", ha="right", va="top",
                  size=SIZE, color=INK, transform=axes.transAxes)  # fmt: skip
        axes.set_yticks([])
        axes.set_ylim(0, 1.03 * top)
        axes.set_xlim(0, 100)
        finish(axes, grid="x")
        axes.spines["left"].set_visible(False)
    panels[-1].set_xlabel("age in years", size=SIZE, color=INK)
    return figure


def _density(axes: Axes, years: npt.NDArray[np.int64], ages: Counts, colour: str) -> None:
    smooth = density(ages)
    axes.fill_between(years[1:], smooth[1:], color=colour, alpha=0.3, linewidth=0)
    axes.plot(years[1:], smooth[1:], color=colour, linewidth=1.8)
    low, middle, high = (quantile_of(ages, level) for level in (0.25, 0.5, 0.75))
    half = (years >= low) & (years <= high)
    axes.fill_between(years[half], smooth[half], color=colour, alpha=0.45, linewidth=0)
    axes.vlines(middle, 0, smooth[middle], color=colour, linewidth=2)
