"""Every way does what it is measured for: batches are read, weights move, caches are built."""

import signal
from pathlib import Path

import psutil
import pytest
import torch

from benchmark.data.dataset import FaceSet
from benchmark.errors import DataError
from benchmark.speed import loops
from benchmark.speed.loops import PlainConfig, Sample, loader
from benchmark.speed.rows import rows_named
from benchmark.training.device import Device

CPU = Device(torch.device("cpu"), "fp32")
CONFIG = PlainConfig(workers=0)


def a_job(faces: FaceSet, folder: Path, row: str = "cnn", epochs: int = 1) -> loops.Job:
    sample = Sample.of(faces, CPU.torch_device, folder, most=64).first(32)
    (definition,) = rows_named(row)
    return loops.Job(definition.experiment(32, epochs), sample, epochs, CPU, CONFIG)


def values(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def test_a_sample_is_of_training_and_validation_faces_in_whole_batches(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    sample = Sample.of(drawn_faces, CPU.torch_device, tmp_path, most=50)
    part = drawn_faces.table["part"].to_numpy()
    assert (len(sample.train), len(sample.val)) == (32, 4)
    assert set(part[sample.train]) == {"train"}
    assert set(part[sample.val]) == {"val"}


def test_files_are_the_faces_that_are_trained_on(drawn_faces: FaceSet, tmp_path: Path) -> None:
    job = a_job(drawn_faces, tmp_path)
    picture, labels = job.sample.pictures(job.sample.train)[3]
    row = int(job.sample.train[3])
    assert labels[2] == drawn_faces.table["race"].iloc[row]
    mean = drawn_faces.pixels()[row].mean() / 255
    shown = picture * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    shown += torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    assert shown.mean().item() == pytest.approx(mean, abs=0.02)  # JPEG changes a little


def test_a_signal_to_all_processes_leaves_the_workers_at_work(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    pictures = a_job(drawn_faces, tmp_path).sample.pictures
    sample = Sample.of(drawn_faces, CPU.torch_device, tmp_path, most=64)
    batches = loader(pictures(sample.train), PlainConfig(batch_size=4, workers=1), shuffle=False)
    before = set(psutil.Process().children())
    read = iter(batches)
    next(read)
    (worker,) = set(psutil.Process().children()) - before
    for number in (signal.SIGTERM, signal.SIGINT):
        worker.send_signal(number)
    assert len(list(read)) == len(sample.train) // 4 - 1
    del read, batches
    worker.wait(timeout=20)


def test_too_few_faces_are_refused(drawn_faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 32 and 4"):
        Sample.of(drawn_faces, CPU.torch_device, tmp_path, most=31)


@pytest.mark.parametrize("loop", ["plain", "timm", "lightning"])
def test_every_loop_trains_the_network(drawn_faces: FaceSet, tmp_path: Path, loop: str) -> None:
    if loop == "lightning":
        pytest.importorskip("pytorch_lightning")
    job = a_job(drawn_faces, tmp_path)
    kinds = {"plain": loops.PlainTraining, "timm": loops.TimmTraining}
    way = kinds.get(loop, loops.LightningTraining)(job)
    network = way.network
    before = values(network).clone()
    way.measure()
    assert not torch.equal(before, values(network))
    way.close()


def test_ours_trains_an_epoch_each_time_it_is_measured(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    way = loops.OurEpochs(a_job(drawn_faces, tmp_path))
    way.warm_up()
    done = way.state.epochs_done
    way.measure()
    way.measure()
    assert way.state.epochs_done == done + 2


def test_a_run_builds_its_cache_inside_and_anew_each_time(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    job = a_job(drawn_faces, tmp_path, "frozen", epochs=2)
    way = loops.OurRun(job)
    for _ in range(2):
        way.prepare()
        way.measure()
        assert way.origin == "built"
        assert way.state.epochs_done == 2
    way.close()
    assert not (tmp_path / "cache").exists()
