"""Whether a network's probabilities can be taken at their word: reliability, error, temperature.

The calibration error is about the predicted class; negative log-likelihood and Brier score are
about all classes, and reward accuracy too. A temperature is fitted on validation and stored with
the run; no number that is ranked has it applied.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import softmax

from benchmark.evaluation import intervals
from benchmark.evaluation.intervals import CONFIDENCE, RESAMPLES, Floats, Labels
from benchmark.evaluation.predictions import by_task, probability_columns
from benchmark.evaluation.subgroups import BYS, group_names, members

CALIBRATION_BINS: Final = 15
"""Bins of equal width, ((m-1)/15, m/15], as in Guo et al. 2017; counted from 0."""
EDGES: Final = np.linspace(0, 1, CALIBRATION_BINS + 1)
SURE_ERRORS: Final = 2.5
"""A bin whose gap is this many standard errors from 0 is taken to lie on the side it shows."""
TEMPERATURES: Final = (0.05, 20.0)
"""Where a temperature is looked for. One at an end says that none in between fits."""
ROUNDING: Final = 1e-12
"""A gradient as small as this is none: probabilities have been rounded to 0 and 1."""
SMALLEST_PROBABILITY: Final = float(np.finfo(np.float32).tiny)
"""Stands for a softmax value that fp32 rounded to 0, whose logarithm is needed."""

SUBGROUP_ECE_COLUMNS: Final = ("task", "by", "group", "n", "ece", "low", "high", "chance")
SUBGROUP_FACES: Final = 200
"""Smallest subgroup whose calibration error is given: about 0.05 is expected if calibrated."""
RELIABILITY_COLUMNS: Final = ("n", "confidence", "accuracy", "low", "high")


def _confidences(probabilities: Floats, truth: Labels) -> tuple[Floats, Floats, Labels]:
    """Give each face's probability of its predicted class, 1.0 where that is right, and its bin."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    bins = np.digitize(confidence, EDGES[1:-1], right=True)
    return confidence, right.astype(np.float64), bins


def calibration_error(probabilities: Floats, truth: Labels) -> float:
    """Give the expected calibration error of the top class, in [0, 1]: the mean over faces of
    |accuracy - mean probability| of their bin. Source: C. Guo et al., "On Calibration of Modern
    Neural Networks", ICML 2017, equation 3."""
    confidence, right, bins = _confidences(probabilities, truth)
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))


def reliability(probabilities: Floats, truth: Labels) -> pd.DataFrame:
    """Give accuracy, with Wilson's 95 % interval, beside mean probability per bin; the columns of
    RELIABILITY_COLUMNS. An empty bin has n = 0 and nothing else."""
    confidence, right, of_face = _confidences(probabilities, truth)
    faces = pd.DataFrame({"confidence": confidence, "accuracy": right})
    table = faces.groupby(of_face).mean().reindex(range(CALIBRATION_BINS))
    n = np.bincount(of_face, minlength=CALIBRATION_BINS)
    n_right = np.bincount(of_face, right, CALIBRATION_BINS).astype(np.int64)
    low, high = intervals.wilson(n_right, n)
    table = table.assign(n=n, low=low, high=high)
    return table[list(RELIABILITY_COLUMNS)]


def error_interval(probabilities: Floats, truth: Labels, clusters: Labels) -> tuple[float, float]:
    """Give the ends of a 95 % interval of the calibration error; at least 95 %, never less.

    clusters: (n,), resampled as wholes. A percentile interval is of no use here: a sum of absolute
    gaps is biased upwards, and larger still in a resample (it held a true error of 0 in none
    of 300 simulations).

    Written as the largest sum of the bins' gaps over all choices of signs, the error has a lower
    end that holds for every choice: the estimate less the 97.5 % quantile of what resampling adds,
    taken as absolute in bins whose side is not sure and with its sign in the others. For the upper
    end only the signs that are true must hold. NaN at both ends where resampling changes nothing.
    """
    confidence, right, bins = _confidences(probabilities, truth)
    gaps = np.zeros((len(clusters), CALIBRATION_BINS))
    gaps[np.arange(len(clusters)), bins] = right - confidence
    sums = intervals.cluster_sums(gaps, clusters)
    estimate = sums.sum(axis=0) / len(clusters)
    sizes = intervals.resampled(intervals.cluster_sums(np.ones((len(clusters), 1)), clusters))
    noise = intervals.resampled(sums) / sizes - estimate
    if not noise.any():
        return float("nan"), float("nan")
    sure = np.abs(estimate) > SURE_ERRORS * noise.std(axis=0)
    signed = noise * np.sign(estimate)
    error, tail = float(np.abs(estimate).sum()), (1 - CONFIDENCE) / 2
    added = np.where(sure, signed, np.abs(noise)).sum(axis=1)
    low = error - float(np.quantile(added, 1 - tail))
    high = error - float(np.quantile(signed.sum(axis=1), tail))
    return max(low, 0.0), min(high, 1.0)


def expected_error(probabilities: Floats) -> float:
    """Give the mean error of a network that is right as often as it says, in 2,000 draws: above
    0, the more so the fewer faces, about 0.017 for 2,315."""
    random = np.random.default_rng(intervals.RESAMPLING_SEED)
    confidence, _, bins = _confidences(probabilities, np.zeros(len(probabilities), np.int64))
    right = random.random((RESAMPLES, len(confidence)), dtype=np.float32) < confidence
    gaps = right.astype(np.float32) - confidence.astype(np.float32)
    in_bin = np.eye(CALIBRATION_BINS, dtype=np.float32)[bins]
    return float(np.abs(gaps @ in_bin).sum(axis=1).astype(np.float64).mean() / len(confidence))


def subgroup_errors(test: pd.DataFrame) -> pd.DataFrame:
    """Give tasks' calibration errors in every subgroup of SUBGROUP_FACES labelled faces or more.

    test: n faces of a predictions table. low, high: see error_interval; chance: see
    expected_error, with which a group is compared, since a smaller one shows a larger error.
    """
    rows = []
    for task, faces, truth, _ in by_task(test):
        probabilities, clusters = faces[probability_columns(task)].to_numpy(), faces["cluster"]
        for by in BYS:
            for group, member in zip(group_names(by), members(faces, by).T, strict=True):
                chosen = member > 0
                if (n := int(chosen.sum())) >= SUBGROUP_FACES:
                    shown = probabilities[chosen], truth[chosen]
                    ends = error_interval(*shown, clusters.to_numpy()[chosen])
                    error, chance = calibration_error(*shown), expected_error(shown[0])
                    rows.append((task, by, group, n, error, *ends, chance))
    return pd.DataFrame(rows, columns=list(SUBGROUP_ECE_COLUMNS))


def log_losses(probabilities: Floats, truth: Labels) -> Floats:
    """Give each face's negative log-likelihood, -log of its label's probability, in nats, (n,); at
    most the 87.3 of SMALLEST_PROBABILITY."""
    return np.asarray(-_logits(probabilities)[np.arange(len(truth)), truth])


def brier_losses(probabilities: Floats, truth: Labels) -> Floats:
    """Give each face's Brier score, (n,): the squared distance from the one-hot label, summed over
    the classes, 0 to 2. Source: G. W. Brier, "Verification of Forecasts Expressed in Terms of
    Probability", Monthly Weather Review 78 (1950)."""
    one_hot = np.eye(probabilities.shape[1])[truth]
    return np.asarray(((probabilities - one_hot) ** 2).sum(axis=1))


def fit_temperature(probabilities: Floats, truth: Labels) -> float:
    """Give the temperature that makes these labels likeliest; above 1 softens, below sharpens.

    probabilities: (n, n_classes), n at least 1. The negative log-likelihood is convex in
    1/temperature, so that its gradient has one zero. Where it has none in TEMPERATURES (all faces
    right: the sharper the likelier) the nearer end is given. Source: Guo et al. 2017, section 4.2.
    """
    logits = _logits(probabilities)
    of_label = float(logits[np.arange(len(truth)), truth].mean())

    def gradient(log_temperature: float) -> float:
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
    """How good one task's probabilities are, by part; all but `reliability` stands in
    calibration.json."""

    temperature: float | None
    """Fitted on the validation faces; None without any."""
    temperature_is_at_an_end: bool
    """Whether no temperature in between fits: all labels are as predicted, or none is."""
    ece: dict[str, float]
    ece_tempered: dict[str, float]
    """The calibration error at the temperature."""
    ece_by_chance: float | None
    nll: dict[str, float]
    """In nats."""
    brier: dict[str, float]
    reliability: pd.DataFrame
    """On test, the columns of RELIABILITY_COLUMNS."""


def calibrate(parts: Mapping[str, tuple[Floats, Labels]]) -> Calibration:
    """Score one task's probabilities and fit a temperature; parts: class probabilities and labels
    by `val` and `test`, either of which may be absent."""
    test, temperature, softer = parts.get("test"), None, dict[str, float]()
    if "val" in parts:
        temperature = fit_temperature(*parts["val"])
        softer = {
            part: calibration_error(tempered(p, temperature), truth)
            for part, (p, truth) in parts.items()
        }
    return Calibration(
        temperature,
        temperature_is_at_an_end=temperature in TEMPERATURES,
        ece={part: calibration_error(*values) for part, values in parts.items()},
        ece_tempered=softer,
        ece_by_chance=expected_error(test[0]) if test else None,
        nll={part: float(log_losses(*values).mean()) for part, values in parts.items()},
        brier={part: float(brier_losses(*values).mean()) for part, values in parts.items()},
        reliability=reliability(*test) if test else pd.DataFrame(columns=[*RELIABILITY_COLUMNS]),
    )


def _logits(probabilities: Floats) -> Floats:
    """Undo the softmax, up to a constant per face that the softmax takes out again."""
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)))
