"""Which data set a command works on, and that asking twice at once draws once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmark.data.dataset import store_faces
from benchmark.data.drawn import draw_faces
from benchmark.data.sample import STORED_NAME, choose_dataset
from benchmark.errors import DataError


def store(data_dir: Path, name: str, *, drawn: bool) -> None:
    """Store eight drawn pictures under a name, as if they were photographed or not."""
    faces = draw_faces(8, seed=1, image_px=32)
    store_faces(faces.images, faces.labels, name=name, drawn=drawn, data_dir=data_dir)


def test_the_only_photographed_set_is_taken_and_drawn_ones_on_request(tmp_path: Path) -> None:
    store(tmp_path, STORED_NAME, drawn=True)
    assert choose_dataset(tmp_path).drawn
    store(tmp_path, "mine", drawn=False)
    assert choose_dataset(tmp_path).name == "mine"
    assert choose_dataset(tmp_path, "drawn").name == STORED_NAME


def test_several_photographed_sets_must_be_told_apart(tmp_path: Path) -> None:
    store(tmp_path, "one", drawn=False)
    store(tmp_path, "two", drawn=False)
    with pytest.raises(DataError, match=r"2 data sets are prepared.*allowed: one, two.*--dataset"):
        choose_dataset(tmp_path)
    assert choose_dataset(tmp_path, "two").name == "two"


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    store(tmp_path, "one", drawn=False)
    with pytest.raises(DataError, match=r"no data set 'nobody' is prepared \(allowed: one, drawn"):
        choose_dataset(tmp_path, "nobody")


@pytest.mark.slow
def test_asking_twice_at_once_on_an_empty_start_draws_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: choose_dataset(tmp_path), range(2))
    assert first.pixel_digest == second.pixel_digest
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [STORED_NAME]
