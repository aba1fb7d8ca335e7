"""The loops that are measured: the one a user would write, timm's parts, Lightning's Trainer, ours.

The plain loop has nothing of ours in it but the network's own modules, so that all train the same
thing: pictures from files, PIL, a DataLoader, fp32, NCHW, `.item()` at every step. It is written to
be fair: workers stay alive between epochs, only what is trained is given to Adam, and the pictures
are already small. Everything else is measured against it.
"""

import contextlib
import importlib.util
import logging
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmark.data.batches import FaceBatches, generator_for, random_order
from benchmark.data.dataset import FaceSet
from benchmark.data.splits import Rows
from benchmark.errors import DataError
from benchmark.experiment.definition import Augmentation, Experiment
from benchmark.models.network import Network, build_network
from benchmark.tasks import TaskName
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.reading import Reader, epoch_batches
from benchmark.training.steps import SpeedSettings
from benchmark.training.trainer import EpochResult, Progress, TrainingFaces, fit, start

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
LOSS_WEIGHTS: Final[dict[TaskName, float]] = {"age_group": 0.4, "gender": 0.2, "race": 0.4}
VAL_SHARE: Final = 8
"""One validation face to so many that train, as the split has them."""
MANY_EPOCHS: Final = 1_000_000
"""Of a training that is read epoch by epoch, as many as there are rounds."""


@dataclass(frozen=True)
class PlainConfig:
    """What the plain loop is set to; printed with every measurement."""

    batch_size: int = 32
    workers: int = 2
    learning_rate: float = 1e-4
    clip_norm: float = 1.0
    pinned: bool = False

    def sentence(self) -> str:
        """Say it as the table does."""
        return (
            f"Dataset and DataLoader({self.workers} workers, kept alive"
            f"{', pinned' if self.pinned else ''}), PIL decodes JPEG files, ToTensor, Normalize; "
            f"fp32 with torch's defaults, NCHW, batches of {self.batch_size}, torch.optim.Adam, "
            "clip_grad_norm_, .item() at every step"
        )


@dataclass(frozen=True)
class Sample:
    """Some faces that train and some that validate, on the device and as JPEG files."""

    faces: FaceBatches
    train: Rows
    val: Rows
    folder: Path
    image_px: int

    @classmethod
    def of(cls, faces: FaceSet, device: torch.device, folder: Path, most: int | None) -> "Sample":
        """Take up to `most` training faces, in a random order, and validation faces with them.

        Raises DataError where there are too few to measure on.
        """
        part, generator = faces.table["part"].to_numpy(), np.random.default_rng(0)
        train, val = (generator.permutation(np.flatnonzero(part == p)) for p in ("train", "val"))
        n = min(len(train) if most is None else most, len(train), len(val) * VAL_SHARE) // 32 * 32
        if n < 32:
            raise DataError(
                f"{faces.name} has {len(train)} training and {len(val)} validation faces",
                allowed="at least 32 and 4",
            )
        on_device = FaceBatches.on_device(faces.pixels(), faces.table, device)
        return cls(on_device, train, val, folder, faces.image_px).first(n)

    def first(self, n: int) -> "Sample":
        """Give the first `n` that train, and as many that validate as belong to them."""
        return replace(self, train=self.train[:n], val=self.val[: max(1, n // VAL_SHARE)])

    @cached_property
    def on_device(self) -> tuple[Tensor, Tensor]:
        """Rows that train and rows that validate."""
        train, val = (
            torch.from_numpy(rows).to(self.faces.device) for rows in (self.train, self.val)
        )
        return train, val

    def pictures(self, rows: Rows, *, flip: bool = False) -> "PictureFiles":
        """Give rows as files, writing those that are not there."""
        paths = [self.folder / f"{row}.jpg" for row in rows]
        for row, path in zip(rows, paths, strict=True):
            if not path.exists():
                pixels = self.faces.pixels[int(row)].cpu().numpy()
                Image.fromarray(pixels).save(path, quality=90)
        there = torch.from_numpy(rows).to(self.faces.device)
        labels = [self.faces.labels[task][there].cpu() for task in LOSS_WEIGHTS]
        return PictureFiles(paths, torch.stack(labels, dim=1), flip=flip)


class PictureFiles(Dataset[tuple[Any, Tensor]]):
    """Pictures in files with three labels each, decoded one by one whenever they are asked for."""

    def __init__(self, files: list[Path], labels: Tensor, *, flip: bool = False) -> None:
        self.files, self.labels = files, labels
        flips = [transforms.RandomHorizontalFlip()] if flip else []
        self.transform: Any = transforms.Compose(
            [*flips, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Any, Tensor]:
        with Image.open(self.files[place]) as picture:
            return self.transform(picture.convert("RGB")), self.labels[place]


def loader(pictures: PictureFiles, config: PlainConfig, *, shuffle: bool) -> DataLoader[Any]:
    """Make the DataLoader, its workers kept from one epoch to the next."""
    return DataLoader(
        pictures,
        batch_size=config.batch_size,
        shuffle=shuffle,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=config.pinned,
        worker_init_fn=leave_signals,
    )


def leave_signals(_worker: int) -> None:
    """Leave it to the process that is measured to end its workers, in one sentence."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class PlainNetwork(nn.Module):
    """Backbone, average pooling and head, as a user would chain them."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.backbone, self.head = network.backbone, network.head

    def forward(self, pictures: Tensor) -> dict[TaskName, Tensor]:
        """Map scaled pictures (n, 3, h, w) to logits per task."""
        logits: dict[TaskName, Tensor] = self.head(self.backbone(pictures).mean(dim=(2, 3)))
        return logits


def total_loss(logits: dict[TaskName, Tensor], labels: Tensor) -> Tensor:
    """Add up the tasks' cross entropies, weighted; labels: (n, 3)."""
    losses = [
        weight * functional.cross_entropy(logits[task], labels[:, n])
        for n, (task, weight) in enumerate(LOSS_WEIGHTS.items())
    ]
    return torch.stack(losses).sum()


def n_right(logits: dict[TaskName, Tensor], labels: Tensor) -> int:
    """Count correct predictions over all tasks."""
    found = [logits[task].argmax(1) == labels[:, n] for n, task in enumerate(LOSS_WEIGHTS)]
    return sum(int(right.sum().item()) for right in found)


@dataclass(frozen=True)
class Job:
    """What all loops of a row do: train this experiment on these faces for so many epochs."""

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

    @property
    def hardware(self) -> torch.device:
        """Where it is computed."""
        return self.device.torch_device

    def network(self, seed: int = 0) -> Network:
        """Build the network with first values of `seed`."""
        return build_network(self.experiment, None, seed)


class Loop:
    """One way of doing what a row measures."""

    def warm_up(self) -> None:
        """Do all that is done once: workers, kernels, recordings. Timed apart."""
        self.measure()

    def prepare(self) -> None:
        """Make ready for a measurement; no part of it."""

    def measure(self) -> None:
        """Do what is measured, to its end: nothing is left running on the device."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything: workers end when nobody holds their loader."""
        self.__dict__.clear()


class PlainPass(Loop):
    """The plain loader, read to its end."""

    def __init__(self, job: Job) -> None:
        self._job = job
        pictures = job.sample.pictures(job.sample.train, flip=True)
        self._batches = loader(pictures, job.config, shuffle=True)

    def measure(self) -> None:
        """Read one epoch's batches."""
        for pictures, _labels in self._batches:
            pictures.to(self._job.hardware)
        self._job.device.synchronise()


class OurPass(Loop):
    """Batches by index from the packed array, flipped and scaled."""

    def __init__(self, job: Job) -> None:
        self._job, network = job, job.network()
        job.device.place(network)
        self._scaling = network.scaling
        self._reader = Reader(network, job.sample.faces, job.device)
        self._epoch = 0

    def measure(self) -> None:
        """Make one epoch's batches, as the first convolution is given them."""
        rows, flips = self._job.sample.on_device[0], Augmentation(flip=True)
        order = rows[random_order(len(rows), seed=0, epoch=self._epoch).to(rows.device)]
        self._epoch += 1
        generator = generator_for(0, self._epoch, purpose=1)
        with torch.no_grad():
            for batch in epoch_batches(order, flips, self._job.config.batch_size, generator):
                self._scaling(self._reader.inputs(batch, flips))
        self._job.device.synchronise()


class PlainTraining(Loop):
    """The plain loop: one more epoch with its validation, or several from fresh weights."""

    counts_hits = True
    """While it trains; timm's loop does not."""

    def __init__(self, job: Job) -> None:
        self.job, self._seed = job, 0
        self.train_batches = self._batches(job.sample.train, training=True)
        self.val_batches = self._batches(job.sample.val, training=False)
        self._renew()

    def _batches(self, rows: Rows, *, training: bool) -> Any:
        return loader(self.job.sample.pictures(rows), self.job.config, shuffle=training)

    def _placed(self, network: PlainNetwork) -> PlainNetwork:
        return network.to(self.job.hardware)

    def _optimiser(self, trained: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(trained, lr=self.job.config.learning_rate)

    def _moved(self, pictures: Tensor) -> Tensor:
        return pictures.to(self.job.hardware, non_blocking=self.job.config.pinned)

    def _arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def _renew(self) -> None:
        self.network = self._placed(PlainNetwork(self.job.network(self._seed)))
        trained = [value for value in self.network.parameters() if value.requires_grad]
        self._adam = self._optimiser(trained)
        self._seed += 1

    def warm_up(self) -> None:
        """Start the workers, and make a step."""
        for batches in (self.train_batches, self.val_batches):
            first = next(iter(batches))
        self.network.train()
        self._step(*first)

    def prepare(self) -> None:
        """Start anew where a whole training is measured."""
        if self.job.epochs > 1:
            self._renew()

    def measure(self) -> None:
        """Train and validate."""
        for _ in range(self.job.epochs):
            self.network.train()
            totals = np.zeros(2)
            for batch in self.train_batches:
                totals += self._step(*batch)
            self.network.eval()
            with torch.no_grad():
                for pictures, labels in self.val_batches:
                    n_right(self.network(self._moved(pictures)), labels.to(self.job.hardware))
        self.job.device.synchronise()

    def _step(self, pictures: Tensor, labels: Tensor) -> tuple[float, int]:
        pictures, labels = self._moved(pictures), labels.to(self.job.hardware)
        self._adam.zero_grad()
        with self._arithmetic():
            logits = self.network(pictures)
            loss = total_loss(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.job.config.clip_norm)
        self._adam.step()
        return loss.item() * len(pictures), n_right(logits, labels) if self.counts_hits else 0


class TimmTraining(PlainTraining):
    """timm's loader and optimiser, as its train.py has them with `--channels-last --no-aug`.

    With `--amp` where there is CUDA, and there its loader that copies ahead and normalises.
    """

    counts_hits = False

    def _batches(self, rows: Rows, *, training: bool) -> Any:
        from timm.data.loader import create_loader

        job, px, on_cuda = self.job, self.job.sample.image_px, self.job.device.kind == "cuda"
        return create_loader(
            job.sample.pictures(rows),  # type: ignore[arg-type]
            input_size=(3, px, px), batch_size=job.config.batch_size, is_training=training,
            no_aug=True, mean=MEAN, std=STD, num_workers=job.config.workers,
            pin_memory=job.config.pinned, persistent_workers=job.config.workers > 0,
            use_prefetcher=on_cuda, crop_pct=1.0, device=job.hardware,
        )  # fmt: skip

    def _placed(self, network: PlainNetwork) -> PlainNetwork:
        placed: PlainNetwork = network.to(self.job.hardware)
        return placed.to(memory_format=torch.channels_last)

    def _optimiser(self, trained: list[nn.Parameter]) -> torch.optim.Optimizer:
        from timm.optim._optim_factory import create_optimizer_v2

        rate = self.job.config.learning_rate
        made: torch.optim.Optimizer = create_optimizer_v2(
            trained, opt="adam", lr=rate, weight_decay=0.0
        )
        return made

    def _moved(self, pictures: Tensor) -> Tensor:
        return super()._moved(pictures).contiguous(memory_format=torch.channels_last)

    def _arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        kind = self.job.device.kind
        return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda")


class LightningTraining(PlainTraining):
    """The plain loop's parts in a Lightning Trainer with its defaults: one more epoch."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import pytorch_lightning as lightning

        network, optimiser = self.network, self._adam

        class Module(lightning.LightningModule):  # type: ignore[misc,no-any-unimported,unused-ignore]
            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def training_step(self, batch: Any, _number: int) -> Tensor:
                loss = total_loss(self.network(batch[0]), batch[1])
                self.log("train_loss", loss)
                return loss

            def validation_step(self, batch: Any, _number: int) -> None:
                n = n_right(self.network(batch[0]), batch[1])
                self.log("val_accuracy", n / batch[1].numel())

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return optimiser

        self._module, self._trainer = Module(), lightning.Trainer

    def measure(self) -> None:
        """Train and validate; the Trainer is Lightning's own but for what it writes."""
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        kind = self.job.device.kind
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on workers, and deprecations of its own
            self._trainer(
                max_epochs=1, accelerator="gpu" if kind == "cuda" else kind, devices=1,
                gradient_clip_val=self.job.config.clip_norm, logger=False,
                enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, num_sanity_val_steps=0,
            ).fit(self._module, self.train_batches, self.val_batches)  # fmt: skip
        self.job.device.synchronise()


class OurEpochs(Loop):
    """Our trainer, read epoch by epoch."""

    def __init__(self, job: Job) -> None:
        self._job = job
        endless = replace(job.experiment.recipe, max_epochs=MANY_EPOCHS)
        self._experiment = replace(job.experiment, recipe=endless)
        self.state = start(job.network(), endless, job.device)
        self._steps: Iterator[Progress | EpochResult] = iter(())

    def warm_up(self) -> None:
        """Record the steps where they are recorded; else make one step."""
        job = self._job
        if job.device.kind != "cuda":
            few = job.sample.first(job.config.batch_size)
            once = replace(job.experiment, recipe=replace(job.experiment.recipe, max_epochs=1))
            with job.device.arithmetic():
                for _ in fit(self.state, _faces(few), once, 0, job.device, job.speed):
                    pass
        self._steps = fit(
            self.state, _faces(job.sample), self._experiment, 0, job.device, job.speed
        )
        if job.device.kind == "cuda":
            self.measure()

    def measure(self) -> None:
        """Train and validate one epoch."""
        with self._job.device.arithmetic():
            next(step for step in self._steps if isinstance(step, EpochResult))
            self._job.device.synchronise()


def _faces(sample: Sample, prefix: Any = None) -> TrainingFaces:
    return TrainingFaces(sample.faces, *sample.on_device, prefix)


class OurRun(Loop):
    """Our trainer from fresh weights to its end, the prefix cache built inside, on the disk."""

    def __init__(self, job: Job) -> None:
        self._job, self._seed = job, 0
        self._folder = job.sample.folder / "cache"
        self.origin = ""
        """Where the activations came from in the last measurement."""

    def warm_up(self) -> None:
        """Train for one epoch on one batch."""
        job = self._job
        once = replace(job.experiment, recipe=replace(job.experiment.recipe, max_epochs=1))
        few = job.sample.first(job.config.batch_size)
        warm = OurRun(replace(job, experiment=once, sample=few))
        warm.prepare()
        warm.measure()
        warm.close()

    def prepare(self) -> None:
        """Begin with other weights, for which nothing is cached."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._seed += 1
        job = self._job
        self.state = start(job.network(self._seed), job.experiment.recipe, job.device)

    def measure(self) -> None:
        """Compute the frozen part, then train all epochs on it."""
        job, sample = self._job, self._job.sample
        with job.device.arithmetic():
            rows = torch.cat(sample.on_device).cpu().sort().values
            found = open_prefix(
                self.state.network, sample.faces, job.device, CacheSettings(self._folder),
                PrefixRequest("speed", rows=rows),
            )  # fmt: skip
            self.origin = found.origin if found is not None else "live"
            data = _faces(sample, found)
            for _ in fit(self.state, data, job.experiment, self._seed, job.device, job.speed):
                pass
            job.device.synchronise()

    def close(self) -> None:
        """Remove the cache, and let go of everything."""
        shutil.rmtree(self._folder, ignore_errors=True)
        super().close()


OTHER_LOOPS: Final[dict[str, tuple[str, Callable[[Job], Loop]]]] = {
    "timm": ("timm", TimmTraining),
    "lightning": ("pytorch_lightning", LightningTraining),
}
"""Loops of others' parts by name, each with the package that has to be installed."""


def version_of(loop: str) -> str | None:
    """Give the version of a loop's package; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    package = OTHER_LOOPS[loop][0]
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return "unknown"
