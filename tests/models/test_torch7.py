"""LuaTorch's files are read as data: whole, in order, and never as a program."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.errors import WeightsError
from benchmark.models.readers import read_tensors
from tests.models import torch7_files
from tests.models.torch7_files import Function, convolution, linear, relu, write_network


def kernel(n_out: int = 2, n_in: int = 3) -> Any:
    return np.arange(n_out * n_in * 9, dtype=np.float32).reshape(n_out, n_in, 3, 3)


def bias(n_out: int = 2) -> Any:
    return np.arange(n_out, dtype=np.float32)


def test_layers_are_counted_by_kind_in_the_order_of_the_network(tmp_path: Path) -> None:
    inner = ("nn.Sequential", {"modules": {1: convolution(kernel(4, 2), bias(4)), 2: relu()}})
    modules = [convolution(kernel(), bias()), relu(), inner, linear(np.eye(3, dtype="f4"), bias(3))]
    found = read_tensors(write_network(tmp_path / "any.t7", modules))
    layers = ("conv1", "conv2", "linear1")
    assert list(found) == [f"{layer}.{end}" for layer in layers for end in ("weight", "bias")]
    assert torch.equal(found["conv1.weight"], torch.from_numpy(kernel()))
    assert found["conv2.weight"].shape == (4, 2, 3, 3)
    assert torch.equal(found["linear1.weight"], torch.eye(3))


def test_a_tensor_is_a_view_with_strides_of_its_own(tmp_path: Path) -> None:
    # Column by column: strides (1, 2) over 0 1 2 3 give [[0, 2], [1, 3]].
    turned = np.arange(4, dtype=np.float32).reshape(2, 2)
    lua = torch7_files.Lua()
    lua.write(("nn.Linear", {"weight": turned, "bias": bias()}))
    content = bytes(lua.content)
    longs = np.array([2, 2, 2, 1], "<i8").tobytes()
    assert content.count(longs) == 1
    path = tmp_path / "any.t7"
    path.write_bytes(content.replace(longs, np.array([2, 2, 1, 2], "<i8").tobytes()))
    assert read_tensors(path)["linear1.weight"].tolist() == [[0, 2], [1, 3]]


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    lua = torch7_files.Lua()
    lua.write(("nn.Linear", {"weight": np.zeros((2, 2), np.float32), "bias": bias()}))
    longs = np.array([2, 2, 2, 1], "<i8").tobytes()
    path = tmp_path / "any.t7"
    path.write_bytes(bytes(lua.content).replace(longs, np.array([3, 2, 2, 1], "<i8").tobytes()))
    with pytest.raises(WeightsError, match=r"shape \[3, 2\] that its storage does not hold"):
        read_tensors(path)


def test_a_function_is_refused(tmp_path: Path) -> None:
    path = write_network(tmp_path / "any.t7", [("nn.Lambda", {"run": Function()})])
    with pytest.raises(WeightsError, match="holds code or objects besides tensors"):
        read_tensors(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = write_network(tmp_path / "any.t7", [convolution(kernel(), bias()), relu()])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match=r"any\.t7 is damaged or cut short"):
        read_tensors(path)


def test_an_archive_without_weights_or_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_bytes(np.random.default_rng(0).bytes(100_000))
    path = tmp_path / "any.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "readme.txt", "readme.txt")
    with pytest.raises(WeightsError, match="is an archive without weights"):
        read_tensors(path)
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(WeightsError, match=r"any\.tar\.gz is damaged or cut short"):
        read_tensors(path)
