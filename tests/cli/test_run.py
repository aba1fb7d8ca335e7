"""The command line as a person meets it: the whole way on synthetic faces, and every wrong turn."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from benchmark.cli import output
from benchmark.cli.main import app
from benchmark.cli.run_display import RunDisplay, epoch_line
from benchmark.record import all_records
from benchmark.tasks import TaskName, combined
from benchmark.training.trainer import EpochResult


def facebench(*arguments: str | Path) -> Result:
    """Run a command in this process, which has torch already."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def facebench_process(
    *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from benchmark.cli.main import main; main()", *map(str, arguments)],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip


Places = tuple[str | Path, ...]


@pytest.fixture
def places(drawn_data_dir: Path, tmp_path: Path) -> Places:
    """Synthetic faces, and a runs folder of its own without MLflow."""
    where = ("--dataset", "drawn", "--data-dir", drawn_data_dir, "--runs-dir", tmp_path)
    return (*where, "--tracking", "files")


TINY = ("--set", "backbone.input_px=32", "--set", "recipe.max_epochs=1", "--device", "cpu")


def test_one_command_runs_and_another_ranks(drawn_data_dir: Path, tmp_path: Path) -> None:
    places = ("--dataset", "drawn", "--data-dir", drawn_data_dir, "--runs-dir", tmp_path)
    run = ("run", "race-cnn-none-full-short", *places, "--offline")
    first = facebench(*run)
    assert first.exit_code == 0, first.stderr
    assert first.stderr.startswith("SYNTHETIC FACES, not people: data set drawn")
    assert "1 finished, 0 up to date, 0 not run, 0 failed." in first.stderr
    again = facebench(*run)
    assert "0 finished, 1 up to date, 0 not run, 0 failed." in again.stderr

    board = facebench("leaderboard", "--suite", "quick", *places)
    assert board.exit_code == 0, board.stderr
    assert "race-cnn-none-full-short" in re.sub(r"\s+", "", board.stdout)
    assert "majority" in board.stdout
    assert "SYNTHETIC" in board.stdout
    written = {path.suffix for path in (tmp_path / "leaderboards").iterdir()}
    assert written == {".csv", ".html", ".json", ".md", ".tex"}
    assert (tmp_path / "mlflow.db").is_file()


def test_folds_are_run_instead_of_the_fixed_split(tmp_path: Path, places: Places) -> None:
    result = facebench("run", "gender-cnn-none-full-short", "--folds", "0,3", *places, *TINY)
    assert result.exit_code == 0, result.stderr
    definitions = [record.about["experiment"] for record in all_records(tmp_path)]
    assert sorted(item["name"] for item in definitions) == [
        "gender-cnn-none-full-short-fold0", "gender-cnn-none-full-short-fold3",
    ]  # fmt: skip
    assert sorted(item["protocol"]["fold"] for item in definitions) == [0, 3]


def test_a_sweep_is_ad_hoc_runs_on_one_cache_that_the_leaderboard_tells_apart(
    drawn_data_dir: Path, tmp_path: Path
) -> None:
    places = ("--dataset", "drawn", "--data-dir", drawn_data_dir, "--runs-dir", tmp_path / "runs")
    swept = ("--sweep", "recipe.learning_rate=1e-4,1e-3", "--sweep", "head.hidden_units=8,128")
    name = "mtl-squeezenet1_1-imagenet-frozen-short"
    random = (*TINY, "--set", "backbone.weights=none")
    run = ("run", name, *random, *swept, *places, "--cache-dir", tmp_path / "cache")
    result = facebench(*run, "--tracking", "files", "--precision", "fp32")
    assert result.exit_code == 0, result.stderr
    assert "4 finished" in result.stderr
    assert "recipe.learning_rate=0.001, " in result.stderr

    records = {
        (about["experiment"]["recipe"]["learning_rate"],
         about["experiment"]["head"]["hidden_units"]): record
        for record in all_records(tmp_path / "runs")
        for about in [record.about]
    }  # fmt: skip
    assert set(records) == {(rate, units) for rate in (1e-4, 1e-3) for units in (8, 128)}
    assert all(record.about["ad_hoc"] for record in records.values())
    origins = [record.about["speed"]["cache"]["origin"] for record in records.values()]
    assert sorted(origins) == ["built", "found", "found", "found"]

    board = facebench("leaderboard", "--ad-hoc", *places)
    assert board.exit_code == 0, board.stderr
    (page,) = (tmp_path / "runs" / "leaderboards").glob("*.html")
    for (rate, units), record in records.items():
        said = f"run {record.identity[:12]} · "
        assert said.strip(" ·") in board.stdout
        (changes,) = re.findall(f"<small>{said}([^<]*)</small>", page.read_text())
        assert f"recipe.learning_rate={rate}" in changes.split(" · ")
        assert ("head.hidden_units=8" in changes.split(" · ")) is (units == 8)  # 128 is as defined


def test_a_sweep_over_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    for sweep, said in (
        ("recipe.learning_rate=1e-4,fast", "'recipe.learning_rate' is 'fast'"),
        ("recipe.rate=1,2", "unknown setting 'recipe.rate'"),
        ("head.hidden_units=0,8", "hidden_units"),
    ):
        where = ("--sweep", sweep, "--runs-dir", tmp_path)
        refused = facebench("run", "mtl-vgg16-imagenet-frozen", *where)
        assert refused.exit_code == 2, sweep
        assert said in refused.stderr, sweep
        assert not list(tmp_path.iterdir()), sweep


@pytest.mark.slow
def test_without_mlflow_nothing_of_it_is_touched(drawn_data_dir: Path, tmp_path: Path) -> None:
    """A folder on the path that hides mlflow and optuna stands for a machine without them."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for package in ("mlflow", "optuna"):
        (hidden / f"{package}.py").write_text("raise ImportError('not on this machine')")
    runs_dir = tmp_path / "runs"
    places = ("--dataset", "drawn", "--data-dir", drawn_data_dir, "--runs-dir", runs_dir)
    run = ("run", "gender-cnn-none-full-short", *TINY, *places)
    with_files = facebench_process(*run, "--tracking", "files", PYTHONPATH=str(hidden))
    assert with_files.returncode == 0, with_files.stderr
    assert not (runs_dir / "mlflow.db").exists()
    tracked = facebench_process("runs", "import", "--runs-dir", runs_dir, PYTHONPATH=str(hidden))
    assert tracked.returncode == 2
    assert "mlflow cannot be imported" in tracked.stderr
    imported = facebench("runs", "import", "--runs-dir", runs_dir, "--json")
    assert imported.exit_code == 0, imported.stderr
    assert len(json.loads(imported.stdout)["data"]["runs"]) == 1


WRONG = {
    "run mtl-cnn-none-ful-short": "Did you mean mtl-cnn-none-full-short",
    "run --suite fast": "unknown suite 'fast'",
    "run": "nothing to run was named",
    "run --suite quick --set recipe.epochs=3": "unknown setting 'recipe.epochs'",
    "run --suite quick --set recipe.max_epochs=many": "is 'many'",
    "run --suite quick --device tpu": "device 'tpu' is not on this machine",
    "run --suite quick --seeds a": "--seeds is 'a'",
    "run --suite quick --tracking wandb": "--tracking is 'wandb'",
    "run --suite quick --dataset nobody": "no data set 'nobody' is prepared",
    "show nobody": "unknown experiment 'nobody'",
    "list --suite fast": "unknown suite 'fast'",
}


def test_a_wrong_word_is_one_sentence_and_exit_code_two(
    drawn_data_dir: Path, tmp_path: Path
) -> None:
    for command, said in WRONG.items():
        where = ("--data-dir", drawn_data_dir, "--runs-dir", tmp_path)
        answer = facebench(*command.split(), *(where if command.startswith("run") else ()))
        assert answer.exit_code == 2, command
        assert said in answer.stderr, command
        assert "Traceback" not in answer.stderr, command
        assert list(all_records(tmp_path)) == [], command


def test_without_a_data_set_a_command_names_both_ways_to_one(tmp_path: Path) -> None:
    commands = ("run --suite quick", "data audit", "data explore", "tune --suite quick", "speed")
    for command in commands:
        answer = facebench(*command.split(), "--data-dir", tmp_path)
        assert answer.exit_code == 2, command
        for way in ("facebench data prepare SOURCE", "--dataset drawn"):
            assert way in answer.stderr, command
    assert list(tmp_path.iterdir()) == []


def test_json_is_alone_on_stdout_whatever_happens(places: Places) -> None:
    good = facebench("run", "gender-cnn-none-full-short", *TINY, *places, "--json")
    told = json.loads(good.stdout)
    assert told["ok"]
    assert told["data"]["runs"]["finished"] == 1
    bad = json.loads(facebench("run", "nobody", *places, "--json").stdout)
    assert not bad["ok"]
    assert bad["errors"][0]["found"] == "unknown experiment 'nobody'"


def test_synthetic_faces_are_made_in_a_new_folder_and_nothing_else_is(tmp_path: Path) -> None:
    new = ("--data-dir", tmp_path / "new")
    for command in ("run", "tune"):
        named = facebench(command, "nobody", "--dataset", "drawn", *new)
        assert "unknown experiment 'nobody'" in named.stderr, command
        mistyped = facebench(command, "nobody", "--dataset", "faces", *new)
        assert "does not exist" in mistyped.stderr, command


def test_a_task_of_one_class_is_warned_of(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    faces = [f"{number:03d}.png" for number in range(60)]
    for name in faces:
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    lines = [f"{name},male,{('White', 'Black')[i % 2]}" for i, name in enumerate(faces)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,gender,race", *lines]))
    data = ("--data-dir", tmp_path / "data")
    prepared = facebench(
        "data", "prepare", tmp_path, "--labels", table, "--name", "men", "--image-px", "32", *data
    )
    assert prepared.exit_code in (0, 1), prepared.stderr
    asked = ("run", "gender-cnn-none-full-short", "--runs-dir", tmp_path / "runs", "--dry-run")
    answer = json.loads(facebench(*asked, *data, "--json").stdout)
    (warning,) = [text for text in answer["warnings"] if "is male" in text]
    assert "every face with a label of gender is male" in warning


def test_quietly_a_run_that_fails_says_why(places: Places) -> None:
    broken = ("--set", "recipe.learning_rate=1e30", "--set", "recipe.clipping=none")
    answer = facebench("run", "gender-cnn-none-full-short", *TINY, *broken, *places, "--quiet")
    assert answer.exit_code == 3
    assert "a finite loss" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_runs_without_their_weights_are_one_line_and_the_rest_runs(places: Places) -> None:
    needing = [f"mtl-squeezenet1_1-imagenet-{kind}-short" for kind in ("frozen", "fire6_9")]
    answer = facebench("run", *needing, "gender-cnn-none-full-short", *TINY, *places, "--offline")
    assert answer.exit_code == 0, answer.stderr
    assert "1 finished, 0 up to date, 2 not run, 0 failed." in answer.stderr
    (line,) = [line for line in answer.stderr.splitlines() if "weights add" in line]
    assert "2 experiments not run: the 'imagenet' weights of squeezenet1_1 are not here" in line
    alone = facebench("run", needing[0], *places, "--offline")
    assert alone.exit_code == 3


def test_a_dry_run_lists_what_would_run_and_writes_nothing(tmp_path: Path, places: Places) -> None:
    names = ("gender-cnn-none-full-short", "mtl-squeezenet1_1-imagenet-frozen-short")
    asked = ("run", *names, *TINY, *places, "--seeds", "0,1", "--read-test", "--dry-run")

    def outcomes(*options: str) -> tuple[list[tuple[str, int, str]], dict[str, Any]]:
        answer = facebench(*asked, "--json", *options)
        assert answer.exit_code == 0, answer.stderr
        data = json.loads(answer.stdout)["data"]
        rows = [(row["experiment"], row["seed"], row["outcome"]) for row in data["runs"]]
        return rows, data

    rows, data = outcomes()
    assert rows == [(name, seed, "run") for name in names for seed in (0, 1)]
    assert [Path(name).suffix for name in data["fetch"]] == [".h5"]
    assert data["seconds"] > 0
    assert data["free_bytes"] > data["bytes"] > 2 * 4 * 10_000
    assert not list(tmp_path.iterdir())
    assert facebench("run", names[0], *TINY, *places, "--read-test").exit_code == 0
    rows, data = outcomes("--offline")
    assert [row[2] for row in rows] == ["up to date", "run", "not run", "not run"]
    (record,) = all_records(tmp_path)
    # The other seed of the same run group takes as long as this one did.
    assert data["seconds"] == pytest.approx(record.done["seconds"], abs=0.001)
    shown = facebench(*asked, "--offline")
    assert "would run" in shown.stdout
    assert "1 of 4 would run" in shown.stdout
    assert "mtl-squeezenet1_1-imagenet-frozen-short not run: " in shown.stderr
    registered = facebench("run", names[1], *places, "--dry-run")
    assert "1 of 1 would run" in registered.stdout, registered.stderr


def test_the_help_shows_at_most_twelve_options_before_the_advanced_ones() -> None:
    for command, option in (
        ("run", "--precision"), ("tune", "--sampler"), ("predict", "--faces"),
        ("leaderboard", "--acknowledge"),
    ):  # fmt: skip
        shown = facebench(command, "--help").stdout
        usual, advanced = re.split("Advanced options|Cropping", shown, maxsplit=1)
        # --help is one more.
        assert len(re.findall(r"^\W*--\w", usual, re.MULTILINE)) <= 13, command
        assert option in advanced


@pytest.mark.slow
def test_a_termination_signal_stops_cleanly_and_the_run_goes_on(
    drawn_data_dir: Path, tmp_path: Path
) -> None:
    places = ("--dataset", "drawn", "--data-dir", str(drawn_data_dir), "--runs-dir", str(tmp_path))
    command = [
        *(sys.executable, "-c", "from benchmark.cli.main import main; main()", "run"),
        *("mtl-cnn-none-full-short", "--set", "recipe.max_epochs=200"),
        *("--set", "backbone.input_px=32", "--tracking", "files", "--device", "cpu"),
    ]
    with subprocess.Popen([*command, *places], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if re.search(r"\b2/200\b", line):
                process.terminate()
                break
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "the same command resumes" in rest
    (record,) = all_records(tmp_path)
    assert record.state == "interrupted"
    assert (record.folder / "interrupted.json").is_file()
    assert (record.folder / "checkpoint.pt").is_file()


def test_a_download_is_named_once_and_quiet_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for quiet, expected in ((False, "downloading vgg16_notop.h5\n"), (True, "")):
        monkeypatch.setattr(output.Options, "quiet", quiet)
        with RunDisplay(1) as display:
            display.show_download("vgg16_notop.h5")
        assert capsys.readouterr().err == expected


def test_an_epochs_line_gives_the_score_that_selects_and_fits_a_terminal() -> None:
    rates: dict[TaskName, float] = {"age_group": 0.6081, "gender": 0.8402, "race": 0.6402}
    result = EpochResult(
        epoch=11, learning_rate=1e-4, train_loss=0.924, train_accuracy=rates, val_accuracy=rates,
        val_combined=combined(rates), is_best=True, epoch_seconds=80, images_per_second=258,
        fitted_accuracy={},
    )  # fmt: skip
    line = epoch_line(result, 30)
    assert f"val {100 * combined(rates):.1f} % (age group 60.8, gender 84.0, race 64.0)" in line
    assert len(line.replace("[green]", "").replace("[/]", "")) <= 80


def test_a_stage_is_followed_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PLAIN_LINE_SECONDS", 0.02)
    with RunDisplay(1) as display:
        display.show_stage("frozen part, faces", 64, 192)
        time.sleep(0.2)
        display.show_stage("intervals and pictures", 0, 0)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert "frozen part, faces: 64 of 192 (33 %)" in lines
    assert any(line.startswith("intervals and pictures …") for line in lines)
