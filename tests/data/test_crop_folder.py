"""A folder of photographs becomes a folder of faces; nothing vanishes, nothing is done twice."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmark.data import progress
from benchmark.data.crop import CropOptions
from benchmark.data.crop_folder import COLUMNS, Cropper, CropReport, crop_folder, cropped
from benchmark.errors import DataError
from benchmark.files import file_lock
from tests.data.detectors import WHITE, scene
from tests.data.sources import encoded, folder_of, zip_of
from tests.data.test_pictures import png_header

CROPPER = Cropper(CropOptions(margin=0, size_px=16), WHITE, "png")
ONE = scene((40, 20, 60, 60))
FACE = encoded(ONE, "PNG")


def crop(tmp_path: Path, files: dict[str, bytes], cropper: Cropper = CROPPER) -> CropReport:
    return crop_folder(folder_of(tmp_path / "in", files), tmp_path / "out", cropper)


def test_every_picture_has_a_row_that_says_what_became_of_it(tmp_path: Path) -> None:
    report = crop(
        tmp_path,
        {"face.png": FACE, "sub/none.png": encoded(scene(), "PNG"), "bad.jpg": b"x", "a.txt": b"y"},
    )
    assert report.counts() == {"cropped": 1, "no face": 1, "unreadable": 1}
    table = pd.read_csv(tmp_path / "out" / "crops.csv", keep_default_na=False).set_index("file")
    assert ("file", *table.columns) == COLUMNS
    box = table.loc["face.png", ["left", "top", "right", "bottom"]]
    assert box.tolist() == ["40", "20", "60", "60"]
    assert table.loc["sub/none.png", "reason"] == "no face found"
    assert table.loc["bad.jpg", "reason"].startswith("it is not a picture")
    assert report.n_not_pictures == 1
    with Image.open(tmp_path / "out" / "face.png") as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")
    head = json.loads((tmp_path / "out" / "crops.jsonl").read_text().splitlines()[0])
    assert (head["detector"], head["size_px"], head["encoding"]) == ("white-1", 16, "png")


def test_pictures_of_every_kind_are_cropped_upright(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    grey = np.asarray(ONE.convert("L")).astype(np.uint16) * 257
    wide = scene((15_000, 20, 15_040, 60), size=(20_000, 80))
    report = crop(
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
    table = report.table.set_index("file")
    assert table.loc["wide.png", "left"] == 15_000
    for file, row in table.drop("wide.png").iterrows():
        assert (row["outcome"], row["width"], row["height"]) == ("cropped", 120, 80), file
        assert row["mode"] == str(file).split(".", maxsplit=1)[0]
        # JPEG softens edges by a pixel or two. Turned, 20..60 x 60..80 is at 40..60 x 20..60.
        box = row[["left", "top", "right", "bottom"]].astype(int).to_numpy()
        assert np.abs(box - [40, 20, 60, 60]).max() <= 2, file


def test_a_picture_that_cannot_be_used_says_why_and_the_others_are_done(tmp_path: Path) -> None:
    bad = {
        "empty.png": (b"", "the file is empty"),
        "cut.png": (FACE[:150], "the picture is damaged"),
        "small.png": (encoded(Image.new("RGB", (1, 1)), "PNG"), "the picture has 1 x 1 pixels"),
        "bomb.png": (png_header(60_000, 60_000), "the picture has more than 64,000,000 pixels"),
        "floats.tiff": (encoded(Image.new("F", (40, 40)), "TIFF"), "the picture's mode is F"),
    }
    files = {name: content for name, (content, _) in bad.items()}
    report = crop(tmp_path, {**files, "good.png": FACE})
    assert report.counts() == {"cropped": 1, "no face": 0, "unreadable": 5}
    for file, reason in report.without_crop().set_index("file")["reason"].items():
        assert reason.startswith(bad[str(file)][1])


def test_only_what_is_new_changed_or_lost_is_cropped_again(tmp_path: Path) -> None:
    files = {"a.png": FACE, "b.png": encoded(scene(), "PNG")}
    assert (crop(tmp_path, files).n_new, crop(tmp_path, files).n_new) == (2, 0)
    changed = encoded(scene((10, 10, 50, 50)), "PNG")
    third = crop(tmp_path, {"b.png": changed, "c.png": FACE})
    assert (third.n_new, third.counts()["cropped"]) == (2, 3)
    (tmp_path / "out" / "a.png").unlink()
    assert crop(tmp_path, {}).n_new == 1
    assert (tmp_path / "out" / "a.png").is_file()
    (tmp_path / "in" / "a.png").unlink()
    assert crop(tmp_path, {}).table["file"].tolist() == ["b.png", "c.png"]
    assert not (tmp_path / "out" / "a.png").exists()


def test_stopped_it_resumes_where_it_was(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", {f"{n}.png": FACE for n in range(6)})

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop_folder(source, tmp_path / "out", CROPPER, stop)
    journal = tmp_path / "out" / "crops.jsonl"
    assert not (tmp_path / "out" / "crops.csv").exists()
    # A crash can cut the last line short: that picture is done again.
    journal.write_bytes(journal.read_bytes()[:-20])
    assert crop_folder(source, tmp_path / "out", CROPPER).n_new == 3


def test_crops_made_in_another_way_are_not_mixed_in(tmp_path: Path) -> None:
    crop(tmp_path, {"a.png": FACE})
    with pytest.raises(DataError, match="made with size_px 16, not 32"):
        crop(tmp_path, {}, Cropper(CropOptions(margin=0, size_px=32), WHITE, "png"))


def test_every_crop_has_a_file_of_its_own(tmp_path: Path) -> None:
    report = crop(tmp_path, {"a.bmp": FACE, "A.gif": FACE, "a.png": FACE, "a.png.png": FACE})
    names = report.table["crop"].tolist()
    assert len({name.casefold() for name in names}) == 4
    assert all((tmp_path / "out" / name).is_file() for name in names)
    two = encoded(scene((5, 10, 35, 70), (50, 30, 66, 50)), "PNG")
    cropper = Cropper(CropOptions(size_px=16, faces="all"), WHITE, "jpeg")
    archive = zip_of(tmp_path / "in.zip", {"deep/two.png": two})
    table = crop_folder(archive, tmp_path / "zipped", cropper).table
    assert table["crop"].tolist() == ["deep/two.jpg", "deep/two.face-2.jpg"]
    assert table["faces_seen"].tolist() == [2, 2]
    assert all((tmp_path / "zipped" / name).is_file() for name in table["crop"])


def test_sources_and_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no pictures \(1 other files\)"):
        crop(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(DataError, match="does not exist"):
        crop_folder(tmp_path / "nowhere", tmp_path / "out", CROPPER)
    assert not (tmp_path / "out").exists()
    source = folder_of(tmp_path / "in", {"a.png": FACE})
    with pytest.raises(DataError, match="among the pictures"):
        crop_folder(source, source / "crops", CROPPER)
    target = folder_of(tmp_path / "other", {"mine.txt": b"x"})
    with pytest.raises(DataError, match="holds other files"):
        crop_folder(source, target, CROPPER)
    with pytest.raises(DataError, match=r"mine.txt is a file"):
        crop_folder(source, target / "mine.txt", CROPPER)
    with file_lock(tmp_path / "out" / ".claim"), pytest.raises(DataError, match="is cropping into"):
        crop(tmp_path, {})


def test_processes_give_what_one_gives_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [FACE if n % 3 else f"picture {n} cannot be read" for n in range(30)]
    alone = list(cropped(contents[:3], 3, CROPPER))
    monkeypatch.setattr(progress, "n_cores", lambda: 2)
    shared = list(cropped(iter(contents), 30, CROPPER))
    assert shared[:3] == alone
    assert [result.reason for result in shared[::3]] == contents[::3]
