"""What the shell completes: names of experiments, suites, data sets and runs. Loads no torch."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import typer

from benchmark import registry
from benchmark.errors import BenchmarkError
from benchmark.experiment.architectures import ARCHITECTURES

DEFAULT_DATA_DIR = Path("data")
DEFAULT_RUNS_DIR = Path("mlruns")
SHORT_IDENTITY = 12
"""Digits of a run's identity, as tables show it."""

Completions = list[tuple[str, str]]
"""Names, each with what the shell shows beside it."""


def _starting(incomplete: str, names: Iterable[tuple[str, str]]) -> Completions:
    return [(name, beside) for name, beside in names if name.startswith(incomplete)]


def _defined(context: typer.Context, incomplete: str, *kinds: str) -> Completions:
    """Complete what the registry holds: experiments, suites, grids; nothing where it is broken."""
    found: Completions = []
    with contextlib.suppress(BenchmarkError), registry.with_tuned(_runs_dir(context)):
        for kind in kinds:
            items = getattr(registry, kind)().values()
            found += _starting(incomplete, ((item.name, item.asks) for item in items))
    return found


def _runs_dir(context: typer.Context) -> Path:
    return Path(context.params.get("runs_dir") or DEFAULT_RUNS_DIR)


def complete_experiment(context: typer.Context, incomplete: str) -> Completions:
    """Complete the name of an experiment; beside it its research question."""
    return _defined(context, incomplete, "experiments")


def complete_suite(context: typer.Context, incomplete: str) -> Completions:
    """Complete the name of a suite; beside it its research question."""
    return _defined(context, incomplete, "suites")


def complete_tunable(context: typer.Context, incomplete: str) -> Completions:
    """Complete what `tune` takes: an experiment, or a grid of the study."""
    return _defined(context, incomplete, "experiments", "grids")


def complete_run(context: typer.Context, incomplete: str) -> Completions:
    """Complete an experiment, a suite, or the first digits of a run that is here."""
    folders = sorted((_runs_dir(context) / "work").glob("[0-9a-f]*"))
    identities = ((folder.name[:SHORT_IDENTITY], "a run") for folder in folders)
    named = _defined(context, incomplete, "experiments", "suites")
    return [*named, *_starting(incomplete, identities)]


def complete_architecture(incomplete: str) -> Completions:
    """Complete the name of an architecture of ours."""
    return _starting(incomplete, ((name, "") for name in sorted(ARCHITECTURES)))


def complete_dataset(context: typer.Context, incomplete: str) -> Completions:
    """Complete the name of a prepared data set, or `drawn`."""
    folder = Path(context.params.get("data_dir") or DEFAULT_DATA_DIR)
    prepared = sorted(path.parent.name for path in folder.glob("*/manifest.json"))
    named = [("drawn", "synthetic faces"), *((name, "prepared here") for name in prepared)]
    return _starting(incomplete, named)
