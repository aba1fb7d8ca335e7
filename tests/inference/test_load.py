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
from benchmark.inference.load import load_trained, trained_run
from benchmark.models.weight_formats import header_of
from benchmark.record import RunRecord, all_records
from tests.models.steps import Evil


@pytest.fixture
def runs_dir(trained_runs_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_runs_dir, tmp_path / "mlruns"))


@pytest.fixture
def record(runs_dir: Path) -> RunRecord:
    return next(all_records(runs_dir))


def test_a_run_is_named_by_its_first_digits_its_experiment_or_its_file(
    runs_dir: Path, record: RunRecord, tmp_path: Path
) -> None:
    model = record.folder / "model.safetensors"
    for name in (record.identity, record.identity[:8], "mtl-cnn-none-full-tiny", model):
        network = trained_run(name, runs_dir)
        assert (network.path, network.faces_px) == (model, 32)
        assert network.record is not None
        assert network.tasks == ("age_group", "gender", "race")
    moved = trained_run(Path(shutil.copy(model, tmp_path / "mine.safetensors")), runs_dir)
    assert (moved.record, moved.faces_px, moved.temperatures) == (None, 32, {})


def test_temperatures_at_an_end_are_none(runs_dir: Path, record: RunRecord) -> None:
    path = record.folder / "calibration.json"
    said = json.loads(path.read_text())
    said["tasks"]["gender"] |= {"temperature": 1.5, "temperature_is_at_an_end": False}
    said["tasks"]["race"] |= {"temperature": 20.0, "temperature_is_at_an_end": True}
    path.write_text(json.dumps(said))
    temperatures = trained_run(record.identity, runs_dir).temperatures
    assert temperatures["gender"] == 1.5
    assert "race" not in temperatures


def test_a_run_that_cannot_be_used_is_said_to_be_so(runs_dir: Path, record: RunRecord) -> None:
    for name in ("ffffffff", "mtl-vgg16-imagenet-full", "../..", "abc", "*"):
        with pytest.raises(RunError, match="there is no run"):
            trained_run(name, runs_dir)
    shutil.copytree(record.folder, record.folder.with_name("0" * 64))
    with pytest.raises(RunError, match="means 2 finished runs") as caught:
        trained_run("mtl-cnn-none-full-tiny", runs_dir)
    assert record.identity[:12] in caught.value.allowed
    (record.folder / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"kept no weights.*--keep-weights"):
        trained_run(record.identity, runs_dir)
    (record.folder / "done.json").unlink()
    with pytest.raises(RunError, match="is not done but interrupted"):
        trained_run(record.identity, runs_dir)


def test_a_pickle_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil(trap)))
    torch.save({"weight": Evil(trap)}, tmp_path / "zip.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "tensors.pt")
    for name in ("plain.pt", "zip.pt", "tensors.pt"):
        with pytest.raises(WeightsError, match="does not say which network it is"):
            load_trained(tmp_path / name)
    assert not trap.exists()


def rewritten(record: RunRecord, path: Path, **changes: str) -> Path:
    source = record.folder / "model.safetensors"
    save_file(load_file(source), path, {**header_of(source), **changes})
    return path


def test_files_that_are_no_checkpoints_are_refused(record: RunRecord, tmp_path: Path) -> None:
    whole = (record.folder / "model.safetensors").read_bytes()
    bad = {"empty": b"", "page": b"<html>none</html>", "cut": whole[:-100], "start": whole[:40]}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    save_file({"weight": torch.from_numpy(np.zeros(3, np.float32))}, tmp_path / "bare")
    for name in (*bad, "bare", "none", "."):
        with pytest.raises(WeightsError):
            load_trained(tmp_path / name)
    definition = json.loads(header_of(record.folder / "model.safetensors")["experiment"])
    definition["backbone"]["architecture"] = "vgg16"
    definition["name"] = "mtl-vgg16-none-full-tiny"
    other = rewritten(record, tmp_path / "other", experiment=json.dumps(definition))
    with pytest.raises(WeightsError, match="do not fit 'mtl-vgg16-none-full-tiny'"):
        load_trained(other)
    odd: list[dict[str, str]] = [
        {"experiment": "{}"}, {"experiment": "not json"}, {"network": "null"}, {"network": "{}"},
        {"network": '{"schema": 1}'},
        {"network": '{"schema": 1, "preprocessing": {}, "options": {}}'},
        {"network": '{"schema": 99, "preprocessing": {}, "options": {}}'},
    ]  # fmt: skip
    for changes in odd:
        with pytest.raises(WeightsError):
            load_trained(rewritten(record, tmp_path / "odd", **changes))


def test_a_header_whose_length_looks_like_a_pickle_is_a_header(
    record: RunRecord, runs_dir: Path, tmp_path: Path
) -> None:
    # A safetensors file begins with its header's length, a pickle with the byte 0x80.
    paths = (rewritten(record, tmp_path / str(n), pad="x" * n) for n in range(0, 257, 8))
    path = next(path for path in paths if path.read_bytes()[0] == 0x80)
    assert trained_run(path, runs_dir).faces_px == 32
