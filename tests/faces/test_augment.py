"""Changes are drawn for each face by itself, by the seed, and within their range."""

import pytest
import torch

from benchmark.data.batches import augment, draw, draw_epoch, in_words
from benchmark.experiment.definition import Augmentation


def faces(n: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)


def changed(augmentation: Augmentation, seed: int = 0) -> torch.Tensor:
    return augment(faces(), augmentation, torch.Generator().manual_seed(seed))


def test_no_augmentation_only_makes_floats() -> None:
    assert torch.equal(changed(Augmentation()), faces().float())


def test_flipping_mirrors_some_faces_whole_and_leaves_the_others() -> None:
    result, original = changed(Augmentation(flip=True)), faces().float()
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(result, original, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(result, original, strict=True)]
    assert all(a or b for a, b in zip(mirrored, same, strict=True))
    # Of 64 fair coins, under 16 or over 48 heads has a probability of about 3e-5.
    assert 16 <= sum(mirrored) <= 48


@pytest.mark.parametrize(
    ("height", "width", "word"),
    [(8, 8, torch.int64), (6, 6, torch.int32), (3, 2, torch.int16), (7, 7, torch.uint8)],
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_faces_of_every_size_are_mirrored_in_the_widest_words(
    height: int, width: int, word: torch.dtype, channels_last: bool
) -> None:
    kept = torch.randint(0, 256, (9, height, width, 3), dtype=torch.uint8)
    # A part of a larger batch, which begins in the middle of its memory.
    images = kept[1:].permute(0, 3, 1, 2)
    if not channels_last:
        images = images.contiguous()
    assert in_words(images).dtype == word
    flip = Augmentation(flip=True)
    result = augment(images, flip, torch.Generator().manual_seed(4))
    chosen = draw(flip, 8, torch.Generator().manual_seed(4))["flip"] < 0.5
    assert 0 < int(chosen.sum()) < 8
    for face, before, is_mirrored in zip(result, images, chosen.tolist(), strict=True):
        assert torch.equal(face, (before.flip(-1) if is_mirrored else before).float())
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_every_face_gets_its_own_brightness() -> None:
    half = torch.full((16, 3, 4, 4), 128, dtype=torch.uint8)
    result = augment(half, Augmentation(brightness=0.2), torch.Generator().manual_seed(1))
    shifts = result.mean(dim=(1, 2, 3)) - 128
    assert len(shifts.unique()) == 16
    assert shifts.abs().max() <= 0.2 * 255


def test_contrast_keeps_the_mean_and_values_stay_pixels() -> None:
    result = changed(Augmentation(contrast=0.3))
    assert result.min() >= 0
    assert result.max() <= 255
    grey = torch.full((4, 3, 4, 4), 100, dtype=torch.uint8)
    flat = augment(grey, Augmentation(contrast=0.3), torch.Generator().manual_seed(1))
    assert torch.allclose(flat, grey.float())


def test_rotation_by_nothing_in_the_middle_moves_nothing() -> None:
    turned = changed(Augmentation(rotation_degrees=20))
    assert turned.shape == faces().shape
    assert not torch.equal(turned, faces().float())
    one_colour = torch.full((3, 3, 9, 9), 77, dtype=torch.uint8)
    rotated = augment(
        one_colour, Augmentation(rotation_degrees=90), torch.Generator().manual_seed(3)
    )
    assert torch.allclose(rotated, one_colour.float(), atol=1e-3)


def test_a_seed_draws_the_same_changes_again() -> None:
    everything = Augmentation(flip=True, rotation_degrees=10, brightness=0.1, contrast=0.1)
    assert torch.equal(changed(everything, 5), changed(everything, 5))
    assert not torch.equal(changed(everything, 5), changed(everything, 6))


def test_an_epochs_draws_are_those_of_its_batches_one_after_another() -> None:
    everything = Augmentation(flip=True, rotation_degrees=5, contrast=0.1, brightness=0.1)
    epoch = draw_epoch(everything, [4, 3], torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    first, second = draw(everything, 4, generator), draw(everything, 3, generator)
    assert set(epoch) == {"flip", "rotation", "contrast", "brightness"}
    for name, values in epoch.items():
        assert torch.equal(values, torch.cat([first[name], second[name]]))
