"""Recorded, compiled and divided steps learn what eager ones learn; preparing leaves no trace.

The recorder here does the work itself, on the CPU: all but CUDA's own part is tested.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.data.batches import FaceBatches
from benchmark.errors import DeviceError
from benchmark.experiment.definition import Augmentation, Backbone, Experiment
from benchmark.training.device import Device, Precision
from benchmark.training.predict import Batch, ForwardPass, epoch_batches
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.steps import (
    BatchLoss,
    CudaCapture,
    Snapshot,
    SpeedSettings,
    Steps,
    Totals,
    TrainStep,
    why_whole,
)
from benchmark.training.trainer import TrainingFaces, TrainingState, fit, set_rate, start
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
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


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


@pytest.fixture(scope="module")
def faces() -> FaceBatches:
    return some_faces()


def on_gpu() -> TrainingFaces:
    host = some_faces()
    labels = {task: values.cuda() for task, values in host.labels.items()}
    faces = FaceBatches(host.pixels.cuda(), labels)
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
    assert (eager.speed_report["graph"], recorded.speed_report["graph"]) == (False, True)


def test_recorded_steps_take_cached_activations_too(faces: FaceBatches) -> None:
    experiment = an_experiment(trained=2, augmentation=Augmentation(flip=True))
    request = PrefixRequest("the pixels", experiment.recipe.augmentation)
    prefix = open_prefix(a_network(experiment), faces, CPU, CacheSettings(None), request)
    data = some_data(faces)
    eager = trained(experiment, data)
    speed = SpeedSettings(capture=Recorder())
    recorded = trained(experiment, replace(data, prefix=prefix), speed)
    assert same_weights(eager.network, recorded.network)


def test_a_recorded_training_resumes_as_an_undisturbed_one(faces: FaceBatches) -> None:
    experiment = an_experiment(trained="all", max_epochs=3)
    whole = trained(experiment, some_data(faces))
    speed = SpeedSettings(capture=Recorder())
    stopped = start(a_network(experiment), experiment.recipe, CPU)
    next(fit(stopped, some_data(faces), experiment, 4, CPU, speed))
    checkpoint = stopped.checkpoint()
    assert isinstance(checkpoint["optimiser"]["param_groups"][0]["lr"], float)
    resumed = start(a_network(experiment, seed=8), experiment.recipe, CPU)
    rate_tensors(resumed)
    resumed.restore(checkpoint)
    assert isinstance(resumed.optimiser.param_groups[0]["lr"], Tensor)
    epochs(fit(resumed, some_data(faces), experiment, 4, CPU, speed))
    assert same_weights(whole.network, resumed.network)


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
        (None, "The step cannot be recorded as a CUDA graph (CUDA error: not permitted when stream "
               "is capturing): going on operation by operation"),
        (no_compiler, "torch.compile does not work here (InvalidCxxCompiler: No working C++ "
                      "compiler found): going on without it"),
        (mistaken_compiler, "torch.compile does not work here (a first step leaves weights that "
                            "are not finite): going on without it"),
    ],
    ids=["broken recorder", "no compiler", "compiler's mistake"],
)  # fmt: skip
def test_what_does_not_work_is_said_and_costs_nothing_else(
    faces: FaceBatches, monkeypatch: pytest.MonkeyPatch, compiler: Any, said: str
) -> None:
    experiment, sentences = an_experiment(trained="all"), list[str]()
    eager = trained(experiment, some_data(faces))
    if compiler is not None:
        # torch's own compiler takes half a minute to find out that there is none.
        monkeypatch.setattr(torch, "compile", compiler)
        speed = SpeedSettings(compile=True, say=sentences.append)
    else:
        speed = SpeedSettings(capture=Recorder(broken=True), say=sentences.append)
    after = trained(experiment, some_data(faces), speed)
    assert sentences == [said]
    assert after.speed_report == {"graph": False, "compiled": False}
    assert same_weights(eager.network, after.network)


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


def a_step(faces: FaceBatches) -> tuple[TrainStep, Batch]:
    experiment = an_experiment(trained="all")
    state = start(a_network(experiment), experiment.recipe, CPU)
    totals = Totals(experiment.head.tasks, CPU.torch_device)
    forward = ForwardPass(state.network, faces, CPU)
    return TrainStep(forward, state.optimiser, experiment.recipe, totals), Batch(torch.arange(8))


def test_a_snapshot_restores_weights_statistics_adam_and_random_streams(faces: FaceBatches) -> None:
    step, batch = a_step(faces)
    network = step.forward.network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    snapshot = Snapshot(step)
    expected = torch.rand(3)
    step(batch)
    states = [value for state in step.optimiser.state.values() for value in state.values()]
    addresses = [value.data_ptr() for value in states]
    assert any(bool(value.any()) for value in states)
    snapshot.restore()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(bool(value.any()) for value in states)
    assert [value.data_ptr() for value in states] == addresses
    assert torch.equal(torch.rand(3), expected)
    step(batch)
    moments = [value.clone() for value in states]
    snapshot = Snapshot(step)
    step(batch)
    snapshot.restore()
    assert all(torch.equal(a, b) for a, b in zip(states, moments, strict=True))


def test_preparing_counts_nothing(faces: FaceBatches) -> None:
    step, batch = a_step(faces)
    steps = Steps(step, 8, SpeedSettings(), Recorder())
    steps.prepare(batch)
    assert (step.totals.n_images, step.totals.mean_loss()) == (0, 0.0)
    steps(batch)
    assert step.totals.n_images == 8
    assert 0 < step.totals.mean_loss() < 20


def test_batches_count_by_their_faces_and_each_epoch_begins_anew() -> None:
    totals = Totals(("gender", "race"), torch.device("cpu"))
    for _ in range(2):
        totals.reset()
        assert totals.mean_loss() == 0.0
        totals.add(BatchLoss(torch.tensor(2.0), torch.tensor([3, 1]), 4))
        totals.add(BatchLoss(torch.tensor(0.5), torch.tensor([2, 0]), 2))
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


class SmallMemory:
    """A device's memory that holds the activations of `n_faces` faces in training, and no more."""

    def __init__(self, n_faces: int) -> None:
        self.n_faces = n_faces
        self.sizes: set[int] = set()

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        n = len(inputs[0])
        if module.training:
            self.sizes.add(n)
        if n > self.n_faces and module.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def trained_within(
    memory: SmallMemory | None, architecture: str = "squeezenet1_1"
) -> tuple[TrainingState, list[str]]:
    flips = Augmentation(flip=True, rotation_degrees=10.0)
    experiment = an_experiment(architecture, augmentation=flips, max_epochs=2)
    state, said = start(a_network(experiment), experiment.recipe, CPU), list[str]()
    if memory is not None:
        state.network.register_forward_pre_hook(memory)
    data, speed = some_data(some_faces()), SpeedSettings(say=said.append)
    epochs(fit(state, data, experiment, 0, CPU, speed))
    return state, said


def test_pieces_are_the_same_step_as_the_whole_batch_and_said_once_a_division() -> None:
    whole, _ = trained_within(None)
    memory = SmallMemory(3)
    divided, said = trained_within(memory)
    assert memory.sizes == {1, 2, 4, 8}
    for name, value in whole.network.state_dict().items():
        # Adam divides by the gradient's size: rounding of 1e-7 may come out as 1e-6 of a step.
        torch.testing.assert_close(divided.network.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert (whole.best_epoch, whole.best_score) == (divided.best_epoch, divided.best_score)
    assert divided.speed_report["pieces"] == 4
    assert [sentence.split(" pieces")[0][-1] for sentence in said] == ["2", "4"]
    fits, said = trained_within(SmallMemory(8))
    assert "pieces" not in fits.speed_report
    assert not said


def test_where_pieces_do_not_help_the_run_fails_with_a_sentence() -> None:
    for n_faces, architecture, why in (
        (0, "squeezenet1_1", "not even a single face fits"),
        (4, "cnn", "batch normalisation needs all of it"),
    ):
        with pytest.raises(DeviceError, match=why):
            trained_within(SmallMemory(n_faces), architecture)
    frozen = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    assert why_whole(frozen) is None
    assert why_whole(frozen.train()) is not None
    assert why_whole(nn.Sequential(nn.Dropout(0.0)).train()) is None


def test_prediction_goes_by_halves_where_the_whole_does_not_fit(
    faces: FaceBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, error = 3, RuntimeError("DefaultCPUAllocator: can't allocate memory")
    forward = ForwardPass(a_network(an_experiment()).eval(), faces, CPU)
    inputs = ForwardPass.unchanged

    def scarce(self: ForwardPass, rows: Tensor) -> Tensor:
        if len(rows) > most:
            raise error
        return inputs(self, rows)

    expected = dict(next(forward.logits(torch.arange(10)))[1])
    monkeypatch.setattr(ForwardPass, "unchanged", scarce)
    read = list(forward.logits(torch.arange(10)))
    assert torch.equal(torch.cat([rows for rows, _ in read]), torch.arange(10))
    halves = torch.cat([logits["race"] for _, logits in read])
    torch.testing.assert_close(halves, expected["race"])
    most = 0
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        list(forward.logits(torch.arange(3)))
    error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes"):
        list(forward.logits(torch.arange(3)))


@pytest.mark.gpu
@needs_cuda
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


@pytest.mark.gpu
@needs_cuda
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


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("graph", [False, True])
def test_on_a_gpu_that_is_full_the_step_is_the_same(graph: bool) -> None:
    """The last training gets two fifths of what whole batches take, operation by operation."""
    device, data = Device(torch.device("cuda"), "fp32", exact=True), on_gpu()
    experiment = replace(
        # Adam with a small epsilon makes whole steps out of gradients that are mere rounding.
        an_experiment("squeezenet1_1", trained="all", batch_size=48, adam_epsilon=1e-2),
        backbone=Backbone("squeezenet1_1", input_px=448),
    )

    def trained_with(most: float, *, graph: bool) -> tuple[TrainingState, int]:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(most)
        try:
            with device.arithmetic():
                state = start(a_network(experiment), experiment.recipe, device)
                epochs(fit(state, data, experiment, 4, device, SpeedSettings(graph=graph)))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return state, torch.cuda.max_memory_reserved()

    ample, _ = trained_with(1.0, graph=graph)
    _, peak = trained_with(1.0, graph=False)
    total = torch.cuda.get_device_properties(0).total_memory
    scarce, _ = trained_with(0.4 * peak / total, graph=graph)
    assert "pieces" not in ample.speed_report
    assert scarce.speed_report["pieces"] > 1
    for name, value in ample.network.state_dict().items():
        other = scarce.network.state_dict()[name]
        torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-5)
