"""Every experiment and suite by name. Loads definitions only, so it is fast and needs no torch.

A definition file is a module with `EXPERIMENTS`, a tuple of Experiment, and `SUITES`, a tuple of
Suite; either may be absent. Ours are the modules of the package `experiments`; an installed
package adds its own module under the entry-point group `facebench.experiments`.
"""

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Final

import experiments as definitions
from benchmark.errors import ExperimentError
from benchmark.experiment import Experiment, Suite

ENTRY_POINT_GROUP: Final = "facebench.experiments"


@functools.cache
def _modules() -> tuple[ModuleType, ...]:
    ours = [
        importlib.import_module(f"{definitions.__name__}.{module.name}")
        for module in pkgutil.iter_modules(definitions.__path__)
    ]
    others = [point.load() for point in entry_points(group=ENTRY_POINT_GROUP)]
    return (*ours, *others)


def _collect(modules: Iterable[ModuleType], attribute: str, kind: str) -> dict[str, object]:
    """Gather named definitions; two with one name are refused with both their files."""
    found: dict[str, object] = {}
    files: dict[str, str] = {}
    for module in modules:
        for item in getattr(module, attribute, ()):
            if item.name in found:
                raise ExperimentError(
                    f"two {kind}s are named {item.name!r}",
                    allowed="one definition per name",
                    source=f"{files[item.name]} and {module.__name__}",
                    fix="Rename one of them; suites may list the other by name",
                )
            found[item.name] = item
            files[item.name] = module.__name__
    return found


def collect(modules: Iterable[ModuleType]) -> tuple[dict[str, Experiment], dict[str, Suite]]:
    """Read the definitions of `modules`; raise ExperimentError where they contradict each other."""
    modules = tuple(modules)
    found: dict[str, Experiment] = {
        name: item
        for name, item in _collect(modules, "EXPERIMENTS", "experiment").items()
        if isinstance(item, Experiment)
    }
    suites: dict[str, Suite] = {
        name: item
        for name, item in _collect(modules, "SUITES", "suite").items()
        if isinstance(item, Suite)
    }
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


@functools.cache
def _registered() -> tuple[dict[str, Experiment], dict[str, Suite]]:
    return collect(_modules())


def experiments() -> dict[str, Experiment]:
    """Give every registered experiment by name."""
    return dict(_registered()[0])


def suites() -> dict[str, Suite]:
    """Give every suite by name."""
    return dict(_registered()[1])


def experiment(name: str) -> Experiment:
    """Look an experiment up; an unknown name is answered with the nearest known ones."""
    known = _registered()[0]
    if name not in known:
        raise ExperimentError(
            f"unknown experiment {name!r}",
            allowed=_suggestion(name, known),
            fix="`facebench list` shows all of them",
        )
    return known[name]


def suite(name: str) -> Suite:
    """Look a suite up; an unknown name is answered with the known ones."""
    known = _registered()[1]
    if name not in known:
        raise ExperimentError(
            f"unknown suite {name!r}",
            allowed=", ".join(sorted(known)),
            fix="`facebench list` shows all of them",
        )
    return known[name]


def experiments_of(suite_name: str) -> Iterator[Experiment]:
    """Yield a suite's experiments in the suite's order."""
    for name in suite(suite_name).experiments:
        yield experiment(name)


def twins_of(mtl: Experiment) -> dict[str, Experiment | None]:
    """Give the single-task twin of an MTL experiment per task; None where none is registered."""
    if len(mtl.head.tasks) == 1:
        return {}
    known = _registered()[0]
    return {task: known.get(mtl.twin_name(task)) for task in mtl.head.tasks}


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"one of {len(names)} registered names"
