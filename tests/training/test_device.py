"""Devices that are not there are refused with what is; switches last as long as a run; a CPU is
timed for what is faster."""

import pytest
import torch

from benchmark.errors import DeviceError
from benchmark.training import steps
from benchmark.training.device import choose_device, device_trouble, is_out_of_memory
from benchmark.training.steps import resolve_precision
from tests.training.small import FACES, a_network, an_experiment


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


def test_the_fastest_is_taken_and_remembered_and_the_network_left_alone() -> None:
    experiment, device = an_experiment(trained="all"), choose_device("cpu", "auto")
    network = a_network(experiment)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    chosen, seconds = resolve_precision(device, network, FACES, experiment, cached=False)
    assert seconds is not None
    assert len(seconds) == (3 if steps.cpu_has_bf16() else 2)
    layout = "channels_last" if chosen.channels_last else "channels_first"
    assert steps.fastest(seconds) == f"{chosen.precision} {layout}"
    assert resolve_precision(device, network, FACES, experiment, cached=False)[1] is seconds
    other = an_experiment(trained="all", batch_size=16)
    assert resolve_precision(device, network, FACES, other, cached=False)[1] is not seconds
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    # A precision that is given is kept.
    for given in (choose_device("cpu", "fp32"), choose_device("cpu", exact=True), chosen):
        found = resolve_precision(given, network, FACES, experiment, cached=False)
        assert found == (given, None)


def test_native_bf16_is_taken_unless_it_is_clearly_slower() -> None:
    fp32 = {"fp32 channels_first": 1.2, "fp32 channels_last": 1.0}
    for seconds, expected in ((0.5, "bf16"), (1.2, "bf16"), (1.3, "fp32")):
        assert steps.fastest(fp32 | {"bf16 channels_last": seconds}).split()[0] == expected, seconds
    assert steps.fastest(fp32) == "fp32 channels_last"
