"""What the original study printed for an experiment."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StudyRow:
    """What the original study printed for this row, leak included; accuracies in [0, 1]."""

    row: str
    age_group: float | None = None
    gender: float | None = None
    race: float | None = None
