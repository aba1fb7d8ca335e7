"""The epoch loop and its steps: what they compute, yield and select; resumed, recorded, compiled.

The recorder here does the work itself, on the CPU: all but CUDA's own part is tested.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark.data.batches import Batch, FaceBatches
from benchmark.errors import DeviceError, RunError
from benchmark.experiment.definition import Augmentation, Experiment, LossWeights, Recipe
from benchmark.tasks import TASKS, TaskName, n_classes
from benchmark.training import steps, trainer
from benchmark.training.device import Device, Precision, choose_device, device_trouble
from benchmark.training.prefix_cache import CacheSettings, PrefixRequest, open_prefix
from benchmark.training.steps import ForwardPass, SpeedSettings, TaskLoss, resolve_precision
from benchmark.training.trainer import EpochResult, TrainingFaces, TrainingState, fit, start
from tests.training import small
from tests.training.small import CPU, a_network, an_experiment, epochs, same_weights, some_data


def a_learning(**recipe: Any) -> Experiment:
    fields = {"learning_rate": 3e-3, "max_epochs": 3, "selection": "best_validation_combined"}
    return an_experiment(trained="all", **fields | recipe)


def epochs_of(
    experiment: Experiment, seed: int = 0, device: Device = CPU
) -> tuple[TrainingState, list[EpochResult]]:
    state = start(a_network(experiment), experiment.recipe, device)
    return state, epochs(fit(state, some_data(), experiment, seed, device))


def test_a_network_learns_and_the_first_epoch_with_the_highest_score_is_selected() -> None:
    state, results = epochs_of(a_learning(max_epochs=5))
    assert [result.epoch for result in results] == [0, 1, 2, 3, 4]
    assert results[-1].train_loss < results[0].train_loss
    assert set(results[0].metrics()) >= {"train/loss", "val/race/accuracy", "val/combined"}
    scores = [result.val_combined for result in results]
    assert max(scores) > 0.9
    assert state.best_epoch == scores.index(max(scores))
    selected = state.network.state_dict()
    assert all(torch.equal(selected[name], state.best_weights[name]) for name in selected)
    # bf16 learns what fp32 learns: one face of 21, in one task, is 0.01 to 0.02.
    bf16 = epochs_of(a_learning(max_epochs=5), device=replace(CPU, precision="bf16"))[1]
    assert abs(max(result.val_combined for result in bf16) - max(scores)) < 0.1
    assert 0 < abs(bf16[-1].train_loss - results[-1].train_loss) < 0.2


def test_exact_trainings_of_one_seed_end_in_equal_weights_and_of_two_do_not() -> None:
    exact, networks = choose_device("cpu", exact=True), []
    for seed in (5, 5, 6):
        with exact.arithmetic():
            networks.append(epochs_of(a_learning(), seed, exact)[0].network)
    assert same_weights(networks[0], networks[1])
    assert not same_weights(networks[0], networks[2])


def test_a_loss_that_is_not_finite_stops_the_run_with_its_epoch() -> None:
    with pytest.raises(RunError, match=r"training loss of epoch \d is (nan|inf).*Lower"):
        epochs_of(a_learning(learning_rate=1e30, clipping="none"))


def test_early_stopping_waits_as_long_as_it_says() -> None:
    # A rate near zero: the first epoch stays the best, so that two more follow and no third.
    experiment = a_learning(learning_rate=1e-12, max_epochs=10, early_stopping_epochs=2)
    _, results = epochs_of(experiment)
    best = max(results, key=lambda result: (result.val_combined, -result.epoch)).epoch
    assert len(results) == best + 3


def test_fixed_batches_see_one_order_and_shuffling_another_each_epoch() -> None:
    # Batch norm sees a batch's own statistics, so that another grouping gives another loss.
    for shuffling in ("fixed_batches", "every_epoch"):
        experiment = a_learning(learning_rate=1e-12, max_epochs=2)
        protocol = replace(experiment.protocol, shuffling=shuffling)  # type: ignore[arg-type]
        first, second = epochs_of(replace(experiment, protocol=protocol))[1]
        assert (abs(first.train_loss - second.train_loss) <= 1e-5) == (shuffling != "every_epoch")


def test_a_fixed_number_of_steps_makes_an_epoch() -> None:
    # 43 faces that train, three steps of 8 an epoch: 24 faces
    _, results = epochs_of(a_learning(steps_per_epoch=3, max_epochs=2))
    assert len(results) == 2
    rates = [rate * 24 for result in results for rate in result.train_accuracy.values()]
    assert all(rate == pytest.approx(round(rate)) for rate in rates)


def test_training_stops_at_the_training_accuracy_asked_for_and_does_not_resume() -> None:
    experiment = a_learning(max_epochs=30, until_train_accuracy=0.9)
    state, results = epochs_of(experiment)
    *before, last = [min(result.fitted_accuracy.values()) for result in results]
    assert len(results) < 30
    assert all(rate < 0.9 for rate in before)
    assert last >= 0.9
    assert "fitted/race/accuracy" in results[0].metrics()
    again = start(a_network(experiment), experiment.recipe, CPU)
    again.restore(state.checkpoint())
    assert epochs(fit(again, some_data(), experiment, 0, CPU)) == []


def test_weights_that_are_not_finite_are_refused_though_the_loss_is_finite() -> None:
    """As when an epoch's very last step overflows: the loss was computed before it."""
    network = a_network(a_learning())
    trainer.check_weights(network, 0, 1e-3)
    with torch.no_grad():
        next(network.head.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(RunError, match="not finite after epoch 3 at learning rate 0.001"):
        trainer.check_weights(network, 2, 1e-3)


def test_stages_learn_slower_the_shallower_they_are() -> None:
    experiment = an_experiment(trained=3, trunk_rate_ratio=0.1, stage_rate_decay=0.5)
    network = a_network(experiment)
    # Head 1; block5, the deepest, 0.1; block4 0.1 x 0.5; block3 0.1 x 0.5 x 0.5.
    ratios = trainer.stage_ratios(network, experiment.recipe)
    assert ratios == pytest.approx({"block3": 0.025, "block4": 0.05, "block5": 0.1})
    optimiser = trainer.new_optimiser(network, experiment.recipe, CPU)
    trainer.set_rate(optimiser, 2e-3)
    groups = optimiser.param_groups
    rate_of = {id(item): group["lr"] for group in groups for item in group["params"]}
    named = network.named_parameters()
    rates = {name: rate_of[id(item)] for name, item in named if item.requires_grad}
    assert rates["trunk.stages.block3.conv.weight"] == pytest.approx(5e-5)
    assert rates["trunk.stages.block5.norm.bias"] == pytest.approx(2e-4)
    assert rates["head.gender.hidden.weight"] == pytest.approx(2e-3)
    assert "trunk.stages.block2.conv.weight" not in rates


CHANGES = Augmentation(flip=True, brightness=0.1, contrast=0.1, rotation_degrees=5)


class Recorder:
    """Plays a CUDA graph: what is recorded is done when it is replayed, and not before."""

    def __init__(self, *, broken: bool = False) -> None:
        self.n_replays, self.broken = 0, broken

    def __call__(self, work: Callable[[], None], undo: Callable[[], None]) -> Callable[[], None]:
        for _ in range(3):
            work()
        undo()
        if self.broken:
            work()
            raise RuntimeError("CUDA error: not permitted when stream is capturing\nlong")

        def replay() -> None:
            self.n_replays += 1
            work()

        return replay


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
    results = epochs(fit(state, data, experiment, 4, device, speed))
    state.speed_report["losses"] = [result.train_loss for result in results]
    return state


def test_recorded_steps_end_in_the_weights_of_eager_ones() -> None:
    experiment = an_experiment(
        trained="all", augmentation=CHANGES, schedule="cosine", max_epochs=3, weight_decay=0.01
    )
    recorder = Recorder()
    eager = trained(experiment, some_data())
    recorded = trained(experiment, some_data(), SpeedSettings(capture=recorder))
    assert same_weights(eager.network, recorded.network)
    assert eager.speed_report["losses"] == recorded.speed_report["losses"], "warm-ups count nothing"
    # 43 faces: five batches of 8 are replayed in each epoch, the last of 3 goes by itself.
    assert recorder.n_replays == 3 * 5
    assert (eager.speed_report["graph"], recorded.speed_report["graph"]) == (False, True)


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_resumed_training_ends_as_an_undisturbed_one(is_recorded: bool) -> None:
    experiment = an_experiment(trained="all", max_epochs=3, augmentation=CHANGES)
    whole = trained(experiment, some_data())
    speed = SpeedSettings(capture=Recorder() if is_recorded else None)
    stopped = start(a_network(experiment), experiment.recipe, CPU)
    events = fit(stopped, some_data(), experiment, 4, CPU, speed)
    next(event for event in events if isinstance(event, EpochResult))
    checkpoint = stopped.checkpoint()
    assert isinstance(checkpoint["optimiser"]["param_groups"][0]["lr"], float)
    resumed = start(a_network(experiment, seed=8), experiment.recipe, CPU)
    rate_tensors(resumed)
    resumed.restore(checkpoint)
    assert isinstance(resumed.optimiser.param_groups[0]["lr"], Tensor)
    rest = epochs(fit(resumed, some_data(), experiment, 4, CPU, speed))
    assert [result.epoch for result in rest] == [1, 2]
    assert same_weights(whole.network, resumed.network)


def no_compiler(*_arguments: object, **_options: object) -> object:
    def compiled(_inputs: Tensor) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more")

    return compiled


def mistaken_compiler(function: Callable[..., dict[str, Tensor]], **_options: object) -> object:
    def compiled(inputs: Tensor) -> dict[str, Tensor]:
        return {task: logits * float("nan") for task, logits in function(inputs).items()}

    return compiled


def test_what_does_not_work_is_said_and_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, sentences = an_experiment(trained="all"), list[str]()
    eager = trained(experiment, some_data())
    broken = SpeedSettings(capture=Recorder(broken=True), say=sentences.append)
    compiling = SpeedSettings(compile=True, say=sentences.append)
    for compiler, speed, said in (
        (None, broken, "cannot be recorded as a CUDA graph (CUDA error: not permitted when str"),
        (no_compiler, compiling, "torch.compile does not work here (InvalidCxxCompiler"),
        (mistaken_compiler, compiling, "does not work here (a first step leaves weights that"),
    ):
        # torch's own compiler takes half a minute to find out that there is none.
        monkeypatch.setattr(torch, "compile", compiler)
        after = trained(experiment, some_data(), speed)
        (sentence,) = sentences
        assert said in sentence
        assert "\n" not in sentence
        assert (after.speed_report["graph"], after.speed_report["compiled"]) == (False, False)
        assert same_weights(eager.network, after.network)
        sentences.clear()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_compiled_backward_pass_rounds_nothing_that_an_eager_one_does_not(
    monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    # This compiler of torch's fuses nothing: what it traced is computed operation by operation.
    tracing = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", tracing)
    experiment, device = an_experiment(trained="all"), replace(CPU, precision=precision)
    eager = trained(experiment, some_data(), device=device)
    compiled = trained(experiment, some_data(), SpeedSettings(compile=True), device=device)
    assert compiled.speed_report["compiled"] is True
    assert same_weights(eager.network, compiled.network)


def test_a_missing_label_counts_for_nothing_and_each_labelled_face_alike() -> None:
    # Gender is known of 2 of 4 faces, so that each of them counts double in a task's mean.
    labels = {"gender": torch.tensor([0, -1, 1, -1]), "race": torch.tensor([0, 1, 2, 3])}
    tasks: tuple[TaskName, ...] = ("gender", "race")
    logits = {task: torch.zeros(4, n_classes(task), requires_grad=True) for task in tasks}
    of_all = TaskLoss(tasks, labels, LossWeights(), torch.arange(4))  # type: ignore[arg-type]
    loss, hits = of_all(logits, torch.arange(4))
    assert loss.item() == pytest.approx(0.2 * math.log(2) + 0.4 * math.log(5), rel=1e-6)
    assert hits.tolist() == [1, 1]
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = logits["gender"].grad
    assert gradient is not None
    assert gradient.tolist() == [pytest.approx(row) for row in
                                 ([-0.05, 0.05], [0, 0], [0.05, -0.05], [0, 0])]  # fmt: skip
    # Of the two batches of an epoch one has no gender: their mean is the mean of the labelled.
    two = {task: logits[task][:2].detach() for task in tasks}
    halves = [of_all(two, torch.tensor(rows))[0] for rows in ([0, 2], [1, 3])]
    assert float(sum(halves)) / 2 == pytest.approx(loss.item(), rel=1e-6)


def test_clipping_bounds_each_tensor_all_together_or_none() -> None:
    # Norms 5 and 0.5 by themselves; 5 together, so that each shrinks by 5.
    cases = {
        "per_variable": ([[3.0, 4.0], [0.3, 0.4]], [1.0, 0.5]),
        "global": ([[3.0, 0.0], [0.0, 4.0]], [0.6, 0.8]),
        "none": ([[30.0, 40.0]], [50.0]),
    }
    for clipping, (gradients, expected) in cases.items():
        tensors = [torch.zeros(2, requires_grad=True) for _ in [*gradients, "without a gradient"]]
        for tensor, gradient in zip(tensors, gradients, strict=False):
            tensor.grad = torch.tensor(gradient)
        recipe = Recipe(learning_rate=1.0, clipping=clipping, clip_norm=1.0)  # type: ignore[arg-type]
        steps.clip_gradients(tensors, recipe)
        norms = [float(tensor.grad.norm()) for tensor in tensors if tensor.grad is not None]
        assert norms == pytest.approx(expected, rel=1e-5), clipping


@pytest.mark.parametrize("tasks", [TASKS, ("age_group", "race"), ("gender",), ("race", "gender")])
def test_all_tasks_at_once_give_loss_and_hits_of_one_after_another(
    tasks: tuple[TaskName, ...],
) -> None:
    torch.manual_seed(1)
    labels = {task: torch.randint(0, n_classes(task), (50,)) for task in TASKS}
    rows = torch.randint(0, 50, (32,))
    weights = LossWeights(age_group=0.5, gender=0.3, race=0.7)
    logits = {task: (20 * torch.randn(32, n_classes(task))).requires_grad_(True) for task in tasks}
    truths = {task: labels[task][rows] for task in tasks}
    # The loss by its definition, one task after another; a single task counts 1.
    losses = [functional.cross_entropy(logits[task], truths[task])
              * (getattr(weights, task) if len(tasks) > 1 else 1) for task in tasks]  # fmt: skip
    expected = torch.stack(losses).sum()
    wanted = torch.autograd.grad(expected, list(logits.values()))
    loss, hits = TaskLoss(tasks, labels, weights, torch.arange(50))(logits, rows)
    torch.testing.assert_close(loss, expected)
    gradients = torch.autograd.grad(loss, list(logits.values()))
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    counted = [int((logits[task].argmax(1) == truths[task]).sum()) for task in tasks]
    assert hits.tolist() == counted


def test_batches_count_by_their_faces_and_each_epoch_begins_anew() -> None:
    # Frozen but for the head, which hardly learns: batches of 8 and 3 make the mean of 11 faces.
    experiment, rows = an_experiment(trained=0, learning_rate=1e-12), torch.arange(11)
    state, weights = start(a_network(experiment), experiment.recipe, CPU), LossWeights()
    forward = ForwardPass(state.network, small.FACES, CPU)
    made = steps.Steps(forward, state.optimiser, experiment, rows, SpeedSettings())
    with torch.no_grad():
        wanted = TaskLoss(TASKS, small.FACES.labels, weights, rows)(forward.logits(rows), rows)
    for _ in range(2):
        made.start_epoch(Batch(rows[:8]))
        for part in torch.split(rows, 8):
            made(Batch(part))
        assert made.mean_loss() == pytest.approx(wanted[0].item(), rel=1e-5)
        found = made.accuracies(rows)
        assert list(found.values()) == pytest.approx((wanted[1] / 11).tolist())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("trained_stages", ["all", 2, 0])
def test_a_cuda_graph_learns_what_eager_steps_learn_from_cached_activations_too(
    tmp_path: Path, trained_stages: int | str
) -> None:
    # `cuda` without a number, as it is asked for; tensors there say `cuda:0`.
    device = Device(torch.device("cuda"), "fp32", exact=True)
    here = some_data().faces
    faces = FaceBatches(here.pixels.cuda(), {k: it.cuda() for k, it in here.labels.items()})
    live = TrainingFaces(faces, torch.arange(48).cuda(), torch.arange(48, 64).cuda())
    # Sums go in another order from a cache, and Adam makes whole steps of rounding by its own.
    experiment = an_experiment(
        trained=trained_stages, augmentation=Augmentation(flip=True), schedule="cosine",
        max_epochs=3, adam_epsilon=1e-7 if trained_stages == "all" else 1e-2,
    )  # fmt: skip
    request, states = PrefixRequest("the pixels", experiment.recipe.augmentation), []
    with device.arithmetic():
        network = a_network(experiment)
        prefix = open_prefix(network, faces, device, CacheSettings(tmp_path), request)
        for graph, data in ((False, live), (True, replace(live, prefix=prefix))):
            state = start(a_network(experiment), experiment.recipe, device)
            epochs(fit(state, data, experiment, 4, device, SpeedSettings(graph=graph)))
            states.append(state)
    assert [state.speed_report["graph"] for state in states] == [False, True]
    assert prefix is None or prefix.views[0].device.type == "cuda"
    eager, recorded = (state.network.state_dict() for state in states)
    for name, value in eager.items():
        assert torch.allclose(value.float(), recorded[name].float(), rtol=1e-4, atol=1e-6), name


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
    assert choose_device("cpu").probes


def test_switches_hold_while_a_run_lasts_and_no_longer() -> None:
    def switches() -> tuple[bool, bool, bool]:
        cudnn = torch.backends.cudnn
        is_exact = torch.are_deterministic_algorithms_enabled()
        return is_exact, cudnn.deterministic, cudnn.allow_tf32

    before = switches()
    with choose_device("cpu", exact=True).arithmetic():
        assert switches() == (True, True, False)
    assert switches() == before


def test_memory_freed_in_a_step_is_kept_for_the_next_one_while_training_alone() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 3))
    faces = torch.rand(48, 3, 64, 64)  # Maps of 46 MiB, which glibc always maps by themselves.

    def page_faults() -> int:
        before = getrusage(RUSAGE_SELF).ru_minflt
        layers(faces).sum().backward()
        return getrusage(RUSAGE_SELF).ru_minflt - before

    with choose_device("cpu").arithmetic():
        kept = min(page_faults() for _ in range(4))
    assert kept < min(page_faults() for _ in range(4)) / 4


def test_a_lack_of_memory_and_a_lost_device_are_recognised_and_explained() -> None:
    for error, said in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmany lines"), "recipe.batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), "recipe.batch_size"),
        (RuntimeError("could not create a primitive"), "recipe.batch_size"),
        (MemoryError(), "recipe.batch_size"),
        (torch.AcceleratorError("CUDA error: device-side failure\nmany lines"), "stopped working"),
        (RuntimeError("could not create a primitive descriptor for a pool"), "None"),
        (ValueError("something else"), "None"),
    ):
        trouble = str(device_trouble(error))
        assert said in trouble
        assert "many lines" not in trouble


def test_the_fastest_is_taken_and_remembered_and_the_network_left_alone() -> None:
    experiment, device = an_experiment(trained="all"), choose_device("cpu", "auto")
    network, faces = a_network(experiment), small.FACES
    before = {name: value.clone() for name, value in network.state_dict().items()}
    chosen, seconds = resolve_precision(device, network, faces, experiment, cached=False)
    assert seconds is not None
    assert len(seconds) == (3 if steps.cpu_has_bf16() else 2)
    layout = "channels_last" if chosen.channels_last else "channels_first"
    assert steps.fastest(seconds) == f"{chosen.precision} {layout}"
    assert resolve_precision(device, network, faces, experiment, cached=False)[1] is seconds
    other = an_experiment(trained="all", batch_size=16)
    assert resolve_precision(device, network, faces, other, cached=False)[1] is not seconds
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    # A precision that is given is kept.
    for given in (choose_device("cpu", "fp32"), choose_device("cpu", exact=True), chosen):
        found = resolve_precision(given, network, faces, experiment, cached=False)
        assert found == (given, None)
    # Native bf16 is taken unless it is clearly slower.
    fp32 = {"fp32 channels_first": 1.2, "fp32 channels_last": 1.0}
    for bf16, expected in ((0.5, "bf16"), (1.2, "bf16"), (1.3, "fp32"), (math.inf, "fp32")):
        assert steps.fastest(fp32 | {"bf16 channels_last": bf16}) == f"{expected} channels_last"
