"""Every loop does what it is measured for, and clocks and rows are fair: loops take turns."""

import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import DataError
from benchmark.speed import loops
from benchmark.speed.loops import Job, rows_that_train
from benchmark.speed.measure import in_turns, ratio_of, rows_named
from tests.training.small import CPU


def a_job(faces: FaceSet, folder: Path, row: str = "cnn", epochs: int = 1) -> Job:
    on_device = FaceBatches.on_device(faces.pixels(), faces.table, CPU.torch_device)
    (definition,) = rows_named(row)
    experiment = definition.experiment(32, epochs)
    return Job(experiment, on_device, *rows_that_train(faces, 32), folder, CPU, 0, epochs)


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


@pytest.mark.parametrize("loop", [loops.PlainTraining, loops.TimmTraining, loops.LightningTraining])
def test_every_loop_trains_the_network(
    drawn_faces: FaceSet, tmp_path: Path, loop: type[loops.PlainTraining]
) -> None:
    if loop is loops.LightningTraining:
        pytest.importorskip("pytorch_lightning")
    trained = loop(a_job(drawn_faces, tmp_path))
    network = trained.network
    before = values(network).clone()
    trained.train()
    assert not torch.equal(before, values(network))


def test_a_run_builds_its_cache_inside_and_anew_each_time(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    runs = iter(loops.our_run(a_job(drawn_faces, tmp_path, "frozen", epochs=2)))
    for n_epochs in (1, 2, 2):  # the first is the warm-up
        run: Any = next(runs)
        assert run() == "built"
        assert run.args[1].epochs_done == n_epochs


def test_loops_take_turns_after_all_are_warm_and_waiting_is_no_processor_time() -> None:
    done: list[tuple[str, int]] = []

    def loop(name: str, seconds: float) -> loops.Loop:
        for n in count():
            done.append((name, n))
            yield lambda: time.sleep(seconds)

    found = in_turns({"a": loop("a", 0.3), "b": loop("b", 0)}, 2, CPU)
    assert done == [(name, n) for n in range(3) for name in ("a", "b")]
    assert [len(found[name]) for name in ("a", "b")] == [3, 3]
    seconds, cpu_seconds, _ = found["a"][1]
    assert seconds >= 0.3
    assert cpu_seconds < 0.15


def test_a_ratio_compares_within_rounds() -> None:
    # Rounds 4/2, 9/3 and 8/1: 2, 3 and 8. The ratio of the medians, 8/2, is another number.
    ratio = ratio_of([(4, 0, 0), (9, 0, 0), (8, 0, 0)], [(2, 0, 0), (3, 0, 0), (1, 0, 0)])
    assert ratio == {"middle": 3, "low": 2, "high": 8}
