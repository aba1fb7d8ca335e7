"""`facebench run`: experiments in, events shown, exit code out."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark import registry
from benchmark.cli.completion import complete_experiment, complete_suite
from benchmark.cli.options import (
    DEFAULT_CACHE_GIB,
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    Cache,
    CacheDir,
    CacheGib,
    Changes,
    Compile,
    DataDir,
    DatasetName,
    Deterministic,
    DeviceName,
    Graph,
    Offline,
    PrecisionName,
    Quiet,
    ReadTest,
    RunsDir,
    Sweep,
    Tracking,
    WeightsDir,
)
from benchmark.cli.output import Answer, ExitCode, busy, err, say_error, say_warning, speaking
from benchmark.errors import BenchmarkError, ExperimentError
from benchmark.experiment.definition import Experiment
from benchmark.experiment.settings import parse_folds, parse_seeds, parse_settings, parse_sweeps

if TYPE_CHECKING:
    from benchmark.cli.run_display import RunDisplay
    from benchmark.data.dataset import FaceSet
    from benchmark.runs.plan import Settings
    from benchmark.training.device import Device

TRACKINGS = ("mlflow", "files")


def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Experiments by name.", autocompletion=complete_experiment),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="Run all experiments of a suite.", autocompletion=complete_suite),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as in 0,1,2.")] = "0",
    folds: Annotated[
        str | None,
        typer.Option(
            help="Folds of the split to run on instead of it, as in 0-4; "
            "`facebench leaderboard --folds` compares them with it."
        ),
    ] = None,
    settings: Changes = None,
    sweep: Sweep = None,
    dataset: DatasetName = None,
    device: DeviceName = None,
    precision: PrecisionName = "auto",
    tracking: Tracking = "mlflow",
    offline: Offline = False,
    read_test: ReadTest = False,
    keep_weights: Annotated[str, typer.Option(help="best, all or none.")] = "best",
    cache: Cache = True,
    cache_dir: CacheDir = None,
    cache_gib: CacheGib = DEFAULT_CACHE_GIB,
    deterministic: Deterministic = False,
    graph: Graph = True,
    compile_: Compile = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run experiments; what is done is skipped, what was stopped goes on.

    Examples:
      facebench run --suite quick
      facebench run mtl-cnn-none-full-short --seeds 0,1,2
      facebench run --suite quick --folds 0-4
      facebench run mtl-cnn-none-full-short --set recipe.max_epochs=3
      facebench run mtl-vgg16-imagenet-frozen --sweep recipe.learning_rate=1e-4,1e-3
    """
    with speaking("run", as_json=as_json) as answer:
        combinations = parse_sweeps(sweep or [], parse_settings(settings or []))
        chosen = _chosen(names or [], suite, combinations)
        if folds is not None:
            asked = parse_folds(folds)
            chosen = [item.in_fold(fold) for item in chosen for fold in asked]
        numbers = parse_seeds(seeds)
        ways = Ways(
            device, precision, deterministic, graph, compile_,
            (cache_dir or data_dir / "cache") if cache else None, cache_gib,
        )  # fmt: skip
        where = settings_for(
            ways, tracking, offline, read_test, keep_weights,
            runs_dir, weights_dir or data_dir / "weights",
        )  # fmt: skip
        code = _run(
            answer, chosen, numbers, dataset, data_dir, where,
            quiet=quiet or as_json, as_json=as_json,
        )  # fmt: skip
    if code is not ExitCode.FINE:
        raise typer.Exit(code)


def _chosen(
    names: list[str], suite: str | None, combinations: Sequence[dict[str, Any]]
) -> list[Experiment]:
    """Find what is run, each once, with the changes of `--set` and every one of `--sweep`."""
    if not names and suite is None:
        raise ExperimentError(
            "nothing to run was named",
            allowed="names of experiments, or --suite with one of "
            + ", ".join(sorted(registry.suites())),
            fix="`facebench list` shows them",
        )
    found = {name: registry.experiment(name) for name in names}
    if suite is not None:
        found |= {item.name: item for item in registry.experiments_of(suite)}
    chosen: list[Experiment] = []
    for item in found.values():
        for changes in combinations:
            changed = item.adjusted(changes) if changes else item
            if changed not in chosen:
                chosen.append(changed)
    return chosen


@dataclass(frozen=True)
class Ways:
    """How runs are to be computed, as the options say it."""

    device: str | None
    precision: str
    deterministic: bool
    graph: bool
    compile: bool | None
    cache_dir: Path | None
    cache_gib: float

    def applied(self, settings: "Settings") -> "Settings":
        """Give settings with these ways."""
        from benchmark.training.prefix_cache import CacheSettings
        from benchmark.training.steps import SpeedSettings

        cache = None if self.cache_dir is None else CacheSettings(self.cache_dir, self.cache_gib)
        speed = SpeedSettings(graph=self.graph, compile=self.compile)
        return replace(settings, cache=cache, speed=speed)


def settings_for(
    ways: Ways, tracking: str, offline: bool, read_test: bool, keep_weights: str, runs_dir: Path,
    weights_dir: Path,
) -> "Settings":  # fmt: skip
    # Imported here, so that a mistyped name is answered before torch is loaded.
    from benchmark.runs.plan import KEEP_WEIGHTS, Settings
    from benchmark.training.device import choose_device

    for option, value, allowed in (
        ("--tracking", tracking, TRACKINGS),
        ("--keep-weights", keep_weights, KEEP_WEIGHTS),
    ):
        if value not in allowed:
            raise ExperimentError(f"{option} is {value!r}", allowed=", ".join(allowed))
    settings = Settings(
        runs_dir=runs_dir,
        weights_dir=weights_dir,
        device=choose_device(ways.device, ways.precision, exact=ways.deterministic),
        offline=offline,
        read_test=read_test,
        keep_weights=keep_weights,  # type: ignore[arg-type]
    )
    settings = ways.applied(settings)
    if tracking == "files":
        return settings
    from benchmark.tracking import MlflowMirror

    return replace(settings, mirror=MlflowMirror(runs_dir, on_trouble=say_warning))


def _run(
    answer: Answer,
    experiments: list[Experiment],
    seeds: tuple[int, ...],
    dataset: str | None,
    data_dir: Path,
    settings: "Settings",
    *,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    from benchmark.cli.labels_table import label_gaps
    from benchmark.cli.run_display import RunDisplay
    from benchmark.data.sample import choose_dataset
    from benchmark.runs.run import Failed, Missing, run_all

    with busy("opening the data set", quiet=quiet):
        faces = choose_dataset(data_dir, dataset)
    answer.warnings.extend(label_gaps(faces))
    if not quiet:
        _say_where(faces, settings)
    counts: dict[str, int] = {}
    troubles: list[BenchmarkError] = []
    # Closed at once when Ctrl-C strikes here and not inside: closing is what marks the run.
    with (
        RunDisplay(len(experiments) * len(seeds), quiet=quiet) as display,
        contextlib.closing(
            run_all(experiments, seeds, faces, _shown(settings, display, answer))
        ) as events,
    ):
        for event in events:
            display.show(event)
            kind = type(event).__name__.lower()
            counts[kind] = counts.get(kind, 0) + 1
            if isinstance(event, Failed):
                troubles.append(event.error)
            if isinstance(event, Missing):
                answer.warnings.append(f"{event.experiment.name} is missing: {event.error}")
    ends = {end: counts.get(end, 0) for end in ("finished", "skipped", "missing", "failed")}
    answer.data = {"dataset": faces.name, "runs": ends}
    answer.errors.extend(troubles)
    if not quiet:
        err.print(
            f"{ends['finished']} finished, {ends['skipped']} needed nothing, "
            f"{ends['missing']} missing, {ends['failed']} failed."
        )
    if not as_json:
        for error in troubles:
            say_error(error)
    nothing_there = ends["missing"] > 0 and ends["finished"] + ends["skipped"] == 0
    return ExitCode.RUNS_FAILED if troubles or nothing_there else ExitCode.FINE


def _shown(settings: "Settings", display: "RunDisplay", answer: Answer) -> "Settings":
    """Let the display show what takes its time, and say once what goes otherwise than wished."""

    def say(sentence: str) -> None:
        if sentence not in answer.warnings:
            answer.warnings.append(sentence)
            display.show_note(sentence)

    cache = settings.cache
    return replace(
        settings,
        on_download=display.show_download,
        on_progress=display.show_stage,
        cache=None if cache is None else replace(cache, say=say, on_progress=display.show_stage),
        speed=replace(settings.speed, say=say),
    )


def _say_where(faces: "FaceSet", settings: "Settings") -> None:
    counts: Iterable[str] = (
        f"{(faces.table['part'] == part).sum():,} {part}" for part in ("train", "val", "test")
    )
    what = "[bold yellow]DRAWN FACES[/], not people: " if faces.drawn else ""
    err.print(
        f"{what}data set [bold]{faces.name}[/] ({', '.join(counts)}) on "
        f"{settings.device.description}, {_precision(settings.device)}",
        soft_wrap=True,
    )


def _precision(device: "Device") -> str:
    if device.exact:
        return "fp32, deterministic: equal weights twice with as many threads"
    return device.precision + (" unless a few steps find it slower" if device.probes else "")
