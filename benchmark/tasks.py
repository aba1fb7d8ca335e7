"""The three tasks, their classes and how these are written; labels of single faces are elsewhere.

The age-group rule is the study's (reference notebooks, common recipe): right-closed bins, so that
14 belongs to the first group and 60 to the fourth. It is versioned because 7.2 % of UTKFace's
faces lie exactly on an edge: another rule is another benchmark.
"""

from typing import Final, Literal

TaskName = Literal["age_group", "gender", "race"]

TASKS: Final[tuple[TaskName, ...]] = ("age_group", "gender", "race")

AGE_GROUP_RULE: Final = "right-closed-1"
AGE_GROUP_UPPER_YEARS: Final = (14, 25, 40, 60, 116)
"""Upper edge of each age group in years, included: (0,14] (14,25] (25,40] (40,60] (60,116]; the
study's (its notebooks' common recipe)."""

CLASS_NAMES: Final[dict[TaskName, tuple[str, ...]]] = {
    "age_group": ("0-14", "15-25", "26-40", "41-60", "61+"),
    "gender": ("male", "female"),
    "race": ("White", "Black", "Asian", "Indian", "Others"),
}

TASK_TITLES: Final[dict[TaskName, str]] = {task: task.replace("_", " ") for task in TASKS}

COMBINED_WEIGHTS: Final[dict[TaskName, float]] = {"age_group": 0.4, "gender": 0.2, "race": 0.4}
"""Weight of each task's accuracy in `combined`, as in the study's checkpoint rule."""

MISSING: Final = -1
"""In memory, a label that a face does not have: its data set says nothing of it, or says it in
words that have no class here. On disk the cell is empty. UTKFace's and synthetic faces have all."""


def n_classes(task: TaskName) -> int:
    return len(CLASS_NAMES[task])


def combined(accuracies: dict[TaskName, float]) -> float:
    """Weigh accuracies in [0, 1] by task; a single task counts alone.

    The weights are renormalised over the tasks present, so that a single-task network's combined
    accuracy is its task's accuracy.
    """
    total = sum(COMBINED_WEIGHTS[task] for task in accuracies)
    return sum(COMBINED_WEIGHTS[task] * accuracy for task, accuracy in accuracies.items()) / total
