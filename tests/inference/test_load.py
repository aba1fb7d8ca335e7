"""Which trained network is meant; what is none, is another's or holds code is refused."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmark.errors import RunError, WeightsError
from benchmark.inference.load import network_of_file, network_of_run
from benchmark.models.weight_readers import header_of
from benchmark.record import RunRecord, all_records


@pytest.fixture
def runs_dir(trained_runs_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_runs_dir, tmp_path / "mlruns"))


@pytest.fixture
def record(runs_dir: Path) -> RunRecord:
    return next(all_records(runs_dir))


def test_a_run_is_named_by_its_first_digits_or_by_its_experiment(
    runs_dir: Path, record: RunRecord
) -> None:
    for name in (record.identity, record.identity[:8], "mtl-cnn-none-full-tiny"):
        network = network_of_run(name, runs_dir)
        assert (network.path.parent, network.faces_px) == (record.folder, 32)
        assert network.tasks == ("age_group", "gender", "race")


def test_temperatures_at_an_end_are_none(runs_dir: Path, record: RunRecord) -> None:
    path = record.folder / "calibration.json"
    said = json.loads(path.read_text())
    said["tasks"]["gender"] |= {"temperature": 1.5, "temperature_is_at_an_end": False}
    said["tasks"]["race"] |= {"temperature": 20.0, "temperature_is_at_an_end": True}
    path.write_text(json.dumps(said))
    temperatures = network_of_run(record.identity, runs_dir).temperatures
    assert temperatures["gender"] == 1.5
    assert "race" not in temperatures


def test_a_run_that_cannot_be_used_is_said_to_be_so(runs_dir: Path, record: RunRecord) -> None:
    for name in ("ffffffff", "mtl-vgg16-imagenet-full", "../..", "abc", "*"):
        with pytest.raises(RunError, match="there is no run"):
            network_of_run(name, runs_dir)
    shutil.copytree(record.folder, record.folder.with_name("0" * 64))
    with pytest.raises(RunError, match="fits 2 finished runs") as caught:
        network_of_run("mtl-cnn-none-full-tiny", runs_dir)
    assert record.identity[:12] in caught.value.allowed
    (record.folder / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"kept no weights.*--keep-weights"):
        network_of_run(record.identity, runs_dir)
    (record.folder / "done.json").unlink()
    with pytest.raises(RunError, match="is not finished but interrupted"):
        network_of_run(record.identity, runs_dir)


def test_a_checkpoint_says_how_large_its_faces_were_wherever_it_lies(
    record: RunRecord, tmp_path: Path
) -> None:
    moved = Path(shutil.copy(record.folder / "model.safetensors", tmp_path / "mine.safetensors"))
    assert network_of_file(moved).faces_px == 32
    assert network_of_file(record.folder / "model.safetensors").record is not None
    with pytest.raises(RunError, match="trained on faces of 32 pixels, not 64"):
        network_of_file(moved, faces_px=64)


def test_an_older_file_is_no_reason_to_guess(
    record: RunRecord, runs_dir: Path, drawn_data_dir: Path
) -> None:
    path = record.folder / "model.safetensors"
    header = {name: text for name, text in header_of(path).items() if name != "faces_px"}
    save_file(load_file(path), path, header)
    with pytest.raises(RunError, match="does not say how large the faces were") as caught:
        network_of_run(record.identity, runs_dir)
    assert "--image-px" in caught.value.fix
    assert network_of_run(record.identity, runs_dir, faces_px=48).faces_px == 48
    # The data set that it was trained on knows.
    assert network_of_run(record.identity, runs_dir, data_dir=drawn_data_dir).faces_px == 32


class Bomb:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def test_a_pickle_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(trap)))
    torch.save({"weight": Bomb(trap)}, tmp_path / "zip.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "tensors.pt")
    for name in ("plain.pt", "zip.pt", "tensors.pt"):
        with pytest.raises(WeightsError, match="may hold code and is not opened"):
            network_of_file(tmp_path / name)
    assert not trap.exists()


def test_files_that_are_no_checkpoints_are_refused(record: RunRecord, tmp_path: Path) -> None:
    whole = (record.folder / "model.safetensors").read_bytes()
    bad = {"empty": b"", "page": b"<html>none</html>", "cut": whole[:-100], "start": whole[:40]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError):
            network_of_file(tmp_path / name)
    for path, said in ((tmp_path / "none", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(WeightsError, match=said):
            network_of_file(path)


def rewritten(record: RunRecord, path: Path, **changes: str) -> Path:
    source = record.folder / "model.safetensors"
    save_file(load_file(source), path, {**header_of(source), **changes})
    return path


def test_tensors_of_another_architecture_are_refused(record: RunRecord, tmp_path: Path) -> None:
    definition = json.loads(header_of(record.folder / "model.safetensors")["experiment"])
    definition["backbone"]["architecture"] = "vgg16"
    definition["name"] = "mtl-vgg16-none-full-tiny"
    path = rewritten(record, tmp_path / "other", experiment=json.dumps(definition))
    with pytest.raises(WeightsError, match="do not fit 'mtl-vgg16-none-full-tiny'"):
        network_of_file(path)


def test_headers_that_do_not_describe_a_network_are_refused(
    record: RunRecord, tmp_path: Path
) -> None:
    odd: list[dict[str, str]] = [
        {"experiment": "{}"},
        {"experiment": "not json"},
        {"network": "null"},
        {"network": "{}"},
        {"network": '{"schema": 1}'},
        {"network": '{"schema": 1, "preprocessing": {}, "options": {}}'},
        {"network": '{"schema": 99, "preprocessing": {}, "options": {}}'},
    ]
    for changes in odd:
        with pytest.raises(WeightsError):
            network_of_file(rewritten(record, tmp_path / "odd", **changes))


def test_a_header_whose_length_looks_like_a_pickle_is_a_header(
    record: RunRecord, tmp_path: Path
) -> None:
    # A safetensors file begins with its header's length, a pickle with the byte 0x80.
    paths = (rewritten(record, tmp_path / str(n), pad="x" * n) for n in range(0, 257, 8))
    path = next(path for path in paths if path.read_bytes()[0] == 0x80)
    assert network_of_file(path).faces_px == 32


def test_bare_tensors_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.from_numpy(np.zeros(3, np.float32))}, tmp_path / "bare")
    with pytest.raises(WeightsError, match="does not say which network it is"):
        network_of_file(tmp_path / "bare")
