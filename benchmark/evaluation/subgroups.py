"""Scores of subgroups and the gaps between them.

How far apart subgroups are: accuracy, true- and false-positive rates, women against men.

Each difference stands beside its interval and what it is when the answers are permuted. The
subgroups' own numbers are in benchmark.evaluation.subgroups. Only subgroups of 30 faces or more are
compared with each other.

Who a network fails for: accuracy of every task by age group, gender, race and gender x race.

Groups are by true labels. What a group's numbers are ranked into is for metrics and leaderboards.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm
from sklearn.metrics import f1_score

from benchmark.evaluation.intervals import (
    CONFIDENCE,
    RESAMPLES,
    RESAMPLING_SEED,
    Floats,
    cluster_sums,
    holm,
    resampled,
    wilson,
)
from benchmark.record import SUBGROUP_COLUMNS
from benchmark.tasks import CLASS_NAMES, MISSING, TASKS, TaskName, n_classes, slug

By = Literal["all", "age_group", "gender", "race", "gender_race"]
BYS: Final[tuple[By, ...]] = get_args(By)

SMALL_GROUP: Final = 30
"""A group of fewer faces is marked and never ranked: at 70 % accuracy, Wilson's 95 % interval of
30 faces spans 31 points."""

COLUMNS: Final = SUBGROUP_COLUMNS

Labels = npt.NDArray[np.integer[Any]]


def group_names(by: By) -> tuple[str, ...]:
    """Name the groups of a division as a person reads them: `61+`, `female Black`."""
    if by == "all":
        return ("all",)
    if by == "gender_race":
        return tuple(f"{g} {r}" for g in CLASS_NAMES["gender"] for r in CLASS_NAMES["race"])
    return CLASS_NAMES[by]


def group_slugs(by: By) -> tuple[str, ...]:
    """Name the groups of a division as metric names have them: `61-plus`, `female-black`."""
    if by == "all":
        return ("all",)
    if by == "gender_race":
        genders, races = group_slugs("gender"), group_slugs("race")
        return tuple(f"{g}-{r}" for g in genders for r in races)
    return tuple(slug(by, label) for label in range(n_classes(by)))


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


def subgroup_table(truths: pd.DataFrame, predicted: Mapping[TaskName, Labels]) -> pd.DataFrame:
    """Score every predicted task in every group; the columns of COLUMNS.

    truths: n faces with age_group, gender, race. predicted: (n,) classes per task. Rates in [0, 1]
    with Wilson's 95 % interval. A group without faces has n = 0 and no rate: missing, never 0.
    """
    rows: list[pd.DataFrame] = []
    for task in (task for task in TASKS if task in predicted):
        truth = truths[task].to_numpy(dtype=np.int64)
        for by in BYS:
            names, codes = group_names(by), group_codes(truths, by)
            n_groups = len(names)
            grouped = codes != MISSING
            n_faces = np.bincount(codes[grouped], minlength=n_groups)
            hits = grouped & (truth == predicted[task])
            right = np.bincount(codes[hits], minlength=n_groups)
            low, high = wilson(right, n_faces)
            accuracy = np.divide(right, n_faces, out=np.full(n_groups, np.nan), where=n_faces > 0)
            members = (codes == code for code in range(n_groups))
            f1 = [macro_f1(truth[which], predicted[task][which]) for which in members]
            values = (task, by, names, n_faces, accuracy, low, high, f1)
            rows.append(pd.DataFrame(dict(zip(COLUMNS, values, strict=True))))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(COLUMNS))


def macro_f1(truth: Labels, predicted: Labels) -> float:
    """Average F1 over the classes that occur among the true labels, in [0, 1].

    A class nobody in the group has is left out: its F1 would be 0 after a single false alarm,
    which already counts as a miss of the true class. NaN where fewer than two classes occur:
    within one class every precision is 1 and F1 says nothing that accuracy does not.
    """
    present = np.unique(truth)
    if len(present) < 2:
        return float("nan")
    return float(f1_score(truth, predicted, labels=present, average="macro", zero_division=0.0))


def ranked(subgroups: pd.DataFrame) -> pd.DataFrame:
    """Keep the groups large enough to be ranked against each other."""
    return subgroups[subgroups["n"] >= SMALL_GROUP]


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
    return _with_holm(pd.DataFrame(rows, columns=list(GAP_COLUMNS)))


def _with_holm(table: pd.DataFrame, family: npt.NDArray[np.bool_] | None = None) -> pd.DataFrame:
    """Correct the column p over the rows of the family that have one; over all if left out."""
    known = table["p"].notna().to_numpy() & (True if family is None else family)
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


def shuffled_faces(
    clusters: npt.NDArray[np.integer[Any]], strata: npt.NDArray[np.integer[Any]] | None = None
) -> Indices:
    """Give (RESAMPLES, n_faces) indices: whose answer each face takes over in each shuffle.

    A cluster changes places with one of its size as a whole: what the network says of two copies
    of a picture is no independent news. strata: (n_faces,); faces change places within theirs, so
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
    """Give the ends for the lowest accuracy, the gap and the ratio."""
    columns = draws.columns[by]
    rate, error, again = _smoothed(
        draws.n_right[task][columns][kept],
        draws.n_faces[columns][kept],
        draws.resampled_right[task][:, columns][:, kept],
        draws.resampled_n[:, columns][:, kept],
    )
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
    mean, high, p = _permuted(rates.max(axis=1) - rates.min(axis=1), gap)
    return {"chance_gap": mean, "chance_gap_high": high, "p": p}


def _permuted(differences: Floats, ours: float) -> tuple[float, float, float]:
    """Give mean and 95 % quantile of permuted differences, and how often one is as wide as ours."""
    as_wide = int((differences >= ours - ROUNDING).sum())
    # The arrangement at hand is one of the permutations, so that p is never 0.
    p = (as_wide + 1) / (RESAMPLES + 1)
    return float(differences.mean()), float(np.quantile(differences, CONFIDENCE)), p


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
    rows: list[dict[str, Any]] = []
    clusters = test["cluster"].to_numpy()
    for task, answers in predicted.items():
        by, truth = GAP_BY[task], test[task].to_numpy()
        names = np.array(group_names(by))
        member = np.eye(len(names) + 1)[group_codes(test, by), : len(names)]
        shuffles = shuffled_faces(clusters, truth)
        for label in range(n_classes(task)) if n_classes(task) > 2 else (1,):
            said, positive = answers == label, truth == label
            permuted = said.astype(np.float32)[shuffles]
            rates = {
                name: _Rates(member * faces[:, None], said, clusters, permuted)
                for name, faces in ((TRUE_POSITIVE, positive), (FALSE_POSITIVE, ~positive))
            }
            start = {"task": task, "by": by, "class": CLASS_NAMES[task][label]}
            for name, found in rates.items():
                rows.append(start | {"rate": name} | found.row(names))
            both = [found for found in rates.values() if found.kept.sum() > 1]
            if len(both) == len(rates):
                rows.append(start | {"rate": EQUALIZED_ODDS} | _largest_of(both))
    table = pd.DataFrame(rows, columns=list(RATE_COLUMNS))
    return _with_holm(table, (table["rate"] == EQUALIZED_ODDS).to_numpy())


class _Rates:
    """How often subgroups are given one class: observed, resampled by clusters, permuted."""

    def __init__(
        self,
        member: Floats,
        said: npt.NDArray[np.bool_],
        clusters: npt.NDArray[np.integer[Any]],
        permuted: npt.NDArray[np.float32],
    ) -> None:
        n_faces = member.sum(axis=0)
        self.kept = n_faces >= SMALL_GROUP
        self.n_left_out = int(((n_faces > 0) & ~self.kept).sum())
        member, n_faces = member[:, self.kept], n_faces[self.kept]
        hits = member * said[:, None]
        self.rates = hits.sum(axis=0) / n_faces
        sums = resampled(cluster_sums(np.concatenate([hits, member], axis=1), clusters))
        smoothed = _smoothed(hits.sum(axis=0), n_faces, *np.split(sums, 2, axis=1))
        self.differences = _differences(*smoothed)
        self.permuted = (permuted @ member.astype(np.float32)).astype(np.float64) / n_faces

    def row(self, names: npt.NDArray[np.str_]) -> dict[str, Any]:
        """Give the columns of RATE_COLUMNS from n_ranked on; without two rates, only counts."""
        counts = {"n_ranked": int(self.kept.sum()), "n_left_out": self.n_left_out}
        if len(self.rates) < 2:
            return counts
        ranked, lowest, highest = names[self.kept], self.rates.argmin(), self.rates.argmax()
        ends = {
            "lowest_group": str(ranked[lowest]),
            "lowest": float(self.rates[lowest]),
            "highest_group": str(ranked[highest]),
            "highest": float(self.rates[highest]),
        }
        return counts | ends | _largest_of([self])


def _largest_of(several: Sequence[_Rates]) -> dict[str, float]:
    """Give the largest difference of one or more rates, with interval and permutation level."""
    ours = max(float(np.ptp(rates.rates)) for rates in several)
    low, high = _largest(
        *(
            np.concatenate([rates.differences[part] for rates in several], axis=-1)
            for part in range(3)
        )
    )
    mean, permuted_high, p = _permuted(
        np.max([np.ptp(rates.permuted, axis=1) for rates in several], axis=0), ours
    )
    return {
        "difference": ours,
        "low": max(low, 0.0),
        "high": min(high, 1.0),
        "permuted": mean,
        "permuted_high": permuted_high,
        "p": p,
    }


def gender_gap_table(
    test: pd.DataFrame, right: Mapping[TaskName, npt.NDArray[np.bool_]]
) -> pd.DataFrame:
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
    clusters, ages = test["cluster"].to_numpy(), test["age_group"].to_numpy()
    genders = np.eye(3)[test["gender"].to_numpy(), :2]  # MISSING is the last, and left out
    strata = [("all", np.ones(len(test), dtype=bool))]
    strata += [(name, ages == code) for code, name in enumerate(group_names("age_group"))]
    strata.append((ADULTS, ages > 0))
    strata = [
        (name, chosen)
        for name, chosen in strata
        if (genders[chosen].sum(axis=0) >= SMALL_GROUP).all()
    ]
    if not strata:
        return pd.DataFrame(columns=list(GENDER_GAP_COLUMNS))
    member = np.concatenate([genders[:, ::-1] * chosen[:, None] for _, chosen in strata], axis=1)
    n_faces, resampled_n = member.sum(axis=0), resampled(cluster_sums(member, clusters))
    # Whose answers change places: all faces'; adults' and children's; those of each age group.
    no_gender = -2 * (genders.sum(axis=1) == 0)
    shuffles = [
        shuffled_faces(clusters, np.where(no_gender, no_gender, kinds))
        for kinds in (ages * 0, np.sign(ages), ages)
    ]
    names = [name for name, _ in strata]
    weights = np.eye(len(names))
    is_age_group = np.isin(names, group_names("age_group"))
    if is_age_group.sum() > 1:
        sizes = np.where(is_age_group, n_faces.reshape(-1, 2).sum(axis=1), 0.0)
        names, weights = [*names, ADJUSTED], np.vstack([weights, sizes / sizes.sum()])
    counts = (weights > 0) @ n_faces.reshape(-1, 2)
    rows = []
    for task, answers in right.items():
        hits = member * answers[:, None]
        rates = weights @ (hits.sum(axis=0) / n_faces).reshape(-1, 2)
        smoothed, errors, again = _smoothed(
            hits.sum(axis=0), n_faces, resampled(cluster_sums(hits, clusters)), resampled_n
        )
        centre = weights @ (smoothed[::2] - smoothed[1::2])
        independent = np.sqrt(weights**2 @ (errors[::2] ** 2 + errors[1::2] ** 2))
        clustered = ((again[:, ::2] - again[:, 1::2]) @ weights.T).std(axis=0)
        half = float(norm.ppf((1 + CONFIDENCE) / 2)) * np.maximum(independent, clustered)
        permuted = []
        for shuffle in shuffles:
            drawn = answers.astype(np.float32)[shuffle] @ member.astype(np.float32) / n_faces
            permuted.append(np.abs((drawn[:, ::2] - drawn[:, 1::2]) @ weights.T))
        for index, name in enumerate(names):
            female, male = rates[index]
            drawn = permuted[{"all": 0, ADULTS: 1}.get(name, 2)][:, index]
            levels = _permuted(drawn, abs(female - male))
            ends = max(centre[index] - half[index], -1.0), min(centre[index] + half[index], 1.0)
            values = (*counts[index].astype(int), female, male, female - male, *ends, *levels)
            rows.append((task, name, *values))
    return _with_holm(pd.DataFrame(rows, columns=list(GENDER_GAP_COLUMNS[:-1])))
