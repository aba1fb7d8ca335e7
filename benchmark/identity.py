"""The identity of a run: a sha256 over everything that can change its outcome, and nothing else.

Not part of it, but logged: name, question, study row, comparison, suite, device, precision and
commit. Editing a sentence therefore reruns nothing; editing a number does.
"""

from dataclasses import asdict, dataclass
from typing import Final

from benchmark.experiment.definition import Experiment, steering_content
from benchmark.files import digest_of


@dataclass(frozen=True)
class Ingredients:
    """What a run is made of besides its definition."""

    weights_sha256: str | None
    """Digest of the backbone's initial weights; None for random initialisation."""
    pixel_digest: str
    split_digest: str
    trainer_version: int
    labels_digest: str | None = None
    """Digest of labels that came from a table; None where the faces' names tell them."""
    missing_labels: str | None = None
    """MASKED where faces lack some of the labels of several tasks; None where none does."""


MASKED: Final = "masked"
"""How missing labels are treated: each task is trained and scored on the faces that have its own.
Older runs of several tasks left out every face that lacked one."""


def group_identity(experiment: Experiment, ingredients: Ingredients) -> str:
    """Identity without the seed: what runs over several seeds share."""
    content = steering_content(experiment.as_dict()) | asdict(ingredients)
    for later in ("labels_digest", "missing_labels"):
        if content[later] is None:
            del content[later]
    if experiment.ad_hoc:
        # Kept apart, so that a run off the leaderboards never stands in for a registered one.
        # The name too: with `--set backbone.weights=none` two rows would otherwise become one.
        content["ad_hoc"] = experiment.name
    return digest_of(content)


def identity_of(experiment: Experiment, ingredients: Ingredients, seed: int) -> str:
    """Identity of the run of `experiment` with `seed`: 64 hexadecimal digits."""
    content = {"family": group_identity(experiment, ingredients), "seed": seed}
    return digest_of(content)
