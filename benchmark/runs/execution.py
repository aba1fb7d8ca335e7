"""Execution options of a run: precision, cache, CUDA graph, and whether compiling pays.

How one run is computed: precision and layout, what is cached, how steps are made.

None of it is part of a run's identity; all of it is written into its experiment.json, with the
seconds that it took.

Which runs of a command compute the same steps, and whether it pays to compile them.

torch.compile fuses a network's pointwise operations. That takes a time of its own, once a process:
a second run of the same program, from other weights or seeds, is up again at once.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.data.splits import Rows
from benchmark.experiment.definition import Backbone, Experiment, Head
from benchmark.files import write_json
from benchmark.models.network import Network
from benchmark.runs.checkpoints import CHECKPOINT_FILE
from benchmark.runs.folder import Parts, Predict, reads_test
from benchmark.runs.plan import Plan, Settings
from benchmark.tasks import TaskName
from benchmark.training.device import Device
from benchmark.training.predict import probabilities
from benchmark.training.prefix_cache import (
    CachedFaces,
    CacheSettings,
    PrefixRequest,
    open_prefix,
    why_live,
)
from benchmark.training.probe import as_recorded, settled
from benchmark.training.steps import SpeedSettings

PAYS_FROM_STEPS: Final = 40_000
"""Compiling took 16 to 39 s on an H200 and saved 0.4 to 1.1 ms a step (docs/PERFORMANCE.md)."""


@dataclass(frozen=True)
class Program:
    """All that decides which operations a training step is made of."""

    backbone: Backbone
    """Without its weights: other numbers, the same operations."""
    head: Head
    batch_size: int
    input_scaling: str


def program_of(experiment: Experiment) -> Program:
    """Give what an experiment's steps are made of."""
    return Program(
        replace(experiment.backbone, weights="none"),
        experiment.head,
        experiment.recipe.batch_size,
        experiment.protocol.input_scaling,
    )


def steps_of(experiment: Experiment, n_train: int) -> int:
    """Count the steps that an experiment takes at most, on so many training faces."""
    recipe = experiment.recipe
    return recipe.max_epochs * (recipe.steps_per_epoch or -(-n_train // recipe.batch_size))


def worth_compiling(
    experiments: Iterable[Experiment], n_seeds: int, faces: FaceSet, device: Device
) -> frozenset[Program]:
    """Give the programs that take so many steps, all runs together, that compiling them pays.

    Counted as if every run trained on all training faces and none was finished. None on a CPU,
    where a step is arithmetic, and none where two runs must end in equal weights.
    """
    if device.kind != "cuda" or device.exact:
        return frozenset()
    n_train = int((faces.table["part"] == "train").sum())
    ahead: Counter[Program] = Counter()
    for experiment in experiments:
        ahead[program_of(experiment)] += n_seeds * steps_of(experiment, n_train)
    return frozenset(program for program, steps in ahead.items() if steps >= PAYS_FROM_STEPS)


def decided(settings: Settings, experiment: Experiment, worth: frozenset[Program]) -> Settings:
    """Decide on compiling for an experiment, where that is left to us."""
    speed = settings.speed
    if speed.compile is not None:
        return settings
    return replace(settings, speed=replace(speed, compile=program_of(experiment) in worth))


class RunWays:
    """The ways of one run, decided one after another, and what is to be told of them."""

    def __init__(
        self, plan: Plan, on_device: FaceBatches, settings: Settings, network: Network
    ) -> None:
        self._plan = plan
        self._on_device = on_device
        self._network = network
        self._notes: list[str] = []
        self._cache = self._listening(settings.cache)
        self._on_progress = settings.on_progress
        self._read_test = reads_test(plan, settings)
        self._why_live = why_live(network, plan.experiment.recipe.augmentation)
        self.speed: SpeedSettings = replace(settings.speed, say=self._heard_by(settings.speed.say))
        self._said: dict[str, Any] = {}
        self.device = self._settled(settings.device)
        if self._cache is None and self._why_live is None:
            self._why_live = "the cache is off"
        self._said["cache"] = {"live": self._why_live} if self._why_live else {}

    def _heard_by(self, listener: Callable[[str], None]) -> Callable[[str], None]:
        def say(sentence: str) -> None:
            self._notes.append(sentence)
            listener(sentence)

        return say

    def _listening(self, cache: CacheSettings | None) -> CacheSettings | None:
        return None if cache is None else replace(cache, say=self._heard_by(cache.say))

    def _settled(self, device: Device) -> Device:
        """Decide on precision and layout; a run that goes on goes on as it began."""
        began = self._plan.record.about.get("arithmetic") if self._goes_on() else None
        if began is not None and not device.probes and began["precision"] != device.precision:
            # Asked for, or another device: harmless, since selection and answers are fp32 anyway.
            self.speed.say(f"It began in {began['precision']} and goes on in {device.precision}")
        if device.probes and began is not None:
            return as_recorded(
                device, began["precision"], channels_last=bool(began["channels_last"])
            )
        cached = self._cache is not None and self._why_live is None
        decided, verdict = settled(
            device, self._network, self._on_device, self._plan.experiment, cached=cached
        )
        if verdict is not None:
            self._said["probe_step_seconds"] = verdict.as_dict()
        return decided

    def _goes_on(self) -> bool:
        return all(
            (self._plan.folder / name).is_file() for name in (CHECKPOINT_FILE, "experiment.json")
        )

    def prefix(self) -> CachedFaces | None:
        """Find or make what the frozen part says of all faces; None where it is asked live."""
        if self._cache is None or self._why_live is not None:
            return None
        request = PrefixRequest(
            self._plan.faces.pixel_digest, self._plan.experiment.recipe.augmentation
        )
        found = open_prefix(self._network, self._on_device, self.device, self._cache, request)
        if found is None:
            self._why_live = self._notes[-1] if self._notes else "it could not be made"
        self._said["cache"] = found.report() if found else {"live": self._why_live}
        self._keep()
        return found

    @property
    def _exact_device(self) -> Device:
        """The one precision and layout of stored numbers, whichever training is faster in."""
        return replace(self.device, precision="fp32", channels_last=True, probes=False)

    def predictor(self, usable: CachedFaces | None) -> Predict:
        """Give what computes the stored probabilities: fp32, from pictures or what equals them.

        usable: as `exact_prefix` gives it.
        """
        exact = self._exact_device
        exact.place(self._network)

        def predict(rows: Rows) -> Mapping[TaskName, npt.NDArray[np.float32]]:
            indices = torch.from_numpy(rows).to(exact.torch_device)
            said = functools.partial(self._on_progress, "reading validation and test faces")
            return probabilities(self._network, self._on_device, indices, usable, said)

        return predict

    def exact_prefix(self, parts: Parts, prefix: CachedFaces | None) -> CachedFaces | None:
        """Give fp32 activations of validation and test faces; computed once for all runs on them.

        Those of the whole split, so that specialists and runs on everyone share them.
        """
        if prefix is None or self._cache is None:
            return None
        if prefix.is_exact_fp32 and prefix.channels_last:
            return prefix
        rows = parts.predicted(reads_test=self._read_test)
        request = PrefixRequest(self._plan.faces.pixel_digest, rows=torch.from_numpy(rows))
        found = open_prefix(
            self._network, self._on_device, self._exact_device, self._cache, request
        )
        self.device.place(self._network)
        if found is not None:
            self._said["cache_of_answers"] = found.report()
        return found if found is not None and found.is_exact_fp32 else None

    def note_steps(self, report: Mapping[str, Any]) -> None:
        """Take down how the steps were made, and all that was said."""
        self._said["steps"] = dict(report)
        self._keep()

    def record(self) -> dict[str, Any]:
        """Give what experiment.json says of it."""
        return {"speed": self._said | {"notes": list(self._notes)}}

    def _keep(self) -> None:
        record = self._plan.record
        write_json(record.folder / "experiment.json", record.about | self.record())

    def sentence(self) -> str:
        """Say how the run trains, where that is worth a line; empty where nothing is frozen."""
        cache = self._said["cache"]
        if "origin" in cache:
            done = {
                "found": "read from the cache", "built": "computed once and cached",
                "memory": "computed once, in memory",
            }[cache["origin"]]  # fmt: skip
            what = (
                "the whole backbone" if cache["cut"] == "features" else f"all before {cache['cut']}"
            )
            mib = cache["bytes"] / 2**20
            return f"{what} {done}: {mib:,.0f} MiB in {cache['seconds']:.1f} s"
        if self._network.trained_stages == tuple(self._network.backbone.stages):
            return ""
        return f"the frozen part is computed for every batch: {self._why_live}"
