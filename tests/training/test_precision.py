"""A CPU with nothing specified is timed for what is faster; one with a precision keeps it."""

import pytest
import torch

from benchmark.models.network import Network
from benchmark.training import precision
from benchmark.training.device import Device, choose_device, cpu_has_bf16
from benchmark.training.precision import fastest, resolve_precision
from tests.training.small import a_network, an_experiment, some_faces


def test_a_precision_that_is_given_is_kept() -> None:
    experiment, faces = an_experiment(), some_faces()
    for device in (choose_device("cpu", "fp32"), choose_device("cpu", exact=True)):
        network = a_network(experiment)
        found = resolve_precision(device, network, faces, experiment, cached=False)
        assert found == (device, None)


def test_the_fastest_is_taken_and_remembered_and_the_network_left_alone() -> None:
    experiment, faces = an_experiment(trained="all"), some_faces()
    network, device = a_network(experiment), choose_device("cpu", "auto")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    chosen, seconds = resolve_precision(device, network, faces, experiment, cached=False)
    assert seconds is not None
    assert len(seconds) == (3 if cpu_has_bf16() else 2)
    layout = "channels_last" if chosen.channels_last else "channels_first"
    assert fastest(seconds) == f"{chosen.precision} {layout}"
    assert not chosen.probes
    assert resolve_precision(device, network, faces, experiment, cached=False)[1] is seconds
    other = an_experiment(trained="all", batch_size=16)
    assert resolve_precision(device, network, faces, other, cached=False)[1] is not seconds
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training


def test_native_bf16_is_taken_unless_it_is_clearly_slower() -> None:
    fp32 = {"fp32 channels_first": 1.2, "fp32 channels_last": 1.0}
    for seconds, expected in ((0.5, "bf16"), (1.2, "bf16"), (1.3, "fp32")):
        assert fastest(fp32 | {"bf16 channels_last": seconds}).split()[0] == expected, seconds
    assert fastest(fp32) == "fp32 channels_last"


def test_a_busy_moment_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of several is quiet; the others take ten times as long, bf16 most of all."""
    quiet, rounds = {"bf16": 1.0, "fp32": 1.75}, list[str]()

    def step(_trial: object, device: Device) -> float:
        rounds.append(device.precision)
        is_quiet = rounds.count(device.precision) == (4 if device.precision == "bf16" else 8)
        busy = 30 if device.precision == "bf16" else 10
        return quiet[device.precision] * (1 if is_quiet else busy)

    monkeypatch.setattr(precision._Trial, "step", step)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_known", {})
    experiment, device = an_experiment(), choose_device("cpu", "auto")
    network = a_network(experiment)
    found, _ = resolve_precision(device, network, some_faces(), experiment, cached=False)
    assert found.precision == "bf16"


def test_a_frozen_part_that_a_run_computes_once_is_timed_on_a_few_faces_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment, faces = an_experiment(trained=1, batch_size=24, max_epochs=7), some_faces()
    asked: list[int] = []
    prefix = Network.prefix

    def counted(network: Network, images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return prefix(network, images)

    monkeypatch.setattr(Network, "prefix", counted)
    device, network = choose_device("cpu", "auto"), a_network(experiment)
    seconds = resolve_precision(device, network, faces, experiment, cached=True)[1]
    assert seconds is not None
    assert asked == [8] * 2 * len(seconds)
    assert all(value > 0 for value in seconds.values())
