"""One run end to end, and many in a row; each leaves a folder that tells everything about it.

A run's events are yielded, so that display, tuning and tests read the same. The folder under
`mlruns/work/` is the truth; tracking mirrors it and can catch up at any time.
"""

import statistics
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, WeightsMissing
from benchmark.experiment.definition import Experiment
from benchmark.files import file_lock, is_locked, lock_owner
from benchmark.models import weights as weight_files
from benchmark.models.network import build_network
from benchmark.models.weight_manifest import files_for
from benchmark.record import RunRecord, all_records
from benchmark.runs.checkpoints import CHECKPOINT_FILE, CheckpointWriter, load_checkpoint
from benchmark.runs.execution import ExecutionOptions, resolve_compile, worth_compiling
from benchmark.runs.folder import (
    begin,
    explained,
    finish,
    is_done,
    mark_failed,
    mark_interrupted,
    parts_for,
    write_answers,
)
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.training.device import Device
from benchmark.training.prefix_cache import why_live
from benchmark.training.trainer import EpochResult, Progress, TrainingFaces, fit, start


@dataclass(frozen=True)
class Started:
    """A run began, or resumed after `epochs_done` epochs."""

    plan: Plan
    epochs_done: int
    n_train: int
    where: str = ""
    """The machine that trains it, where it is another one."""


@dataclass(frozen=True)
class Prepared:
    """A run is about to train; `sentence` says how, where that is worth a line."""

    plan: Plan
    sentence: str


@dataclass(frozen=True)
class Advanced:
    """Progress within an epoch, or an epoch's result."""

    plan: Plan
    step: Progress | EpochResult


@dataclass(frozen=True)
class Finished:
    """A run is done, its folder complete."""

    plan: Plan


@dataclass(frozen=True)
class Skipped:
    """A run is up to date, or another process runs it."""

    plan: Plan
    why: str


@dataclass(frozen=True)
class Missing:
    """A run cannot start because its weights are neither here nor can be fetched."""

    experiment: Experiment
    seed: int
    error: WeightsMissing


@dataclass(frozen=True)
class Failed:
    """A run ended with an error; the others go on."""

    experiment: Experiment
    seed: int
    error: BenchmarkError


Event = Started | Prepared | Advanced | Finished | Skipped | Missing | Failed


def run_all(
    experiments: Iterable[Experiment], seeds: Iterable[int], faces: FaceSet, settings: Settings
) -> Generator[Event]:
    """Run every experiment with every seed; one that fails does not stop the others."""
    on_device = FaceBatches.on_device(
        faces.pixels(), faces.table, settings.device.torch_device, settings.speed.say
    )
    experiments, seeds = tuple(experiments), tuple(seeds)
    compiled = worth_compiling(experiments, len(seeds), faces, settings.device)
    for experiment in experiments:
        own = resolve_compile(settings, experiment, compiled)
        for seed in seeds:
            try:
                plan = plan_run(experiment, seed, faces, own)
                yield from run(plan, on_device, own)
            except WeightsMissing as error:
                yield Missing(experiment, seed, error)
            except BenchmarkError as error:
                # The frames that it came through hold the failed run's network and optimiser, whose
                # memory the next run needs; `failed.json` has the traceback.
                error.__cause__ = error.__context__ = None
                yield Failed(experiment, seed, error.with_traceback(None))
            except OSError as error:
                # Its folder cannot be made or locked; errors within a run are handled by `run`.
                yield Failed(experiment, seed, explained(error))


def run(plan: Plan, on_device: FaceBatches, settings: Settings) -> Generator[Event]:
    """Bring one run from wherever its folder stands to done.

    Raises RunError when it fails; the folder then says why. Stopped from outside (Ctrl-C, or a
    reader that closes the generator), the folder is marked and the same run resumes next time.
    """
    with file_lock(plan.folder / "claim") as mine:
        if not mine:
            yield Skipped(plan, f"process {lock_owner(plan.folder / 'claim').get('pid')} runs it")
            return
        if is_done(plan, settings):
            settings.mirror(plan.record)
            yield Skipped(plan, "done")
            return
        try:
            yield from _train_and_evaluate(plan, on_device, settings)
        except (KeyboardInterrupt, GeneratorExit):
            mark_interrupted(plan, settings)
            raise
        # Any error: a suite must go on, and the folder say why. Training and evaluating call
        # torch, drivers and libraries whose errors no list could name.
        except Exception as error:  # noqa: BLE001
            raise mark_failed(plan, settings, error) from error
    yield Finished(plan)


def _train_and_evaluate(plan: Plan, on_device: FaceBatches, settings: Settings) -> Iterator[Event]:
    """The path of a face, from the split to the stored predictions."""
    experiment = plan.experiment
    parts = parts_for(plan)
    loaded = weight_files.load(plan.weights) if plan.weights else None
    network = build_network(experiment, loaded, plan.seed)
    options = ExecutionOptions(plan, on_device, settings, network)
    device = options.device
    rows = {
        part: torch.from_numpy(indices).to(device.torch_device)
        for part, indices in parts.own.items()
    }
    with device.arithmetic():
        labelled = parts.labelled(plan)
        more = options.record() | ({"labelled": labelled} if labelled else {})
        checkpoint = load_checkpoint(plan.folder / CHECKPOINT_FILE)
        resumes = checkpoint is not None
        begin(
            plan, replace(settings, device=device), network, parts.counts(), more, resumes=resumes
        )
        state = start(network, experiment.recipe, device)
        if checkpoint is None:
            (plan.folder / "history.csv").unlink(missing_ok=True)
        else:
            state.restore(checkpoint)
        writer = CheckpointWriter(plan, settings, checkpoint["history"] if checkpoint else [])
        settings.mirror(plan.record)
        device.reset_peak_memory()
        yield Started(plan, state.epochs_done, len(rows["train"]))
        prefix = options.prefix()
        exact = options.exact_prefix(parts, prefix)
        yield Prepared(plan, options.sentence())

        data = TrainingFaces(on_device, rows["train"], rows["val"], prefix, exact)
        for step in fit(state, data, experiment, plan.seed, device, options.speed):
            if isinstance(step, EpochResult):
                writer.add(state, step)
            yield Advanced(plan, step)
        writer.finish(state)

        write_answers(plan, parts, options.predictor(exact), settings)
        options.note_steps(state.speed_report)
    finish(plan, state, writer.table(), parts, settings)


Outlook = Literal["run", "resume", "up to date", "held", "not run"]


@dataclass(frozen=True)
class Forecast:
    """What running an experiment with a seed would do."""

    experiment: Experiment
    seed: int
    outlook: Outlook
    seconds: float = 0.0
    """Of training, predicted."""
    n_bytes: int = 0
    """Of the network that it would leave."""
    fetch: str = ""
    """The weight file that would be downloaded first."""
    error: WeightsMissing | None = None
    """Why it would not run."""

    @property
    def trains(self) -> bool:
        """Whether anything would be trained."""
        return self.outlook in ("run", "resume")


def forecast_all(
    experiments: Iterable[Experiment], seeds: Iterable[int], faces: FaceSet, settings: Settings
) -> Iterator[Forecast]:
    """Say what `run_all` would do, without training, downloading or writing anything.

    Time is predicted from finished runs of the same run group on this hardware; else from the
    multiply-adds of the training and the speed of fully trained runs here; where there are none,
    from a matrix product timed now, a third of whose speed training reaches.
    """
    done = [RunRecord(item.folder) for item in all_records(settings.runs_dir)
            if item.state == "done"]  # fmt: skip
    hardware = settings.device.description
    done = [record for record in done if record.about["device"] == hardware]
    by_family: dict[str, list[float]] = {}
    speeds = []
    for record in done:
        seconds, about = float(record.done["seconds"]), record.about
        by_family.setdefault(record.family, []).append(seconds)
        if about["parameters"]["trainable"] == about["parameters"]["total"] and seconds > 0:
            n_images = about["dataset"]["counts"]["train"] * record.done["epochs"]
            speeds.append(3 * about["multiply_adds"] * n_images / seconds)
    speed = statistics.median(speeds) if speeds else _timed_speed(settings.device) / 3
    offline = replace(settings, offline=True)
    seeds = tuple(seeds)
    for experiment in experiments:
        operations, total = _operations(experiment, faces, settings)
        n_bytes = 0 if settings.keep_weights == "none" else 4 * total
        for seed in seeds:
            outlook: Outlook = "run"
            fetch, seconds = "", operations / speed
            try:
                plan = plan_run(experiment, seed, faces, offline)
            except WeightsMissing as error:
                backbone = experiment.backbone
                published = files_for(backbone.architecture, backbone.weights)
                if settings.offline or not published:
                    yield Forecast(experiment, seed, "not run", error=error)
                    continue
                fetch = published[0].file_name
            else:
                if is_locked(plan.folder / "claim"):
                    outlook = "held"
                elif is_done(plan, settings):
                    outlook = "up to date"
                elif (plan.folder / CHECKPOINT_FILE).is_file():
                    outlook = "resume"
                alike = by_family.get(plan.family)
                seconds = statistics.median(alike) if alike else seconds
            yield Forecast(experiment, seed, outlook, seconds, n_bytes, fetch)


def _operations(experiment: Experiment, faces: FaceSet, settings: Settings) -> tuple[float, int]:
    """Count a training's multiply-adds, a backward pass as two forward ones, and the parameters.

    What the prefix cache keeps of the frozen part is computed once and not in each epoch.
    """
    # What a network computes does not depend on its first weights.
    network = build_network(experiment.adjusted({"backbone.weights": "none"}), None, 0)
    recipe, frozen = experiment.recipe, 0.0
    n_train = int((faces.table["part"] == "train").sum())
    n_images = recipe.max_epochs * (
        n_train if recipe.steps_per_epoch is None else recipe.steps_per_epoch * recipe.batch_size
    )
    if network.cut is not None:
        px = faces.image_px
        with FlopCounterMode(display=False) as counter:
            network.eval().prefix(torch.zeros(1, 3, px, px))
        frozen = counter.get_total_flops() / 2
    cached = settings.cache is not None and why_live(network, recipe.augmentation) is None
    trained = 3 * (network.multiply_adds(faces.image_px) - frozen)
    once = frozen * (n_train if cached else n_images)
    return trained * n_images + once, network.parameter_counts()[0]


def _timed_speed(device: Device) -> float:
    """Give the multiply-adds a second of a product of two matrices on the device."""
    matrix = torch.ones(1024, 1024, device=device.torch_device)
    times = []
    with device.autocast():
        for _ in range(4):
            device.synchronise()
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            device.synchronise()
            times.append(time.perf_counter() - started)
    return float(1024**3 / min(times))
