"""The manifest: which published weight files exist, and what each demands of a network.

Only facts, no files: finding, fetching and converting them is for weights, download and conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from benchmark.models.preprocessing import CAFFE, CENTRED, IMAGENET, Preprocessing

LayoutName = Literal["keras_squeezenet1_1", "torchvision_squeezenet1_1"]


@dataclass(frozen=True)
class PublishedFile:
    """One file that somebody published, and what a network must do to use it as it was trained."""

    architecture: str
    source: str
    file_name: str
    url: str
    layout: LayoutName
    sha256: str
    """Of the whole file, in hex; only its first digits where no more was published."""
    licence: str
    trained_on: str
    preprocessing: Preprocessing
    options: Mapping[str, str]
    """Of the trunk: benchmark.models.backbones.OPTIONS."""

    def is_this(self, sha256: str) -> bool:
        """Tell whether a file with this sum is the published one."""
        return sha256.startswith(self.sha256)


FILES: Final[tuple[PublishedFile, ...]] = (
    PublishedFile(
        architecture="squeezenet1_1",
        source="imagenet",
        file_name="squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
        url="https://github.com/rcmalli/keras-squeezenet/releases/download/v1.0/"
        "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
        layout="keras_squeezenet1_1",
        sha256="17154246284f555591549ac2c83e127abfbf4307dc4b0060fdaa2931d0fa38da",
        licence="MIT",
        trained_on="ImageNet-1k, by the SqueezeNet authors in Caffe",
        # As published. Faces do not tell the channel orders apart: docs/WEIGHTS.md.
        preprocessing=CAFFE,
        options=MappingProxyType({"pooling": "floor"}),
    ),
    PublishedFile(
        architecture="squeezenet1_1",
        source="imagenet",
        file_name="squeezenet1_1-b8a52dc0.pth",
        url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        layout="torchvision_squeezenet1_1",
        sha256="b8a52dc0",
        licence="BSD-3-Clause",
        trained_on="ImageNet-1k, by torchvision",
        preprocessing=IMAGENET,
        options=MappingProxyType({"pooling": "ceil"}),
    ),
)
"""In the order in which they are tried: first the file that docs/RESULTS.md was measured with."""


@dataclass(frozen=True)
class UntrainedStart:
    """How a trunk without weights is laid out and fed."""

    preprocessing: Preprocessing
    options: Mapping[str, str]


UNTRAINED: Final[dict[str, UntrainedStart]] = {
    "cnn": UntrainedStart(CENTRED, MappingProxyType({})),
    # Laid out as with weights, so that the two arms differ in nothing else.
    "squeezenet1_1": UntrainedStart(CENTRED, MappingProxyType({"pooling": "floor"})),
}


def files_for(architecture: str, source: str) -> tuple[PublishedFile, ...]:
    """List the published files of a weight source, in the order in which they are tried."""
    wanted = (architecture, source)
    return tuple(file for file in FILES if (file.architecture, file.source) == wanted)
