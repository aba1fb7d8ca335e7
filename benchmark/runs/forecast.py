"""What running experiments would do and take: outlook, time, caches and disk of every run.

Time is measured where it can be: on finished runs of the same run group on this hardware, else of
the same architecture and depth. Else it is the multiply-adds of the training at the speed of fully
trained runs here, or at a third of that of a matrix product timed now (docs/PERFORMANCE.md).
At the end: forecast runs placed on workers, in the order they are started in.
"""

import contextlib
import datetime
import heapq
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, WeightsMissing
from benchmark.experiment.definition import Experiment
from benchmark.files import is_locked
from benchmark.models.network import FEATURES, build_network
from benchmark.models.weight_manifest import files_for
from benchmark.record import RunRecord, all_records
from benchmark.runs.folder import CHECKPOINT_FILE, is_done
from benchmark.runs.plan import Settings, plan_run
from benchmark.training.device import Device
from benchmark.training.prefix_cache import why_live

Outlook = Literal["run", "resume", "up to date", "held", "not run"]
OPERATIONS: Final = "operations"
ON_H200: Final = "operations, on an H200"
H200_SPEED: Final = 8.4e13
"""Multiply-adds a second of VGG16's training on an H200 (docs/PERFORMANCE.md): what GPUs are taken
to reach where none is here and no run was made on one."""
REST_SECONDS: Final = 5.0
"""Of a run beside its training (predictions, intervals, figures), where no run was finished."""
LONGEST_GAP: Final = 60.0
"""Seconds between two runs of one process, at most: MLflow is written, the next one prepared."""


@dataclass(frozen=True)
class Build:
    """Activations of a frozen part: computed once for all runs with the same key."""

    key: tuple[Any, ...]
    seconds: float
    n_bytes: int


@dataclass(frozen=True)
class Forecast:
    """What running an experiment with a seed would do."""

    experiment: Experiment
    seed: int
    outlook: Outlook
    seconds: float = 0.0
    """Of training, predicted."""
    rest_seconds: float = 0.0
    """Of all else: predictions, intervals, figures, MLflow."""
    builds: tuple[Build, ...] = ()
    basis: str = ""
    """What the prediction rests on: finished runs, or `operations`."""
    n_bytes: int = 0
    """Of the network that it would leave."""
    fetch: str = ""
    """The weight file that would be downloaded first."""
    error: WeightsMissing | None = None
    """Why it would not run."""
    worker: int | None = None
    """Where `arrange` places it; None where nothing is trained."""
    start: float = 0.0
    """Seconds since the suite began, as are the next two."""
    trains_at: float = 0.0
    """When activations of its frozen part are there."""
    end: float = 0.0

    @property
    def alone_seconds(self) -> float:
        """From its start to `done.json`, where nothing that it needs was computed before."""
        return self.seconds + self.rest_seconds + sum(build.seconds for build in self.builds)


def forecast_all(
    experiments: Iterable[Experiment], seeds: Iterable[int], faces: FaceSet, settings: Settings,
    *, kind: str | None = None,
) -> Iterator[Forecast]:  # fmt: skip
    """Say what `run_all` would do, without training, downloading or writing anything.

    kind: `cuda` to predict for GPUs, whatever this machine has; None for the settings' device.
    """
    device, seeds, offline = settings.device, tuple(seeds), replace(settings, offline=True)
    kind = kind or device.kind
    # On a GPU everything but stored predictions is computed in bf16, exact runs excepted.
    precision = device.precision if kind == device.kind else "bf16"
    costs = _Costs(settings, kind)
    for experiment in experiments:
        work = _Work(experiment, faces, settings)
        n_bytes = 0 if settings.keep_weights == "none" else 4 * work.parameters
        for seed in seeds:
            outlook: Outlook = "run"
            fetch, family = "", None
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
                family = plan.family
                if is_locked(plan.folder / "claim"):
                    outlook = "held"
                elif is_done(plan, settings):
                    outlook = "up to date"
                elif (plan.folder / CHECKPOINT_FILE).is_file():
                    outlook = "resume"
            seconds, rest, basis = costs.of(work, family)
            builds = costs.builds(work, seed, faces, precision)
            yield Forecast(experiment, seed, outlook, seconds, rest, builds, basis, n_bytes, fetch)


def _images_of_epoch(experiment: Experiment, n_train: int) -> int:
    recipe = experiment.recipe
    return recipe.steps_per_epoch * recipe.batch_size if recipe.steps_per_epoch else n_train


def _like(experiment: Experiment, *, cached: bool) -> str:
    """Name what runs cost alike, by the face: architecture, depth, side, and whether cached."""
    backbone = experiment.backbone
    live = "" if cached or backbone.depth_name == "full" else ", live"
    return f"{backbone.architecture} {backbone.depth_name} at {backbone.input_px} px{live}"


class _Work:
    """What an experiment's training consists of; multiply-adds are of one face, forward."""

    def __init__(self, experiment: Experiment, faces: FaceSet, settings: Settings) -> None:
        # What a network computes does not depend on its first weights.
        network = build_network(experiment.adjusted({"backbone.weights": "none"}), None, 0)
        recipe, px, n_numbers = experiment.recipe, faces.image_px, 0
        self.experiment, self.frozen = experiment, 0
        if network.cut is not None:
            with FlopCounterMode(display=False) as counter:
                n_numbers = network.eval().prefix(torch.zeros(1, 3, px, px)).numel()
            self.frozen = int(counter.get_total_flops()) // 2
        self.trained = network.multiply_adds(px) - self.frozen
        self.parameters = network.parameter_counts()[0]
        # Of what the frozen part makes of a face, as the training's cache has it and in fp32.
        halved = settings.device.precision == "bf16" and network.cut != FEATURES
        self.cached_bytes, self.exact_bytes = n_numbers * (2 if halved else 4), n_numbers * 4
        # Whether the frozen part is computed once and not in each epoch.
        why = why_live(network, recipe.augmentation)
        self.cached = settings.cache is not None and why is None
        n_train = int((faces.table["part"] == "train").sum())
        self.n_images = recipe.max_epochs * _images_of_epoch(experiment, n_train)
        # A backward pass counts as two forward ones.
        each = 3 * self.trained + (0 if self.cached else self.frozen)
        self.operations = self.n_images * each


class _Costs:
    """What finished runs on the same hardware took, one row each, and what follows for others."""

    def __init__(self, settings: Settings, kind: str) -> None:
        device, rows = settings.device, []
        for record in all_records(settings.runs_dir):
            with contextlib.suppress(BenchmarkError, LookupError, ValueError):
                if record.state == "done" and record.about["device_kind"] == kind:
                    rows.append(_measured(record))
        found = pd.DataFrame(rows, columns=[*COLUMNS])
        if kind == device.kind:
            found = found[found["device"] == device.description]
        elif len(found):
            found = found[found["device"] == found["device"].mode()[0]]
        found = found.sort_values("started")
        gaps = found["started"].shift(-1) - found["finished"]
        gap = gaps[gaps.between(0, LONGEST_GAP)].mean()
        self.rows = found.assign(rest=found["rest"] + (0 if pd.isna(gap) else gap))
        self.speed, self.basis = float(found["speed"].median()), OPERATIONS
        if math.isnan(self.speed) and kind == device.kind:
            self.speed = _timed_speed(device) / 3
        elif math.isnan(self.speed):
            self.speed, self.basis = H200_SPEED, ON_H200

    def of(self, work: _Work, family: str | None) -> tuple[float, float, str]:
        """Predict seconds of training and of the rest of a run; and say what that rests on."""
        rows, like = self.rows, _like(work.experiment, cached=work.cached)
        alike = rows[rows["like"] == like]
        own = alike[alike["family"] == family]
        if len(own):
            alike, like = own, "its seeds"
        if len(alike):
            recipe, runs = work.experiment.recipe, "run" if len(alike) == 1 else "runs"
            ends_early = recipe.early_stopping_epochs or recipe.until_train_accuracy
            share = alike["share"].median() if ends_early else 1.0
            seconds = float(alike["per_image"].median() * work.n_images * share)
            return seconds, _usual(alike["rest"]), f"{len(alike)} {runs} of {like}"
        rest = _usual(rows["rest"]) if len(rows) else REST_SECONDS
        return work.operations / self.speed, rest, self.basis

    def builds(self, work: _Work, seed: int, faces: FaceSet, precision: str) -> tuple[Build, ...]:
        """Predict what is computed once: activations of all faces for training, and where that is
        in bf16, of validation and test faces in fp32."""
        if not work.cached:
            return ()
        experiment, protocol = work.experiment, work.experiment.protocol
        n_views = 1 + experiment.recipe.augmentation.flip
        key: tuple[Any, ...] = (
            experiment.backbone, protocol.input_scaling, faces.pixel_digest, n_views,
            seed if experiment.backbone.weights == "none" else None,
        )  # fmt: skip
        wanted = [("build", key, n_views * len(faces.table), work.cached_bytes)]
        if precision == "bf16":
            key, n_evaluated = (*key, protocol.split, protocol.fold), faces.table["part"] != "train"
            wanted.append(("build_exact", key, int(n_evaluated.sum()), work.exact_bytes))
        alike = self.rows[self.rows["like"] == _like(experiment, cached=True)]
        builds = []
        for name, of, n, n_bytes in wanted:
            per_face = alike[name].median()
            per_face = work.frozen / self.speed if pd.isna(per_face) else per_face
            builds.append(Build(of, float(per_face * n), n_bytes * n))
        return tuple(builds)


COLUMNS: Final = (
    "family", "like", "device", "started", "finished", "share", "per_image", "rest", "speed",
    "build", "build_exact",
)  # fmt: skip


def _measured(record: RunRecord) -> dict[str, Any]:
    """Give what a finished run took; times in seconds."""
    about, done = record.about, record.done
    experiment = Experiment.from_dict(about["experiment"])
    counts, speed = about["dataset"]["counts"], about.get("speed", {})
    times = (datetime.datetime.fromisoformat(x) for x in (about["started"], done["finished"]))
    started, finished = (when.timestamp() for when in times)
    seconds, epochs = float(done["seconds"]), int(done["epochs"])
    n_images = max(1, epochs * _images_of_epoch(experiment, counts["train"]))
    is_full = about["parameters"]["trainable"] == about["parameters"]["total"] and seconds > 0
    rest, per_face = finished - started - seconds, dict[str, float]()
    n_answers = counts["val"] + counts["test"]
    for name, n in (("cache", n_answers + counts["train"]), ("cache_of_answers", n_answers)):
        cache = speed.get(name, {})
        if cache.get("origin") == "built":
            rest -= cache["seconds"]
            per_face[name] = cache["seconds"] / (n * cache["views"])
    return {
        "family": record.family, "device": about["device"], "started": started,
        "like": _like(experiment, cached="origin" in speed.get("cache", {})),
        "finished": finished, "share": epochs / experiment.recipe.max_epochs,
        "per_image": seconds / n_images, "rest": max(0.0, rest),
        "speed": 3 * about["multiply_adds"] * n_images / seconds if is_full else None,
        "build": per_face.get("cache"), "build_exact": per_face.get("cache_of_answers"),
    }  # fmt: skip


def _usual(seconds: "pd.Series[float]") -> float:
    """Average times that are known to the second only, without those of a machine that slept."""
    return float(seconds.clip(upper=3 * seconds.median() + 1).mean())


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


def arrange(forecasts: Iterable[Forecast], n_workers: int) -> list[Forecast]:
    """Place every run that trains on the worker that is free first; the others stay as they are.

    A worker is a GPU, or a process on a CPU, as fast as the one the costs were measured on. What
    runs share of a frozen part is computed once, by the first that needs it; the others wait.
    """
    free = [(0.0, worker) for worker in range(n_workers)]
    built: dict[object, float] = {}
    placed = []
    for forecast in forecasts:
        if forecast.outlook in ("run", "resume"):
            start, worker = heapq.heappop(free)
            now = start
            for build in forecast.builds:
                now = max(now, built.setdefault(build.key, now + build.seconds))
            end = now + forecast.seconds + forecast.rest_seconds
            forecast = replace(forecast, worker=worker, start=start, trains_at=now, end=end)
            heapq.heappush(free, (end, worker))
        placed.append(forecast)
    return placed
