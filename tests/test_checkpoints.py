"""A checkpoint is taken up as it was written, or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmark.models.network import build_network
from benchmark.models.weight_readers import header_of
from benchmark.runs.checkpoints import load_checkpoint, save_checkpoint, save_weights
from tests.results.conftest import an_experiment

STATE = {"network": {"weight": torch.arange(4096.0)}, "epochs_done": 3, "history": [{"epoch": 1}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "checkpoint.pt", STATE)
    return tmp_path / "checkpoint.pt"


def test_a_checkpoint_comes_back(path: Path) -> None:
    found = load_checkpoint(path)
    assert found is not None
    assert torch.equal(found["network"]["weight"], STATE["network"]["weight"])  # type: ignore[index]
    assert found["history"] == [{"epoch": 1}]


def test_one_changed_bit_of_a_weight_is_noticed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert load_checkpoint(path) is None


@pytest.mark.parametrize("keep", [0, 10, 29, 500, -1])
def test_a_checkpoint_that_was_cut_short_is_none(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    assert load_checkpoint(path) is None


def test_a_checkpoint_of_an_older_facebench_is_taken_up(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pt")
    found = load_checkpoint(tmp_path / "old.pt")
    assert found is not None
    assert found["epochs_done"] == 3


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "checkpoint.pt") is None


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    """In each process the library orders its notes otherwise, and in each call too."""
    experiment = an_experiment()
    network = build_network(experiment, None, 0)
    paths = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for path in paths:
        save_weights(path, network, experiment, faces_px=32)
    assert len({path.read_bytes() for path in paths}) == 1
    stored = load_file(paths[0])
    assert all(torch.equal(stored[name], value) for name, value in network.state_dict().items())
    assert header_of(paths[0])["faces_px"] == "32"
