"""From photographs to faces: who finds them, which are chosen and cut; nothing vanishes."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmark.data.crop import (
    BOX_COLUMNS,
    COLUMNS,
    CropOptions,
    Cropper,
    DetectorChoice,
    FoundFace,
    crop_folder,
    crop_picture,
    cut_box,
    load_detector,
)
from benchmark.errors import DataError
from benchmark.files import file_lock
from tests.conftest import shared_file
from tests.data.detectors import WHITE, WhiteRectangles, scene
from tests.data.sources import encoded, folder_of, zip_of
from tests.data.test_pictures import png_header

DETECTOR = WhiteRectangles()
ONE = scene((40, 20, 60, 60))
TWO = scene((5, 10, 35, 70), (50, 30, 66, 50))
FACE = encoded(ONE, "PNG")
CROPPER = Cropper(CropOptions(margin=0, size_px=16), WHITE, as_png=True)


def pixels_of(image: bytes, px: int) -> np.ndarray:
    return np.frombuffer(image, np.uint8).reshape(px, px, 3)


def test_the_margin_is_a_share_of_the_box_in_whole_pixels_clipped_to_the_picture() -> None:
    # int(0.2 * 33) = 6 left and right, int(0.2 * 47) = 9 above and below, as the study cut.
    assert cut_box(FoundFace(50, 40, 33, 47, 0.9), (200, 200), 0.2) == (44, 31, 89, 96)
    assert cut_box(FoundFace(-5, 2, 50, 90, 0.9), (60, 80), 0.5) == (0, 0, 60, 80)


def test_a_face_is_stretched_to_a_square_or_the_square_takes_more_of_the_picture() -> None:
    (crop,), n_seen = crop_picture(ONE, DETECTOR, CropOptions(margin=0, size_px=32))
    assert (crop.box, n_seen) == ((40, 20, 60, 60), 1)
    assert (pixels_of(crop.image, 32) == 255).all()  # nothing but face: 20 x 40 became 32 x 32
    options = CropOptions(margin=0, size_px=40, fit="square")
    (crop,), _ = crop_picture(ONE, DETECTOR, options)
    # 20 wide in a square of 40: a quarter of black on each side.
    columns = (pixels_of(crop.image, 40)[:, :, 0] > 200).all(axis=0)
    assert (columns[:9].any(), columns[11:29].all(), columns[31:].any()) == (False, True, False)


def test_of_several_faces_those_asked_for_are_cut_and_only_those_that_are_seen() -> None:
    class Beyond:
        name = "beyond"

        def find(self, pixels: object, threshold: float) -> list[FoundFace]:
            return [FoundFace(500, 500, 20, 20, 0.99)]

    largest, central = (5, 10, 35, 70), (50, 30, 66, 50)
    for detector, options, boxes, n in (
        (DETECTOR, CropOptions(faces="largest"), [largest], 2),
        (DETECTOR, CropOptions(faces="central"), [central], 2),
        (DETECTOR, CropOptions(faces="all"), [largest, central], 2),
        (DETECTOR, CropOptions(threshold=0.95), [], 0),  # the scores are 0.9
        (Beyond(), CropOptions(), [], 0),  # outside of the picture
    ):
        crops, n_seen = crop_picture(TWO, detector, options)
        assert ([crop.box for crop in crops], n_seen) == (boxes, n), options


def test_a_detector_or_model_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b_yunet.onnx").write_bytes(b"no model at all")
    here = DetectorChoice(model=tmp_path / "b_yunet.onnx")
    for choice, found in (
        (DetectorChoice("no_such_module:Detector"), "cannot be loaded: No module named"),
        (DetectorChoice("tests.data.detectors:Missing"), "cannot be loaded: module"),
        (DetectorChoice("tests.data.detectors:not_a_detector"), "gave NoneType"),
        (DetectorChoice("yunet", tmp_path / "none.onnx"), "does not exist"),
        (DetectorChoice(weights_dir=tmp_path / "none"), "0 model files .*--detector-model"),
    ):
        with pytest.raises(DataError, match=found):
            load_detector(choice)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cv2", None)
        with pytest.raises(DataError, match=r"OpenCV is not installed.*facebench\[crop\]"):
            load_detector(here)
    pytest.importorskip("cv2")
    for choice in (here, DetectorChoice(weights_dir=tmp_path)):
        with pytest.raises(DataError, match="is not a YuNet model"):
            load_detector(choice)


@pytest.mark.weights
def test_yunet_looks_at_pictures_of_any_shape() -> None:
    pytest.importorskip("cv2")
    model = shared_file("weights", "yunet_yunet_n_dynamic.onnx")
    detector = load_detector(DetectorChoice(model=model))
    assert detector.name == "yunet-104ee26c71d5"
    for shape in ((16, 16), (16, 20_000), (20_000, 16), (33, 700)):
        assert detector.find(np.zeros((*shape, 3), np.uint8), 0.5) == []


def crop(tmp_path: Path, files: dict[str, bytes]) -> pd.DataFrame:
    return crop_folder(folder_of(tmp_path / "in", files), tmp_path / "out", CROPPER)[0]


def test_every_file_and_linked_folder_is_accounted_for(tmp_path: Path) -> None:
    bad = {
        "bad.jpg": (b"x", "it is not a picture"),
        "bomb.png": (png_header(60_000, 60_000), "the picture has more than 64,000,000 pixels"),
        "cut.png": (FACE[:150], "the picture is damaged"),
        "sub/none.png": (encoded(scene(), "PNG"), "no face found"),
    }
    files = {name: content for name, (content, _) in bad.items()}
    source = folder_of(tmp_path / "in", {**files, "face.png": FACE, "a.txt": b"y"})
    (source / "more").symlink_to(folder_of(tmp_path / "elsewhere", {"b.png": FACE}))
    _, others, _ = crop_folder(source, tmp_path / "out", CROPPER)
    assert others == ["a.txt", "more (a folder that is a link is not followed)"]
    table = pd.read_csv(tmp_path / "out" / "crops.csv", keep_default_na=False).set_index("file")
    assert ("file", *table.columns) == COLUMNS
    outcomes = {"unreadable": 3, "cropped": 1, "no face": 1}
    assert table["outcome"].value_counts().to_dict() == outcomes
    assert table.loc["face.png", [*BOX_COLUMNS]].tolist() == ["40", "20", "60", "60"]
    for file, (_, reason) in bad.items():
        assert table.loc[file, "reason"].startswith(reason)
    with Image.open(tmp_path / "out" / "face.png") as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")


def test_pictures_of_every_kind_are_cropped_upright(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    grey = np.asarray(ONE.convert("L")).astype(np.uint16) * 257
    wide = scene((15_000, 20, 15_040, 60), size=(20_000, 80))
    found = crop(
        tmp_path,
        {
            "CMYK.jpg": encoded(ONE.convert("CMYK"), quality=95),
            "I;16.png": encoded(Image.fromarray(grey), "PNG"),
            "P.gif": encoded(ONE, "GIF", save_all=True, append_images=[scene()]),
            "RGBA.png": encoded(ONE.convert("RGBA"), "PNG"),
            "RGB.jpg": encoded(scene((20, 60, 60, 80), size=(80, 120)), exif=turned, quality=95),
            "wide.png": encoded(wide, "PNG"),
        },
    )
    table = found.set_index("file")
    assert table.loc["wide.png", "left"] == 15_000
    for file, row in table.drop("wide.png").iterrows():
        assert (row["outcome"], row["width"], row["height"]) == ("cropped", 120, 80), file
        # JPEG softens edges by a pixel or two. Turned, 20..60 x 60..80 is at 40..60 x 20..60.
        box = row[[*BOX_COLUMNS]].astype(int).to_numpy()
        assert np.abs(box - [40, 20, 60, 60]).max() <= 2, file


def test_every_crop_has_a_file_of_its_own(tmp_path: Path) -> None:
    files = ("a.bmp", "A.gif", "a.png", "a.png.png", "b.jpg")
    names = crop(tmp_path, dict.fromkeys(files, FACE))["crop"].tolist()
    assert (names[-1], len({name.casefold() for name in names})) == ("b.png", 5)
    assert all((tmp_path / "out" / name).is_file() for name in names)
    two = {"deep/two.jpg": encoded(TWO, "PNG"), "deep/two.face-2.jpg": FACE}
    cropper = Cropper(CropOptions(size_px=16, faces="all"), WHITE, as_png=True)
    table, _, _ = crop_folder(zip_of(tmp_path / "in.zip", two), tmp_path / "zipped", cropper)
    names = ["deep/two.png", "deep/two.face-2.png", "deep/two.face-2.jpg.png"]
    assert table["crop"].tolist() == names
    assert table["faces_seen"].tolist() == [2, 2, 1]
    assert all((tmp_path / "zipped" / name).is_file() for name in names)


def assert_same_files(one: Path, other: Path) -> None:
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, other)]
    assert files[0].keys() == files[1].keys()
    journals = [set(of.pop("crops.jsonl").splitlines()) for of in files]
    assert (files[0], journals[0]) == (files[1], journals[1])


def test_stopped_it_resumes_where_it_was_and_does_what_is_new_or_changed(tmp_path: Path) -> None:
    pictures = {f"{n}.png": encoded(scene((40, 20, 60, 60 - n)), "PNG") for n in range(6)}
    source, target = folder_of(tmp_path / "in", pictures), tmp_path / "out"

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop_folder(source, target, CROPPER, stop)
    assert not (target / "crops.csv").exists()
    journal = target / "crops.jsonl"  # a crash can cut its last line short, and a picture's file
    journal.write_bytes(journal.read_bytes()[:-20] + b'\nnull\n{"file": "1.png"}\n')
    (target / "0.png").write_bytes((target / "0.png").read_bytes()[:50])
    assert crop_folder(source, target, CROPPER)[2] == 4
    assert crop_folder(source, tmp_path / "whole", CROPPER)[2] == 6
    assert_same_files(target, tmp_path / "whole")
    assert crop_folder(source, target, CROPPER)[2] == 0
    folder_of(source, {"1.png": encoded(ONE, "BMP"), "2.jpg": FACE})
    (source / "0.png").unlink()
    # 2.png is 2.png.png now, beside 2.jpg.png.
    found, _, n_new = crop_folder(source, target, CROPPER)
    assert (n_new, {"2.jpg.png", "2.png.png"} <= set(found["crop"])) == (3, True)
    crop_folder(source, tmp_path / "anew", CROPPER)
    assert_same_files(target, tmp_path / "anew")


def test_places_that_cannot_be_used_are_refused_and_left_alone(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", {"a.png": FACE})
    crop_folder(source, tmp_path / "done", CROPPER)
    text = folder_of(tmp_path / "text", {"a.txt": b""})
    larger = Cropper(CropOptions(margin=0, size_px=32), WHITE, as_png=True)
    for given, target, cropper, found in (
        (text, "out", CROPPER, r"no pictures \(1 other files\)"),
        (tmp_path / "nowhere", "out", CROPPER, "does not exist"),
        (source, "in/crops", CROPPER, "among the pictures"),
        (source, "text", CROPPER, "holds something else"),
        (source, "text/a.txt", CROPPER, "holds something else"),
        (source, "done", larger, "made with size_px 16, not 32"),
    ):
        with pytest.raises(DataError, match=found):
            crop_folder(given, tmp_path / target, cropper)
    with file_lock(tmp_path / ".done.lock"), pytest.raises(DataError, match="is cropping into"):
        crop_folder(source, tmp_path / "done", CROPPER)
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "text", "done", ".done.lock"}
    assert [path.name for path in text.iterdir()] == ["a.txt"]
