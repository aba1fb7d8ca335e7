"""Many heads on frozen trunks, trained together and kept apart: each leaves a run like any other.

Which heads: experiments with a frozen trunk, crossed with values of their settings and with seeds.
A run's folder, identity and claim are those of `facebench run`; experiment.json says that it was
trained in a farm, and of how many.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmark.checkpoints import CHECKPOINT_FILE
from benchmark.claims import claimed, holder
from benchmark.errors import BenchmarkError, ExperimentError, WeightsMissing
from benchmark.experiment import Augmentation, Experiment
from benchmark.faces.batches import FaceBatches
from benchmark.faces.splits import PartName, Rows
from benchmark.faces.store import FaceSet
from benchmark.models import weights as weight_files
from benchmark.models.network import Network, build_network
from benchmark.plans import Plan, Settings, plan_run
from benchmark.run_folders import (
    Parts,
    Predict,
    Trained,
    begin,
    explained,
    finish,
    is_done,
    mark_failed,
    mark_interrupted,
    parts_for,
    reads_test,
    write_answers,
)
from benchmark.runs import Advanced, Failed, Finished, Missing, Skipped, Started
from benchmark.tasks import TaskName
from benchmark.training.frozen_features import FrozenFeatures
from benchmark.training.head_farm import (
    FarmedHead,
    FarmProgress,
    HeadEpoch,
    HeadFailed,
    HeadTrained,
    recorder_for,
    refuse_unfit,
    stacks_of,
    train_farm,
)
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest
from benchmark.training.probabilities import probabilities
from benchmark.training.probe import settled

MOST_HEADS: Final = 500
"""Each head holds its run's claim, which is an open file; 1,024 is what a process may have."""


@dataclass(frozen=True)
class FeaturesRead:
    """A frozen trunk has read all faces, once for all heads on it."""

    title: str
    n_features: int
    report: dict[str, Any]
    """As benchmark.training.prefix_cache.CachedFaces gives it."""


@dataclass(frozen=True)
class Planted:
    """The heads on one trunk begin; `stacks` says how many of them go through a step together."""

    stacks: tuple[int, ...]

    @property
    def n_heads(self) -> int:
        """How many heads begin."""
        return sum(self.stacks)


@dataclass(frozen=True)
class StackAdvanced:
    """Some heads are on their way through an epoch."""

    step: FarmProgress


@dataclass(frozen=True)
class Field:
    """What a farm is to train: every experiment with every seed, on one data set."""

    experiments: tuple[Experiment, ...]
    seeds: tuple[int, ...]
    faces: FaceSet

    def __len__(self) -> int:
        return len(self.experiments) * len(self.seeds)


@dataclass
class FarmCosts:
    """What a farm took, in seconds, the three apart; runs of their own show their share."""

    features: float = 0.0
    training: float = 0.0
    writing: float = 0.0
    n_trained: int = 0


FarmEvent = (
    FeaturesRead
    | Planted
    | StackAdvanced
    | Started
    | Advanced
    | Finished
    | Skipped
    | Missing
    | Failed
)


def crossed(
    experiments: Iterable[Experiment], values: Mapping[str, Sequence[Any]]
) -> list[Experiment]:
    """Give every experiment with every combination of values by dotted path, each once.

    A combination that changes nothing is the experiment itself; the others are ad hoc. Raise
    ExperimentError for an experiment that no farm can train.
    """
    found: list[Experiment] = []
    for experiment in experiments:
        for combination in itertools.product(*values.values()):
            changes = dict(zip(values, combination, strict=True))
            varied = experiment.adjusted(changes) if changes else experiment
            refuse_unfit(varied)
            if varied not in found:
                found.append(varied)
    return found


@dataclass
class _Run:
    """One head's run: its plan, its faces and, while it trains, its history."""

    plan: Plan
    parts: Parts
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def head(self) -> FarmedHead:
        """Give what the farm needs of it."""
        train, val = (torch.from_numpy(self.parts.own[part]) for part in ("train", "val"))
        return FarmedHead(self.plan.experiment, self.plan.seed, train, val)


def run_farm(
    field: Field, settings: Settings, costs: FarmCosts, at_once: int | None = None
) -> Generator[FarmEvent]:
    """Run every experiment with every seed; those on one trunk are trained together.

    `costs` is filled on the way. Runs that are done, or held by another process, are left out;
    stopped from outside, those that are not done are marked, and begin anew next time.
    """
    if len(field) > MOST_HEADS:
        raise ExperimentError(
            f"{len(field.experiments)} settings × {len(field.seeds)} seeds are {len(field)} heads",
            allowed=f"up to {MOST_HEADS} at a time",
            fix="Name fewer values; what is done is skipped the next time",
        )
    with contextlib.ExitStack() as claims:
        runs: dict[str, _Run] = {}
        yield from _gather(field, settings, claims, runs)
        faces = field.faces
        on_device = FaceBatches.on_device(
            faces.pixels(), faces.table, settings.device.torch_device, settings.speed.say
        )
        for together in _by_trunk(runs.values()):
            farm = _Farm(together, on_device, settings, costs)
            try:
                yield from farm.train(at_once)
            except (KeyboardInterrupt, GeneratorExit):
                for run in farm.going.values():
                    mark_interrupted(run.plan, settings)
                raise
            # As in benchmark.runs: what is left of this trunk has failed, the other trunks go on.
            except Exception as error:  # noqa: BLE001
                for run in farm.going.values():
                    failure = mark_failed(run.plan, settings, error)
                    yield Failed(run.plan.experiment, run.plan.seed, failure)


def _gather(
    field: Field, settings: Settings, claims: contextlib.ExitStack, runs: dict[str, _Run]
) -> Iterator[FarmEvent]:
    """Plan and claim the runs that are still to be done, into `runs` by identity."""
    for experiment, seed in itertools.product(field.experiments, field.seeds):
        try:
            plan = plan_run(experiment, seed, field.faces, settings)
            if plan.identity in runs:
                continue
            parts = parts_for(plan)
            is_mine = claims.enter_context(claimed(plan.folder / "claim"))
        except WeightsMissing as error:
            yield Missing(experiment, seed, error)
            continue
        except BenchmarkError as error:
            yield Failed(experiment, seed, error)
            continue
        except OSError as error:  # Its folder cannot be made or claimed.
            yield Failed(experiment, seed, explained(error))
            continue
        if not is_mine:
            yield Skipped(plan, f"process {holder(plan.folder / 'claim').get('pid')} is at it")
        elif is_done(plan, settings):
            settings.mirror(plan.record)
            yield Skipped(plan, "done")
        else:
            runs[plan.identity] = _Run(plan, parts)


def _by_trunk(runs: Iterable[_Run]) -> Iterator[list[_Run]]:
    """Put together the runs whose trunks give a face the same features."""
    together: dict[tuple[object, ...], list[_Run]] = {}
    for run in runs:
        plan, backbone = run.plan, run.plan.experiment.backbone
        digest = plan.ingredients.weights_sha256
        key = (
            (backbone.architecture, backbone.input_px, digest),
            plan.seed if digest is None else None,
            plan.experiment.protocol.input_scaling,
            plan.experiment.head.features,
        )
        together.setdefault(key, []).append(run)
    yield from together.values()


def _trunk_in_words(plan: Plan) -> str:
    """Name a trunk by all that tells it from others: `vgg16, imagenet weights`."""
    backbone, protocol = plan.experiment.backbone, plan.experiment.protocol
    start = f"{backbone.weights} weights"
    if plan.weights is None:
        start = f"random weights of seed {plan.seed}"
    scaled = "" if protocol.input_scaling == "weights" else f", fed as {protocol.input_scaling!r}"
    return f"{backbone.architecture}, {start}{scaled}"


class _Farm:
    """The heads on one trunk, from its features to the last run's folder."""

    def __init__(
        self, runs: Sequence[_Run], on_device: FaceBatches, settings: Settings, costs: FarmCosts
    ) -> None:
        self.going = dict(enumerate(runs))
        """By place in the farm: those whose runs have neither ended nor failed."""
        self._on_device, self._settings, self._costs = on_device, settings, costs

    def train(self, at_once: int | None) -> Iterator[FarmEvent]:
        """Read the faces once, train all heads, and write each run when its head is ready."""
        plan = self.going[0].plan
        loaded = weight_files.load(plan.weights) if plan.weights else None
        trunk = build_network(plan.experiment, loaded, plan.seed)
        device, _ = settled(
            self._settings.device, trunk, self._on_device, plan.experiment, cached=True
        )
        self._settings = replace(self._settings, device=device)
        with device.arithmetic():
            yield from self._train(self._features(plan, trunk), at_once)

    def _features(self, plan: Plan, trunk: Network) -> FrozenFeatures:
        runs = self.going.values()
        flips = any(run.plan.experiment.recipe.augmentation.flip for run in runs)
        return FrozenFeatures(
            trunk,
            self._on_device,
            self._settings.device,
            self._settings.cache or CacheSettings(None),
            PrefixRequest(plan.faces.pixel_digest, Augmentation(flip=flips)),
        )

    def _train(self, features: FrozenFeatures, at_once: int | None) -> Iterator[FarmEvent]:
        plan = self.going[0].plan
        self._costs.features += features.report["seconds"]
        yield FeaturesRead(_trunk_in_words(plan), features.faces.n_features, features.report)
        yield from self._begin(features, at_once)
        places, runs = list(self.going), list(self.going.values())
        yield Planted(tuple(map(len, self._stacks(features, at_once))))
        yield from (Started(run.plan, 0, len(run.parts.own["train"])) for run in runs)
        heads = [run.head() for run in runs]
        device = self._settings.device
        recorder = recorder_for(features.faces, device, self._settings.speed)
        for step in train_farm(heads, features.faces, device, at_once, recorder):
            if isinstance(step, FarmProgress):
                yield StackAdvanced(step)
                continue
            place = places[step.place]
            run = self.going[place]
            if isinstance(step, HeadEpoch):
                self._costs.training += step.result.epoch_seconds
                run.history.append({"epoch": step.result.epoch + 1, **step.result.metrics()})
                yield Advanced(run.plan, step.result)
            else:
                yield self._end(place, run, step, features)

    def _stacks(self, features: FrozenFeatures, at_once: int | None) -> list[list[int]]:
        heads = [run.head() for run in self.going.values()]
        return stacks_of(heads, features.faces.n_features, self._settings.device, at_once)

    def _begin(self, features: FrozenFeatures, at_once: int | None) -> Iterator[FarmEvent]:
        """Write what every run is; one whose folder cannot be written is out."""
        sizes = {place: len(stack) for stack in self._stacks(features, at_once) for place in stack}
        n_heads = len(self.going)
        for place, run in list(self.going.items()):
            note = {
                "farm": {"heads": n_heads, "at_once": sizes[place]},
                "speed": {"cache": features.report},
            }
            try:
                network = features.network_of(run.plan.experiment)
                for left_behind in (CHECKPOINT_FILE, "history.csv"):
                    (run.plan.folder / left_behind).unlink(missing_ok=True)
                begin(run.plan, self._settings, network, run.parts.counts(), note)
            except (OSError, BenchmarkError) as error:
                yield self._failed(place, run, error)

    def _end(
        self, place: int, run: _Run, step: HeadTrained | HeadFailed, features: FrozenFeatures
    ) -> Finished | Failed:
        if isinstance(step, HeadFailed):
            return self._failed(place, run, step.error)
        started = time.perf_counter()
        try:
            network = features.network_of(run.plan.experiment)
            network.head.load_state_dict(step.parameters)
            write_answers(
                run.plan, run.parts, self._predictor(run, network, features), self._settings
            )
            trained = Trained(network, pd.DataFrame(run.history), step.best_epoch + 1)
            finish(run.plan, trained, run.parts, self._settings)
        except (OSError, BenchmarkError) as error:
            return self._failed(place, run, error)
        finally:
            self._costs.writing += time.perf_counter() - started
        del self.going[place]
        self._costs.n_trained += 1
        return Finished(run.plan)

    def _predictor(self, run: _Run, network: Network, features: FrozenFeatures) -> Predict:
        """Give what computes the stored probabilities, on what all runs of a split share."""
        read_test = reads_test(run.plan, self._settings)
        shown: tuple[PartName, ...] = ("val", "test") if read_test else ("val",)
        judged = np.unique(np.concatenate([run.parts.whole[part] for part in shown]))
        exact = features.exact(judged)

        def predict(rows: Rows) -> Mapping[TaskName, npt.NDArray[np.float32]]:
            indices = torch.from_numpy(rows).to(self._settings.device.torch_device)
            return probabilities(network, self._on_device, indices, exact)

        return predict

    def _failed(self, place: int, run: _Run, error: Exception) -> Failed:
        del self.going[place]
        failure = mark_failed(run.plan, self._settings, error)
        return Failed(run.plan.experiment, run.plan.seed, failure)
