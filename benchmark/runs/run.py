"""One run end to end, and many in a row; each leaves a folder that tells everything about it.

A run's events are yielded, so that display, tuning and tests read the same. The folder under
`mlruns/work/` is the truth; tracking mirrors it and can catch up at any time. Precision, cache,
CUDA graph and whether steps are compiled are no part of a run's identity; experiment.json has them,
with the seconds that they took.
"""

import functools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.data.splits import Rows
from benchmark.errors import BenchmarkError, ClusterLost, WeightsMissing
from benchmark.evaluation.artifacts import write_artifacts
from benchmark.experiment.definition import Experiment
from benchmark.files import file_lock, lock_owner, write_json
from benchmark.models import weights as weight_files
from benchmark.models.network import Network, build_network
from benchmark.runs import folder
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.tasks import TaskName
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CachedFaces, PrefixRequest, open_prefix, why_live
from benchmark.training.steps import SpeedSettings, in_fp32, resolve_precision
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
    """A run ended with an error; the others continue."""

    experiment: Experiment
    seed: int
    error: BenchmarkError


class Missing(Failed):
    """A run cannot start because its weights are neither here nor can be fetched."""


Event = Started | Advanced | Finished | Skipped | Failed
ASK_AGAIN_SECONDS: Final = 0.5
PAYS_FROM_STEPS: Final = 40_000
"""Compiling took 16 to 39 s on an H200 and saved 0.4 to 1.1 ms a step (docs/notes/speed.md)."""
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


def with_compile(
    experiment: Experiment, n_seeds: int, faces: FaceSet, settings: Settings
) -> Settings:
    """Decide whether an experiment's steps are compiled, where that is left open.

    They are where all its seeds together, none of them finished, take so many that compiling once
    for all of them pays. Not on a CPU, where a step is arithmetic, and not where two runs must end
    in equal weights.
    """
    recipe, pays = experiment.recipe, settings.speed.compile
    if pays is None:
        n_train = int((faces.table["part"] == "train").sum())
        per_epoch = recipe.steps_per_epoch or -(-n_train // recipe.batch_size)
        is_many = n_seeds * recipe.max_epochs * per_epoch >= PAYS_FROM_STEPS
        pays = is_many and settings.device.kind == "cuda" and not settings.device.exact
    return replace(settings, speed=replace(settings.speed, compile=pays))


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
        # Any error, since torch and drivers raise many: the suite continues, the folder says why.
        except Exception as error:  # noqa: BLE001
            raise folder.mark_failed(plan, settings, error) from error
    yield Finished(plan)


def _train_and_evaluate(plan: Plan, on_device: FaceBatches, settings: Settings) -> Iterator[Event]:
    """The path of a face, from the split to its run's numbers."""
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
        folder.store_predictions(plan, parts, options.predict, settings)
        options.write(steps=dict(state.speed_report))
    settings.on_progress("intervals and figures", 0, 0)
    done = folder.store_network(plan, state, history, settings)
    training = plan.faces.table.iloc[parts.own["train"]]
    write_artifacts(plan.record, done, draw=settings.figures, faces=plan.faces, training=training)
    folder.finish(plan, done, settings)


class ExecutionOptions:
    """The execution options of one run, resolved one after another, and what they took."""

    def __init__(
        self, plan: Plan, on_device: FaceBatches, settings: Settings, network: Network
    ) -> None:
        self._plan, self._on_device, self._network = plan, on_device, network
        self._notes = list[str]()
        self.report: dict[str, Any] = {"notes": self._notes}
        self._settings, cache = settings, settings.cache
        self.speed: SpeedSettings = replace(settings.speed, say=self._noted(settings.speed.say))
        why = why_live(network, plan.experiment.recipe.augmentation)
        why = why or ("the cache is off" if cache is None else None)
        self._cache = None if why or not cache else replace(cache, say=self._noted(cache.say))
        self._exact: CachedFaces | None = None
        self.device = self._resolved(settings.device)
        self.report["cache"] = {"live": why} if why else {}

    def _noted(self, listener: Callable[[str], None]) -> Callable[[str], None]:
        def say(sentence: str) -> None:
            self._notes.append(sentence)
            listener(sentence)

        return say

    def _resolved(self, device: Device) -> Device:
        """Decide on precision and layout; a run that resumes keeps those that it began with."""
        path = self._plan.folder
        if all((path / name).is_file() for name in (folder.CHECKPOINT_FILE, "experiment.json")):
            began = self._plan.record.about["arithmetic"]
            if device.probes:
                precision, last = began["precision"], bool(began["channels_last"])
                return replace(device, precision=precision, channels_last=last, probes=False)
            if (before := began["precision"]) != device.precision:
                # Asked for, or another device: harmless, since selection and predictions are fp32.
                self.speed.say(f"It began in {before} and resumes in {device.precision}")
        of = self._network, self._on_device, self._plan.experiment
        resolved, seconds = resolve_precision(device, *of, cached=self._cache is not None)
        if seconds is not None:
            self.report["probe_step_seconds"] = {of: round(it, 5) for of, it in seconds.items()}
        return resolved

    def prefixes(self, parts: folder.Parts) -> tuple[CachedFaces | None, CachedFaces | None]:
        """Find or make the activations of all faces to train on, and those in fp32 to predict from.

        None where they are computed per batch. In fp32 they are of the validation and test faces of
        the whole split, so that runs on a subset and on all faces share them.
        """
        if self._cache is None:
            return None, None
        plan, of = self._plan, (self._network, self._on_device)
        request = PrefixRequest(plan.faces.pixel_digest, plan.experiment.recipe.augmentation)
        prefix = open_prefix(*of, self.device, self._cache, request)
        self.write(cache=dict(prefix.report) if prefix else {"live": self._notes[-1]})
        self._exact = prefix
        if prefix is None or (prefix.is_exact_fp32 and prefix.device.channels_last):
            return prefix, prefix
        rows = parts.predicted(reads_test=folder.reads_test(plan, self._settings))
        request = PrefixRequest(plan.faces.pixel_digest, rows=torch.from_numpy(rows))
        exact = open_prefix(*of, self._exact_device, self._cache, request)
        self.device.place(self._network)
        if exact is not None:
            self.report["cache_of_answers"] = dict(exact.report)
        self._exact = exact if exact is not None and exact.is_exact_fp32 else None
        return prefix, self._exact

    @property
    def _exact_device(self) -> Device:
        """The one precision and layout of stored numbers, whichever training is faster in."""
        return replace(self.device, precision="fp32", channels_last=True, probes=False)

    def predict(self, rows: Rows) -> Mapping[TaskName, npt.NDArray[np.float32]]:
        """Compute the stored probabilities of faces in fp32, after `prefixes`."""
        device, stage = self._exact_device, "predicting validation and test faces"
        device.place(self._network)
        on_faces = functools.partial(self._settings.on_progress, stage)
        indices = torch.from_numpy(rows).to(device.torch_device)
        forward = in_fp32(self._network, self._on_device, self._exact)
        return forward.probabilities(indices, on_faces)

    def write(self, **found: dict[str, Any]) -> None:
        """Add to experiment.json what was found out."""
        self.report |= found
        about = self._plan.record.about | {"speed": self.report}
        write_json(self._plan.folder / "experiment.json", about)
