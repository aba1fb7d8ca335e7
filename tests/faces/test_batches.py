"""Batches by index: the order depends on seed and epoch alone, and pixels meet their labels."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.data.batches import (
    FaceBatches,
    gathered,
    random_order,
    random_passes,
    split_into_batches,
)


def some_faces(n: int = 6) -> FaceBatches:
    pixels = np.arange(n, dtype=np.uint8).repeat(2 * 2 * 3).reshape(n, 2, 2, 3)
    labels = np.arange(n) % 2
    table = pd.DataFrame({"age_group": labels, "gender": labels, "race": labels})
    return FaceBatches.on_device(pixels, table, torch.device("cpu"))


def test_images_come_with_their_own_labels_in_channels_last_memory() -> None:
    faces, indices = some_faces(), torch.tensor([4, 1])
    images = faces.images(indices)
    assert images.shape == (2, 3, 2, 2)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images[:, 0, 0, 0].tolist() == [4, 1]
    assert faces.truths(indices)["gender"].tolist() == [0, 1]


def test_a_device_named_without_its_number_is_the_same_device() -> None:
    # As `cuda` and `cuda:0`: rows that are there must not be fetched as if they were elsewhere.
    rows = torch.ones(4, 2, device=torch.device("meta"))
    numbered = torch.device("meta", 0)
    assert rows.device != numbered
    picked = gathered(rows, torch.tensor([1, 2], device="meta"), numbered)
    assert picked.shape == (2, 2)
    assert picked.device.type == "meta"


def test_order_is_a_permutation_by_seed_and_epoch() -> None:
    first = random_order(50, seed=1, epoch=0)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, random_order(50, seed=1, epoch=0))
    assert not torch.equal(first, random_order(50, seed=1, epoch=1))
    assert not torch.equal(first, random_order(50, seed=2, epoch=0))


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    sizes = [len(batch) for batch in split_into_batches(torch.arange(9), 4)]
    assert sizes == [4, 5]
    assert [len(batch) for batch in split_into_batches(torch.arange(10), 4)] == [4, 4, 2]
    assert [len(batch) for batch in split_into_batches(torch.arange(1), 4)] == [1]


def test_passes_go_on_where_the_epoch_before_ended() -> None:
    # ten faces, seven an epoch: the first 21 places are two whole passes and one face of a third
    found = torch.cat([random_passes(10, 7, seed=3, epoch=epoch) for epoch in range(3)])
    passes = torch.cat([random_order(10, seed=3, epoch=number) for number in range(3)])
    assert torch.equal(found, passes[:21])
    assert sorted(found[:10].tolist()) == sorted(found[10:20].tolist()) == list(range(10))


def test_faces_that_a_device_has_no_room_for_stay_in_main_memory_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(pixels: torch.Tensor, *_where: object) -> torch.Tensor:
        if pixels.dtype == torch.uint8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pixels

    # No GPU can be filled here: moving to it is where it would show.
    monkeypatch.setattr(torch.Tensor, "to", no_room)
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    table = pd.DataFrame({"age_group": [0, 1], "gender": [0, 1], "race": [0, 1]})
    said: list[str] = []
    faces = FaceBatches.on_device(pixels, table, torch.device("cuda"), said.append)
    assert len(faces.pixels) == 2
    assert "batches are copied" in said[0]
