"""Who is in a data set, drawn: bars, shares and a donut; no picture of anybody.

The numbers come from benchmark.explore.numbers; ages are in benchmark.explore.age_figures.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Wedge
from matplotlib.ticker import MaxNLocator

from benchmark.explore.age_figures import (
    ages_by_race_figure,
    ages_figure,
    edges_figure,
    heaping_figure,
)
from benchmark.explore.drawing import (
    PALETTES,
    PAPER,
    PLAIN,
    SIZE,
    STRONG,
    WIDTH,
    beside,
    finish,
    new_figure,
    title,
)
from benchmark.explore.numbers import Counts, Explored
from benchmark.faces.splits import PARTS
from benchmark.results.figures import FAINT, INK, percent_ticks
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TASKS, TaskName

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
