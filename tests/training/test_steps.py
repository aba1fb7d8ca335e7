"""Recorded and compiled steps learn what eager ones learn; a CPU is timed for what is faster.

The recorder here does the work itself, on the CPU: all but CUDA's own part is tested.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.data.batches import FaceBatches
from benchmark.experiment.definition import Augmentation, Experiment
from benchmark.models.network import Network
from benchmark.training import steps
from benchmark.training.device import Device, Precision, choose_device, cpu_has_bf16
from benchmark.training.predict import Batch, ForwardPass, epoch_batches
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.steps import (
    CudaCapture,
    SpeedSettings,
    Totals,
    TrainStep,
    resolve_precision,
)
from benchmark.training.trainer import TrainingFaces, TrainingState, fit, start
from tests.training import small
from tests.training.small import CPU, FACES, a_network, an_experiment, epochs

CHANGES = Augmentation(flip=True, brightness=0.1, contrast=0.1, rotation_degrees=5)


class Recorder(CudaCapture):
    """Plays a CUDA graph: what is recorded is done when it is replayed, and not before."""

    def __init__(self, *, broken: bool = False) -> None:
        self.n_replays, self.broken = 0, broken

    def warm_up(self, work: Callable[[], None]) -> None:
        for _ in range(3):
            work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.broken:
            work()
            raise RuntimeError("CUDA error: not permitted when stream is capturing\nlong")

        def replay() -> None:
            self.n_replays += 1
            work()

        return replay


def on_gpu() -> TrainingFaces:
    labels = {task: values.cuda() for task, values in FACES.labels.items()}
    faces = FaceBatches(FACES.pixels.cuda(), labels)
    return TrainingFaces(faces, torch.arange(48).cuda(), torch.arange(48, 64).cuda())


def rate_tensors(state: TrainingState) -> None:
    """Let the rates be tensors, as they are on CUDA."""
    for group in state.optimiser.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)


def trained(
    experiment: Experiment, data: TrainingFaces, speed: SpeedSettings | None = None,
    device: Device = CPU,
) -> TrainingState:  # fmt: skip
    state = start(a_network(experiment), experiment.recipe, device)
    rate_tensors(state)
    epochs(fit(state, data, experiment, 4, device, speed))
    return state


def test_recorded_steps_end_in_the_weights_of_eager_ones() -> None:
    experiment = an_experiment(
        trained="all", augmentation=CHANGES, schedule="cosine", max_epochs=3, weight_decay=0.01
    )
    recorder = Recorder()
    eager = trained(experiment, small.some_data())
    recorded = trained(experiment, small.some_data(), SpeedSettings(capture=recorder))
    assert small.same_weights(eager.network, recorded.network)
    # 43 faces: five batches of 8 are replayed in each epoch, the last of 3 goes by itself.
    assert recorder.n_replays == 3 * 5
    assert (eager.speed_report["graph"], recorded.speed_report["graph"]) == (False, True)


def test_recorded_steps_take_cached_activations_too(tmp_path: Path) -> None:
    experiment = an_experiment(trained=2, augmentation=Augmentation(flip=True))
    request = PrefixRequest("the pixels", experiment.recipe.augmentation)
    prefix = open_prefix(a_network(experiment), FACES, CPU, CacheSettings(tmp_path), request)
    data = small.some_data()
    eager = trained(experiment, data)
    speed = SpeedSettings(capture=Recorder())
    recorded = trained(experiment, replace(data, prefix=prefix), speed)
    assert small.same_weights(eager.network, recorded.network)


def test_a_recorded_training_resumes_as_an_undisturbed_one() -> None:
    experiment = an_experiment(trained="all", max_epochs=3)
    whole = trained(experiment, small.some_data())
    speed = SpeedSettings(capture=Recorder())
    stopped = start(a_network(experiment), experiment.recipe, CPU)
    next(fit(stopped, small.some_data(), experiment, 4, CPU, speed))
    checkpoint = stopped.checkpoint()
    assert isinstance(checkpoint["optimiser"]["param_groups"][0]["lr"], float)
    resumed = start(a_network(experiment, seed=8), experiment.recipe, CPU)
    rate_tensors(resumed)
    resumed.restore(checkpoint)
    assert isinstance(resumed.optimiser.param_groups[0]["lr"], Tensor)
    epochs(fit(resumed, small.some_data(), experiment, 4, CPU, speed))
    assert small.same_weights(whole.network, resumed.network)


def no_compiler(*_arguments: object, **_options: object) -> object:
    def compiled(_inputs: Tensor) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more")

    return compiled


def mistaken_compiler(function: Callable[..., dict[str, Tensor]], **_options: object) -> object:
    def compiled(inputs: Tensor) -> dict[str, Tensor]:
        return {task: logits * float("nan") for task, logits in function(inputs).items()}

    return compiled


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        (None, "cannot be recorded as a CUDA graph (CUDA error: not permitted when stream"),
        (no_compiler, "torch.compile does not work here (InvalidCxxCompiler"),
        (mistaken_compiler, "torch.compile does not work here (a first step leaves weights that"),
    ],
    ids=["broken recorder", "no compiler", "compiler's mistake"],
)
def test_what_does_not_work_is_said_and_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, compiler: Any, said: str
) -> None:
    experiment, sentences = an_experiment(trained="all"), list[str]()
    eager = trained(experiment, small.some_data())
    speed = SpeedSettings(capture=Recorder(broken=True), say=sentences.append)
    if compiler is not None:
        # torch's own compiler takes half a minute to find out that there is none.
        monkeypatch.setattr(torch, "compile", compiler)
        speed = SpeedSettings(compile=True, say=sentences.append)
    after = trained(experiment, small.some_data(), speed)
    (sentence,) = sentences
    assert said in sentence
    assert "\n" not in sentence
    assert after.speed_report == {"graph": False, "compiled": False}
    assert small.same_weights(eager.network, after.network)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_compiled_backward_pass_rounds_nothing_that_an_eager_one_does_not(
    monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    # This compiler of torch's fuses nothing: what it traced is computed operation by operation.
    tracing = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", tracing)
    experiment, device = an_experiment(trained="all"), replace(CPU, precision=precision)
    eager = trained(experiment, small.some_data(), device=device)
    compiled = trained(experiment, small.some_data(), SpeedSettings(compile=True), device=device)
    assert compiled.speed_report["compiled"] is True
    assert small.same_weights(eager.network, compiled.network)


def test_preparing_counts_and_changes_nothing() -> None:
    """Neither weights and statistics nor Adam's moments, which stay where a recording reads."""
    experiment = an_experiment(trained="all")
    state = start(a_network(experiment), experiment.recipe, CPU)
    totals = Totals(experiment.head.tasks, CPU.torch_device)
    forward, batch = ForwardPass(state.network, FACES, CPU), Batch(torch.arange(8))
    step = TrainStep(forward, state.optimiser, experiment.recipe, totals)
    state.network.train()
    step(batch)
    moments = [value for of in step.optimiser.state.values() for value in of.values()]
    kept = [*state.network.state_dict().values(), *moments]
    before = [value.clone() for value in kept]
    totals.reset()
    made = steps.Steps(step, 8, SpeedSettings(capture=Recorder()))
    made.prepare(batch)
    assert (totals.n_images, totals.mean_loss()) == (0, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))
    made(batch)
    assert totals.n_images == 8
    assert 0 < totals.mean_loss() < 20


def test_batches_count_by_their_faces_and_each_epoch_begins_anew() -> None:
    totals = Totals(("gender", "race"), torch.device("cpu"))
    for _ in range(2):
        totals.reset()
        assert totals.mean_loss() == 0.0
        totals.add(steps.BatchLoss(torch.tensor(2.0), torch.tensor([3, 1]), 4))
        totals.add(steps.BatchLoss(torch.tensor(0.5), torch.tensor([2, 0]), 2))
        totals.n_images += 6
        # (2 x 4 + 0.5 x 2) / 6, and 5 and 1 of 6.
        assert totals.mean_loss() == pytest.approx(1.5)
        assert totals.accuracies() == {"gender": pytest.approx(5 / 6), "race": pytest.approx(1 / 6)}


def test_an_epoch_is_cut_into_batches_with_their_own_draws() -> None:
    generator = torch.Generator().manual_seed(1)
    batches = list(epoch_batches(torch.arange(10), Augmentation(flip=True), 4, generator))
    again = torch.Generator().manual_seed(1)
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for batch in batches:
        assert torch.equal(batch.draws["flip"], torch.rand(len(batch), generator=again))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("trained_stages", ["all", 2, 0])
def test_a_cuda_graph_learns_what_eager_steps_learn(trained_stages: int | str) -> None:
    device, data = Device(torch.device("cuda"), "fp32", exact=True), on_gpu()
    experiment = an_experiment(trained=trained_stages, schedule="cosine", max_epochs=3)
    states = []
    with device.arithmetic():
        for graph in (False, True):
            state = start(a_network(experiment), experiment.recipe, device)
            epochs(fit(state, data, experiment, 4, device, SpeedSettings(graph=graph)))
            states.append(state)
    assert [state.speed_report["graph"] for state in states] == [False, True]
    eager, recorded = (state.network.state_dict() for state in states)
    for name, value in eager.items():
        assert torch.allclose(value.float(), recorded[name].float(), rtol=1e-4, atol=1e-6), name


def test_the_fastest_is_taken_and_remembered_and_the_network_left_alone() -> None:
    experiment, device = an_experiment(trained="all"), choose_device("cpu", "auto")
    network = a_network(experiment)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    chosen, seconds = resolve_precision(device, network, FACES, experiment, cached=False)
    assert seconds is not None
    assert len(seconds) == (3 if cpu_has_bf16() else 2)
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


def test_a_busy_moment_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of several is quiet; the others take ten times as long, bf16 most of all."""
    quiet, rounds, now = {"bf16": 1.0, "fp32": 1.75}, list[str](), [0.0]
    apply = ForwardPass.unchanged

    def slow(forward: ForwardPass, rows: Tensor) -> Tensor:
        precision = forward.device.precision
        rounds.append(precision)
        is_quiet = rounds.count(precision) == (4 if precision == "bf16" else 8)
        busy = 30 if precision == "bf16" else 10
        now[0] += quiet[precision] * (1 if is_quiet else busy)
        return apply(forward, rows)

    monkeypatch.setattr(ForwardPass, "unchanged", slow)
    monkeypatch.setattr(steps.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(steps, "ENOUGH_SECONDS", 1e9)
    monkeypatch.setattr(steps, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(steps, "_known", {})
    experiment, device = an_experiment(), choose_device("cpu", "auto")
    network = a_network(experiment)
    found, seconds = resolve_precision(device, network, FACES, experiment, cached=False)
    assert found.precision == "bf16"
    assert seconds is not None
    assert seconds["bf16 channels_last"] == 1.0


def test_a_frozen_part_that_a_run_computes_once_is_timed_on_a_few_faces_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment, asked = an_experiment(trained=1, batch_size=24, max_epochs=7), list[int]()
    prefix = Network.prefix

    def counted(network: Network, images: Tensor) -> Tensor:
        asked.append(len(images))
        return prefix(network, images)

    monkeypatch.setattr(Network, "prefix", counted)
    device, network = choose_device("cpu", "auto"), a_network(experiment)
    seconds = resolve_precision(device, network, FACES, experiment, cached=True)[1]
    assert seconds is not None
    assert asked == [8] * 2 * len(seconds)
