"""What weights demand of their input, and the module that gives it to them.

Pictures arrive as RGB, 0 to 255, at any size; everything between that and the first convolution
is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from benchmark.errors import DataError, WeightsError

Channels = Literal["RGB", "BGR"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """`(pixel * scale - mean) / std` per channel, pixel in 0..255, in the order of `channels`."""

    channels: Channels
    scale: float
    mean: Triple
    std: Triple

    def __post_init__(self) -> None:
        sound = (
            self.channels in ("RGB", "BGR")
            and len(self.mean) == len(self.std) == 3
            and all(map(math.isfinite, (self.scale, *self.mean, *self.std)))
            and self.scale > 0
            and min(self.std) > 0
        )
        if not sound:
            raise WeightsError(
                f"preprocessing is {asdict(self)}",
                allowed="RGB or BGR, a scale above 0, three finite means, three std above 0",
            )

    def swapped(self) -> Preprocessing:
        """Exchange red and blue; each colour keeps its own mean and std."""
        channels: Channels = "BGR" if self.channels == "RGB" else "RGB"
        return Preprocessing(channels, self.scale, self.mean[::-1], self.std[::-1])

    def as_dict(self) -> dict[str, Any]:
        """Give plain JSON-able values; `from_dict` reads them back."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what `as_dict` wrote; raise WeightsError for anything else."""
        try:
            mean, std = (cast(Triple, tuple(map(float, values[name]))) for name in ("mean", "std"))
            return cls(values["channels"], float(values["scale"]), mean, std)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"preprocessing {dict(values)!r} cannot be read ({error})",
                allowed="channels, scale, mean and std",
            ) from None

    def sentence(self) -> str:
        """Say it as a person would: order, range, mean, deviation."""
        pairs = [*zip(self.mean, self.std, strict=True)]
        low = min((0 - mean) / std for mean, std in pairs)
        high = max((255 * self.scale - mean) / std for mean, std in pairs)
        return f"{self.channels}, {low:.4g} to {high:.4g}"


IMAGENET: Final = Preprocessing("RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's and timm's: mean and deviation of ImageNet pixels in 0..1."""

_ONES: Final = (1.0, 1.0, 1.0)
CAFFE: Final = Preprocessing("BGR", 1.0, (104.006, 116.669, 122.679), _ONES)
"""Caffe's: blue first, 0 to 255 minus ImageNet's mean (README of rcmalli/keras-squeezenet)."""

KERAS_CAFFE: Final = Preprocessing("BGR", 1.0, (103.939, 116.779, 123.68), _ONES)
"""What Keras calls `caffe`: blue first, 0 to 255 minus ImageNet's mean, in digits of its own
(keras/applications/imagenet_utils.py)."""

VGGFACE: Final = Preprocessing("BGR", 1.0, (93.594, 104.7624, 129.1863), _ONES)
"""VGG Face's: blue first, 0 to 255 minus the mean face (keras-vggface, `version=1`)."""

UNIT: Final = Preprocessing("RGB", 1 / 255, (0.0, 0.0, 0.0), _ONES)
"""The study's for every network: RGB / 255, nothing else (notebooks, §2)."""

CENTRED: Final = Preprocessing("RGB", 1 / 127.5, _ONES, _ONES)
"""Ours for networks that start from nothing: -1 to 1, fixed, so that no face set's own mean
enters the network."""

PRESETS: Final = {
    "imagenet": IMAGENET, "caffe": KERAS_CAFFE, "vggface": VGGFACE, "unit": UNIT,
    "centred": CENTRED,
}  # fmt: skip
"""By the names under which a person asks for them."""

UNIT_MINUS_MEAN: Final = Preprocessing(
    "RGB", 1 / 255, (91.4953 / 255, 103.8827 / 255, 131.0912 / 255), _ONES
)
"""The study's early rows': VGGFace2's mean in the order BGR, taken from RGB (notebooks, §7.7)."""


def preprocessing_for(demanded: Preprocessing, input_scaling: str) -> Preprocessing:
    """Choose by the protocol's input scaling (benchmark.experiment.parts.Protocol)."""
    own = {"weights": demanded, "weights_swapped": demanded.swapped()}
    return (own | {"unit": UNIT, "unit_minus_mean": UNIT_MINUS_MEAN})[input_scaling]


SAME_LAYER_COSINE: Final = 0.9
"""Fine-tuning turns a first layer little; two that were trained apart have a cosine near 0."""
CLEARLY: Final = 2.0
"""So many times as large must the angle to the other channel order be."""


def order_of(
    tensors: Mapping[str, Tensor], known: Mapping[str, Tensor], channels: Channels
) -> Channels | None:
    """Say which order a backbone expects if its first layer is that of `known`, which expects
    `channels`, in one of the two orders; None if it is neither."""
    # The first layer reads the picture: a kernel (out, 3, h, w).
    name = next(name for name, it in tensors.items() if it.ndim == 4 and it.shape[1] == 3)
    kernel, theirs = tensors[name].double(), known[name].double()
    other: Channels = "BGR" if channels == "RGB" else "RGB"
    flat = kernel.flatten()
    cosines = (cosine_similarity(flat, it.flatten(), 0) for it in (theirs, theirs.flip(1)))
    same, turned = (math.acos(min(1.0, max(-1.0, float(cosine)))) for cosine in cosines)
    near, far = sorted((same, turned))
    is_this = near <= math.acos(SAME_LAYER_COSINE) and far >= CLEARLY * near + 1e-6
    return (channels if same < turned else other) if is_this else None


class InputScaling(nn.Module):
    """Map RGB pictures of 0..255 to what the weights demand, at the size the backbone takes.

    The constants are not part of the state dict: a network is described by `Network.describe`,
    and a state dict of another preprocessing must not change this one silently. They are as wide as
    a picture, (1, 3, 1, input_px): a processor multiplies a whole row at once, where three numbers,
    a pixel's, would be multiplied one by one.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, preprocessing: Preprocessing, input_px: int) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.input_px = input_px
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        for name, values in {"factor": preprocessing.scale / std, "offset": -mean / std}.items():
            row = values.view(1, 3, 1, 1).expand(1, 3, 1, input_px)
            row = row.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name, row, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scale images (n, 3, h, w), RGB 0..255, uint8 or float, to (n, 3, input_px, input_px).

        The result is float32 and keeps the memory format. Faces of another size are resized
        bilinearly with antialiasing, before scaling.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            shape = tuple(images.shape)
            raise DataError(f"a batch of shape {shape}", allowed="(n, 3, height, width), RGB")
        if self.preprocessing.channels == "BGR":
            # flip, not indexing: it keeps channels_last, and moves one byte a value.
            images = images.flip(1)
        pixels, size = images.float(), (self.input_px, self.input_px)
        if pixels.shape[-2:] != size:
            pixels = nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        return (pixels * self.factor).add_(self.offset)
