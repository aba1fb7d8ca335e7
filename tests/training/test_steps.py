"""Recorded steps learn what eager ones learn, and preparing them leaves no trace.

The recorder here does the work itself, on the CPU: all but CUDA's own part is put to the test.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmark.data.batches import FaceBatches
from benchmark.experiment.definition import Augmentation, Experiment
from benchmark.training.device import Device, Precision
from benchmark.training.optimiser import set_rate
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.reading import Batch, Reader, epoch_batches
from benchmark.training.steps import CudaCapture, Snapshot, SpeedSettings, Steps, Totals, TrainStep
from benchmark.training.trainer import TrainingFaces, TrainingState, fit, start
from tests.training.small import (
    CPU,
    a_network,
    an_experiment,
    epochs,
    same_weights,
    some_data,
    some_faces,
)

CHANGES = Augmentation(flip=True, brightness=0.1, contrast=0.1, rotation_degrees=5)


class Recorder:
    """Plays a CUDA graph: what is recorded is done when it is replayed, and not before."""

    def __init__(self) -> None:
        self.n_replays = 0

    def warm_up(self, work: Callable[[], None]) -> None:
        for _ in range(3):
            work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            self.n_replays += 1
            work()

        return replay


class BrokenRecorder(Recorder):
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nlong")


@pytest.fixture(scope="module")
def faces() -> FaceBatches:
    return some_faces()


def rate_tensors(state: TrainingState) -> None:
    """Let the rates be tensors, as they are on CUDA."""
    for group in state.optimiser.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)


def trained(
    experiment: Experiment,
    data: TrainingFaces,
    speed: SpeedSettings | None = None,
    device: Device = CPU,
) -> TrainingState:
    state = start(a_network(experiment), experiment.recipe, device)
    rate_tensors(state)
    epochs(fit(state, data, experiment, 4, device, speed))
    return state


def test_recorded_steps_end_in_the_weights_of_eager_ones(faces: FaceBatches) -> None:
    experiment = an_experiment(
        trained="all", augmentation=CHANGES, schedule="cosine", max_epochs=3, weight_decay=0.01
    )
    recorder = Recorder()
    eager = trained(experiment, some_data(faces))
    recorded = trained(experiment, some_data(faces), SpeedSettings(capture=recorder))
    assert same_weights(eager.network, recorded.network)
    # 43 faces: five batches of 8 are replayed in each epoch, the last of 3 goes by itself.
    assert recorder.n_replays == 3 * 5
    assert recorded.speed_report["graph"] is True
    assert eager.speed_report["graph"] is False


def test_recorded_steps_read_cached_activations_too(faces: FaceBatches) -> None:
    experiment = an_experiment(trained=2, augmentation=Augmentation(flip=True))
    request = PrefixRequest("the pixels", experiment.recipe.augmentation)
    prefix = open_prefix(a_network(experiment), faces, CPU, CacheSettings(None), request)
    data = some_data(faces)
    cached = TrainingFaces(faces, data.train, data.val, prefix)
    eager = trained(experiment, data)
    recorded = trained(experiment, cached, SpeedSettings(capture=Recorder()))
    assert same_weights(eager.network, recorded.network)


def test_a_recording_that_fails_is_said_and_costs_nothing_else(faces: FaceBatches) -> None:
    experiment, said = an_experiment(trained="all"), list[str]()
    speed = SpeedSettings(capture=BrokenRecorder(), say=said.append)
    eager = trained(experiment, some_data(faces))
    after = trained(experiment, some_data(faces), speed)
    assert same_weights(eager.network, after.network)
    assert [sentence.split(" cannot be recorded")[0] for sentence in said] == ["The step"]
    assert all("operation not permitted" in sentence for sentence in said)
    assert not any("long" in sentence for sentence in said)


def test_a_recorded_training_goes_on_as_an_undisturbed_one(faces: FaceBatches) -> None:
    experiment = an_experiment(trained="all", max_epochs=3)
    whole = trained(experiment, some_data(faces))
    speed = SpeedSettings(capture=Recorder())
    stopped = start(a_network(experiment), experiment.recipe, CPU)
    steps = fit(stopped, some_data(faces), experiment, 4, CPU, speed)
    next(steps)
    checkpoint = stopped.checkpoint()
    assert isinstance(checkpoint["optimiser"]["param_groups"][0]["lr"], float)
    resumed = start(a_network(experiment, seed=8), experiment.recipe, CPU)
    rate_tensors(resumed)
    resumed.restore(checkpoint)
    assert isinstance(resumed.optimiser.param_groups[0]["lr"], Tensor)
    epochs(fit(resumed, some_data(faces), experiment, 4, CPU, speed))
    assert same_weights(whole.network, resumed.network)


def a_step(faces: FaceBatches) -> tuple[TrainStep, Batch]:
    experiment = an_experiment(trained="all")
    state = start(a_network(experiment), experiment.recipe, CPU)
    totals = Totals(experiment.head.tasks, CPU.torch_device)
    step = TrainStep(Reader(state.network, faces, CPU), state.optimiser, experiment.recipe, totals)
    return step, Batch(torch.arange(8))


def test_a_snapshot_puts_back_weights_statistics_and_adam_where_they_were(
    faces: FaceBatches,
) -> None:
    step, batch = a_step(faces)
    network = step.reader.network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    snapshot = Snapshot(step)
    step(batch)
    states = [value for state in step.optimiser.state.values() for value in state.values()]
    addresses = [value.data_ptr() for value in states]
    assert any(bool(value.any()) for value in states)
    snapshot.put_back()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(bool(value.any()) for value in states)
    assert [value.data_ptr() for value in states] == addresses


def test_a_snapshot_in_the_middle_puts_back_adam_as_it_was(faces: FaceBatches) -> None:
    step, batch = a_step(faces)
    step(batch)
    states = [value for state in step.optimiser.state.values() for value in state.values()]
    before = [value.clone() for value in states]
    snapshot = Snapshot(step)
    step(batch)
    snapshot.put_back()
    assert all(torch.equal(a, b) for a, b in zip(states, before, strict=True))


def test_random_streams_are_put_back_too(faces: FaceBatches) -> None:
    step, _ = a_step(faces)
    snapshot = Snapshot(step)
    expected = torch.rand(3)
    snapshot.put_back()
    assert torch.equal(torch.rand(3), expected)


def test_preparing_counts_nothing(faces: FaceBatches) -> None:
    step, batch = a_step(faces)
    steps = Steps(step, 8, SpeedSettings(), Recorder())
    steps.prepare(batch)
    assert step.totals.n_images == 0
    assert step.totals.mean_loss() == 0.0
    steps(batch)
    assert step.totals.n_images == 8
    assert 0 < step.totals.mean_loss() < 20


def test_without_a_compiler_training_goes_on_and_says_so(
    faces: FaceBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_arguments: object, **_options: object) -> Callable[[Tensor], None]:
        def compiled(_inputs: Tensor) -> None:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more")

        return compiled

    # torch's own compiler takes half a minute to find out that there is none.
    monkeypatch.setattr(torch, "compile", no_compiler)
    experiment, said = an_experiment(trained="all"), list[str]()
    eager = trained(experiment, some_data(faces))
    speed = SpeedSettings(compile=True, say=said.append)
    after = trained(experiment, some_data(faces), speed)
    assert same_weights(eager.network, after.network)
    assert said == [
        "torch.compile does not work here (InvalidCxxCompiler: No working C++ compiler found): "
        "going on without it"
    ]
    assert after.speed_report["compiled"] is False


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_compiled_backward_pass_rounds_nothing_that_an_eager_one_does_not(
    faces: FaceBatches, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    # This compiler of torch's fuses nothing: what it traced is computed operation by operation.
    tracing = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", tracing)
    experiment, device = an_experiment(trained="all"), replace(CPU, precision=precision)
    eager = trained(experiment, some_data(faces), device=device)
    compiled = trained(experiment, some_data(faces), SpeedSettings(compile=True), device=device)
    assert compiled.speed_report["compiled"] is True
    assert same_weights(eager.network, compiled.network)


def test_a_compilers_mistake_is_not_learnt_from(
    faces: FaceBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(function: Callable[..., dict[str, Tensor]], **_options: object) -> object:
        def compiled(inputs: Tensor) -> dict[str, Tensor]:
            return {task: logits * float("nan") for task, logits in function(inputs).items()}

        return compiled

    experiment, said = an_experiment(trained="all"), list[str]()
    eager = trained(experiment, some_data(faces))
    monkeypatch.setattr(torch, "compile", mistaken)
    after = trained(experiment, some_data(faces), SpeedSettings(compile=True, say=said.append))
    assert said == [
        "torch.compile does not work here (a first step leaves weights that are not finite): "
        "going on without it"
    ]
    assert after.speed_report["compiled"] is False
    assert same_weights(eager.network, after.network)


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
    device = Device(torch.device("cuda"), "fp32", exact=True)
    on_host = some_faces()
    labels = {task: values.cuda() for task, values in on_host.labels.items()}
    faces = FaceBatches(on_host.pixels.cuda(), labels)
    data = TrainingFaces(faces, torch.arange(43).cuda(), torch.arange(43, 64).cuda())
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_rate_set_between_replays_counts() -> None:
    weight = torch.nn.Parameter(torch.ones(4, device="cuda"))
    rate = torch.tensor(0.1, device="cuda")
    optimiser = torch.optim.AdamW([{"params": [weight], "lr": rate}], fused=True, capturable=True)

    def work() -> None:
        optimiser.zero_grad(set_to_none=True)
        weight.square().sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    capture = CudaCapture()
    capture.warm_up(work)
    replay = capture.record(work)
    before = weight.detach().clone()
    set_rate(optimiser, 0.0)
    replay()
    assert torch.equal(weight.detach(), before)
