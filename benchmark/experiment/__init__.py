"""The definition of an experiment: what is trained, on what, how, and under which protocol.

Frozen, complete, and checked when it is made. Loads no torch. Files under `experiments/` import
this package and nothing else of benchmark.
"""

from benchmark.experiment.definition import Experiment, Suite
from benchmark.experiment.parts import (
    CONDITIONINGS,
    Augmentation,
    Backbone,
    GenderName,
    Head,
    LossWeights,
    Protocol,
    RaceName,
    Recipe,
    StudyRow,
    Subset,
)
from benchmark.experiment.space import (
    AUGMENTATION,
    DECAY,
    DEPTH,
    RATE,
    RATIO,
    Choices,
    Floats,
    GridSpace,
    Integers,
    SearchSpace,
)
from benchmark.tasks import TASKS

__all__ = [
    "AUGMENTATION", "Augmentation", "Backbone", "CONDITIONINGS", "Choices", "DECAY", "DEPTH",
    "Experiment",
    "Floats", "GenderName", "GridSpace", "Head", "Integers", "LossWeights", "Protocol", "RATE",
    "RATIO", "RaceName", "Recipe", "SearchSpace", "StudyRow", "Subset", "Suite", "TASKS",
]  # fmt: skip
