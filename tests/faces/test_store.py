"""Pictures in memory become a data set; a data set that is not whole is not opened."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.data.dataset import FaceSet, open_faces, prepared_datasets, store_faces
from benchmark.data.labels import age_group_of
from benchmark.errors import DataError
from tests.faces.sources import face_name, picture


def stored(data_dir: Path, n: int = 30, first: int = 0, drawn: bool = True) -> FaceSet:
    """Faces in falling order of their names, so that storing has to sort them."""
    numbers = range(first + n - 1, first - 1, -1)
    images = np.stack([np.asarray(picture(i, px=24)) for i in numbers])
    ages = [1 + i % 90 for i in numbers]
    labels = pd.DataFrame(
        {
            "file": [face_name(i, age, i % 2, i % 5) for i, age in zip(numbers, ages, strict=True)],
            "age": ages,
            "age_group": [age_group_of(age) for age in ages],
            "gender": [i % 2 for i in numbers],
            "race": [i % 5 for i in numbers],
        }
    )
    return store_faces(images, labels, name="faces", data_dir=data_dir, drawn=drawn)


def test_stored_faces_are_found_row_by_row(tmp_path: Path) -> None:
    faces = stored(tmp_path)
    assert faces.table["file"].is_monotonic_increasing
    for row, file in enumerate(faces.table["file"]):
        number = int(file.split("_")[3][12:17])
        assert np.array_equal(faces.pixels()[row], np.asarray(picture(number, px=24)))
    assert (faces.name, faces.drawn, faces.image_px) == ("faces", True, 24)


def test_stacks_may_come_one_by_one(tmp_path: Path) -> None:
    whole = stored(tmp_path / "a")
    labels = whole.table[["file", "age", "age_group", "gender", "race"]]
    stacks = (whole.pixels()[start : start + 7] for start in range(0, 30, 7))
    again = store_faces(stacks, labels, name="faces", data_dir=tmp_path / "b")
    assert again.pixel_digest == whole.pixel_digest
    assert again.split_digest == whole.split_digest


def test_storing_the_same_again_opens_it_and_others_are_refused(tmp_path: Path) -> None:
    first = stored(tmp_path)
    written = (first.folder / "manifest.json").stat().st_mtime_ns
    assert stored(tmp_path).pixel_digest == first.pixel_digest
    assert (first.folder / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(DataError, match="holds other faces"):
        stored(tmp_path, first=5)


@pytest.mark.parametrize("name", ["", "Faces", "a b", "../a", ".a", "cache", "weights", "drawn"])
def test_a_name_that_would_not_do_is_refused(tmp_path: Path, name: str) -> None:
    images, labels = np.zeros((1, 24, 24, 3), np.uint8), pd.DataFrame({"file": ["a"]})
    with pytest.raises(DataError, match="cannot be called"):
        store_faces(images, labels, name=name, data_dir=tmp_path, drawn=False)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 24, 20, 3), np.uint8), np.zeros((2, 24, 24, 3), np.float32)]
)
def test_pictures_of_another_shape_or_type_leave_nothing(
    tmp_path: Path, images: np.ndarray
) -> None:
    labels = pd.DataFrame({"file": ["a", "b"], "age": 5, "age_group": 0, "gender": 0, "race": 0})
    with pytest.raises(DataError, match="pictures of shape"):
        store_faces(images, labels, name="faces", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_writing_into_the_pixels_does_not_reach_the_file(tmp_path: Path) -> None:
    faces = stored(tmp_path)
    before = (faces.folder / "faces.npy").read_bytes()
    faces.pixels()[:] = 0
    assert (faces.folder / "faces.npy").read_bytes() == before


def test_the_manifest_says_what_the_faces_are(tmp_path: Path) -> None:
    manifest = stored(tmp_path).manifest
    assert manifest["schema"] == 1
    assert manifest["split_version"] == "leak-free-2"
    assert manifest["age_group_rule"] == "right-closed-1"
    assert manifest["counts"]["usable"] == manifest["counts"]["placed"] == 30
    assert {"pillow", "numpy", "facebench"} == set(manifest["versions"])


def test_only_whole_folders_count_as_prepared(tmp_path: Path) -> None:
    assert prepared_datasets(tmp_path / "nowhere") == []
    stored(tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / ".faces.x.partial").mkdir()
    (tmp_path / ".faces.x.partial" / "manifest.json").write_text("{}")
    assert [faces.name for faces in prepared_datasets(tmp_path)] == ["faces"]


def cut_pixels(folder: Path) -> None:
    content = (folder / "faces.npy").read_bytes()
    (folder / "faces.npy").write_bytes(content[:-1])


def drop_a_row(folder: Path) -> None:
    lines = (folder / "table.csv").read_text().splitlines(keepends=True)
    (folder / "table.csv").write_text("".join(lines[:-1]))


def move_a_face(folder: Path) -> None:
    text = (folder / "table.csv").read_text()
    (folder / "table.csv").write_text(text.replace(",test,", ",train,", 1))


def age_the_schema(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema": 0}))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (cut_pixels, "packed faces cannot be read"),
        (drop_a_row, "its table has 29 rows"),
        (move_a_face, "was changed after it was prepared"),
        (age_the_schema, "has schema 0 and not 1"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("["), "manifest.json cannot be read"),
        (lambda folder: (folder / "table.csv").unlink(), "is not a table of faces"),
    ],
)
def test_a_damaged_data_set_is_not_opened(
    tmp_path: Path, damage: Callable[[Path], object], problem: str
) -> None:
    folder = stored(tmp_path).folder
    damage(folder)
    with pytest.raises(DataError, match=problem):
        open_faces(folder)
