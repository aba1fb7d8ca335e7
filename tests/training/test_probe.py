"""A CPU left to itself is asked what is faster; one that is told obeys."""

from dataclasses import replace

import pytest
import torch

from benchmark.models.network import Network
from benchmark.training import probe
from benchmark.training.device import Device, choose_device, cpu_has_bf16
from benchmark.training.probe import chosen, settled
from tests.training.small import a_network, an_experiment, some_faces


def test_what_is_told_is_not_asked() -> None:
    experiment, faces = an_experiment(), some_faces()
    for device in (choose_device("cpu", "fp32"), choose_device("cpu", exact=True)):
        decided, verdict = settled(device, a_network(experiment), faces, experiment, cached=False)
        assert decided == device
        assert verdict is None


def test_the_fastest_way_is_taken_and_remembered_and_the_network_left_alone() -> None:
    experiment, faces = an_experiment(trained="all"), some_faces()
    network, device = a_network(experiment), choose_device("cpu", "auto")
    assert device.probes
    before = {name: value.clone() for name, value in network.state_dict().items()}
    decided, verdict = settled(device, network, faces, experiment, cached=False)
    assert verdict is not None
    assert len(verdict.step_seconds) == (3 if cpu_has_bf16() else 2)
    layout = "channels_last" if decided.channels_last else "channels_first"
    assert chosen(verdict.step_seconds) == f"{decided.precision} {layout}"
    assert not decided.probes
    again = settled(device, network, faces, experiment, cached=False)
    assert again[1] is verdict
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training


def test_native_bf16_is_taken_unless_it_is_clearly_slower() -> None:
    fp32 = {"fp32 channels_first": 1.2, "fp32 channels_last": 1.0}
    for seconds, expected in ((0.5, "bf16"), (1.2, "bf16"), (1.3, "fp32")):
        assert chosen(fp32 | {"bf16 channels_last": seconds}).split()[0] == expected, seconds
    assert chosen(fp32) == "fp32 channels_last"


def test_a_busy_moment_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of several is quiet; the others take ten times as long, bf16 most of all."""
    quiet = {"bf16": 1.0, "fp32": 1.75}
    rounds: list[str] = []

    def step(_trial: object, device: Device) -> float:
        rounds.append(device.precision)
        is_quiet = rounds.count(device.precision) == (4 if device.precision == "bf16" else 8)
        return quiet[device.precision] * (
            1 if is_quiet else 30 if device.precision == "bf16" else 10
        )

    monkeypatch.setattr(probe._Trial, "step", step)
    monkeypatch.setattr(probe, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(probe, "_verdicts", {})
    experiment, faces = an_experiment(), some_faces()
    device = choose_device("cpu", "auto")
    decided, _ = settled(device, a_network(experiment), faces, experiment, cached=False)
    assert decided.precision == "bf16"


def test_another_batch_size_is_asked_anew() -> None:
    faces, device = some_faces(), choose_device("cpu", "auto")
    verdicts = []
    for size in (8, 16):
        experiment = an_experiment(trained=2)
        experiment = replace(experiment, recipe=replace(experiment.recipe, batch_size=size))
        verdicts.append(settled(device, a_network(experiment), faces, experiment, cached=True)[1])
    assert verdicts[0] is not verdicts[1]


def test_a_frozen_part_that_a_run_computes_once_is_tried_on_a_few_faces_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment, faces = an_experiment(trained=1, batch_size=24, max_epochs=7), some_faces()
    asked: list[int] = []
    prefix = Network.prefix

    def counted(network: Network, images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        return prefix(network, images)

    monkeypatch.setattr(Network, "prefix", counted)
    device = choose_device("cpu", "auto")
    verdict = settled(device, a_network(experiment), faces, experiment, cached=True)[1]
    assert verdict is not None
    assert asked == [8] * 2 * len(verdict.step_seconds)
    assert all(seconds > 0 for seconds in verdict.step_seconds.values())
