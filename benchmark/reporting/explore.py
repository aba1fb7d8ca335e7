"""The composition of a data set: its labels counted, alone and together, and drawn; no face.

Shares are of the faces that have the label in question. The page is templates/explore.html.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark import __version__
from benchmark.data import labelled
from benchmark.data.dataset import FaceSet
from benchmark.data.duplicates import count_duplicates, near_in_words
from benchmark.data.labels import LICENCE, WEBSITE, age_group_of
from benchmark.data.splits import PARTS
from benchmark.evaluation.figures import FAINT, INK, PAPER, finish, percent_ticks, write_png
from benchmark.files import check_outputs, write_text
from benchmark.reporting.figures import svg
from benchmark.reporting.tables import NOTHING, Cell, Table, page
from benchmark.tasks import (
    AGE_GROUP_UPPER_YEARS,
    CLASS_NAMES,
    MISSING,
    TASK_TITLES,
    TASKS,
    TaskName,
)

PAGE_FILE: Final = "index.html"
OLDEST: Final = AGE_GROUP_UPPER_YEARS[-1]
EDGES: Final = AGE_GROUP_UPPER_YEARS[:-1]
"""The last age of each group but the oldest: a year more, and the label is another."""
WHIPPLE_AGES: Final = range(23, 63)
"""Ages of Whipple's index; of them a fifth end in 0 or 5 (United Nations, Demographic Yearbook)."""
PART_TITLES: Final = {"train": "training", "val": "validation", "test": "test"}
CROSSED: Final[tuple[tuple[TaskName, str], ...]] = (
    *(("gender", "age_group"), ("race", "age_group"), ("gender", "race")),
)
PALETTES: Final[dict[str, tuple[str, ...]]] = {
    "age_group": ("#5DA5D9", "#3987BF", "#1F6BA6", "#B5651D", "#8A4A12"),
    "gender": ("#4C86C6", "#D9773F"),
    "race": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B"),
}
"""Of classes: they differ for colour-blind readers, and are of a middle lightness that shows on
white and black. Every class is named beside its colour too."""
SIZE: Final = 11
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
    ages: npt.NDArray[np.int64]
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
    ages = np.bincount(named["age"].dropna().astype(np.int64), minlength=OLDEST + 1)
    n_aged = max(int(ages.sum()), 1)
    n_whipple, n_rounded = (int(ages[of].sum()) for of in (WHIPPLE_AGES, WHIPPLE_AGES[2::5]))
    explored = Explored(faces, named, ages, {})
    explored.numbers.update(
        dataset=faces.name,
        drawn=faces.drawn,
        faces=len(table),
        parts={part: int(n) for part, n in explored.counts("part").items()},
        without={label: int(named[label].isna().sum()) for label in ("age", *TASKS)},
        counts={t: {name: int(n) for name, n in explored.counts(t).items()} for t in TASKS},
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
        ],  # fmt: skip
        # 100: ages that end in 0 or 5 are not preferred; 500: there are no others.
        heaping={"whipple": 500 * n_rounded / n_whipple} if n_whipple else None,
        duplicates=count_duplicates(table),
        left_out=faces.left_out().to_dict("records"),
        labels=faces.manifest.get("labels"),
    )
    return explored


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
    numbers, n_aged = explored.numbers, int(explored.ages.sum())
    found = [("usable faces", f"{numbers['faces']:,}")]
    if n_aged:
        on_edge = sum(edge["n"] for edge in numbers["bin_edges"])
        found.append(("median age in years", f"{explored.named['age'].median():.0f}"))
        found.append(("on an edge between age groups", share(on_edge, n_aged)))
    if heaping := numbers["heaping"]:
        found.append(("Whipple's index (100: ages not rounded)", f"{heaping['whipple']:.0f}"))
    same = numbers["duplicates"]
    conflicts = ("of these with labels in conflict", f"{same['groups_in_conflict']:,}")
    return [*found, ("groups of equal files", f"{same['groups']:,}"), conflicts]


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
    """Give the page's tables by the section that they stand in."""
    numbers, named = explored.numbers, explored.named
    found = {"classes": pd.concat(_classes(explored, task) for task in TASKS)}
    if explored.has("age", "race"):
        by_race = named.groupby("race", observed=True)["age"].describe()
        shown = by_race[["count", "25%", "50%", "75%", "mean"]].reset_index()
        found["ages-by-race"] = shown.astype({"race": str})
    for label, other in CROSSED:
        if explored.has(label, other):
            crossed = explored.crossed(label, other).rename(index=str, columns=str)
            crossed["all"] = crossed.sum(axis=1)
            found[f"{label}-{other}"] = crossed.rename_axis(TASK_TITLES[label]).reset_index()
    if numbers["left_out"]:
        found["left-out"] = pd.DataFrame(numbers["left_out"]).rename(columns={"n": "files"})
    return {name: _table(frame) for name, frame in found.items()}


def _classes(explored: Explored, task: TaskName) -> pd.DataFrame:
    counts = explored.counts(task)
    found = {
        "label": TASK_TITLES[task], "class": counts.index.astype(str), "faces": counts.to_numpy(),
        "%": 100 * counts.to_numpy() / max(counts.sum(), 1),
    }  # fmt: skip
    by_part = explored.crossed(task, "part")
    return pd.DataFrame(found | {PART_TITLES[part]: by_part[part].to_numpy() for part in PARTS})


def _table(frame: pd.DataFrame) -> Table:
    rows = [
        [
            Cell(value if isinstance(value, str) else f"{value:,.1f}".removesuffix(".0"), "", value)
            for value in row
        ]
        for row in frame.itertuples(index=False)
    ]
    return Table.of(frame.columns, rows)


def figures_of(explored: Explored) -> dict[str, Figure]:
    """Draw every figure for which the data set has the labels, by its file's name."""
    has = explored.has
    by = [explored.crossed(t, "age_group").rename(index=str) for t in ("gender", "race") if has(t)]
    found = {"who": who_figure(explored)}
    if has("age"):
        found["ages"] = _ages_figure(explored)
    if has("age_group") and by:
        found["age_groups"] = _stacked(pd.concat(by), "age_group")
    if has("gender", "race"):
        found["gender_race"] = _stacked(explored.crossed("gender", "race"), "race")
    return found


def _figure(height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9.0, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False).ravel())


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
        axes.set_title(title, size=SIZE + 1, color=INK, loc="left")
        finish(axes, grid="")
    return figure


def _ages_figure(explored: Explored) -> Figure:
    figure, (axes,) = _figure(3.6)
    colours = [PALETTES["age_group"][age_group_of(age)] for age in range(1, OLDEST + 1)]
    axes.bar(range(1, OLDEST + 1), explored.ages[1:], width=0.9, color=colours)
    top = int(explored.ages.max())
    for edge in EDGES:
        axes.axvline(edge + 0.5, color=FAINT, linestyle=":", linewidth=1)
    groups, ends = explored.counts("age_group").items(), (0, *EDGES, 100)
    for (name, n), low, high in zip(groups, ends, ends[1:], strict=False):
        axes.text((low + 1 + high) / 2, top * 1.12, f"{name}\n{n:,}", ha="center", va="center",
                  size=SIZE, color=INK)  # fmt: skip
    axes.set_xticks(range(0, OLDEST + 1, 10))
    axes.set_xlim(0, OLDEST + 1)
    axes.set_ylim(0, top * 1.22)
    axes.set_xlabel("age in years", size=SIZE, color=INK)
    axes.set_ylabel("faces", size=SIZE, color=INK)
    finish(axes)
    return figure


def _stacked(counts: pd.DataFrame, task: str) -> Figure:
    """Draw a bar of shares per row of the table, the classes of `task` in it from left to right."""
    figure, (axes,) = _figure(0.8 + 0.42 * len(counts))
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
