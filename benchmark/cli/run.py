"""`facebench run`: experiments in, events shown, exit code out; `plan`: what they would take."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape

from benchmark import registry
from benchmark.cli import options, output
from benchmark.cli.options import parse_folds, parse_seeds, parse_settings, parse_sweeps
from benchmark.cli.output import CommandResult, ExitCode, speaking, tell
from benchmark.cli.plan import not_run_lines, show_plan
from benchmark.errors import ExperimentError, WeightsMissing, require_choice
from benchmark.experiment.definition import Experiment
from benchmark.files import check_outputs

if TYPE_CHECKING:
    from benchmark.cluster.connection import ClusterOptions
    from benchmark.cluster.fleet import Fleet
    from benchmark.data.dataset import FaceSet
    from benchmark.runs.plan import Settings


@dataclass(frozen=True)
class Execution:
    """Where and how runs are computed: the options that `run` and `tune` share."""

    dataset: options.DatasetName = None
    device: options.DeviceName = None
    precision: options.PrecisionName = "auto"
    tracking: options.Tracking = "mlflow"
    offline: options.Offline = False
    cache: options.Cache = True
    cache_dir: options.CacheDir = None
    cache_gib: options.CacheGib = options.DEFAULT_CACHE_GIB
    on: options.On = None
    gpus_per_run: options.GpusPerRun = None
    cpus_per_run: options.CpusPerRun = 1.0
    shared_runs: options.SharedRuns = False
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR
    weights_dir: options.WeightsDir = None

    def cluster(self) -> "ClusterOptions | None":
        """Check the options of `--on`; None where runs are computed in this process."""
        if self.on is None:
            asked = {
                "--gpus-per-run": self.gpus_per_run is not None, "--shared-runs": self.shared_runs,
            }  # fmt: skip
            if named := [name for name, is_given in asked.items() if is_given]:
                raise ExperimentError(f"{' and '.join(named)} without --on", fix="Add --on ray")
            return None
        from benchmark.cluster.connection import ClusterOptions

        per_run = self.gpus_per_run, self.cpus_per_run
        return ClusterOptions(self.on, *per_run, self.shared_runs, self.device, self.precision)

    def settings(
        self, *, deterministic: bool = False, graph: bool = True, compile: bool | None = False,
        read_test: bool = False, keep_weights: str = "best",
    ) -> "Settings":  # fmt: skip
        """Check the others. torch is loaded here, so that a mistyped name is answered before."""
        from benchmark.runs.plan import KEEP_WEIGHTS, Settings
        from benchmark.training.device import choose_device
        from benchmark.training.prefix_cache import CacheSettings
        from benchmark.training.steps import SpeedSettings

        require_choice("--tracking", self.tracking, ("mlflow", "files"))
        require_choice("--keep-weights", keep_weights, KEEP_WEIGHTS)
        # The nodes of a cluster choose their own device.
        device = "cpu" if self.on else self.device
        cache_dir = self.cache_dir or self.data_dir / "cache"
        settings = Settings(
            self.runs_dir, self.weights_dir or self.data_dir / "weights",
            choose_device(device, self.precision, exact=deterministic),
            offline=self.offline, read_test=read_test,
            keep_weights=keep_weights,  # type: ignore[arg-type]
            cache=CacheSettings(cache_dir, self.cache_gib) if self.cache else None,
            speed=SpeedSettings(graph=graph, compile=compile),
        )  # fmt: skip
        if self.tracking == "files":
            return settings
        from benchmark.tracking import MlflowMirror

        mirror = MlflowMirror(self.runs_dir, on_trouble=output.say_warning)
        return replace(settings, mirror=mirror)


FOLDS = (
    "Folds of the split to run on instead of it, as in 0-4; `facebench leaderboard --folds` "
    "compares them with it."
)


@options.grouped
def run(
    names: options.Experiments = None,
    suite: options.OneSuite = None,
    seeds: options.Seeds = "0",
    folds: Annotated[str | None, options.option(FOLDS)] = None,
    dry_run: Annotated[
        bool, options.option("Only list what would run, how long and how large.", "--dry-run")
    ] = False,
    settings: options.Changes = None,
    sweep: options.Sweep = None,
    read_test: options.ReadTest = False,
    keep_weights: Annotated[str, options.advanced("best or none.")] = "best",
    deterministic: options.Deterministic = False,
    graph: options.Graph = True,
    compile_: options.Compile = None,
    *,
    where: Execution,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Run experiments; finished runs are up to date, interrupted ones resume.

    Examples:
      facebench run --suite quick
      facebench run --suite study --dry-run
      facebench run mtl-cnn-none-full-short --seeds 0,1,2
      facebench run --suite quick --folds 0-4
      facebench run mtl-cnn-none-full-short --set recipe.max_epochs=3
      facebench run mtl-vgg16-imagenet-frozen --sweep recipe.learning_rate=1e-4,1e-3
    """
    with speaking("run", as_json=as_json, quiet=quiet) as answer:
        combinations = parse_sweeps(sweep or [], parse_settings(settings or []))
        chosen = _chosen(names or [], suite, combinations)
        if folds is not None:
            asked = parse_folds(folds)
            chosen = [item.in_fold(fold) for item in chosen for fold in asked]
        numbers, cluster = parse_seeds(seeds), where.cluster()
        how = where.settings(
            deterministic=deterministic, graph=graph, compile=compile_, read_test=read_test,
            keep_weights=keep_weights,
        )  # fmt: skip
        with output.busy("opening the data set"):
            faces = _opened(answer, where.data_dir, where.dataset)
        _say_where(faces, how, on_cluster=cluster is not None)
        if dry_run:
            show_plan(answer, chosen, numbers, faces, how)
            return
        with fleet_on(cluster) as fleet:
            ends = run_shown(answer, chosen, numbers, faces, how, fleet)
        answer.data = {"dataset": faces.name, "runs": ends}
        tell(
            f"{ends['finished']} finished, {ends['skipped']} up to date, "
            f"{ends['missing']} not run, {ends['failed']} failed."
        )
        if answer.errors or (ends["missing"] > 0 and ends["finished"] + ends["skipped"] == 0):
            answer.code = ExitCode.RUNS_FAILED


def plan(
    names: options.Experiments = None,
    suite: options.OneSuite = None,
    seeds: options.Seeds = "0",
    gpus: Annotated[int | None, options.option("Plan for so many GPUs.", min=1)] = None,
    workers: Annotated[int, options.option("Plan for so many machines like this one.", min=1)] = 1,
    image: Annotated[
        Path | None, options.option("Draw the schedule into this PNG or SVG file.", "--out")
    ] = None,
    dataset: options.DatasetName = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    weights_dir: options.WeightsDir = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Predict wall time, GPU or core hours and disk of the runs that are not finished yet.

    From finished runs of the same kind on the same hardware, else from operations; it says which.

    Examples:
      facebench plan --suite study --seeds 0,1,2 --gpus 8
      facebench plan --suite quick --seeds 0,1,2 --workers 2 --out plan.svg
    """
    with speaking("plan", as_json=as_json) as answer:
        if image is not None and image.suffix not in (".png", ".svg"):
            raise ExperimentError(f"--out is {str(image)!r}", allowed="a name in .png or .svg")
        check_outputs([image] if image else [], overwrite=overwrite)
        chosen, numbers = _chosen(names or [], suite, [{}]), parse_seeds(seeds)
        how = Execution(
            tracking="files", data_dir=data_dir, runs_dir=runs_dir, weights_dir=weights_dir
        ).settings()
        faces = _opened(answer, data_dir, dataset)
        n_workers, kind = gpus or workers, "cuda" if gpus else None
        show_plan(answer, chosen, numbers, faces, how, n_workers=n_workers, kind=kind, image=image)


def _chosen(
    names: list[str], suite: str | None, combinations: Sequence[dict[str, Any]]
) -> list[Experiment]:
    """Find what is run, each once, with the changes of `--set` and every one of `--sweep`."""
    if not names and suite is None:
        suites = ", ".join(sorted(registry.suites()))
        allowed = f"names of experiments, or --suite with one of {suites}"
        fix = "`facebench list` shows them"
        raise ExperimentError("nothing to run was named", allowed=allowed, fix=fix)
    chosen: list[Experiment] = []
    for item in options.experiments_named(names, suite).values():
        for changes in combinations:
            changed = item.adjusted(changes) if changes else item
            if changed not in chosen:
                chosen.append(changed)
    return chosen


@contextlib.contextmanager
def fleet_on(cluster: "ClusterOptions | None") -> "Iterator[Fleet | None]":
    """Connect to a cluster, if one is asked for, and say what it has."""
    if cluster is None:
        yield None
        return
    from benchmark.cluster.connection import connected
    from benchmark.cluster.fleet import Fleet

    with contextlib.ExitStack() as stack:
        with output.busy("connecting to Ray"):
            connection = stack.enter_context(connected(cluster))
        tell(f"{escape(connection.sentence)}.")
        yield Fleet(connection)


def _opened(answer: CommandResult, data_dir: Path, dataset: str | None) -> "FaceSet":
    from benchmark.data.dataset import choose_dataset
    from benchmark.data.labelled import label_gaps

    faces = choose_dataset(data_dir, dataset)
    answer.warnings.extend(label_gaps(faces))
    return faces


def run_shown(
    answer: CommandResult, experiments: list[Experiment], seeds: tuple[int, ...], faces: "FaceSet",
    settings: "Settings", fleet: "Fleet | None",
) -> dict[str, int]:  # fmt: skip
    """Run experiments and show it; count how they end, and keep errors and what is missing."""
    from benchmark.cli.run_display import ClusterDisplay, RunDisplay
    from benchmark.runs.queue import queued
    from benchmark.runs.run import Failed, Missing, run_all

    ends = {"finished": 0, "skipped": 0, "missing": 0, "failed": 0}
    missing: list[tuple[Experiment, WeightsMissing]] = []
    kind, engine = (ClusterDisplay, fleet.run_all) if fleet else (RunDisplay, run_all)
    with kind(len(experiments) * len(seeds)) as display:
        runs = engine(experiments, seeds, faces, shown_by(display, settings, answer))
        followed = queued(
            runs, experiments, seeds, settings.runs_dir,
            engine="ray" if fleet else "local", n_slots=fleet.n_slots() if fleet else 1,
        )  # fmt: skip
        # Closed at once when Ctrl-C strikes here and not inside: closing is what marks the run.
        with contextlib.closing(followed) as events:
            for event in events:
                display.show(event)
                if (end := type(event).__name__.lower()) in ends:
                    ends[end] += 1
                if isinstance(event, Failed):
                    answer.errors.append(event.error)
                if isinstance(event, Missing):
                    missing.append((event.experiment, event.error))
    answer.warnings.extend(not_run_lines(missing))
    return ends


def shown_by(
    display: output.Display, settings: "Settings", answer: CommandResult
) -> "Settings":  # fmt: skip
    """Let the display show progress, and each note once."""

    def say(sentence: str) -> None:
        if sentence not in answer.warnings:
            answer.warnings.append(sentence)
            display.show_note(sentence)

    cache, on_progress = settings.cache, display.show_stage
    cache = cache and replace(cache, say=say, on_progress=on_progress)
    speed, on_download = replace(settings.speed, say=say), display.show_download
    return replace(
        settings, on_download=on_download, on_progress=on_progress, cache=cache, speed=speed
    )


def _say_where(faces: "FaceSet", settings: "Settings", *, on_cluster: bool) -> None:
    parts = faces.table["part"].value_counts()
    counts = ", ".join(f"{parts.get(part, 0):,} {part}" for part in ("train", "val", "test"))
    device = settings.device
    precision = device.precision + (" unless a few steps find it slower" if device.probes else "")
    if device.exact:
        precision = "fp32, deterministic: equal weights twice with as many threads"
    what = "[bold yellow]SYNTHETIC FACES[/], not people: " if faces.drawn else ""
    # The nodes of a cluster choose their own device and precision.
    where = "Ray" if on_cluster else f"{device.description}, {precision}"
    tell(f"{what}data set [bold]{faces.name}[/] ({counts}) on {where}")
