"""Experiment and Suite: frozen, complete, and checked when they are made. Loads no torch.

benchmark.registry says which experiments exist, benchmark.runs how they run.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args, get_type_hints

from benchmark.errors import ExperimentError, require
from benchmark.experiment.architectures import architecture_named
from benchmark.experiment.parts import CONDITIONINGS as CONDITIONINGS
from benchmark.experiment.parts import LEAK_FREE_SPLITS, check_fields, with_values
from benchmark.experiment.parts import Augmentation as Augmentation
from benchmark.experiment.parts import Backbone as Backbone
from benchmark.experiment.parts import Head as Head
from benchmark.experiment.parts import LossWeights as LossWeights
from benchmark.experiment.parts import Protocol as Protocol
from benchmark.experiment.parts import Recipe as Recipe
from benchmark.experiment.parts import StudyRow as StudyRow
from benchmark.experiment.parts import Subset as Subset
from benchmark.experiment.space import SearchSpace, check_space
from benchmark.tasks import TaskName

ADJUSTABLE: Final = ("backbone", "head", "recipe", "protocol")

NAME_PATTERN: Final = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+){3,7}")


@dataclass(frozen=True)
class Experiment:
    """One question, and the training that answers it."""

    name: str
    asks: str
    """The question in a sentence; it ends with a question mark."""
    backbone: Backbone
    head: Head
    recipe: Recipe
    protocol: Protocol = field(default_factory=Protocol)
    subset: Subset | None = None
    """Which faces it is about; None for all of them."""
    compare_with: str | None = None
    """Name of the experiment that this one differs from in one respect."""
    study: StudyRow | None = None
    ad_hoc: bool = False
    """Changed on the command line: kept off leaderboards, and its name says only where it began."""
    search: SearchSpace | None = None
    """What `facebench tune` may change; None for what suits its architecture."""

    def __post_init__(self) -> None:
        check_fields(self, "")
        architecture, recipe = architecture_named(self.backbone.architecture), self.recipe
        selects_best = self.protocol.selection == "best_validation_combined"
        for holds, does, allowed in (
            (not (architecture.from_timm and self.head.features == "flattened"),
             f"flattens the features of {architecture.name}",
             "'pooled' for timm's architectures, which pool by themselves"),
            (not recipe.standardise_features or self.backbone.trainable_stages == 0,
             "standardises the features of a backbone that it trains",
             "recipe.standardise_features with backbone.trainable_stages=0: mean and standard "
             "deviation are measured once"),
            (recipe.early_stopping_epochs is None or selects_best,
             "stops early and selects the last epoch",
             "recipe.early_stopping_epochs with protocol.selection='best_validation_combined'"),
            (self.asks.strip().endswith("?"), f"asks {self.asks!r}",
             "a question that ends with '?'"),
        ):  # fmt: skip
            require(holds, f"{self.name!r} {does}", allowed=allowed)
        if not self.ad_hoc:
            self._check_name()
        if self.search is not None:
            check_space(self.search, self)

    @property
    def task_label(self) -> str:
        """`mtl`, or the only task."""
        return "mtl" if len(self.head.tasks) > 1 else self.head.tasks[0]

    @property
    def stem(self) -> str:
        """The part of the name that the fields dictate; a variant may follow."""
        weights = self.backbone.weights.split(":")[0]
        parts = [self.task_label, self.backbone.architecture, weights, self.backbone.depth_name]
        parts += [self.head.conditioning] if self.head.conditioning != "none" else []
        return "-".join(parts)

    @property
    def ending(self) -> str:
        """The last part of the name, with its hyphen, of an experiment on a subset; else empty."""
        return f"-{self.subset.ending}" if self.subset else ""

    def _check_name(self) -> None:
        found, allowed = f"{self.name!r} is compared with itself", "the name of another experiment"
        require(self.compare_with != self.name, found, allowed=allowed)
        fits = self.name == self.stem or self.name.startswith(self.stem + "-")
        require(
            fits and self.name.endswith(self.ending) and bool(NAME_PATTERN.fullmatch(self.name)),
            f"the name {self.name!r} contradicts its fields",
            allowed=f"{self.stem}[-<variant>]{self.ending}, in lower case",
            fix="Rename the experiment or change the field that differs",
        )

    def varied(self, *, name: str, **changes: Any) -> Experiment:
        """Copy with a new name and changes by dotted path, as `**{"head.conditioning": "gate"}`."""
        # Ad hoc until the last change is in: between two changes the name may not fit.
        changed = with_values(dataclasses.replace(self, name=name, ad_hoc=True), changes)
        return dataclasses.replace(changed, ad_hoc=False)

    def adjusted(self, settings: Mapping[str, Any]) -> Experiment:
        """Copy marked ad-hoc, with settings by dotted path; the name stays.

        Settings that change nothing give the experiment itself.
        """
        allowed = ", ".join(f"{part}.FIELD" for part in ADJUSTABLE)
        for path in settings:
            known = path.split(".")[0] in ADJUSTABLE
            require(known, f"unknown setting {path!r}", allowed=allowed)
        adjusted = with_values(dataclasses.replace(self, ad_hoc=True), settings)
        unchanged = adjusted == dataclasses.replace(self, ad_hoc=True)
        return self if unchanged else adjusted

    def in_fold(self, fold: int) -> Experiment:
        """Copy with the split's fold `fold`, 0 to 4, named NAME-fold0; all else stays as it is.

        An experiment in its own right, in tables of its own: it has other training and test faces,
        so that neither the study's number nor the comparison is about it.
        """
        found = f"{self.name!r} is fold {self.protocol.fold} already"
        require(self.protocol.fold is None, found, allowed="an experiment of the 80/10/10 split")
        name = f"{self.name.removesuffix(self.ending)}-fold{fold}{self.ending}"
        protocol = dataclasses.replace(self.protocol, fold=fold)
        return dataclasses.replace(
            self, name=name, protocol=protocol, compare_with=None, study=None
        )

    def counterpart_name(self, task: TaskName) -> str:
        """Name of the single-task counterpart: same definition, one task, no conditioning."""
        rest = self.name.removeprefix(f"{self.task_label}-")
        if self.head.conditioning != "none":
            rest = rest.replace(f"-{self.head.conditioning}", "", 1)
        return f"{task}-{rest}"

    def as_dict(self) -> dict[str, Any]:
        """Give the definition as plain JSON-able values; how it is searched is no part of it."""
        values = dataclasses.asdict(self)
        del values["search"]
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Experiment:
        """Build a definition from what `as_dict` gave and JSON kept, with or without later fields.

        Raises ExperimentError for what is no definition.
        """
        try:
            return _built(Experiment, dict(values))  # type: ignore[no-any-return]
        except (TypeError, ValueError, AttributeError) as error:
            raise ExperimentError(f"no definition of an experiment: {error}") from error


def _built(kind: Any, value: Any) -> Any:
    """Give a value the type that a field declares: a dataclass for a group, a tuple for a list."""
    dataclass_of = [one for one in (kind, *get_args(kind)) if dataclasses.is_dataclass(one)]
    if dataclass_of and isinstance(value, Mapping):
        hints = get_type_hints(dataclass_of[0])
        fields = {name: _built(hints.get(name), inner) for name, inner in value.items()}
        return dataclass_of[0](**fields)  # type: ignore[operator]
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Suite:
    """A named list of experiments that are run and shown together."""

    name: str
    asks: str
    experiments: tuple[str, ...]

    def __post_init__(self) -> None:
        repeated = {name for name in self.experiments if self.experiments.count(name) > 1}
        found = f"suite {self.name!r} lists {', '.join(sorted(repeated))} twice"
        require(not repeated, found, allowed="each experiment once")


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
    return json.dumps(content, sort_keys=True)
