"""Every loop does what it is measured for, and clocks and rows are fair: loops take turns."""

import time
from pathlib import Path
from unittest.mock import Mock, call

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
    trained.measure()
    assert not torch.equal(before, values(network))


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


def test_loops_take_turns_after_all_are_warm_and_waiting_is_no_processor_time() -> None:
    both = Mock()
    both.a.measure.side_effect = lambda: time.sleep(0.3)
    _, found = in_turns({"a": both.a, "b": both.b}, 2)
    round_ = [call.a.prepare(), call.a.measure(), call.b.prepare(), call.b.measure()]
    assert both.mock_calls == [call.a.warm_up(), call.b.warm_up(), *round_, *round_]
    assert [len(found[name]) for name in ("a", "b")] == [2, 2]
    seconds, cpu_seconds = found["a"][0]
    assert seconds >= 0.3
    assert cpu_seconds < 0.15


def test_a_ratio_compares_within_rounds() -> None:
    # Rounds 4/2, 9/3 and 8/1: 2, 3 and 8. The ratio of the medians, 8/2, is another number.
    ratio = ratio_of([(4, 0), (9, 0), (8, 0)], [(2, 0), (3, 0), (1, 0)])
    assert ratio == {"middle": 3, "low": 2, "high": 8}
