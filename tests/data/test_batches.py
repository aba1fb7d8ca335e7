"""Batches by index, their order by seed and epoch alone; each face is augmented by itself."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from benchmark.data import batches
from benchmark.experiment.definition import Augmentation
from benchmark.tasks import TASKS


def some_faces(
    device: str = "cpu", say: Callable[[str], None] | None = None
) -> batches.FaceBatches:
    """Six faces of 2 px, each of the grey level of its number."""
    pixels = np.arange(6, dtype=np.uint8).repeat(2 * 2 * 3).reshape(6, 2, 2, 3)
    table = pd.DataFrame(dict.fromkeys(TASKS, np.arange(6) % 2))
    return batches.FaceBatches.on_device(pixels, table, torch.device(device), say)


def drawn(augmentation: Augmentation, n: int, size: int = 4, seed: int = 2) -> list[batches.Batch]:
    generator = torch.Generator().manual_seed(seed)
    return batches.epoch_batches(torch.arange(n), augmentation, size, generator)


def test_images_come_with_their_own_labels_from_wherever_they_lie() -> None:
    faces, indices = some_faces(), torch.tensor([4, 1])
    images = faces.images(indices)
    assert images.shape == (2, 3, 2, 2)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images[:, 0, 0, 0].tolist() == [4, 1]
    assert faces.truths(indices)["gender"].tolist() == [0, 1]
    # As `cuda` and `cuda:0`: rows that are there must not be fetched as if they were elsewhere.
    rows, numbered = torch.ones(4, 2, device=torch.device("meta")), torch.device("meta", 0)
    assert rows.device != numbered
    picked = batches.gathered(rows, torch.tensor([1, 2], device="meta"), numbered)
    assert (picked.shape, picked.device.type) == ((2, 2), "meta")


def test_order_is_a_permutation_by_seed_and_epoch_and_passes_go_on_in_even_batches() -> None:
    first = batches.random_order(50, seed=1, epoch=0)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, batches.random_order(50, seed=1, epoch=0))
    for seed, epoch in ((1, 1), (2, 0)):
        assert not torch.equal(first, batches.random_order(50, seed=seed, epoch=epoch))
    # ten faces, seven an epoch: the first 21 places are two whole passes and one face of a third
    found = torch.cat([batches.random_passes(10, 7, seed=3, epoch=epoch) for epoch in range(3)])
    passes = torch.cat([batches.random_order(10, seed=3, epoch=number) for number in range(3)])
    assert torch.equal(found, passes[:21])
    # a last batch of one joins the one before
    for n, sizes in ((9, [4, 5]), (10, [4, 4, 2]), (1, [1])):
        assert [len(batch) for batch in drawn(Augmentation(), n)] == sizes


def test_faces_too_many_for_a_device_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(pixels: torch.Tensor, *_where: object) -> torch.Tensor:
        if pixels.dtype == torch.uint8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pixels

    # No GPU can be filled here: moving to it is where it would show.
    monkeypatch.setattr(torch.Tensor, "to", no_room)
    said: list[str] = []
    assert len(some_faces("cuda", said.append).pixels) == 6
    assert "batches are copied" in said[0]


def augmented(images: torch.Tensor, augmentation: Augmentation, seed: int = 1) -> torch.Tensor:
    (whole,) = drawn(augmentation, len(images), len(images), seed)
    return batches.changed(images, augmentation, whole.draws)


def test_half_of_the_faces_are_mirrored_whole_in_the_widest_words() -> None:
    flip = Augmentation(flip=True)
    chosen = drawn(flip, 64, 64, seed=4)[0].draws["flip"] < 0.5
    # Of 64 fair coins, under 16 or over 48 heads has a probability of about 3e-5.
    assert 16 <= int(chosen.sum()) <= 48
    for height, width, word in (
        (8, 8, torch.int64), (6, 6, torch.int32), (3, 2, torch.int16), (7, 7, torch.uint8),
    ):  # fmt: skip
        kept = torch.randint(0, 256, (65, height, width, 3), dtype=torch.uint8)
        # A part of a larger batch, which begins in the middle of its memory.
        images = kept[1:].permute(0, 3, 1, 2)
        for stored in (images, images.contiguous()):
            assert batches.in_words(stored).dtype == word
            result = augmented(stored, flip, seed=4)
            for face, before, is_mirrored in zip(result, images, chosen.tolist(), strict=True):
                assert torch.equal(face, (before.flip(-1) if is_mirrored else before).float())
            assert result.is_contiguous(memory_format=torch.channels_last)


def test_each_face_gets_its_own_brightness_and_values_stay_pixels() -> None:
    half = torch.full((16, 3, 9, 9), 128, dtype=torch.uint8)
    shifts = augmented(half, Augmentation(brightness=0.2)).mean(dim=(1, 2, 3)) - 128
    assert len(shifts.unique()) == 16
    assert shifts.abs().max() <= 0.2 * 255
    faces = torch.arange(16 * 243).view(16, 3, 9, 9).mul(7).to(torch.uint8)
    for only in (Augmentation(contrast=0.3), Augmentation(rotation_degrees=20)):
        # Contrast and rotation leave one colour as it is.
        assert torch.allclose(augmented(half, only), half.float(), atol=1e-3)
        result = augmented(faces, only)
        assert not torch.equal(result, faces.float())
        assert 0 <= result.min() <= result.max() <= 255
    assert torch.equal(augmented(faces, Augmentation()), faces.float())


def test_an_epoch_is_cut_into_batches_that_draw_one_after_another() -> None:
    everything = Augmentation(flip=True, rotation_degrees=5, contrast=0.1, brightness=0.1)
    found, again = drawn(everything, 10), torch.Generator().manual_seed(2)
    assert [batch.rows.tolist() for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for batch in found:
        assert list(batch.draws) == ["flip", "rotation_degrees", "contrast", "brightness"]
        for values in batch.draws.values():
            assert torch.equal(values, torch.rand(len(batch), generator=again))
