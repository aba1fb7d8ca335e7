"""Whether a network's probabilities can be taken at their word: reliability, error, temperature.

Probabilities are those of the predicted class. A temperature is fitted on validation and stored
with the run; nothing here or elsewhere applies it to a number that is ranked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import softmax

from benchmark.results.intervals import (
    CONFIDENCE,
    RESAMPLES,
    RESAMPLING_SEED,
    Floats,
    cluster_sums,
    resampled,
    wilson,
)

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
    confidence: Confidence, clusters: npt.NDArray[np.integer[Any]]
) -> tuple[float, float]:
    """Give the ends of a 95 % interval of the calibration error; at least 95 %, never less.

    clusters: (n,), resampled as wholes. The plain percentile interval is of no use here: a sum of
    absolute gaps is too large by chance, and larger still in a resample, so that the interval
    around a small error misses it almost always (0 of 300 simulated networks without any error).

    Written as the largest sum of the bins' gaps over all choices of signs, the error has a lower
    end that holds for every choice: the estimate less the 97.5 % quantile of what resampling adds,
    taken as absolute in bins whose side is not sure and with its sign in the others. The upper end
    needs no such care: the largest sum overstates, and only the signs that are true must hold.
    NaN at both ends where resampling changes nothing.
    """
    n_faces = len(confidence.right)
    gaps = np.zeros((n_faces, CALIBRATION_BINS))
    gaps[np.arange(n_faces), confidence.bins] = confidence.right - confidence.probability
    sums = cluster_sums(gaps, clusters)
    estimate = sums.sum(axis=0) / n_faces
    sizes = resampled(cluster_sums(np.ones((n_faces, 1)), clusters))
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

    With few faces in a bin the error is above 0 by chance alone: about 0.017 for 2,315 faces. Each
    face is right with the probability stated, in 2,000 draws with a fixed seed.
    """
    random = np.random.default_rng(RESAMPLING_SEED)
    probability = confidence.probability
    right = random.random((RESAMPLES, len(probability)), dtype=np.float32) < probability
    member = np.zeros((len(probability), CALIBRATION_BINS), dtype=np.float32)
    member[np.arange(len(probability)), confidence.bins] = 1.0
    gaps = right.astype(np.float32) @ member - probability @ member
    return float(np.abs(gaps).sum(axis=1).mean() / len(probability))


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
    return Calibration(temperature, error, error_tempered, by_chance, reliability)


def _logits(probabilities: Floats) -> Floats:
    """Undo the softmax, up to a constant per face that the softmax takes out again."""
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)))
