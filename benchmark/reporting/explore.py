"""The composition of a data set: its labels counted, alone and together, and drawn; no face.

Shares are of the faces that have the label in question. The page is templates/explore.html.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from benchmark import __version__
from benchmark.data import labelled
from benchmark.data.dataset import FaceSet
from benchmark.data.duplicates import count_duplicates, near_in_words
from benchmark.data.labels import LICENCE, WEBSITE, age_group_of
from benchmark.evaluation.figures import FAINT, INK, LOOK, PAPER, finish, percent_ticks, write_png
from benchmark.evaluation.predictions import limits_of
from benchmark.files import check_outputs, write_text
from benchmark.reporting.figures import svg
from benchmark.reporting.tables import NOTHING, Cell, Table, template
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, CLASS_NAMES, MISSING, TASK_TITLES, TASKS

OLDEST: Final = AGE_GROUP_UPPER_YEARS[-1]
EDGES: Final = AGE_GROUP_UPPER_YEARS[:-1]
"""The last age of each group but the oldest: a year more, and the label is another."""
WHIPPLE_AGES: Final = range(23, 63)
"""Ages of Whipple's index; of them a fifth end in 0 or 5 (United Nations, Demographic Yearbook)."""
DIGIT_AGES: Final = range(20, 70)
"""Five whole decades, in which every last digit is there equally often."""
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
ON_COLOUR: Final = "#fefefe"
HEADINGS: Final = {
    "n": "faces",
    "edge": "last age of a group",
    "n_next": "faces a year above",
    "share_next": "share a year above",
}
Counts = npt.NDArray[np.int64]


class Explored:
    """A data set, counted from its table; no picture is read.

    named: a row per usable face, with age in years and the names of its classes and part; NaN for
    none. known: the columns of `named` that hold anything. ages: (117,), faces by age in years;
    nobody is 0. numbers: everything as plain values, for --json.
    """

    def __init__(self, faces: FaceSet) -> None:
        table, self.faces = faces.table, faces
        named = self.named = pd.DataFrame()
        for task in TASKS:  # -1 is MISSING
            codes, names = table[task].to_numpy(), pd.Index(CLASS_NAMES[task])
            named[task] = pd.Categorical.from_codes(codes, names)
        parts = table["part"].map(PART_TITLES)
        named["part"] = pd.Categorical(parts, [*PART_TITLES.values()])
        named["age"] = table["age"].where(table["age"] != MISSING).to_numpy()
        self.known = {label for label in named if named[label].notna().any()}
        years = named["age"].dropna().astype(np.int64)
        self.ages = ages = np.bincount(years, minlength=OLDEST + 1)
        edges = pd.DataFrame({"edge": EDGES, "n": ages[[*EDGES]]})
        edges["share"] = edges["n"] / max(len(years), 1)
        edges["n_next"] = ages[[edge + 1 for edge in EDGES]]
        edges["share_next"] = edges["n_next"] / max(len(years), 1)
        self.numbers: dict[str, Any] = {
            "dataset": faces.name,
            "drawn": faces.drawn,
            "faces": len(table),
            "counts": {task: self.counts(task).to_dict() for task in TASKS},
            "ages": {str(age): int(n) for age, n in enumerate(ages) if n},
            "bin_edges": edges.to_dict("records"),
            "heaping": _heaping(ages) if ages.any() else None,
            "duplicates": count_duplicates(table),
            "left_out": faces.left_out().to_dict("records"),
            "labels": faces.manifest.get("labels"),
        }

    def counts(self, *labels: str) -> Any:
        """Count faces by class, or by all pairs of classes of two labels; every class is there."""
        return self.named.groupby(list(labels), observed=False).size()

    def lead(self) -> str:
        """Say in a sentence or two what data set this is."""
        faces, manifest, counts = self.faces, self.faces.manifest, self.faces.manifest["counts"]
        is_utkface = "utkface" in faces.name and not faces.drawn
        licence = f" UTKFace ({WEBSITE}) is for {LICENCE}." if is_utkface else ""
        return (
            f"{counts['usable']:,} usable {'synthetic ' * faces.drawn}faces of "
            f"{counts['image_files']:,} image files from {manifest['source']}, packed at "
            f"{faces.image_px} px; {counts['placed']:,} have a place in the split "
            f"{manifest['split_version']}.{licence}"
        )

    def notes(self) -> list[str]:
        """Say what must be known before a number is read."""
        faces = self.faces
        first = limits_of({"drawn": faces.drawn, "labels_digest": faces.labels_digest})[0]
        return [first, *labelled.label_gaps(faces), *filter(None, [faces.datasheet])]

    def facts(self) -> dict[str, str]:
        """Give the few numbers that stand first, by what is counted."""
        same, found = self.numbers["duplicates"], {"usable faces": f"{self.numbers['faces']:,}"}
        if n_aged := self.ages.sum():
            whipple = self.numbers["heaping"]["whipple"]
            found["median age in years"] = f"{self.named['age'].median():.0f}"
            found["on an edge between age groups"] = share(self.ages[[*EDGES]].sum(), n_aged)
            shown = NOTHING if whipple is None else f"{whipple:.0f}"
            found["Whipple's index (100: ages not rounded)"] = shown
        found["groups of equal files"] = f"{same['groups']:,}"
        found["of these with labels in conflict"] = f"{same['groups_in_conflict']:,}"
        return found


def _heaping(ages: Counts) -> dict[str, Any]:
    """Say how far ages are rounded: shares of last digits 0 to 9 of DIGIT_AGES; Whipple's index,
    100 without a preference for 0 and 5, 500 where nothing else occurs (None where nobody is of
    these ages)."""
    digits = ages[DIGIT_AGES].reshape(-1, 10).sum(axis=0)
    n_whipple, n_rounded = (int(ages[of].sum()) for of in (WHIPPLE_AGES, WHIPPLE_AGES[2::5]))
    return {
        "digit_shares": (digits / digits.sum()).tolist() if digits.any() else None,
        "whipple": 500 * n_rounded / n_whipple if n_whipple else None,
    }


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else NOTHING


def write_exploration(explored: Explored, folder: Path, overwrite: bool = True) -> list[Path]:
    """Write the page and its figures as PNGs into `folder`; give their paths, the page first."""
    figures = figures_of(explored)
    files = [folder / "index.html", *(folder / f"{name}.png" for name in figures)]
    check_outputs(files, overwrite=overwrite)
    svgs = {name: svg(figure, name, name.replace("_", " ")) for name, figure in figures.items()}
    for path, figure in zip(files[1:], figures.values(), strict=True):
        write_png(path, figure)
    near, tables = near_in_words(explored.faces.manifest["near_duplicates"]), tables_of(explored)
    shown = {"svgs": svgs, "tables": tables, "near": near, "share": share, "version": __version__}
    title = f"Composition of {explored.faces.name}"
    write_text(files[0], template("explore.html").render(shown, title=title, explored=explored))
    return files


def tables_of(explored: Explored) -> dict[str, Table]:
    """Give the page's tables, without those that would be empty."""
    numbers, counts = explored.numbers, explored.counts
    found = {"classes": pd.concat(_classes(explored, task) for task in TASKS)}
    if explored.ages.any():
        found["edges"] = pd.DataFrame(numbers["bin_edges"])
    for label, other in (("gender", "age_group"), ("race", "age_group"), ("gender", "race")):
        if {label, other} <= explored.known:
            crossed = counts(label, other).unstack().rename(index=str, columns=str)
            found[f"{label}-{other}"] = crossed.assign(all=crossed.sum(axis=1)).reset_index()
    found["left-out"] = pd.DataFrame(numbers["left_out"]).rename(columns={"n": "files"})
    return {name: _table(frame) for name, frame in found.items() if len(frame)}


def _classes(explored: Explored, task: str) -> pd.DataFrame:
    counts = explored.counts(task)
    found = pd.DataFrame({"faces": counts, "share": counts / max(counts.sum(), 1)})
    parts = explored.counts(task, "part").unstack().rename(columns=str)
    named = found.join(parts).rename(index=str).rename_axis("class").reset_index()
    return named.assign(label=task.replace("_", " "))


def _table(frame: pd.DataFrame) -> Table:
    """Make a sortable table; columns whose names begin with `share` are in percent."""

    def cell(name: str, value: Any) -> Cell:
        if isinstance(value, str):
            return Cell(value)
        return Cell(share(value, 1) if name.startswith("share") else f"{value:,}", value=value)

    records = frame.to_dict("records")
    rows = [[cell(str(name), value) for name, value in it.items()] for it in records]
    return Table.of([HEADINGS.get(name, name) for name in map(str, frame)], rows)


@mpl.rc_context({**LOOK, "font.size": 11, "figure.constrained_layout.use": True})
def figures_of(explored: Explored) -> dict[str, Figure]:
    """Draw every figure for which the data set has the labels, by its file's name."""
    known, counts, heaping = explored.known, explored.counts, explored.numbers["heaping"]
    found = {"who": who_figure(explored)}
    if "age" in known:
        found["ages"] = _ages_figure(explored)
    if heaping and heaping["whipple"] is not None:
        found["heaping"] = _heaping_figure(heaping)
    by = [counts(task, "age_group").unstack() for task in TASKS[1:] if task in known]
    if "age_group" in known and by:
        found["age_groups"] = _shares_figure([("age_group", pd.concat(by))])
    if counts("gender", "race").any():
        found["gender_race"] = donut_figure(explored)
    if {"age", "race"} <= known:
        found["ages_by_race"] = _ages_by_race_figure(explored)
    if "part" in known:
        by_part = [(task, counts("part", task).unstack()) for task in TASKS if task in known]
        found["parts"] = _shares_figure(by_part)
    return found


def _figure(height: float, *shape: int, grid: str = "y", **labels: Any) -> tuple[Figure, Any]:
    """Make a figure of (rows, columns) panels, one if left out; labels: as Axes.set takes them."""
    figure = Figure(figsize=(9.0, height))
    panels = figure.subplots(*shape, squeeze=False).ravel()
    for axes in panels:
        axes.set(**labels)
        finish(axes, grid)
    return figure, panels


def who_figure(explored: Explored) -> Figure:
    """Draw the counts of gender, race and age group beside each other."""
    tasks = [task for task in (*TASKS[1:], TASKS[0]) if task in explored.known]
    figure, panels = _figure(2.6, 1, max(len(tasks), 1), grid="", xticks=[])
    for axes, task in zip(panels, tasks, strict=False):
        counts = explored.counts(task)
        bars = axes.barh(list(counts.index), counts, color=PALETTES[task], height=0.72)
        axes.bar_label(bars, [f"{n:,} · {share(n, counts.sum())}" for n in counts], padding=4)
        axes.invert_yaxis()
        axes.set_xlim(0, counts.max() * 1.7)
        axes.set_title(TASK_TITLES[task])
    return figure


def _ages_figure(explored: Explored) -> Figure:
    years, top = range(1, OLDEST + 1), int(explored.ages.max())
    figure, (axes,) = _figure(3.6, xlabel="age in years", ylabel="faces")
    axes.set(xlim=(0, OLDEST + 1), ylim=(0, top * 1.22), xticks=range(0, OLDEST, 10))
    colours = [INK if age in EDGES else PALETTES["age_group"][age_group_of(age)] for age in years]
    axes.bar(years, explored.ages[1:], width=0.9, color=colours)
    groups, ends = explored.counts("age_group").items(), (0, *EDGES, 100)
    for (name, n), low, high in zip(groups, ends, ends[1:], strict=False):
        axes.text((low + 1 + high) / 2, top * 1.12, f"{name}\n{n:,}", ha="center", va="center")
    return figure


def _heaping_figure(heaping: Mapping[str, Any]) -> Figure:
    label = "last digit of the age, 20 to 69 years"
    figure, (axes,) = _figure(2.8, xlabel=label, ylabel="share of faces", xticks=range(10))
    colours = ["#4C86C6" if digit % 5 else "#D55E00" for digit in range(10)]
    axes.bar(range(10), heaping["digit_shares"], color=colours, width=0.75)
    axes.axhline(0.1, color=FAINT, linestyle="--", linewidth=1)
    axes.yaxis.set_major_formatter(percent_ticks())
    return figure


def donut_figure(explored: Explored) -> Figure:
    """Draw gender within, race without; each slice is drawn and named by one and the same row."""
    pairs = explored.counts("gender", "race")
    pairs = pairs[pairs > 0]
    genders = pairs.groupby(level="gender", observed=True).sum()
    figure, (axes,) = _figure(5.2, grid="")
    for label, counts, radius, place, between in (
        ("gender", genders, 0.64, 0.74, "\n"),
        ("race", pairs, 1.0, 1.3, " · "),
    ):
        classes = counts.index.get_level_values(label)
        axes.pie(
            counts, radius=radius, startangle=90, counterclock=False, labeldistance=place,
            labels=[f"{name}\n{n:,}{between}{share(n, pairs.sum())}"
                    for name, n in zip(classes, counts, strict=True)],
            colors=[PALETTES[label][code] for code in classes.codes],
            wedgeprops={"width": 0.34, "edgecolor": PAPER, "linewidth": 1.5},
            textprops={"ha": "center", "color": ON_COLOUR if label == "gender" else INK},
        )  # fmt: skip
    return figure


def _ages_by_race_figure(explored: Explored) -> Figure:
    figure, (axes,) = _figure(3.6, grid="x", xlabel="age in years", ylabel="density", yticks=[])
    shown: list[Any] = [("all faces", explored.ages, {"color": FAINT, "linestyle": ":"})]
    by_race = explored.named.dropna(subset="age").groupby("race", observed=False)["age"]
    for (name, ages), colour in zip(by_race, PALETTES["race"], strict=True):
        if len(ages) >= FEWEST_FOR_A_DENSITY:
            label = f"{name} · {len(ages):,} · median {ages.median():g}"
            counts = np.bincount(ages.astype(np.int64), minlength=OLDEST + 1)
            shown.append((label, counts, {"color": colour, "linewidth": 1.8}))
    for label, counts, line in shown:
        # Mirrored at half a year: nobody is below.
        density = gaussian_filter1d(counts[1:] / counts.sum(), BANDWIDTH_YEARS, mode="reflect")
        axes.plot(range(1, OLDEST + 1), density, label=label, **line)
    axes.set(xlim=(1, 100), ylim=(0, None))
    axes.legend()
    return figure


def _shares_figure(tables: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
    """Draw a panel for each task and its counts: a bar of the classes' shares for each row."""
    height = sum(0.8 + 0.42 * len(counts) for _, counts in tables)
    figure, panels = _figure(height, len(tables), 1, grid="", xlim=(0, 1))
    for axes, (task, counts) in zip(panels, tables, strict=True):
        totals = counts.sum(axis=1)
        shares = counts.div(totals.clip(lower=1), axis=0)
        starts = shares.cumsum(axis=1) - shares
        rows = [f"{name}  ({n:,})" for name, n in totals.items()]
        for name, colour in zip(counts, PALETTES[task], strict=True):
            bars = axes.barh(rows, shares[name], left=starts[name], color=colour,
                             height=0.78, label=name, edgecolor=PAPER, linewidth=1)  # fmt: skip
            texts = [f"{100 * part:.0f}" if part >= 0.03 else "" for part in shares[name]]
            axes.bar_label(bars, texts, label_type="center", size=10, color=ON_COLOUR)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(percent_ticks())
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.1}
        axes.legend(ncols=counts.shape[1], **place)
    return figure
