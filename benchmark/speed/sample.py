"""The faces that are measured on: rows of a data set, and the same faces as JPEG files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmark.errors import DataError
from benchmark.faces.batches import FaceBatches
from benchmark.faces.splits import Rows
from benchmark.faces.store import FaceSet
from benchmark.tasks import TASKS

VAL_SHARE: Final = 8
"""One validation face to so many that train, as the split has them."""
JPEG_QUALITY: Final = 90
SEED: Final = 0


@dataclass(frozen=True)
class Sample:
    """Some faces that train and some that validate, on the device and in files."""

    faces: FaceBatches
    train: Rows
    val: Rows
    folder: Path
    image_px: int

    def first(self, n: int) -> "Sample":
        """Give the first `n` that train, and as many that validate as belong to them."""
        n_val = max(1, n // VAL_SHARE)
        return Sample(self.faces, self.train[:n], self.val[:n_val], self.folder, self.image_px)

    @cached_property
    def train_rows(self) -> Tensor:
        """Rows that train, on the device."""
        return torch.from_numpy(self.train).to(self.faces.device)

    @cached_property
    def val_rows(self) -> Tensor:
        """Rows that validate, on the device."""
        return torch.from_numpy(self.val).to(self.faces.device)

    def files(self, rows: Rows) -> list[Path]:
        """Give the files of rows, writing those that are not there."""
        paths = [self.folder / f"{row}.jpg" for row in rows]
        for row, path in zip(rows, paths, strict=True):
            if not path.exists():
                pixels = self.faces.pixels[int(row)].cpu().numpy()
                Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)
        return paths

    def labels(self, rows: Rows) -> dict[str, Sequence[int]]:
        """Give the labels of rows, per task."""
        there = torch.from_numpy(rows).to(self.faces.device)
        return {task: self.faces.labels[task][there].tolist() for task in TASKS}


def sample_of(faces: FaceSet, device: torch.device, folder: Path, most: int | None) -> Sample:
    """Take up to `most` training faces, in a random order, and validation faces to go with them.

    Raises DataError where there are too few to measure on.
    """
    part = faces.table["part"].to_numpy()
    generator = np.random.default_rng(SEED)
    train, val = (generator.permutation(np.flatnonzero(part == name)) for name in ("train", "val"))
    n = len(train) if most is None else min(most, len(train))
    n = min(n // 32 * 32, len(val) * VAL_SHARE // 32 * 32)
    if n < 32:
        raise DataError(
            f"{faces.name} has {len(train)} training and {len(val)} validation faces",
            allowed="at least 32 and 4",
        )
    on_device = FaceBatches.on_device(faces.pixels(), faces.table, device)
    return Sample(on_device, train, val, folder, faces.image_px).first(n)
