"""Detectors for tests: they see white rectangles, and need neither a model nor OpenCV."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmark.data.crop import DetectorChoice, FoundFace

LEVEL = 200


class WhiteRectangles:
    """Finds what is white and connected."""

    name = "white-1"

    def __init__(self, model: Path | None = None) -> None:
        self.model = model

    def find(self, pixels: NDArray[np.uint8], threshold: float) -> list[FoundFace]:
        rectangles = ndimage.find_objects(ndimage.label((pixels > LEVEL).all(axis=2))[0])
        places = [(x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in rectangles]
        return [FoundFace(*map(float, place), score=0.9) for place in places]


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
