"""Detectors for tests: they see white rectangles, and need neither a model nor OpenCV."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmark.data.crop import DetectorChoice, FoundFace

WHITE = DetectorChoice("tests.data.detectors:WhiteRectangles")


class WhiteRectangles:
    """Finds what is white and connected."""

    name = "white-1"

    def __init__(self, model: Path | None = None) -> None:
        """Take a model's file, as every detector does; it has none."""

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> list[FoundFace]:
        rectangles = ndimage.find_objects(ndimage.label((pixels > 200).all(axis=2))[0])
        places = [(x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in rectangles]
        return [FoundFace(*map(float, place), score=0.9) for place in places]


def not_a_detector(model: Path | None) -> object:
    return model


def scene(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (120, 80)) -> Image.Image:
    """A black picture with white rectangles: left, top, right, bottom."""
    picture = Image.new("RGB", size, "black")
    for box in boxes:
        picture.paste("white", box)
    return picture
