"""Fairness beyond accuracy: rates of subgroups, and women against men of one age.

Every difference has a 95 % interval and what it is when answers change places. Small subgroups
(under subgroups.SMALL_GROUP faces) are counted and not compared.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.stats import norm

from benchmark.evaluation import subgroups
from benchmark.evaluation.intervals import CONFIDENCE, Labels
from benchmark.evaluation.subgroups import SMALL_GROUP, Flags, Rates, group_names, members
from benchmark.tasks import CLASS_NAMES, MISSING, TaskName, n_classes

RATE_COLUMNS: Final = (
    *("task", "by", "class", "rate", "n_ranked", "n_left_out"),
    *("lowest_group", "lowest", "highest_group", "highest"),
    *("difference", "low", "high", "permuted", "permuted_high", "p", "p_holm"),
)
TRUE_POSITIVE: Final = "true positive"
FALSE_POSITIVE: Final = "false positive"
EQUALIZED_ODDS: Final = "equalized odds"
GENDER_GAP_COLUMNS: Final = (
    *("task", "within", "n_female", "n_male", "female", "male"),
    *("difference", "low", "high", "permuted", "permuted_high", "p", "p_holm"),
)
ADULTS: Final = "15 and older"
ADJUSTED: Final = "adjusted for age group"


def rate_table(test: pd.DataFrame, predicted: Mapping[TaskName, Labels]) -> pd.DataFrame:
    """Compare true- and false-positive rates of subgroups, class against rest; see RATE_COLUMNS.

    test: n faces with cluster and true labels. predicted: (n,) classes per task; of faces that have
    the task's label. Subgroups are those of GAP_BY: gender × race for age group, race for gender,
    gender for race, because a subgroup of a single true class has but one of the two rates. Gender
    has one row per rate, of `female`: the other class is its mirror image.

    difference: highest rate minus lowest, as fairlearn.metrics defines
    true_positive_rate_difference and false_positive_rate_difference; `equalized odds` is the
    larger of the two (equalized_odds_difference). Of several classes, each is one against the
    rest. A rate over fewer than 30 faces is left out and counted, unlike in fairlearn. low, high:
    95 % interval of the largest difference, whichever subgroups it is between (see
    subgroups.largest). permuted, permuted_high: mean and 95 % quantile of the difference when
    answers change places among faces of the same true label, which is equalized odds' hypothesis;
    p: how often such a difference is as wide; p_holm: Holm's correction over the rows of equalized
    odds alone.
    """
    rows: list[dict[str, Any]] = []
    for task, of_all in predicted.items():
        known = (test[task] != MISSING).to_numpy()
        faces, answers = test[known], of_all[known]
        clusters, truth = faces["cluster"].to_numpy(), faces[task].to_numpy()
        by = subgroups.GAP_BY[task]
        member, names = members(faces, by), np.array(group_names(by))
        shuffles = subgroups.shuffled_faces(clusters, truth)
        for label in range(n_classes(task)) if n_classes(task) > 2 else (1,):
            hits, positive = answers == label, truth == label
            permuted = hits.astype(np.float32)[shuffles]
            row = {"task": task, "by": by, "class": CLASS_NAMES[task][label]}
            of_class = []
            for name, counted in ((TRUE_POSITIVE, positive), (FALSE_POSITIVE, ~positive)):
                rates = Rates(member * counted[:, None], hits, clusters, permuted)
                found = row | {"rate": name, "n_ranked": rates.n_ranked}
                found["n_left_out"] = rates.n_small
                if rates.n_ranked > 1:
                    ranked, values = names[rates.ranked], rates.values
                    for which, place in (("lowest", values.argmin()), ("highest", values.argmax())):
                        found |= {f"{which}_group": str(ranked[place]), which: values[place]}
                    found |= _largest_difference([rates])
                    of_class.append(rates)
                rows.append(found)
            if len(of_class) == 2:
                rows.append(row | {"rate": EQUALIZED_ODDS} | _largest_difference(of_class))
    table = pd.DataFrame(rows, columns=list(RATE_COLUMNS))
    return subgroups.with_holm(table, (table["rate"] == EQUALIZED_ODDS).to_numpy())


def _largest_difference(several: Sequence[Rates]) -> dict[str, float]:
    """Give the largest difference within one or more rates, with interval and permutation level."""
    ours = max(float(np.ptp(rates.values)) for rates in several)
    pairs = zip(*(subgroups.differences(*rates.smoothed) for rates in several), strict=True)
    low, high = subgroups.largest(*(np.concatenate(part, axis=-1) for part in pairs))
    drawn = np.max([np.ptp(rates.permuted, axis=1) for rates in several], axis=0)
    found = ours, max(low, 0.0), min(high, 1.0), *subgroups.permuted_levels(drawn, ours)
    return dict(zip(RATE_COLUMNS[10:-1], found, strict=True))


def gender_gap_table(test: pd.DataFrame, right: Mapping[TaskName, Flags]) -> pd.DataFrame:
    """Compare the accuracy for women and men, within age groups too; see GENDER_GAP_COLUMNS.

    test: n faces with cluster and true labels. right: (n,) per task; of faces that have the task's
    label. within: `all`, an age group, ADULTS, or ADJUSTED: the age groups' differences weighted by
    their numbers of faces, so that women and men of one age are compared. Rows with fewer than 30
    women or men are absent, and such age groups are not in ADJUSTED.

    difference: women minus men; female, male: rates in [0, 1] (of ADJUSTED weighted likewise);
    low, high: 95 % interval, Agresti and Caffo's with errors widened by clusters. permuted,
    permuted_high: mean and 95 % quantile of the absolute difference when answers change places
    among the row's faces, for ADJUSTED among those of one age group; p: how often it is as wide;
    p_holm: Holm's correction over all rows.
    """
    rows: list[tuple[Any, ...]] = []
    for task, of_all in right.items():
        known = (test[task] != MISSING).to_numpy()
        rows += [(task, *row) for row in _gender_gaps(test[known], of_all[known])]
    return subgroups.with_holm(pd.DataFrame(rows, columns=list(GENDER_GAP_COLUMNS[:-1])))


def _gender_gaps(test: pd.DataFrame, hits: Flags) -> list[tuple[Any, ...]]:
    """Give the columns of GENDER_GAP_COLUMNS from within to p."""
    clusters, ages = test["cluster"].to_numpy(), test["age_group"].to_numpy()
    genders, age_groups = members(test, "gender"), group_names("age_group")
    within = {"all": np.ones(len(test), dtype=bool)}
    within |= {name: ages == code for code, name in enumerate(age_groups)}
    within[ADULTS] = ages > 0
    within = {name: chosen for name, chosen in within.items()
              if (genders[chosen].sum(axis=0) >= SMALL_GROUP).all()}  # fmt: skip
    if not within:
        return []
    # Columns: women and men of each row in turn.
    member = np.hstack([genders[:, ::-1] * chosen[:, None] for chosen in within.values()])
    # Whose answers change places: all faces'; adults' and children's; those of each age group.
    no_gender = -2 * (genders.sum(axis=1) == 0)
    drawn = []
    for kinds in (ages * 0, np.sign(ages), ages):
        strata = np.where(no_gender, no_gender, kinds)
        permuted = hits.astype(np.float32)[subgroups.shuffled_faces(clusters, strata)]
        drawn.append(Rates(member, hits, clusters, permuted))
    names, weights = list(within), np.eye(len(within))
    is_age_group = np.isin(names, age_groups)
    if is_age_group.sum() > 1:
        sizes = np.where(is_age_group, member.sum(axis=0).reshape(-1, 2).sum(axis=1), 0.0)
        names, weights = [*names, ADJUSTED], np.vstack([weights, sizes / sizes.sum()])
    rates = drawn[0]
    n_faces = (weights > 0) @ rates.n_faces.reshape(-1, 2)
    values = weights @ rates.values.reshape(-1, 2)
    rate, errors, again = rates.smoothed
    centre = weights @ (rate[::2] - rate[1::2])
    independent = np.sqrt(weights**2 @ (errors[::2] ** 2 + errors[1::2] ** 2))
    clustered = ((again[:, ::2] - again[:, 1::2]) @ weights.T).std(axis=0)
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * np.maximum(independent, clustered)
    rows = []
    for index, name in enumerate(names):
        female, male = values[index]
        permuted = drawn[{"all": 0, ADULTS: 1}.get(name, 2)].permuted
        apart = np.abs((permuted[:, ::2] - permuted[:, 1::2]) @ weights[index])
        levels = subgroups.permuted_levels(apart, abs(female - male))
        low, high = centre[index] - half[index], centre[index] + half[index]
        said = female, male, female - male, max(low, -1.0), min(high, 1.0), *levels
        rows.append((name, *n_faces[index].astype(int), *said))
    return rows
