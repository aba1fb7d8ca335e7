"""A network's test faces as coloured tables: accuracy by gender and race, and what is confused."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmark.comparison.wording import NOTHING, percent, span
from benchmark.evaluation.intervals import cluster_bootstrap, wilson
from benchmark.evaluation.subgroups import SMALL_GROUP, By, group_codes, group_names
from benchmark.reporting.evidence import Evidence, RankedNetwork
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TaskName, n_classes

SMALLEST_REACH: Final = 0.05
"""Colours span at least this much accuracy on either side, so that chance stays pale."""
BYS: Final[tuple[By, ...]] = ("gender_race", "gender", "race", "all")


@dataclass(frozen=True)
class MatrixCell:
    """A number on a coloured ground."""

    text: str = NOTHING
    note: str = ""
    tone: str = "empty"
    """A class of the page: `low`, `high`, `small`, `empty`, `right`, or none."""
    weight: int = 0
    """Percent of the tone's colour."""
    about: str = ""


@dataclass(frozen=True)
class Matrix:
    """A heat map or a confusion matrix of one task."""

    kind: str
    """`heat` or `confusion`."""
    task: TaskName
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[MatrixCell, ...]], ...]
    """Name, what stands small beneath it, cells."""


def heat_map(evidence: Evidence, network: RankedNetwork, task: TaskName) -> Matrix:
    """Show a task's accuracy by gender and race; raise RunError where predictions are unreadable.

    Intervals are Wilson's for one seed, else a cluster bootstrap of seed-averaged correctness.
    """
    predictions = evidence.book.answers(network.group).labelled(task)
    right = predictions.right(task)
    member = np.column_stack(
        [group_codes(predictions.faces, by) == code
         for by in BYS for code in range(len(group_names(by)))]
    )  # fmt: skip
    n_faces = member.sum(axis=0).astype(int)
    values = np.where(member, right.mean(axis=0)[:, None], np.nan)
    rates = np.nansum(values, axis=0) / np.maximum(n_faces, 1)
    if len(right) == 1:
        low, high = wilson((right[0][:, None] & member).sum(axis=0), n_faces)
    else:
        low, high = cluster_bootstrap(values, predictions.faces["cluster"].to_numpy())
    shades = np.where(n_faces >= SMALL_GROUP, rates - rates[-1], 0.0)
    reach = max(SMALLEST_REACH, float(np.abs(shades).max(initial=0.0)))

    def cell(index: int) -> MatrixCell:
        n = int(n_faces[index])
        if n == 0:
            return MatrixCell(about="no faces")
        is_small = n < SMALL_GROUP
        tone = "small" if is_small else "low" if shades[index] < 0 else "high"
        ends = span(float(low[index]), float(high[index]))
        weight = round(70 * abs(float(shades[index])) / reach)
        return MatrixCell(percent(float(rates[index])) + "*" * is_small, str(n), tone, weight, ends)

    races, genders = n_classes("race"), n_classes("gender")
    # In the order of BYS: gender and race, gender, race, all.
    places = [[*range(g * races, (g + 1) * races), genders * races + g] for g in range(genders)]
    places.append(list(range(genders * (races + 1), len(n_faces))))
    names = (*CLASS_NAMES["gender"], "all")
    rows = tuple(
        (name, "", tuple(cell(index) for index in ours))
        for name, ours in zip(names, places, strict=True)
    )
    few = ((n_faces > 0) & (n_faces < SMALL_GROUP)).any()
    caption = "Red: lower than of all faces; blue: higher. Small: number of faces." + (
        f" * Under {SMALL_GROUP} faces: hatched, not ranked." if few else ""
    )
    title = f"{TASK_TITLES[task].capitalize()} accuracy by gender and race, %"
    return Matrix("heat", task, title, caption, (*CLASS_NAMES["race"], "all"), rows)


def confusion(evidence: Evidence, network: RankedNetwork, task: TaskName) -> Matrix:
    """Show the shares of each true class's faces by predicted class, averaged over seeds."""
    predictions = evidence.book.answers(network.group).labelled(task)
    truth = predictions.faces[task].to_numpy(dtype=np.int64)
    k, predicted = n_classes(task), predictions.predicted[task]
    counts = np.zeros((k, k))
    np.add.at(counts, (np.tile(truth, len(predicted)), np.ravel(predicted)), 1 / len(predicted))
    totals = np.bincount(truth, minlength=k)
    rows = tuple(
        (
            name,
            str(totals[at]),
            tuple(
                MatrixCell(
                    f"{100 * share:.0f}", "", "right" if at == column else "", round(75 * share)
                )
                if totals[at]
                else MatrixCell()
                for column, share in enumerate(counts[at] / max(totals[at], 1))
            ),
        )
        for at, name in enumerate(CLASS_NAMES[task])
    )
    title = f"{TASK_TITLES[task].capitalize()}: confusion matrix, % of the true class"
    caption = (
        "Rows: the label, and how many test faces have it; columns: predicted. Framed: correct."
    )
    return Matrix("confusion", task, title, caption, CLASS_NAMES[task], rows)
