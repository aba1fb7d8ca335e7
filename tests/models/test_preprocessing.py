"""Pictures reach the backbone as its weights demand; every number here is worked by hand."""

from itertools import product

import pytest
import torch
from torch import Tensor

from benchmark.errors import DataError, WeightsError
from benchmark.models import preprocessing as demands
from benchmark.models.preprocessing import CAFFE, IMAGENET, UNIT, InputScaling, Preprocessing


def one_colour(red: int, green: int, blue: int, image_px: int = 4) -> Tensor:
    colour = torch.tensor([red, green, blue], dtype=torch.uint8).view(1, 3, 1, 1)
    return colour.expand(1, 3, image_px, image_px)


def test_a_red_picture_becomes_what_is_demanded() -> None:
    for preprocessing, wanted in (
        # 255 / 255 = 1; 51 / 255 = 0.2; 0
        (UNIT, (1.0, 0.2, 0.0)),
        # 255 / 127.5 - 1 = 1; 51 / 127.5 - 1 = -0.6; 0 - 1 = -1
        (demands.CENTRED, (1.0, -0.6, -1.0)),
        # (1 - 0.485) / 0.229; (0.2 - 0.456) / 0.224; (0 - 0.406) / 0.225
        (IMAGENET, (2.248908, -1.142857, -1.804444)),
        # blue first: 0 - 104.006; 51 - 116.669; 255 - 122.679
        (CAFFE, (-104.006, -65.669, 132.321)),
        # the control: red first, and red still loses red's mean
        (CAFFE.swapped(), (132.321, -65.669, -104.006)),
    ):
        scaled = InputScaling(preprocessing, 4)(one_colour(255, 51, 0))
        assert (scaled.shape, scaled.dtype) == ((1, 3, 4, 4), torch.float32)
        assert scaled[0, :, 2, 2].tolist() == pytest.approx(wanted, abs=1e-4), preprocessing


def test_other_sizes_are_resized_with_antialiasing() -> None:
    # Columns 0 0 8 8 at half the size: each new column averages over four old ones with the
    # weights 1 3 3 1 of a triangle of width 4, cut at the border. First: (3*0 + 3*0 + 1*8) / 7.
    images = torch.tensor([0.0, 0.0, 8.0, 8.0]).expand(1, 3, 4, 4)
    scaling = InputScaling(Preprocessing("RGB", 1.0, (0.0,) * 3, (1.0,) * 3), 2)
    assert scaling(images)[0, 0, 0].tolist() == pytest.approx([8 / 7, 48 / 7], abs=1e-5)


def test_channels_last_stay_so_and_scaling_a_row_at_once_changes_no_bit() -> None:
    formats = (torch.channels_last, torch.contiguous_format)
    for preprocessing, faces, placed in product((IMAGENET, CAFFE), formats, formats):
        images = torch.randint(0, 256, (3, 3, 9, 9)).float().contiguous(memory_format=faces)
        given, own = images.clone(), InputScaling(preprocessing, 9)
        own.to(memory_format=placed)  # type: ignore[call-overload]
        mean, std = (torch.tensor(values) for values in (preprocessing.mean, preprocessing.std))
        factor, offset = ((values / std).view(3, 1, 1) for values in (preprocessing.scale, -mean))
        in_order = given.flip(1) if preprocessing.channels == "BGR" else given
        assert torch.equal(own(images), in_order * factor + offset)
        assert torch.equal(images, given)
        resized = InputScaling(preprocessing, 8)(images)
        assert own(images).is_contiguous(memory_format=faces)
        assert resized.is_contiguous(memory_format=faces)


def test_what_makes_no_sense_is_refused() -> None:
    assert not InputScaling(CAFFE, 100).state_dict(), "constants are not part of the state"
    assert Preprocessing.from_dict(CAFFE.as_dict()) == CAFFE
    odd: list[dict[str, object]] = [
        {"channels": "GBR"}, {"scale": 0}, {"std": [1, 0, 1]}, {"mean": [1, 2]}, {"std": "red"},
    ]  # fmt: skip
    for change in odd:
        with pytest.raises(WeightsError, match="preprocessing"):
            Preprocessing.from_dict({**CAFFE.as_dict(), **change})
    with pytest.raises(DataError, match=r"shape \(2, 1, 8, 8\)"):
        InputScaling(UNIT, 8)(torch.zeros(2, 1, 8, 8))
