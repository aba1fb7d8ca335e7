"""A search with a known answer: scores by formula, through the same queue and loop as trainings."""

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.data.dataset import FaceSet
from benchmark.experiment.definition import Backbone, Experiment, Head, Recipe
from benchmark.experiment.space import DECAY, DEPTH, RATE, RATIO, Floats, Integers, SearchSpace
from benchmark.tuning.search import Objective
from benchmark.tuning.study import Study

BEST = 0.8
SPACE = SearchSpace((
    Floats(RATE, 1e-5, 1e-1), Integers(DEPTH, 0, 4),
    Floats(RATIO, 1e-3, 1.0), Floats(DECAY, 0.3, 1.0, log=False),
))  # fmt: skip
EXPERIMENT = Experiment(
    "mtl-squeezenet1_1-none-full-planted", "Is the planted recipe found?",
    Backbone("squeezenet1_1"), Head(), Recipe(1e-3, max_epochs=2), search=SPACE,
)  # fmt: skip


def quality(point: Mapping[str, Any]) -> float:
    """Score a point: 0.8 at depth 3, rate 1e-3, ratio 0.2 and decay 0.7, less elsewhere."""
    rate, ratio = (math.log10(point[path]) for path in (RATE, RATIO))
    lost = 0.04 * abs(point[DEPTH] - 3) + 0.06 * (rate + 3) ** 2
    return BEST - lost - 0.03 * (ratio + 0.7) ** 2 - 0.05 * (point[DECAY] - 0.7) ** 2


def scored(
    formula: Callable[[Mapping[str, Any], int], float] = lambda point, _: quality(point),
    n_epochs: int = 1, seconds: float = 0.0,
) -> Objective:  # fmt: skip
    """Give an objective whose every epoch scores a point in trial `number` by a formula."""

    def objective(point: Mapping[str, Any], number: int, seed: int = 0) -> Generator[Any]:
        yield f"{number:064d}"
        for epoch in range(n_epochs):
            time.sleep(seconds)
            yield epoch, formula(point, number)

    return objective


def a_study(folder: Path, faces: FaceSet, **changes: Any) -> Study:
    return replace(Study(EXPERIMENT, SPACE, faces, folder), **changes)
