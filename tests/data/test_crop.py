"""From a picture to its faces: who finds them, which are chosen, where they are cut."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.data.crop import (
    CropOptions,
    DetectorChoice,
    FoundFace,
    crop_picture,
    cut_box,
    load_detector,
    with_border,
)
from benchmark.errors import DataError
from tests.conftest import shared_file
from tests.data.detectors import WHITE, WhiteRectangles, scene

DETECTOR = WhiteRectangles()
ONE = scene((40, 20, 60, 60))
TWO = scene((5, 10, 35, 70), (50, 30, 66, 50))


def test_the_margin_is_a_share_of_the_box_in_whole_pixels_clipped_to_the_picture() -> None:
    # int(0.2 * 33) = 6 left and right, int(0.2 * 47) = 9 above and below, as the study cut.
    assert cut_box(FoundFace(50, 40, 33, 47, 0.9), (200, 200), 0.2) == (44, 31, 89, 96)
    assert cut_box(FoundFace(-5, 2, 50, 90, 0.9), (60, 80), 0.5) == (0, 0, 60, 80)


def test_a_face_is_stretched_to_a_square_or_the_square_takes_more_of_the_picture() -> None:
    (crop,), n_seen = crop_picture(ONE.convert("L"), DETECTOR, CropOptions(margin=0, size_px=32))
    assert (crop.box, n_seen, crop.image.size) == ((40, 20, 60, 60), 1, (32, 32))
    assert crop.image.mode == "RGB"
    assert (np.asarray(crop.image) == 255).all()  # nothing but face: 20 x 40 became 32 x 32
    options = CropOptions(margin=0, size_px=40, fit="square")
    (crop,), _ = crop_picture(ONE, DETECTOR, options)
    # 20 wide in a square of 40: a quarter of black on each side.
    columns = (np.asarray(crop.image)[:, :, 0] > 200).all(axis=0)
    assert (columns[:9].any(), columns[11:29].all(), columns[31:].any()) == (False, True, False)


def test_of_several_faces_those_asked_for_are_cut() -> None:
    for options, boxes in (
        (CropOptions(faces="largest"), [(5, 10, 35, 70)]),
        (CropOptions(faces="central"), [(50, 30, 66, 50)]),
        (CropOptions(faces="all"), [(5, 10, 35, 70), (50, 30, 66, 50)]),
    ):
        crops, n_seen = crop_picture(TWO, DETECTOR, options)
        assert ([crop.box for crop in crops], n_seen) == (boxes, 2), options.faces


def test_faces_of_low_score_or_outside_of_the_picture_are_not_seen() -> None:
    class Beyond:
        name = "beyond"

        def find(self, pixels: object, threshold: float) -> list[FoundFace]:
            return [FoundFace(500, 500, 20, 20, 0.99)]

    assert crop_picture(TWO, DETECTOR, CropOptions(threshold=0.95)) == ([], 0)
    assert crop_picture(Image.new("RGB", (50, 50)), Beyond()) == ([], 0)


def test_a_border_leaves_the_picture_and_the_boxes_as_they_were() -> None:
    picture = scene((0, 0, 10, 80))
    for fill in ("replicate", "blur", "black"):
        bordered, (across, down) = with_border(picture, 0.25, fill)  # type: ignore[arg-type]
        assert (bordered.size, across, down) == ((180, 120), 30, 20)
        assert bordered.crop((30, 20, 150, 100)).tobytes() == picture.tobytes()
        # What lies left of the white strip is white, or black where the border is.
        assert (bordered.getpixel((2, 60)) == (0, 0, 0)) == (fill == "black")
    (crop,), _ = crop_picture(ONE, DETECTOR, CropOptions(border=0.25, border_fill="black"))
    assert crop.box == (40, 20, 60, 60)


def test_options_out_of_range_are_refused_at_birth() -> None:
    for field, value, found in (
        ("margin", -0.1, "margin is -0.1"),
        ("margin", float("nan"), "margin is nan"),
        ("threshold", 0.0, "threshold is 0.0"),
        ("border", 9.0, "border is 9.0"),
        ("size_px", 4, "crops of 4 pixels"),
        ("fit", "wrap", "fit is 'wrap'"),
        ("faces", "first", "faces is 'first'"),
        ("border_fill", "pink", "border fill is 'pink'"),
    ):
        with pytest.raises(DataError, match=found) as caught:
            CropOptions(**{field: value})  # type: ignore[arg-type]
        assert caught.value.allowed


def test_a_detector_of_somebody_elses_is_loaded_by_module_and_name(tmp_path: Path) -> None:
    assert load_detector(WHITE).name == "white-1"
    for name, found in (
        ("retina", "there is no detector 'retina'"),
        ("no_such_module:Detector", "cannot be loaded: No module named"),
        ("tests.data.detectors:Missing", "cannot be loaded: module"),
        ("tests.data.detectors:not_a_detector", "gave NoneType"),
    ):
        with pytest.raises(DataError, match=found):
            load_detector(DetectorChoice(name))


def test_a_model_file_that_is_missing_or_not_the_only_one_is_an_error(tmp_path: Path) -> None:
    for name in ("yunet", WHITE.name):
        with pytest.raises(DataError, match="does not exist"):
            load_detector(DetectorChoice(name, tmp_path / "none.onnx"))
    with pytest.raises(DataError, match="the model file of YuNet is missing") as caught:
        load_detector(DetectorChoice(weights_dir=tmp_path))
    assert "--detector-model" in caught.value.fix
    for name in ("a_yunet.onnx", "b_yunet.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"2 model files of YuNet are there: a_yunet\.onnx, b"):
        load_detector(DetectorChoice(weights_dir=tmp_path))


def test_the_environment_names_the_model_where_no_option_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEBENCH_DETECTOR_MODEL", str(tmp_path / "mine.onnx"))
    assert DetectorChoice.here().model == tmp_path / "mine.onnx"
    monkeypatch.delenv("FACEBENCH_DETECTOR_MODEL")
    monkeypatch.setenv("FACEBENCH_WEIGHTS_DIR", str(tmp_path))
    assert DetectorChoice.here() == DetectorChoice(weights_dir=tmp_path)


def test_without_opencv_or_with_another_file_yunet_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"no model at all")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cv2", None)
        with pytest.raises(DataError, match="OpenCV is not installed") as caught:
            load_detector(DetectorChoice(model=tmp_path / "yunet.onnx"))
        assert "facebench[crop]" in caught.value.fix
    pytest.importorskip("cv2")
    with pytest.raises(DataError, match="is not a YuNet model"):
        load_detector(DetectorChoice(model=tmp_path / "yunet.onnx"))


@pytest.mark.weights
def test_yunet_looks_at_pictures_of_any_shape() -> None:
    pytest.importorskip("cv2")
    model = shared_file("weights", "yunet_yunet_n_dynamic.onnx")
    detector = load_detector(DetectorChoice(model=model))
    assert detector.name == "yunet-104ee26c71d5"
    for shape in ((16, 16), (16, 20_000), (20_000, 16), (33, 700)):
        assert detector.find(np.zeros((*shape, 3), np.uint8), 0.5) == []
