"""Which people an experiment is about, and on whom it is trained. Loads no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal

from benchmark.errors import require, require_choice
from benchmark.tasks import CLASS_NAMES

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
