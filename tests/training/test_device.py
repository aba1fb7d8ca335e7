"""Devices that are not there are refused with what is."""

import pytest
import torch

from benchmark.errors import DeviceError
from benchmark.training.device import choose_device


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"unknown device 'tpu' \(allowed: cpu, cuda"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_an_absent_device_is_refused_with_those_here() -> None:
    with pytest.raises(DeviceError, match=r"'cuda' is not on this machine.*Leave --device out"):
        choose_device("cuda")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"unknown precision 'fp8' \(allowed: auto, bf16, fp32"):
        choose_device("cpu", "fp8")


def test_the_precision_asked_for_is_used() -> None:
    device = choose_device("cpu", "bf16")
    with device.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.bfloat16
    with choose_device("cpu", "fp32").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_device_describes_itself_and_its_memory() -> None:
    device = choose_device("cpu")
    assert "thread" in device.description
    assert device.peak_memory_mib() > 10
