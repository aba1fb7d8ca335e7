"""Random changes of a batch of faces, drawn for each face by itself; labels are not touched.

The random numbers come from a generator on the CPU, so that a seed draws the same changes on
every device.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from benchmark.experiment import Augmentation


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Change every face by itself and hand the batch on as floats.

    images: (n, 3, h, w) uint8, 0..255. Returns (n, 3, h, w) float32, 0..255, the same memory
    format. Flipping comes first, while a pixel is still one byte instead of four.
    """
    n = len(images)
    if augmentation.flip:
        images = _flipped(images, _uniform(n, generator, images.device) < 0.5)
    faces = images.float()
    if augmentation.rotation_degrees:
        limit = math.radians(augmentation.rotation_degrees)
        faces = _rotated(faces, (_uniform(n, generator, faces.device) * 2 - 1) * limit)
    if augmentation.contrast:
        factor = 1 + (_uniform(n, generator, faces.device) * 2 - 1) * augmentation.contrast
        mean = faces.mean(dim=(1, 2, 3), keepdim=True)
        faces = (faces - mean) * factor.view(n, 1, 1, 1) + mean
    if augmentation.brightness:
        shift = (_uniform(n, generator, faces.device) * 2 - 1) * augmentation.brightness * 255
        faces = faces + shift.view(n, 1, 1, 1)
    changed_range = augmentation.contrast or augmentation.brightness
    return faces.clamp(0, 255) if changed_range else faces


def _uniform(n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(n, generator=generator).to(device, non_blocking=True)


def _flipped(images: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)


def _rotated(faces: Tensor, radians: Tensor) -> Tensor:
    """Rotate about the centre; corners repeat the border, so that no black wedge gives it away."""
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    rows = [torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)]
    size = [len(faces), *faces.shape[1:]]
    grid = functional.affine_grid(torch.stack(rows, 1), size, align_corners=False)
    return functional.grid_sample(
        faces, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
