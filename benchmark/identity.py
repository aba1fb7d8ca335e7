"""The identity of a run: a sha256 over everything that can change its outcome, and nothing else.

Not part of it, but logged: name, question, study row, comparison, suite, device, precision and
commit. Editing a sentence therefore reruns nothing; editing a number does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmark.experiment.definition import ADJUSTABLE, Experiment
from benchmark.experiment.parts import LEAK_FREE_SPLITS
from benchmark.files import canonical_json, digest_of


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
LATER_FIELDS: Final = (
    "steps_per_epoch",
    "until_train_accuracy",
    "trunk_rate_ratio",
    "stage_rate_decay",
    "standardise_features",
)
"""Fields of a recipe that came after the first runs: where they are None or False they leave no
trace, so that those runs keep their identity."""


def steering_content(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce a definition, as `Experiment.as_dict` gives or a run keeps it, to what steers it.

    Equal for two definitions that train alike, whatever their names and questions.
    """
    content = {part: dict(definition[part]) for part in ADJUSTABLE}
    for name in LATER_FIELDS:
        if content["recipe"].get(name) in (None, False):
            content["recipe"].pop(name, None)
    if definition.get("subset") is not None:
        content["subset"] = definition["subset"]
    return content


def definition_key(
    definition: Mapping[str, Any], *, any_split: bool = False, any_fold: bool = False
) -> str:
    """Give the part of a definition that steers its training, as comparable text.

    A name or a question may change without making a run another one's. any_split: leak-free splits
    of all versions count as one; any_fold: so do the five folds and the fixed split.
    """
    content = steering_content(definition)
    protocol = content["protocol"]
    if any_split and protocol.get("split") in LEAK_FREE_SPLITS:
        protocol["split"] = LEAK_FREE_SPLITS[0]
    if any_fold:
        protocol["fold"] = None
    return canonical_json(content)


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
