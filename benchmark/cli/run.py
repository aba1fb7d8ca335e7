"""`facebench run`: experiments in, events shown, exit code out; `plan`: what they would take."""

import contextlib
import functools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape

from benchmark import registry
from benchmark.cli import options, output
from benchmark.cli.options import advanced, option, parse_seeds
from benchmark.cli.output import CommandResult, ExitCode, duration, tell
from benchmark.errors import BenchmarkError, ExperimentError, require, require_choice
from benchmark.experiment.definition import Experiment
from benchmark.files import check_outputs
from benchmark.reporting.tables import Column, Table

if TYPE_CHECKING:
    from benchmark.cluster.connection import ClusterOptions
    from benchmark.cluster.fleet import Fleet
    from benchmark.data.dataset import FaceSet
    from benchmark.runs.forecast import Forecast
    from benchmark.runs.plan import Settings

of_cluster = functools.partial(option, rich_help_panel="Cluster options")


@dataclass(frozen=True)
class Execution:
    """Where and how runs are computed: the options that `run` and `tune` share."""

    # fmt: off
    dataset: options.DatasetName = None
    device: options.DeviceName = None
    precision: Annotated[str, advanced("auto, bf16 or fp32.")] = "auto"
    tracking: Annotated[str, advanced("mlflow, or files alone.")] = "mlflow"
    offline: Annotated[bool, advanced("Never download weights.", "--offline")] = False
    cache: Annotated[bool, advanced(
        "Compute what is frozen once, for all runs on it.", "--cache/--no-cache")] = True
    cache_dir: Annotated[Path | None, advanced(
        "Where it is kept; DATA_DIR/cache if left out.", envvar="FACEBENCH_CACHE_DIR")] = None
    cache_gib: Annotated[float, advanced(
        "GiB that it may take there; the least recently used goes first.", min=0.0)] = 10.0
    on: Annotated[str | None, of_cluster(
        "Run on Ray: `ray` starts it on this machine; `auto`, HOST:PORT or ray://HOST:PORT "
        "connects to a running cluster. Default: one run after another in this process.")] = None
    gpus_per_run: Annotated[float | None, of_cluster(
        "GPUs for each run, or a part of one, as 0.25; 1 if left out and there are any.",
        min=0.0)] = None
    cpus_per_run: Annotated[float, of_cluster("CPU cores for each run.")] = 1.0
    shared_runs: Annotated[bool, of_cluster(
        "RUNS_DIR is the same folder on every node: write to it there.", "--shared-runs")] = False
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR
    weights_dir: options.WeightsDir = None
    # fmt: on

    def cluster(self) -> "ClusterOptions | None":
        """Check the options of `--on`; None where runs are computed in this process."""
        if self.on is None:
            if self.gpus_per_run is not None or self.shared_runs:
                named = "--shared-runs" if self.shared_runs else "--gpus-per-run"
                raise ExperimentError(f"{named} without --on", fix="Add --on ray")
            return None
        from benchmark.cluster.connection import ClusterOptions

        per_run = self.gpus_per_run, self.cpus_per_run
        return ClusterOptions(self.on, *per_run, self.shared_runs, self.device, self.precision)

    @contextlib.contextmanager
    def fleet(self) -> "Iterator[Fleet | None]":
        """Connect to the cluster of `--on` and say what it has; None: runs are computed here."""
        if (cluster := self.cluster()) is None:
            yield None
            return
        from benchmark.cluster.connection import connected
        from benchmark.cluster.fleet import Fleet

        with contextlib.ExitStack() as stack:
            with output.busy("connecting to Ray"):
                connection = stack.enter_context(connected(cluster))
            tell(f"{escape(connection.sentence)}.")
            yield Fleet(connection)

    def settings(
        self, *, deterministic: bool = False, compile: bool | None = False,
        evaluate_test: bool = False, keep_weights: str = "best",
    ) -> "Settings":  # fmt: skip
        """Check the options. torch is loaded here, so that a mistyped name is answered before."""
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
            self.runs_dir,
            self.weights_dir or self.data_dir / "weights",
            choose_device(device, self.precision, exact=deterministic),
            offline=self.offline,
            evaluate_test=evaluate_test,
            keep_weights=keep_weights,  # type: ignore[arg-type]
            cache=CacheSettings(cache_dir, self.cache_gib) if self.cache else None,
            speed=SpeedSettings(compile=compile),
        )
        if self.tracking == "files":
            return settings
        from benchmark.tracking.mirror import MlflowMirror

        mirror = MlflowMirror(self.runs_dir, on_trouble=output.say_warning)
        return replace(settings, mirror=mirror)


def run(
    answer: options.QuietAnswer,
    names: options.Experiments = None,
    suite: options.OneSuite = None,
    seeds: options.Seeds = "0",
    folds: Annotated[str | None, option(
        "Folds of the split to run on instead of it, as in 0-4; `facebench leaderboard --folds` "
        "compares them with it.")] = None,
    dry_run: Annotated[bool, option(
        "Only list what would run, how long and how large.", "--dry-run")] = False,
    settings: options.Changes = None,
    sweep: Annotated[list[str] | None, option(
        "Run with every value of a field: recipe.learning_rate=1e-4,1e-3; several fields: with "
        "every combination.")] = None,
    evaluate_test: Annotated[bool, advanced(
        "Evaluate ad-hoc runs on the test set too.", "--evaluate-test", "--read-test")] = False,
    keep_weights: Annotated[str, advanced("best or none.")] = "best",
    deterministic: Annotated[bool, advanced(
        "fp32, and equal weights twice on the same machine.", "--deterministic")] = False,
    compile_: Annotated[bool | None, advanced(
        "Let torch.compile fuse operations; if left out, on CUDA where enough steps are taken.",
        "--compile/--no-compile")] = None,
    *, where: Execution,
) -> None:  # fmt: skip
    """Run experiments; finished runs are up to date, interrupted ones resume.

    Examples:
      facebench run --suite quick
      facebench run --suite study --dry-run
      facebench run mtl-cnn-none-full-short --seeds 0,1,2
      facebench run --suite quick --folds 0-4
      facebench run mtl-cnn-none-full-short --set recipe.max_epochs=3
      facebench run mtl-vgg16-imagenet-frozen --sweep recipe.learning_rate=1e-4,1e-3
    """
    combinations = options.parse_sweeps(sweep or [], options.parse_settings(settings or []))
    chosen = _chosen(names or [], suite, combinations)
    if folds is not None:
        asked = options.parse_folds(folds)
        chosen = [item.in_fold(fold) for item in chosen for fold in asked]
    numbers = parse_seeds(seeds)
    where.cluster()  # A wrong option is answered before anything is opened.
    how = where.settings(
        deterministic=deterministic,
        compile=compile_,
        evaluate_test=evaluate_test,
        keep_weights=keep_weights,
    )
    with output.busy("opening the data set"):
        faces = _opened(answer, where.data_dir, where.dataset)
    _say_where(faces, how, on_cluster=where.on is not None)
    if dry_run:
        show_plan(answer, chosen, numbers, faces, how)
        return
    with where.fleet() as fleet:
        ends = run_shown(answer, chosen, numbers, faces, how, fleet)
    answer.data = {"dataset": faces.name, "runs": ends}
    tell(
        f"{ends['finished']} finished, {ends['skipped']} up to date, "
        f"{ends['missing']} not run, {ends['failed']} failed."
    )
    if answer.errors or (ends["missing"] > 0 and ends["finished"] + ends["skipped"] == 0):
        answer.code = ExitCode.RUNS_FAILED


def plan(
    answer: options.Answer,
    names: options.Experiments = None,
    suite: options.OneSuite = None,
    seeds: options.Seeds = "0",
    gpus: Annotated[int | None, option("Plan for so many GPUs.", min=1)] = None,
    workers: Annotated[int, option("Plan for so many machines like this one.", min=1)] = 1,
    image: Annotated[
        Path | None, option("Draw the schedule into this PNG or SVG file.", "--out")
    ] = None,
    dataset: options.DatasetName = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    weights_dir: options.WeightsDir = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Predict wall time, GPU or core hours and disk of the runs that are not finished yet.

    From finished runs of the same kind on the same hardware, else from operations; it says which.

    Examples:
      facebench plan --suite study --seeds 0,1,2 --gpus 8
      facebench plan --suite quick --seeds 0,1,2 --workers 2 --out plan.svg
    """
    is_drawn = image is None or image.suffix in (".png", ".svg")
    require(is_drawn, f"--out is {str(image)!r}", allowed="a name in .png or .svg")
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
    allowed = f"names of experiments, or --suite with one of {', '.join(sorted(registry.suites()))}"
    is_named, fix = bool(names) or suite is not None, "`facebench list` shows them"
    require(is_named, "nothing to run was named", allowed=allowed, fix=fix)
    named = options.experiments_named(names, suite).values()
    return list(dict.fromkeys(item.adjusted(each) for item in named for each in combinations))


OUTLOOKS = {
    "run": "would run",
    "resume": "would resume",
    "up to date": "up to date",
    "held": "running in another process",
}
RUN_BYTES = 2 * 2**20
"""Of a run's files beside its network, at most."""


def not_run_lines(missing: Iterable[tuple[Experiment, BenchmarkError]]) -> list[str]:
    """Say in one line for each missing weight source how many experiments need it."""
    names: dict[str, set[str]] = {}
    for experiment, error in missing:
        names.setdefault(f"{error.found}. {error.fix}", set()).add(experiment.name)
    return [
        f"{f'{len(of)} experiments' if len(of) > 1 else min(of)} not run: {why}"
        for why, of in names.items()
    ]


def show_plan(
    answer: CommandResult, experiments: list[Experiment], seeds: tuple[int, ...], faces: "FaceSet",
    settings: "Settings", *, n_workers: int = 1, kind: str | None = None,
    image: Path | None = None,
) -> None:  # fmt: skip
    """List what would run, what is up to date, what would be downloaded, time and disk."""
    import torch

    from benchmark.runs.forecast import arrange, forecast_all

    with output.busy("predicting time"):
        forecasts = forecast_all(experiments, seeds, faces, settings, kind=kind)
        found = arrange(forecasts, n_workers)
    ahead = [item for item in found if item.worker is not None]
    seconds, n_bytes = sum(item.seconds for item in ahead), sum(item.n_bytes for item in ahead)
    wall = max((item.end for item in ahead), default=0.0)
    hours = sum(item.end - item.start for item in ahead) / 3600
    caches = sum({i.build.key: i.build.n_bytes for i in ahead if i.build}.values())
    if settings.cache is not None:
        caches = min(caches, int(settings.cache.cap_gib * 2**30))
    disk = n_bytes + len(ahead) * RUN_BYTES + caches
    places = (settings.runs_dir, *settings.runs_dir.resolve().parents)
    free = shutil.disk_usage(next(place for place in places if place.exists())).free
    fetch = sorted({item.fetch for item in ahead if item.fetch})
    # The run that takes longest with its caches: no number of workers is faster.
    critical = max(ahead, key=lambda item: item.alone_seconds, default=None)
    answer.warnings.extend(not_run_lines((i.experiment, i.error) for i in found if i.error))
    answer.data = {
        "dataset": faces.name, "dry_run": True, "workers": n_workers,
        "runs": list(map(_planned, found)), "seconds": round(seconds, 3),
        "wall_seconds": round(wall, 3), "worker_hours": round(hours, 4),
        "bytes": n_bytes, "disk_bytes": disk, "free_bytes": free,
        "fetch": fetch, "critical_path": critical and {
            "experiment": critical.experiment.name, "seed": critical.seed,
            "seconds": round(critical.alone_seconds, 3),
        },
    }  # fmt: skip
    if image is not None and ahead:
        from benchmark.evaluation.figures import schedule_figure

        bars = []
        for item in ahead:
            backbone = item.experiment.backbone
            group = f"{backbone.architecture} {backbone.depth_name}"
            bars.append((item.worker or 0, item.start, item.trains_at, item.end, group))
        title = f"{len(ahead)} runs on {n_workers} at once: {duration(wall)}"
        schedule_figure(bars, title).savefig(image)
    rows = [
        (row["experiment"], str(row["seed"]), OUTLOOKS[row["outcome"]],
         duration(row["wall_seconds"]) if "end" in row else "",
         row["rests_on"] if "end" in row else "")
        for row in answer.data["runs"] if row["outcome"] in OUTLOOKS
    ]  # fmt: skip
    if rows:
        left = Column("predicted from", left=True)
        output.print_table(Table.of(["experiment", "seed", "outcome", "about", left], rows))
    used = f"{hours:.2g} GPU hours" if kind else f"{hours * torch.get_num_threads():.2g} core hours"
    lines = [
        f"{len(ahead)} of {len(found)} would run, about {duration(wall)} with {n_workers} at "
        f"once, {used}, {duration(seconds)} of it training; {disk / 2**20:,.0f} MiB of "
        f"{free / 2**30:,.0f} GiB free."
    ]
    if critical is not None:
        longest = duration(critical.alone_seconds)
        lines.append(f"Critical path: {critical.experiment.name}, {longest} with its caches.")
    lines += [f"Weights to download first: {', '.join(fetch)}"] if fetch else []
    output.out.print("\n".join(lines), soft_wrap=True)


def _planned(item: "Forecast") -> dict[str, Any]:
    row = {
        "experiment": item.experiment.name, "seed": item.seed, "outcome": item.outlook,
        "seconds": round(item.seconds, 3), "fetch": item.fetch, "rests_on": item.basis,
    }  # fmt: skip
    if item.worker is not None:
        times = {"start": item.start, "end": item.end, "wall_seconds": item.end - item.start}
        row |= {"worker": item.worker, **{name: round(s, 3) for name, s in times.items()}}
    return row | ({"why": str(item.error)} if item.error else {})


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
    """Run experiments and show it; count how they end, and keep errors and what was not run."""
    from benchmark.cli.run_display import RunDisplay
    from benchmark.runs.queue import queued
    from benchmark.runs.run import Failed, Missing, run_all

    ends = {"finished": 0, "skipped": 0, "missing": 0, "failed": 0}
    missing = list[tuple[Experiment, BenchmarkError]]()
    with RunDisplay(len(experiments) * len(seeds)) as display:
        run_them = fleet.run_all if fleet else run_all
        runs = run_them(experiments, seeds, faces, shown_by(display, settings, answer))
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
                if isinstance(event, Missing):
                    missing.append((event.experiment, event.error))
                elif isinstance(event, Failed):
                    answer.errors.append(event.error)
    answer.warnings.extend(not_run_lines(missing))
    return ends


def shown_by(display: output.Display, settings: "Settings", answer: CommandResult) -> "Settings":
    """Let the display show progress, and each note once."""

    def say(sentence: str) -> None:
        if sentence not in answer.warnings:
            answer.warnings.append(sentence)
            display.say(f"  [yellow]note[/] {escape(sentence)}")

    cache, on_progress = settings.cache, display.show_stage
    return replace(
        settings,
        on_progress=on_progress,
        speed=replace(settings.speed, say=say),
        cache=cache and replace(cache, say=say, on_progress=on_progress),
        on_download=lambda name: display.say(f"[bold]downloading[/] {name}"),
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
