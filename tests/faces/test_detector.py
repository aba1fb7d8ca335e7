"""Which detector is loaded, and what is said where it, its package or its model is not there."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark.data.crop import DetectorChoice, load_detector
from benchmark.errors import DataError
from tests.conftest import shared_file
from tests.faces.detectors import WHITE

MODEL = ("weights", "yunet_yunet_n_dynamic.onnx")


def test_a_detector_of_somebody_elses_is_loaded_by_module_and_name() -> None:
    assert load_detector(WHITE).name == "white-1"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("retina", "there is no detector 'retina'"),
        ("no_such_module:Detector", "cannot be loaded: No module named"),
        ("tests.faces.detectors:Missing", "cannot be loaded: module"),
        ("tests.faces.detectors:not_a_detector", "gave NoneType"),
    ],
)
def test_a_detector_that_is_none_is_refused(name: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        load_detector(DetectorChoice(name))


def test_a_model_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for name in ("yunet", WHITE.name):
        with pytest.raises(DataError, match="does not exist"):
            load_detector(DetectorChoice(name, tmp_path / "none.onnx"))
    with pytest.raises(DataError, match="the model file of YuNet is missing") as caught:
        load_detector(DetectorChoice(weights_dir=tmp_path))
    assert "--detector-model" in caught.value.fix


def test_the_environment_names_the_model_where_no_option_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEBENCH_DETECTOR_MODEL", str(tmp_path / "mine.onnx"))
    assert DetectorChoice.here().model == tmp_path / "mine.onnx"
    monkeypatch.delenv("FACEBENCH_DETECTOR_MODEL")
    monkeypatch.setenv("FACEBENCH_WEIGHTS_DIR", str(tmp_path))
    assert DetectorChoice.here() == DetectorChoice(weights_dir=tmp_path)


def test_of_two_model_files_one_has_to_be_named(tmp_path: Path) -> None:
    for name in ("a_yunet.onnx", "b_yunet.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"2 model files of YuNet are there: a_yunet\.onnx, b"):
        load_detector(DetectorChoice(weights_dir=tmp_path))


def test_without_opencv_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"model")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(DataError, match="OpenCV is not installed") as caught:
        load_detector(DetectorChoice(model=tmp_path / "yunet.onnx"))
    assert "facebench[crop]" in caught.value.fix


def test_a_file_that_is_no_yunet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "yunet.onnx").write_bytes(b"no model at all")
    with pytest.raises(DataError, match="is not a YuNet model"):
        load_detector(DetectorChoice(model=tmp_path / "yunet.onnx"))


@pytest.mark.weights
def test_yunet_looks_at_pictures_of_any_shape() -> None:
    pytest.importorskip("cv2")
    detector = load_detector(DetectorChoice(model=shared_file(*MODEL)))
    assert detector.name == "yunet-104ee26c71d5"
    for shape in ((16, 16), (16, 20_000), (20_000, 16), (33, 700)):
        assert detector.find(np.zeros((*shape, 3), np.uint8), 0.5) == []
