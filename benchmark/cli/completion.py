"""What the shell completes: names of experiments, suites, data sets and runs. Loads no torch."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from benchmark import registry
from benchmark.architectures import ARCHITECTURES
from benchmark.errors import BenchmarkError
from benchmark.experiment.definition import Experiment

DEFAULT_DATA_DIR = Path("data")
DEFAULT_RUNS_DIR = Path("mlruns")

SHORT_IDENTITY = 12
"""Digits of a run's identity, as tables show it."""

Completions = list[tuple[str, str]]
"""Names, each with what the shell shows beside it."""


def complete_experiment(context: typer.Context, incomplete: str) -> Completions:
    """Complete the name of an experiment; beside it what it asks."""
    return _fitting(incomplete, ((item.name, item.asks) for item in _experiments(context)))


def complete_tunable(context: typer.Context, incomplete: str) -> Completions:
    """Complete what `tune` takes: an experiment, or a grid of the study."""
    try:
        grids = [(grid.name, grid.asks) for grid in registry.grids().values()]
    except BenchmarkError:
        grids = []
    return [*complete_experiment(context, incomplete), *_fitting(incomplete, grids)]


def complete_architecture(incomplete: str) -> Completions:
    """Complete the name of an architecture of ours."""
    return _fitting(incomplete, ((name, "") for name in sorted(ARCHITECTURES)))


def complete_suite(context: typer.Context, incomplete: str) -> Completions:
    """Complete the name of a suite; beside it what it asks."""
    try:
        with registry.with_tuned(_runs_dir(context)):
            suites = registry.suites().values()
    except BenchmarkError:
        return []
    return _fitting(incomplete, ((suite.name, suite.asks) for suite in suites))


def complete_run(context: typer.Context, incomplete: str) -> Completions:
    """Complete an experiment, a suite, or the first digits of a run that is here."""
    return [
        *complete_experiment(context, incomplete),
        *complete_suite(context, incomplete),
        *_fitting(incomplete, _identities(context)),
    ]


def complete_dataset(context: typer.Context, incomplete: str) -> Completions:
    """Complete the name of a prepared data set, or `drawn`."""
    folder = context.params.get("data_dir") or DEFAULT_DATA_DIR
    prepared = sorted(path.parent.name for path in Path(folder).glob("*/manifest.json"))
    named = [(name, "prepared here") for name in prepared]
    return _fitting(incomplete, [("drawn", "faces drawn by the benchmark"), *named])


def _runs_dir(context: typer.Context) -> Path:
    return Path(context.params.get("runs_dir") or DEFAULT_RUNS_DIR)


def _experiments(context: typer.Context) -> Iterable[Experiment]:
    try:
        with registry.with_tuned(_runs_dir(context)):
            return registry.experiments().values()
    except BenchmarkError:
        return ()


def _identities(context: typer.Context) -> Iterator[tuple[str, str]]:
    """Name the runs in the runs folder; a folder's name says enough, so that none is read."""
    work = _runs_dir(context) / "work"
    for folder in sorted(work.glob("[0-9a-f]*")):
        yield folder.name[:SHORT_IDENTITY], "a run"


def _fitting(incomplete: str, names: Iterable[tuple[str, str]]) -> Completions:
    return [(name, told) for name, told in names if name.startswith(incomplete)]
