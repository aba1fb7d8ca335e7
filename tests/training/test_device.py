"""Devices that are not there are refused with what is."""

import contextlib
import os
from collections.abc import Iterator

import pytest
import torch

from benchmark.errors import DeviceError
from benchmark.training.device import Device, choose_device, device_trouble, free_host_bytes


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


def test_deterministic_is_fp32_and_nothing_else() -> None:
    device = choose_device("cpu", exact=True)
    assert (device.precision, device.exact, device.probes) == ("fp32", True, False)
    with pytest.raises(DeviceError, match="--deterministic with --precision bf16"):
        choose_device("cpu", "bf16", exact=True)


def test_switches_hold_while_a_run_lasts_and_no_longer() -> None:
    before = torch.backends.cudnn.allow_tf32
    with choose_device("cpu", exact=True).arithmetic():
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.allow_tf32
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.allow_tf32 == before


def test_of_several_gpus_the_one_asked_for_is_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = ["cuda:0"]

    @contextlib.contextmanager
    def made_current(device: torch.device) -> Iterator[None]:
        current.append(str(device))
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", made_current)
    with Device(torch.device("cuda:1"), "bf16").arithmetic():
        assert current[-1] == "cuda:1"
        assert torch.backends.cudnn.benchmark
    with choose_device("cpu").arithmetic():
        assert current == ["cuda:0"]


def test_a_cpu_that_is_told_its_precision_does_not_probe() -> None:
    assert choose_device("cpu").probes
    assert not choose_device("cpu", "fp32").probes


def test_memory_that_does_not_suffice_is_told_with_what_to_do() -> None:
    said = device_trouble(torch.OutOfMemoryError("CUDA out of memory. Tried\nmany lines"))
    assert said is not None
    assert "many lines" not in str(said)
    assert "recipe.batch_size" in str(said)
    assert device_trouble(ValueError("something else")) is None


def test_free_memory_is_some_and_no_more_than_the_machine_has() -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2**20 < free_host_bytes() <= whole
