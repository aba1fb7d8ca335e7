"""Every way of doing what a row measures: the plain loop, others' loops, and ours."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmark.experiment import Augmentation, Experiment
from benchmark.faces.batches import generator_for, random_order
from benchmark.models.network import Network, build_network
from benchmark.speed import plain_loop
from benchmark.speed.plain_loop import PictureFiles, PlainConfig, PlainNetwork
from benchmark.speed.sample import Sample
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.reading import Reader, epoch_batches
from benchmark.training.steps import SpeedSettings
from benchmark.training.trainer import EpochResult, Progress, TrainingFaces, fit, start

MANY: int = 1_000_000
"""Epochs of a training that is read epoch by epoch, as many as there are rounds."""


@dataclass(frozen=True)
class Job:
    """What all ways of a row do: train this experiment on these faces for so many epochs."""

    experiment: Experiment
    sample: Sample
    epochs: int
    device: Device
    """As ours computes; the others take the hardware of it alone."""
    config: PlainConfig
    compile: bool = False
    """Whether torch.compile fuses our operations; done in the warm-up, which is timed apart."""

    @property
    def speed(self) -> SpeedSettings:
        """How our steps are made."""
        return SpeedSettings(compile=self.compile)

    def network(self, seed: int) -> Network:
        """Build the network with first values of `seed`."""
        return build_network(self.experiment, None, seed)

    def pictures(self, rows: Any, *, flip: bool = False) -> PictureFiles:
        """Give the faces as files."""
        return PictureFiles(self.sample.files(rows), self.sample.labels(rows), flip=flip)

    @property
    def hardware(self) -> torch.device:
        """Where it is computed."""
        return self.device.torch_device


class Fresh:
    """A way that needs nothing done before a measurement."""

    def prepare(self) -> None:
        """Go on as it is."""

    def close(self) -> None:
        """Let go of everything: workers end when nobody holds their loader."""
        self.__dict__.clear()


class PlainPass(Fresh):
    """The plain loader, read to its end."""

    def __init__(self, job: Job) -> None:
        self._device = job.hardware
        pictures = job.pictures(job.sample.train, flip=True)
        self._batches = plain_loop.loader(pictures, job.config, shuffle=True)

    def warm_up(self) -> None:
        """Start the workers."""
        self.measure()

    def measure(self) -> None:
        """Read one epoch's batches."""
        for pictures, _labels in self._batches:
            pictures.to(self._device)
        _synchronise(self._device)


class OurPass(Fresh):
    """Batches by index from the packed array, flipped and scaled."""

    def __init__(self, job: Job) -> None:
        self._job = job
        network = job.network(seed=0)
        job.device.place(network)
        self._scaling = network.scaling
        self._reader = Reader(network, job.sample.faces, job.device)
        self._epoch = 0

    def warm_up(self) -> None:
        """Touch every page once."""
        self.measure()

    def measure(self) -> None:
        """Make one epoch's batches, as the first convolution is given them."""
        rows, flips = self._job.sample.train_rows, Augmentation(flip=True)
        order = rows[random_order(len(rows), seed=0, epoch=self._epoch).to(rows.device)]
        self._epoch += 1
        generator = generator_for(0, self._epoch, purpose=1)
        with torch.no_grad():
            for batch in epoch_batches(order, flips, self._job.config.batch_size, generator):
                self._scaling(self._reader.inputs(batch, flips))
        self._job.device.synchronise()


class PlainTraining:
    """The plain loop: so many epochs of training and validation from fresh weights, or one more."""

    def __init__(self, job: Job) -> None:
        self._job = job
        sample, config = job.sample, job.config
        self._train = plain_loop.loader(job.pictures(sample.train), config, shuffle=True)
        self._val = plain_loop.loader(job.pictures(sample.val), config, shuffle=False)
        self._seed = 0
        self._renew()

    def _renew(self) -> None:
        network = self._job.network(self._seed)
        self._seed += 1
        # Contiguous, as modules come: a trunk of ours is laid out by Device.place alone.
        self._network = PlainNetwork(network.trunk, network.head).to(self._job.hardware)
        self._optimiser = plain_loop.adam(self._network, self._job.config)

    def warm_up(self) -> None:
        """Start the workers, and make a step."""
        for batches in (self._train, self._val):
            next(iter(batches))
        step_once(self._network, self._optimiser, self._job)

    def prepare(self) -> None:
        """Start anew where a whole training is measured."""
        if self._job.epochs > 1:
            self._renew()

    def measure(self) -> None:
        """Train and validate."""
        job = self._job
        for _ in range(job.epochs):
            plain_loop.train_epoch(
                self._network, self._train, self._optimiser, job.hardware, job.config
            )
            plain_loop.evaluate(self._network, self._val, job.hardware)
        _synchronise(job.hardware)

    def close(self) -> None:
        """Let go of everything."""
        self.__dict__.clear()


def step_once(network: PlainNetwork, optimiser: torch.optim.Optimizer, job: Job) -> None:
    """Make one plain step on noise."""
    px, n = job.sample.image_px, job.config.batch_size
    pictures = torch.randn(n, 3, px, px, device=job.hardware)
    labels: dict[str, torch.Tensor] = {task: torch.zeros(n, dtype=torch.int64, device=job.hardware)
              for task in job.experiment.head.tasks}  # fmt: skip
    network.train()
    optimiser.zero_grad()
    loss = plain_loop.total_loss(network(pictures), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), job.config.clip_norm)
    optimiser.step()
    loss.item()


class TimmTraining(Fresh):
    """timm's parts: one more epoch of training and validation."""

    def __init__(self, job: Job) -> None:
        from benchmark.speed import timm_loop

        self._loop, self._job = timm_loop, job
        network = job.network(seed=0)
        plain = PlainNetwork(network.trunk, network.head)
        self._network = plain.to(job.hardware).to(memory_format=torch.channels_last)
        self._optimiser = timm_loop.optimiser_for(self._network, job.config)
        self._train, self._val = (
            timm_loop.loader(
                timm_loop.PackedTargets(job.sample.files(rows), job.sample.labels(rows)),
                job.sample.image_px,
                job.config,
                job.hardware,
                training=training,
            )
            for rows, training in ((job.sample.train, True), (job.sample.val, False))
        )

    def warm_up(self) -> None:
        """Start the workers, and make a step."""
        for batches in (self._train, self._val):
            next(iter(batches))
        step_once(self._network, self._optimiser, self._job)

    def measure(self) -> None:
        """Train and validate."""
        job = self._job
        self._loop.train_epoch(
            self._network, self._train, self._optimiser, job.hardware, job.config
        )
        self._loop.evaluate(self._network, self._val, job.hardware)
        _synchronise(job.hardware)


class LightningTraining(Fresh):
    """Lightning's Trainer on the plain loop's parts: one more epoch."""

    def __init__(self, job: Job) -> None:
        from benchmark.speed import lightning_loop

        self._loop, self._job = lightning_loop, job
        network = job.network(seed=0)
        plain = PlainNetwork(network.trunk, network.head)
        self._module = lightning_loop.PlainModule(plain, job.config)
        sample, config = job.sample, job.config
        self._train = plain_loop.loader(job.pictures(sample.train), config, shuffle=True)
        self._val = plain_loop.loader(job.pictures(sample.val), config, shuffle=False)

    def warm_up(self) -> None:
        """Start the workers."""
        for batches in (self._train, self._val):
            next(iter(batches))

    def measure(self) -> None:
        """Train and validate."""
        job = self._job
        self._loop.train(self._module, self._train, self._val, job.hardware, job.config)
        _synchronise(job.hardware)


class OurEpochs(Fresh):
    """Our trainer, read epoch by epoch."""

    def __init__(self, job: Job) -> None:
        self._job, self._device = job, job.device
        endless = replace(job.experiment.recipe, max_epochs=MANY)
        self._experiment = replace(job.experiment, recipe=endless)
        self._state = start(job.network(seed=0), endless, job.device)
        sample = job.sample
        self._data = TrainingFaces(sample.faces, sample.train_rows, sample.val_rows)
        self._steps: Iterator[Progress | EpochResult] = iter(())

    def warm_up(self) -> None:
        """Record the steps where they are recorded; else make one step."""
        job = self._job
        if job.device.kind != "cuda":
            few = job.sample.first(job.config.batch_size)
            data = TrainingFaces(few.faces, few.train_rows, few.val_rows)
            once = replace(job.experiment, recipe=replace(job.experiment.recipe, max_epochs=1))
            with self._device.arithmetic():
                for _ in fit(self._state, data, once, 0, self._device, job.speed):
                    pass
        self._steps = fit(self._state, self._data, self._experiment, 0, self._device, job.speed)
        if job.device.kind == "cuda":
            self.measure()

    def measure(self) -> None:
        """Train and validate one epoch."""
        with self._device.arithmetic():
            next(step for step in self._steps if isinstance(step, EpochResult))
            self._device.synchronise()


class OurRun:
    """Our trainer from fresh weights to its end, the prefix cache built inside, on the disk."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._folder = job.sample.folder / "cache"
        self._seed = 0
        self.origin = ""
        """Where the activations came from in the last measurement."""

    def warm_up(self) -> None:
        """Train for one epoch on one batch."""
        job = self._job
        recipe = replace(job.experiment.recipe, max_epochs=1)
        few = job.sample.first(job.config.batch_size)
        warm = OurRun(replace(job, experiment=replace(job.experiment, recipe=recipe), sample=few))
        warm.prepare()
        warm.measure()
        warm.close()

    def prepare(self) -> None:
        """Begin with other weights, for which nothing is cached."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._seed += 1
        job = self._job
        self._state = start(job.network(self._seed), job.experiment.recipe, job.device)

    def measure(self) -> None:
        """Compute the frozen part, then train all epochs on it."""
        job, sample = self._job, self._job.sample
        with job.device.arithmetic():
            rows = torch.cat([sample.train_rows, sample.val_rows]).cpu().sort().values
            request = PrefixRequest("speed", rows=rows)
            cache = CacheSettings(self._folder)
            found = open_prefix(self._state.network, sample.faces, job.device, cache, request)
            self.origin = found.origin if found is not None else "live"
            data = TrainingFaces(sample.faces, sample.train_rows, sample.val_rows, found)
            for _ in fit(self._state, data, job.experiment, self._seed, job.device, job.speed):
                pass
            job.device.synchronise()

    def close(self) -> None:
        """Remove the cache, and let go of everything."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self.__dict__.clear()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


LOOPS: dict[str, Callable[[Job], Any]] = {
    "timm": TimmTraining,
    "lightning": LightningTraining,
}
"""Loops that others' packages make."""
