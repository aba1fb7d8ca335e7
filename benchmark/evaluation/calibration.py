"""Whether a network's probabilities can be taken at their word: reliability, error, temperature.

The calibration error is about the predicted class; negative log-likelihood and Brier score are
about all classes, and reward accuracy too. A temperature is fitted on validation and stored with
the run; nothing here or elsewhere applies it to a number that is ranked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

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
    cluster_sums,
    resampled,
    wilson,
)
from benchmark.evaluation.subgroups import BYS, group_codes, group_names
from benchmark.tasks import TaskName

Labels = npt.NDArray[np.integer[Any]]

CALIBRATION_BINS: Final = 15
"""Bins of equal width, as in Guo et al. 2017."""
SURE_ERRORS: Final = 2.5
"""A bin whose gap is this many standard errors from 0 is taken to lie on the side it shows."""
TEMPERATURES: Final = (0.05, 20.0)
"""Where a temperature is looked for. One at an end says that none in between fits."""
ROUNDING: Final = 1e-12
"""A slope as small as this is no slope: probabilities have been rounded to 0 and 1."""
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
        """Read it off class probabilities, (n, n_classes)."""
        right = probabilities.argmax(axis=1) == truth
        return cls(probabilities.max(axis=1), right.astype(np.float64))

    @property
    def bins(self) -> npt.NDArray[np.intp]:
        """The bin of each face, (n,): ((m-1)/15, m/15] counted from 0."""
        inner_edges = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
        return np.digitize(self.probability, inner_edges, right=True)

    def error(self) -> float:
        """Give the expected calibration error, in [0, 1]: see calibration_error."""
        gaps = np.bincount(
            self.bins, weights=self.right - self.probability, minlength=CALIBRATION_BINS
        )
        return float(np.abs(gaps).sum() / len(self.right))

    def reliability(self) -> pd.DataFrame:
        """Give accuracy beside mean probability per bin; the columns of RELIABILITY_COLUMNS.

        An empty bin has n = 0 and nothing else. low, high: Wilson's 95 % interval of the accuracy.
        """
        bins, edges = self.bins, np.linspace(0, 1, CALIBRATION_BINS + 1)
        n_faces = np.bincount(bins, minlength=CALIBRATION_BINS)
        n_right = np.bincount(bins, weights=self.right, minlength=CALIBRATION_BINS)
        total = np.bincount(bins, weights=self.probability, minlength=CALIBRATION_BINS)
        nothing = np.full(CALIBRATION_BINS, np.nan)
        confidence, accuracy = (
            np.divide(part, n_faces, out=nothing.copy(), where=n_faces > 0)
            for part in (total, n_right)
        )
        low, high = wilson(n_right.astype(np.int64), n_faces)
        values = (edges[:-1], edges[1:], n_faces, confidence, accuracy, low, high)
        return pd.DataFrame(dict(zip(RELIABILITY_COLUMNS, values, strict=True)))


def calibration_error(probabilities: Floats, truth: Labels) -> float:
    """Give the expected calibration error of the top class, in [0, 1].

    probabilities: (n, n_classes). Faces fall into 15 bins of equal width by the probability of the
    predicted class, ((m-1)/15, m/15]; the error is the mean over faces of |accuracy - mean
    probability| of their bin. Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of
    Modern Neural Networks", ICML 2017, equation 3.
    """
    return Confidence.of(probabilities, truth).error()


def error_interval(
    confidence: Confidence,
    clusters: npt.NDArray[np.integer[Any]],
    member: npt.NDArray[np.bool_] | None = None,
) -> tuple[float, float]:
    """Give the ends of a 95 % interval of the calibration error; at least 95 %, never less.

    clusters: (n,), resampled as wholes. member: (n,), True for the faces whose error it is; all if
    left out. The plain percentile interval is of no use here: a sum of
    absolute gaps is too large by chance, and larger still in a resample, so that the interval
    around a small error misses it almost always (0 of 300 simulated networks without any error).

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


def error_by_chance(confidence: Confidence) -> float:
    """Give the mean calibration error of a network that is right as often as it says.

    With few faces in a bin the error is above 0 by chance alone: about 0.017 for 2,315 faces.
    """
    return float(errors_by_chance(confidence, np.ones((len(confidence.right), 1), dtype=bool))[0])


def errors_by_chance(confidence: Confidence, members: npt.NDArray[np.bool_]) -> Floats:
    """Give the same for k subgroups, (k,); members: (n, k), none of them empty.

    Each face is right with the probability stated, in 2,000 draws with a fixed seed.
    """
    random = np.random.default_rng(RESAMPLING_SEED)
    probability, bins = confidence.probability, confidence.bins
    right = random.random((RESAMPLES, len(probability)), dtype=np.float32) < probability
    gaps = right.astype(np.float32) - probability.astype(np.float32)
    errors = []
    for member in members.T:
        in_bin = np.zeros((int(member.sum()), CALIBRATION_BINS), dtype=np.float32)
        in_bin[np.arange(len(in_bin)), bins[member]] = 1.0
        found = np.abs(gaps[:, member] @ in_bin).sum(axis=1).astype(np.float64)
        errors.append(float(found.mean() / len(in_bin)))
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
    groups, members = [], []
    for by in BYS:
        codes = group_codes(test, by)
        for code, group in enumerate(group_names(by)):
            member = codes == code
            if member.sum() >= SUBGROUP_FACES:
                groups.append((by, group))
                members.append(member)
    rows: list[tuple[object, ...]] = []
    clusters = test["cluster"].to_numpy()
    for task, confidence in confidences.items() if groups else ():
        chance = errors_by_chance(confidence, np.stack(members, axis=1))
        for (by, group), member, level in zip(groups, members, chance, strict=True):
            error = Confidence(confidence.probability[member], confidence.right[member]).error()
            ends = error_interval(confidence, clusters, member)
            rows.append((task, by, group, int(member.sum()), error, *ends, float(level)))
    return pd.DataFrame(rows, columns=list(SUBGROUP_ECE_COLUMNS))


def fit_temperature(probabilities: Floats, truth: Labels) -> float:
    """Give the temperature that makes these labels likeliest; above 1 softens, below sharpens.

    probabilities: (n, n_classes), n at least 1, of faces that nothing is tested on. The negative
    log-likelihood is convex in 1/temperature, so that its slope has one zero. Where it has none in
    TEMPERATURES (all faces right: the sharper the likelier) the nearer end is given.
    Source: Guo et al. 2017, section 4.2.
    """
    logits = _logits(probabilities)
    of_label = float(logits[np.arange(len(truth)), truth].mean())

    def slope(log_temperature: float) -> float:
        """Slope of the negative log-likelihood along 1/temperature."""
        expected = (softmax(logits / np.exp(log_temperature), axis=1) * logits).sum(axis=1)
        return float(expected.mean()) - of_label

    sharpest, softest = (float(np.log(end)) for end in TEMPERATURES)
    if slope(sharpest) <= ROUNDING:
        return TEMPERATURES[0]
    if slope(softest) >= -ROUNDING:
        return TEMPERATURES[1]
    return float(np.exp(brentq(slope, sharpest, softest, xtol=1e-9)))


def tempered(probabilities: Floats, temperature: float) -> Floats:
    """Give the probabilities at another temperature, (n, n_classes); the order of classes stays."""
    return np.asarray(softmax(_logits(probabilities) / temperature, axis=1))


@dataclass(frozen=True)
class Calibration:
    """What one task's probabilities are worth, and the temperature that mends them best."""

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
        """Whether no temperature in between fits: all labels are as read, or none is."""
        return self.temperature in TEMPERATURES


def calibrate(parts: Mapping[str, tuple[Floats, Labels]]) -> Calibration:
    """Judge one task's probabilities and fit a temperature.

    parts: by `val` and `test`, either of which may be absent, class probabilities and labels.
    """
    temperature = fit_temperature(*parts["val"]) if "val" in parts else None
    error, error_tempered, tables = {}, {}, []
    nll = {part: float(log_losses(*values).mean()) for part, values in parts.items()}
    brier = {part: float(brier_losses(*values).mean()) for part, values in parts.items()}
    by_chance = None
    for part, (probabilities, truth) in parts.items():
        versions = {AS_PREDICTED: probabilities}
        if temperature is not None:
            versions[TEMPERED] = tempered(probabilities, temperature)
        found = {name: Confidence.of(values, truth) for name, values in versions.items()}
        error[part] = found[AS_PREDICTED].error()
        if TEMPERED in found:
            error_tempered[part] = found[TEMPERED].error()
        if part == "test":
            by_chance = error_by_chance(found[AS_PREDICTED])
            for name, confidence in found.items():
                table = confidence.reliability()
                table.insert(0, "probabilities", name)
                tables.append(table)
    columns = ["probabilities", *RELIABILITY_COLUMNS]
    reliability = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return Calibration(temperature, error, error_tempered, nll, brier, by_chance, reliability)


def _logits(probabilities: Floats) -> Floats:
    """Undo the softmax, up to a constant per face that the softmax takes out again."""
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)))
