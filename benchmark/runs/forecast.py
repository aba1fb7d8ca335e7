"""What running experiments would do and take: outlook, time, caches and disk of every run.

Time is measured where it can be: on finished runs of the same run group on this hardware, else of
the same architecture and depth. Else it is the multiply-adds of the training at the speed of fully
trained runs here, or at a third of that of a matrix product timed now (docs/PERFORMANCE.md).
"""

import contextlib
import heapq
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
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
    """Of training."""
    rest_seconds: float = 0.0
    """Of all else: predictions, intervals, figures, MLflow."""
    build: Build | None = None
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
        return self.seconds + self.rest_seconds + (self.build.seconds if self.build else 0.0)


def forecast_all(
    experiments: Iterable[Experiment], seeds: Iterable[int], faces: FaceSet, settings: Settings,
    *, kind: str | None = None,
) -> Iterator[Forecast]:  # fmt: skip
    """Say what `run_all` would do, without training, downloading or writing anything.

    kind: `cuda` to predict for GPUs, whatever this machine has; None for the settings' device.
    """
    seeds, offline = tuple(seeds), replace(settings, offline=True)
    costs = _Costs(settings, kind or settings.device.kind)
    for experiment in experiments:
        work = _Work(experiment, faces, settings)
        n_bytes = 0 if settings.keep_weights == "none" else 4 * work.parameters
        for seed in seeds:
            outlook: Outlook = "run"
            fetch, group = "", None
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
                group = plan.group_identity
                if is_locked(plan.folder / "claim"):
                    outlook = "held"
                elif is_done(plan, settings):
                    outlook = "up to date"
                elif (plan.folder / CHECKPOINT_FILE).is_file():
                    outlook = "resume"
            seconds, rest, basis = costs.of(work, group)
            build = costs.build(work, seed, faces)
            yield Forecast(experiment, seed, outlook, seconds, rest, build, basis, n_bytes, fetch)


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
        trained = network.multiply_adds(px) - self.frozen
        self.parameters = network.parameter_counts()[0]
        # Of what the frozen part makes of a face, as the training's cache has it and in fp32.
        halved = settings.device.precision == "bf16" and network.cut != FEATURES
        self.cached_bytes, self.exact_bytes = n_numbers * (2 if halved else 4), n_numbers * 4
        # Whether the frozen part is computed once and not in each epoch.
        self.cached = settings.cache is not None and not why_live(network, recipe.augmentation)
        n_train = int((faces.table["part"] == "train").sum())
        self.n_images = recipe.max_epochs * recipe.images_of_epoch(n_train)
        # A backward pass counts as two forward ones.
        self.operations = self.n_images * (3 * trained + (0 if self.cached else self.frozen))


class _Costs:
    """What finished runs on the same hardware took, one row each, and what follows for others."""

    def __init__(self, settings: Settings, kind: str) -> None:
        device, rows = settings.device, []
        is_here = kind == device.kind
        # On a GPU everything but stored predictions is computed in bf16, exact runs excepted.
        self._in_bf16 = device.precision == "bf16" if is_here else True
        for record in all_records(settings.runs_dir):
            with contextlib.suppress(BenchmarkError, LookupError, ValueError):
                if record.state == "done" and record.about["device_kind"] == kind:
                    rows.append(_measured(record))
        found = pd.DataFrame(rows, columns=[*COLUMNS]).sort_values("started")
        usual = device.description if is_here else found["device"].mode().get(0)
        found = found[found["device"] == usual]
        gaps = found["started"].shift(-1) - found["finished"]
        gap = gaps[gaps.between(0, LONGEST_GAP)].mean()
        self.rows = found.assign(rest=found["rest"] + (0 if pd.isna(gap) else gap))
        speeds = found["speed"].dropna()
        if len(speeds) or is_here:
            self.basis = OPERATIONS
            self.speed = float(speeds.median()) if len(speeds) else _timed_speed(device) / 3
        else:
            self.speed, self.basis = H200_SPEED, ON_H200

    def of(self, work: _Work, group: str | None) -> tuple[float, float, str]:
        """Predict seconds of training and of the rest of a run; and say what that rests on."""
        rows, like = self.rows, _like(work.experiment, cached=work.cached)
        seconds, of, alike = work.operations / self.speed, "", rows[rows["like"] == like]
        if len(own := alike[alike["group"] == group]):
            rows, seconds, of = own, own["seconds"].median(), "its seeds"
        elif len(alike):
            rows, seconds, of = alike, alike["per_image"].median() * work.n_images, like
        # Known to the second only, so averaged; without those of a machine that slept.
        rest = rows["rest"].clip(upper=3 * rows["rest"].median() + 1).mean()
        basis = f"{len(rows)} {'run' if len(rows) == 1 else 'runs'} of {of}" if of else self.basis
        return float(seconds), float(rest if len(rows) else REST_SECONDS), basis

    def build(self, work: _Work, seed: int, faces: FaceSet) -> Build | None:
        """Predict what is computed once: activations of all faces for training, and where that is
        in bf16, of validation and test faces in fp32."""
        if not work.cached:
            return None
        backbone, protocol = work.experiment.backbone, work.experiment.protocol
        n_views = 1 + work.experiment.recipe.augmentation.flip
        key = (
            backbone, protocol, faces.pixel_digest, n_views,
            seed if backbone.weights == "none" else None,
        )  # fmt: skip
        n_faces, n_exact = n_views * len(faces.table), int((faces.table["part"] != "train").sum())
        n_bytes = work.cached_bytes * n_faces + work.exact_bytes * n_exact * self._in_bf16
        alike = self.rows[self.rows["like"] == _like(work.experiment, cached=True)]
        per_face = alike["build"].dropna()
        each = per_face.median() if len(per_face) else work.frozen / self.speed
        return Build(key, float(each * n_faces), n_bytes)


COLUMNS: Final = (
    *("group", "like", "device", "started", "finished"),
    *("seconds", "per_image", "rest", "speed", "build"),
)


def _measured(record: RunRecord) -> dict[str, Any]:
    """Give what a finished run took; times in seconds, of its cache by the face."""
    about, done = record.about, record.done
    experiment = Experiment.from_dict(about["experiment"])
    counts, speed = about["dataset"]["counts"], about.get("speed", {})
    times = (datetime.fromisoformat(it) for it in (about["started"], done["finished"]))
    started, finished = (when.timestamp() for when in times)
    seconds, parameters = float(done["seconds"]), about["parameters"]
    n_images = max(1, int(done["epochs"]) * experiment.recipe.images_of_epoch(counts["train"]))
    is_full = parameters["trainable"] == parameters["total"] and seconds > 0
    caches = [speed.get(name, {}) for name in ("cache", "cache_of_answers")]
    built = sum(cache["seconds"] for cache in caches if cache.get("origin") == "built")
    is_built = caches[0].get("origin") == "built"
    return {
        "group": record.group_identity, "device": about["device"], "started": started,
        "like": _like(experiment, cached="origin" in caches[0]), "finished": finished,
        "seconds": seconds, "per_image": seconds / n_images,
        "rest": max(0.0, finished - started - seconds - built),
        "speed": 3 * about["multiply_adds"] * n_images / seconds if is_full else None,
        "build": built / (sum(counts.values()) * caches[0]["views"]) if is_built else None,
    }  # fmt: skip


def _timed_speed(device: Device) -> float:
    """Give the multiply-adds a second of a product of two matrices on the device."""
    matrix, seconds = torch.ones(1024, 1024, device=device.torch_device), list[float]()
    with device.autocast():
        for _ in range(4):  # the first warms up
            started = time.perf_counter()
            float((matrix @ matrix)[0, 0])  # waits for a GPU
            seconds.append(time.perf_counter() - started)
    return float(1024**3 / min(seconds))


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
            now, build = start, forecast.build
            if build is not None:
                now = max(now, built.setdefault(build.key, now + build.seconds))
            end = now + forecast.seconds + forecast.rest_seconds
            forecast = replace(forecast, worker=worker, start=start, trains_at=now, end=end)
            heapq.heappush(free, (end, worker))
        placed.append(forecast)
    return placed
