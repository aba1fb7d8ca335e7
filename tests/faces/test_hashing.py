"""The same photograph is near itself, re-encoded, scaled or mirrored; others are far."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmark.data.duplicates import difference_hashes, near_pairs
from benchmark.data.pictures import read_picture
from tests.faces.sources import encoded, picture


def sketches_of(*images: Image.Image) -> np.ndarray:
    sketches = [read_picture(encoded(image, quality=90), 32)[1].sketch for image in images]
    return np.frombuffer(b"".join(sketches), np.uint8).reshape(-1, 16, 17)


def test_a_hash_says_where_the_right_neighbour_is_brighter() -> None:
    sketch = np.zeros((1, 16, 17), np.uint8)
    sketch[0, 0, 1:] = 9  # brighter once, between the first two columns of the first row
    # 1 bit of 256: the first, which is the highest of the first byte.
    assert difference_hashes(sketch).tobytes() == bytes([0b1000_0000]) + bytes(31)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((120, 120), Image.Resampling.LANCZOS),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.point(lambda level: level // 2 + 60),
    ],
)
def test_a_changed_copy_is_near(change: Callable[[Image.Image], Image.Image]) -> None:
    pairs = near_pairs(sketches_of(picture(1, 200), picture(2, 200), change(picture(1, 200))))
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0], [2])
    assert not pairs.is_mirrored[0]


def test_a_mirrored_copy_is_near_and_known_as_mirrored() -> None:
    pairs = near_pairs(sketches_of(picture(1, 200), ImageOps.mirror(picture(1, 200))))
    assert pairs.is_mirrored.tolist() == [True]


def test_a_picture_like_its_own_mirror_image_pairs_once() -> None:
    # Both ways near; the upright distance, 0, is the smaller or the first of two equal ones.
    half = np.random.default_rng(0).integers(0, 256, (16, 8), dtype=np.uint8)
    sketch = np.concatenate([half, np.full((16, 1), 128, np.uint8), half[:, ::-1]], axis=1)
    pairs = near_pairs(np.stack([sketch, sketch]))
    assert (len(pairs), pairs.distance_bits[0], pairs.is_mirrored[0]) == (1, 0, False)


def test_all_pairs_are_found_that_a_plain_loop_finds() -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (10, 16, 17), dtype=np.uint8)
    sketches = np.concatenate([base, base])  # 100 faces, near ones and far ones in other blocks
    sketches = np.concatenate([sketches + np.uint8(0)] * 5)
    noise = rng.integers(0, 60, sketches.shape)
    sketches = np.clip(sketches + noise, 0, 255).astype(np.uint8)
    bits = (sketches[:, :, 1:] > sketches[:, :, :-1]).reshape(100, 256)
    expected = [
        (i, j, int((bits[i] != bits[j]).sum()))
        for i in range(100)
        for j in range(i + 1, 100)
        if (bits[i] != bits[j]).sum() <= 40
    ]
    pairs = near_pairs(sketches, threshold_bits=40)
    upright = ~pairs.is_mirrored
    found = zip(
        pairs.first[upright], pairs.second[upright], pairs.distance_bits[upright], strict=True
    )
    assert sorted(found) == expected
    assert len(expected) > 50


@pytest.mark.parametrize("n_faces", [0, 1])
def test_too_few_faces_have_no_pairs(n_faces: int) -> None:
    assert len(near_pairs(np.zeros((n_faces, 16, 17), np.uint8))) == 0
