"""The same photograph in another framing is found, which the perceptual hash misses."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from benchmark.data.drawn import draw_faces
from benchmark.data.duplicates import THRESHOLD, aligned_pairs, near_pairs
from benchmark.data.pictures import SKETCH_SHAPE, THUMBNAIL_SHAPE, sketch_of, thumbnail_of

FACES = [
    # As smooth as photographs are; the emblems' fine patterns are not.
    Image.fromarray(image).filter(ImageFilter.GaussianBlur(4))
    for image in draw_faces(40, seed=3, image_px=200).images
]


def thumbnails_of(images: list[Image.Image]) -> np.ndarray:
    joined = b"".join(thumbnail_of(image) for image in images)
    return np.frombuffer(joined, np.uint8).reshape(-1, *THUMBNAIL_SHAPE)


def sketches_of(images: list[Image.Image]) -> np.ndarray:
    joined = b"".join(sketch_of(image) for image in images)
    return np.frombuffer(joined, np.uint8).reshape(-1, *SKETCH_SHAPE)


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((8, 4, 196, 192)).resize(image.size, Image.Resampling.BICUBIC)


def turned(image: Image.Image) -> Image.Image:
    return image.rotate(5, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))


@pytest.mark.parametrize("change", [cropped, turned], ids=lambda change: change.__name__)
def test_a_copy_in_another_framing_is_found(change: Callable[[Image.Image], Image.Image]) -> None:
    images = [*FACES, change(FACES[4])]
    assert len(near_pairs(sketches_of(images))) == 0  # what this detector is for
    found = aligned_pairs(thumbnails_of(images))
    assert (found.first.tolist(), found.second.tolist()) == ([4], [40])
    assert THRESHOLD <= found.correlation[0] <= 1
    assert not found.is_mirrored[0]


def test_a_mirrored_copy_in_another_framing_is_found() -> None:
    found = aligned_pairs(thumbnails_of([*FACES, ImageOps.mirror(cropped(FACES[2]))]))
    assert (found.first.tolist(), found.second.tolist()) == ([2], [40])
    assert found.is_mirrored[0]


def test_different_faces_are_no_pair_and_flat_pictures_do_no_harm() -> None:
    flat = [Image.new("RGB", (200, 200), colour) for colour in ("white", "black", "grey")]
    assert len(aligned_pairs(thumbnails_of([*FACES, *flat]))) == 0


def test_the_order_of_the_faces_does_not_matter() -> None:
    images = [*FACES, cropped(FACES[4])]
    found = aligned_pairs(thumbnails_of(images[::-1]))
    assert (found.first.tolist(), found.second.tolist()) == ([0], [36])


def test_no_faces_have_no_pairs() -> None:
    assert len(aligned_pairs(np.empty((0, *THUMBNAIL_SHAPE), np.uint8))) == 0
