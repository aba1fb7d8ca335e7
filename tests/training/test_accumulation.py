"""Out of memory: the batch goes through in pieces, as the same step, or fails with a sentence."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.data.batches import FaceBatches
from benchmark.errors import DeviceError
from benchmark.experiment.definition import Augmentation, Backbone
from benchmark.training.device import Device, is_out_of_memory
from benchmark.training.micro_batching import in_halves, why_whole
from benchmark.training.steps import SpeedSettings
from benchmark.training.trainer import TrainingFaces, TrainingState, fit, start
from tests.training.small import CPU, a_network, an_experiment, epochs, some_data, some_faces

FLIPS = Augmentation(flip=True, rotation_degrees=10.0)


class SmallMemory:
    """A device's memory that holds the activations of `n_faces` faces in training, and no more."""

    def __init__(self, n_faces: int) -> None:
        self.n_faces = n_faces
        self.sizes: list[int] = []

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        n = len(inputs[0])
        if module.training:
            self.sizes.append(n)
        if n > self.n_faces and module.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def trained(
    memory: SmallMemory | None, architecture: str = "squeezenet1_1"
) -> tuple[TrainingState, list]:
    experiment = an_experiment(architecture, augmentation=FLIPS, max_epochs=2)
    state = start(a_network(experiment), experiment.recipe, CPU)
    if memory is not None:
        state.network.register_forward_pre_hook(memory)
    said: list[str] = []
    speed = SpeedSettings(say=said.append)
    epochs(fit(state, some_data(some_faces()), experiment, 0, CPU, speed))
    return state, said


def test_pieces_are_the_same_step_as_the_whole_batch() -> None:
    whole, _ = trained(None)
    memory = SmallMemory(3)
    divided, _ = trained(memory)
    assert max(memory.sizes) == 8
    assert sorted(set(memory.sizes)) == [1, 2, 4, 8]
    for name, value in whole.network.state_dict().items():
        # Adam divides by the gradient's size: rounding of 1e-7 may come out as 1e-6 of a step.
        torch.testing.assert_close(divided.network.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert (whole.best_epoch, whole.best_score) == (divided.best_epoch, divided.best_score)


def test_the_division_is_said_once_and_recorded() -> None:
    state, said = trained(SmallMemory(4))
    assert state.speed_report["pieces"] == 2
    assert len(said) == 1
    assert "8 faces at once: it goes through in 2 pieces" in said[0]


def test_a_batch_that_fits_is_not_divided() -> None:
    state, said = trained(SmallMemory(8))
    assert "pieces" not in state.speed_report
    assert not said


def test_where_no_face_fits_the_run_fails_with_a_sentence() -> None:
    with pytest.raises(DeviceError, match="not even a single face fits"):
        trained(SmallMemory(0))


def test_a_trained_batch_normalisation_is_not_divided() -> None:
    with pytest.raises(DeviceError, match="batch normalisation must see it as a whole"):
        trained(SmallMemory(4), "cnn")


def test_a_frozen_batch_normalisation_reads_each_face_by_itself() -> None:
    frozen = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    assert why_whole(frozen) is None
    assert why_whole(frozen.train()) is not None
    assert why_whole(nn.Sequential(nn.Dropout(0.0)).train()) is None


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a pool"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        list(in_halves(_refuse, torch.arange(4)))


def _refuse(rows: torch.Tensor) -> None:
    raise RuntimeError("shapes do not fit")


def test_reading_goes_by_halves_where_the_whole_does_not_fit() -> None:
    def doubled(rows: torch.Tensor) -> torch.Tensor:
        if len(rows) > 3:
            raise torch.OutOfMemoryError("no")
        return rows * 2

    read = list(in_halves(doubled, torch.arange(10)))
    assert torch.equal(torch.cat([rows for rows, _ in read]), torch.arange(10))
    assert torch.equal(torch.cat([answer for _, answer in read]), torch.arange(10) * 2)


def test_memory_that_never_suffices_is_told() -> None:
    def hungry(rows: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("no")

    with pytest.raises(torch.OutOfMemoryError):
        list(in_halves(hungry, torch.arange(3)))


def trained_on_gpu(data: TrainingFaces, most: float, *, graph: bool) -> tuple[TrainingState, int]:
    """Train with that fraction of the GPU's memory; give how much of it was taken, too."""
    device = Device(torch.device("cuda"), "fp32", exact=True)
    experiment = replace(
        # Adam with a small epsilon makes whole steps out of gradients that are mere rounding.
        an_experiment("squeezenet1_1", trained="all", batch_size=48, adam_epsilon=1e-2),
        backbone=Backbone("squeezenet1_1", input_px=448),
    )
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("graph", [False, True])
def test_on_a_gpu_that_is_full_the_step_is_the_same(graph: bool) -> None:
    """The second training gets two fifths of what whole batches take, operation by operation.

    A recording takes more than that, and is given up first.
    """
    on_host = some_faces()
    labels = {task: values.cuda() for task, values in on_host.labels.items()}
    faces = FaceBatches(on_host.pixels.cuda(), labels)
    data = TrainingFaces(faces, torch.arange(48).cuda(), torch.arange(48, 64).cuda())
    ample, _ = trained_on_gpu(data, 1.0, graph=graph)
    _, peak = trained_on_gpu(data, 1.0, graph=False)
    total = torch.cuda.get_device_properties(0).total_memory
    scarce, _ = trained_on_gpu(data, 0.4 * peak / total, graph=graph)
    assert "pieces" not in ample.speed_report
    assert scarce.speed_report["pieces"] > 1
    for name, value in ample.network.state_dict().items():
        other = scarce.network.state_dict()[name]
        torch.testing.assert_close(other, value, rtol=1e-3, atol=1e-5)
