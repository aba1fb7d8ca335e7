"""The composition of a data set: its labels counted, alone and together, and drawn; no face.

Shares are of the faces that have the label in question. The page is templates/explore.html.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from benchmark import __version__
from benchmark.data import labelled
from benchmark.data.dataset import FaceSet
from benchmark.data.duplicates import count_duplicates, identical_files, near_in_words
from benchmark.data.labels import LICENCE, WEBSITE, age_group_of
from benchmark.data.splits import PARTS
from benchmark.evaluation.figures import FAINT, INK, PAPER, finish, percent_ticks, write_png
from benchmark.files import check_outputs, write_text
from benchmark.reporting.figures import svg
from benchmark.reporting.tables import NOTHING, Cell, Table, page
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, CLASS_NAMES, MISSING, TASK_TITLES, TASKS

PAGE_FILE: Final = "index.html"
OLDEST: Final = AGE_GROUP_UPPER_YEARS[-1]
EDGES: Final = AGE_GROUP_UPPER_YEARS[:-1]
"""The last age of each group but the oldest: a year more, and the label is another."""
WHIPPLE_AGES: Final = range(23, 63)
"""Ages of Whipple's index; of them a fifth end in 0 or 5 (United Nations, Demographic Yearbook)."""
DIGIT_AGES: Final = range(20, 70)
"""Five whole decades, in which every last digit is there equally often."""
LEAST_PEAK: Final = 0.005
"""A peak of fewer faces than this share of all is not listed."""
BANDWIDTH_YEARS: Final = 2.5
"""Wide enough to smooth the peaks at 5 and 10 years, which are habits of labelling, not people."""
FEWEST_FOR_A_DENSITY: Final = 30
PART_TITLES: Final = {"train": "training", "val": "validation", "test": "test"}
PALETTES: Final[dict[str, tuple[str, ...]]] = {
    "age_group": ("#5DA5D9", "#3987BF", "#1F6BA6", "#B5651D", "#8A4A12"),
    "gender": ("#4C86C6", "#D9773F"),
    "race": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B"),
}
"""Of classes: they differ for colour-blind readers, and are of a middle lightness that shows on
white and black. Every class is named beside its colour too."""
HEADINGS: Final = {
    "n": "faces", "count": "faces", "times": "times as often", "edge": "last age of a group",
    "n_next": "faces a year above", "share_next": "share a year above", "first": "one class",
    "second": "another", "25%": "a quarter up to", "50%": "half up to", "75%": "3 quarters up to",
}  # fmt: skip
SIZE: Final = 11
Counts = npt.NDArray[np.int64]
SYNTHETIC_NOTE: Final = (
    "SYNTHETIC FACES: emblems drawn by a program. Nothing here says anything about people."
)
PERCEIVED_NOTE: Final = (
    "Labels are perceived age, gender and race as somebody or some model put them down: they are "
    "noisy, and they are not how people describe themselves."
)


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
    ages = count_ages(named["age"])
    n_aged = max(int(ages.sum()), 1)
    same = identical_files(table)
    groups = named.loc[same.index].groupby(same["sha256"])
    years_apart = groups["age"].max() - groups["age"].min()
    explored = Explored(faces, named, ages, {})
    explored.numbers.update(
        dataset=faces.name,
        drawn=faces.drawn,
        faces=len(table),
        parts={part: int(n) for part, n in explored.counts("part").items()},
        without={label: int(named[label].isna().sum()) for label in ("age", *TASKS)},
        counts={t: {name: int(n) for name, n in explored.counts(t).items()} for t in TASKS},
        ages={str(age): int(n) for age, n in enumerate(ages) if n},
        gender_race=explored.counts("gender", "race").reset_index(name="n").to_dict("records"),
        bin_edges=[
            {"edge": edge, "n": n, "share": n / n_aged, "n_next": over, "share_next": over / n_aged}
            for edge in EDGES
            for n, over in [ages[edge : edge + 2].tolist()]
        ],
        heaping=_heaping(ages) if ages.any() else None,
        duplicates=count_duplicates(table),
        years_apart=years_apart[years_apart > 0].astype(int).tolist(),
        disagreements=[
            {"task": task, "first": pair[0], "second": pair[1], "groups": n}
            for task in TASKS
            for pair, n in _pairs(groups[task])
        ],
        left_out=faces.left_out().to_dict("records"),
        labels=faces.manifest.get("labels"),
    )
    return explored


def count_ages(ages: "pd.Series[Any]") -> Counts:
    """Count ages in years, leaving out those that are not known: (117,)."""
    return np.bincount(ages.dropna().astype(np.int64), minlength=OLDEST + 1)


def _pairs(groups: Iterable[tuple[Any, "pd.Series[Any]"]]) -> list[tuple[tuple[str, str], int]]:
    """Count the pairs of classes within groups of labels; three classes are three pairs."""
    known = (labels.cat.remove_unused_categories().cat.categories for _, labels in groups)
    pairs = Counter(pair for classes in known for pair in combinations(classes, 2))
    return sorted(pairs.items(), key=lambda item: (-item[1], item[0]))


def _heaping(ages: Counts) -> dict[str, Any]:
    """Say how far ages are rounded; None where nobody is of these ages.

    digit_shares: of the faces of DIGIT_AGES, by last digit 0 to 9. whipple: 100 without a
    preference for 0 and 5, 500 where nothing else occurs. peaks: ages that are more frequent than
    the two on either side, on average; most first.
    """
    digits = ages[DIGIT_AGES].reshape(-1, 10).sum(axis=0)
    n_whipple, n_rounded = (int(ages[of].sum()) for of in (WHIPPLE_AGES, WHIPPLE_AGES[2::5]))
    peaks = pd.DataFrame({"age": range(len(ages)), "n": ages, "share": ages / ages.sum()})[1:]
    window = peaks["n"].rolling(5, center=True, min_periods=1)
    around = (window.sum() - peaks["n"]) / (window.count() - 1)
    peaks["times"] = peaks["n"] / around.where(around > 0)
    peaks = peaks[(peaks["share"] >= LEAST_PEAK) & (peaks["times"] > 1)]
    return {
        "digit_shares": (digits / digits.sum()).tolist() if digits.any() else None,
        "whipple": 500 * n_rounded / n_whipple if n_whipple else None,
        "peaks": peaks.sort_values(["times", "age"], ascending=[False, True]).to_dict("records"),
    }


def density(ages: Counts) -> npt.NDArray[np.float64]:
    """Smooth counts by age into a density (117,), mirrored at half a year: nobody is below."""
    smooth = gaussian_filter1d(ages[1:] / max(ages.sum(), 1), BANDWIDTH_YEARS, mode="reflect")
    return np.append(0.0, smooth)


def share(part: float, whole: float) -> str:
    """Write a part of a whole as percent."""
    return f"{100 * part / whole:.1f} %" if whole else NOTHING


def lead(explored: Explored) -> str:
    """Say in a sentence or two what data set this is."""
    faces, manifest = explored.faces, explored.faces.manifest
    counts, kind = manifest["counts"], "synthetic faces" if faces.drawn else "faces"
    is_utkface = "utkface" in faces.name and not faces.drawn
    licence = f" UTKFace ({WEBSITE}) is for {LICENCE}." if is_utkface else ""
    return (
        f"{counts['usable']:,} usable {kind} of {counts['image_files']:,} image files from "
        f"{manifest['source']}, packed at {faces.image_px} px; {counts['placed']:,} have a place "
        f"in the split {manifest['split_version']}.{licence}"
    )


def notes(explored: Explored) -> list[str]:
    """Say what must be known before a number is read."""
    said = labelled.label_gaps(explored.faces)
    said += [explored.faces.datasheet] if explored.faces.datasheet else []
    return [SYNTHETIC_NOTE if explored.faces.drawn else PERCEIVED_NOTE, *said]


def facts(explored: Explored) -> list[tuple[str, str]]:
    """Give the few numbers that stand first: what is counted, and the number."""
    numbers, same = explored.numbers, explored.numbers["duplicates"]
    found = [("usable faces", f"{numbers['faces']:,}")]
    if n_aged := int(explored.ages.sum()):
        on_edge = sum(edge["n"] for edge in numbers["bin_edges"])
        found.append(("median age in years", f"{explored.named['age'].median():.0f}"))
        found.append(("on an edge between age groups", share(on_edge, n_aged)))
        whipple = numbers["heaping"]["whipple"]
        shown = NOTHING if whipple is None else f"{whipple:.0f}"
        found.append(("Whipple's index (100: ages not rounded)", shown))
    found.append(("groups of equal files", f"{same['groups']:,}"))
    return [*found, ("of these with labels in conflict", f"{same['groups_in_conflict']:,}")]


def write_exploration(explored: Explored, folder: Path, overwrite: bool = True) -> list[Path]:
    """Write the page and its figures as PNGs into `folder`; give their paths, the page first."""
    figures = figures_of(explored)
    files = [folder / PAGE_FILE, *(folder / f"{name}.png" for name in figures)]
    check_outputs(files, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    svgs = {name: svg(figure, name, name.replace("_", " ")) for name, figure in figures.items()}
    for name, figure in figures.items():
        write_png(folder / f"{name}.png", figure)
    write_text(folder / PAGE_FILE, exploration_page(explored, svgs))
    return files


def exploration_page(explored: Explored, svgs: Mapping[str, str]) -> str:
    """Lay out the page; svgs: by the names that `figures_of` gives figures."""
    faces = explored.faces
    return page(
        "explore.html",
        title=f"Composition of {faces.name}",
        faces=faces,
        lead=lead(explored),
        notes=notes(explored),
        facts=facts(explored),
        numbers=explored.numbers,
        near=near_in_words(faces.manifest["near_duplicates"]),
        svgs=svgs,
        tables=tables_of(explored),
        share=share,
        version=__version__,
    )


def tables_of(explored: Explored) -> dict[str, Table]:
    """Give the page's tables, without those that would be empty."""
    numbers, table, ages = explored.numbers, explored.faces.table, explored.ages
    found = {"classes": pd.concat(_classes(explored, task) for task in TASKS)}
    if ages.any():
        by_age = pd.DataFrame({"age": range(len(ages)), "faces": ages, "share": ages / ages.sum()})
        found["by-age"] = by_age[by_age["faces"] > 0]
        found["peaks"] = pd.DataFrame(numbers["heaping"]["peaks"])
        found["edges"] = pd.DataFrame(numbers["bin_edges"])
    if explored.has("age", "race"):
        by_race = explored.named.dropna(subset="age").groupby("race", observed=True)["age"]
        shown = by_race.describe()[["count", "25%", "50%", "75%", "mean"]]
        found["ages-by-race"] = shown.rename(index=str).reset_index()
    for label, other in (("gender", "age_group"), ("race", "age_group"), ("gender", "race")):
        if explored.has(label, other):
            crossed = explored.crossed(label, other).rename(index=str, columns=str)
            crossed["all"] = crossed.sum(axis=1)
            found[f"{label}-{other}"] = crossed.rename_axis(label).reset_index()
    found["disagreements"] = pd.DataFrame(numbers["disagreements"]).replace({"task": TASK_TITLES})
    sizes = table["cluster"].value_counts().rename("faces in a cluster")
    clusters = sizes[sizes > 1].value_counts().sort_index().reset_index(name="clusters")
    found["clusters"] = clusters.assign(faces=clusters.prod(axis=1))
    found["left-out"] = pd.DataFrame(numbers["left_out"]).rename(columns={"n": "files"})
    return {name: _table(frame) for name, frame in found.items() if len(frame)}


def _classes(explored: Explored, task: str) -> pd.DataFrame:
    counts = pd.DataFrame({"faces": explored.counts(task)})
    counts["share"] = counts["faces"] / max(counts["faces"].sum(), 1)
    parts = explored.crossed(task, "part").set_axis([*PART_TITLES.values()], axis=1)
    shares = (parts / parts.sum().clip(lower=1)).add_prefix("share of ")
    found = pd.concat([counts, parts, shares], axis=1).rename(index=str)
    return found.rename_axis("class").reset_index().assign(label=task.replace("_", " "))


def _table(frame: pd.DataFrame) -> Table:
    """Make a sortable table; columns whose names begin with `share` are in percent."""
    cells = {
        name: [
            Cell(str(value)) if isinstance(value, str)
            else Cell(share(value, 1), "", value) if name.startswith("share")
            else Cell(f"{value:,.1f}".removesuffix(".0"), "", value)
            for value in frame[name].tolist()
        ]
        for name in map(str, frame)
    }  # fmt: skip
    return Table.of([HEADINGS.get(name, name) for name in cells], zip(*cells.values(), strict=True))


def figures_of(explored: Explored) -> dict[str, Figure]:
    """Draw every figure for which the data set has the labels, by its file's name."""
    has, crossed, heaping = explored.has, explored.crossed, explored.numbers["heaping"]
    found = {"who": who_figure(explored)}
    if has("age"):
        found["ages"] = _ages_figure(explored)
    if heaping and heaping["whipple"] is not None:
        found["heaping"] = _heaping_figure(heaping)
    by = [crossed(task, "age_group").rename(index=str) for task in TASKS[1:] if has(task)]
    if has("age_group") and by:
        found["age_groups"] = _stacked([("age_group", pd.concat(by))])
    if explored.counts("gender", "race").any():
        found["gender_race"] = donut_figure(explored)
    if has("age", "race"):
        found["ages_by_race"] = _ages_by_race_figure(explored)
    if has("part"):
        by_part = [(t, crossed("part", t).rename(index=PART_TITLES)) for t in TASKS if has(t)]
        found["parts"] = _stacked(by_part)
    return found


def _figure(height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9.0, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _titled(axes: Axes, title: str = "", x: str = "", y: str = "", grid: str = "y") -> None:
    axes.set_title(title, size=SIZE + 1, color=INK, loc="left")
    axes.set_xlabel(x, size=SIZE, color=INK)
    axes.set_ylabel(y, size=SIZE, color=INK)
    finish(axes, grid=grid)


def who_figure(explored: Explored) -> Figure:
    """Draw the counts of gender, race and age group beside each other."""
    tasks = [task for task in (*TASKS[1:], TASKS[0]) if explored.has(task)]
    figure, panels = _figure(2.6, columns=max(len(tasks), 1))
    for axes, task in zip(panels, tasks, strict=False):
        counts, lacking = explored.counts(task), explored.numbers["without"][task]
        bars = axes.barh(range(len(counts)), counts.tolist(), color=PALETTES[task], height=0.72)
        texts = [f"{n:,} · {100 * n / counts.sum():.1f} %" for n in counts]
        axes.bar_label(bars, texts, padding=4, size=SIZE, color=INK)
        axes.set_yticks(range(len(counts)), list(counts.index))
        axes.invert_yaxis()
        axes.set_xlim(0, counts.max() * 1.7)
        axes.set_xticks([])
        title = TASK_TITLES[task] + (f", {lacking:,} not labelled" if lacking else "")
        _titled(axes, title, grid="")
    return figure


def _ages_figure(explored: Explored) -> Figure:
    figure, (axes,) = _figure(3.6)
    colours = [PALETTES["age_group"][age_group_of(age)] for age in range(1, OLDEST + 1)]
    for edge in EDGES:
        colours[edge - 1] = INK
    axes.bar(range(1, OLDEST + 1), explored.ages[1:], width=0.9, color=colours)
    top = int(explored.ages.max())
    groups, ends = explored.counts("age_group").items(), (0, *EDGES, 100)
    for (name, n), low, high in zip(groups, ends, ends[1:], strict=False):
        axes.text((low + 1 + high) / 2, top * 1.12, f"{name}\n{n:,}", ha="center", va="center",
                  size=SIZE, color=INK)  # fmt: skip
    axes.set_xticks(range(0, OLDEST + 1, 10))
    axes.set_xlim(0, OLDEST + 1)
    axes.set_ylim(0, top * 1.22)
    _titled(axes, x="age in years", y="faces")
    return figure


def _heaping_figure(heaping: Mapping[str, Any]) -> Figure:
    figure, (axes,) = _figure(2.8)
    colours = ["#4C86C6" if digit % 5 else "#D55E00" for digit in range(10)]
    axes.bar(range(10), heaping["digit_shares"], color=colours, width=0.75)
    axes.axhline(0.1, color=FAINT, linestyle="--", linewidth=1)
    axes.set_xticks(range(10))
    axes.yaxis.set_major_formatter(percent_ticks())
    _titled(axes, "", "last digit of the age, 20 to 69 years", "share of faces")
    return figure


def donut_figure(explored: Explored) -> Figure:
    """Draw gender within, race without; each slice is drawn and named by one and the same row."""
    pairs = explored.counts("gender", "race")
    pairs = pairs[pairs > 0]
    genders = pairs.groupby(level="gender", observed=True).sum()
    figure, (axes,) = _figure(5.2)
    for label, counts, radius, place, between in (
        ("gender", genders, 0.64, 0.74, "\n"), ("race", pairs, 1.0, 1.12, " · "),
    ):  # fmt: skip
        classes = counts.index.get_level_values(label)
        _, texts, *_ = axes.pie(
            counts, radius=radius, startangle=90, counterclock=False, labeldistance=place,
            labels=[f"{name}\n{n:,}{between}{100 * n / pairs.sum():.1f} %"
                    for name, n in zip(classes, counts, strict=True)],
            colors=[PALETTES[label][code] for code in classes.codes],
            wedgeprops={"width": 0.34, "edgecolor": PAPER, "linewidth": 1.5},
            textprops={"size": SIZE, "color": INK},
        )  # fmt: skip
        for text in texts:
            if label == "gender" or abs(text.get_position()[0]) < 0.3:
                text.set(horizontalalignment="center")
            if label == "gender":
                text.set(color="#fefefe")
    return figure


def _ages_by_race_figure(explored: Explored) -> Figure:
    figure, (axes,) = _figure(3.6)
    years = range(1, OLDEST + 1)
    axes.plot(years, density(explored.ages)[1:], color=FAINT, linestyle=":", label="all faces")
    by_race = explored.named.dropna(subset="age").groupby("race", observed=False)["age"]
    for (name, ages), colour in zip(by_race, PALETTES["race"], strict=True):
        if len(ages) >= FEWEST_FOR_A_DENSITY:
            label = f"{name} · {len(ages):,} · median {ages.median():g}"
            axes.plot(
                years, density(count_ages(ages))[1:], color=colour, linewidth=1.8, label=label
            )
    axes.set_xlim(1, 100)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.legend(frameon=False, fontsize=SIZE, labelcolor=INK)
    _titled(axes, x="age in years", y="density", grid="x")
    return figure


def _stacked(tables: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
    """Draw a panel per table by task, in it a bar of shares per row: the classes of the task."""
    heights = [0.8 + 0.42 * len(counts) for _, counts in tables]
    figure, panels = _figure(sum(heights), rows=len(tables))
    for axes, (task, counts) in zip(panels, tables, strict=True):
        totals = counts.sum(axis=1)
        shares = counts.div(totals.clip(lower=1), axis=0)
        starts = shares.cumsum(axis=1) - shares
        for name, colour in zip(counts.columns, PALETTES[task], strict=True):
            bars = axes.barh(range(len(counts)), shares[name], left=starts[name], color=colour,
                             height=0.78, label=name, edgecolor=PAPER, linewidth=1)  # fmt: skip
            texts = [f"{100 * part:.0f}" if part >= 0.03 else "" for part in shares[name]]
            axes.bar_label(bars, texts, label_type="center", size=SIZE - 1, color="#fefefe")
        axes.set_yticks(range(len(counts)), [f"{name}  ({n:,})" for name, n in totals.items()])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(percent_ticks())
        finish(axes, grid="")
        axes.legend(ncols=counts.shape[1], frameon=False, fontsize=SIZE, labelcolor=INK,
                    loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)  # fmt: skip
    return figure
