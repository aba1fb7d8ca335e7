"""Red first or blue first: told by weights whose order is known, and by nothing else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import squeezenet1_1

from benchmark.errors import WeightsError
from benchmark.files import sha256_of
from benchmark.models.weight_adding import Adding, add_file
from benchmark.models.weight_formats import trunk_tensors
from benchmark.models.weight_manifest import PublishedFile, files_for
from benchmark.models.weight_readers import KnownFirstLayer, first_kernel, told_order
from tests.models import keras_squeezenet

KERAS, TORCHVISION = files_for("squeezenet1_1", "imagenet")


def a_kernel(seed: int = 0) -> Tensor:
    return torch.randn(64, 3, 3, 3, generator=torch.Generator().manual_seed(seed))


def test_the_same_layer_is_told_in_either_order() -> None:
    known = KnownFirstLayer("any", a_kernel(), "BGR")
    assert told_order(a_kernel(), known) == "BGR"
    assert told_order(a_kernel().flip(1), known) == "RGB"
    # Fine-tuned: a tenth of its size in other directions turns it by atan(0.1), 5.7 degrees.
    assert told_order(a_kernel() + 0.1 * a_kernel(1), known) == "BGR"
    assert told_order((a_kernel() + 0.1 * a_kernel(1)).flip(1), known) == "RGB"


def test_another_layer_tells_nothing() -> None:
    known = KnownFirstLayer("any", a_kernel(), "BGR")
    assert told_order(a_kernel(1), known) is None
    assert told_order(torch.zeros(96, 3, 7, 7), known) is None
    assert told_order(torch.zeros_like(a_kernel()), known) is None


def test_a_layer_that_is_alike_in_both_orders_tells_nothing() -> None:
    grey = a_kernel()[:, :1].expand(-1, 3, -1, -1).contiguous()
    assert told_order(grey, KnownFirstLayer("any", grey, "RGB")) is None


@pytest.mark.parametrize("architecture", ["vgg16", "resnet50", "densenet121", "efficientnet_b0"])
def test_the_kernel_that_reads_the_picture_is_found(architecture: str) -> None:
    kernel = first_kernel(trunk_tensors(architecture))
    assert kernel.shape[1] == 3
    first = next(tensor for tensor in trunk_tensors(architecture).values() if tensor.ndim == 4)
    assert kernel is first


def as_published(path: Path, known: PublishedFile) -> tuple[PublishedFile, ...]:
    return (dataclasses.replace(known, sha256=sha256_of(path)),)


def torchvision_file(path: Path, first: Tensor) -> Path:
    """Write torchvision's layout with a first layer of our choice."""
    state = squeezenet1_1().state_dict()
    state["features.0.weight"] = first.float()
    torch.save(state, path)
    return path


def test_a_file_in_the_other_order_than_its_publishers_is_refused(tmp_path: Path) -> None:
    """Caffe's first layer, blue first, in a file that is published with red first."""
    kernels, store = keras_squeezenet.random_kernels(), tmp_path / "store"
    h5 = keras_squeezenet.write_h5(tmp_path / KERAS.file_name, kernels)
    add_file(h5, store, published=as_published(h5, KERAS))
    blue_first = np.ascontiguousarray(kernels["conv1"][0].transpose(3, 2, 0, 1))
    wrong = torchvision_file(tmp_path / "wrong.pth", torch.from_numpy(blue_first))
    how = Adding(replacing=True)
    with pytest.raises(WeightsError, match=r"RGB was declared, but .* and expects BGR"):
        add_file(wrong, store, how, published=as_published(wrong, TORCHVISION))
    right = torchvision_file(tmp_path / "right.pth", torch.from_numpy(blue_first).flip(1))
    assert add_file(right, store, how, published=as_published(right, TORCHVISION)).published


def test_an_order_that_contradicts_the_publishers_is_refused(tmp_path: Path) -> None:
    h5 = keras_squeezenet.write_h5(tmp_path / "any.h5", keras_squeezenet.random_kernels())
    published = as_published(h5, KERAS)
    with pytest.raises(WeightsError, match=r"RGB was declared for any\.h5, .*published as BGR"):
        add_file(h5, tmp_path / "store", Adding(channels="RGB"), published=published)
    assert not (tmp_path / "store").exists()
    add_file(h5, tmp_path / "store", Adding(channels="BGR"), published=published)
