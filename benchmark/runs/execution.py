"""Execution options of a run: precision, cache, CUDA graph, and whether compiling pays.

None of it is part of a run's identity; all of it is written into its experiment.json, with the
seconds that it took.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.data.splits import Rows
from benchmark.experiment.definition import Experiment
from benchmark.files import write_json
from benchmark.models.network import Network
from benchmark.runs.folder import CHECKPOINT_FILE, Parts, Predict, reads_test
from benchmark.runs.plan import Plan, Settings
from benchmark.tasks import TaskName
from benchmark.training.device import Device
from benchmark.training.predict import probabilities
from benchmark.training.prefix_cache import CachedFaces, PrefixRequest, open_prefix, why_live
from benchmark.training.steps import SpeedSettings, resolve_precision

PAYS_FROM_STEPS: Final = 40_000
"""Compiling took 16 to 39 s on an H200 and saved 0.4 to 1.1 ms a step (docs/notes/speed.md)."""


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
        self.device = self._resolved(settings.device)
        self.report["cache"] = {"live": why} if why else {}

    def _noted(self, listener: Callable[[str], None]) -> Callable[[str], None]:
        def say(sentence: str) -> None:
            self._notes.append(sentence)
            listener(sentence)

        return say

    def _resolved(self, device: Device) -> Device:
        """Decide on precision and layout; a run that resumes keeps those that it began with."""
        folder = self._plan.folder
        if all((folder / name).is_file() for name in (CHECKPOINT_FILE, "experiment.json")):
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

    def prefixes(self, parts: Parts) -> tuple[CachedFaces | None, CachedFaces | None]:
        """Find or make the activations of all faces to train on, and those in fp32 to predict from.

        None where they are computed per batch. In fp32 they are of the validation and test faces of
        the whole split, so that runs on a subset and on all faces share them.
        """
        if self._cache is None:
            return None, None
        plan, of = self._plan, (self._network, self._on_device)
        request = PrefixRequest(plan.faces.pixel_digest, plan.experiment.recipe.augmentation)
        prefix = open_prefix(*of, self.device, self._cache, request)
        self.write(cache=prefix.report() if prefix else {"live": self._notes[-1]})
        if prefix is None or (prefix.is_exact_fp32 and prefix.device.channels_last):
            return prefix, prefix
        rows = parts.predicted(reads_test=reads_test(plan, self._settings))
        request = PrefixRequest(plan.faces.pixel_digest, rows=torch.from_numpy(rows))
        exact = open_prefix(*of, self._exact_device, self._cache, request)
        self.device.place(self._network)
        if exact is not None:
            self.report["cache_of_answers"] = exact.report()
        return prefix, exact if exact is not None and exact.is_exact_fp32 else None

    @property
    def _exact_device(self) -> Device:
        """The one precision and layout of stored numbers, whichever training is faster in."""
        return replace(self.device, precision="fp32", channels_last=True, probes=False)

    def predictor(self, exact: CachedFaces | None) -> Predict:
        """Give what computes the stored probabilities in fp32; `exact`: from `prefixes`."""
        device, stage = self._exact_device, "predicting validation and test faces"
        device.place(self._network)
        on_faces = functools.partial(self._settings.on_progress, stage)

        def predict(rows: Rows) -> Mapping[TaskName, npt.NDArray[np.float32]]:
            indices = torch.from_numpy(rows).to(device.torch_device)
            return probabilities(self._network, self._on_device, indices, exact, on_faces)

        return predict

    def write(self, **found: dict[str, Any]) -> None:
        """Add to experiment.json what was found out."""
        self.report |= found
        about = self._plan.record.about | {"speed": self.report}
        write_json(self._plan.folder / "experiment.json", about)
