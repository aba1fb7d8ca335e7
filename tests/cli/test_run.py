"""`facebench run` as a person meets it: the whole way on synthetic faces; `speed` beside it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.record import all_records
from tests.cli.conftest import GENDER, MTL, TINY, answered_json, facebench, fits, outcome
from tests.data.sources import folder_of, jpeg

PROGRAM = (sys.executable, "-c", "from benchmark.cli.main import main; main()")
FROZEN = "mtl-squeezenet1_1-imagenet-frozen-short"
Places = tuple[str | Path, ...]


def facebench_process(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env)


def test_one_command_runs_and_another_ranks(on_drawn: Places, tmp_path: Path) -> None:
    places = on_drawn[:-2]  # tracked in MLflow
    run = ("run", "race-cnn-none-full-demo", *places, "--offline", "--precision", "fp32")
    code, _, stderr = outcome(*run)
    assert (code, "1 finished, 0 up to date, 0 not run, 0 failed." in stderr) == (0, True), stderr
    assert stderr.startswith("SYNTHETIC FACES, not people: data set drawn")
    epoch = next(line for line in stderr.splitlines() if " loss " in line)
    assert re.fullmatch(r" +1/\d+ loss [\d.]+ val [\d.]+ % \(race [\d.]+\) \d+/s best", epoch)
    assert "0 finished, 1 up to date, 0 not run, 0 failed." in facebench(*run).stderr
    board = facebench("leaderboard", "--suite", "demo", *places)
    assert board.exit_code == 0, board.stderr
    for text in ("race-cnn-none-full-demo", "majority", "SYNTHETIC"):
        assert text in re.sub(r"\s+", "", board.stdout)
    written = {path.suffix for path in (tmp_path / "leaderboards").iterdir()}
    assert written == {".csv", ".html", ".json", ".md", ".tex"}
    assert (tmp_path / "mlflow.db").is_file()


def test_folds_are_run_instead_of_the_fixed_split(tmp_path: Path, on_drawn: Places) -> None:
    data = answered_json("run", GENDER, "--folds", "0,3", *on_drawn, *TINY)
    assert data["runs"] == {"finished": 2, "skipped": 0, "missing": 0, "failed": 0}
    definitions = [record.about["experiment"] for record in all_records(tmp_path)]
    folds = {item["name"]: item["protocol"]["fold"] for item in definitions}
    assert folds == {f"{GENDER}-fold0": 0, f"{GENDER}-fold3": 3}


def test_a_sweep_is_ad_hoc_runs_on_one_cache_that_the_leaderboard_tells_apart(
    on_drawn: Places, tmp_path: Path
) -> None:
    swept = ("--sweep", "recipe.learning_rate=1e-4,1e-3", "--sweep", "head.hidden_units=8,128")
    random = ("--set", "backbone.weights=none", "--precision", "fp32")
    cache = ("--cache-dir", tmp_path / "cache")
    code, _, stderr = outcome("run", FROZEN, *TINY, *random, *swept, *cache, *on_drawn)
    assert (code, "4 finished" in stderr) == (0, True), stderr
    assert "recipe.learning_rate=0.001, " in stderr
    found = [record.about for record in all_records(tmp_path)]
    assert all(about["ad_hoc"] for about in found)
    origins = [about["speed"]["cache"]["origin"] for about in found]
    assert sorted(origins) == ["built", "found", "found", "found"]

    board, seen = facebench("leaderboard", "--ad-hoc", *on_drawn[:-2]), set()
    page = next(tmp_path.glob("leaderboards/*.html")).read_text()
    for about in found:
        rate = about["experiment"]["recipe"]["learning_rate"]
        units = about["experiment"]["head"]["hidden_units"]
        seen.add((rate, units))
        run = f"run {about['identity'][:12]}"
        assert run in board.stdout
        (changes,) = re.findall(f"<small>{run} · ([^<]*)</small>", page)
        assert f"recipe.learning_rate={rate}" in changes.split(" · ")
        # 128 units are as defined.
        assert ("head.hidden_units=8" in changes.split(" · ")) is (units == 8)
    assert seen == {(rate, units) for rate in (1e-4, 1e-3) for units in (8, 128)}


@pytest.mark.slow
def test_without_mlflow_nothing_of_it_is_touched(on_drawn: Places, tmp_path: Path) -> None:
    """A folder on the path that hides mlflow and optuna stands for a machine without them."""
    hidden, runs_dir = tmp_path / "hidden", tmp_path / "runs"
    hidden.mkdir()
    for package in ("mlflow", "optuna"):
        (hidden / f"{package}.py").write_text("raise ImportError('not on this machine')")
    run = ("run", GENDER, *TINY, *on_drawn, "--runs-dir", runs_dir)
    with_files = facebench_process(*run, PYTHONPATH=str(hidden))
    assert with_files.returncode == 0, with_files.stderr
    assert not (runs_dir / "mlflow.db").exists()
    tracked = facebench_process("runs", "import", "--runs-dir", runs_dir, PYTHONPATH=str(hidden))
    assert tracked.returncode == 2
    assert "mlflow cannot be imported" in tracked.stderr
    assert len(answered_json("runs", "import", "--runs-dir", runs_dir)["runs"]) == 1


def test_a_task_of_one_class_is_warned_of(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "men", {f"{n}.jpg": jpeg(n) for n in range(60)})
    rows = [f"{n}.jpg,male,{('White', 'Black')[n % 2]}" for n in range(60)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,gender,race", *rows]))
    data = ("--data-dir", tmp_path / "data")
    labels = ("--labels", tmp_path / "labels.csv", "--image-px", 32)
    facebench("data", "prepare", folder, *labels, *data)
    asked = facebench("run", GENDER, "--runs-dir", tmp_path / "runs", "--dry-run", *data)
    assert "every face with a label of gender is male" in asked.stderr


def test_quietly_a_run_that_fails_says_why(on_drawn: Places) -> None:
    broken = ("--set", "recipe.learning_rate=1e30", "--set", "recipe.clipping=none")
    code, _, stderr = outcome("run", GENDER, *TINY, *broken, *on_drawn, "--quiet")
    assert (code, "a finite loss" in stderr, len(stderr.splitlines())) == (3, True, 1)
    bad = json.loads(outcome("run", "nobody", *on_drawn, "--json")[1])
    assert (bad["ok"], bad["errors"][0]["found"]) == (False, "unknown experiment 'nobody'")


def test_runs_without_their_weights_are_one_line_and_the_rest_runs(on_drawn: Places) -> None:
    needing = (FROZEN, "mtl-squeezenet1_1-imagenet-fire6_9-short")
    code, _, stderr = outcome("run", *needing, GENDER, *TINY, *on_drawn, "--offline")
    assert (code, "1 finished, 0 up to date, 2 not run, 0 failed." in stderr) == (0, True), stderr
    (line,) = [line for line in stderr.splitlines() if "weights add" in line]
    assert "2 experiments not run: the 'imagenet' weights of squeezenet1_1 are not here" in line
    assert facebench("run", FROZEN, *on_drawn, "--offline").exit_code == 3


def test_a_dry_run_lists_what_would_run_and_writes_nothing(
    tmp_path: Path, on_drawn: Places
) -> None:
    names = (GENDER, FROZEN)
    asked = ("run", *names, *TINY, *on_drawn, "--seeds", "0,1", "--evaluate-test", "--dry-run")
    data = answered_json(*asked)
    rows = [(row["experiment"], row["seed"], row["outcome"]) for row in data["runs"]]
    assert rows == [(name, seed, "run") for name in names for seed in (0, 1)]
    assert [Path(name).suffix for name in data["fetch"]] == [".h5"]
    assert data["seconds"] > 0
    assert data["free_bytes"] > data["bytes"] > 2 * 4 * 10_000
    assert not list(tmp_path.iterdir())
    assert facebench("run", GENDER, *TINY, *on_drawn, "--read-test").exit_code == 0
    data = answered_json(*asked, "--offline")
    outcomes = [row["outcome"] for row in data["runs"]]
    assert outcomes == ["up to date", "run", "not run", "not run"]
    (record,) = all_records(tmp_path)
    # The other seed of the same run group takes as long as this one did.
    assert data["seconds"] == pytest.approx(record.done["seconds"], abs=0.001)
    _, stdout, stderr = outcome(*asked, "--offline")
    assert ("1 of 4 would run" in stdout, f"{FROZEN} not run: " in stderr) == (True, True)


@pytest.mark.parametrize("command", ["run", "tune", "predict", "leaderboard"])
def test_the_help_shows_at_most_twelve_options_before_the_advanced_ones(command: str) -> None:
    usual = re.split("Advanced options|Cropping", facebench(command, "--help").stdout)[0]
    # --help is one more.
    assert 5 <= len(re.findall(r"^\W*--\w", usual, re.MULTILINE)) <= 13


@pytest.mark.slow
def test_a_termination_signal_stops_cleanly_and_the_run_goes_on(
    on_drawn: Places, tmp_path: Path
) -> None:
    options = [*TINY[:3], "recipe.max_epochs=200", *TINY[4:], *map(str, on_drawn)]
    command = [*PROGRAM, "run", MTL, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(" 2/200 " in line for line in process.stderr)
        process.terminate()
        rest = process.stderr.read()
    assert (process.returncode, "the same command resumes" in rest) == (130, True), rest
    (record,) = all_records(tmp_path)
    files = {path.name for path in record.folder.iterdir()}
    assert (record.state, {"interrupted.json", "checkpoint.pt"} <= files) == ("interrupted", True)


def test_speed_prints_a_table_that_fits_a_terminal_and_writes_every_number(
    on_drawn: Places, tmp_path: Path
) -> None:
    tiny = ("--images", "32", "--rounds", "1", "--workers", "0", "--device", "cpu")
    shown = facebench("speed", "--rows", "data,cnn", *tiny, "--against", "timm", *on_drawn[:-2])
    assert (shown.exit_code, fits(shown.stdout)) == (0, True), shown.stderr
    for text in ("SYNTHETIC FACES", "small CNN", "timm"):
        assert text in shown.stdout
    found = json.loads((tmp_path / "speed" / "speed.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["data", "cnn"]
    cnn = found["rows"][1]
    assert set(cnn["ways"]) == {"plain", "ours", "timm"}
    (plain,), (ours,) = (cnn["ways"][name]["rounds"] for name in ("plain", "ours"))
    assert cnn["ratio"]["middle"] == plain["seconds"] / ours["seconds"]
