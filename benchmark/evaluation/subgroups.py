"""Accuracy of every task by age group, gender, race and gender x race, and how far apart they are.

Subgroups are by true labels. Every difference stands beside its interval and what it is when the
answers are permuted; only subgroups of 30 faces or more are compared with each other.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from benchmark.evaluation import intervals as counts
from benchmark.evaluation.intervals import (
    CONFIDENCE,
    RESAMPLES,
    RESAMPLING_SEED,
    Floats,
    Labels,
    cluster_sums,
    holm,
    resampled,
    wilson,
)
from benchmark.record import SUBGROUP_COLUMNS
from benchmark.tasks import CLASS_NAMES, MISSING, TASKS, TaskName, n_classes

By = Literal["all", "age_group", "gender", "race", "gender_race"]
BYS: Final[tuple[By, ...]] = get_args(By)
DIVISIONS: Final = BYS[1:]
"""Every division but `all`."""

SMALL_GROUP: Final = 30
"""A group of fewer faces is marked and never ranked: at 70 % accuracy, Wilson's 95 % interval of
30 faces spans 31 points."""

GAP_BY: Final[Mapping[TaskName, By]] = {
    "age_group": "gender_race",
    "gender": "race",
    "race": "gender",
}
"""The division whose gap stands for a task. The task's own classes are no division of people: how
well a class is predicted is its recall."""

GAP_COLUMNS: Final = (
    *("task", "by", "n_ranked", "n_small", "n_empty"),
    *("worst_group", "worst_n", "worst", "worst_low", "worst_high"),
    *("best_group", "best_n", "best"),
    *("gap", "gap_low", "gap_high", "ratio", "ratio_low", "ratio_high"),
    *("chance_gap", "chance_gap_high", "p", "p_holm"),
)
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

STEPS: Final = 20
"""More than the search for candidates ever takes: each step drops one or is the last."""
ROUNDING: Final = 1e-9
"""Two gaps as near as this are the same gap."""

Flags = npt.NDArray[np.bool_]
Draws = npt.NDArray[np.float32]


def group_names(by: By) -> tuple[str, ...]:
    """Name the groups of a division as a person reads them: `61+`, `female Black`."""
    if by == "all":
        return ("all",)
    if by == "gender_race":
        return tuple(f"{g} {r}" for g in CLASS_NAMES["gender"] for r in CLASS_NAMES["race"])
    return CLASS_NAMES[by]


def group_slug(name: str) -> str:
    """Name a group as MLflow's metric names have it, without `+` and blank: `61-plus`."""
    return name.lower().replace("+", "-plus").replace(" ", "-")


def group_codes(truths: pd.DataFrame, by: By) -> Labels:
    """Give each face's group of a division; (n,), numbers into group_names, or MISSING.

    truths: n faces with the true labels age_group, gender and race; one without the label that
    divides is in no group.
    """
    if by == "all":
        return np.zeros(len(truths), dtype=np.int64)
    if by == "gender_race":
        gender, race = group_codes(truths, "gender"), group_codes(truths, "race")
        known = (gender != MISSING) & (race != MISSING)
        return np.where(known, gender * n_classes("race") + race, MISSING)
    return truths[by].to_numpy(dtype=np.int64)


def _members(test: pd.DataFrame, by: By) -> Floats:
    """Give 1 where a face belongs to a group of a division, (n_faces, n_groups)."""
    n_groups = len(group_names(by))
    # One row more, of nobody, where the code MISSING points: the last.
    return np.eye(n_groups + 1)[group_codes(test, by), :n_groups]


def subgroup_table(truths: pd.DataFrame, predicted: Mapping[TaskName, Labels]) -> pd.DataFrame:
    """Score every predicted task in every group; the columns of record.SUBGROUP_COLUMNS.

    truths: n faces with age_group, gender, race. predicted: (n,) classes per task. Rates in [0, 1]
    with Wilson's 95 % interval. A group without faces has n = 0 and no rate: missing, never 0.
    """
    tables = []
    for task in (task for task in TASKS if task in predicted):
        k, truth = n_classes(task), truths[task].to_numpy(dtype=np.int64)
        for by in BYS:
            names, codes = group_names(by), group_codes(truths, by)
            counted = (codes != MISSING) & (truth != MISSING)
            cells = ((codes * k + truth) * k + predicted[task])[counted]
            matrices = np.bincount(cells, minlength=len(names) * k * k).reshape(-1, k, k)
            n_faces = matrices.sum(axis=(1, 2))
            low, high = wilson(counts.diagonal(matrices).sum(axis=1), n_faces)
            f1 = counts.macro_f1_of_counts(matrices)
            values = (task, by, names, n_faces, counts.accuracy(matrices), low, high, f1)
            tables.append(pd.DataFrame(dict(zip(SUBGROUP_COLUMNS, values, strict=True))))
    empty = pd.DataFrame(columns=list(SUBGROUP_COLUMNS))
    return pd.concat(tables, ignore_index=True) if tables else empty


def macro_f1(truth: Labels, predicted: Labels) -> float:
    """Average F1 over the true classes that occur, in [0, 1]; see intervals.macro_f1_of_counts."""
    k = int(max(truth.max(initial=0), predicted.max(initial=0))) + 1
    return float(counts.macro_f1_of_counts(counts.confusion(truth, predicted, k)))


class _Rates:
    """How often each large group has a hit: observed, resampled by clusters, permuted.

    member: (n_faces, k). hits: (n_faces,). permuted: hits after each permutation, (RESAMPLES,
    n_faces).
    """

    def __init__(self, member: Floats, hits: Flags, clusters: Labels, permuted: Draws) -> None:
        n_faces = member.sum(axis=0)
        self.kept = n_faces >= SMALL_GROUP
        self.n_ranked = int(self.kept.sum())
        self.n_small = int(((n_faces > 0) & ~self.kept).sum())
        member, self.n_faces = member[:, self.kept], n_faces[self.kept]
        n_hits = hits @ member
        self.values = n_hits / self.n_faces
        sums = [cluster_sums(each, clusters) for each in (member * hits[:, None], member)]
        self.smoothed = _smoothed(n_hits, self.n_faces, *map(resampled, sums))
        # Whole numbers far below 2^24 are exact in float32, which takes half the time.
        self.permuted = (permuted @ member.astype(np.float32)).astype(np.float64) / self.n_faces


def _smoothed(
    n_hits: Floats, n_faces: Floats, resampled_hits: Floats, resampled_n: Floats
) -> tuple[Floats, Floats, Floats]:
    """Give rates (k,), their standard errors (k,) and resampled rates (RESAMPLES, k).

    Each rate has a hit and a miss added: without them a group that is all right would seem to be
    known exactly. Source: A. Agresti, B. Caffo, "Simple and Effective Confidence Intervals for
    Proportions and Differences of Proportions", The American Statistician 54 (2000).
    """
    rate = (n_hits + 1) / (n_faces + 2)
    again = (resampled_hits + 1) / (resampled_n + 2)
    # Clusters widen the error beyond that of independent faces; nothing makes it smaller.
    error = np.maximum(np.sqrt(rate * (1 - rate) / (n_faces + 2)), again.std(axis=0))
    return rate, error, again


def _differences(values: Floats, errors: Floats, again: Floats) -> tuple[Floats, Floats, Floats]:
    """Set every group against every other, in both directions: differences, errors, resamples."""
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


def _permuted(differences: Floats, ours: float) -> tuple[float, float, float]:
    """Give mean and 95 % quantile of permuted differences, and how often one is as wide as ours."""
    as_wide = int((differences >= ours - ROUNDING).sum())
    # The observed arrangement is one of the permutations, so that p is never 0.
    p = (as_wide + 1) / (RESAMPLES + 1)
    return float(differences.mean()), float(np.quantile(differences, CONFIDENCE)), p


def _with_holm(table: pd.DataFrame, family: Flags | bool = True) -> pd.DataFrame:
    """Correct the column p over the rows of the family that have one; over all if left out."""
    known = table["p"].notna().to_numpy() & family
    corrected = np.full(len(table), np.nan)
    corrected[known] = holm(table["p"][known].tolist())[0]
    return table.assign(p_holm=corrected)


def _of_each_task(
    table_of: Callable[..., pd.DataFrame], test: pd.DataFrame, values: Mapping[TaskName, Any]
) -> pd.DataFrame | None:
    """Make a table task by task, each of the faces that have its label, corrected together.

    None where all faces have all labels. table_of: from test faces and values by task, (n,) each.
    """
    known = {task: (test[task] != MISSING).to_numpy() for task in values if task in test}
    if all(rows.all() for rows in known.values()):
        return None
    tables = [
        table_of(test[known[task]].reset_index(drop=True), {task: values[task][known[task]]})
        for task in values
    ]
    joined = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    return _with_holm(joined, _family(joined))


def _family(table: pd.DataFrame) -> Flags | bool:
    """Tell which rows are corrected together: of rates equalized odds alone, else all."""
    return (table["rate"] == EQUALIZED_ODDS).to_numpy() if "rate" in table else True


def shuffled_faces(clusters: Labels, strata: Labels | None = None) -> npt.NDArray[np.intp]:
    """Give (RESAMPLES, n_faces) indices: whose answer each face gets in each permutation.

    A cluster changes places with one of its size as a whole: predictions of two copies of a picture
    are not independent. strata: (n_faces,); faces change places within theirs, so
    that clusters do whose faces are of the same strata. Fixed seed, so that equal faces give equal
    shuffles.
    """
    random = np.random.default_rng(RESAMPLING_SEED)
    strata = np.zeros(len(clusters), dtype=np.int64) if strata is None else strata
    _, codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    size_of_face = sizes[codes]
    order = np.lexsort((strata, codes, size_of_face))  # by size, cluster by cluster, by stratum
    shuffles = np.empty((RESAMPLES, len(clusters)), dtype=np.intp)
    for size in np.unique(size_of_face):
        of_size = order[size_of_face[order] == size].reshape(-1, size)
        kinds, kind_of = np.unique(strata[of_size], axis=0, return_inverse=True)
        for kind in range(len(kinds)):
            faces = of_size[kind_of.ravel() == kind]
            places = np.tile(np.arange(len(faces)), (RESAMPLES, 1))
            taken = random.permuted(places, axis=1)
            shuffles[:, faces.ravel()] = faces[taken].reshape(RESAMPLES, -1)
    return shuffles


def gap_table(
    test: pd.DataFrame, right: Mapping[TaskName, Flags], divisions: Sequence[By] = DIVISIONS
) -> pd.DataFrame:
    """Set each task's groups against each other, a row per task and division; see GAP_COLUMNS.

    test: n faces with cluster and the true labels. right: (n,) per task.

    worst, best: accuracies in [0, 1]; gap is best - worst, ratio worst / best; missing where fewer
    than two groups can be ranked. low, high: 95 % intervals of the lowest accuracy, the gap and
    the ratio, whichever groups they truly belong to (see _largest). chance_gap, chance_gap_high:
    mean and 95 % quantile of the gap when group membership is shuffled, clusters kept whole; p:
    the share of such gaps that are as wide; p_holm: Holm's correction over all rows.
    """
    if (joined := _of_each_task(partial(gap_table, divisions=divisions), test, right)) is not None:
        return joined
    clusters = test["cluster"].to_numpy()
    shuffles = shuffled_faces(clusters)
    members = {by: _members(test, by) for by in divisions}
    rows = []
    for task, hits in right.items():
        permuted = hits.astype(np.float32)[shuffles]
        for by, member in members.items():
            rates = _Rates(member, hits, clusters, permuted)
            n_empty = int((member.sum(axis=0) == 0).sum())
            row = {"task": task, "by": by, "n_ranked": rates.n_ranked, "n_small": rates.n_small}
            gap = _gap(rates, group_names(by)) if rates.n_ranked > 1 else {}
            rows.append(row | {"n_empty": n_empty} | gap)
    return _with_holm(pd.DataFrame(rows, columns=list(GAP_COLUMNS)))


def _gap(rates: _Rates, names: Sequence[str]) -> dict[str, Any]:
    """Give the columns of GAP_COLUMNS from worst_group to p."""
    ranked, values = np.array(names)[rates.kept], rates.values
    worst, best = int(values.argmin()), int(values.argmax())
    rate, error, again = rates.smoothed
    worst_high, worst_low = (-end for end in _largest(-rate, error, -again))
    gap_low, gap_high = _largest(*_differences(rate, error, again))
    ratio_ends = _largest(*_differences(np.log(rate), error / rate, np.log(again)))
    ratio_high, ratio_low = (float(np.exp(-max(end, 0.0))) for end in ratio_ends)
    gap = float(values[best] - values[worst])
    chance_gap, chance_gap_high, p = _permuted(np.ptp(rates.permuted, axis=1), gap)
    return {
        "worst_group": str(ranked[worst]),
        "worst_n": int(rates.n_faces[worst]),
        "worst": float(values[worst]),
        "worst_low": max(worst_low, 0.0),
        "worst_high": min(worst_high, 1.0),
        "best_group": str(ranked[best]),
        "best_n": int(rates.n_faces[best]),
        "best": float(values[best]),
        "gap": gap,
        "gap_low": max(gap_low, 0.0),
        "gap_high": min(gap_high, 1.0),
        "ratio": float(values[worst] / values[best]) if values[best] > 0 else float("nan"),
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "chance_gap": chance_gap,
        "chance_gap_high": chance_gap_high,
        "p": p,
    }


def rate_table(test: pd.DataFrame, predicted: Mapping[TaskName, Labels]) -> pd.DataFrame:
    """Compare true- and false-positive rates of subgroups, class against rest; see RATE_COLUMNS.

    test: n faces with cluster and true labels. predicted: (n,) classes per task. Subgroups are
    those of GAP_BY: gender × race for age group, race for gender, gender for race, because a
    subgroup of a single true class has but one of the two rates. Gender has one row per rate, of
    `female`: the other class is its mirror image.

    difference: highest rate minus lowest, as fairlearn.metrics defines
    true_positive_rate_difference and false_positive_rate_difference; `equalized odds` is the
    larger of the two (equalized_odds_difference). Of several classes, each is one against the
    rest. A rate over fewer than 30 faces is left out and counted, unlike in fairlearn. low, high:
    95 % interval of the largest difference, whichever subgroups it is between (see _largest).
    permuted, permuted_high: mean and 95 % quantile of the difference when answers change places
    among faces of the same true label, which is equalized odds' hypothesis; p: how often such a
    difference is as wide; p_holm: Holm's correction over the rows of equalized odds alone.
    """
    if (joined := _of_each_task(rate_table, test, predicted)) is not None:
        return joined
    rows: list[dict[str, Any]] = []
    clusters = test["cluster"].to_numpy()
    for task, answers in predicted.items():
        by, truth = GAP_BY[task], test[task].to_numpy()
        member, names = _members(test, by), np.array(group_names(by))
        shuffles = shuffled_faces(clusters, truth)
        for label in range(n_classes(task)) if n_classes(task) > 2 else (1,):
            hits, positive = answers == label, truth == label
            permuted = hits.astype(np.float32)[shuffles]
            row = {"task": task, "by": by, "class": CLASS_NAMES[task][label]}
            of_class = []
            for name, faces in ((TRUE_POSITIVE, positive), (FALSE_POSITIVE, ~positive)):
                rates = _Rates(member * faces[:, None], hits, clusters, permuted)
                found = row | {"rate": name, "n_ranked": rates.n_ranked}
                found["n_left_out"] = rates.n_small
                if rates.n_ranked > 1:
                    ranked, values = names[rates.kept], rates.values
                    for which, place in (("lowest", values.argmin()), ("highest", values.argmax())):
                        found |= {f"{which}_group": str(ranked[place]), which: values[place]}
                    found |= _largest_difference([rates])
                    of_class.append(rates)
                rows.append(found)
            if len(of_class) == 2:
                rows.append(row | {"rate": EQUALIZED_ODDS} | _largest_difference(of_class))
    table = pd.DataFrame(rows, columns=list(RATE_COLUMNS))
    return _with_holm(table, _family(table))


def _largest_difference(several: Sequence[_Rates]) -> dict[str, float]:
    """Give the largest difference within one or more rates, with interval and permutation level."""
    ours = max(float(np.ptp(rates.values)) for rates in several)
    differences = zip(*(_differences(*rates.smoothed) for rates in several), strict=True)
    low, high = _largest(*(np.concatenate(part, axis=-1) for part in differences))
    permuted = np.max([np.ptp(rates.permuted, axis=1) for rates in several], axis=0)
    levels = dict(zip(("permuted", "permuted_high", "p"), _permuted(permuted, ours), strict=True))
    return {"difference": ours, "low": max(low, 0.0), "high": min(high, 1.0)} | levels


def gender_gap_table(test: pd.DataFrame, right: Mapping[TaskName, Flags]) -> pd.DataFrame:
    """Compare the accuracy for women and men, within age groups too; see GENDER_GAP_COLUMNS.

    test: n faces with cluster and true labels. right: (n,) per task. within: `all`, an age group,
    ADULTS, or ADJUSTED: the age groups' differences weighted by their numbers of faces, so that
    women and men of one age are compared. Rows with fewer than 30 women or men are absent, and
    such age groups are not in ADJUSTED.

    difference: women minus men; female, male: rates in [0, 1] (of ADJUSTED weighted likewise);
    low, high: 95 % interval, Agresti and Caffo's with errors widened by clusters. permuted,
    permuted_high: mean and 95 % quantile of the absolute difference when answers change places
    among the row's faces, for ADJUSTED among those of one age group; p: how often it is as wide;
    p_holm: Holm's correction over all rows.
    """
    if (joined := _of_each_task(gender_gap_table, test, right)) is not None:
        return joined
    clusters, ages = test["cluster"].to_numpy(), test["age_group"].to_numpy()
    genders = _members(test, "gender")
    age_groups = group_names("age_group")
    within = {"all": np.ones(len(test), dtype=bool)}
    within |= {name: ages == code for code, name in enumerate(age_groups)}
    within[ADULTS] = ages > 0
    within = {
        name: chosen
        for name, chosen in within.items()
        if (genders[chosen].sum(axis=0) >= SMALL_GROUP).all()
    }
    if not within:
        return pd.DataFrame(columns=list(GENDER_GAP_COLUMNS))
    # Columns: women and men of each row in turn.
    member = np.hstack([genders[:, ::-1] * chosen[:, None] for chosen in within.values()])
    # Whose answers change places: all faces'; adults' and children's; those of each age group.
    no_gender = -2 * (genders.sum(axis=1) == 0)
    shuffles = [
        shuffled_faces(clusters, np.where(no_gender, no_gender, kinds))
        for kinds in (ages * 0, np.sign(ages), ages)
    ]
    names, weights = list(within), np.eye(len(within))
    is_age_group = np.isin(names, age_groups)
    if is_age_group.sum() > 1:
        sizes = np.where(is_age_group, member.sum(axis=0).reshape(-1, 2).sum(axis=1), 0.0)
        names, weights = [*names, ADJUSTED], np.vstack([weights, sizes / sizes.sum()])
    rows = []
    for task, hits in right.items():
        drawn = [
            _Rates(member, hits, clusters, hits.astype(np.float32)[shuffle]) for shuffle in shuffles
        ]
        rates = drawn[0]
        n_faces = (weights > 0) @ rates.n_faces.reshape(-1, 2)
        values = weights @ rates.values.reshape(-1, 2)
        smoothed, errors, again = rates.smoothed
        centre = weights @ (smoothed[::2] - smoothed[1::2])
        independent = np.sqrt(weights**2 @ (errors[::2] ** 2 + errors[1::2] ** 2))
        clustered = ((again[:, ::2] - again[:, 1::2]) @ weights.T).std(axis=0)
        half = float(norm.ppf((1 + CONFIDENCE) / 2)) * np.maximum(independent, clustered)
        for index, name in enumerate(names):
            female, male = values[index]
            permuted = drawn[{"all": 0, ADULTS: 1}.get(name, 2)].permuted
            differences = np.abs((permuted[:, ::2] - permuted[:, 1::2]) @ weights[index])
            levels = _permuted(differences, abs(female - male))
            low, high = centre[index] - half[index], centre[index] + half[index]
            ends = max(low, -1.0), min(high, 1.0)
            found = (*n_faces[index].astype(int), female, male, female - male, *ends, *levels)
            rows.append((task, name, *found))
    return _with_holm(pd.DataFrame(rows, columns=list(GENDER_GAP_COLUMNS[:-1])))
