"""Who finds the faces in a photograph: OpenCV's YuNet, or a detector of somebody else's.

A detector is any object with `name` and `find`. An installed package offers one under the
entry-point group `facebench.detectors`, as a callable that takes the path of a model file (or None)
and gives the detector; without a package it is named as `module:callable`. What is done with what
it finds is for benchmark.faces.crop.
"""

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import DataError

ENTRY_POINT_GROUP: Final = "facebench.detectors"
YUNET: Final = "yunet"
MODEL_PATTERN: Final = "*yunet*.onnx"
MODEL_SOURCE: Final = (
    "Get the YuNet model file (MIT licence) from github.com/opencv/opencv_zoo, "
    "models/face_detection_yunet, and name it with --detector-model or put it into the weights "
    "folder"
)


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face that a detector saw: its box in pixels from the top left corner, and how surely.

    The box may reach beyond the picture.
    """

    left: float
    top: float
    width: float
    height: float
    score: float
    """0 to 1, as the detector counts."""


@runtime_checkable
class Detector(Protocol):
    """What finds faces. One object serves one thread."""

    @property
    def name(self) -> str:
        """What it is and of which version; crops by another name are other crops."""
        ...

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> Sequence[FoundFace]:
        """Find the faces of a picture, (height, width, 3) RGB, with scores from `threshold` on."""
        ...


@dataclass(frozen=True, slots=True)
class DetectorChoice:
    """Which detector, by a name that every process can load it by."""

    name: str = YUNET
    """`yunet`, the name of an entry point, or `module:callable`."""
    model: Path | None = None
    """Its model file; for YuNet the only one in `weights_dir` if left out."""
    weights_dir: Path | None = None

    @classmethod
    def here(cls) -> "DetectorChoice":
        """Choose as the command line does where no option says otherwise."""
        model = os.environ.get("FACEBENCH_DETECTOR_MODEL")
        weights_dir = os.environ.get("FACEBENCH_WEIGHTS_DIR", "data/weights")
        return cls(model=Path(model) if model else None, weights_dir=Path(weights_dir))


def load_detector(choice: DetectorChoice | None = None) -> Detector:
    """Load the detector chosen; raise DataError if it, its package or its model is not there."""
    choice = choice or DetectorChoice()
    if choice.name == YUNET:
        from benchmark.faces.detector_yunet import YuNet

        return YuNet(_yunet_model(choice))
    if choice.model is not None and not choice.model.is_file():
        raise DataError(f"the model file {choice.model} does not exist", allowed="an existing file")
    detector: object = _factory(choice.name)(choice.model)
    if not isinstance(detector, Detector):
        raise DataError(
            f"detector {choice.name!r} gave {type(detector).__name__}",
            allowed="an object with `name` and `find(pixels, threshold)`",
            source="benchmark.faces.detector.Detector",
        )
    return detector


def _yunet_model(choice: DetectorChoice) -> Path:
    if choice.model is not None:
        if not choice.model.is_file():
            raise DataError(f"the model file {choice.model} does not exist", fix=MODEL_SOURCE)
        return choice.model
    folder = choice.weights_dir
    found = sorted(folder.glob(MODEL_PATTERN)) if folder is not None else []
    if len(found) == 1:
        return found[0]
    listed = ", ".join(path.name for path in found)
    raise DataError(
        f"{len(found)} model files of YuNet are there: {listed}"
        if found
        else "the model file of YuNet is missing",
        allowed=f"one file {MODEL_PATTERN}",
        source=str(folder) if folder is not None else "",
        fix="Name one with --detector-model" if found else MODEL_SOURCE,
    )


def _factory(name: str) -> Any:
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    try:
        if name in points:
            factory = points[name].load()
        elif ":" in name:
            module, attribute = name.split(":", 1)
            factory = getattr(importlib.import_module(module), attribute)
        else:
            raise DataError(
                f"there is no detector {name!r}",
                allowed=", ".join([YUNET, *sorted(points), "module:callable"]),
                source=f"entry points {ENTRY_POINT_GROUP}",
            )
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"detector {name!r} cannot be loaded: {error}",
            allowed="an entry point, or module:callable",
            fix="Install its package into this environment",
        ) from error
    return factory
