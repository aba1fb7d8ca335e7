"""Accuracy of every task by age group, gender, race and gender x race, and how far apart they are;
rates of subgroups, class against rest; women against men of one age.

Of a run's predictions of n test faces: cluster, true labels, by which subgroups are, and predicted
classes. Every difference stands beside its interval and what it is when the answers are permuted;
only subgroups of 30 faces or more are compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from benchmark.evaluation import intervals
from benchmark.evaluation.intervals import CONFIDENCE, RESAMPLES, Flags, Floats, Labels
from benchmark.evaluation.predictions import by_task
from benchmark.record import SUBGROUP_COLUMNS
from benchmark.tasks import CLASS_NAMES, MISSING, TaskName, n_classes

By = Literal["all", "age_group", "gender", "race", "gender_race"]
BYS: Final[tuple[By, ...]] = get_args(By)
DIVISIONS: Final = BYS[1:]
"""Every division but `all`."""

SMALL_GROUP: Final = 30
"""A group of fewer faces is marked and never ranked: Wilson's interval of 30 spans 31 pp."""

GAP_BY: Final[Mapping[TaskName, By]] = {
    "age_group": "gender_race",
    "gender": "race",
    "race": "gender",
}
"""The division whose gap stands for a task; how well its own classes are predicted is recall."""

GAP: Final = ("gap", "gap_low", "gap_high", "chance_gap", "p")
GAP_COLUMNS: Final = (
    *("task", "by", "n_ranked", "n_small"),
    *("worst_group", "worst_n", "worst", "worst_low", "worst_high"),
    *("best_group", "best_n", "best"),
    *(*GAP[:3], "ratio", "ratio_low", "ratio_high", *GAP[3:], "p_holm"),
)

DIFFERENCE: Final = ("difference", "low", "high", "permuted", "p")
RATE_COLUMNS: Final = (
    *("task", "by", "class", "rate", "n_left_out"),
    *("lowest_group", "lowest", "highest_group", "highest", *DIFFERENCE, "p_holm"),
)
TRUE_POSITIVE: Final = "true positive"
FALSE_POSITIVE: Final = "false positive"
EQUALIZED_ODDS: Final = "equalized odds"
GENDER_GAP_COLUMNS: Final = (
    *("task", "within", "n_female", "n_male", "female", "male", *DIFFERENCE, "p_holm"),
)
ADULTS: Final = "15 and older"
ADJUSTED: Final = "adjusted for age group"

ROUNDING: Final = 1e-9
"""Two gaps as near as this are the same gap."""


def group_names(by: By) -> tuple[str, ...]:
    """Name the groups of a division as a person reads them: `61+`, `female Black`."""
    if by == "all":
        return ("all",)
    if by == "gender_race":
        return tuple(f"{g} {r}" for g in CLASS_NAMES["gender"] for r in CLASS_NAMES["race"])
    return CLASS_NAMES[by]


def group_codes(truths: pd.DataFrame, by: By) -> Labels:
    """Give the group of each face by its true labels; (n,), places in group_names, or MISSING."""
    if by == "all":
        return np.zeros(len(truths), dtype=np.int64)
    if by == "gender_race":
        gender, race = group_codes(truths, "gender"), group_codes(truths, "race")
        known = (gender != MISSING) & (race != MISSING)
        return np.where(known, gender * n_classes("race") + race, MISSING)
    return truths[by].to_numpy(dtype=np.int64)


def members(faces: pd.DataFrame, by: By) -> Floats:
    """Give 1 where a face belongs to a group of a division, else 0; (n_faces, n_groups)."""
    # One row more, of nobody, where the code MISSING points: the last.
    return np.eye(len(group_names(by)) + 1)[group_codes(faces, by), :-1]


def subgroup_table(test: pd.DataFrame) -> pd.DataFrame:
    """Score every predicted task in every group; the columns of record.SUBGROUP_COLUMNS.

    Rates in [0, 1] with Wilson's 95 % interval; a group without faces has n = 0 and no rate.
    """
    tables = []
    for task, faces, truth, predicted in by_task(test):
        k = n_classes(task)
        cells = np.eye(k * k)[truth * k + predicted]
        for by in BYS:
            matrices = (members(faces, by).T @ cells).astype(np.int64).reshape(-1, k, k)
            n_faces = matrices.sum(axis=(1, 2))
            low, high = intervals.wilson(intervals.diagonal(matrices).sum(axis=1), n_faces)
            rate, f1 = intervals.accuracy(matrices), intervals.macro_f1_of_counts(matrices)
            values = (task, by, group_names(by), n_faces, rate, low, high, f1)
            tables.append(pd.DataFrame(dict(zip(SUBGROUP_COLUMNS, values, strict=True))))
    return pd.concat(tables, ignore_index=True)


def macro_f1(truth: Labels, predicted: Labels) -> float:
    """Average F1 over the true classes that occur, in [0, 1]; see intervals.macro_f1_of_counts."""
    k = int(max(truth.max(initial=0), predicted.max(initial=0))) + 1
    return float(intervals.macro_f1_of_counts(intervals.confusion(truth, predicted, k)))


def differences(values: Floats, errors: Floats, again: Floats) -> tuple[Floats, Floats, Floats]:
    """Set every group against every other, in both directions: differences, errors, resamples."""
    one, other = np.nonzero(~np.eye(len(values), dtype=bool))
    error = np.sqrt(errors[one] ** 2 + errors[other] ** 2)
    return values[one] - values[other], error, again[:, one] - again[:, other]


def largest(estimates: Floats, errors: Floats, again: Floats) -> tuple[float, float]:
    """Give a 95 % interval of the largest of m quantities, whichever it truly is.

    estimates, errors: (m,). again: (RESAMPLES, m). The largest estimate is biased upwards: its
    percentile interval always misses a gap of 0, and a mild one among ten groups in nine of ten
    simulated runs. Here the lower end holds at once for all quantities that may be the largest
    (those whose simultaneous upper end reaches the lower end of the largest; dropping the others
    narrows the rest, and is repeated until none is dropped), the upper end for each by itself.
    Together at least 95 %, and more where several are about as large. After V. Chernozhukov,
    S. Lee, A. Rosen, "Intersection Bounds", Econometrica 81 (2013).
    """
    tail = (1 - CONFIDENCE) / 2
    of_one = float(norm.ppf(1 - tail))
    deviations = (again - estimates) / errors
    candidates = np.ones(len(estimates), dtype=bool)
    while True:
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


def shuffled_faces(clusters: Labels, strata: Labels | None = None) -> npt.NDArray[np.intp]:
    """Give (RESAMPLES, n_faces) indices: whose answer each face gets in each permutation.

    A cluster changes places as a whole with one of its size, since copies of a picture are not
    independent, and whose faces are of the same strata, (n_faces,). The seed is fixed.
    """
    random = np.random.default_rng(intervals.RESAMPLING_SEED)
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


def gap_table(test: pd.DataFrame, divisions: Sequence[By] = DIVISIONS) -> pd.DataFrame:
    """Set each task's groups against each other, a row per task and division; see GAP_COLUMNS.

    worst, best: accuracies in [0, 1]; gap is best - worst, ratio worst / best; missing where fewer
    than two groups can be ranked. low, high: 95 % intervals, whichever groups they truly belong to
    (see largest). chance_gap: mean of the gap when group membership is shuffled, clusters kept
    whole; p: the share of such gaps that are as wide; p_holm: Holm's correction over all rows.
    """
    rows, shuffles = list[dict[str, Any]](), dict[bytes, npt.NDArray[np.intp]]()
    for task, faces, truth, predicted in by_task(test):
        clusters, hits = faces["cluster"].to_numpy(), truth == predicted
        if (key := clusters.tobytes()) not in shuffles:
            shuffles[key] = shuffled_faces(clusters)
        permuted = hits.astype(np.float32)[shuffles[key]]
        for by in divisions:
            rates = Rates(members(faces, by), hits, clusters, permuted)
            row = {"task": task, "by": by, "n_ranked": rates.n_ranked, "n_small": rates.n_small}
            rows.append(row | _gap(by, rates))
    return with_holm(pd.DataFrame(rows, columns=list(GAP_COLUMNS)))


def with_holm(table: pd.DataFrame, family: Flags | bool = True) -> pd.DataFrame:
    """Correct the column p over the rows of the family that have one; over all if left out."""
    tested = table["p"].notna() & family
    corrected, _ = intervals.holm(table["p"][tested].tolist())
    return table.assign(p_holm=pd.Series(corrected, table.index[tested], dtype=np.float64))


def permuted_level(drawn: Floats, ours: float) -> tuple[float, float]:
    """Give the mean of permuted differences, and how often one is as wide as ours."""
    # The observed arrangement is one of the permutations, so that p is never 0.
    p = (int((drawn >= ours - ROUNDING).sum()) + 1) / (RESAMPLES + 1)
    return float(drawn.mean()), p


class Rates:
    """How often each of k groups of SMALL_GROUP faces or more has a hit.

    values: observed, (k,). permuted: (RESAMPLES, k). smoothed: rates (k,), their standard errors
    (k,) and rates resampled by clusters, (RESAMPLES, k), each with a hit and a miss added: without
    them a group that is all right would seem to be known exactly. Source: A. Agresti, B. Caffo,
    "Simple and Effective Confidence Intervals for Proportions and Differences of Proportions", The
    American Statistician 54 (2000).
    """

    def __init__(
        self, member: Floats, hits: Flags, clusters: Labels, permuted: npt.NDArray[np.float32]
    ) -> None:
        """Count; member: (n_faces, n_groups), 1 where a face is in a group. hits: (n_faces,);
        permuted: after each permutation, (RESAMPLES, n_faces)."""
        n_faces = member.sum(axis=0)
        self.ranked = n_faces >= SMALL_GROUP
        self.n_ranked = int(self.ranked.sum())
        self.n_small = int(((n_faces > 0) & ~self.ranked).sum())
        member, self.n_faces = member[:, self.ranked], n_faces[self.ranked]
        n_hits = hits @ member
        self.values = n_hits / self.n_faces
        sums = [intervals.cluster_sums(each, clusters) for each in (member * hits[:, None], member)]
        hits_again, n_again = map(intervals.resampled, sums)
        rate, again = (n_hits + 1) / (self.n_faces + 2), (hits_again + 1) / (n_again + 2)
        # Clusters widen the error beyond that of independent faces; nothing makes it smaller.
        error = np.sqrt(rate * (1 - rate) / (self.n_faces + 2))
        self.smoothed = rate, np.maximum(error, again.std(axis=0)), again
        # Whole numbers far below 2^24 are exact in float32, which takes half the time.
        self.permuted = (permuted @ member.astype(np.float32)).astype(np.float64) / self.n_faces


def _extremes(by: By, rates: Rates, lowest: str, highest: str) -> dict[str, Any]:
    """Give the group of the lowest and of the highest rate, its number of faces and the rate."""
    names, found = np.array(group_names(by))[rates.ranked], dict[str, Any]()
    for which, at in ((lowest, rates.values.argmin()), (highest, rates.values.argmax())):
        n_faces, rate = int(rates.n_faces[at]), rates.values[at]
        found |= {f"{which}_group": names[at], f"{which}_n": n_faces, which: rate}
    return found


def _largest(several: Sequence[Rates], names: Sequence[str] = DIFFERENCE) -> dict[str, float]:
    """Give the largest difference within one or more rates, its interval and permutation level."""
    ours = max(float(np.ptp(rates.values)) for rates in several)
    pairs = zip(*(differences(*rates.smoothed) for rates in several), strict=True)
    low, high = largest(*(np.concatenate(part, axis=-1) for part in pairs))
    drawn = np.max([np.ptp(rates.permuted, axis=1) for rates in several], axis=0)
    found = ours, max(low, 0.0), min(high, 1.0), *permuted_level(drawn, ours)
    return dict(zip(names, found, strict=True))


def _gap(by: By, rates: Rates) -> dict[str, Any]:
    """Give the columns of GAP_COLUMNS from worst_group to p; none of fewer than two groups."""
    if rates.n_ranked < 2:
        return {}
    rate, error, again = rates.smoothed
    found = _extremes(by, rates, "worst", "best") | _largest([rates], GAP)
    worst_high, worst_low = (-end for end in largest(-rate, error, -again))
    ratio_ends = largest(*differences(np.log(rate), error / rate, np.log(again)))
    ratio_high, ratio_low = (float(np.exp(-max(end, 0.0))) for end in ratio_ends)
    ratio = found["worst"] / found["best"] if found["best"] > 0 else float("nan")
    found |= {"worst_low": max(worst_low, 0.0), "worst_high": min(worst_high, 1.0)}
    return found | {"ratio": ratio, "ratio_low": ratio_low, "ratio_high": ratio_high}


def rate_table(test: pd.DataFrame) -> pd.DataFrame:
    """Compare true- and false-positive rates of subgroups, class against rest; see RATE_COLUMNS.

    Subgroups are those of GAP_BY, because a subgroup of a single true class has but one of the two
    rates. Gender has the rows of `female` alone: `male` is its mirror image.

    difference: highest rate minus lowest, as fairlearn.metrics defines
    true_positive_rate_difference and false_positive_rate_difference; `equalized odds` is the
    larger of the two (equalized_odds_difference). A rate over fewer than 30 faces is left out and
    counted, unlike in fairlearn. low, high: 95 % interval of the largest difference (see largest).
    permuted: mean of the difference when answers change places among faces of the same true label,
    which is equalized odds' hypothesis; p: how often such a difference is as wide; p_holm: Holm's
    correction over the rows of equalized odds alone.
    """
    rows: list[dict[str, Any]] = []
    for task, faces, truth, predicted in by_task(test):
        clusters, by = faces["cluster"].to_numpy(), GAP_BY[task]
        member, shuffles = members(faces, by), shuffled_faces(clusters, truth)
        for label in range(n_classes(task)) if n_classes(task) > 2 else (1,):
            hits, positive = predicted == label, truth == label
            permuted = hits.astype(np.float32)[shuffles]
            row = {"task": task, "by": by, "class": CLASS_NAMES[task][label]}
            of_class = []
            for name, counted in ((TRUE_POSITIVE, positive), (FALSE_POSITIVE, ~positive)):
                rates = Rates(member * counted[:, None], hits, clusters, permuted)
                rows.append(row | {"rate": name, "n_left_out": rates.n_small})
                if rates.n_ranked > 1:
                    rows[-1] |= _extremes(by, rates, "lowest", "highest") | _largest([rates])
                    of_class.append(rates)
            if len(of_class) == 2:
                rows.append(row | {"rate": EQUALIZED_ODDS} | _largest(of_class))
    table = pd.DataFrame(rows, columns=list(RATE_COLUMNS))
    return with_holm(table, (table["rate"] == EQUALIZED_ODDS).to_numpy())


def gender_gap_table(test: pd.DataFrame) -> pd.DataFrame:
    """Compare the accuracy for women and men, within age groups too; see GENDER_GAP_COLUMNS.

    within: `all`, an age group, ADULTS, or ADJUSTED: the age groups' differences weighted by their
    numbers of faces, so that women and men of one age are compared. Age groups with fewer than 30
    women or men are left out.

    difference: women minus men; female, male: rates in [0, 1]; low, high: 95 % interval, Agresti
    and Caffo's with errors widened by clusters. permuted: mean of the absolute difference when
    answers change places among the row's faces, for ADJUSTED among those of one age group; p: how
    often it is as wide; p_holm: Holm's correction over all rows.
    """
    rows: list[tuple[Any, ...]] = []
    for task, faces, truth, predicted in by_task(test):
        rows += ((task, *row) for row in _gender_gaps(faces, truth == predicted))
    return with_holm(pd.DataFrame(rows, columns=list(GENDER_GAP_COLUMNS[:-1])))


def _gender_gaps(test: pd.DataFrame, hits: Flags) -> Iterator[tuple[Any, ...]]:
    """Yield the columns of GENDER_GAP_COLUMNS from within to p."""
    clusters, ages = test["cluster"].to_numpy(), test["age_group"].to_numpy()
    genders, age_groups = members(test, "gender"), group_names("age_group")
    every = {"all": np.ones(len(test), dtype=bool)}
    every |= {name: ages == code for code, name in enumerate(age_groups)} | {ADULTS: ages > 0}
    within = {
        name: chosen
        for name, chosen in every.items()
        if (genders[chosen].sum(axis=0) >= SMALL_GROUP).all()
    }
    if not within:
        return
    # Columns: women and men of each row in turn.
    member = np.hstack([genders[:, ::-1] * chosen[:, None] for chosen in within.values()])
    # Whose answers change places: all faces'; adults' and children's; those of each age group.
    no_gender = -2 * (genders.sum(axis=1) == 0)
    drawn = []
    for kinds in (ages * 0, np.sign(ages), ages):
        strata = np.where(no_gender, no_gender, kinds)
        permuted = hits.astype(np.float32)[shuffled_faces(clusters, strata)]
        drawn.append(Rates(member, hits, clusters, permuted))
    names, weights = list(within), np.eye(len(within))
    is_age_group = np.isin(names, age_groups)
    if is_age_group.sum() > 1:
        sizes = np.where(is_age_group, member.sum(axis=0).reshape(-1, 2).sum(axis=1), 0.0)
        names, weights = [*names, ADJUSTED], np.vstack([weights, sizes / sizes.sum()])
    rates = drawn[0]
    n_faces = (weights > 0) @ rates.n_faces.reshape(-1, 2)
    values = weights @ rates.values.reshape(-1, 2)
    gaps, (rate, errors, again) = values[:, 0] - values[:, 1], rates.smoothed
    centre = weights @ (rate[::2] - rate[1::2])
    independent = np.sqrt(weights**2 @ (errors[::2] ** 2 + errors[1::2] ** 2))
    clustered = ((again[:, ::2] - again[:, 1::2]) @ weights.T).std(axis=0)
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * np.maximum(independent, clustered)
    low, high = np.maximum(centre - half, -1.0), np.minimum(centre + half, 1.0)
    for index, name in enumerate(names):
        permuted = drawn[{"all": 0, ADULTS: 1}.get(name, 2)].permuted
        apart = np.abs((permuted[:, ::2] - permuted[:, 1::2]) @ weights[index])
        levels = permuted_level(apart, abs(gaps[index]))
        said = *values[index], gaps[index], low[index], high[index], *levels
        yield name, *n_faces[index].astype(int), *said
