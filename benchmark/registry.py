"""Every experiment and suite by name, tuned ones included.

Every experiment and suite by name. Loads definitions only, so it is fast and needs no torch.

A definition file is a module with `EXPERIMENTS`, a tuple of Experiment, and `SUITES`, a tuple of
Suite; either may be absent. Ours are the modules of the package `experiments`; an installed
package adds its own module under the entry-point group `facebench.experiments`. One of those that
cannot be loaded is refused by itself: `refused` says why, and everything else stays usable.

What `facebench tune` found joins them from a folder of runs, inside `with_tuned(runs_dir)` alone:
the command line enters it wherever it takes --runs-dir, and a notebook's functions for each call.

Tuned recipes as registered experiments: definitions that a search wrote, read back. No torch.

`facebench tune` leaves `mlruns/tuned/<experiment>.json`, one per experiment: the tuned definition
and, where the search changed more than it searched (--set), the untuned one to compare it with.
The file is a definition like those in experiments/: it may be moved to another machine's runs.

A grid as the study searched: every pair of two values, on a small part of the faces.

What the study printed for each point stands beside, so that ours can be shown next to it.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

import experiments as definitions
from benchmark.errors import BenchmarkError, ExperimentError
from benchmark.experiment.definition import (
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
from benchmark.experiment.grids import GridSpace

SCHEMA: Final = 1
TUNED: Final = "tuned"
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
    return Suite(TUNED, ASKS, tuple(dict.fromkeys(names)))


FOLD: Final = re.compile(r"-fold([0-4])(?=-|$)")
ENTRY_POINT_GROUP: Final = "facebench.experiments"

Definition = TypeVar("Definition", Experiment, Suite, GridSpace)


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn whatever goes wrong with definitions into an ExperimentError that says where."""
    try:
        yield
    except BenchmarkError as error:
        source = f"{where}: {error.source}" if error.source else where
        raise ExperimentError(
            error.found, allowed=error.allowed, source=source, fix=error.fix
        ) from error
    # A definition file is code, often someone else's: it may raise anything.
    except Exception as error:  # noqa: BLE001
        raise ExperimentError(
            f"definitions cannot be loaded: {type(error).__name__}: {error}",
            source=where,
            fix="Mend that module, or take it out",
        ) from error


def _ours() -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(definitions.__path__):
        name = f"{definitions.__name__}.{module.name}"
        with _reading(name):
            loaded = importlib.import_module(name)
        yield loaded


def _installed(point: EntryPoint) -> ModuleType:
    """Load the module that another package adds."""
    module = point.load()
    if not (hasattr(module, "EXPERIMENTS") or hasattr(module, "SUITES")):
        raise ExperimentError(
            f"{getattr(module, '__name__', module)} defines nothing",
            allowed="a module with EXPERIMENTS, SUITES or both",
        )
    return module  # type: ignore[no-any-return]


def _collect(
    modules: Iterable[ModuleType], attribute: str, kind: type[Definition]
) -> dict[str, Definition]:
    """Gather named definitions; two with one name are refused with both their files."""
    found: dict[str, Definition] = {}
    files: dict[str, str] = {}
    for module in modules:
        for item in _items(module, attribute, kind):
            if item.name in found:
                raise ExperimentError(
                    f"two {kind.__name__.lower()}s are named {item.name!r}",
                    allowed="one definition per name",
                    source=f"{files[item.name]} and {module.__name__}",
                    fix="Rename one of them; suites may list the other by name",
                )
            found[item.name] = item
            files[item.name] = module.__name__
    return found


def _items(module: ModuleType, attribute: str, kind: type[Definition]) -> tuple[Definition, ...]:
    """Read EXPERIMENTS or SUITES of a module; refuse what is no tuple of them."""
    items = getattr(module, attribute, ())
    if not isinstance(items, (tuple, list)) or not all(isinstance(item, kind) for item in items):
        raise ExperimentError(
            f"{attribute} of {module.__name__} is {items!r:.80}",
            allowed=f"a tuple of {kind.__name__}",
        )
    return tuple(items)


def collect(modules: Iterable[ModuleType]) -> tuple[dict[str, Experiment], dict[str, Suite]]:
    """Read the definitions of `modules`; raise ExperimentError where they contradict each other."""
    modules = tuple(modules)
    found = _collect(modules, "EXPERIMENTS", Experiment)
    suites = _collect(modules, "SUITES", Suite)
    for suite in suites.values():
        for name in suite.experiments:
            if name not in found:
                raise ExperimentError(
                    f"suite {suite.name!r} lists {name!r}, which is not registered",
                    allowed=_suggestion(name, found),
                )
    for experiment in found.values():
        if experiment.compare_with is not None and experiment.compare_with not in found:
            raise ExperimentError(
                f"{experiment.name!r} compares itself with {experiment.compare_with!r}, "
                "which is not registered",
                allowed=_suggestion(experiment.compare_with, found),
            )
    return found, suites


@dataclass(frozen=True)
class _Registered:
    experiments: dict[str, Experiment]
    suites: dict[str, Suite]
    refused: tuple[ExperimentError, ...]


_runs_dir: ContextVar[Path | None] = ContextVar("runs_dir", default=None)


@contextlib.contextmanager
def with_tuned(runs_dir: Path) -> Iterator[None]:
    """Let the recipes that `facebench tune` left in a folder of runs be registered meanwhile."""
    token = _runs_dir.set(runs_dir)
    try:
        yield
    finally:
        _runs_dir.reset(token)


def _registered() -> _Registered:
    """Collect all definitions, those tuned in the folder of `with_tuned` among them."""
    runs_dir = _runs_dir.get()
    files = sorted(tuned_folder(runs_dir).glob("*.json")) if runs_dir else []
    return _collected(tuple((path, path.stat().st_mtime_ns) for path in files))


@functools.lru_cache(maxsize=2)
def _collected(tuned: tuple[tuple[Path, int], ...]) -> _Registered:
    """Collect ours, which must be whole, and of other packages what stands beside them.

    tuned: files of tuned recipes, each with the time of its last change.
    """
    modules: dict[ModuleType, None] = dict.fromkeys(_ours())
    experiments, suites = collect(modules)
    waiting = sorted(entry_points(group=ENTRY_POINT_GROUP), key=str)
    refused: dict[EntryPoint, ExperimentError] = {}
    while waiting:
        refused = {}
        for point in waiting:
            try:
                with _reading(f"entry point {point.name!r} ({point.value})"):
                    joined = modules | {_installed(point): None}
                    experiments, suites = collect(joined)
                modules = joined
            except ExperimentError as error:
                refused[point] = error
        # Once more where one was taken in: packages may build on each other's definitions.
        if len(refused) == len(waiting):
            break
        waiting = list(refused)
    known = _Registered(experiments, suites, tuple(refused.values()))
    return _joined(modules, known, [path for path, _ in tuned])


def _joined(
    modules: dict[ModuleType, None], known: _Registered, files: Iterable[Path]
) -> _Registered:
    """Let tuned recipes join, each by itself; one that does not fit is refused."""
    tuned: dict[ModuleType, None] = {}
    refused = list(known.refused)
    experiments, suites = known.experiments, known.suites
    for path in files:
        try:
            with _reading(f"tuned recipe {path}"):
                joined = tuned | {tuned_module(path): None}
                experiments, suites = collect([*modules, *joined])
            tuned = joined
        except ExperimentError as error:
            refused.append(error)
    if tuned:
        suites = suites | {TUNED: tuned_suite(tuned)}
    return _Registered(experiments, suites, tuple(refused))


@functools.cache
def grids() -> dict[str, GridSpace]:
    """Give every grid by name."""
    return _collect(_ours(), "GRIDS", GridSpace)


def grid(name: str) -> GridSpace:
    """Look a grid up; an unknown name is answered with the nearest known ones."""
    known = grids()
    if name not in known:
        raise ExperimentError(f"unknown grid {name!r}", allowed=", ".join(known))
    return known[name]


def experiments() -> dict[str, Experiment]:
    """Give every registered experiment by name."""
    return dict(_registered().experiments)


def suites() -> dict[str, Suite]:
    """Give every suite by name."""
    return dict(_registered().suites)


def experiment(name: str) -> Experiment:
    """Look an experiment up; an unknown name is answered with the nearest known ones."""
    known = _registered().experiments
    if name not in known:
        if fold := folds_of([name]):
            return fold[name]
        raise ExperimentError(
            f"unknown experiment {name!r}",
            allowed=_suggestion(name, known),
            fix=_where_to_look(),
        )
    return known[name]


def folds_of(names: Iterable[str]) -> dict[str, Experiment]:
    """Give those of `names` that are a fold of a registered experiment, as NAME-fold0 is."""
    known, found = _registered().experiments, {}
    for name in names:
        match = FOLD.search(name)
        base = known.get(name[: match.start()] + name[match.end() :]) if match else None
        if match and base and name not in known and base.protocol.fold is None:
            found[name] = base.in_fold(int(match[1]))
    return {name: item for name, item in found.items() if item.name == name}


def suite(name: str) -> Suite:
    """Look a suite up; an unknown name is answered with the known ones."""
    known = _registered().suites
    if name not in known and name == TUNED:
        raise ExperimentError(
            "nothing has been tuned here, so the suite 'tuned' is empty",
            fix="`facebench tune NAME` fills it",
        )
    if name not in known:
        raise ExperimentError(
            f"unknown suite {name!r}",
            allowed=", ".join(sorted(known)),
            fix=_where_to_look(),
        )
    return known[name]


def experiments_of(suite_name: str) -> Iterator[Experiment]:
    """Yield a suite's experiments in the suite's order."""
    for name in suite(suite_name).experiments:
        yield experiment(name)


def twins_of(mtl: Experiment) -> dict[str, Experiment | None]:
    """Give the single-task twin of an MTL experiment per task; None where none is registered.

    One that bears the twin's name and is trained otherwise, as the study's own were, is no twin.
    """
    if len(mtl.head.tasks) == 1:
        return {}
    known = _registered().experiments
    named = {task: known.get(mtl.twin_name(task)) for task in mtl.head.tasks}
    return {task: twin if _share_training(mtl, twin) else None for task, twin in named.items()}


def _share_training(one: Experiment, other: Experiment | None) -> bool:
    return other is not None and all(
        getattr(one, part) == getattr(other, part)
        for part in ("backbone", "recipe", "protocol", "subset")
    )


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"one of {len(names)} registered names"


def refused() -> tuple[ExperimentError, ...]:
    """Say which installed packages' definitions were refused, and why."""
    return _registered().refused


def _where_to_look() -> str:
    """Say where all names are, and that some may be missing because a package was refused."""
    if not refused():
        return "`facebench list` shows all of them"
    return "`facebench list` shows all of them, and which installed package was refused"
