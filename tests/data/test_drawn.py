"""Synthetic faces: repeatable, labelled as promised, learnable but not given away."""

import hashlib

import numpy as np
import pandas as pd

from benchmark.data.drawn import draw_faces
from benchmark.data.labels import parse_name


def test_a_larger_draw_begins_with_the_smaller_as_results_were_measured_on() -> None:
    few, many = draw_faces(20, seed=0), draw_faces(100, seed=0)
    assert (few.images.shape, few.images.dtype) == ((20, 100, 100, 3), np.uint8)
    np.testing.assert_array_equal(few.images, many.images[:20])
    for labels in (many.labels[:20], draw_faces(20, seed=0, image_px=32).labels):
        pd.testing.assert_frame_equal(few.labels, labels)
    # A change here makes synthetic results of before and after incomparable.
    digest = hashlib.sha256(few.images.tobytes()).hexdigest()
    assert digest == "2fc77587ce3ebe10c0c4a2bea1d0d3003f4c5b631061abc0bc32c0f02a98598f"


def test_file_names_are_unique_and_carry_the_labels() -> None:
    faces = draw_faces(1500, seed=3, image_px=32)
    assert faces.labels.file.is_unique
    for file, *labels in faces.labels.itertuples(index=False, name=None):
        assert list(parse_name(file)) == labels
    # A year that no photograph has.
    assert draw_faces(1, seed=12).labels.file[0].split("_")[3] == "00000000120000000.jpg.chip.jpg"
