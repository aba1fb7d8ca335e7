"""Who is in a data set, counted: labels alone and together, ages, parts of the split, duplicates.

Shares are of the faces that have the label in question. How it is shown is for the other modules.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.data.audit import left_out, placed_counts
from benchmark.data.dataset import FaceSet
from benchmark.data.duplicates import IdenticalGroup, count_duplicates, identical_groups
from benchmark.data.splits import PARTS
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, CLASS_NAMES, MISSING, TASKS, TaskName, n_classes

OLDEST: Final = AGE_GROUP_UPPER_YEARS[-1]
EDGES: Final = AGE_GROUP_UPPER_YEARS[:-1]
"""The last age of each group but the oldest: a year more, and the label is another."""

WHIPPLE_AGES: Final = range(23, 63)
"""Ages of Whipple's index; of them a fifth end in 0 or 5 (United Nations, Demographic Yearbook)."""
DIGIT_AGES: Final = range(20, 70)
"""Five whole decades, in which every last digit is there equally often."""
NEIGHBOURS: Final = 2
"""How many ages on either side a peak is compared with."""
HEAPED_FRACTION: Final = 0.005
"""A peak of fewer faces than this share of all is not listed."""

DENSITY_BANDWIDTH_YEARS: Final = 2.5
"""Wide enough to smooth the peaks at 5 and 10 years, which are habits of labelling, not people."""
FEWEST_FOR_A_DENSITY: Final = 30

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Heaping:
    """How far ages are rounded, or copied from a guess."""

    digit_shares: tuple[float, ...]
    """Of the faces of DIGIT_AGES, by last digit 0 to 9; a tenth each without heaping, about."""
    whipple: float
    """100 without a preference for 0 and 5, 500 where nothing else occurs."""
    peaks: pd.DataFrame
    """age, n, share, times: as often as the ages around it have on average, most first."""


@dataclass(frozen=True)
class Duplicates:
    """What is there more than once, and what its labels say then."""

    identical: dict[str, int]
    """As benchmark.data.duplicates.count_duplicates gives them."""
    years_apart: Counts
    """(n_groups,): largest less smallest age within each group of equal files that disagrees."""
    disagreements: pd.DataFrame
    """task, first, second, groups: which two classes the same file is labelled with."""
    cluster_sizes: pd.DataFrame
    """size, clusters, faces: of two faces or more."""


@dataclass(frozen=True, eq=False)
class Explored:
    """Everything that is shown of a data set."""

    faces: FaceSet
    table: pd.DataFrame
    """All usable faces, with a place in the split or without."""
    by_part: pd.DataFrame
    """benchmark.data.audit.COUNT_COLUMNS: the audit's own counts."""
    ages: Counts
    """(117,): faces by age in years; nobody is 0."""
    gender_race: pd.DataFrame
    """gender, race, n: every pair of classes, of the faces that have both labels."""
    heaping: Heaping | None
    """None where no ages in years are told."""
    edges: pd.DataFrame
    """edge, n, share, n_next, share_next: faces on each edge and a year above; rows by edge."""
    duplicates: Duplicates
    left_out: pd.DataFrame
    """kind, reason, n."""

    @property
    def n_faces(self) -> int:
        """Count the usable faces."""
        return len(self.table)

    @property
    def n_aged(self) -> int:
        """Count those whose age in years is told."""
        return int(self.ages.sum())

    def counts(self, task: TaskName) -> Counts:
        """Count faces by class: (n_classes,)."""
        return counted(self.table[task], n_classes(task))

    def n_without(self, label: str) -> int:
        """Count faces that lack a label."""
        return int((self.table[label] == MISSING).sum())

    def has(self, label: str) -> bool:
        """Tell whether any face has a label."""
        return self.n_without(label) < self.n_faces

    def tasks_of(self, *tasks: TaskName) -> list[TaskName]:
        """Keep the tasks that any face is labelled with."""
        return [task for task in tasks if self.has(task)]

    def pairs(self) -> list[tuple[int, int, int]]:
        """List gender, race and how many faces have both; one row is one slice of the donut."""
        values = self.gender_race[["gender", "race", "n"]].to_numpy()
        return [(int(gender), int(race), int(n)) for gender, race, n in values]

    def crossed(self, task: TaskName, other: TaskName) -> Counts:
        """Count faces by two labels: (n_classes of task, n_classes of other)."""
        both = self.table[(self.table[task] != MISSING) & (self.table[other] != MISSING)]
        places = both[task].to_numpy() * n_classes(other) + both[other].to_numpy()
        flat = np.bincount(places, minlength=n_classes(task) * n_classes(other))
        return flat.reshape(n_classes(task), n_classes(other))

    def ages_of(self, race: int) -> Counts:
        """Count the ages of one race: (117,)."""
        return counted(self.table["age"][self.table["race"] == race], OLDEST + 1)

    def part_counts(self, task: TaskName) -> Counts:
        """Count faces by part and class: (3, n_classes), from the audit's counts."""
        rows = []
        for part in PARTS:
            ours = self.by_part[self.by_part["part"] == part].groupby(task)["n"].sum()
            rows.append([int(ours.get(label, 0)) for label in range(n_classes(task))])
        return np.array(rows, np.int64)

    def part_sizes(self) -> dict[str, int]:
        """Count the faces of each part."""
        sums = self.by_part.groupby("part")["n"].sum()
        return {part: int(sums.get(part, 0)) for part in PARTS}

    def largest_shift(self, task: TaskName) -> float:
        """Give the most that a class's share in a part is off its share in all parts, in [0, 1]."""
        by_part = self.part_counts(task)
        totals = by_part.sum(axis=1, keepdims=True)
        if not totals.all():
            return float("nan")
        return float(np.abs(by_part / totals - by_part.sum(axis=0) / by_part.sum()).max())


def explore(faces: FaceSet) -> Explored:
    """Count everything; reads the table alone and no picture."""
    table = faces.table
    ages = counted(table["age"], OLDEST + 1)
    return Explored(
        faces,
        table,
        by_part=placed_counts(table),
        ages=ages,
        gender_race=_gender_race(table),
        heaping=_heaping(ages) if ages.sum() else None,
        edges=_edges(ages),
        duplicates=_duplicates(table),
        left_out=left_out(faces),
    )


def counted(labels: "pd.Series[int]", n_labels: int) -> Counts:
    """Count labels from 0 on, leaving out what is MISSING: (n_labels,)."""
    known = labels.to_numpy()
    return np.bincount(known[known != MISSING], minlength=n_labels).astype(np.int64)


def _gender_race(table: pd.DataFrame) -> pd.DataFrame:
    """Count each pair by its own two labels, so that no order of anything can exchange names."""
    rows = [
        (gender, race, int(((table["gender"] == gender) & (table["race"] == race)).sum()))
        for gender in range(n_classes("gender"))
        for race in range(n_classes("race"))
    ]
    return pd.DataFrame(rows, columns=["gender", "race", "n"])


def _heaping(ages: Counts) -> Heaping:
    digits = [int(ages[[a for a in DIGIT_AGES if a % 10 == digit]].sum()) for digit in range(10)]
    n_digits = sum(digits)
    n_whipple = int(ages[WHIPPLE_AGES].sum())
    rounded = int(ages[[age for age in WHIPPLE_AGES if age % 5 == 0]].sum())
    return Heaping(
        tuple(n / n_digits if n_digits else float("nan") for n in digits),
        500 * rounded / n_whipple if n_whipple else float("nan"),
        _peaks(ages),
    )


def _peaks(ages: Counts) -> pd.DataFrame:
    """List the ages that are labelled far more often than the ages beside them."""
    rows = []
    for age in range(1, OLDEST + 1):
        first, last = max(1, age - NEIGHBOURS), min(OLDEST, age + NEIGHBOURS)
        around = np.delete(ages[first : last + 1], age - first).mean()
        if ages[age] >= HEAPED_FRACTION * ages.sum() and ages[age] > around > 0:
            rows.append((age, int(ages[age]), ages[age] / ages.sum(), ages[age] / around))
    peaks = pd.DataFrame(rows, columns=["age", "n", "share", "times"])
    return peaks.sort_values(["times", "age"], ascending=[False, True], ignore_index=True)


def _edges(ages: Counts) -> pd.DataFrame:
    total = max(int(ages.sum()), 1)
    rows = [
        (edge, int(ages[edge]), ages[edge] / total, int(ages[edge + 1]), ages[edge + 1] / total)
        for edge in EDGES
    ]
    return pd.DataFrame(rows, columns=["edge", "n", "share", "n_next", "share_next"])


def density(ages: Counts) -> npt.NDArray[np.float64]:
    """Smooth counts by age into a density per year: (117,), summing to about 1.

    A Gaussian of DENSITY_BANDWIDTH_YEARS, mirrored at half a year, below which nobody is.
    """
    years = np.arange(len(ages), dtype=np.float64)
    away = years[:, None] - years[None, :]
    mirrored = years[:, None] + years[None, :] - 1
    kernel = np.exp(-0.5 * (away / DENSITY_BANDWIDTH_YEARS) ** 2)
    kernel += np.exp(-0.5 * (mirrored / DENSITY_BANDWIDTH_YEARS) ** 2)
    kernel /= DENSITY_BANDWIDTH_YEARS * np.sqrt(2 * np.pi)
    smooth: npt.NDArray[np.float64] = kernel @ ages / max(int(ages.sum()), 1)
    smooth[0] = 0.0
    return smooth


def quantile_of(ages: Counts, level: float) -> int:
    """Give the age that `level` of the faces do not exceed; ages: counts by year, not all 0."""
    return int(np.searchsorted(np.cumsum(ages), level * ages.sum()))


def _duplicates(table: pd.DataFrame) -> Duplicates:
    groups = identical_groups(table)
    apart = []
    for group in groups:
        if "age" in group.disagrees_on:
            ages = table["age"].iloc[list(group.rows)]
            apart.append(int(ages.max() - ages[ages != MISSING].min()))
    sizes = table["cluster"].value_counts()
    several = sizes[sizes > 1].value_counts().sort_index()
    return Duplicates(
        count_duplicates(table),
        np.array(apart, np.int64),
        _disagreements(table, groups),
        pd.DataFrame(
            {
                "size": several.index.to_numpy(),
                "clusters": several.to_numpy(),
                "faces": several.index.to_numpy() * several.to_numpy(),
            }
        ),
    )


def _disagreements(table: pd.DataFrame, groups: list[IdenticalGroup]) -> pd.DataFrame:
    """Count by task which two classes the same file has; a group of three classes counts thrice."""
    found: dict[tuple[TaskName, int, int], int] = {}
    for group in groups:
        for task in TASKS:
            if task not in group.disagrees_on:
                continue
            labels = sorted(set(table[task].iloc[list(group.rows)]) - {MISSING})
            for place, first in enumerate(labels):
                for second in labels[place + 1 :]:
                    key = (task, int(first), int(second))
                    found[key] = found.get(key, 0) + 1
    rows = [
        (task, CLASS_NAMES[task][first], CLASS_NAMES[task][second], n)
        for (task, first, second), n in found.items()
    ]
    pairs = pd.DataFrame(rows, columns=["task", "first", "second", "groups"])
    order = pairs["task"].map({task: place for place, task in enumerate(TASKS)})
    return (
        pairs.assign(order=order)
        .sort_values(["order", "groups", "first"], ascending=[True, False, True], ignore_index=True)
        .drop(columns="order")
    )


def as_dict(explored: Explored) -> dict[str, Any]:
    """Give the numbers as plain values for --json."""
    heaping, twice = explored.heaping, explored.duplicates
    return {
        "dataset": explored.faces.name,
        "drawn": explored.faces.drawn,
        "faces": explored.n_faces,
        "parts": explored.part_sizes(),
        "without": {label: explored.n_without(label) for label in ("age", *TASKS)},
        "counts": {
            task: dict(zip(CLASS_NAMES[task], explored.counts(task).tolist(), strict=True))
            for task in TASKS
        },
        "ages": {str(age): int(n) for age, n in enumerate(explored.ages) if n},
        "gender_race": [
            {"gender": CLASS_NAMES["gender"][gender], "race": CLASS_NAMES["race"][race], "n": n}
            for gender, race, n in explored.gender_race.itertuples(index=False)
        ],
        "bin_edges": explored.edges.to_dict("records"),
        "heaping": None
        if heaping is None
        else {
            "digit_shares": list(heaping.digit_shares),
            "whipple": heaping.whipple,
            "peaks": heaping.peaks.to_dict("records"),
        },
        "duplicates": twice.identical,
        "years_apart": twice.years_apart.tolist(),
        "disagreements": twice.disagreements.to_dict("records"),
        "left_out": explored.left_out.to_dict("records"),
        "labels": explored.faces.manifest.get("labels"),
    }
