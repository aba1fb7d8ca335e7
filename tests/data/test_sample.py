"""A sample is smaller, keeps clusters whole and every face in its part; synthetic faces are asked
for, never chosen."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmark.data.dataset import FaceSet, open_faces, store_faces
from benchmark.data.drawn import draw_faces
from benchmark.data.sample import (
    STORED_NAME,
    choose_dataset,
    draw_sample,
    pairs_within_clusters,
    sampled_rows,
)
from benchmark.errors import DataError


@pytest.fixture
def faces(drawn_faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """All synthetic faces and 20 of them once more, so that there are clusters."""
    n_drawn = len(drawn_faces.table)
    rows = np.r_[:n_drawn, :20]
    labels = drawn_faces.table.iloc[rows][["file", "age", "age_group", "gender", "race"]]
    labels = labels.assign(file=[f"{number:03d}.png" for number in range(n_drawn + 20)])
    folder = tmp_path_factory.mktemp("whole")
    return store_faces(drawn_faces.pixels()[rows], labels, name="whole", data_dir=folder)


def test_clusters_stay_whole_faces_in_their_parts_and_pixels_with_their_labels(
    faces: FaceSet,
) -> None:
    sample = draw_sample(faces, 150, "small")
    assert 150 <= len(sample.table) <= 152
    kept = faces.table.set_index("file").loc[sample.table["file"]]
    for column in ("part", "fold", "cluster", "sha256"):
        assert (kept[column].to_numpy() == sample.table[column].to_numpy()).all()
    others = faces.table[~faces.table["file"].isin(sample.table["file"])]
    assert not set(others["cluster"]) & set(sample.table["cluster"])
    assert np.array_equal(sample.pixels(), faces.pixels()[sampled_rows(faces, 150)])
    assert sample.manifest["counts"]["usable"] == len(sample.table)
    assert sample.manifest["sample"]["of"] == "whole"
    assert sample.split_digest != faces.split_digest


def test_drawing_again_gives_the_same_and_another_size_is_refused(faces: FaceSet) -> None:
    first = draw_sample(faces, 150, "small")
    assert draw_sample(faces, 150, "small").pixel_digest == first.pixel_digest
    with pytest.raises(DataError, match="'small' is there already and is another one"):
        draw_sample(faces, 200, "small")
    assert open_faces(first.folder).pixel_digest == first.pixel_digest
    for n_faces in (0, 99, 10_000):
        with pytest.raises(DataError, match="fewer than whole has"):
            draw_sample(faces, n_faces, "small")


def test_pairs_are_counted_within_clusters(faces: FaceSet) -> None:
    assert (faces.table["cluster"].value_counts() == 2).sum() == 20
    assert pairs_within_clusters(faces) == 20


def store(data_dir: Path, name: str, *, drawn: bool) -> None:
    faces = draw_faces(8, seed=1, image_px=32)
    store_faces(faces.images, faces.labels, name=name, drawn=drawn, data_dir=data_dir)


def test_without_photographs_nothing_is_chosen_and_both_ways_on_are_named(tmp_path: Path) -> None:
    store(tmp_path, STORED_NAME, drawn=True)
    with pytest.raises(DataError, match="no data set is prepared") as caught:
        choose_dataset(tmp_path)
    for way in ("facebench data prepare SOURCE", "--dataset drawn"):
        assert way in caught.value.fix
    assert choose_dataset(tmp_path, "drawn").name == STORED_NAME


def test_the_only_photographed_set_is_taken_and_several_must_be_named(tmp_path: Path) -> None:
    store(tmp_path, "one", drawn=False)
    assert choose_dataset(tmp_path).name == "one"
    with pytest.raises(DataError, match=r"no data set 'nobody' is prepared \(allowed: one, drawn"):
        choose_dataset(tmp_path, "nobody")
    store(tmp_path, "two", drawn=False)
    with pytest.raises(DataError, match=r"2 data sets are prepared.*allowed: one, two.*--dataset"):
        choose_dataset(tmp_path)
    assert choose_dataset(tmp_path, "two").name == "two"


@pytest.mark.slow
def test_asking_twice_at_once_on_an_empty_start_draws_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: choose_dataset(tmp_path, "drawn"), range(2))
    assert first.pixel_digest == second.pixel_digest
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [STORED_NAME]
