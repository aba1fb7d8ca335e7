"""The study's rows under the study's own protocol, leak included: what its conditions make of them.

Source: the notebooks' common recipe (reference §2) and its exceptions, row by row. Folders 2, 3 and
6 to 8 share one list of conditions; the single-task rows of folder 5 trained without clipping and
stopped early; the early rows R1 to R6 subtracted a mean, R4 to R6 with other epochs and no
clipping. Rows that the study left no number for (its CNN, and two that ours fill in) get the common
conditions. Each stands beside its leak-free counterpart. What torch does otherwise:
docs/notes/study_protocol.md.

Cost    not measured yet
Expect  not measured yet; nothing measured here is honest, and all of it is marked LEAKY
"""

from typing import Any, Final

from benchmark.experiment import Experiment, Protocol, Suite
from experiments import cnn, densenet121, resnet50, vgg16, vgg16_early, vgg16_stl, vgg19

MODULES: Final = (vgg16, vgg16_stl, vgg19, resnet50, densenet121, vgg16_early)
STUDY: Final = (*(row for module in MODULES for row in module.EXPERIMENTS), *cnn.STUDY)
COMMON: Final = Protocol(split="published-1", input_scaling="unit", shuffling="fixed_batches")
EARLY: Final = Protocol(
    split="published-1", input_scaling="unit_minus_mean", shuffling="fixed_batches"
)
STOPPED_EARLY: Final = {"recipe.clipping": "none", "recipe.early_stopping_epochs": 5}
"""Folder 5: Keras's EarlyStopping(patience=5, restore_best_weights), and no clipnorm."""
EARLY_SINGLE: Final[dict[str, dict[str, Any]]] = {
    row: {"recipe.clipping": "none", "recipe.constant_epochs": 10, "recipe.max_epochs": epochs}
    for row, epochs in (("R4", 30), ("R5", 10), ("R6", 20))
}


def as_published(row: Experiment) -> Experiment:
    """Give a row of the study the conditions that the study trained it under."""
    label = row.study.row if row.study else ""
    changes: dict[str, Any] = {}
    if label.startswith("5."):
        changes = dict(STOPPED_EARLY)
    elif label in EARLY_SINGLE:
        changes = dict(EARLY_SINGLE[label])
    return row.varied(
        name=f"{row.name}-published",
        asks="What does this row score on the study's own leaking split?",
        compare_with=None,
        protocol=EARLY if label.startswith("R") else COMMON,
        **changes,
    )


EXPERIMENTS = tuple(as_published(row) for row in STUDY)

SUITE = Suite(
    name="published",
    asks="What do the study's rows score on its own leaking split, and what without the leak?",
    experiments=tuple(
        name
        for row, replayed in zip(STUDY, EXPERIMENTS, strict=True)
        for name in (replayed.name, row.name)
    ),
)
