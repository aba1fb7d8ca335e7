"""Random changes of a batch of faces, drawn for each face by itself; labels are not touched.

The random numbers come from a generator on the CPU, so that a seed draws the same changes on
every device.
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.experiment import Augmentation

Draws = Mapping[str, Tensor]
"""Per kind of change, (n,) uniform in [0, 1): what a batch's faces drew."""


def draw(augmentation: Augmentation, n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw for each of `n` faces what decides on its changes, on the CPU."""
    asked = {
        "flip": augmentation.flip,
        "rotation": augmentation.rotation_degrees,
        "contrast": augmentation.contrast,
        "brightness": augmentation.brightness,
    }
    return {
        name: torch.rand(n, generator=generator) for name, is_asked in asked.items() if is_asked
    }


def draw_epoch(
    augmentation: Augmentation, sizes: Iterable[int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw for the faces of batches of these sizes, one batch after another: (all faces,) each."""
    batches = [draw(augmentation, n, generator) for n in sizes]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Change every face by itself and hand the batch on as floats.

    images: (n, 3, h, w) uint8, 0..255, in channels-last memory, as `FaceBatches.images` gives
    them. Returns (n, 3, h, w) float32, 0..255, in the same.
    """
    draws = draw(augmentation, len(images), generator)
    drawn = {name: values.to(images.device) for name, values in draws.items()}
    return changed(images, augmentation, drawn)


def changed(images: Tensor, augmentation: Augmentation, draws: Draws) -> Tensor:
    """Change faces as they drew: draws as of `draw`, on the device of the images.

    Flipping comes first, while a pixel is still one byte instead of four. Nothing here depends on
    a value on the host, so that a CUDA graph can hold it.
    """
    n = len(images)
    if augmentation.flip:
        images = _flipped(images, is_mirrored(draws))
    faces = images.float()
    if augmentation.rotation_degrees:
        limit = math.radians(augmentation.rotation_degrees)
        faces = _rotated(faces, (draws["rotation"] * 2 - 1) * limit)
    if augmentation.contrast:
        factor = 1 + (draws["contrast"] * 2 - 1) * augmentation.contrast
        mean = faces.mean(dim=(1, 2, 3), keepdim=True)
        faces = (faces - mean) * factor.view(n, 1, 1, 1) + mean
    if augmentation.brightness:
        shift = (draws["brightness"] * 2 - 1) * augmentation.brightness * 255
        faces = faces + shift.view(n, 1, 1, 1)
    changed_range = augmentation.contrast or augmentation.brightness
    return faces.clamp(0, 255) if changed_range else faces


def is_mirrored(draws: Draws) -> Tensor:
    """Tell which faces drew to be mirrored: (n,) bool."""
    return draws["flip"] < 0.5


def _flipped(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen of faces: images (n, 3, h, w) uint8, chosen (n,) bool."""
    as_is, mirrored = in_words(images), in_words(images.flip(-1))
    picked = torch.where(chosen.view(-1, 1), mirrored, as_is).view(torch.uint8)
    n, channels, height, width = images.shape
    return picked.view(n, height, width, channels).permute(0, 3, 1, 2)


def in_words(images: Tensor) -> Tensor:
    """View faces as rows of the widest whole numbers that they fill: (n, words).

    A choice between two words takes as long as one between two bytes.
    """
    rows = images.permute(0, 2, 3, 1).flatten(1)
    words = (torch.int64, torch.int32, torch.int16)
    fitting = (word for word in words if rows.shape[1] % word.itemsize == 0)
    return rows.view(next(fitting, torch.uint8))


def _rotated(faces: Tensor, radians: Tensor) -> Tensor:
    """Rotate about the centre; corners repeat the border, so that no black wedge gives it away."""
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    rows = [torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)]
    size = [len(faces), *faces.shape[1:]]
    grid = functional.affine_grid(torch.stack(rows, 1), size, align_corners=False)
    return functional.grid_sample(
        faces, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
