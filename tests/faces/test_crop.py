"""From a picture to its faces: which are chosen, where they are cut, how they are resized."""

import numpy as np
import pytest
from PIL import Image

from benchmark.data.crop import CropOptions, FoundFace, crop_picture, cut_box, with_border
from benchmark.errors import DataError
from tests.faces.detectors import WhiteRectangles, scene

DETECTOR = WhiteRectangles()


def test_the_margin_is_a_share_of_the_box_in_whole_pixels_as_the_study_cut() -> None:
    # int(0.2 * 33) = 6 left and right, int(0.2 * 47) = 9 above and below.
    assert cut_box(FoundFace(50, 40, 33, 47, 0.9), (200, 200), 0.2) == (44, 31, 89, 96)


def test_a_box_with_its_margin_is_clipped_to_the_picture() -> None:
    assert cut_box(FoundFace(-5, 2, 50, 90, 0.9), (60, 80), 0.5) == (0, 0, 60, 80)


def test_a_face_is_stretched_to_a_square_by_default() -> None:
    found = crop_picture(scene((40, 20, 60, 60)), DETECTOR, CropOptions(margin=0, size_px=32))
    assert (found.box, found.n_faces) == ((40, 20, 60, 60), 1)
    assert found.image is not None
    assert found.image.size == (32, 32)
    assert (np.asarray(found.image) == 255).all()  # nothing but face: 20 x 40 became 32 x 32


def test_square_takes_more_of_the_picture_instead() -> None:
    options = CropOptions(margin=0, size_px=40, fit="square")
    found = crop_picture(scene((40, 20, 60, 60)), DETECTOR, options)
    # 20 wide in a square of 40: a quarter of black on each side.
    columns = (np.asarray(found.image)[:, :, 0] > 200).all(axis=0)
    assert (columns[:9].any(), columns[11:29].all(), columns[31:].any()) == (False, True, False)


TWO = scene((5, 10, 35, 70), (50, 30, 66, 50))


@pytest.mark.parametrize(
    ("choice", "boxes"),
    [
        ("largest", [(5, 10, 35, 70)]),
        ("central", [(50, 30, 66, 50)]),
        ("all", [(5, 10, 35, 70), (50, 30, 66, 50)]),
    ],
)
def test_of_several_faces_those_asked_for_are_cut(
    choice: str, boxes: list[tuple[int, int, int, int]]
) -> None:
    found = crop_picture(TWO, DETECTOR, CropOptions(faces=choice))  # type: ignore[arg-type]
    assert ([crop.box for crop in found.crops], found.n_faces) == (boxes, 2)


def test_faces_below_the_threshold_are_not_seen_and_the_result_says_so() -> None:
    found = crop_picture(TWO, DETECTOR, CropOptions(threshold=0.95))
    assert (found.found, found.n_faces, found.reason) == (False, 0, "no face found")
    assert (found.box, found.score, found.image) == (None, None, None)


def test_a_box_is_told_in_the_pictures_own_pixels_whatever_border_it_got() -> None:
    options = CropOptions(border=0.25, border_fill="black")
    assert crop_picture(scene((40, 20, 60, 60)), DETECTOR, options).box == (40, 20, 60, 60)


@pytest.mark.parametrize("fill", ["replicate", "blur", "black"])
def test_a_border_leaves_the_picture_in_its_middle_as_it_was(fill: str) -> None:
    picture = scene((0, 0, 10, 80))
    bordered, (across, down) = with_border(picture, 0.25, fill)  # type: ignore[arg-type]
    assert (bordered.size, across, down) == ((180, 120), 30, 20)
    assert bordered.crop((30, 20, 150, 100)).tobytes() == picture.tobytes()
    # What lies left of the white strip is white, or black where the border is.
    assert (bordered.getpixel((2, 60)) == (0, 0, 0)) == (fill == "black")


def test_a_grey_picture_is_cropped_as_rgb() -> None:
    found = crop_picture(scene((40, 20, 60, 60)).convert("L"), DETECTOR)
    assert found.image is not None
    assert found.image.mode == "RGB"


def test_a_face_outside_of_the_picture_is_not_seen() -> None:
    class Beyond:
        name = "beyond"

        def find(self, pixels: object, threshold: float) -> list[FoundFace]:
            return [FoundFace(500, 500, 20, 20, 0.99)]

    assert not crop_picture(Image.new("RGB", (50, 50)), Beyond()).found


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("margin", -0.1, "margin is -0.1"),
        ("margin", float("nan"), "margin is nan"),
        ("threshold", 0.0, "threshold is 0.0"),
        ("border", 9.0, "border is 9.0"),
        ("size_px", 4, "crops of 4 pixels"),
        ("fit", "wrap", "fit is 'wrap'"),
        ("faces", "first", "faces is 'first'"),
        ("border_fill", "pink", "border fill is 'pink'"),
    ],
)
def test_options_out_of_range_are_refused_at_birth(field: str, value: object, told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        CropOptions(**{field: value})  # type: ignore[arg-type]
    assert caught.value.allowed
