"""What the commands' tests share: how a command is called, and what it is called on."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from benchmark.record import RunRecord
from tests.made_runs import RunBuilder, exact_predictions

MTL = "mtl-cnn-none-full-short"
GENDER = "gender-cnn-none-full-short"
RACE = "race-cnn-none-full-short"
TINY = ("--set", "backbone.input_px=32", "--set", "recipe.max_epochs=1", "--device", "cpu")


def facebench(*arguments: object) -> Result:
    """Run a command in this process, which has torch already."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def outcome(*arguments: object) -> tuple[int, str, str]:
    """Run a command; give its exit code, standard output and standard error."""
    result = facebench(*arguments)
    return result.exit_code, result.stdout, result.stderr


def answered_json(*arguments: object) -> Any:
    """Run a command with --json; give its data."""
    code, stdout, stderr = outcome(*arguments, "--json")
    assert code == 0, stdout + stderr
    answer = json.loads(stdout)
    assert (answer["ok"], answer["errors"]) == (True, [])
    return answer["data"]


def check_kept(path: Path, *command: object) -> None:
    """Check that a command writes over a file with --overwrite alone."""
    for options, code in (((), 2), (("--overwrite",), 0)):
        path.write_text("mine")
        result = facebench(*command, *options)
        assert (result.exit_code, "exists already" in result.stderr) == (code, code == 2)
        assert (path.read_bytes() == b"mine") == (code == 2)


def fits(text: str, width: int = 80) -> bool:
    return max(map(len, text.splitlines())) <= width


def flat(text: str) -> str:
    """Undo the terminal's line breaks."""
    return " ".join(text.split())


def use(runs: RunBuilder, monkeypatch: pytest.MonkeyPatch) -> RunBuilder:
    """Let commands find a builder's folders by themselves."""
    monkeypatch.setenv("FACEBENCH_RUNS_DIR", str(runs.runs_dir))
    monkeypatch.setenv("FACEBENCH_DATA_DIR", str(runs.runs_dir.parent / "data"))
    return runs


def one_run(runs: RunBuilder, name: str = MTL, n_right: int = 80, **about: Any) -> RunRecord:
    """Write a finished run: of 100 test faces `n_right` are predicted rightly, for each task."""
    experiment = registry.experiment(name)
    predictions = exact_predictions(70, n_right, tasks=experiment.head.tasks)
    return runs.done(experiment, predictions, **about)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunBuilder:
    return use(RunBuilder(tmp_path / "mlruns"), monkeypatch)


@pytest.fixture
def on_drawn(drawn_data_dir: Path, tmp_path: Path) -> tuple[str | Path, ...]:
    """The options for synthetic faces, and a runs folder of its own without MLflow."""
    where = ("--dataset", "drawn", "--data-dir", drawn_data_dir, "--runs-dir", tmp_path)
    return (*where, "--tracking", "files")
