"""Every experiment and suite by name, those that `facebench tune` found included, and the runs that
an experiment's name or an id means. No torch.

A definition file is a module with `EXPERIMENTS`, a tuple of Experiment, and `SUITES`, a tuple of
Suite; either may be absent. Ours are the modules of the package `experiments`; an installed
package adds its own module under the entry-point group `facebench.experiments`. One of those that
cannot be loaded is refused by itself: `refused` says why, and everything else stays usable.

`facebench tune` leaves `mlruns/tuned/<experiment>.json`: the tuned definition and, where the search
changed more than it searched (--set), the untuned one to compare it with. They are registered
inside `with_tuned(runs_dir)` alone: the command line enters it wherever it takes --runs-dir, and a
notebook's functions for each call.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple, TypeVar

import experiments as definitions
from benchmark.errors import BenchmarkError, ExperimentError, RunError, did_you_mean, require
from benchmark.experiment.definition import Experiment, Suite, definition_key
from benchmark.experiment.space import GridSpace
from benchmark.record import HOW_TO_RUN, RUN_ID, RunRecord, all_records

SCHEMA: Final = 1
TUNED: Final = "tuned"
FOLD: Final = re.compile(r"-fold([0-4])(?=-|$)")
ENTRY_POINT_GROUP: Final = "facebench.experiments"
NOT_REGISTERED: Final = "not registered"
MOST_NAMES: Final = 20
"""Of a kind of definition, that a message lists."""

Definition = TypeVar("Definition", Experiment, Suite, GridSpace)


class Definitions(NamedTuple):
    """What some modules define, by name, and why others were refused."""

    experiments: dict[str, Experiment]
    suites: dict[str, Suite]
    refused: tuple[ExperimentError, ...] = ()


def collect(modules: Iterable[ModuleType]) -> Definitions:
    """Read the definitions of `modules`; raise ExperimentError where they contradict each other."""
    modules = tuple(modules)
    known = _named_items(modules, "EXPERIMENTS", Experiment)
    suites = _named_items(modules, "SUITES", Suite)
    listed = [(f"suite {s.name!r} lists", name) for s in suites.values() for name in s.experiments]
    compared = [item for item in known.values() if item.compare_with is not None]
    listed += [(f"{e.name!r} compares itself with", str(e.compare_with)) for e in compared]
    for says, name in listed:
        found, allowed = f"{says} {name!r}", f"one of {len(known)} registered names"
        fix = "" if name in known else did_you_mean(name, known)
        require(name in known, f"{found}, which is not registered", allowed=allowed, fix=fix)
    return Definitions(known, suites)


def _named_items(
    modules: Iterable[ModuleType], attribute: str, kind: type[Definition]
) -> dict[str, Definition]:
    """Gather definitions by name; two with one name are refused with both their files."""
    found: dict[str, tuple[Definition, str]] = {}
    for module in modules:
        items = getattr(module, attribute, ())
        fits = isinstance(items, (tuple, list)) and all(isinstance(one, kind) for one in items)
        what = f"{attribute} of {module.__name__} is {items!r:.80}"
        require(fits, what, allowed=f"a tuple of {kind.__name__}")
        for item in items:
            if item.name in found:
                twice = f"two {kind.__name__.lower()}s are named {item.name!r}"
                source = f"{found[item.name][1]} and {module.__name__}"
                fix = "Rename one of them; suites may list the other by name"
                allowed = "one definition per name"
                raise ExperimentError(twice, allowed=allowed, source=source, fix=fix)
            found[item.name] = item, module.__name__
    return {name: item for name, (item, _) in found.items()}


_runs_dir: ContextVar[Path | None] = ContextVar("runs_dir", default=None)


@contextlib.contextmanager
def with_tuned(runs_dir: Path) -> Iterator[None]:
    """Register the recipes that `facebench tune` left in a folder of runs meanwhile."""
    token = _runs_dir.set(runs_dir)
    try:
        yield
    finally:
        _runs_dir.reset(token)


def _registered() -> Definitions:
    runs_dir = _runs_dir.get()
    files = sorted(tuned_folder(runs_dir).glob("*.json")) if runs_dir else []
    return _collected(tuple((path, path.stat().st_mtime_ns) for path in files))


@functools.lru_cache(maxsize=2)
def _collected(tuned: tuple[tuple[Path, int], ...]) -> Definitions:
    """Collect ours, which must be whole, then each other module and each tuned file's recipe."""
    modules = list(_ours())
    known = collect(modules)
    waiting: dict[str, functools.partial[ModuleType]] = {
        f"entry point {point.name!r} ({point.value})": functools.partial(_installed, point)
        for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=str)
    }
    waiting |= {f"tuned recipe {path}": functools.partial(tuned_module, path) for path, _ in tuned}
    bases, refused = list[str](), dict[str, ExperimentError]()
    n_before = -1
    while len(waiting) != n_before:  # packages may build on each other's definitions
        n_before = len(waiting)
        for where, load in list(waiting.items()):
            try:
                with _reading(where):
                    module = load()
                    known = collect([*modules, module])
            except ExperimentError as error:
                refused[where] = error
                continue
            modules.append(module)
            del waiting[where]
            refused.pop(where, None)
            if load.func is tuned_module:
                best = module.EXPERIMENTS[0]
                bases += [best.name, best.compare_with]
    suites = dict(known.suites)
    if bases:
        asks = "What does a tuned recipe buy over the definition's own?"
        suites[TUNED] = Suite(TUNED, asks, tuple(dict.fromkeys(bases)))
    return Definitions(known.experiments, suites, tuple(refused.values()))


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn whatever goes wrong with definitions into an ExperimentError that says where."""
    try:
        yield
    except BenchmarkError as error:
        source = f"{where}: {error.source}" if error.source else where
        found, allowed, fix = error.found, error.allowed, error.fix
        raise ExperimentError(found, allowed=allowed, source=source, fix=fix) from error
    # A definition file is code, often someone else's: it may raise anything.
    except Exception as error:  # noqa: BLE001
        found = f"definitions cannot be loaded: {type(error).__name__}: {error}"
        fix = "Fix that module, or remove it"
        raise ExperimentError(found, source=where, fix=fix) from error


@functools.cache
def _ours() -> tuple[ModuleType, ...]:
    loaded = []
    for module in pkgutil.iter_modules(definitions.__path__):
        name = f"{definitions.__name__}.{module.name}"
        with _reading(name):
            loaded.append(importlib.import_module(name))
    return tuple(loaded)


def _installed(point: EntryPoint) -> ModuleType:
    module = point.load()
    defines = hasattr(module, "EXPERIMENTS") or hasattr(module, "SUITES")
    found = f"{getattr(module, '__name__', module)} defines nothing"
    require(defines, found, allowed="a module with EXPERIMENTS, SUITES or both")
    return module  # type: ignore[no-any-return]


def tuned_folder(runs_dir: Path) -> Path:
    return runs_dir / "tuned"


def tuned_module(path: Path) -> ModuleType:
    """Give a file of `facebench tune` as a module of definitions: the tuned one, then the untuned.

    Raises ExperimentError for what `facebench tune` did not write.
    """
    module = ModuleType(f"tuned recipe {path.name}")
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["schema"] != SCHEMA:
            raise ValueError(f"schema {kept['schema']!r} and not {SCHEMA}")
        untuned = [Experiment.from_dict(kept["untuned"])] if kept.get("untuned") else []
        beside = untuned[0].name if untuned else str(kept["base"])
        tuned = replace(Experiment.from_dict(kept["tuned"]), compare_with=beside)
    except (OSError, ValueError, LookupError, TypeError, BenchmarkError) as error:
        found = f"a tuned recipe cannot be read ({type(error).__name__}: {error})"
        fix = "Remove that file, and tune the experiment again"
        raise ExperimentError(found, source=str(path), fix=fix) from error
    module.EXPERIMENTS = (tuned, *untuned)  # type: ignore[attr-defined]
    return module


def named(base: Experiment, changed: Experiment, word: str) -> Experiment:
    """Give a changed definition the name and question of a `tuned` or `untuned` variant of `base`.

    Named by what it is now, and where it began if that differs: `mtl-squeezenet1_1-imagenet-full`
    tuned to a depth of two stages is `mtl-squeezenet1_1-imagenet-fire4_5-tuned_from_full`.
    """
    variant = base.name.removesuffix(base.ending).removeprefix(base.stem)
    moved = changed.backbone.depth_name != base.backbone.depth_name
    origin = f"_from_{base.backbone.depth_name}" if moved else ""
    asks = {
        "tuned": f"What does a tuned recipe buy over that of {base.name}?",
        "untuned": f"How good is {base.name} under the budget that its tuned recipe was given?",
    }[word]
    return replace(
        changed, name=f"{changed.stem}{variant}-{word}{origin}{base.ending}", asks=asks,
        compare_with=None, study=None, search=None, ad_hoc=False,
    )  # fmt: skip


@functools.cache
def grids() -> dict[str, GridSpace]:
    return _named_items(_ours(), "GRIDS", GridSpace)


def grid(name: str) -> GridSpace:
    return _looked_up("grid", name, grids())


def experiments() -> dict[str, Experiment]:
    return dict(_registered().experiments)


def suites() -> dict[str, Suite]:
    return dict(_registered().suites)


def refused() -> tuple[ExperimentError, ...]:
    """Say which installed packages' definitions were refused, and why."""
    return _registered().refused


def experiment(name: str) -> Experiment:
    """Look an experiment up; an unknown name is answered with the nearest known ones."""
    known = _registered().experiments
    return known.get(name) or folds_of([name]).get(name) or _looked_up("experiment", name, known)


def suite(name: str) -> Suite:
    known = _registered().suites
    if name == TUNED and name not in known:
        fix = "`facebench tune NAME` fills it"
        raise ExperimentError("nothing has been tuned here, so 'tuned' is empty", fix=fix)
    return _looked_up("suite", name, known)


def experiments_of(suite_name: str) -> Iterator[Experiment]:
    for name in suite(suite_name).experiments:
        yield experiment(name)


def is_of_the_study(experiments: Sequence[Experiment]) -> bool:
    """Tell whether at least half of these are the study's rows on a split that does not leak."""
    rows = [item for item in experiments if item.study and not item.protocol.leaky]
    return bool(rows) and 2 * len(rows) >= len(experiments)


def folds_of(names: Iterable[str]) -> dict[str, Experiment]:
    """Give those of `names` that are a fold of a registered experiment, as NAME-fold0 is."""
    known, found = _registered().experiments, {}
    for name in names:
        match = FOLD.search(name)
        base = known.get(name[: match.start()] + name[match.end() :]) if match else None
        if match and base and name not in known and base.protocol.fold is None:
            found[name] = base.in_fold(int(match[1]))
    return {name: item for name, item in found.items() if item.name == name}


def why_no_counterpart(one: Experiment, other: Experiment | None) -> str:
    """Say why two experiments are not trained alike but for the tasks; empty where they are.

    What bears the name of a counterpart and is trained otherwise, as the study's own were, is none.
    """
    if other is None:
        return NOT_REGISTERED
    parts = ("backbone", "recipe", "protocol", "subset")
    differing = [part for part in parts if getattr(one, part) != getattr(other, part)]
    return f"no counterpart, its {' and '.join(differing)} differ" if differing else ""


def counterparts_of(mtl: Experiment) -> dict[str, Experiment | None]:
    """Give the single-task counterpart (STL) of an MTL experiment per task; None without one."""
    tasks, known = mtl.head.tasks, _registered().experiments
    found = {task: known.get(mtl.counterpart_name(task)) for task in tasks if len(tasks) > 1}
    return {task: None if why_no_counterpart(mtl, stl) else stl for task, stl in found.items()}


def records_named(name: str, runs_dir: Path) -> list[RunRecord]:
    """Find runs by the first digits of an id, or those of an experiment as it is defined now.

    As in every comparison, a run that was changed on the command line (ad hoc), or whose definition
    was edited since, is found by its id alone. An experiment that is not registered here has the
    runs that were begun under its name.
    """
    if RUN_ID.fullmatch(name):
        return [record for record in all_records(runs_dir) if record.identity.startswith(name)]
    defined, found = experiments().get(name), []
    key = definition_key(defined.as_dict()) if defined else ""
    for record in all_records(runs_dir):
        with contextlib.suppress(RunError, LookupError, TypeError):  # unreadable, found by its id
            begun = record.about["experiment"]
            of_it = definition_key(begun) == key if defined else begun["name"] == name
            if of_it and not record.about["ad_hoc"]:
                found.append(record)
    return found


def finished_runs(name: str, runs_dir: Path) -> list[RunRecord]:
    """Find the finished runs that an id's digits or an experiment's name mean, by ascending seed.

    Raise RunError where there are none. This is what every command that takes a run asks.
    """
    found = records_named(name, runs_dir)
    if done := [record for record in found if record.state == "done"]:
        return sorted(done, key=lambda record: record.seed)
    if found:
        first = found[0]
        which = f"run {first.identity[:12]} ({first.experiment_name}, seed {first.seed})"
        raise RunError(
            f"{which} is not done but {first.state}",
            allowed="a finished run",
            source=str(first.folder),
            fix=first.how_to_finish,
        )
    begun: dict[str, list[str]] = {}
    for record in all_records(runs_dir):
        with contextlib.suppress(RunError, LookupError, TypeError):
            begun.setdefault(record.experiment_name, []).append(record.identity[:12])
    if others := begun.get(name):
        nothing = f"{name} was run ad hoc or with an older definition alone"
        fix = f"Name a run by its id, or run it: `facebench run {name}`"
        raise RunError(nothing, allowed=", ".join(others), source=str(runs_dir), fix=fix)
    guess = did_you_mean(name, begun)
    fix = f"{guess}`facebench status --all` lists the runs" if guess else HOW_TO_RUN
    allowed = "8 digits or more of a run's id, or the name of an experiment that was run"
    raise RunError(f"there is no run {name!r}", allowed=allowed, source=str(runs_dir), fix=fix)


def finished_run(name: str, runs_dir: Path) -> RunRecord:
    """Find the one finished run that is meant; raise RunError where there are several, too."""
    runs = finished_runs(name, runs_dir)
    if len(runs) > 1:
        raise RunError(
            f"{name!r} means {len(runs)} finished runs",
            source=str(runs_dir),
            allowed=", ".join(f"{it.identity[:12]} (seed {it.seed})" for it in runs),
            fix="Name one by its id, with more digits",
        )
    return runs[0]


def _looked_up(kind: str, name: str, known: dict[str, Definition]) -> Definition:
    """Find a definition by name; an unknown one is answered with the nearest known ones."""
    if name in known:
        return known[name]
    allowed = ", ".join(sorted(known)) if len(known) <= MOST_NAMES else ""
    listing = "`facebench list` shows all of them, and which installed package was refused"
    fix = f"{did_you_mean(name, known)}{listing}"
    raise ExperimentError(f"unknown {kind} {name!r}", allowed=allowed, fix=fix)
