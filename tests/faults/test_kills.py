"""Killed with -9, run four times at once, damaged on disk: nothing is lost, and it is said."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.comparison.library import standing
from benchmark.data.dataset import choose_dataset, open_faces
from benchmark.errors import BenchmarkError
from benchmark.files import sha256_of
from benchmark.inference.evaluate import verify
from benchmark.record import RunRecord, all_records
from tests.cli.conftest import facebench
from tests.data.sources import faces, tar_of
from tests.faults.test_files import damaged

ENTRY = "import sys; sys.argv[0] = 'facebench'; from benchmark.cli.main import main; main()"
NAME = "mtl-cnn-none-full-short"
pytestmark = pytest.mark.timeout(1800)


def started(*arguments: str | Path) -> "subprocess.Popen[str]":
    # A child that is killed must not leave bytecode half written beside the sources.
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", ENTRY, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)


def ended(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert "Traceback" not in out + err
    return err


def timed(*arguments: str | Path) -> float:
    begun = time.monotonic()
    ended(started(*arguments))
    return time.monotonic() - begun


def killed(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Kill a process after a while, as the kernel does; tell whether it was still running."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    return False


def run(data_dir: Path, runs_dir: Path, epochs: int = 3) -> list[str | Path]:
    fixed = "--read-test --deterministic --device cpu --offline --tracking files --dataset drawn"
    sizes = ("--set", "backbone.input_px=32", "--set", f"recipe.max_epochs={epochs}")
    places = ("--data-dir", data_dir, "--cache-dir", runs_dir / "cache", "--runs-dir", runs_dir)
    return ["run", NAME, *fixed.split(), *sizes, *places]


def outcomes(runs_dir: Path) -> list[dict[str, Any]]:
    """Give what must be equal in two deterministic runs: weights, predictions, numbers."""
    return [
        {
            "weights": sha256_of(record.folder / "model.safetensors"),
            "predictions": sha256_of(record.predictions_path),
            "metrics": {k: v for k, v in record.metrics.items() if "cost/" not in k},
            "history": record.history().drop(columns=["epoch_seconds", "images_per_second"])
            .to_dict("list"),
        }
        for record in all_records(runs_dir)
    ]  # fmt: skip


def test_a_killed_run_ends_as_an_undisturbed_one(drawn_data_dir: Path, tmp_path: Path) -> None:
    here = tmp_path / "killed"
    process = started(*run(drawn_data_dir, here))
    while process.poll() is None and not list(here.glob("work/*/checkpoint.pt")):
        time.sleep(0.02)
    assert killed(process, 0)
    for runs_dir in (here, tmp_path / "whole"):
        assert facebench(*run(drawn_data_dir, runs_dir)).exit_code == 0
    assert outcomes(here) == outcomes(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(
    drawn_data_dir: Path, tmp_path: Path
) -> None:
    seconds, rng = timed(*run(drawn_data_dir, tmp_path / "whole")), random.Random(20)
    here = tmp_path / "killed"
    for share in (0.5, 0.8):
        killed(started(*run(drawn_data_dir, here)), rng.uniform(share, 1) * seconds)
        for path in here.glob("work/*/[!.]*.json"):
            json.loads(path.read_text(encoding="utf-8"))
    ended(started(*run(drawn_data_dir, here)))
    assert outcomes(here) == outcomes(tmp_path / "whole")


@pytest.mark.slow
def test_of_four_processes_on_one_run_one_does_it(drawn_data_dir: Path, tmp_path: Path) -> None:
    said = [ended(item) for item in [started(*run(drawn_data_dir, tmp_path)) for _ in range(4)]]
    assert sum(f"{NAME}, seed 0 (" in text for text in said) == 1
    (record,) = all_records(tmp_path)
    assert record.about["attempt"] == 1
    # A lock of the dead, and one that names a process that never was, is taken over.
    (record.folder / "claim").write_text('{"pid": 999999, "since": 0}', encoding="utf-8")
    assert "1 up to date" in ended(started(*run(drawn_data_dir, tmp_path)))


@pytest.mark.slow
def test_a_data_set_whose_preparation_is_killed_is_whole_or_not_there(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "faces.tar", faces(60))
    prepare = ["data", "prepare", source, "--data-dir", tmp_path, "--image-px", "32", "--name"]
    seconds, rng = timed(*prepare, "reference"), random.Random(20)
    for _ in range(3):
        if killed(started(*prepare, "faces-32"), rng.uniform(0.3, 1) * seconds):
            assert not (tmp_path / "faces-32").exists() or open_faces(tmp_path / "faces-32")
    ended(started(*prepare, "faces-32"))
    digests = {open_faces(tmp_path / name).pixel_digest for name in ("reference", "faces-32")}
    assert len(digests) == 1
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.slow
def test_every_damaged_file_of_a_finished_run_is_found(
    drawn_data_dir: Path, tmp_path: Path
) -> None:
    ended(started(*run(drawn_data_dir, tmp_path, epochs=2)))
    record, prepared = next(all_records(tmp_path)), choose_dataset(drawn_data_dir, "drawn")
    rng = random.Random(20)
    names = "experiment.json predictions.csv history.csv model.safetensors done.json metrics.json"
    for number, name in enumerate(4 * names.split()):
        path = record.folder / name
        content = path.read_bytes()
        changed = damaged(content, rng)
        path.write_bytes(changed)
        try:
            again = RunRecord(record.folder)
            standing(again)
            verdicts = {item.verdict for item in verify(again, [prepared])}
        except BenchmarkError:
            verdicts = {"differs"}
        # Digests are of the content: a changed blank of a JSON file is no damage.
        blank = re.sub(rb"\s", b"", changed) == re.sub(rb"\s", b"", content)
        assert "differs" in verdicts or (blank and path.suffix == ".json"), (path.name, number)
        path.write_bytes(content)
    assert {item.verdict for item in verify(RunRecord(record.folder), [prepared])} == {"holds"}
