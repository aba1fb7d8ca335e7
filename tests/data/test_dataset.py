"""A data set is whole or not there, read as it was written, and refused once it is damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.data.dataset import (
    TABLE_COLUMNS,
    FaceSet,
    check_same_faces,
    open_faces,
    placed,
    prepared_datasets,
    read_table,
    staged_folder,
    store_faces,
    write_table,
)
from benchmark.data.labels import age_group_of
from benchmark.errors import DataError
from tests.data.sources import face_name, picture


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_has_its_name_only_at_the_end_and_an_error_leaves_nothing(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "faces") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "faces").exists()
    assert (tmp_path / "faces" / "a").read_text() == "a"

    def fail_half_way() -> None:
        with staged_folder(tmp_path / "others") as folder:
            (folder / "a").write_text("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert names_in(tmp_path) == ["faces"]


def test_what_a_killed_process_left_is_removed_and_a_folder_in_use_is_not(tmp_path: Path) -> None:
    (tmp_path / ".faces.killed.partial").mkdir()
    with staged_folder(tmp_path / "faces") as in_use:
        with staged_folder(tmp_path / "faces"):
            assert in_use.exists()
            assert not (tmp_path / ".faces.killed.partial").exists()
        (tmp_path / "faces").rmdir()


def test_a_name_taken_meanwhile_and_a_place_that_cannot_be_written_are_errors(
    tmp_path: Path,
) -> None:
    final = tmp_path / "faces"
    with pytest.raises(DataError, match="something called 'faces'"), staged_folder(final):
        (final / "other").mkdir(parents=True)
    assert names_in(tmp_path) == ["faces"]
    (tmp_path / "file").write_text("a file, not a folder")
    with (
        pytest.raises(DataError, match="cannot be written"),
        staged_folder(tmp_path / "file" / "x"),
    ):
        pass


def rows(n: int = 12) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "file": [f"25_0_{i % 5}_2017,{i:02d} .jpg" for i in range(n)],
            "sha256": [f"{i:064x}" for i in range(n)],
            "age": 25,
            "age_group": 1,
            "gender": 0,
            "race": [i % 5 for i in range(n)],
            "mode": "RGB",
            "width": 200,
            "height": 200,
        }
    ).sort_values("file", ignore_index=True)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = placed(rows(), near=[(0, 3)])
    table.loc[0, "file"] = "NA"  # which pandas would take for a missing value
    table.loc[1, ["age", "race"]] = -1  # missing labels: empty cells
    write_table(tmp_path / "table.csv", table)
    read = read_table(tmp_path / "table.csv")
    assert list(read.columns) == list(TABLE_COLUMNS)
    assert read.to_dict("list") == table.to_dict("list")


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("part", "holdout", "column part or fold"),
        ("part", "", "both or neither"),
        ("fold", 5, "column part or fold"),
        ("no_place_reason", "copy of x", "both or neither"),
        ("gender", 2, "labels outside 0 to 1"),
        ("cluster", "one", "something other than integers"),
        ("file", "25_0_1_2017,01 .jpg", "stands in it twice"),
    ],
)
def test_a_table_with_impossible_values_is_refused(
    tmp_path: Path, column: str, value: object, problem: str
) -> None:
    table = placed(rows(), near=[]).astype(object)
    table.loc[0, column] = value
    write_table(tmp_path / "table.csv", table)
    with pytest.raises(DataError, match=problem):
        read_table(tmp_path / "table.csv")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    for text in ("", "file,part\na.jpg,train\n", "\x00\xff"):
        (tmp_path / "table.csv").write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match="is not a table of faces"):
            read_table(tmp_path / "table.csv")


def test_other_faces_or_labels_than_a_tables_are_refused() -> None:
    there = placed(rows(), near=[])
    with pytest.raises(DataError, match=r"5 faces of the table .* and 2 more"):
        check_same_faces(rows(7), there, "table.csv")
    with pytest.raises(DataError, match="1 faces of the source are not in the table"):
        check_same_faces(rows(13), there, "table.csv")
    with pytest.raises(DataError, match="1 faces have another race"):
        check_same_faces(rows().assign(race=[1, *rows()["race"][1:]]), there, "table.csv")


def stored(data_dir: Path, n: int = 30, first: int = 0) -> FaceSet:
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
    return store_faces(images, labels, name="faces", data_dir=data_dir)


def test_stored_faces_are_found_row_by_row_and_cannot_be_overwritten(tmp_path: Path) -> None:
    faces = stored(tmp_path)
    assert faces.table["file"].is_monotonic_increasing
    for row, file in enumerate(faces.table["file"]):
        number = int(file.split("_")[3][12:17])
        assert np.array_equal(faces.pixels()[row], np.asarray(picture(number, px=24)))
    assert (faces.name, faces.drawn, faces.image_px) == ("faces", True, 24)
    before = (faces.folder / "faces.npy").read_bytes()
    faces.pixels()[:] = 0
    assert (faces.folder / "faces.npy").read_bytes() == before


def test_storing_the_same_again_opens_it_and_others_are_refused(tmp_path: Path) -> None:
    first = stored(tmp_path)
    written = (first.folder / "manifest.json").stat().st_mtime_ns
    assert stored(tmp_path).pixel_digest == first.pixel_digest
    assert (first.folder / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(DataError, match="holds other faces"):
        stored(tmp_path, first=5)


def test_names_and_pictures_that_will_not_do_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    labels = pd.DataFrame({"file": ["a", "b"], "age": 5, "age_group": 0, "gender": 0, "race": 0})
    sound = np.zeros((2, 24, 24, 3), np.uint8)
    for name in ("", "Faces", "a b", "../a", ".a", "cache", "weights", "drawn"):
        with pytest.raises(DataError, match="cannot be called"):
            store_faces(sound, labels, name=name, data_dir=tmp_path, drawn=False)
    for images in (sound[:, :, :20], sound.astype(np.float32), sound[:0]):
        with pytest.raises(DataError, match="pictures of shape"):
            store_faces(images, labels, name="faces", data_dir=tmp_path)
    with pytest.raises(DataError, match="two faces are called 'a'"):
        store_faces(sound, labels.assign(file="a"), name="faces", data_dir=tmp_path)
    assert names_in(tmp_path) == []


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


def edited(name: str, edit: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(edit((folder / name).read_text()))


def old_schema(text: str) -> str:
    return json.dumps({**json.loads(text), "schema": 0})


def cut_pixels(folder: Path) -> None:
    (folder / "faces.npy").write_bytes((folder / "faces.npy").read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (cut_pixels, "packed faces cannot be read"),
        (edited("table.csv", lambda text: text[: text[:-1].rindex("\n") + 1]), "has 29 rows"),
        (edited("table.csv", lambda text: text.replace(",test,", ",train,", 1)), "was changed"),
        (edited("manifest.json", old_schema), "has schema 0 and not 1"),
        (edited("manifest.json", lambda _: "["), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json cannot be read"),
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
