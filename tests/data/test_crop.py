"""From photographs to faces: who finds them, which are chosen and cut; nothing vanishes."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmark.data import crop
from benchmark.data.crop import (
    BOX_COLUMNS,
    COLUMNS,
    CropOptions,
    DetectorChoice,
    FoundFace,
    crop_folder,
    crop_picture,
    cut_box,
    load_detector,
)
from benchmark.errors import DataError
from tests.conftest import shared_file
from tests.data.detectors import WHITE, WhiteRectangles, scene
from tests.data.sources import encoded, folder_of, zip_of
from tests.data.test_pictures import png_header

ONE = scene((40, 20, 60, 60))
TWO = scene((5, 10, 35, 70), (50, 30, 66, 50))
FACE = encoded(ONE, "PNG")
SMALL = CropOptions(margin=0, size_px=16, faces="all", detector=WHITE)


def test_the_faces_asked_for_are_cut_with_a_margin_stretched_or_with_more_of_the_picture() -> None:
    # int(0.2 * 33) = 6 left and right, int(0.2 * 47) = 9 above and below, as the study cut.
    assert cut_box(FoundFace(50, 40, 33, 47, 0.9), (200, 200), 0.2) == (44, 31, 89, 96)
    assert cut_box(FoundFace(-5, 2, 50, 90, 0.9), (60, 80), 0.5) == (0, 0, 60, 80)
    largest, central = (5, 10, 35, 70), (50, 30, 66, 50)
    for options, boxes, n in (
        (CropOptions(faces="largest"), [largest], 2),
        (CropOptions(faces="central"), [central], 2),
        (CropOptions(faces="all"), [largest, central], 2),
        (CropOptions(threshold=0.95), [], 0),  # the scores are 0.9
    ):
        found = crop_picture(TWO, WhiteRectangles(), options)
        found_boxes = [tuple(box[side] for side in BOX_COLUMNS) for _, box in found.crops]
        assert (found_boxes, found.faces_seen) == (boxes, n), options
    stretched, wider = (
        np.asarray(crop_picture(ONE, WhiteRectangles(), options).crops[0][0])
        for options in (SMALL, CropOptions(margin=0, size_px=40, fit="square"))
    )
    assert (stretched == 255).all()  # nothing but face: 20 x 40 became 16 x 16
    # 20 wide in a square of 40: a quarter of black on each side.
    columns = (wider[:, :, 0] > 200).all(axis=0)
    assert (columns[:9].any(), columns[11:29].all(), columns[31:].any()) == (False, True, False)


def test_a_detector_or_model_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b_yunet.onnx").write_bytes(b"no model at all")
    here = DetectorChoice(weights_dir=tmp_path)
    for choice, found in (
        (DetectorChoice("no_such_module:Detector"), "cannot be loaded: No module named"),
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
    with pytest.raises(DataError, match="is not a YuNet model"):
        load_detector(here)


@pytest.mark.weights
def test_yunet_looks_at_pictures_of_any_shape() -> None:
    pytest.importorskip("cv2")
    model = shared_file("weights", "yunet_yunet_n_dynamic.onnx")
    detector = load_detector(DetectorChoice(model=model))
    assert detector.name == "yunet-104ee26c71d5"
    for shape in ((16, 16), (16, 20_000), (20_000, 16), (33, 700)):
        assert detector.find(np.zeros((*shape, 3), np.uint8), 0.5) == []


def test_every_file_is_accounted_for_and_faces_are_cropped_upright(tmp_path: Path) -> None:
    bad = {
        "bad.jpg": (b"x", "it is not a picture"),
        "bomb.png": (png_header(60_000, 60_000), "the picture has more than 64,000,000 pixels"),
        "cut.png": (FACE[:150], "the picture is damaged"),
        "sub/none.png": (encoded(scene(), "PNG"), "no face found"),
    }
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    good = {
        "CMYK.jpg": encoded(ONE.convert("CMYK"), quality=95),
        "P.gif": encoded(ONE, "GIF", save_all=True, append_images=[scene()]),
        "turned.jpg": encoded(scene((20, 60, 60, 80), size=(80, 120)), exif=turned, quality=95),
        "wide.png": encoded(scene((15_000, 20, 15_040, 60), size=(20_000, 80)), "PNG"),
    }
    files = {name: content for name, (content, _) in bad.items()}
    source = folder_of(tmp_path / "in", {**files, **good, "a.txt": b"y"})
    (source / "more").symlink_to(folder_of(tmp_path / "elsewhere", {"b.png": FACE}))
    _, others, _ = crop_folder(source, tmp_path / "out", SMALL)
    link = "more (a folder that is a link is not followed)"
    assert others == ["a.txt (not a picture by its name)", link]
    table = pd.read_csv(tmp_path / "out" / "crops.csv", keep_default_na=False).set_index("file")
    assert ("file", *table.columns) == COLUMNS
    outcomes = {"unreadable": 3, "cropped": 4, "no face": 1}
    assert table["outcome"].value_counts().to_dict() == outcomes
    for file, (_, reason) in bad.items():
        assert table.loc[file, "reason"].startswith(reason)
    boxes = dict.fromkeys(good, (40, 20, 60, 60)) | {"wide.png": (15_000, 20, 15_040, 60)}
    for file, box in boxes.items():  # JPEG softens edges by a pixel or two
        found = table.loc[file, [*BOX_COLUMNS]].astype(int).to_numpy()
        assert np.abs(found - box).max() <= 2, file
    with Image.open(tmp_path / "out" / "turned.png") as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")


def test_every_crop_has_a_file_of_its_own(tmp_path: Path) -> None:
    files = ("a.bmp", "A.gif", "a.png", "a.png.png", "b.jpg", "deep/two.jpg", "deep/two.face-2.jpg")
    contents = dict.fromkeys(files, FACE) | {"deep/two.jpg": encoded(TWO, "PNG")}
    every = CropOptions(size_px=16, faces="all", detector=WHITE)
    archive = zip_of(tmp_path / "in.zip", contents)
    table, _, _ = crop_folder(archive, tmp_path / "out", every)
    names, two = table["crop"].tolist(), ["two.jpg.png", "two.jpg.face-2.png", "two.face-2.jpg.png"]
    assert names[4:] == ["b.jpg.png", *(f"deep/{name}" for name in two)]
    assert len({name.casefold() for name in names}) == 8
    assert all((tmp_path / "out" / name).is_file() for name in names)
    assert table["faces_seen"].tolist() == [1, 1, 1, 1, 1, 2, 2, 1]


def test_a_picture_that_goes_away_once_it_is_listed_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, begun = folder_of(tmp_path / "in", {f"{n}.png": FACE for n in range(3)}), crop._journal

    def removing(*given: Any) -> Any:
        (source / "1.png").unlink()
        return begun(*given)

    monkeypatch.setattr(crop, "_journal", removing)
    table, _, _ = crop_folder(source, tmp_path / "out", CropOptions(detector=WHITE))
    assert table["outcome"].tolist() == ["cropped", "unreadable", "cropped"]
    assert table["reason"].iloc[1] == "it went away meanwhile"


def assert_same_files(one: Path, other: Path) -> None:
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, other)]
    journals = [set(of.pop("crops.jsonl").splitlines()) for of in files]
    assert (files[0], journals[0]) == (files[1], journals[1])


def test_stopped_it_resumes_where_it_was_and_does_what_is_new_or_changed(tmp_path: Path) -> None:
    pictures = {f"{n}.png": encoded(scene((40, 20, 60, 60 - n)), "PNG") for n in range(6)}
    pictures["1.png"] = encoded(TWO, "PNG")
    source, target = folder_of(tmp_path / "in", pictures), tmp_path / "out"

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop_folder(source, target, SMALL, stop)
    assert not (target / "crops.csv").exists()
    journal = target / "crops.jsonl"  # a crash can cut its last line short, and a picture's file
    damaged = b'\nnull\n{"rows": [{"crop": ""}], "sha256": ""}\n'
    journal.write_bytes(journal.read_bytes()[:-20] + damaged)
    (target / "0.png").write_bytes((target / "0.png").read_bytes()[:50])
    assert crop_folder(source, target, SMALL)[2] == 4
    assert crop_folder(source, tmp_path / "whole", SMALL)[2] == 6
    assert_same_files(target, tmp_path / "whole")
    assert crop_folder(source, target, SMALL)[2] == 0
    folder_of(source, {"1.png": encoded(ONE, "BMP")})
    with pytest.raises(KeyboardInterrupt):  # the second face of before has its crop still
        crop_folder(source, target, SMALL, stop)
    folder_of(source, {"2.jpg": FACE})
    (source / "0.png").unlink()
    # 2.png is 2.png.png now, beside 2.jpg.png; so are the others, and are cropped again.
    found, _, n_new = crop_folder(source, target, SMALL)
    assert (n_new, {"2.jpg.png", "2.png.png"} <= set(found["crop"])) == (6, True)
    crop_folder(source, tmp_path / "anew", SMALL)
    assert_same_files(target, tmp_path / "anew")


def test_places_that_cannot_be_used_are_refused_and_left_alone(tmp_path: Path) -> None:
    source, text = folder_of(tmp_path / "in", {"a.png": FACE}), tmp_path / "text"
    folder_of(text, {"a.txt": b""})
    crop_folder(source, tmp_path / "done", SMALL)
    for given, target, px, found in (
        (text, "out", 16, r"no pictures \(1 other files\)"),
        (source, "in/crops", 16, "among the pictures"),
        (source, "text", 16, "holds something else"),
        (source, "text/a.txt", 16, "holds something else"),
        (source, "done", 32, "made with size_px 16, not 32"),
    ):
        with pytest.raises(DataError, match=found):
            crop_folder(given, tmp_path / target, replace(SMALL, size_px=px))
    assert {path.name for path in tmp_path.iterdir()} == {"in", "text", "done"}
    assert [path.name for path in text.iterdir()] == ["a.txt"]
