"""YuNet by OpenCV, the default detector; the one place that imports OpenCV.

Source: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine
Intelligence Research 20 (2023); `cv2.FaceDetectorYN`. It finds faces of some 10 to 300 pixels (its
page in opencv_zoo), so that large pictures are looked at smaller.
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import DataError
from benchmark.faces.detector import FoundFace

LOOKS_PX: Final = (640, 320, 1600)
"""Longest sides at which a larger picture is looked at, until faces are found: first for people who
stand in a photograph, then close up, then far away."""

NMS_THRESHOLD: Final = 0.3
MAX_FACES: Final = 5000
"""As OpenCV's own defaults have them."""


class YuNet:
    """A detector of upright faces; raises DataError without OpenCV or with another model file."""

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
