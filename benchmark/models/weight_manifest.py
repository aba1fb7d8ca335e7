"""Published weight files: names, checksums, tensor digests, required input.

The manifest: which published weight files exist, and what each demands of a network.

Only facts, no files: finding, fetching and converting them is for weights, download and conversion.

Where converted weights lie. Without torch: a table of what is missing must not wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final

from benchmark.architectures import architecture_named
from benchmark.models.preprocessing import (
    CAFFE,
    CENTRED,
    IMAGENET,
    KERAS_CAFFE,
    VGGFACE,
    Preprocessing,
)


def stored_path(architecture: str, source: str, weights_dir: Path) -> Path:
    """Say where the converted file of a source belongs; a colon is no part of a file's name."""
    return weights_dir / f"{architecture}-{source.replace(':', '-')}.safetensors"


NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class TensorDigest:
    """What tells weights by their values (benchmark.models.weight_formats.tensor_digest)."""

    N_DIGITS: ClassVar = 12

    whole: str
    """sha256 over all converted tensors, in hex."""
    tensors: Mapping[str, str]
    """Tensor of our trunk → the first digits of its own sha256: they name what was altered."""

    def altered(self, other: TensorDigest) -> list[str]:
        """Name our tensors whose values differ in `other`."""
        return [name for name, sha256 in self.tensors.items() if other.tensors.get(name) != sha256]


def _digests() -> dict[str, TensorDigest]:
    """Read the digests of the published files that were to be had, by file name."""
    path = Path(__file__).with_name("tensor_digests.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: TensorDigest(**digest) for name, digest in content.items()}


DIGESTS: Final = _digests()


@dataclass(frozen=True)
class PublishedFile:
    """One file that somebody published, and what a network must do to use it as it was trained."""

    architecture: str
    source: str
    file_name: str
    """Under which it is known here; that of its address, or the name of the model behind it."""
    url: str
    layout: str
    """Name of a layout of `architecture`: benchmark.models.weight_formats."""
    licence: str
    trained_on: str
    preprocessing: Preprocessing
    sha256: str | None = None
    """Of the whole file, in hex; only its first digits where no more was published."""
    md5: str | None = None
    """Of the whole file, where its publisher gives that and no sha256."""
    options: Mapping[str, str] = field(default_factory=lambda: NO_OPTIONS)
    """Of the trunk: benchmark.models.chains.OPTIONS."""

    @property
    def digest(self) -> TensorDigest | None:
        """Of its converted tensors, by which it is known in any container; None where not known."""
        return DIGESTS.get(self.file_name)

    @property
    def is_summed_up(self) -> bool:
        """Whether its publisher says by a sum which file it is; else its first copy is pinned."""
        return self.sha256 is not None or self.md5 is not None

    @property
    def has_whole_sha256(self) -> bool:
        """Whether the published sum alone tells it from every other file."""
        return self.sha256 is not None and len(self.sha256) == 64


_TORCHVISION: Final = "https://download.pytorch.org/models/"
_KERAS: Final = "https://storage.googleapis.com/tensorflow/keras-applications/"
_KERAS_VGGFACE: Final = "https://github.com/rcmalli/keras-vggface/releases/download/v2.0/"
_KERAS_SQUEEZENET: Final = "https://github.com/rcmalli/keras-squeezenet/releases/download/v1.0/"
_OXFORD: Final = "http://www.robots.ox.ac.uk/"
_HUB: Final = "https://huggingface.co/"


def _by_torchvision(architecture: str, sha256: str, **options: str) -> PublishedFile:
    """Give torchvision's IMAGENET1K_V1; the file's name has the first digits of its sha256."""
    name = f"{architecture}-{sha256}.pth"
    return PublishedFile(
        architecture=architecture,
        source="imagenet",
        file_name=name,
        url=_TORCHVISION + name,
        layout="torchvision",
        licence="BSD-3-Clause",
        trained_on="ImageNet-1k, by torchvision",
        preprocessing=IMAGENET,
        sha256=sha256,
        options=MappingProxyType(options),
    )


def _by_keras(architecture: str, md5: str) -> PublishedFile:
    """Give keras.applications' file without the classifier; the md5 is that of its own source."""
    name = f"{architecture}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return PublishedFile(
        architecture=architecture,
        source="imagenet",
        file_name=name,
        url=f"{_KERAS}{architecture}/{name}",
        layout="keras",
        licence="CC BY 4.0",
        trained_on="ImageNet-1k, by Oxford's VGG in Caffe",
        preprocessing=KERAS_CAFFE,
        md5=md5,
    )


def _vggface(file_name: str, url: str, layout: str, preprocessing: Preprocessing) -> PublishedFile:
    return PublishedFile(
        architecture="vgg16",
        source="vggface",
        file_name=file_name,
        url=url,
        layout=layout,
        licence="CC BY-NC 4.0",
        trained_on="VGG Face, 2,622 people, by Oxford's VGG",
        preprocessing=preprocessing,
    )


def _by_timm(
    architecture: str, tag: str, preprocessing: Preprocessing, licence: str, hub_id: str = ""
) -> PublishedFile:
    """Give the file that timm fetches for `architecture.tag`, whose tag says: ImageNet-1k alone.

    All such files have the same name at their addresses, so that of the model stands for it here.
    """
    name = f"{architecture}.{tag}"
    return PublishedFile(
        architecture=architecture,
        source="imagenet",
        file_name=f"{name}.safetensors",
        url=f"{_HUB}{hub_id or f'timm/{name}'}/resolve/main/model.safetensors",
        layout="timm",
        licence=licence,
        trained_on=f"ImageNet-1k, timm's {tag}",
        preprocessing=preprocessing,
    )


# (x - 0.5) / 0.5, as the first vision transformers of timm were fed.
_HALVES: Final = Preprocessing("RGB", 1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_SQUEEZENET_H5: Final = "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
_VGGFACE_H5: Final = "rcmalli_vggface_tf_notop_vgg16.h5"

FILES: Final[tuple[PublishedFile, ...]] = (
    PublishedFile(
        architecture="squeezenet1_1",
        source="imagenet",
        file_name=_SQUEEZENET_H5,
        url=_KERAS_SQUEEZENET + _SQUEEZENET_H5,
        layout="keras",
        sha256="17154246284f555591549ac2c83e127abfbf4307dc4b0060fdaa2931d0fa38da",
        licence="MIT",
        trained_on="ImageNet-1k, by the SqueezeNet authors in Caffe",
        # As published. Faces do not tell the channel orders apart: docs/notes/channel_order.md.
        preprocessing=CAFFE,
        options=MappingProxyType({"pooling": "floor"}),
    ),
    _by_torchvision("squeezenet1_1", "b8a52dc0", pooling="ceil"),
    # What the study itself started from: keras.applications with weights="imagenet".
    _by_keras("vgg16", md5="6d6bbae143d832006294945121d1f1fc"),
    _by_torchvision("vgg16", "397923af"),
    # The study's own again, then the same network as others ported it.
    _vggface(_VGGFACE_H5, _KERAS_VGGFACE + _VGGFACE_H5, "keras_vggface", VGGFACE),
    _vggface(
        "vgg_face_dag.pth",
        f"{_OXFORD}~albanie/models/pytorch-mcn/vgg_face_dag.pth",
        "vgg_face_dag",
        VGGFACE.swapped(),
    ),
    _by_keras("vgg19", md5="253f8cb515780f3b799900260a226db6"),
    _by_torchvision("vgg19", "dcbb9e9d"),
    _by_torchvision("resnet50", "0676ba61"),
    _by_torchvision("densenet121", "a639ec97"),
    _by_torchvision("mobilenet_v2", "b0353104"),
    _by_timm("convnext_tiny", "fb_in1k", IMAGENET, "Apache-2.0"),
    _by_timm("efficientnet_b0", "ra_in1k", IMAGENET, "Apache-2.0"),
    _by_timm("mobilenetv4_conv_small", "e2400_r224_in1k", IMAGENET, "Apache-2.0"),
    _by_timm("vit_small_patch16_224", "augreg_in1k", _HALVES, "Apache-2.0"),
)
"""In the order in which they are tried, source by source: VGG's by Keras first, because those
are what the study started from, and only they make a row of ours the study's."""


@dataclass(frozen=True)
class UntrainedStart:
    """How a trunk without weights is laid out and fed."""

    preprocessing: Preprocessing
    options: Mapping[str, str]


def untrained_start(architecture: str) -> UntrainedStart:
    """Say how an architecture starts from nothing."""
    # Laid out as with weights, so that the two arms differ in nothing else.
    options = {"pooling": "floor"} if architecture == "squeezenet1_1" else {}
    return UntrainedStart(CENTRED, MappingProxyType(options))


def files_for(architecture: str, source: str) -> tuple[PublishedFile, ...]:
    """List the published files of a weight source, in the order in which they are tried.

    What timm knows of an architecture that is not in FILES is asked of timm. Raise ExperimentError
    for an unknown architecture.
    """
    wanted = (architecture, source)
    listed = tuple(file for file in FILES if (file.architecture, file.source) == wanted)
    if listed or source != "imagenet" or not architecture_named(architecture).from_timm:
        return listed
    return _asked_of_timm(architecture)


def _asked_of_timm(architecture: str) -> tuple[PublishedFile, ...]:
    from benchmark import timm_models

    known = timm_models.pretrained(architecture)
    if known is None:
        return ()
    preprocessing = Preprocessing("RGB", 1 / 255, known.mean, known.std)
    licence = known.licence or "not stated"
    return (_by_timm(architecture, known.tag, preprocessing, licence, known.hub_id),)
