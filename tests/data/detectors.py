"""Detectors for tests: they see white rectangles, and need neither a model nor OpenCV."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmark.data.crop import DetectorChoice, FoundFace

LEVEL = 200


class WhiteRectangles:
    """Finds runs of white columns; each is a face as high as its white rows."""

    name = "white-1"

    def __init__(self, model: Path | None = None) -> None:
        self.model = model

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> list[FoundFace]:
        white = (pixels > LEVEL).all(axis=2)
        columns = np.flatnonzero(white.any(axis=0))
        found = []
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
            if len(run):
                rows = np.flatnonzero(white[:, run].any(axis=1))
                size = (float(len(run)), float(np.ptp(rows) + 1))
                found.append(FoundFace(float(run[0]), float(rows[0]), *size, score=0.9))
        return found


def not_a_detector(model: Path | None) -> object:
    return model


WHITE = DetectorChoice("tests.data.detectors:WhiteRectangles")


def scene(
    *boxes: tuple[int, int, int, int], size: tuple[int, int] = (120, 80), colour: str = "white"
) -> Image.Image:
    """A black picture with white rectangles: left, top, right, bottom."""
    picture = Image.new("RGB", size, "black")
    for box in boxes:
        picture.paste(colour, box)
    return picture
