"""The plain loop's parts handed to a Lightning Trainer with its defaults, where it is installed."""

import logging
import warnings
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmark.speed.plain_loop import PlainConfig, adam, total_loss


class PlainModule(lightning.LightningModule):  # type: ignore[misc,no-any-unimported,unused-ignore]
    """The network, its loss and Adam, as Lightning asks for them."""

    def __init__(self, network: nn.Module, config: PlainConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def training_step(self, batch: Any, _number: int) -> Tensor:
        """Give a batch's loss, logged as users do."""
        pictures, labels = batch
        loss = total_loss(self.network(pictures), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, _number: int) -> None:
        """Log a batch's accuracy."""
        pictures, labels = batch
        logits = self.network(pictures)
        right = [(values.argmax(1) == labels[task]).float() for task, values in logits.items()]
        self.log("val_accuracy", torch.stack(right).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the plain loop's Adam."""
        return adam(self.network, self.config)


def train(
    module: PlainModule,
    train_batches: DataLoader[Any],
    val_batches: DataLoader[Any],
    device: torch.device,
    config: PlainConfig,
) -> None:
    """Train one epoch with validation; the Trainer is Lightning's own but for what it writes."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers, and deprecations of its own
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=1,
            gradient_clip_val=config.clip_norm,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, train_batches, val_batches)
