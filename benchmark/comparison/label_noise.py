"""How well labels agree on one photograph, and what accuracy that leaves within reach.

UTKFace holds some photographs in several files, each labelled by itself. Where two labels of one
photograph differ, at least one is wrong, and no network that gives a photograph one answer is right
on both. This is a bound by the labels, not a result: it is of the duplicated photographs, of all
parts of the split.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from benchmark.comparison.rows import CombinedScore, Row, TaskScore
from benchmark.evaluation.intervals import Floats, cluster_bootstrap
from benchmark.evaluation.subgroups import SMALL_GROUP
from benchmark.tasks import MISSING, TASK_TITLES, TASKS, TaskName, combined, n_classes

BOUNDS: Final = (
    *("disagree", "low", "high", "ceiling", "ceiling_low", "ceiling_high"),
    *("error_rate", "independent_ceiling", "independent_low", "independent_high"),
)
NOISE_COLUMNS: Final = ("task", "files", "n_pairs", "n_photographs", *BOUNDS)
EQUAL: Final = "equal bytes"
NEAR: Final = "near"
BOTH: Final = "both"
CEILING: Final = "label-noise ceiling"
ASSUMPTIONS: Final = (
    "Of photographs that are there several times, with labels given independently: the share of "
    "pairs of files that disagree, d, averaged over photographs (95 % bootstrap over photographs). "
    "A network with one answer per photograph is right on at most 1 − d/2. If each label errs "
    "independently with one rate e, and to all other classes alike, d = 2e − e²K/(K−1) for K "
    "classes, and a network that knew every true class would agree with 1 − e of the labels. "
    "Labels of one photograph that share their source share their errors, which makes d too small "
    "and both ceilings too high. Pairs that are not one photograph make them too low, and so do "
    "files of equal bytes if the collectors removed copies with equal labels and kept those with "
    "others; leaderboards show the ceiling 1 − d/2 of near-duplicates, the higher one."
)


def label_noise(table: pd.DataFrame) -> pd.DataFrame:
    """Measure per task how often the labels of one photograph disagree; see NOISE_COLUMNS.

    table: faces with file, sha256, cluster and the three labels, those without a place in the split
    included. files: pairs of EQUAL bytes, of NEAR-duplicates, or BOTH. Shares in [0, 1]; of fewer
    than 30 photographs only the counts are given. What is assumed, and in which direction it errs:
    ASSUMPTIONS.
    """
    repeated = table[table["cluster"].duplicated(keep=False)]
    columns = repeated[["cluster", "sha256", *TASKS]].assign(place=np.arange(len(repeated)))
    pairs = columns.merge(columns, on="cluster")
    pairs = pairs[pairs["place_x"] < pairs["place_y"]]
    equal = pairs["sha256_x"] == pairs["sha256_y"]
    rows = []
    for task in TASKS:
        known = (pairs[f"{task}_x"] != MISSING) & (pairs[f"{task}_y"] != MISSING)
        differs = (pairs[f"{task}_x"] != pairs[f"{task}_y"]).astype(float)
        for files, chosen in ((BOTH, known), (EQUAL, known & equal), (NEAR, known & ~equal)):
            means = differs[chosen].groupby(pairs["cluster"][chosen]).mean()
            shares = np.array(means, dtype=np.float64)
            known_bounds = len(shares) >= SMALL_GROUP
            bounds = _bounds(shares, task) if known_bounds else [np.nan] * len(BOUNDS)
            rows.append((task, files, int(chosen.sum()), len(shares), *bounds))
    return pd.DataFrame(rows, columns=list(NOISE_COLUMNS))


def _bounds(shares: Floats, task: TaskName) -> list[float]:
    """Give disagreement, ceiling, and ceiling by the model, each followed by its ends."""
    low, high = (
        float(end[0]) for end in cluster_bootstrap(shares[:, None], np.arange(len(shares)))
    )
    disagree = float(shares.mean())
    rate, least, most = (error_rate(share, n_classes(task)) for share in (disagree, low, high))
    return [
        *(disagree, low, high, 1 - disagree / 2, 1 - high / 2, 1 - low / 2),
        *(rate, 1 - rate, 1 - most, 1 - least),
    ]


def error_rate(disagree: float, n_labels: int) -> float:
    """Solve d = 2e − e²K/(K−1) for the rate e at which each label errs.

    Two labels differ if one alone is wrong, or both are and not alike: 2e(1−e) + e²(K−2)/(K−1).
    Labels drawn by lot differ in (K−1)/K of pairs; more than that gives their rate.
    """
    scale = n_labels / (n_labels - 1)
    return float((1 - np.sqrt(max(1 - disagree * scale, 0.0))) / scale)


def ceiling_row(table: pd.DataFrame, tasks: Sequence[TaskName]) -> Row | None:
    """Give the ceiling 1 − d/2 as a reference row; None where too few photographs are repeated.

    Of near-duplicates alone: of files with equal bytes those with equal labels may have been
    removed when UTKFace was collected, so that the others disagree more than labels do.
    """
    noise = label_noise(table)
    found = noise[(noise["files"] == NEAR) & noise["task"].isin(tasks)].set_index("task")
    if found["ceiling"].isna().any():
        return None
    ends = found[["ceiling", "ceiling_low", "ceiling_high", "independent_ceiling"]].astype(float)
    scores, said = {}, []
    for task, row in zip(tasks, ends.loc[list(tasks)].to_numpy().tolist(), strict=True):
        scores[task] = TaskScore(row[0], row[1], row[2], None)
        said.append(f"{TASK_TITLES[task]} {100 * row[3]:.1f}")
    remark = (
        "no result: what labels of one photograph leave within reach, from "
        f"{found['n_photographs'].max():,} near-duplicated photographs of all parts; with labels "
        f"that err independently {', '.join(said)} %; errors that the labels share make it too high"
    )
    value = combined({task: score.accuracy for task, score in scores.items()})
    return Row(
        "reference",
        CEILING,
        scores=scores,
        combined=CombinedScore(value, None, None) if len(tasks) > 1 else None,
        remarks=(remark,),
    )
