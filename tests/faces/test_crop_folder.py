"""A folder of photographs becomes a folder of faces; nothing vanishes, nothing is done twice."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmark.data import crop_folder as cropping
from benchmark.data.crop import CropOptions
from benchmark.data.crop_folder import COLUMNS, Cropper, CropReport, crop_folder, cropped
from benchmark.errors import DataError
from benchmark.files import claimed
from tests.faces.detectors import WHITE, scene
from tests.faces.sources import encoded, folder_of, zip_of
from tests.faces.test_pictures import png_header

CROPPER = Cropper(CropOptions(margin=0, size_px=16), WHITE, "png")
FACE = encoded(scene((40, 20, 60, 60)), "PNG")


def crop(tmp_path: Path, files: dict[str, bytes], cropper: Cropper = CROPPER) -> CropReport:
    return crop_folder(folder_of(tmp_path / "in", files), tmp_path / "out", cropper)


def turned(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    return encoded(picture, "JPEG", exif=exif, quality=95)


def animated(*frames: Image.Image) -> bytes:
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


SIXTEEN_BIT = encoded(
    Image.fromarray(np.asarray(scene((40, 20, 60, 60)).convert("L")).astype(np.uint16) * 257), "PNG"
)


def test_every_picture_has_a_row_that_says_what_became_of_it(tmp_path: Path) -> None:
    report = crop(
        tmp_path,
        {"face.png": FACE, "sub/none.png": encoded(scene(), "PNG"), "bad.jpg": b"x", "a.txt": b"y"},
    )
    assert report.counts() == {"cropped": 1, "no face": 1, "unreadable": 1}
    table = pd.read_csv(tmp_path / "out" / "crops.csv", keep_default_na=False).set_index("file")
    assert ("file", *table.columns) == COLUMNS
    assert table.loc["face.png", ["left", "top", "right", "bottom"]].tolist() == [
        "40", "20", "60", "60",
    ]  # fmt: skip
    assert table.loc["sub/none.png", "reason"] == "no face found"
    assert table.loc["bad.jpg", "reason"].startswith("it is not a picture")
    assert report.n_not_pictures == 1
    with Image.open(tmp_path / "out" / "face.png") as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (encoded(scene((40, 20, 60, 60)).convert("CMYK"), quality=95), "CMYK"),
        (SIXTEEN_BIT, "I;16"),
        (animated(scene((40, 20, 60, 60)), scene()), "P"),
        (encoded(scene((40, 20, 60, 60)).convert("RGBA"), "PNG"), "RGBA"),
        (turned(scene((20, 60, 60, 80), size=(80, 120))), "RGB"),
    ],
    ids=["cmyk", "16-bit", "animated", "alpha", "turned"],
)
def test_pictures_of_every_kind_are_cropped_upright(
    tmp_path: Path, content: bytes, mode: str
) -> None:
    report = crop(tmp_path, {"picture.png": content})
    row = report.table.iloc[0]
    assert (row["outcome"], row["mode"], row["width"], row["height"]) == ("cropped", mode, 120, 80)
    # JPEG softens edges by a pixel or two. Turned, 20..60 x 60..80 comes to lie at 40..60 x 20..60.
    box = row[["left", "top", "right", "bottom"]].astype(int).to_numpy()
    assert np.abs(box - [40, 20, 60, 60]).max() <= 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (FACE[:150], "the picture is damaged"),
        (encoded(Image.new("RGB", (1, 1)), "PNG"), "the picture has 1 x 1 pixels"),
        (png_header(60_000, 60_000), "the picture has more than 64,000,000 pixels"),
        (encoded(Image.new("F", (40, 40)), "TIFF"), "the picture's mode is F"),
    ],
    ids=["empty", "cut", "1x1", "bomb", "floats"],
)
def test_a_picture_that_cannot_be_used_says_why_and_the_others_are_done(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    report = crop(tmp_path, {"bad.png": content, "good.png": FACE})
    assert report.counts() == {"cropped": 1, "no face": 0, "unreadable": 1}
    assert report.without_crop()["reason"].iloc[0].startswith(reason)


def test_a_picture_of_20_000_pixels_width_is_cropped(tmp_path: Path) -> None:
    wide = scene((15_000, 20, 15_040, 60), size=(20_000, 80))
    report = crop(tmp_path, {"wide.png": encoded(wide, "PNG")})
    assert report.table["left"].tolist() == [15_000]


def test_a_second_time_nothing_is_done_and_a_third_time_what_is_new(tmp_path: Path) -> None:
    files = {"a.png": FACE, "b.png": encoded(scene(), "PNG")}
    first = crop(tmp_path, files)
    assert (first.n_new, crop(tmp_path, files).n_new) == (2, 0)
    changed = encoded(scene((10, 10, 50, 50)), "PNG")
    third = crop(tmp_path, {"b.png": changed, "c.png": FACE})
    assert (third.n_new, third.counts()["cropped"]) == (2, 3)


def test_a_crop_that_was_removed_is_made_again(tmp_path: Path) -> None:
    crop(tmp_path, {"a.png": FACE})
    (tmp_path / "out" / "a.png").unlink()
    assert crop(tmp_path, {"a.png": FACE}).n_new == 1
    assert (tmp_path / "out" / "a.png").is_file()


def test_a_picture_that_is_gone_takes_its_crop_with_it(tmp_path: Path) -> None:
    crop(tmp_path, {"a.png": FACE, "b.png": FACE})
    (tmp_path / "in" / "a.png").unlink()
    report = crop_folder(tmp_path / "in", tmp_path / "out", CROPPER)
    assert report.table["file"].tolist() == ["b.png"]
    assert not (tmp_path / "out" / "a.png").exists()


def test_stopped_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cropping, "BATCH_PICTURES", 2)
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


def test_pictures_with_one_stem_have_crops_of_their_own(tmp_path: Path) -> None:
    report = crop(tmp_path, {"a.bmp": FACE, "A.gif": FACE, "a.png": FACE, "a.png.png": FACE})
    crops = report.table["crop"].tolist()
    assert len({name.casefold() for name in crops}) == 4
    assert all((tmp_path / "out" / name).is_file() for name in crops)


def test_all_faces_of_a_picture_have_rows_and_files(tmp_path: Path) -> None:
    two = encoded(scene((5, 10, 35, 70), (50, 30, 66, 50)), "PNG")
    cropper = Cropper(CropOptions(size_px=16, faces="all"), WHITE, "jpeg")
    report = crop(tmp_path, {"two.png": two}, cropper)
    assert report.table["crop"].tolist() == ["two.jpg", "two.face-2.jpg"]
    assert report.table["faces_seen"].tolist() == [2, 2]
    assert all((tmp_path / "out" / name).is_file() for name in report.table["crop"])


def test_an_archive_is_cropped_without_unpacking_it(tmp_path: Path) -> None:
    source = zip_of(tmp_path / "in.zip", {"deep/a.png": FACE})
    crop_folder(source, tmp_path / "out", CROPPER)
    assert (tmp_path / "out" / "deep" / "a.png").is_file()


def test_a_source_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no pictures \(1 other files\)"):
        crop(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(DataError, match="does not exist"):
        crop_folder(tmp_path / "nowhere", tmp_path / "out", CROPPER)
    assert not (tmp_path / "out").exists()


def test_crops_do_not_go_among_the_pictures_nor_among_other_files(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", {"a.png": FACE})
    with pytest.raises(DataError, match="among the pictures"):
        crop_folder(source, source / "crops", CROPPER)
    target = folder_of(tmp_path / "out", {"mine.txt": b"x"})
    with pytest.raises(DataError, match="holds other files"):
        crop_folder(source, target, CROPPER)


def test_two_processes_do_not_crop_into_one_folder(tmp_path: Path) -> None:
    with claimed(tmp_path / "out" / ".claim"), pytest.raises(DataError, match="is cropping into"):
        crop(tmp_path, {"a.png": FACE})


def pictures(n: int) -> Iterator[tuple[int, bytes | str]]:
    for number in range(n):
        yield number, FACE if number % 3 else "it cannot be read: no permission"


def test_processes_give_what_one_gives_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [result for batch in cropped(pictures(20), 20, CROPPER) for result in batch]
    monkeypatch.setattr(cropping, "MIN_PICTURES_TO_SHARE", 1)
    monkeypatch.setattr(cropping, "n_cores", lambda: 2)
    shared = [result for batch in cropped(pictures(20), 20, CROPPER) for result in batch]
    assert shared == alone
    assert [number for number, _ in shared] == list(range(20))


def test_the_journal_says_how_its_crops_were_made(tmp_path: Path) -> None:
    crop(tmp_path, {"a.png": FACE})
    head = json.loads((tmp_path / "out" / "crops.jsonl").read_text().splitlines()[0])
    assert (head["detector"], head["size_px"], head["encoding"]) == ("white-1", 16, "png")
