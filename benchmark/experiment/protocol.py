"""Which people an experiment is about, and on whom it is trained. Loads no torch.

What the original study printed for an experiment.

What makes two runs comparable. Loads no torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal

from benchmark.errors import require, require_choice
from benchmark.tasks import CLASS_NAMES


@dataclass(frozen=True)
class StudyRow:
    """What the original study printed for this row, leak included; accuracies in [0, 1]."""

    row: str
    age_group: float | None = None
    gender: float | None = None
    race: float | None = None


INPUT_SCALINGS: Final = ("weights", "unit", "weights_swapped", "unit_minus_mean")
SHUFFLINGS: Final = ("every_epoch", "fixed_batches")
SELECTIONS: Final = ("best_validation_combined", "last_epoch")
LEAK_FREE_SPLITS: Final = ("leak-free-2", "leak-free-1")
"""The current version, and the one that older runs were made on."""
SPLITS: Final = (
    *LEAK_FREE_SPLITS,
    "published-1",
    "test-by-file-1",
    "clean-test-1",
    "clean-val-1",
    "unique-1",
    "by-file-1",
)
"""Versions of the split; what each of those that leak does is in benchmark.data.replays."""


@dataclass(frozen=True)
class Protocol:
    """What makes two runs comparable: the split, input scaling, shuffling and selection."""

    split: str = "leak-free-2"
    """Version of the split; its seed is part of the version. All others than LEAK_FREE_SPLITS leak,
    on purpose: they replay the study's split, or a step from it to ours."""
    fold: int | None = None
    """0 to 4: a fold of the five-fold version of the split, in tables of its own."""
    input_scaling: Literal["weights", "unit", "weights_swapped", "unit_minus_mean"] = "weights"
    """`weights`: as the weights were trained; `unit`: RGB / 255 whatever the weights, as the
    study did; `weights_swapped`: as the weights, red and blue exchanged (a control);
    `unit_minus_mean`: RGB / 255 minus a BGR mean, as the study's early rows R1 to R6 did."""
    shuffling: Literal["every_epoch", "fixed_batches"] = "every_epoch"
    selection: Literal["best_validation_combined", "last_epoch"] = "best_validation_combined"

    def __post_init__(self) -> None:
        require_choice("protocol.split", self.split, SPLITS)
        require_choice("protocol.input_scaling", self.input_scaling, INPUT_SCALINGS)
        require_choice("protocol.shuffling", self.shuffling, SHUFFLINGS)
        require_choice("protocol.selection", self.selection, SELECTIONS)
        require(
            self.fold is None or (type(self.fold) is int and self.fold in range(5)),
            f"protocol.fold is {self.fold!r}",
            allowed="0 to 4, or None for the 80/10/10 split",
        )
        require(
            self.fold is None or not self.leaky,
            f"protocol.fold is {self.fold!r} with the split {self.split!r}",
            allowed="folds of leak-free-2 only",
        )

    @property
    def leaky(self) -> bool:
        """Whether training faces, or pictures of them, stand among those that select or test."""
        return self.split not in LEAK_FREE_SPLITS

    @property
    def name(self) -> str:
        """The protocol's name on every table."""
        family = self.split.rpartition("-")[0]
        return family if self.fold is None else f"{family} fold {self.fold}"


GenderName = Literal["male", "female"]
RaceName = Literal["White", "Black", "Asian", "Indian", "Others"]
TRAININGS: Final = ("subset", "everyone", "size_matched")


@dataclass(frozen=True)
class Subset:
    """The part of all faces that an experiment is about: it is selected and tested on no other."""

    gender: GenderName | None = None
    race: RaceName | None = None
    training: Literal["subset", "everyone", "size_matched"] = "subset"
    """Trained on the subset, on everyone, or on a stratified sample of everyone of its size."""

    def __post_init__(self) -> None:
        require_choice("subset.gender", self.gender, (None, *CLASS_NAMES["gender"]))
        require_choice("subset.race", self.race, (None, *CLASS_NAMES["race"]))
        require_choice("subset.training", self.training, TRAININGS)
        require(
            self.gender is not None or self.race is not None,
            "a subset of everyone",
            allowed="a gender, a race, or both",
            fix="Leave the subset out to train and test on all faces",
        )

    @property
    def label(self) -> str:
        """The subset in a name: `women`, `black`, `women_black`."""
        genders = {"male": "men", "female": "women"}
        words = [genders[self.gender]] if self.gender else []
        return "_".join([*words, *([self.race.lower()] if self.race else [])])

    @property
    def people(self) -> Subset:
        """Who is selected on and tested, however the network was trained."""
        return dataclasses.replace(self, training="subset")

    @property
    def ending(self) -> str:
        """How the name of an experiment on this subset ends: `women`, `women-matched`."""
        arms = {"subset": "", "everyone": "-everyone", "size_matched": "-matched"}
        return f"{self.label}{arms[self.training]}"
