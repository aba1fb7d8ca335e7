"""Devices that are not there are refused with what is; switches last as long as a run."""

import contextlib

import pytest
import torch

from benchmark.errors import DeviceError
from benchmark.training.device import Device, choose_device, device_trouble, is_out_of_memory


def test_what_is_not_here_is_refused_with_what_is() -> None:
    refused = [
        (("tpu",), {}, r"device 'tpu' is not on this machine \(allowed: cpu"),
        (("cpu", "fp8"), {}, r"unknown precision 'fp8' \(allowed: auto, bf16, fp32"),
        (("cpu", "bf16"), {"exact": True}, "--deterministic with --precision bf16"),
    ]
    if not torch.cuda.is_available():
        refused.append((("cuda",), {}, r"'cuda' is not on this machine.*Leave --device out"))
    for arguments, options, said in refused:
        with pytest.raises(DeviceError, match=said):
            choose_device(*arguments, **options)


def test_the_precision_asked_for_is_used_and_else_probed_for() -> None:
    for precision, expected in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        device = choose_device("cpu", precision)
        with device.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
        assert not device.probes
    exact = choose_device("cpu", exact=True)
    assert (exact.precision, exact.exact, exact.probes) == ("fp32", True, False)
    device = choose_device("cpu")
    assert device.probes
    assert "thread" in device.description
    assert device.peak_memory_mib() > 10


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
    current: list[str] = []

    def made_current(device: torch.device) -> contextlib.AbstractContextManager[None]:
        current.append(str(device))
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "device", made_current)
    with Device(torch.device("cuda:1"), "bf16").arithmetic():
        assert torch.backends.cudnn.benchmark
    with choose_device("cpu").arithmetic():
        assert current == ["cuda:1"]


def test_a_lack_of_memory_and_a_lost_device_are_recognised_and_explained() -> None:
    for error, said in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmany lines"), "recipe.batch_size"),
        (torch.AcceleratorError("CUDA error: device-side failure\nand advice"), "stopped working"),
    ):
        trouble = str(device_trouble(error))
        assert said in trouble
        assert "advice" not in trouble
        assert "many lines" not in trouble
    assert device_trouble(ValueError("something else")) is None
    for text, expected in (
        ("[enforce fail] DefaultCPUAllocator: can't allocate", True),
        ("could not create a primitive", True),
        ("could not create a primitive descriptor for a pool", False),
        ("shapes do not fit", False),
    ):
        assert is_out_of_memory(RuntimeError(text)) is expected, text
    assert is_out_of_memory(MemoryError())
