"""The composition of a data set: its labels counted, alone and together, and drawn; no face.

Shares are of the faces that have the label in question. The page is for
benchmark.reporting.explore_page.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from benchmark.data.audit import left_out
from benchmark.data.dataset import FaceSet
from benchmark.data.duplicates import count_duplicates, identical_groups
from benchmark.data.labels import age_group_of
from benchmark.data.splits import PARTS
from benchmark.evaluation.figures import (
    FAINT,
    INK,
    PAPER,
    finish,
    percent_ticks,
)
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, CLASS_NAMES, MISSING, TASK_TITLES, TASKS

OLDEST: Final = AGE_GROUP_UPPER_YEARS[-1]
EDGES: Final = AGE_GROUP_UPPER_YEARS[:-1]
"""The last age of each group but the oldest: a year more, and the label is another."""
WHIPPLE_AGES: Final = range(23, 63)
"""Ages of Whipple's index; of them a fifth end in 0 or 5 (United Nations, Demographic Yearbook)."""
DIGIT_AGES: Final = range(20, 70)
"""Five whole decades, in which every last digit is there equally often."""
HEAPED_FRACTION: Final = 0.005
"""A peak of fewer faces than this share of all is not listed."""
DENSITY_BANDWIDTH_YEARS: Final = 2.5
"""Wide enough to smooth the peaks at 5 and 10 years, which are habits of labelling, not people."""
FEWEST_FOR_A_DENSITY: Final = 30

PALETTES: Final[dict[str, tuple[str, ...]]] = {
    "age_group": ("#5DA5D9", "#3987BF", "#1F6BA6", "#B5651D", "#8A4A12"),
    "gender": ("#4C86C6", "#D9773F"),
    "race": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B"),
}
"""Of classes: they differ for colour-blind readers, and are of a middle lightness that shows on
white and black. Every class is named beside its colour too."""
PLAIN: Final = "#4C86C6"
STRONG: Final = "#D55E00"
SIZE: Final = 11
WIDTH: Final = 9.0

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Explored:
    """Everything that is shown of a data set."""

    faces: FaceSet
    named: pd.DataFrame
    """A row per usable face: age in years, and class names of each task and part; NaN for none."""
    ages: Counts
    """(117,): faces by age in years; nobody is 0."""
    numbers: dict[str, Any]
    """As plain values, for --json."""

    def has(self, *labels: str) -> bool:
        """Tell whether each of these labels is known of any face."""
        return all(self.named[label].notna().any() for label in labels)

    def counts(self, *labels: str) -> Any:
        """Count faces by class, or by all pairs of classes of two labels; every class is there."""
        return self.named.groupby(list(labels), observed=False).size()

    def crossed(self, label: str, other: str) -> pd.DataFrame:
        """Count faces by two labels: a row per class of the first."""
        return pd.DataFrame(self.counts(label, other).unstack())

    def ages_of(self, race: str) -> Counts:
        """Count the ages of one race: (117,)."""
        return counted(self.named["age"][self.named["race"] == race])


def explore(faces: FaceSet) -> Explored:
    """Count everything; reads the table alone and no picture."""
    table = faces.table
    named = pd.DataFrame(
        {  # the code -1 is MISSING
            task: pd.Categorical.from_codes(table[task].to_numpy(), pd.Index(CLASS_NAMES[task]))
            for task in TASKS
        }
    )
    named["part"] = pd.Categorical(table["part"].where(table["part"] != ""), PARTS)
    named["age"] = table["age"].where(table["age"] != MISSING).to_numpy()
    ages = counted(named["age"])
    explored = Explored(faces, named, ages, {})
    n_aged = max(int(ages.sum()), 1)
    groups = identical_groups(table)
    disagreements: Counter[tuple[int, str, str, str]] = Counter()
    for group in groups:  # a group of three classes counts thrice
        for place, task in enumerate(TASKS):
            labels = sorted(set(table[task].iloc[list(group.rows)]) - {MISSING})
            for pair in combinations((CLASS_NAMES[task][label] for label in labels), 2):
                disagreements[place, task, *pair] += 1
    order = sorted(disagreements, key=lambda key: (key[0], -disagreements[key], key[2]))
    explored.numbers.update(
        dataset=faces.name,
        drawn=faces.drawn,
        faces=len(table),
        parts={part: int(n) for part, n in explored.counts("part").items()},
        without={label: int(named[label].isna().sum()) for label in ("age", *TASKS)},
        counts={
            task: {name: int(n) for name, n in explored.counts(task).items()} for task in TASKS
        },
        ages={str(age): int(n) for age, n in enumerate(ages) if n},
        gender_race=[
            {"gender": gender, "race": race, "n": int(n)}
            for (gender, race), n in explored.counts("gender", "race").items()
        ],
        bin_edges=[
            {
                "edge": edge,
                "n": int(ages[edge]),
                "share": float(ages[edge] / n_aged),
                "n_next": int(ages[edge + 1]),
                "share_next": float(ages[edge + 1] / n_aged),
            }
            for edge in EDGES
        ],
        heaping=_heaping(ages) if ages.sum() else None,
        duplicates=count_duplicates(table),
        years_apart=[
            int(np.ptp(known))
            for group in groups
            if "age" in group.disagrees_on
            for known in [named["age"].iloc[list(group.rows)].dropna()]
        ],
        disagreements=[
            {"task": task, "first": first, "second": second, "groups": disagreements[key]}
            for key in order
            for _, task, first, second in [key]
        ],
        left_out=left_out(faces).to_dict("records"),
        labels=faces.manifest.get("labels"),
    )
    return explored


def counted(ages: "pd.Series[Any]") -> Counts:
    """Count ages in years, leaving out those that are not known: (117,)."""
    return np.bincount(ages.dropna().astype(np.int64), minlength=OLDEST + 1).astype(np.int64)


def _heaping(ages: Counts) -> dict[str, Any]:
    """Say how far ages are rounded, or copied from a guess.

    digit_shares: of the faces of DIGIT_AGES, by last digit 0 to 9; a tenth each without heaping,
    about. whipple: 100 without a preference for 0 and 5, 500 where nothing else occurs. peaks:
    ages that are more frequent than the two on either side, on average; most first.
    """
    digits = np.array([ages[DIGIT_AGES][digit::10].sum() for digit in range(10)])
    n_whipple, n_rounded = (int(ages[of].sum()) for of in (WHIPPLE_AGES, WHIPPLE_AGES[2::5]))
    peaks = []
    for age in range(1, OLDEST + 1):
        around = [*ages[max(1, age - 2) : age], *ages[age + 1 : age + 3]]
        mean, n = float(np.mean(around)), int(ages[age])
        if n >= HEAPED_FRACTION * ages.sum() and n > mean > 0:
            share = float(n / ages.sum())
            peaks.append({"age": age, "n": n, "share": share, "times": n / mean})
    nan = float("nan")
    return {
        "digit_shares": (digits / digits.sum()).tolist() if digits.sum() else [nan] * 10,
        "whipple": 500 * n_rounded / n_whipple if n_whipple else nan,
        "peaks": sorted(peaks, key=lambda peak: (-peak["times"], peak["age"])),
    }


def density(ages: Counts) -> npt.NDArray[np.float64]:
    """Smooth counts by age into a density per year: (117,), summing to about 1.

    A Gaussian of DENSITY_BANDWIDTH_YEARS, mirrored at half a year, below which nobody is.
    """
    years = np.arange(len(ages), dtype=np.float64)
    away = np.stack([years[:, None] - years, years[:, None] + years - 1]) / DENSITY_BANDWIDTH_YEARS
    kernel = np.exp(-0.5 * away**2).sum(axis=0) / (DENSITY_BANDWIDTH_YEARS * np.sqrt(2 * np.pi))
    smooth: npt.NDArray[np.float64] = kernel @ ages / max(int(ages.sum()), 1)
    smooth[0] = 0.0
    return smooth


def quantile_of(ages: Counts, level: float) -> int:
    """Give the age that `level` of the faces do not exceed; ages: counts by year, not all 0."""
    return int(np.searchsorted(np.cumsum(ages), level * ages.sum()))


def figures_of(explored: Explored) -> dict[str, Figure]:
    """Draw every figure for which the data set has the labels, by its file's name."""
    has, has_ages = explored.has, explored.has("age")
    drawers: list[tuple[str, bool, Callable[[Explored], Figure]]] = [
        ("who", True, who_figure),
        ("ages", has_ages, _ages_figure),
        ("heaping", has_ages, _heaping_figure),
        ("bin_edges", has_ages, _edges_figure),
        ("age_groups", has("age_group") and (has("gender") or has("race")), _age_groups_figure),
        ("gender_race", explored.counts("gender", "race").any(), donut_figure),
        ("ages_by_race", has_ages and has("race"), _ages_by_race_figure),
        ("parts", has("part"), _parts_figure),
        ("duplicates", explored.numbers["duplicates"]["groups"] > 0, _duplicates_figure),
    ]
    return {name: draw(explored) for name, wanted, draw in drawers if wanted}


def _figure(
    height: float, columns: int = 1, rows: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Give a figure of the usual width, in inches, and its panels, row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).ravel())


def _titled(axes: Axes, title: str = "", x: str = "", y: str = "", grid: str = "y") -> None:
    axes.set_title(title, size=SIZE + 1, color=INK, loc="left")
    axes.set_xlabel(x, size=SIZE, color=INK)
    axes.set_ylabel(y, size=SIZE, color=INK)
    finish(axes, grid=grid)


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Sequence[str],
    colours: Sequence[str], title: str, scale: float = 1.7,
) -> None:  # fmt: skip
    """Draw horizontal bars from the top down, each with its text; scale: axis over longest."""
    bars = axes.barh(range(len(names)), values, color=colours, height=0.72)
    axes.bar_label(bars, texts, padding=4, size=SIZE, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*values, 1e-9]) * scale)
    axes.set_xticks([])
    _titled(axes, title, grid="")


def _stacked(axes: Axes, counts: pd.DataFrame, task: str) -> None:
    """Draw a bar of shares per row of `counts`, the classes of `task` in it from left to right."""
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    starts = shares.cumsum(axis=1) - shares
    for name, colour in zip(counts.columns, PALETTES[task], strict=True):
        bars = axes.barh(range(len(counts)), shares[name], left=starts[name], color=colour,
                         height=0.78, label=name, edgecolor=PAPER, linewidth=1)  # fmt: skip
        texts = [f"{100 * share:.0f}" if share >= 0.03 else "" for share in shares[name]]
        axes.bar_label(bars, texts, label_type="center", size=SIZE - 1, color="#fefefe")
    totals = counts.sum(axis=1)
    axes.set_yticks(range(len(counts)), [f"{name}  ({n:,})" for name, n in totals.items()])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(percent_ticks())
    finish(axes, grid="")
    axes.legend(ncols=counts.shape[1], frameon=False, fontsize=SIZE, labelcolor=INK,
                loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)  # fmt: skip


def who_figure(explored: Explored) -> Figure:
    """Draw the counts of gender, race and age group beside each other."""
    tasks = [task for task in ("gender", "race", "age_group") if explored.has(task)]
    figure, panels = _figure(2.6, columns=len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        counts, lacking = explored.counts(task), explored.numbers["without"][task]
        texts = [f"{n:,} · {100 * n / counts.sum():.1f} %" for n in counts]
        title = TASK_TITLES[task] + (f", {lacking:,} not labelled" if lacking else "")  # type: ignore[index]
        _bars(axes, list(counts.index), counts.tolist(), texts, PALETTES[task], title)
    return figure


def _ages_figure(explored: Explored) -> Figure:
    figure, (axes,) = _figure(3.6)
    colours = [PALETTES["age_group"][age_group_of(age)] for age in range(1, OLDEST + 1)]
    axes.bar(range(1, OLDEST + 1), explored.ages[1:], width=0.9, color=colours)
    top, lows = int(explored.ages.max()), (1, *(edge + 1 for edge in EDGES))
    for edge in EDGES:
        axes.axvline(edge + 0.5, color=FAINT, linestyle=":", linewidth=1)
    groups = explored.counts("age_group").items()
    for (name, n), low, high in zip(groups, lows, (*EDGES, 100), strict=True):
        axes.text((low + high) / 2, top * 1.12, f"{name}\n{n:,}", ha="center", va="center",
                  size=SIZE, color=INK)  # fmt: skip
    axes.set_xticks(range(0, OLDEST + 1, 10))
    axes.set_xlim(0, OLDEST + 1)
    axes.set_ylim(0, top * 1.22)
    _titled(axes, x="age in years", y="faces")
    return figure


def _heaping_figure(explored: Explored) -> Figure:
    heaping = explored.numbers["heaping"]
    figure, (digits, peaks) = _figure(3.2, columns=2)
    colours = [STRONG if digit in (0, 5) else PLAIN for digit in range(10)]
    digits.bar(range(10), heaping["digit_shares"], color=colours, width=0.75)
    digits.axhline(0.1, color=FAINT, linestyle="--", linewidth=1)
    digits.set_xticks(range(10))
    digits.yaxis.set_major_locator(MultipleLocator(0.05))
    digits.yaxis.set_major_formatter(percent_ticks())
    _titled(
        digits,
        f"Last digits · Whipple's index {heaping['whipple']:.0f}",
        f"last digit of the age, {DIGIT_AGES[0]} to {DIGIT_AGES[-1]} years",
    )
    top = heaping["peaks"][:8]
    _bars(
        peaks,
        [f"age {peak['age']}" for peak in top],
        [peak["times"] for peak in top],
        [f"{peak['times']:.1f} × · {peak['n']:,} faces" for peak in top],
        [PLAIN if peak["age"] % 5 else STRONG for peak in top],
        "As often as the ages around it",
    )
    peaks.axvline(1, color=FAINT, linestyle="--", linewidth=1)
    return figure


def _edges_figure(explored: Explored) -> Figure:
    figure, panels = _figure(2.8, columns=len(EDGES), sharey=True)
    for axes, edge in zip(panels, explored.numbers["bin_edges"], strict=True):
        years = range(edge["edge"] - 4, edge["edge"] + 6)
        colours = [PALETTES["age_group"][age_group_of(age)] for age in years]
        colours[4] = STRONG
        axes.bar(years, explored.ages[years], width=0.8, color=colours)
        axes.axvline(edge["edge"] + 0.5, color=FAINT, linestyle=":", linewidth=1)
        axes.set_xticks([years[0], years[4], years[-1]])
        _titled(axes, f"{edge['edge']} years: {100 * edge['share']:.1f} %")
    panels[0].set_ylabel("faces", size=SIZE, color=INK)
    return figure


def _age_groups_figure(explored: Explored) -> Figure:
    tasks = [task for task in ("gender", "race") if explored.has(task)]
    tables = [explored.crossed(task, "age_group") for task in tasks]
    counts = pd.concat([table.set_axis(list(table.index)) for table in tables])
    figure, (axes,) = _figure(0.9 + 0.42 * len(counts))
    _stacked(axes, counts, "age_group")
    if len(tables) == 2:
        axes.axhline(len(tables[0]) - 0.5, color=FAINT, linewidth=0.8)
    return figure


def donut_figure(explored: Explored) -> Figure:
    """Draw gender within, race without; each slice is drawn and named by one and the same row."""
    pairs = explored.counts("gender", "race")
    pairs = pairs[pairs > 0]
    genders = pairs.groupby(level="gender", observed=True).sum()
    figure, (axes,) = _figure(5.2)
    for label, counts, radius, place, between in (
        ("gender", genders, 0.64, 0.74, "\n"),
        ("race", pairs, 1.0, 1.12, " · "),
    ):
        classes = counts.index.get_level_values(label)
        slices, texts, *_ = axes.pie(
            counts, radius=radius, startangle=90, counterclock=False, labeldistance=place,
            labels=[f"{name}\n{n:,}{between}{100 * n / pairs.sum():.1f} %"
                    for name, n in zip(classes, counts, strict=True)],
            colors=[PALETTES[label][code] for code in classes.codes],
            wedgeprops={"width": 0.34, "edgecolor": PAPER, "linewidth": 1.5},
            textprops={"size": SIZE, "color": INK},
        )  # fmt: skip
        for key, piece, text in zip(counts.index, slices, texts, strict=True):
            name = key if label == "gender" else "-".join(key)
            piece.set_gid(f"slice-{name}")
            text.set_gid(f"label-{name}")
            if label == "gender" or abs(text.get_position()[0]) < 0.3:
                text.set(horizontalalignment="center")
            if label == "gender":
                text.set(color="#fefefe")
    return figure


def _ages_by_race_figure(explored: Explored) -> Figure:
    names = CLASS_NAMES["race"]
    figure, panels = _figure(0.6 + 1.05 * len(names), rows=len(names), sharex=True, sharey=True)
    years, everyone = np.arange(OLDEST + 1), density(explored.ages)
    by_race = [explored.ages_of(name) for name in names]
    top = max(density(ages).max() for ages in (explored.ages, *by_race))
    for axes, name, ages, colour in zip(panels, names, by_race, PALETTES["race"], strict=True):
        axes.plot(years[1:], everyone[1:], color=FAINT, linewidth=1, linestyle=":")
        text = f"under {FEWEST_FOR_A_DENSITY}: not drawn"
        if ages.sum() >= FEWEST_FOR_A_DENSITY:
            smooth = density(ages)
            low, middle, high = (quantile_of(ages, level) for level in (0.25, 0.5, 0.75))
            for first, last, alpha in ((1, OLDEST, 0.3), (low, high, 0.45)):
                part = slice(first, last + 1)
                axes.fill_between(years[part], smooth[part], color=colour, alpha=alpha, linewidth=0)
            axes.plot(years[1:], smooth[1:], color=colour, linewidth=1.8)
            axes.vlines(middle, 0, smooth[middle], color=colour, linewidth=2)
            text = f"median {middle}"
        axes.text(0.995, 0.92, f"{name} · {ages.sum():,} · {text}", ha="right", va="top",
                  size=SIZE, color=INK, transform=axes.transAxes)  # fmt: skip
        axes.set_yticks([])
        axes.set_ylim(0, 1.03 * top)
        axes.set_xlim(0, 100)
        _titled(axes, grid="x")
    panels[-1].set_xlabel("age in years", size=SIZE, color=INK)
    return figure


def _parts_figure(explored: Explored) -> Figure:
    tasks = [task for task in TASKS if explored.has(task)]
    figure, panels = _figure(1.5 * len(tasks), rows=len(tasks))
    for axes, task in zip(panels, tasks, strict=True):
        _stacked(axes, explored.crossed("part", task), task)
        axes.set_xticks([])
    return figure


def _duplicates_figure(explored: Explored) -> Figure:
    same = explored.numbers["duplicates"]
    figure, (groups, years) = _figure(3.0, columns=2)
    rows = {
        "files equal byte by byte": same["groups"],
        "… disagree on age in years": same["groups_in_conflict_age"],
        "… on age group": same["groups_in_conflict_age_group"],
        "… on race": same["groups_in_conflict_race"],
        "… on gender": same["groups_in_conflict_gender"],
        "… on any task: no place": same["groups_in_conflict_any_task"],
    }
    texts, colours = [f"{n:,}" for n in rows.values()], [PLAIN, *[STRONG] * (len(rows) - 1)]
    _bars(groups, list(rows), list(rows.values()), texts, colours, "Groups of equal files", 1.2)
    apart = np.minimum(np.array(explored.numbers["years_apart"], np.int64), 31)
    if len(apart):
        years.bar(range(1, 32), np.bincount(apart, minlength=32)[1:], width=0.85, color=STRONG)
        years.set_xticks([1, 5, 10, 15, 20, 25, 31], ["1", "5", "10", "15", "20", "25", "31+"])
        years.yaxis.set_major_locator(MaxNLocator(integer=True))
    _titled(years, "Years between two ages of one file", y="groups")
    return figure
