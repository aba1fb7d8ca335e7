"""A sample is smaller, keeps clusters whole and every face in its part, and is drawn once."""

import numpy as np
import pytest

from benchmark.data.dataset import FaceSet, open_faces, store_faces
from benchmark.data.sample import draw_sample, pairs_within_clusters, sampled_rows
from benchmark.errors import DataError


@pytest.fixture
def faces(drawn_faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """Give all drawn faces and 20 of them once more, so that there are clusters."""
    n_drawn = len(drawn_faces.table)
    rows = np.r_[:n_drawn, :20]
    labels = drawn_faces.table.iloc[rows][["file", "age", "age_group", "gender", "race"]]
    labels = labels.assign(file=[f"{number:03d}.png" for number in range(n_drawn + 20)])
    folder = tmp_path_factory.mktemp("whole")
    return store_faces(drawn_faces.pixels()[rows], labels, name="whole", data_dir=folder)


def test_clusters_stay_whole_and_faces_in_their_parts(faces: FaceSet) -> None:
    sample = draw_sample(faces, 150, "small")
    assert 150 <= len(sample.table) <= 152
    kept = faces.table.set_index("file").loc[sample.table["file"]]
    for column in ("part", "fold", "cluster", "sha256"):
        assert (kept[column].to_numpy() == sample.table[column].to_numpy()).all()
    others = faces.table[~faces.table["file"].isin(sample.table["file"])]
    assert not set(others["cluster"]) & set(sample.table["cluster"])


def test_pixels_go_with_their_labels(faces: FaceSet) -> None:
    sample = draw_sample(faces, 150, "small")
    rows = sampled_rows(faces, 150)
    assert np.array_equal(sample.pixels(), faces.pixels()[rows])
    assert sample.manifest["counts"]["usable"] == len(rows)
    assert sample.manifest["sample"]["of"] == "whole"
    assert sample.split_digest != faces.split_digest


def test_drawing_again_gives_the_same_and_another_size_is_refused(faces: FaceSet) -> None:
    first = draw_sample(faces, 150, "small")
    assert draw_sample(faces, 150, "small").pixel_digest == first.pixel_digest
    with pytest.raises(DataError, match="'small' is there already and is another one"):
        draw_sample(faces, 200, "small")
    assert open_faces(first.folder).pixel_digest == first.pixel_digest


@pytest.mark.parametrize("n_faces", [0, 99, 10_000])
def test_sizes_out_of_range_are_refused(faces: FaceSet, n_faces: int) -> None:
    with pytest.raises(DataError, match="fewer than whole has"):
        draw_sample(faces, n_faces, "small")


def test_pairs_are_counted_within_clusters(faces: FaceSet) -> None:
    sizes = faces.table["cluster"].value_counts()
    assert (sizes == 2).sum() == 20
    assert pairs_within_clusters(faces) == 20
