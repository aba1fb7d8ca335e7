"""Execution options of a run: precision, cache, CUDA graph, and whether compiling pays.

None of it is part of a run's identity; all of it is written into its experiment.json, with the
seconds that it took.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
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
from benchmark.training.prefix_cache import CachedFaces, PrefixRequest, open_prefix, why_live
from benchmark.training.steps import SpeedSettings, resolve_precision

PAYS_FROM_STEPS: Final = 40_000
"""Compiling took 16 to 39 s on an H200 and saved 0.4 to 1.1 ms a step (docs/notes/speed.md)."""
Program = tuple[Backbone, Head, int, str]
"""All that decides which operations a training step is made of."""


def program_of(experiment: Experiment) -> Program:
    """Give what an experiment's steps are made of: other weights are the same operations."""
    return (
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

    Compiling takes a time of its own, once a process for all runs of a program. Counted as if every
    run trained on all training faces and none was finished. None on a CPU, where a step is
    arithmetic, and none where two runs must end in equal weights.
    """
    if device.kind != "cuda" or device.exact:
        return frozenset()
    n_train = int((faces.table["part"] == "train").sum())
    ahead: Counter[Program] = Counter()
    for experiment in experiments:
        ahead[program_of(experiment)] += n_seeds * steps_of(experiment, n_train)
    return frozenset(program for program, steps in ahead.items() if steps >= PAYS_FROM_STEPS)


def resolve_compile(
    settings: Settings, experiment: Experiment, worth: frozenset[Program]
) -> Settings:
    """Decide on compiling for an experiment, where the settings leave it open."""
    if settings.speed.compile is not None:
        return settings
    pays = program_of(experiment) in worth
    return replace(settings, speed=replace(settings.speed, compile=pays))


class ExecutionOptions:
    """The execution options of one run, resolved one after another, and what they took."""

    def __init__(
        self, plan: Plan, on_device: FaceBatches, settings: Settings, network: Network
    ) -> None:
        self._plan, self._on_device, self._network = plan, on_device, network
        self._settings = settings
        self._notes: list[str] = []
        self._report: dict[str, Any] = {}
        cache = settings.cache
        self._cache = cache and replace(cache, say=self._noted(cache.say))
        self.speed: SpeedSettings = replace(settings.speed, say=self._noted(settings.speed.say))
        self._why_live = why_live(network, plan.experiment.recipe.augmentation)
        self.device = self._resolved(settings.device)
        if self._cache is None and self._why_live is None:
            self._why_live = "the cache is off"
        self._report["cache"] = {"live": self._why_live} if self._why_live else {}

    def _noted(self, listener: Callable[[str], None]) -> Callable[[str], None]:
        def say(sentence: str) -> None:
            self._notes.append(sentence)
            listener(sentence)

        return say

    def _resolved(self, device: Device) -> Device:
        """Decide on precision and layout; a run that resumes keeps those that it began with."""
        folder, began = self._plan.folder, None
        if all((folder / name).is_file() for name in (CHECKPOINT_FILE, "experiment.json")):
            began = self._plan.record.about.get("arithmetic")
        if began is not None and device.probes:
            precision, last = began["precision"], bool(began["channels_last"])
            return replace(device, precision=precision, channels_last=last, probes=False)
        if began is not None and began["precision"] != device.precision:
            # Asked for, or another device: harmless, since selection and predictions are fp32.
            self.speed.say(f"It began in {began['precision']} and resumes in {device.precision}")
        cached = self._cache is not None and self._why_live is None
        resolved, seconds = resolve_precision(
            device, self._network, self._on_device, self._plan.experiment, cached=cached
        )
        if seconds is not None:
            rounded = {name: round(value, 5) for name, value in seconds.items()}
            self._report["probe_step_seconds"] = rounded
        return resolved

    def prefix(self) -> CachedFaces | None:
        """Find or make the activations of all faces; None where they are computed per batch."""
        if self._cache is None or self._why_live is not None:
            return None
        augmentation = self._plan.experiment.recipe.augmentation
        request = PrefixRequest(self._plan.faces.pixel_digest, augmentation)
        found = open_prefix(self._network, self._on_device, self.device, self._cache, request)
        if found is None:
            self._why_live = self._notes[-1] if self._notes else "it could not be made"
        self._report["cache"] = found.report() if found else {"live": self._why_live}
        self._write()
        return found

    def exact_prefix(self, parts: Parts, prefix: CachedFaces | None) -> CachedFaces | None:
        """Give fp32 activations of validation and test faces; computed once for all runs on them.

        Those of the whole split, so that runs on a subset and on all faces share them.
        """
        if prefix is None or self._cache is None:
            return None
        if prefix.is_exact_fp32 and prefix.channels_last:
            return prefix
        rows = parts.predicted(reads_test=reads_test(self._plan, self._settings))
        request = PrefixRequest(self._plan.faces.pixel_digest, rows=torch.from_numpy(rows))
        found = open_prefix(
            self._network, self._on_device, self._exact_device, self._cache, request
        )
        self.device.place(self._network)
        if found is not None:
            self._report["cache_of_answers"] = found.report()
        return found if found is not None and found.is_exact_fp32 else None

    @property
    def _exact_device(self) -> Device:
        """The one precision and layout of stored numbers, whichever training is faster in."""
        return replace(self.device, precision="fp32", channels_last=True, probes=False)

    def predictor(self, exact: CachedFaces | None) -> Predict:
        """Give what computes the stored probabilities in fp32; `exact`: from `exact_prefix`."""
        device = self._exact_device
        device.place(self._network)
        on_faces = functools.partial(
            self._settings.on_progress, "predicting validation and test faces"
        )

        def predict(rows: Rows) -> Mapping[TaskName, npt.NDArray[np.float32]]:
            indices = torch.from_numpy(rows).to(device.torch_device)
            return probabilities(self._network, self._on_device, indices, exact, on_faces)

        return predict

    def note_steps(self, report: Mapping[str, Any]) -> None:
        """Record how the steps were made."""
        self._report["steps"] = dict(report)
        self._write()

    def record(self) -> dict[str, Any]:
        """Give what experiment.json says of it."""
        return {"speed": self._report | {"notes": list(self._notes)}}

    def _write(self) -> None:
        record = self._plan.record
        write_json(record.folder / "experiment.json", record.about | self.record())

    def sentence(self) -> str:
        """Say how the frozen part is computed; empty where nothing is frozen."""
        cache = self._report["cache"]
        if "origin" in cache:
            how = {
                "found": "read from the cache", "built": "computed once and cached",
                "memory": "computed once, in memory",
            }[cache["origin"]]  # fmt: skip
            features = cache["cut"] == "features"
            what = "the whole backbone" if features else f"all before {cache['cut']}"
            mib = cache["bytes"] / 2**20
            return f"{what} {how}: {mib:,.0f} MiB in {cache['seconds']:.1f} s"
        if self._network.trained_stages == tuple(self._network.backbone.stages):
            return ""
        return f"the frozen part is computed for every batch: {self._why_live}"
