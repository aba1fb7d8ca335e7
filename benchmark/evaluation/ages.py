"""The age group with its years: accuracy near the edges of groups, and errors in years."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from benchmark.evaluation.intervals import mean_span, wilson
from benchmark.evaluation.predictions import probability_columns
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, CLASS_NAMES, MISSING, n_classes

AGE_EDGE_COLUMNS: Final = ("years_from_edge", "n", "accuracy", "low", "high")
EDGE_YEARS: Final = (0, 1, 2, 3, 5, 10)
"""Where a row of the table by distance from an edge begins; the last has no end."""
AGE_YEARS_COLUMNS: Final = ("read_as", "group", "n", "mae_years", "low", "high")


def accuracy_by_edge(test: pd.DataFrame) -> pd.DataFrame:
    """Score the age group by the true age's distance in years from the nearest edge of a group.

    Edges are 14, 25, 40 and 60 years, each the last year of its group: a face of distance 0 is on
    an edge, and the next group is one year away. The columns of AGE_EDGE_COLUMNS, with Wilson's
    95 % interval; faces without an age in years are left out.
    """
    known = test[test["age"] != MISSING]
    edges = np.array(AGE_GROUP_UPPER_YEARS[:-1])
    distance = np.abs(known["age"].to_numpy()[:, None] - edges).min(axis=1)
    ends = [begin - 1 for begin in EDGE_YEARS[1:]]
    names = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(EDGE_YEARS, ends, strict=False)]
    bins = pd.cut(distance, [-1, *ends, np.inf], labels=[*names, f"{EDGE_YEARS[-1]} or more"])
    right = known["age_group_pred"] == known["age_group"]
    grouped = right.groupby(bins, observed=False)
    n_faces, n_right = grouped.size(), grouped.sum()
    ends_of_interval = wilson(n_right.to_numpy(), n_faces.to_numpy())
    values = (list(n_faces.index), n_faces, grouped.mean(), *ends_of_interval)
    return pd.DataFrame(dict(zip(AGE_EDGE_COLUMNS, map(np.asarray, values), strict=True)))


def errors_in_years(test: pd.DataFrame, mean_ages: Sequence[float | None]) -> pd.DataFrame:
    """Give the mean absolute error in years of age groups that stand for their mean ages.

    mean_ages: of the training faces of each group, as mean_ages_of gives them; one without faces
    lies on the line between its neighbours' means. read_as: `predicted group`; `expected age`, the
    means weighted by the probabilities; `true group`, as if every prediction were right. group:
    `all`, or the true age group. The columns of AGE_YEARS_COLUMNS, with the cluster bootstrap's
    95 % interval; faces without an age in years are left out.
    """
    known = test[test["age"] != MISSING]
    truth, ages = known["age_group"].to_numpy(), known["age"].to_numpy()
    means = np.array([np.nan if mean is None else mean for mean in mean_ages])
    known_means = np.flatnonzero(~np.isnan(means))
    means = np.interp(np.arange(len(means)), known_means, means[known_means])
    years_of = {
        "predicted group": means[known["age_group_pred"].to_numpy()],
        "expected age": known[probability_columns("age_group")].to_numpy() @ means,
        "true group": means[truth],
    }
    groups = {"all": np.ones(len(known), dtype=bool)}
    groups |= {name: truth == label for label, name in enumerate(CLASS_NAMES["age_group"])}
    rows = []
    for name, years in years_of.items():
        for group, chosen in groups.items():
            if chosen.any():
                error = np.abs(years - ages)[chosen]
                ends = mean_span(error, known["cluster"].to_numpy()[chosen])
                rows.append((name, group, int(chosen.sum()), float(error.mean()), *ends))
    return pd.DataFrame(rows, columns=list(AGE_YEARS_COLUMNS))


def mean_ages_of(training: pd.DataFrame) -> list[float | None]:
    """Average the age in years of the training faces of each age group; None for one without."""
    known = training[(training["age"] != MISSING) & (training["age_group"] != MISSING)]
    means = known.groupby("age_group")["age"].mean()
    return [
        float(means[label]) if label in means.index else None
        for label in range(n_classes("age_group"))
    ]
