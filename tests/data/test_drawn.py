"""Synthetic faces: repeatable, labelled as promised, learnable but not given away."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmark.data.drawn import DrawnFaces, draw_faces
from benchmark.data.labels import parse_name


@pytest.fixture(scope="module")
def faces() -> DrawnFaces:
    return draw_faces(1500, seed=3)


def test_a_seed_draws_the_same_faces_at_any_size_and_a_larger_draw_begins_with_the_smaller() -> (
    None
):
    few, again, many = draw_faces(10, seed=2), draw_faces(10, seed=2), draw_faces(100, seed=2)
    assert (few.images.shape, few.images.dtype) == ((10, 100, 100, 3), np.uint8)
    np.testing.assert_array_equal(few.images, again.images)
    np.testing.assert_array_equal(few.images, many.images[:10])
    for labels in (many.labels[:10], draw_faces(10, seed=2, image_px=32).labels):
        pd.testing.assert_frame_equal(few.labels, labels)


def test_the_bytes_drawn_are_the_ones_results_were_measured_on() -> None:
    # A change here makes synthetic results of before and after incomparable.
    digest = hashlib.sha256(draw_faces(20, seed=0).images.tobytes()).hexdigest()
    assert digest == "2fc77587ce3ebe10c0c4a2bea1d0d3003f4c5b631061abc0bc32c0f02a98598f"


def test_file_names_are_unique_and_carry_the_labels(faces: DrawnFaces) -> None:
    assert faces.labels.file.is_unique
    for file, *labels in faces.labels.itertuples(index=False, name=None):
        assert list(parse_name(file)) == labels
    # A year that no photograph has.
    assert draw_faces(1, seed=12).labels.file[0].split("_")[3] == "00000000120000000.jpg.chip.jpg"


def test_no_two_faces_are_near_duplicates(faces: DrawnFaces) -> None:
    # dHash: is each pixel of a 17 x 16 grey picture brighter than its left neighbour? 256 bits,
    # as signs s; then s . t = 256 - 2 * (bits that differ). Unrelated pictures differ in about 128.
    small = [Image.fromarray(image).convert("L").resize((17, 16)) for image in faces.images]
    grey = np.stack([np.asarray(image, dtype=np.int16) for image in small])
    signs = np.where(np.diff(grey, axis=2) > 0, 1, -1).reshape(len(grey), 256).astype(np.float32)
    differing = ((256 - signs @ signs.T) / 2)[np.triu_indices(len(grey), 1)]
    assert differing.min() > 28
    assert np.mean(differing > 60) > 0.9995
