"""A loop assembled from timm's own parts: its loader, transforms, optimiser and meters.

What timm's train.py does with `--channels-last --no-aug`, and `--amp` where there is CUDA: pictures
come as uint8 and are normalised on the device, the loss is read at every step.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from timm.data.loader import create_loader
from timm.optim._optim_factory import create_optimizer_v2
from timm.utils.clip_grad import dispatch_clip_grad
from timm.utils.metrics import AverageMeter
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmark.speed.plain_loop import MEAN, STD, PlainConfig, total_loss

TASKS: Final = ("age_group", "gender", "race")


class PackedTargets(Dataset[tuple[Any, Tensor]]):
    """Pictures in files for timm's loader, which knows one target: three numbers here."""

    def __init__(self, files: Sequence[Path], labels: Any) -> None:
        self.files = list(files)
        self.targets = torch.stack([torch.as_tensor(labels[task]) for task in TASKS], dim=1)
        self.transform: Any = None
        """Set by timm's create_loader."""

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Any, Tensor]:
        with Image.open(self.files[place]) as picture:
            pixels = self.transform(picture.convert("RGB"))
        return pixels, self.targets[place]


def loader(
    pictures: PackedTargets, px: int, config: PlainConfig, device: torch.device, *, training: bool
) -> Any:
    """Let timm make its loader; on CUDA the one that copies ahead and normalises there."""
    return create_loader(
        pictures,  # type: ignore[arg-type]
        input_size=(3, px, px),
        batch_size=config.batch_size,
        is_training=training,
        no_aug=True,
        mean=MEAN,
        std=STD,
        num_workers=config.workers,
        pin_memory=config.pinned,
        persistent_workers=config.workers > 0,
        use_prefetcher=device.type == "cuda",
        crop_pct=1.0,
        device=device,
    )


def optimiser_for(network: nn.Module, config: PlainConfig) -> torch.optim.Optimizer:
    """Let timm make Adam for what is trained."""
    trained = [value for value in network.parameters() if value.requires_grad]
    made: torch.optim.Optimizer = create_optimizer_v2(
        trained, opt="adam", lr=config.learning_rate, weight_decay=0.0
    )
    return made


def new_meter() -> Any:
    """Make timm's running average, which carries no types."""
    return AverageMeter()  # type: ignore[no-untyped-call]


def train_epoch(
    network: nn.Module,
    batches: Any,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
    config: PlainConfig,
) -> float:
    """Train one epoch as timm's train_one_epoch does; give its mean loss."""
    network.train()
    meter = new_meter()
    amp = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    for pictures, targets in batches:
        pictures = pictures.to(device).contiguous(memory_format=torch.channels_last)
        targets = targets.to(device)
        with amp:
            logits = network(pictures)
            loss = total_loss(logits, {task: targets[:, n] for n, task in enumerate(TASKS)})
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        dispatch_clip_grad(network.parameters(), value=config.clip_norm, mode="norm")
        optimiser.step()
        meter.update(loss.item(), len(pictures))
    return float(meter.avg)


def evaluate(network: nn.Module, batches: Any, device: torch.device) -> float:
    """Give the accuracy over all tasks, in eval mode."""
    network.eval()
    meter = new_meter()
    with torch.no_grad():
        for pictures, targets in batches:
            pictures = pictures.to(device).contiguous(memory_format=torch.channels_last)
            logits = network(pictures)
            for number, task in enumerate(TASKS):
                right = logits[task].argmax(1) == targets[:, number].to(device)
                meter.update(right.float().mean().item(), len(pictures))
    return float(meter.avg)
