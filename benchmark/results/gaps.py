"""How far apart groups of people are: worst and best group, gap and ratio, beside what chance does.

The groups' own numbers are in benchmark.results.subgroups. Only groups of 30 faces or more are
ranked against each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from benchmark.results.intervals import (
    CONFIDENCE,
    RESAMPLES,
    RESAMPLING_SEED,
    Floats,
    cluster_sums,
    resampled,
)
from benchmark.results.paired import holm
from benchmark.results.subgroups import BYS, SMALL_GROUP, By, group_codes, group_names
from benchmark.tasks import TaskName

GAP_COLUMNS: Final = (
    *("task", "by", "n_ranked", "n_small", "n_empty"),
    *("worst_group", "worst_n", "worst", "worst_low", "worst_high"),
    *("best_group", "best_n", "best"),
    *("gap", "gap_low", "gap_high", "ratio", "ratio_low", "ratio_high"),
    *("chance_gap", "chance_gap_high", "p", "p_holm"),
)
DIVISIONS: Final[tuple[By, ...]] = BYS[1:]
"""Every division but `all`."""

GAP_BY: Final[Mapping[TaskName, By]] = {
    "age_group": "gender_race",
    "gender": "race",
    "race": "gender",
}
"""The division whose gap stands for a task. The task's own classes are no division of people: how
well a class is read is its recall."""

STEPS: Final = 20
"""More than the search for candidates ever takes: each step drops one or is the last."""
ROUNDING: Final = 1e-9
"""Two gaps as near as this are the same gap."""

Indices = npt.NDArray[np.intp]


def gap_table(
    subgroups: pd.DataFrame,
    test: pd.DataFrame,
    right: Mapping[TaskName, npt.NDArray[np.bool_]],
    divisions: Sequence[By] = DIVISIONS,
) -> pd.DataFrame:
    """Set each task's groups against each other, a row per task and division; see GAP_COLUMNS.

    subgroups: as subgroups.subgroup_table gives it for the same faces. test: n faces with cluster
    and the true labels. right: (n,) per task.

    worst, best: accuracies in [0, 1]; gap is best - worst, ratio worst / best; missing where fewer
    than two groups can be ranked. low, high: 95 % intervals of the lowest accuracy, the gap and
    the ratio, whichever groups they truly belong to (see _largest). chance_gap, chance_gap_high:
    mean and 95 % quantile of the gap when group membership is shuffled, clusters kept whole; p:
    the share of such gaps that are as wide; p_holm: Holm's correction over all rows.
    """
    draws = _Draws(test, right, divisions)
    rows = [_row(task, by, _of(subgroups, task, by), draws) for task in right for by in divisions]
    table = pd.DataFrame(rows, columns=list(GAP_COLUMNS))
    known = table["p"].notna().to_numpy()
    corrected = np.full(len(table), np.nan)
    if known.any():
        corrected[known], _ = holm(table["p"][known].tolist())
    return table.assign(p_holm=corrected)


def _of(subgroups: pd.DataFrame, task: TaskName, by: By) -> pd.DataFrame:
    return subgroups[(subgroups["task"] == task) & (subgroups["by"] == by)]


class _Draws:
    """The same faces drawn again and again: by resampled clusters, and with shuffled groups."""

    def __init__(
        self,
        test: pd.DataFrame,
        right: Mapping[TaskName, npt.NDArray[np.bool_]],
        divisions: Sequence[By],
    ) -> None:
        clusters = test["cluster"].to_numpy()
        self.columns: dict[By, slice] = {}
        members = []
        begin = 0
        for by in divisions:
            n_groups = len(group_names(by))
            # One row more, of nobody, where the code MISSING points: the last.
            members.append(np.eye(n_groups + 1)[group_codes(test, by), :n_groups])
            self.columns[by] = slice(begin, begin + n_groups)
            begin += n_groups
        member = np.concatenate(members, axis=1)
        self.n_faces: Floats = member.sum(axis=0)
        self.resampled_n = resampled(cluster_sums(member, clusters))
        shuffles = shuffled_faces(clusters)
        self.n_right: dict[TaskName, Floats] = {}
        self.resampled_right: dict[TaskName, Floats] = {}
        self.shuffled_right: dict[TaskName, Floats] = {}
        for task, answers in right.items():
            by_group = member * answers[:, None]
            self.n_right[task] = by_group.sum(axis=0)
            self.resampled_right[task] = resampled(cluster_sums(by_group, clusters))
            # Whole numbers far below 2^24 are exact in float32, which takes half the time.
            shuffled = answers.astype(np.float32)[shuffles] @ member.astype(np.float32)
            self.shuffled_right[task] = shuffled.astype(np.float64)


def shuffled_faces(clusters: npt.NDArray[np.integer[Any]]) -> Indices:
    """Give (RESAMPLES, n_faces) indices: whose answer each face takes over in each shuffle.

    A cluster changes places with one of its size as a whole: what the network says of two copies
    of a picture is no independent news. Fixed seed, so that equal faces give equal shuffles.
    """
    random = np.random.default_rng(RESAMPLING_SEED)
    _, codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    size_of_face = sizes[codes]
    order = np.lexsort((codes, size_of_face))  # by size of the cluster, then cluster by cluster
    shuffles = np.empty((RESAMPLES, len(clusters)), dtype=np.intp)
    for size in np.unique(size_of_face):
        faces = order[size_of_face[order] == size].reshape(-1, size)
        places = np.tile(np.arange(len(faces)), (RESAMPLES, 1))
        taken = random.permuted(places, axis=1)
        shuffles[:, faces.ravel()] = faces[taken].reshape(RESAMPLES, -1)
    return shuffles


def _row(task: TaskName, by: By, groups: pd.DataFrame, draws: _Draws) -> dict[str, Any]:
    n_faces = groups["n"].to_numpy()
    kept = n_faces >= SMALL_GROUP
    row: dict[str, Any] = {
        "task": task,
        "by": by,
        "n_ranked": int(kept.sum()),
        "n_small": int(((n_faces > 0) & ~kept).sum()),
        "n_empty": int((n_faces == 0).sum()),
    }
    if kept.sum() < 2:
        return row
    ranked = groups[kept]
    accuracy = ranked["accuracy"].to_numpy()
    worst, best = ranked.iloc[int(accuracy.argmin())], ranked.iloc[int(accuracy.argmax())]
    gap = float(best["accuracy"] - worst["accuracy"])
    for name, group in (("worst", worst), ("best", best)):
        row |= {
            f"{name}_group": group["group"],
            f"{name}_n": int(group["n"]),
            name: float(group["accuracy"]),
        }
    row["gap"] = gap
    row["ratio"] = row["worst"] / row["best"] if row["best"] > 0 else float("nan")
    return row | _intervals(task, by, kept, draws) | _by_chance(task, by, kept, draws, gap)


def _intervals(
    task: TaskName, by: By, kept: npt.NDArray[np.bool_], draws: _Draws
) -> dict[str, float]:
    """Give the ends for the lowest accuracy, the gap and the ratio.

    Each group's rate has a right and a wrong face added: without them a group that is all right
    would seem to be known exactly. Source: A. Agresti, B. Caffo, "Simple and Effective Confidence
    Intervals for Proportions and Differences of Proportions", The American Statistician 54 (2000).
    """
    columns = draws.columns[by]
    n_faces = draws.n_faces[columns][kept] + 2
    rate = (draws.n_right[task][columns][kept] + 1) / n_faces
    again = (draws.resampled_right[task][:, columns][:, kept] + 1) / (
        draws.resampled_n[:, columns][:, kept] + 2
    )
    # Clusters widen the error beyond that of independent faces; nothing makes it smaller.
    error = np.maximum(np.sqrt(rate * (1 - rate) / n_faces), again.std(axis=0))
    worst_high, worst_low = (-end for end in _largest(-rate, error, -again))
    gap_low, gap_high = _largest(*_differences(rate, error, again))
    ratio_ends = _largest(*_differences(np.log(rate), error / rate, np.log(again)))
    ratio_high, ratio_low = (float(np.exp(-max(end, 0.0))) for end in ratio_ends)
    return {
        "worst_low": max(worst_low, 0.0),
        "worst_high": min(worst_high, 1.0),
        "gap_low": max(gap_low, 0.0),
        "gap_high": min(gap_high, 1.0),
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
    }


def _differences(values: Floats, errors: Floats, again: Floats) -> tuple[Floats, Floats, Floats]:
    """Set every group against every other, both ways round: differences, errors, resamples."""
    one, other = np.nonzero(~np.eye(len(values), dtype=bool))
    error = np.sqrt(errors[one] ** 2 + errors[other] ** 2)
    return values[one] - values[other], error, again[:, one] - again[:, other]


def _largest(estimates: Floats, errors: Floats, again: Floats) -> tuple[float, float]:
    """Give a 95 % interval of the largest of m quantities, whichever it truly is.

    estimates, errors: (m,). again: (RESAMPLES, m). The largest estimate is too large by chance,
    the more so the more quantities there are; its percentile interval misses a gap of 0 always,
    and a mild one among ten groups in nine of ten simulated runs. Here the lower end holds for all
    quantities at once that may be the largest (those whose simultaneous upper end reaches the
    lower end of the largest; dropping the others makes the rest narrower, and is repeated until
    none is dropped), and the upper end for each by itself, because the largest need only be below
    its own. Together at least 95 %, and more where several are about as large. After
    V. Chernozhukov, S. Lee, A. Rosen, "Intersection Bounds", Econometrica 81 (2013).
    """
    tail = (1 - CONFIDENCE) / 2
    of_one = float(norm.ppf(1 - tail))
    deviations = (again - estimates) / errors
    candidates = np.ones(len(estimates), dtype=bool)
    low = float("-inf")
    for _ in range(STEPS):
        # Never below that of a single quantity: a handful of clusters resamples too evenly.
        critical = np.quantile(deviations[:, candidates].max(axis=1), 1 - tail)
        critical = max(float(critical), of_one)
        low = float((estimates - critical * errors)[candidates].max())
        kept = candidates & (estimates + critical * errors >= low)
        if (kept == candidates).all():
            break
        candidates = kept
    high = float((estimates + of_one * errors).max())
    return low, high


def _by_chance(
    task: TaskName, by: By, kept: npt.NDArray[np.bool_], draws: _Draws, gap: float
) -> dict[str, float]:
    """Say what gap shuffled group membership gives, and how often one as wide as ours."""
    columns = draws.columns[by]
    rates = draws.shuffled_right[task][:, columns][:, kept] / draws.n_faces[columns][kept]
    gaps = rates.max(axis=1) - rates.min(axis=1)
    as_wide = int((gaps >= gap - ROUNDING).sum())
    return {
        "chance_gap": float(gaps.mean()),
        "chance_gap_high": float(np.quantile(gaps, CONFIDENCE)),
        # The arrangement at hand is one of the shuffles, so that p is never 0.
        "p": (as_wide + 1) / (RESAMPLES + 1),
    }
