"""Options that several commands share, spelled and explained once, and what the shell completes."""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark import registry
from benchmark.cli.output import Options
from benchmark.errors import BenchmarkError
from benchmark.experiment.architectures import ARCHITECTURES

DEFAULT_DATA_DIR = Path("data")
DEFAULT_RUNS_DIR = Path("mlruns")
DEFAULT_CACHE_GIB = 10.0
"""As benchmark.training.prefix_cache has it; here so that --help needs no torch."""
SHORT_IDENTITY = 12
"""Digits of a run's identity, as tables show it."""
ADVANCED = "Advanced options"
"""The panel of what most calls leave as it is."""

Completions = list[tuple[str, str]]
"""Names, each with what the shell shows beside it."""


def advanced(text: str, *names: str, **more: Any) -> Any:
    """Declare an option of the panel of what most calls leave as it is."""
    return typer.Option(*names, help=text, rich_help_panel=ADVANCED, **more)


def _starting(incomplete: str, names: Iterable[tuple[str, str]]) -> Completions:
    return [(name, beside) for name, beside in names if name.startswith(incomplete)]


def _runs_dir(context: typer.Context) -> Path:
    return Path(context.params.get("runs_dir") or DEFAULT_RUNS_DIR)


def completing(*kinds: str) -> Callable[[typer.Context, str], Completions]:
    """Complete names of `experiments`, `suites`, `grids`, with their questions; else nothing."""

    def complete(context: typer.Context, incomplete: str) -> Completions:
        found: Completions = []
        with contextlib.suppress(BenchmarkError), registry.with_tuned(_runs_dir(context)):
            for kind in kinds:
                items = getattr(registry, kind)().values()
                found += _starting(incomplete, ((item.name, item.asks) for item in items))
        return found

    return complete


complete_experiment = completing("experiments")
complete_suite = completing("suites")
complete_tunable = completing("experiments", "grids")


def complete_run(context: typer.Context, incomplete: str) -> Completions:
    """Complete an experiment, a suite, or the first digits of a run that is here."""
    folders = sorted((_runs_dir(context) / "work").glob("[0-9a-f]*"))
    identities = ((folder.name[:SHORT_IDENTITY], "a run") for folder in folders)
    named = completing("experiments", "suites")(context, incomplete)
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


def note_named(context: typer.Context, name: str, folder: Path) -> None:
    """Remember a folder that a person named; `output.speaking` checks that it is there."""
    Options.given = context.params
    source = context.get_parameter_source(name)
    if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
        Options.named_folders[f"--{name.replace('_', '-')}"] = folder


def _named_data_dir(context: typer.Context, data_dir: Path) -> Path:
    note_named(context, "data_dir", data_dir)
    return data_dir


def _with_tuned(context: typer.Context, runs_dir: Path) -> Path:
    """Let the recipes that were tuned in a folder of runs be known by name while a command runs."""
    note_named(context, "runs_dir", runs_dir)
    context.with_resource(registry.with_tuned(runs_dir))
    return runs_dir


# fmt: off
DataDir = Annotated[Path, typer.Option(
    envvar="FACEBENCH_DATA_DIR", help="Where prepared data sets are.", callback=_named_data_dir)]
RunsDir = Annotated[Path, typer.Option(
    envvar="FACEBENCH_RUNS_DIR", help="Where runs are kept.", callback=_with_tuned)]
WeightsDir = Annotated[Path | None, advanced(
    "Where converted weights are; DATA_DIR/weights if left out.", envvar="FACEBENCH_WEIGHTS_DIR")]
Experiments = Annotated[list[str] | None, typer.Argument(
    help="Experiments by name.", autocompletion=complete_experiment)]
OneSuite = Annotated[str | None, typer.Option(
    help="All experiments of a suite.", autocompletion=complete_suite)]
Seeds = Annotated[str, typer.Option(help="Seeds, as in 0,1,2.")]
DatasetName = Annotated[str | None, typer.Option(
    help="A prepared data set, or `drawn` (synthetic); the only one prepared if left out.",
    autocompletion=complete_dataset)]
Changes = Annotated[list[str] | None, typer.Option(
    "--set", help="Change a field: recipe.max_epochs=3.")]
Sweep = Annotated[list[str] | None, typer.Option(
    help="Run with every value of a field: recipe.learning_rate=1e-4,1e-3; several fields: with "
    "every combination.")]
DeviceName = Annotated[str | None, typer.Option(help="cpu, cuda or mps; the best if left out.")]
PrecisionName = Annotated[str, advanced("auto, bf16 or fp32.")]
Tracking = Annotated[str, advanced("mlflow, or files alone.")]
Offline = Annotated[bool, advanced("Never download weights.", "--offline")]
ReadTest = Annotated[bool, advanced("Evaluate ad-hoc runs on the test set too.", "--read-test")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for a machine.")]
Overwrite = Annotated[bool, advanced("Replace files that exist, but no input.", "--overwrite")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
Cache = Annotated[bool, advanced(
    "Compute what is frozen once, for all runs on it.", "--cache/--no-cache")]
CacheDir = Annotated[Path | None, advanced(
    "Where it is kept; DATA_DIR/cache if left out.", envvar="FACEBENCH_CACHE_DIR")]
CacheGib = Annotated[float, advanced(
    "GiB that it may take there; the least recently used goes first.", min=0.0)]
Deterministic = Annotated[bool, advanced(
    "fp32, and equal weights twice on the same machine.", "--deterministic")]
Graph = Annotated[bool, advanced("On CUDA, record the step and replay it.", "--graph/--no-graph")]
Compile = Annotated[bool | None, advanced(
    "Let torch.compile fuse operations; if left out, on CUDA where enough steps share it.",
    "--compile/--no-compile")]
CLUSTER = "Cluster options"
On = Annotated[str | None, typer.Option(
    help="Run on Ray: `ray` starts it on this machine, `auto`, HOST:PORT or ray://HOST:PORT is a "
    "cluster that is there. Left out: one run after another in this process.",
    rich_help_panel=CLUSTER)]
GpusPerRun = Annotated[float | None, typer.Option(
    min=0.0, help="GPUs for each run, or a part of one, as 0.25; 1 if left out and there are any.",
    rich_help_panel=CLUSTER)]
CpusPerRun = Annotated[float, typer.Option(help="CPU cores for each run.", rich_help_panel=CLUSTER)]
SharedRuns = Annotated[bool, typer.Option(
    "--shared-runs", help="RUNS_DIR is the same folder on every node: write to it there.",
    rich_help_panel=CLUSTER)]
# fmt: on
