"""Tuned recipes as registered experiments: definitions that a search wrote, read back. No torch.

`facebench tune` leaves `mlruns/tuned/<experiment>.json`, one per experiment: the tuned definition
and, where the search changed more than it searched (--set), the untuned one to compare it with.
The file is a definition like those in experiments/: it may be moved to another machine's runs.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from benchmark.errors import BenchmarkError, ExperimentError
from benchmark.experiment import (
    Augmentation,
    Backbone,
    Experiment,
    Head,
    LossWeights,
    Protocol,
    Recipe,
    Subset,
    Suite,
)

SCHEMA: Final = 1
SUITE: Final = "tuned"
ASKS: Final = "What does a tuned recipe buy over the definition's own?"


def tuned_folder(runs_dir: Path) -> Path:
    """Where tuned definitions are kept."""
    return runs_dir / "tuned"


def tuned_name(base: Experiment, tuned: Experiment, word: str = "tuned") -> str:
    """Name the tuned variant of `base`: by what it is now, and where it began if that differs.

    `mtl-squeezenet1_1-imagenet-full` tuned to a depth of two stages is
    `mtl-squeezenet1_1-imagenet-fire4_5-tuned_from_full`.
    """
    ending = f"-{base.subset.ending}" if base.subset else ""
    variant = base.name.removesuffix(ending).removeprefix(base.stem)
    moved = tuned.backbone.depth_name != base.backbone.depth_name
    origin = f"_from_{base.backbone.depth_name}" if moved else ""
    return f"{tuned.stem}{variant}-{word}{origin}{ending}"


def named(base: Experiment, changed: Experiment, word: str) -> Experiment:
    """Give a changed definition the name and question of a variant of `base`."""
    asks = {
        "tuned": f"What does a tuned recipe buy over that of {base.name}?",
        "untuned": f"How good is {base.name} under the budget that its tuned recipe was given?",
    }[word]
    return replace(
        changed,
        name=tuned_name(base, changed, word),
        asks=asks,
        compare_with=None,
        study=None,
        search=None,
        ad_hoc=False,
    )


def experiment_of(definition: Mapping[str, Any]) -> Experiment:
    """Build an experiment from what `Experiment.as_dict` gave and JSON kept."""
    recipe = dict(definition["recipe"])
    recipe["loss_weights"] = LossWeights(**recipe["loss_weights"])
    recipe["augmentation"] = Augmentation(**recipe["augmentation"])
    subset = definition.get("subset")
    return Experiment(
        name=definition["name"],
        asks=definition["asks"],
        backbone=Backbone(**definition["backbone"]),
        head=Head(**definition["head"]),
        recipe=Recipe(**recipe),
        protocol=Protocol(**definition["protocol"]),
        subset=Subset(**subset) if subset else None,
        compare_with=definition.get("compare_with"),
    )


def read_tuned(path: Path) -> tuple[Experiment, ...]:
    """Read one file: the tuned experiment and, where there is one, the untuned one.

    Raises ExperimentError for what `facebench tune` did not write.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["schema"] != SCHEMA:
            raise ExperimentError(f"schema {kept['schema']!r}", allowed=f"schema {SCHEMA}")
        untuned = [experiment_of(kept["untuned"])] if kept.get("untuned") else []
        beside = untuned[0].name if untuned else str(kept["base"])
        return replace(experiment_of(kept["tuned"]), compare_with=beside), *untuned
    except (OSError, ValueError, KeyError, TypeError, BenchmarkError) as error:
        raise ExperimentError(
            f"a tuned recipe cannot be read ({type(error).__name__}: {error})",
            allowed="a recipe.json that `facebench tune` wrote",
            source=str(path),
            fix="Remove that file, and tune the experiment again",
        ) from error


def tuned_module(path: Path) -> ModuleType:
    """Give one file as a module of definitions, as the registry collects them."""
    module = ModuleType(f"tuned recipe {path.name}")
    module.EXPERIMENTS = read_tuned(path)  # type: ignore[attr-defined]
    return module


def tuned_suite(modules: Iterable[ModuleType]) -> Suite:
    """Give the suite of tuned experiments, each followed by the untuned one."""
    tuned = [module.EXPERIMENTS[0] for module in modules]
    names = [name for item in tuned for name in (item.name, item.compare_with)]
    return Suite(SUITE, ASKS, tuple(dict.fromkeys(names)))
