"""The loop that a user would write: pictures from files, PIL, a DataLoader, fp32, NCHW, `.item()`.

Nothing of ours is in it but the network's own modules, so that all ways train the same thing. It
is what everything else is measured against, and is written to be fair: the workers stay alive
between epochs, only what is trained is given to Adam, and the pictures are already small.
"""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
LOSS_WEIGHTS: Final[Mapping[str, float]] = {"age_group": 0.4, "gender": 0.2, "race": 0.4}


@dataclass(frozen=True)
class PlainConfig:
    """What the loop is set to; printed with every measurement."""

    batch_size: int = 32
    workers: int = 2
    learning_rate: float = 1e-4
    clip_norm: float = 1.0
    pinned: bool = False

    def sentence(self) -> str:
        """Say it as the table does."""
        pinned = ", pinned" if self.pinned else ""
        return (
            f"Dataset and DataLoader({self.workers} workers, kept alive{pinned}), PIL decodes JPEG "
            f"files, ToTensor, Normalize; fp32 with torch's defaults, NCHW, batches of "
            f"{self.batch_size}, torch.optim.Adam, clip_grad_norm_, .item() at every step"
        )


class PictureFiles(Dataset[tuple[Tensor, dict[str, int]]]):
    """Pictures in files with their labels, decoded one by one whenever they are asked for."""

    def __init__(
        self, files: Sequence[Path], labels: Mapping[str, Sequence[int]], *, flip: bool = False
    ) -> None:
        self.files = list(files)
        self.labels = {task: list(values) for task, values in labels.items()}
        steps = [transforms.RandomHorizontalFlip()] if flip else []
        self.transform = transforms.Compose(
            [*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, dict[str, int]]:
        with Image.open(self.files[place]) as picture:
            pixels: Tensor = self.transform(picture.convert("RGB"))
        return pixels, {task: values[place] for task, values in self.labels.items()}


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
    """Leave it to the process that is measured to end its workers.

    A signal to all of a terminal's processes would else reach them first, and their end be told
    in tracebacks before the one sentence.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class PlainNetwork(nn.Module):
    """Trunk, average pooling and head, as a user would chain them."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Map scaled pictures (n, 3, h, w) to logits per task."""
        logits: dict[str, Tensor] = self.head(self.trunk(pictures).mean(dim=(2, 3)))
        return logits


def total_loss(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
    """Add up the tasks' cross-entropies, weighted."""
    return torch.stack(
        [
            LOSS_WEIGHTS[task] * functional.cross_entropy(values, labels[task])
            for task, values in logits.items()
        ]
    ).sum()


def adam(network: nn.Module, config: PlainConfig) -> torch.optim.Optimizer:
    """Make Adam for what is trained."""
    trained = [value for value in network.parameters() if value.requires_grad]
    return torch.optim.Adam(trained, lr=config.learning_rate)


def train_epoch(
    network: nn.Module,
    batches: DataLoader[Any],
    optimiser: torch.optim.Optimizer,
    device: torch.device,
    config: PlainConfig,
) -> tuple[float, float]:
    """Train one epoch; give its mean loss and accuracy, kept up step by step."""
    network.train()
    loss_sum, n_right, n_seen = 0.0, 0, 0
    for pictures, labels in batches:
        pictures = pictures.to(device, non_blocking=config.pinned)
        labels = {task: values.to(device) for task, values in labels.items()}
        optimiser.zero_grad()
        logits = network(pictures)
        loss = total_loss(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimiser.step()
        loss_sum += loss.item() * len(pictures)
        n_right += right_answers(logits, labels)
        n_seen += len(pictures)
    return loss_sum / n_seen, n_right / n_seen / len(labels)


def right_answers(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> int:
    """Count right answers over all tasks."""
    return sum(
        int((values.argmax(dim=1) == labels[task]).sum().item()) for task, values in logits.items()
    )


def evaluate(network: nn.Module, batches: DataLoader[Any], device: torch.device) -> float:
    """Give the accuracy over all tasks, in eval mode."""
    network.eval()
    n_right = n_seen = 0
    with torch.no_grad():
        for pictures, labels in batches:
            logits = network(pictures.to(device))
            there = {task: values.to(device) for task, values in labels.items()}
            n_right += right_answers(logits, there)
            n_seen += len(pictures) * len(labels)
    return n_right / n_seen
