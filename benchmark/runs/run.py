"""One run end to end, and many in a row; each leaves a folder that tells everything about it.

A run's events are yielded, so that display, tuning and tests read the same. The folder under
`mlruns/work/` is the truth; tracking mirrors it and can catch up at any time.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, ClusterLost, WeightsMissing
from benchmark.experiment.definition import Experiment
from benchmark.files import file_lock, lock_owner
from benchmark.models import weights as weight_files
from benchmark.models.network import build_network
from benchmark.runs import folder
from benchmark.runs.execution import ExecutionOptions, with_compile
from benchmark.runs.plan import Plan, Settings, plan_run
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
class Failed:
    """A run ended with an error; the others go on."""

    experiment: Experiment
    seed: int
    error: BenchmarkError


class Missing(Failed):
    """A run cannot start because its weights are neither here nor can be fetched."""


Event = Started | Advanced | Finished | Skipped | Failed
ASK_AGAIN_SECONDS: Final = 0.5
Found = TypeVar("Found")


def run_all(
    experiments: Iterable[Experiment], seeds: Iterable[int], faces: FaceSet, settings: Settings
) -> Generator[Event]:
    """Run every experiment with every seed; one that fails does not stop the others."""
    run_plan = in_this_process(faces, settings)
    seeds = tuple(seeds)
    for experiment in experiments:
        own = with_compile(experiment, len(seeds), faces, settings)
        for seed in seeds:
            yield from run_one(experiment, seed, faces, own, run_plan)


def in_this_process(
    faces: FaceSet, settings: Settings
) -> Callable[[Plan, Settings], Generator[Event]]:
    """Put faces on the device; give the function that brings planned runs on them to their end."""
    on_device = FaceBatches.on_device(
        faces.pixels(), faces.table, settings.device.torch_device, settings.speed.say
    )
    return lambda plan, settings: run(plan, on_device, settings)


def run_one(
    experiment: Experiment, seed: int, faces: FaceSet, settings: Settings,
    run_plan: Callable[[Plan, Settings], Generator[Found]],
) -> Generator[Found | Failed]:  # fmt: skip
    """Plan a run and bring it to its end, which is an event too where it fails."""
    try:
        yield from run_plan(plan_run(experiment, seed, faces, settings), settings)
    except ClusterLost:
        raise
    except BenchmarkError as error:
        # The frames that it came through hold the failed run's network, whose memory the next run
        # needs; `failed.json` has the traceback.
        error.__cause__ = error.__context__ = None
        kind = Missing if isinstance(error, WeightsMissing) else Failed
        yield kind(experiment, seed, error.with_traceback(None))
    except OSError as error:
        # Its folder cannot be made or locked; errors within a run are handled by `run`.
        yield Failed(experiment, seed, folder.explained(error))


def interleaved(
    begun: Iterator[Generator[Found | None] | None], n_at_once: Callable[[], int]
) -> Generator[Found]:
    """Read generators in turn, so many at once; None, of either iterator, says: nothing for now.

    Closed, it closes those that are under way.
    """
    under_way: list[Generator[Found | None]] = []
    is_over, ask_at = False, 0.0
    try:
        while under_way or not is_over:
            if not is_over and len(under_way) < n_at_once() and time.monotonic() >= ask_at:
                one = next(begun, "over")
                if isinstance(one, Generator):
                    under_way.append(one)
                    continue
                is_over, ask_at = one == "over", time.monotonic() + ASK_AGAIN_SECONDS
            if not under_way and not is_over:
                time.sleep(ASK_AGAIN_SECONDS)
            for one in list(under_way):
                try:
                    if (found := next(one)) is not None:
                        yield found
                except StopIteration:
                    under_way.remove(one)
                    ask_at = 0.0
    finally:
        for one in under_way:
            one.close()


def run(plan: Plan, on_device: FaceBatches, settings: Settings) -> Generator[Event]:
    """Bring one run from wherever its folder stands to done.

    Raises RunError when it fails; the folder then says why. Stopped from outside (Ctrl-C, or a
    reader that closes the generator), the folder is marked and the same run resumes next time.
    """
    with file_lock(plan.folder / "claim") as mine:
        if not mine:
            yield Skipped(plan, f"process {lock_owner(plan.folder / 'claim').get('pid')} runs it")
            return
        if folder.is_done(plan, settings):
            settings.mirror(plan.record)
            yield Skipped(plan, "done")
            return
        try:
            yield from _train_and_evaluate(plan, on_device, settings)
        except (KeyboardInterrupt, GeneratorExit):
            folder.mark_interrupted(plan, settings)
            raise
        # Any error, since torch and drivers raise many: a suite must go on, and the folder say why.
        except Exception as error:  # noqa: BLE001
            raise folder.mark_failed(plan, settings, error) from error
    yield Finished(plan)


def _train_and_evaluate(plan: Plan, on_device: FaceBatches, settings: Settings) -> Iterator[Event]:
    """The path of a face, from the split to the stored predictions."""
    experiment = plan.experiment
    parts = folder.parts_for(plan)
    loaded = weight_files.load(plan.weights) if plan.weights else None
    network = build_network(experiment, loaded, plan.seed)
    options = ExecutionOptions(plan, on_device, settings, network)
    device = options.device
    rows = {p: torch.from_numpy(of).to(device.torch_device) for p, of in parts.own.items()}
    with device.arithmetic():
        about = plan.about(device, network, parts.counts()) | {"speed": options.report}
        if labelled := parts.labelled(plan):
            about["labelled"] = labelled
        checkpoint = folder.load_checkpoint(plan.folder / folder.CHECKPOINT_FILE)
        folder.begin(plan, about, resumes=checkpoint is not None)
        state = start(network, experiment.recipe, device)
        if checkpoint is None:
            (plan.folder / "history.csv").unlink(missing_ok=True)
        else:
            state.restore(checkpoint)
        writer = folder.CheckpointWriter(plan, settings, (checkpoint or {}).get("history", []))
        settings.mirror(plan.record)
        device.reset_peak_memory()
        yield Started(plan, state.epochs_done, len(rows["train"]))
        prefix, exact = options.prefixes(parts)
        data = TrainingFaces(on_device, rows["train"], rows["val"], prefix, exact)
        for step in fit(state, data, experiment, plan.seed, device, options.speed):
            if isinstance(step, EpochResult):
                writer.add(state, step)
            yield Advanced(plan, step)
        history = writer.finish(state)
        folder.store_predictions(plan, parts, options.predictor(exact), settings)
        options.write(steps=dict(state.speed_report))
    folder.finish(plan, parts, state, history, settings)
