"""A data set is whole or not there, read as it was written, and refused once it is damaged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.data import dataset
from benchmark.data.drawn import draw_faces
from benchmark.errors import DataError
from tests.data.sources import folder_of


def test_a_table_is_read_as_it_was_written(drawn_faces: dataset.FaceSet, tmp_path: Path) -> None:
    table = drawn_faces.table.copy()
    table.loc[0, "file"] = "NA"  # which pandas would take for a missing value
    table.loc[1, "file"] = "25_0_1_2017,01 .jpg"
    table.loc[1, ["age", "race"]] = -1  # missing labels: empty cells
    (tmp_path / "table.csv").write_text(dataset.as_csv(dataset.with_empty_cells(table)))
    read = dataset.read_table(tmp_path / "table.csv")
    assert list(read.columns) == list(dataset.TABLE_COLUMNS)
    assert read.to_dict("list") == table.to_dict("list")


def test_what_is_no_table_is_refused(drawn_faces: dataset.FaceSet, tmp_path: Path) -> None:
    whole = drawn_faces.table.astype(object)
    damaged: list[tuple[str, str]] = [("", "No columns"), ("file,part\na.jpg,train\n", "no column")]
    for column, value, problem in (
        ("part", "holdout", "part has other values"),
        ("fold", 5, "fold has other values"),
        ("gender", 2, "gender has other values"),
        ("cluster", "one", "invalid literal"),
        ("file", whole.loc[1, "file"], "or one twice"),
    ):
        table = whole.copy()
        table.loc[0, column] = value
        damaged.append((dataset.as_csv(table), problem))
    for text, problem in damaged:
        (tmp_path / "table.csv").write_text(text)
        with pytest.raises(DataError, match=f"is not a table of faces: .*{problem}"):
            dataset.read_table(tmp_path / "table.csv")


DRAWN = draw_faces(30, seed=1, image_px=24)


def stored(data_dir: Path) -> dataset.FaceSet:
    """Faces in falling order of their names, so that storing has to sort them."""
    labels = DRAWN.labels.sort_values("file", ascending=False)
    return dataset.store_faces(DRAWN.images[labels.index], labels, name="faces", data_dir=data_dir)


def test_stored_faces_are_found_row_by_row_and_cannot_be_overwritten(tmp_path: Path) -> None:
    faces = stored(tmp_path)
    assert faces.table["file"].is_monotonic_increasing
    order = DRAWN.labels.sort_values("file").index
    assert np.array_equal(faces.pixels(), DRAWN.images[order])
    assert (faces.name, faces.drawn, faces.image_px) == ("faces", True, 24)
    files = [faces.folder / name for name in ("faces.npy", "manifest.json")]
    before = [path.stat().st_mtime_ns for path in files]
    faces.pixels()[:] = 0
    assert stored(tmp_path).pixel_digest == faces.pixel_digest  # the same again opens it
    assert [path.stat().st_mtime_ns for path in files] == before
    # Only whole folders count as prepared.
    (tmp_path / "cache").mkdir()
    folder_of(tmp_path / ".faces.x.partial", {"manifest.json": b"{}"})
    assert [found.name for found in dataset.prepared_datasets(tmp_path)] == ["faces"]


def test_a_name_that_will_not_do_and_a_damaged_data_set_are_refused(tmp_path: Path) -> None:
    whole = stored(tmp_path).folder
    for name in ("", "Faces", "a b", "../a", ".a", "cache", "weights", "drawn"):
        with pytest.raises(DataError, match="cannot be called"):
            dataset.check_dataset_name(name, drawn=False)
    cases: list[tuple[str, Callable[[bytes], bytes], str]] = [
        ("faces.npy", lambda pixels: pixels[:-1], "packed faces cannot be read"),
        ("table.csv", lambda text: text[: text[:-1].rindex(b"\n") + 1], "has 29 rows"),
        ("table.csv", lambda text: text.replace(b",test,", b",train,", 1), "was changed"),
        ("manifest.json", lambda text: text.replace(b'"schema": 1', b'"schema": 0'), "schema 0"),
        ("manifest.json", lambda _: b"[", "manifest.json cannot be read"),
        ("manifest.json", lambda text: text.replace(b"split_digest", b"x"), "not say split_digest"),
    ]
    for number, (name, edit, problem) in enumerate(cases):
        folder = Path(shutil.copytree(whole, tmp_path / str(number)))
        (folder / name).write_bytes(edit((folder / name).read_bytes()))
        with pytest.raises(DataError, match=problem):
            dataset.open_faces(folder)
        (folder / name).unlink()
        with pytest.raises(DataError, match=name):
            dataset.open_faces(folder)


def test_a_sample_has_whole_clusters_faces_in_their_parts_and_pixels_with_their_labels(
    drawn_faces: dataset.FaceSet, tmp_path: Path
) -> None:
    # All synthetic faces and 20 of them once more, so that there are clusters.
    rows = np.r_[: len(drawn_faces.table), :20]
    labels = drawn_faces.table.iloc[rows][["age", "age_group", "gender", "race"]]
    labels = labels.assign(file=[f"{number:03d}.png" for number in range(len(rows))])
    pixels = drawn_faces.pixels()[rows]
    faces = dataset.store_faces(pixels, labels, name="whole", data_dir=tmp_path)
    sample = dataset.draw_sample(faces, 150, "small")
    assert 150 <= len(sample.table) <= 152
    kept = faces.table.set_index("file").loc[sample.table["file"]]
    for column in ("part", "fold", "cluster", "sha256"):
        assert (kept[column].to_numpy() == sample.table[column].to_numpy()).all()
    others = faces.table[~faces.table["file"].isin(kept.index)]
    assert not set(others["cluster"]) & set(sample.table["cluster"])
    assert np.array_equal(sample.pixels(), faces.pixels()[faces.table["file"].isin(kept.index)])
    assert sample.manifest["counts"]["usable"] == len(sample.table)
    assert sample.manifest["sample"]["of"] == "whole"
    assert sample.split_digest != faces.split_digest
    assert dataset.draw_sample(faces, 150, "small").pixel_digest == sample.pixel_digest
    with pytest.raises(DataError, match="'small' is there already and is another one"):
        dataset.draw_sample(faces, 200, "small")
    for n_faces in (99, 10_000):
        with pytest.raises(DataError, match="fewer than the"):
            dataset.draw_sample(faces, n_faces, "small")


def test_the_only_photographed_set_is_taken_and_several_must_be_named(tmp_path: Path) -> None:
    def store(name: str, *, drawn: bool = False) -> None:
        faces = draw_faces(8, seed=1, image_px=32)
        dataset.store_faces(faces.images, faces.labels, name=name, drawn=drawn, data_dir=tmp_path)

    store(dataset.STORED_NAME, drawn=True)
    with pytest.raises(DataError, match="0 data sets of photographs are prepared") as caught:
        dataset.choose_dataset(tmp_path)
    for text in ("facebench data prepare SOURCE", "--dataset drawn"):
        assert text in caught.value.fix
    assert dataset.choose_dataset(tmp_path, "drawn").name == dataset.STORED_NAME
    store("one")
    assert dataset.choose_dataset(tmp_path).name == "one"
    with pytest.raises(DataError, match=r"no data set 'nobody' is prepared \(allowed: drawn-v1, o"):
        dataset.choose_dataset(tmp_path, "nobody")
    store("two")
    with pytest.raises(DataError, match=r"2 data sets of photographs.*--dataset.*, one, two"):
        dataset.choose_dataset(tmp_path)
    assert dataset.choose_dataset(tmp_path, "two").name == "two"
