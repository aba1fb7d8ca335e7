"""The identity of a run: a sha256 over everything that can change its outcome, and nothing else.

Not part of it, but logged: name, question, study row, comparison, suite, device, precision and
commit. Editing a sentence therefore reruns nothing; editing a number does.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from benchmark.experiment import Experiment
from benchmark.files import canonical_json


@dataclass(frozen=True)
class Ingredients:
    """What a run is made of besides its definition."""

    weights_sha256: str | None
    """Digest of the trunk's initial weights; None for random initialisation."""
    pixel_digest: str
    split_digest: str
    trainer_version: int


def family_of(experiment: Experiment, ingredients: Ingredients) -> str:
    """Identity without the seed: what runs over several seeds share."""
    definition = experiment.as_dict()
    content: dict[str, Any] = {
        part: definition[part] for part in ("backbone", "head", "recipe", "protocol")
    }
    content["weights_sha256"] = ingredients.weights_sha256
    content["pixel_digest"] = ingredients.pixel_digest
    content["split_digest"] = ingredients.split_digest
    content["trainer_version"] = ingredients.trainer_version
    if experiment.ad_hoc:
        # Kept apart, so that a run off the leaderboards never stands in for a registered one.
        content["ad_hoc"] = True
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def identity_of(experiment: Experiment, ingredients: Ingredients, seed: int) -> str:
    """Identity of the run of `experiment` with `seed`: 64 hexadecimal digits."""
    content = {"family": family_of(experiment, ingredients), "seed": seed}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
