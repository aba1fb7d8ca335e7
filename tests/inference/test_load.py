"""Which trained network is meant; what is none, is another's or holds code is refused."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmark.errors import RunError, WeightsError
from benchmark.inference.load import load_trained, trained_run
from benchmark.models.weight_formats import header_of
from benchmark.record import RunRecord, all_records
from tests.models.keras import Evil


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
    said["tasks"]["race"] |= {"temperature": 20.0, "temperature_is_at_an_end": True}
    path.write_text(json.dumps(said))
    temperatures = trained_run(record.identity, runs_dir).temperatures
    assert temperatures == {"age_group": 1.5, "gender": 1.5}


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


def rewritten(record: RunRecord, path: Path, **changes: str) -> Path:
    source = record.folder / "model.safetensors"
    save_file(load_file(source), path, {**header_of(source), **changes})
    return path


def test_files_that_are_no_checkpoints_are_refused_and_their_code_is_not_run(
    record: RunRecord, tmp_path: Path
) -> None:
    folder, trap = tmp_path / "files", tmp_path / "ran"
    folder.mkdir()
    whole = (record.folder / "model.safetensors").read_bytes()
    bad = {"empty": b"", "page": b"<html>none</html>", "cut": whole[:-100], "start": whole[:40]}
    for name, content in (bad | {"plain.pt": pickle.dumps(Evil(trap))}).items():
        (folder / name).write_bytes(content)
    torch.save({"weight": Evil(trap)}, folder / "zip.pt")
    torch.save({"weight": torch.zeros(2)}, folder / "tensors.pt")
    save_file({"weight": torch.zeros(3)}, folder / "bare")
    definition = header_of(record.folder / "model.safetensors")["experiment"]
    other = definition.replace("cnn", "vgg16")
    rewritten(record, folder / "other", experiment=other)
    odd: list[dict[str, str]] = [
        {"experiment": "{}"}, {"experiment": "not json"}, {"network": "null"}, {"network": "{}"},
        {"network": '{"schema": 1}'},
        {"network": '{"schema": 1, "preprocessing": {}, "options": {}}'},
        {"network": '{"schema": 99, "preprocessing": {}, "options": {}}'},
    ]  # fmt: skip
    for number, changes in enumerate(odd):
        rewritten(record, folder / f"odd{number}", **changes)
    said = {}
    for path in (*folder.iterdir(), folder / "none", folder):
        with pytest.raises(WeightsError) as caught:
            load_trained(path)
        said[path.name] = str(caught.value)
    for name in ("plain.pt", "zip.pt", "tensors.pt"):
        assert "does not say which network it is" in said[name]
    assert "do not fit 'mtl-vgg16-none-full-tiny'" in said["other"]
    assert not trap.exists()
