"""Size, power and coverage of the comparison of run groups; docs/notes/size_and_power.md.

    python -m tests.comparison.size_and_power [COMPARISONS]

Each face has a difficulty that all networks share, one that a network's seeds share, and noise of
each training; a seed moves the accuracy of all faces. One face in twenty is a copy of another.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmark.comparison.statistics import ALPHA, Difference, difference_of, minimum_detectable

ACCURACY = 0.8
SHARED, OF_NETWORK = 0.6, 0.1
"""Shares of the variance of what decides on a prediction; the rest is each training's."""
GAIN = 0.02
"""The true difference of which power is told."""
FACES, SEEDS, SEED_SDS = (200, 1_000, 2_300), (2, 3, 5, 10), (0.0, 0.005, 0.01, 0.015)


@dataclass(frozen=True)
class Setting:
    """What is drawn: faces, seeds a side, and the sd of each side's accuracy over seeds."""

    n_faces: int
    n_seeds: tuple[int, int]
    seed_sds: tuple[float, float]


def settings() -> Iterator[Setting]:
    for n, k, sd in itertools.product(FACES, SEEDS, SEED_SDS):
        yield Setting(n, (k, k), (sd, sd))
    for k, sds in (((2, 5), (0.01, 0.01)), ((2, 2), (0.002, 0.015)), ((3, 3), (0.002, 0.015))):
        yield Setting(2_300, k, sds)


Sides = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.intp]]
"""Which faces each seed of group and reference predicts right, and the faces' clusters."""


def many(setting: Setting, gain: float, n: int) -> list[Sides]:
    """Draw n comparisons, with a true difference of `gain`."""
    random, drawn = np.random.default_rng(0), []
    n_pictures = setting.n_faces - setting.n_faces // 20
    picture = np.arange(setting.n_faces) % n_pictures
    for _ in range(n):
        shared = np.sqrt(SHARED) * random.standard_normal(n_pictures)
        sides = []
        for k, sd, more in zip(setting.n_seeds, setting.seed_sds, (gain, 0.0), strict=True):
            own = np.sqrt(OF_NETWORK) * random.standard_normal(n_pictures)
            noise = np.sqrt(1 - SHARED - OF_NETWORK) * random.standard_normal((k, n_pictures))
            # Drawn as accuracies, so that their mean over seeds is the true one.
            rates = np.clip(ACCURACY + more + sd * random.standard_normal((k, 1)), 0.01, 0.99)
            sides.append((shared + own + noise < stats.norm.ppf(rates))[:, picture])
        drawn.append((sides[0], sides[1], picture))
    return drawn


def compared(setting: Setting, gain: float, n: int) -> list[Difference]:
    return [difference_of(*sides) for sides in many(setting, gain, n)]


def faces_alone(
    group: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_], clusters: npt.NDArray[np.intp]
) -> Difference:
    """Compare seed-averaged correctness with the trained networks held as fixed."""
    return difference_of(group.mean(axis=0)[None], reference.mean(axis=0)[None], clusters)


def rejected(found: list[Difference]) -> float:
    return float(np.mean([item.p <= ALPHA for item in found]))


def covered(found: list[Difference], gain: float) -> float:
    return float(np.mean([item.low <= gain <= item.high for item in found]))


def table(n: int) -> Iterator[str]:
    """Write the table of size_and_power.md, line by line."""
    yield (
        "| faces | seeds a side | seed sd, pp | size, % | size over faces alone, % "
        f"| coverage, % | power at {100 * GAIN:.0f} pp, % | minimum detectable, pp |"
    )
    yield "|" + "--:|" * 8
    for setting in settings():
        of_ties = many(setting, 0.0, n)
        ties, alone = ([test(*item) for item in of_ties] for test in (difference_of, faces_alone))
        gains = compared(setting, GAIN, n)
        seeds = " and ".join(dict.fromkeys(map(str, setting.n_seeds)))
        sds = " and ".join(dict.fromkeys(f"{100 * sd:g}" for sd in setting.seed_sds))
        detectable = float(np.median([minimum_detectable(item, ALPHA) for item in ties]))
        yield (
            f"| {setting.n_faces:,} | {seeds} | {sds} | {100 * rejected(ties):.1f} "
            f"| {100 * rejected(alone):.1f} | {100 * covered(gains, GAIN):.1f} "
            f"| {100 * rejected(gains):.0f} | {100 * detectable:.1f} |"
        )


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000):
        print(line, flush=True)
