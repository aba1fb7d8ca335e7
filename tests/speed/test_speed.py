"""Every loop does what it is measured for, and clocks and rows are fair: loops take turns."""

import time
from pathlib import Path

import pytest
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import DataError, ExperimentError
from benchmark.speed import loops
from benchmark.speed.loops import Job, Loop, rows_that_train
from benchmark.speed.measure import ROWS, in_turns, ratio_of, rows_named
from benchmark.training.device import Device

CPU = Device(torch.device("cpu"), "fp32")


def a_job(faces: FaceSet, folder: Path, row: str = "cnn", epochs: int = 1, n: int = 32) -> Job:
    train, val = rows_that_train(faces, n)
    on_device = FaceBatches.on_device(faces.pixels(), faces.table, CPU.torch_device)
    (definition,) = rows_named(row)
    experiment = definition.experiment(32, epochs)
    return Job(experiment, on_device, train, val, folder, CPU, 0, epochs)


def values(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def test_a_sample_is_of_training_and_validation_faces_in_whole_batches(
    drawn_faces: FaceSet,
) -> None:
    train, val = rows_that_train(drawn_faces, most=50)
    part = drawn_faces.table["part"].to_numpy()
    assert (len(train), len(val)) == (32, 4)
    assert set(part[train]) == {"train"}
    assert set(part[val]) == {"val"}
    with pytest.raises(DataError, match="at least 32 and 4"):
        rows_that_train(drawn_faces, most=31)


def test_files_are_the_faces_that_are_trained_on(drawn_faces: FaceSet, tmp_path: Path) -> None:
    job = a_job(drawn_faces, tmp_path)
    picture, labels = job.pictures(job.train)[3]
    row = int(job.train[3])
    assert labels[2] == drawn_faces.table["race"].iloc[row]
    shown = picture * torch.tensor(loops.STD).view(3, 1, 1) + torch.tensor(loops.MEAN).view(3, 1, 1)
    mean = drawn_faces.pixels()[row].mean() / 255
    assert shown.mean().item() == pytest.approx(mean, abs=0.02)  # JPEG changes a little


@pytest.mark.parametrize("loop", [loops.PlainTraining, loops.TimmTraining, loops.LightningTraining])
def test_every_loop_trains_the_network(
    drawn_faces: FaceSet, tmp_path: Path, loop: type[loops.PlainTraining]
) -> None:
    if loop is loops.LightningTraining:
        pytest.importorskip("pytorch_lightning")
    trained = loop(a_job(drawn_faces, tmp_path))
    network = trained.network
    before = values(network).clone()
    trained.measure()
    assert not torch.equal(before, values(network))
    trained.close()


def test_ours_trains_an_epoch_each_time_it_is_measured(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    trained = loops.OurEpochs(a_job(drawn_faces, tmp_path))
    trained.warm_up()
    done = trained.state.epochs_done
    trained.measure()
    trained.measure()
    assert trained.state.epochs_done == done + 2


def test_a_run_builds_its_cache_inside_and_anew_each_time(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    trained = loops.OurRun(a_job(drawn_faces, tmp_path, "frozen", epochs=2))
    for _ in range(2):
        trained.prepare()
        trained.measure()
        assert trained.origin == "built"
        assert trained.state.epochs_done == 2
    trained.close()
    assert not (tmp_path / "cache").exists()


class NotedLoop(Loop):
    """A loop that writes down what is asked of it."""

    def __init__(self, name: str, book: list[str], seconds: float = 0.0) -> None:
        self.name, self.book, self.seconds = name, book, seconds

    def warm_up(self) -> None:
        self.book.append(f"warm {self.name}")

    def prepare(self) -> None:
        self.book.append(f"prepare {self.name}")

    def measure(self) -> None:
        time.sleep(self.seconds)
        self.book.append(self.name)


def test_loops_take_turns_after_all_are_warm() -> None:
    book: list[str] = []
    _, found = in_turns({"a": NotedLoop("a", book), "b": NotedLoop("b", book)}, 2)
    round_ = ["prepare a", "a", "prepare b", "b"]
    assert book == ["warm a", "warm b", *round_, *round_]
    assert [len(found[name]) for name in ("a", "b")] == [2, 2]


def test_a_ratio_compares_within_rounds() -> None:
    # Rounds 4/2, 9/3 and 8/1: 2, 3 and 8. The ratio of the medians, 8/2, is another number.
    ratio = ratio_of([(4, 0), (9, 0), (8, 0)], [(2, 0), (3, 0), (1, 0)])
    assert ratio == {"middle": 3, "low": 2, "high": 8}


def test_processor_time_is_counted_and_waiting_is_not() -> None:
    _, found = in_turns({"asleep": NotedLoop("asleep", [], 0.3)}, 1)
    ((seconds, cpu_seconds),) = found["asleep"]
    assert seconds >= 0.3
    assert cpu_seconds < 0.15


def test_rows_come_in_our_order_and_all_can_be_defined() -> None:
    assert [row.name for row in rows_named("frozen,data")] == ["data", "frozen"]
    with pytest.raises(ExperimentError, match="there is no row 'frozn'"):
        rows_named("frozn")
    for row in ROWS:
        assert row.experiment(100, 1).recipe.clipping == "global", row.name
