"""The loops that are measured: the one a user would write, timm's parts, Lightning's Trainer, ours.

The plain loop has nothing of ours in it but the network's own modules, so that all train the same
thing, and it is fair: workers stay alive between epochs, only what is trained is given to Adam, and
the JPEG files are of the packed size. A loop of others comes with the package that it needs.
"""

import logging
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmark.data.batches import FaceBatches, epoch_batches, generator_for, random_order
from benchmark.data.dataset import FaceSet
from benchmark.errors import DataError
from benchmark.experiment.definition import Experiment
from benchmark.experiment.parts import Augmentation
from benchmark.models.network import Network, build_network
from benchmark.models.weight_manifest import IMAGENET
from benchmark.tasks import COMBINED_WEIGHTS, TaskName
from benchmark.training.device import Device
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.steps import ForwardPass, SpeedSettings
from benchmark.training.trainer import EpochResult, TrainingFaces, TrainingState, fit, start

BATCH_SIZE: Final = 32
RATE: Final = 1e-4
CLIP_NORM: Final = 1.0
VAL_SHARE: Final = 8
"""One validation face to so many that train, as the split has them."""


@dataclass(frozen=True)
class Job:
    """What all loops of a row do: train this experiment on these faces for so many epochs.

    train, val: rows of the faces. folder: of JPEG files, written when they are first asked for.
    device: as ours computes; the others take the hardware of it alone. workers: of everybody's
    DataLoader. compile: whether torch.compile fuses our operations, in the warm-up.
    """

    experiment: Experiment
    faces: FaceBatches
    train: Tensor
    val: Tensor
    folder: Path
    device: Device
    workers: int
    epochs: int = 1
    compile: bool = False

    @property
    def place(self) -> torch.device:
        return self.device.torch_device

    @property
    def is_pinned(self) -> bool:
        return self.device.kind == "cuda"

    def one_step(self) -> "Job":
        few, once = BATCH_SIZE // VAL_SHARE, self.experiment.adjusted({"recipe.max_epochs": 1})
        return replace(self, train=self.train[:BATCH_SIZE], val=self.val[:few], experiment=once)

    def network(self, seed: int = 0) -> Network:
        return build_network(self.experiment, None, seed)

    def loader(self, rows: Tensor, *, shuffle: bool, flip: bool = False) -> DataLoader[Any]:
        """Make the plain DataLoader of rows, its workers kept from one epoch to the next."""
        return DataLoader(
            PictureFiles(self, rows, flip=flip), batch_size=BATCH_SIZE, shuffle=shuffle,
            num_workers=self.workers, persistent_workers=self.workers > 0,
            pin_memory=self.is_pinned,
        )  # fmt: skip

    def fit(self, state: TrainingState, seed: int = 0, prefix: Any = None) -> Iterator[Any]:
        train, val = self.train.to(self.faces.device), self.val.to(self.faces.device)
        data = TrainingFaces(self.faces, train, val, prefix)
        speed = SpeedSettings(compile=self.compile)
        return fit(state, data, self.experiment, seed, self.device, speed)


class PictureFiles(Dataset[tuple[Any, Tensor]]):
    """Rows as pictures in files, with three labels each, decoded one by one."""

    def __init__(self, job: Job, rows: Tensor, *, flip: bool = False) -> None:
        self.files = [job.folder / f"{row}.jpg" for row in rows.tolist()]
        for row, path in zip(rows.tolist(), self.files, strict=True):
            if not path.exists():
                Image.fromarray(job.faces.pixels[row].cpu().numpy()).save(path, quality=90)
        labels = [job.faces.labels[task].cpu()[rows] for task in COMBINED_WEIGHTS]
        self.labels = torch.stack(labels, dim=1)
        flips = [transforms.RandomHorizontalFlip()] if flip else []
        scaling = transforms.Normalize(IMAGENET.mean, IMAGENET.std)
        self.transform: Any = transforms.Compose([*flips, transforms.ToTensor(), scaling])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Any, Tensor]:
        with Image.open(self.files[place]) as picture:
            return self.transform(picture.convert("RGB")), self.labels[place]


def rows_that_train(faces: FaceSet, most: int) -> tuple[Tensor, Tensor]:
    """Choose up to `most` training faces, in a random order, and validation faces with them.

    Raises DataError where there are too few to measure on.
    """
    part, generator = faces.table["part"].to_numpy(), np.random.default_rng(0)
    train, val = (generator.permutation(np.flatnonzero(part == p)) for p in ("train", "val"))
    n = min(most, len(train), len(val) * VAL_SHARE) // 32 * 32
    if n < 32:
        found = f"{faces.name} has {len(train)} training and {len(val)} validation faces"
        raise DataError(found, allowed="at least 32 and 4")
    return torch.from_numpy(train[:n]), torch.from_numpy(val[: n // VAL_SHARE])


def total_loss(logits: dict[TaskName, Tensor], labels: Tensor) -> Tensor:
    """Add up the tasks' cross entropies, weighted; labels: (n, 3)."""
    pairs = zip(COMBINED_WEIGHTS.items(), labels.T, strict=True)
    losses = [w * functional.cross_entropy(logits[task], truths) for (task, w), truths in pairs]
    return torch.stack(losses).sum()


def count_correct(logits: dict[TaskName, Tensor], labels: Tensor) -> int:
    """Count correct predictions over all tasks; labels: (n, 3)."""
    found = [logits[task].argmax(1) == labels[:, n] for n, task in enumerate(COMBINED_WEIGHTS)]
    return sum(int(correct.sum().item()) for correct in found)


Loop = Iterable[Callable[[], Any]]
"""Gives one piece of work after another, each of them ready: calling it is what is measured. The
first is the warm-up: workers, kernels, recordings."""


def plain_pass(job: Job) -> Loop:
    """Read the plain loader to its end: one epoch's batches."""
    batches = job.loader(job.train, shuffle=True, flip=True)
    return repeat(lambda: deque((it.to(job.place) for it, _labels in batches), maxlen=0))


def our_pass(job: Job) -> Loop:
    """Take batches by index from the packed array, flipped and scaled as for a first layer."""
    network, rows, flips = job.network(), job.train.to(job.faces.device), Augmentation(flip=True)
    job.device.place(network)
    reader = ForwardPass(network, job.faces, job.device)

    def one_pass(epoch: int) -> None:
        order = rows[random_order(len(rows), seed=0, epoch=epoch).to(rows.device)]
        changes = generator_for(0, epoch, purpose=1)
        with torch.no_grad():
            for batch in epoch_batches(order, flips, BATCH_SIZE, changes):
                network.scaling(reader.inputs(batch, flips))

    return (partial(one_pass, epoch) for epoch in count())


class PlainTraining:
    """The plain loop: one more epoch with its validation, or several from fresh weights."""

    counts_correct = True
    """While it trains; timm's loop does not."""
    memory_format = torch.contiguous_format
    amp = False
    """Whether to compute in bf16 where there is CUDA."""

    def __init__(self, job: Job) -> None:
        self.job, self._seed = job, 0
        self.train_batches = self._batches(job.train, training=True)
        self.val_batches = self._batches(job.val, training=False)
        self._renew()

    def _batches(self, rows: Tensor, *, training: bool) -> Any:
        return self.job.loader(rows, shuffle=training)

    def _moved(self, pictures: Tensor) -> Tensor:
        moved = pictures.to(self.job.place, non_blocking=self.job.is_pinned)
        return moved.contiguous(memory_format=self.memory_format)

    def _renew(self) -> None:
        ours = self.job.network(self._seed)
        # As a user would chain them.
        parts = (ours.backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), ours.head)
        self.network = nn.Sequential(*parts).to(self.job.place).to(memory_format=self.memory_format)
        trained = [value for value in self.network.parameters() if value.requires_grad]
        self._adam = torch.optim.Adam(trained, lr=RATE)
        self._seed += 1

    def __iter__(self) -> Iterator[Callable[[], Any]]:
        yield self._first_step
        while True:
            if self.job.epochs > 1:
                self._renew()
            yield self.train

    def _first_step(self) -> None:
        """Start the workers, and make a step."""
        first, _ = (next(iter(it)) for it in (self.train_batches, self.val_batches))
        self.network.train()
        self._step(*first)

    def train(self) -> None:
        for _ in range(self.job.epochs):
            self.network.train()
            totals = np.zeros(2)
            for batch in self.train_batches:
                totals += self._step(*batch)
            self.network.eval()
            with torch.no_grad():
                for pictures, labels in self.val_batches:
                    labels = labels.to(self.job.place)
                    count_correct(self.network(self._moved(pictures)), labels)

    def _step(self, pictures: Tensor, labels: Tensor) -> tuple[float, int]:
        pictures, labels = self._moved(pictures), labels.to(self.job.place)
        self._adam.zero_grad()
        kind = self.job.device.kind
        with torch.autocast(kind, torch.bfloat16, enabled=self.amp and kind == "cuda"):
            logits = self.network(pictures)
            loss = total_loss(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
        self._adam.step()
        n_correct = count_correct(logits, labels) if self.counts_correct else 0
        return loss.item() * len(pictures), n_correct


class TimmTraining(PlainTraining):
    """timm's loader, as its train.py has it with `--channels-last --no-aug`; its Adam is torch's.

    With `--amp` where there is CUDA, and there its loader that copies ahead and normalises.
    """

    counts_correct, memory_format, amp = False, torch.channels_last, True

    def _batches(self, rows: Tensor, *, training: bool) -> Any:
        from timm.data.loader import create_loader

        job, px = self.job, self.job.experiment.backbone.input_px
        return create_loader(
            PictureFiles(job, rows),  # type: ignore[arg-type]
            input_size=(3, px, px), batch_size=BATCH_SIZE, is_training=training,
            no_aug=True, mean=IMAGENET.mean, std=IMAGENET.std, num_workers=job.workers,
            pin_memory=job.is_pinned, persistent_workers=job.workers > 0,
            use_prefetcher=job.is_pinned, crop_pct=1.0, device=job.place,
        )  # fmt: skip


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
                n = count_correct(self.network(batch[0]), batch[1])
                self.log("val_accuracy", n / batch[1].numel())

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return optimiser

        self._module, self._trainer = Module(), lightning.Trainer

    def train(self) -> None:
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        kind = self.job.device.kind
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on workers, and deprecations of its own
            self._trainer(
                max_epochs=1, accelerator="gpu" if kind == "cuda" else kind, devices=1,
                gradient_clip_val=CLIP_NORM, logger=False,
                enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, num_sanity_val_steps=0,
            ).fit(self._module, self.train_batches, self.val_batches)  # fmt: skip


def our_epochs(job: Job) -> Loop:
    """Train with our trainer, one more epoch each time; first a step, or the epoch that records."""
    state = start(job.network(), job.experiment.recipe, job.device)
    epochs = (step for step in job.fit(state) if isinstance(step, EpochResult))
    if job.device.kind != "cuda":
        yield partial(_to_the_end, job.one_step(), state)

    def one_epoch() -> None:
        with job.device.arithmetic():
            next(epochs)

    yield from repeat(one_epoch)


def our_run(job: Job) -> Loop:
    """Train with our trainer from fresh weights to the end, the prefix cache built inside, on disk.

    What is done gives where the activations came from.
    """
    cache = CacheSettings(job.folder / "cache")

    def one_run(own: Job, state: TrainingState, seed: int) -> str:
        request = PrefixRequest("speed", rows=torch.cat([own.train, own.val]).sort().values)
        with own.device.arithmetic():
            found = open_prefix(state.network, own.faces, own.device, cache, request)
        _to_the_end(own, state, seed, found)
        return str(found.report["origin"]) if found is not None else "live"

    for seed, own in enumerate(chain([job.one_step()], repeat(job))):
        shutil.rmtree(cache.folder, ignore_errors=True)
        state = start(own.network(seed), own.experiment.recipe, own.device)
        yield partial(one_run, own, state, seed)


def _to_the_end(job: Job, state: TrainingState, seed: int = 0, prefix: Any = None) -> None:
    with job.device.arithmetic():
        deque(job.fit(state, seed, prefix), maxlen=0)


PACKAGES: Final = {"timm": "timm", "lightning": "pytorch-lightning"}
"""Loops of others' parts, each with the package that has to be installed."""
LOOPS: Final[dict[str, dict[str, Callable[[Job], Loop]]]] = {
    "data": {"plain": plain_pass, "ours": our_pass},
    "epoch": {
        "plain": PlainTraining,
        "ours": our_epochs,
        "timm": TimmTraining,
        "lightning": LightningTraining,
    },
    "run": {"plain": PlainTraining, "ours": our_run},
}
"""By kind of row."""
