"""Whether a network's probabilities can be taken at their word: reliability, error, temperature.

The calibration error is about the predicted class; negative log-likelihood and Brier score are
about all classes, and reward accuracy too. A temperature is fitted on validation and stored with
the run; nothing here or elsewhere applies it to a number that is ranked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import softmax

from benchmark.evaluation.intervals import (
    CONFIDENCE,
    RESAMPLES,
    RESAMPLING_SEED,
    Floats,
    Labels,
    cluster_sums,
    resampled,
    wilson,
)
from benchmark.evaluation.subgroups import BYS, group_codes, group_names
from benchmark.tasks import TaskName

CALIBRATION_BINS: Final = 15
"""Bins of equal width, as in Guo et al. 2017."""
SURE_ERRORS: Final = 2.5
"""A bin whose gap is this many standard errors from 0 is taken to lie on the side it shows."""
TEMPERATURES: Final = (0.05, 20.0)
"""Where a temperature is looked for. One at an end says that none in between fits."""
ROUNDING: Final = 1e-12
"""A gradient as small as this is none: probabilities have been rounded to 0 and 1."""
SMALLEST_PROBABILITY: Final = float(np.finfo(np.float32).tiny)
"""Stands for a softmax value that fp32 rounded to 0, whose logarithm is needed."""

AS_PREDICTED: Final = "as predicted"
TEMPERED: Final = "tempered"
RELIABILITY_COLUMNS: Final = ("bin_low", "bin_high", "n", "confidence", "accuracy", "low", "high")
SUBGROUP_ECE_COLUMNS: Final = ("task", "by", "group", "n", "ece", "low", "high", "chance")
SUBGROUP_FACES: Final = 200
"""Smallest subgroup whose calibration error is given: of 200 faces, a network that is right as
often as it says shows an error of about 0.05 by chance alone."""


@dataclass(frozen=True)
class Confidence:
    """How sure a network was of each of n faces, and whether it was right."""

    probability: Floats
    """(n,) probability of the predicted class."""
    right: Floats
    """(n,) 1.0 where the predicted class is the label, else 0.0."""

    @classmethod
    def of(cls, probabilities: Floats, truth: Labels) -> "Confidence":
        """Take it from class probabilities, (n, n_classes)."""
        right = probabilities.argmax(axis=1) == truth
        return cls(probabilities.max(axis=1), right.astype(np.float64))

    @property
    def bins(self) -> npt.NDArray[np.intp]:
        """The bin of each face, (n,): ((m-1)/15, m/15] counted from 0."""
        inner_edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
        return np.digitize(self.probability, inner_edges, right=True)

    def error(self) -> float:
        """Give the expected calibration error of the top class, in [0, 1].

        The mean over faces of |accuracy - mean probability| of their bin. Source: C. Guo et al.,
        "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
        """
        gaps = np.bincount(
            self.bins, weights=self.right - self.probability, minlength=CALIBRATION_BINS
        )
        return float(np.abs(gaps).sum() / len(self.right))

    def reliability(self) -> pd.DataFrame:
        """Give accuracy beside mean probability per bin; the columns of RELIABILITY_COLUMNS.

        An empty bin has n = 0 and nothing else. low, high: Wilson's 95 % interval of the accuracy.
        """
        edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
        faces = pd.DataFrame({"confidence": self.probability, "accuracy": self.right})
        bins = faces.groupby(self.bins)
        table = bins.mean().assign(n=bins.size(), n_right=bins["accuracy"].sum())
        table = table.reindex(range(CALIBRATION_BINS))
        n_right, n = (table[name].fillna(0).to_numpy(np.int64) for name in ("n_right", "n"))
        low, high = wilson(n_right, n)
        table = table.assign(bin_low=edges[:-1], bin_high=edges[1:], n=n, low=low, high=high)
        return table[list(RELIABILITY_COLUMNS)]


def error_interval(
    confidence: Confidence, clusters: Labels, member: npt.NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """Give the ends of a 95 % interval of the calibration error; at least 95 %, never less.

    clusters: (n,), resampled as wholes. member: (n,), True for the faces whose error it is; all if
    left out. The plain percentile interval is of no use here: a sum of absolute gaps is too large
    by chance, and larger still in a resample, so that the interval around a small error misses it
    almost always (0 of 300 simulated networks without any error).

    Written as the largest sum of the bins' gaps over all choices of signs, the error has a lower
    end that holds for every choice: the estimate less the 97.5 % quantile of what resampling adds,
    taken as absolute in bins whose side is not sure and with its sign in the others. The upper end
    needs no such care: the largest sum overstates, and only the signs that are true must hold.
    NaN at both ends where resampling changes nothing.
    """
    counted = np.ones(len(clusters)) if member is None else member.astype(np.float64)
    gaps = np.zeros((len(clusters), CALIBRATION_BINS))
    rows = np.arange(len(clusters))
    gaps[rows, confidence.bins] = counted * (confidence.right - confidence.probability)
    sums = cluster_sums(gaps, clusters)
    estimate = sums.sum(axis=0) / counted.sum()
    sizes = resampled(cluster_sums(counted[:, None], clusters))
    noise = resampled(sums) / sizes - estimate
    if not noise.any():
        return float("nan"), float("nan")
    sure = np.abs(estimate) > SURE_ERRORS * noise.std(axis=0)
    signed = noise * np.sign(estimate)
    error, tail = float(np.abs(estimate).sum()), (1 - CONFIDENCE) / 2
    added = np.where(sure, signed, np.abs(noise)).sum(axis=1)
    low = error - float(np.quantile(added, 1 - tail))
    high = error - float(np.quantile(signed.sum(axis=1), tail))
    return max(low, 0.0), min(high, 1.0)


def errors_by_chance(confidence: Confidence, members: npt.NDArray[np.bool_]) -> Floats:
    """Give the mean error of a network that is right as often as it says, for k subgroups, (k,).

    members: (n, k), none of them empty. With few faces in a bin the error is above 0 by chance
    alone: about 0.017 for 2,315 faces. Each face is right with the probability stated, in 2,000
    draws with a fixed seed.
    """
    random = np.random.default_rng(RESAMPLING_SEED)
    probability, bins = confidence.probability, confidence.bins
    right = random.random((RESAMPLES, len(probability)), dtype=np.float32) < probability
    gaps = right.astype(np.float32) - probability.astype(np.float32)
    in_bin = np.eye(CALIBRATION_BINS, dtype=np.float32)[bins]
    errors = []
    for member in members.T:
        found = np.abs(gaps[:, member] @ in_bin[member]).sum(axis=1).astype(np.float64)
        errors.append(float(found.mean() / member.sum()))
    return np.array(errors)


def log_losses(probabilities: Floats, truth: Labels) -> Floats:
    """Give each face's negative log-likelihood in nats, (n,): -log of its label's probability.

    A probability that fp32 rounded to 0 counts as the smallest one of fp32: 87.3 nats.
    """
    return np.asarray(-_logits(probabilities)[np.arange(len(truth)), truth])


def brier_losses(probabilities: Floats, truth: Labels) -> Floats:
    """Give each face's Brier score, (n,): the squared distance from the one-hot label.

    Summed over the classes, 0 to 2; for two classes some define half of it. Source: G. W. Brier,
    "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78 (1950).
    """
    one_hot = np.eye(probabilities.shape[1])[truth]
    return np.asarray(((probabilities - one_hot) ** 2).sum(axis=1))


def subgroup_errors(test: pd.DataFrame, confidences: Mapping[TaskName, Confidence]) -> pd.DataFrame:
    """Give the calibration error of every subgroup of SUBGROUP_FACES or more.

    test: n faces with cluster and true labels. confidences: of the same faces, by task. The columns
    of SUBGROUP_ECE_COLUMNS; low, high: see error_interval; chance: see error_by_chance. A smaller
    group shows a larger error by chance, so that groups are compared with it, not with each other.
    """
    members = {
        (by, group): codes == code
        for by in BYS
        for codes in [group_codes(test, by)]
        for code, group in enumerate(group_names(by))
        if (codes == code).sum() >= SUBGROUP_FACES
    }
    rows: list[tuple[object, ...]] = []
    clusters = test["cluster"].to_numpy()
    for task, confidence in confidences.items() if members else ():
        chance = errors_by_chance(confidence, np.stack(list(members.values()), axis=1))
        for (group, member), level in zip(members.items(), chance, strict=True):
            error = Confidence(confidence.probability[member], confidence.right[member]).error()
            ends = error_interval(confidence, clusters, member)
            rows.append((task, *group, int(member.sum()), error, *ends, float(level)))
    return pd.DataFrame(rows, columns=list(SUBGROUP_ECE_COLUMNS))


def fit_temperature(probabilities: Floats, truth: Labels) -> float:
    """Give the temperature that makes these labels likeliest; above 1 softens, below sharpens.

    probabilities: (n, n_classes), n at least 1, of faces that nothing is tested on. The negative
    log-likelihood is convex in 1/temperature, so that its gradient has one zero. Where it has none
    in TEMPERATURES (all faces right: the sharper the likelier) the nearer end is given.
    Source: Guo et al. 2017, section 4.2.
    """
    logits = _logits(probabilities)
    of_label = float(logits[np.arange(len(truth)), truth].mean())

    def gradient(log_temperature: float) -> float:
        """Give the gradient of the negative log-likelihood along 1/temperature."""
        expected = (softmax(logits / np.exp(log_temperature), axis=1) * logits).sum(axis=1)
        return float(expected.mean()) - of_label

    sharpest, softest = (float(np.log(end)) for end in TEMPERATURES)
    if gradient(sharpest) <= ROUNDING:
        return TEMPERATURES[0]
    if gradient(softest) >= -ROUNDING:
        return TEMPERATURES[1]
    return float(np.exp(brentq(gradient, sharpest, softest, xtol=1e-9)))


def tempered(probabilities: Floats, temperature: float) -> Floats:
    """Give the probabilities at another temperature, (n, n_classes); the order of classes stays."""
    return np.asarray(softmax(_logits(probabilities) / temperature, axis=1))


@dataclass(frozen=True)
class Calibration:
    """How good one task's probabilities are, and the temperature that corrects them best."""

    temperature: float | None
    """Fitted on the validation faces; None without any."""
    error: dict[str, float]
    """Expected calibration error by part: `val`, `test`."""
    error_tempered: dict[str, float]
    """The same at the temperature."""
    nll: dict[str, float]
    """Negative log-likelihood in nats by part."""
    brier: dict[str, float]
    """Brier score by part, 0 to 2."""
    by_chance: float | None
    """Error of a network on these test faces that is right as often as it says; None without."""
    reliability: pd.DataFrame
    """On test: column `probabilities` (AS_PREDICTED, TEMPERED), then RELIABILITY_COLUMNS."""

    @property
    def at_end(self) -> bool:
        """Whether no temperature in between fits: all labels are as predicted, or none is."""
        return self.temperature in TEMPERATURES


def calibrate(parts: Mapping[str, tuple[Floats, Labels]]) -> Calibration:
    """Score one task's probabilities and fit a temperature.

    parts: by `val` and `test`, either of which may be absent, class probabilities and labels.
    """
    as_predicted = {part: Confidence.of(*values) for part, values in parts.items()}
    at_temperature, temperature = {}, None
    if "val" in parts:
        temperature = fit_temperature(*parts["val"])
        at_temperature = {
            part: Confidence.of(tempered(probabilities, temperature), truth)
            for part, (probabilities, truth) in parts.items()
        }
    versions = {AS_PREDICTED: as_predicted, TEMPERED: at_temperature}
    by_chance, reliability = None, pd.DataFrame(columns=["probabilities", *RELIABILITY_COLUMNS])
    if "test" in parts:
        everyone = np.ones((len(parts["test"][1]), 1), dtype=bool)
        by_chance = float(errors_by_chance(as_predicted["test"], everyone)[0])
        tables = {name: of["test"].reliability() for name, of in versions.items() if of}
        reliability = pd.concat(tables, names=["probabilities"]).reset_index("probabilities")
        reliability = reliability.reset_index(drop=True)
    return Calibration(
        temperature,
        error={part: confidence.error() for part, confidence in as_predicted.items()},
        error_tempered={part: confidence.error() for part, confidence in at_temperature.items()},
        nll={part: float(log_losses(*values).mean()) for part, values in parts.items()},
        brier={part: float(brier_losses(*values).mean()) for part, values in parts.items()},
        by_chance=by_chance,
        reliability=reliability,
    )


def _logits(probabilities: Floats) -> Floats:
    """Undo the softmax, up to a constant per face that the softmax takes out again."""
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)))
