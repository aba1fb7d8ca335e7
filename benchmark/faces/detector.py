"""Who finds the faces in a photograph: OpenCV's YuNet, or a detector of somebody else's.

A detector is any object with `name` and `find`. An installed package offers one under the
entry-point group `facebench.detectors`, as a callable that takes the path of a model file (or None)
and gives the detector; without a package it is named as `module:callable`. What is done with what
it finds is for benchmark.faces.crop.
"""

import hashlib
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

LOOKS_PX: Final = (640, 320, 1600)
"""Longest sides at which a larger picture is looked at, until faces are found: first for people who
stand in a photograph, then close up, then far away."""

NMS_THRESHOLD: Final = 0.3
MAX_FACES: Final = 5000
"""As OpenCV's own defaults have them."""


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


class YuNet:
    """OpenCV's detector of upright faces; raises DataError without it or with another model file.

    Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine
    Intelligence Research 20 (2023); `cv2.FaceDetectorYN`. It finds faces of some 10 to 300 pixels
    (its page in opencv_zoo), so that large pictures are looked at smaller.
    """

    def __init__(self, model: Path) -> None:
        self._cv2 = _opencv()
        content = _model_bytes(model)
        self._name = f"yunet-{hashlib.sha256(content).hexdigest()[:12]}"
        try:
            self._network: Any = self._cv2.FaceDetectorYN.create(
                str(model), "", (320, 320), 0.5, NMS_THRESHOLD, MAX_FACES
            )
        except self._cv2.error as error:
            raise _not_yunet(model, error) from error
        # A file of another network loads, and fails only at work.
        try:
            self.find(np.zeros((64, 64, 3), np.uint8), 0.5)
        except self._cv2.error as error:
            raise _not_yunet(model, error) from error

    @property
    def name(self) -> str:
        """`yunet-` and the first digits of the sha256 of its model file."""
        return self._name

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> list[FoundFace]:
        """Find upright faces, (height, width, 3) RGB, at the first of the sizes that shows any."""
        longest = max(pixels.shape[:2])
        for side in dict.fromkeys(min(look, longest) for look in LOOKS_PX):
            found = self._look(pixels, side / longest, threshold)
            if found:
                return found
        return []

    def _look(self, pixels: NDArray[np.uint8], scale: float, threshold: float) -> list[FoundFace]:
        image: NDArray[Any] = pixels
        height, width = pixels.shape[:2]
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = self._cv2.resize(image, size, interpolation=self._cv2.INTER_AREA)
        image = np.ascontiguousarray(image[:, :, ::-1])  # OpenCV reads BGR
        self._network.setInputSize((image.shape[1], image.shape[0]))
        self._network.setScoreThreshold(threshold)
        faces: Any = self._network.detect(image)[1]
        if faces is None:
            return []
        across, down = width / image.shape[1], height / image.shape[0]
        return [
            FoundFace(left * across, top * down, wide * across, high * down, score)
            for left, top, wide, high, *_, score in np.asarray(faces, float).tolist()
        ]


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise DataError(
            f"OpenCV is not installed ({error})",
            allowed="the optional extra `crop`",
            fix="pip install 'facebench[crop]', or choose another --detector",
        ) from error
    # One picture a process at a time: its own threads would only get in each other's way. What it
    # logs on loading ("targets are not supported by the new graph engine") is nobody's business.
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    return cv2


def _model_bytes(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise DataError(f"the model file {model} cannot be read: {error.strerror}") from error


def _not_yunet(model: Path, error: Exception) -> DataError:
    first_line = str(error).strip().splitlines()[0]
    return DataError(
        f"{model} is not a YuNet model that OpenCV can use: {first_line}",
        allowed="face_detection_yunet of opencv_zoo, with a dynamic input size for OpenCV 5",
        fix="Name another file with --detector-model",
    )
