"""How weights are fed, and which weight files are published, with checksums and tensor digests.

Pictures arrive as RGB, 0 to 255, at any size; what weights demand instead is a Preprocessing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

from benchmark.errors import WeightsError
from benchmark.experiment.architectures import architecture_named

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
        is_known = self.channels in ("RGB", "BGR") and len(self.mean) == len(self.std) == 3
        is_finite = all(map(math.isfinite, (self.scale, *self.mean, *self.std)))
        if not is_known or not is_finite or min(self.scale, *self.std) <= 0:
            raise ValueError("a value is not allowed")

    def swapped(self) -> Preprocessing:
        """Exchange red and blue; each colour keeps its own mean and std."""
        channels: Channels = "BGR" if self.channels == "RGB" else "RGB"
        return Preprocessing(channels, self.scale, self.mean[::-1], self.std[::-1])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what `asdict` gave and JSON kept; raise WeightsError for anything else."""
        try:
            mean, std = (cast(Triple, tuple(map(float, values[name]))) for name in ("mean", "std"))
            return cls(values["channels"], float(values["scale"]), mean, std)
        except (KeyError, TypeError, ValueError) as error:
            found = f"preprocessing {dict(values)!r} cannot be read ({error})"
            allowed = "RGB or BGR channels, scale above 0, three finite means, three std above 0"
            raise WeightsError(found, allowed=allowed) from None

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
"""Ours for networks that start from nothing: -1 to 1, whatever the mean of a face set is."""

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


def stored_path(architecture: str, source: str, weights_dir: Path) -> Path:
    """Say where the converted file of a source belongs; a colon is no part of a file's name."""
    return weights_dir / f"{architecture}-{source.replace(':', '-')}.safetensors"


TensorDigest = dict[str, Any]
"""`whole`: sha256 over all converted tensors (benchmark.models.weight_formats.tensor_digest);
`tensors`: the first digits of each one's own, by its name in our backbone."""
DIGESTS: Final[dict[str, TensorDigest]] = json.loads(
    Path(__file__).with_name("tensor_digests.json").read_text(encoding="utf-8")
)
"""Of the published files that could be had, by file name."""


@dataclass(frozen=True)
class PublishedFile:
    """One published file, and what a network must do to use it as it was trained."""

    architecture: str
    source: str
    file_name: str
    """By which it is known here: that of its address, or the name of the model behind it."""
    url: str
    layout: str
    """Name of a layout of `architecture`: benchmark.models.weight_formats."""
    licence: str
    trained_on: str
    preprocessing: Preprocessing
    sha256: str | None = None
    """Of the whole file, in hex; only its first digits where no more was published."""
    md5: str | None = None
    """Of the whole file, where no sha256 is published; without either, its name must say it."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Of the backbone: benchmark.models.backbone.OPTIONS."""

    @property
    def digest(self) -> TensorDigest | None:
        """Of its converted tensors, by which it is known in any container; None where not known."""
        return DIGESTS.get(self.file_name)

    def is_file(self, file: Path, sha256: str, *, by_name: bool) -> bool:
        """Whether a file is this one by its checksum; where none is published, by its name."""
        if self.sha256 is not None:
            return sha256.startswith(self.sha256)
        if self.md5 is not None:  # guards against accidents, hardly against an attacker
            return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() == self.md5
        return by_name and file.name == self.file_name


_KERAS: Final = "https://storage.googleapis.com/tensorflow/keras-applications/"
_RCMALLI: Final = "https://github.com/rcmalli/"
_SQUEEZENET_H5: Final = "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
# (x - 0.5) / 0.5, as the first vision transformers of timm were fed.
_HALVES: Final = Preprocessing("RGB", 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


# fmt: off
def _by_torchvision(architecture: str, sha256: str, **options: str) -> PublishedFile:
    # IMAGENET1K_V1; the file's name has the first digits of its sha256.
    name = f"{architecture}-{sha256}.pth"
    return PublishedFile(
        architecture, "imagenet", name, f"https://download.pytorch.org/models/{name}",
        "torchvision", "BSD-3-Clause", "ImageNet-1k, by torchvision", IMAGENET,
        sha256=sha256, options=options)


def _by_keras(architecture: str, md5: str) -> PublishedFile:
    # Of keras.applications, without the classifier; the md5 is that of its own source.
    name = f"{architecture}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return PublishedFile(
        architecture, "imagenet", name, f"{_KERAS}{architecture}/{name}", "keras", "CC BY 4.0",
        "ImageNet-1k, by Oxford's VGG in Caffe", KERAS_CAFFE, md5=md5)


def _vggface(name: str, folder: str, layout: str, preprocessing: Preprocessing) -> PublishedFile:
    return PublishedFile(
        "vgg16", "vggface", name, f"{folder}/{name}", layout, "CC BY-NC 4.0",
        "VGG Face, 2,622 people, by Oxford's VGG", preprocessing)


def _by_timm(
    architecture: str, tag: str, preprocessing: Preprocessing = IMAGENET,
    licence: str = "Apache-2.0", hub_id: str = "",
) -> PublishedFile:
    # The tag says: ImageNet-1k alone. All such files have one name at their addresses, so that of
    # the model stands for it here.
    name = f"{architecture}.{tag}"
    url = f"https://huggingface.co/{hub_id or f'timm/{name}'}/resolve/main/model.safetensors"
    return PublishedFile(
        architecture, "imagenet", f"{name}.safetensors", url, "timm", licence,
        f"ImageNet-1k, timm's {tag}", preprocessing)


FILES: Final[tuple[PublishedFile, ...]] = (
    # Fed as published. Faces do not tell the channel orders apart: docs/notes/channel_order.md.
    PublishedFile(
        "squeezenet1_1", "imagenet", _SQUEEZENET_H5,
        f"{_RCMALLI}keras-squeezenet/releases/download/v1.0/{_SQUEEZENET_H5}", "keras", "MIT",
        "ImageNet-1k, by the SqueezeNet authors in Caffe", CAFFE,
        sha256="17154246284f555591549ac2c83e127abfbf4307dc4b0060fdaa2931d0fa38da",
        options={"pooling": "floor"},
    ),
    _by_torchvision("squeezenet1_1", "b8a52dc0", pooling="ceil"),
    # What the study itself started from: keras.applications with weights="imagenet".
    _by_keras("vgg16", md5="6d6bbae143d832006294945121d1f1fc"),
    _by_torchvision("vgg16", "397923af"),
    # The study's own again, then the same network as others ported it.
    _vggface("rcmalli_vggface_tf_notop_vgg16.h5", f"{_RCMALLI}keras-vggface/releases/download/v2.0",
             "keras_vggface", VGGFACE),
    _vggface("vgg_face_dag.pth", "http://www.robots.ox.ac.uk/~albanie/models/pytorch-mcn",
             "vgg_face_dag", VGGFACE.swapped()),
    _by_keras("vgg19", md5="253f8cb515780f3b799900260a226db6"),
    _by_torchvision("vgg19", "dcbb9e9d"),
    _by_torchvision("resnet50", "0676ba61"),
    _by_torchvision("densenet121", "a639ec97"),
    _by_torchvision("mobilenet_v2", "b0353104"),
    _by_timm("convnext_tiny", "fb_in1k"),
    _by_timm("efficientnet_b0", "ra_in1k"),
    _by_timm("mobilenetv4_conv_small", "e2400_r224_in1k"),
    _by_timm("vit_small_patch16_224", "augreg_in1k", _HALVES),
)
# fmt: on
"""In the order in which they are tried, source by source: VGG's by Keras first, because those
are what the study started from, and only they make a row of ours the study's."""


def files_for(architecture: str, source: str | None = None) -> tuple[PublishedFile, ...]:
    """List the published files of a weight source, or of all, in the order in which they are tried.

    Of one that is not in FILES, timm says them. Raise ExperimentError for an unknown architecture.
    """
    files = (file for file in FILES if file.architecture == architecture)
    listed = tuple(file for file in files if source in (None, file.source))
    is_asked = source in (None, "imagenet") and architecture_named(architecture).from_timm
    if listed or not is_asked:
        return listed
    from benchmark.experiment import timm_models

    if (known := timm_models.pretrained(architecture)) is None:
        return ()
    scaling: Any = (tuple(known.mean), tuple(known.std))
    preprocessing, licence = Preprocessing("RGB", 1 / 255, *scaling), known.license or "not stated"
    return (_by_timm(architecture, str(known.tag), preprocessing, licence, str(known.hf_hub_id)),)
