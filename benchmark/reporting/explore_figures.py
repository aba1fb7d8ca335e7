"""Who is in a data set, drawn: bars, shares, ages and a donut; no picture of anybody.

Every figure is drawn once and written twice: as a PNG for documents, and as SVG for the page, whose
colours of text, lines and paper are the page's own, so that it can be read by day and by night.
"""

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Wedge
from matplotlib.ticker import MaxNLocator, MultipleLocator

from benchmark.data.labels import age_group_of
from benchmark.data.splits import PARTS
from benchmark.evaluation.figures import FAINT, INK, percent_ticks
from benchmark.files import replacing
from benchmark.reporting.explore_numbers import (
    DIGIT_AGES,
    EDGES,
    FEWEST_FOR_A_DENSITY,
    OLDEST,
    Counts,
    Explored,
    density,
    quantile_of,
)
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TASKS, TaskName

PAPER: Final = "#FFFFFF"
GRID: Final = "#E5E5E5"
PAGE_COLOURS: Final = {INK: "--ink", FAINT: "--faint", PAPER: "--paper", GRID: "--grid"}
"""Colours that the page sets by itself, for light and dark."""

PALETTES: Final[dict[TaskName, tuple[str, ...]]] = {
    "age_group": ("#5DA5D9", "#3987BF", "#1F6BA6", "#B5651D", "#8A4A12"),
    "gender": ("#4C86C6", "#D9773F"),
    "race": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B"),
}
"""Told apart by colour-blind readers, and of a middle lightness that shows on white and black.
Every class is named beside its colour too."""
PLAIN: Final = "#4C86C6"
STRONG: Final = "#D55E00"

SIZE: Final = 11
WIDTH: Final = 9.0
PNG_DPI: Final = 110


def write_small_png(path: Path, figure: Figure) -> None:
    """Write a figure atomically, small enough for a document; equal figures give equal bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=PNG_DPI, metadata={"Software": None})


def as_svg(figure: Figure, name: str) -> str:
    """Write a figure as SVG for a page: scalable, its text as text, its colours the page's own.

    name: of the figure; keeps the ids of several figures on one page apart.
    """
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg width="[^"]*" height="[^"]*"', "<svg", svg.replace("\n", " "), count=1)
    for attribute in ("width", "height"):
        svg = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = re.sub(colour, f"var({variable})", svg, flags=re.IGNORECASE)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)


def new_figure(
    height: float, columns: int = 1, rows: int = 1, **options: object
) -> tuple[Figure, list[Axes]]:
    """Give a figure of the usual width and its panels, row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)  # type: ignore[call-overload]
    return figure, list(grid.ravel())


def finish(axes: Axes, *, grid: str | None = "y") -> None:
    """Leave of the frame what tells something; grid: the axis whose lines are drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_edgecolor(FAINT)
    axes.tick_params(labelsize=SIZE, colors=INK, which="both", length=0)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def title(axes: Axes, text: str) -> None:
    """Write a panel's title over its left end."""
    axes.set_title(text, size=SIZE + 1, color=INK, loc="left")


def beside(axes: Axes, value: float, place: float, text: str) -> None:
    """Write a bar's number a little to the right of its end."""
    axes.annotate(
        text, (value, place), (4, 0), textcoords="offset points", va="center", size=SIZE, color=INK
    )


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


LABEL_HEIGHT: Final = 0.22
"""Of a label of two lines beside the donut, whose radius is about 1."""


def figures_of(explored: Explored) -> dict[str, Figure]:
    """Draw every figure for which the data set has the labels, by its file's name."""
    has_ages, has = explored.n_aged > 0, explored.has
    drawers: list[tuple[str, bool, Callable[[Explored], Figure]]] = [
        ("who", True, who_figure),
        ("ages", has_ages, ages_figure),
        ("heaping", has_ages, heaping_figure),
        ("bin_edges", has_ages, edges_figure),
        ("age_groups", has("age_group") and (has("gender") or has("race")), age_groups_figure),
        ("gender_race", bool(explored.gender_race["n"].sum()), donut_figure),
        ("ages_by_race", has_ages and has("race"), ages_by_race_figure),
        ("parts", bool(len(explored.by_part)), parts_figure),
        ("duplicates", explored.duplicates.identical["groups"] > 0, duplicates_figure),
    ]
    return {name: draw(explored) for name, wanted, draw in drawers if wanted}


def _bars(axes: Axes, names: Sequence[str], counts: Counts, colours: Sequence[str]) -> None:
    """Draw horizontal bars, each with its count and share, names from the top down."""
    places = np.arange(len(names))
    axes.barh(places, counts, color=colours, height=0.72)
    total = max(int(counts.sum()), 1)
    for place, n in enumerate(counts.tolist()):
        beside(axes, n, place, f"{n:,} · {100 * n / total:.1f} %")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(int(counts.max()), 1) * 1.7)
    axes.set_xticks([])
    finish(axes, grid=None)
    axes.spines["bottom"].set_visible(False)


def who_figure(explored: Explored) -> Figure:
    """Draw the counts of gender, race and age group beside each other."""
    tasks = explored.tasks_of("gender", "race", "age_group")
    figure, panels = new_figure(2.6, columns=len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        _bars(axes, CLASS_NAMES[task], explored.counts(task), PALETTES[task])
        lacking = explored.n_without(task)
        more = f", {lacking:,} not told" if lacking else ""
        title(axes, f"{TASK_TITLES[task]}{more}")
    return figure


def age_groups_figure(explored: Explored) -> Figure:
    """Draw the shares of the age groups within each gender and each race."""
    tasks = explored.tasks_of("gender", "race")
    rows = [
        (CLASS_NAMES[task][label], counts)
        for task in tasks
        for label, counts in enumerate(explored.crossed(task, "age_group"))
    ]
    figure, (axes,) = new_figure(0.9 + 0.42 * len(rows))
    _stacked(axes, rows, "age_group")
    if len(tasks) == 2:
        axes.axhline(len(CLASS_NAMES["gender"]) - 0.5, color=FAINT, linewidth=0.8)
    return figure


def _stacked(axes: Axes, rows: Sequence[tuple[str, Counts]], task: TaskName) -> None:
    """Draw a bar of shares per row, the classes of `task` in it from left to right."""
    starts = np.zeros(len(rows))
    totals = np.array([max(int(counts.sum()), 1) for _, counts in rows])
    for label, name in enumerate(CLASS_NAMES[task]):
        shares = np.array([counts[label] for _, counts in rows]) / totals
        colour = PALETTES[task][label]
        axes.barh(range(len(rows)), shares, left=starts, color=colour, height=0.78, label=name,
                  edgecolor=PAPER, linewidth=1)  # fmt: skip
        for place, (share, start) in enumerate(zip(shares, starts, strict=True)):
            if share >= 0.03:
                axes.text(start + share / 2, place, f"{100 * share:.0f}", ha="center", va="center",
                          size=SIZE - 1, color="#fefefe")  # fmt: skip
        starts = starts + shares
    names = [f"{name}  ({counts.sum():,})" for name, counts in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(percent_ticks())
    finish(axes, grid=None)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.legend(ncols=len(CLASS_NAMES[task]), frameon=False, fontsize=SIZE, labelcolor=INK,
                loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)  # fmt: skip


def donut_figure(explored: Explored) -> Figure:
    """Draw gender within, race without; each slice is drawn and named by one and the same row."""
    total = int(explored.gender_race["n"].sum())
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    axes = figure.add_subplot()
    start = 90.0
    labels: list[tuple[float, str, str]] = []
    for gender, name in enumerate(CLASS_NAMES["gender"]):
        ours = [row for row in explored.pairs() if row[0] == gender]
        n_gender = sum(n for *_, n in ours)
        span = 360 * n_gender / total
        _slice(axes, start, span, (0.30, 0.63), PALETTES["gender"][gender], f"gender-{gender}")
        if n_gender:
            _inside(axes, start - span / 2, f"{name}\n{n_gender:,}\n{100 * n_gender / total:.1f} %")
        inner = start
        for _, race, n in ours:
            width = 360 * n / total
            mark = f"gender-{gender}-race-{race}"
            _slice(axes, inner, width, (0.65, 0.95), PALETTES["race"][race], mark)
            if n:
                text = f"{CLASS_NAMES['race'][race]}\n{n:,} · {100 * n / total:.1f} %"
                labels.append((inner - width / 2, text, mark))
            inner -= width
        start -= span
    _outside(axes, labels)
    axes.text(0, 0, f"{total:,}\nfaces", ha="center", va="center", size=SIZE + 1, color=INK)
    axes.set_xlim(-1.75, 1.75)
    axes.set_ylim(-1.25, 1.25)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def _slice(
    axes: Axes, start: float, span: float, radii: tuple[float, float], colour: str, mark: str
) -> None:
    """Draw a slice from `start` clockwise; angles in degrees, radii inner and outer."""
    wedge = Wedge((0, 0), radii[1], start - span, start, width=radii[1] - radii[0],
                  facecolor=colour, edgecolor=PAPER, linewidth=1.5)  # fmt: skip
    wedge.set_gid(mark)
    axes.add_patch(wedge)


def _inside(axes: Axes, angle: float, text: str) -> None:
    x, y = 0.465 * np.cos(np.radians(angle)), 0.465 * np.sin(np.radians(angle))
    axes.text(x, y, text, ha="center", va="center", size=SIZE - 1, color="#fefefe")


def _outside(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write labels beside their slices, on either side from the top down, none over another."""
    for is_right in (True, False):
        height = float("inf")
        side = [
            (np.cos(np.radians(angle)), np.sin(np.radians(angle)), text, mark)
            for angle, text, mark in labels
            if (np.cos(np.radians(angle)) > 0) == is_right
        ]
        for x, y, text, mark in sorted(side, key=lambda label: -label[1]):
            height = min(1.08 * y, height - LABEL_HEIGHT)
            nearest = max(0.0, abs(height) - LABEL_HEIGHT / 2)
            away = max(abs(x), np.sqrt(max(0.0, 0.97**2 - nearest**2)))
            edge = away + 0.04 if is_right else -away - 0.04
            label = axes.text(edge, height, text, ha="left" if is_right else "right", va="center",
                              size=SIZE, color=INK)  # fmt: skip
            label.set_gid(f"label-{mark}")


def parts_figure(explored: Explored) -> Figure:
    """Draw the shares of every task's classes in training, validation and test."""
    tasks = [task for task in TASKS if explored.has(task)]
    figure, panels = new_figure(1.5 * len(tasks), rows=len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        by_part = explored.part_counts(task)
        _stacked(axes, list(zip(PARTS, by_part, strict=True)), task)
        axes.set_xticks([])
    return figure


def duplicates_figure(explored: Explored) -> Figure:
    """Draw how many groups of equal files disagree on each label, and by how many years."""
    twice = explored.duplicates
    same = twice.identical
    figure, (groups, years) = new_figure(3.0, columns=2)
    rows = [
        ("files equal byte by byte", same["groups"]),
        ("… disagree on age in years", same["groups_in_conflict_age"]),
        ("… on age group", same["groups_in_conflict_age_group"]),
        ("… on race", same["groups_in_conflict_race"]),
        ("… on gender", same["groups_in_conflict_gender"]),
        ("… on any task: no place", same["groups_in_conflict_any_task"]),
    ]
    places = np.arange(len(rows))
    colours = [PLAIN, *[STRONG] * (len(rows) - 1)]
    groups.barh(places, [n for _, n in rows], color=colours, height=0.72)
    for place, (_, n) in enumerate(rows):
        beside(groups, n, place, f"{n:,}")
    groups.set_yticks(places, [name for name, _ in rows])
    groups.invert_yaxis()
    groups.set_xlim(0, max(same["groups"], 1) * 1.2)
    groups.set_xticks([])
    title(groups, "Groups of equal files")
    finish(groups, grid=None)
    groups.spines["bottom"].set_visible(False)
    title(years, "Years between two ages of one file")
    if len(twice.years_apart):
        counts = np.bincount(np.minimum(twice.years_apart, 31), minlength=32)[1:]
        years.bar(range(1, 32), counts, width=0.85, color=STRONG)
        years.set_xticks([1, 5, 10, 15, 20, 25, 31], ["1", "5", "10", "15", "20", "25", "31+"])
        years.yaxis.set_major_locator(MaxNLocator(integer=True))
    years.set_ylabel("groups", size=SIZE, color=INK)
    finish(years)
    return figure
