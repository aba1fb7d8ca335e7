"""`facebench list --suite published`: the study's number, its replay and the leak-free twin."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from benchmark import registry
from benchmark.cli.main import app
from tests.results.conftest import RunBuilder, exact_predictions

HONEST = "mtl-vgg16-imagenet-full"
LEAKY = f"{HONEST}-published"


def done(runs: RunBuilder, name: str, n_right: int, **about: Any) -> None:
    """Write a finished run that read `n_right` of 100 test faces right."""
    experiment = registry.experiment(name)
    runs.done(experiment, exact_predictions(50, n_right, tasks=experiment.head.tasks), **about)


def call(runs: RunBuilder, *arguments: str) -> Result:
    folders = ["--runs-dir", str(runs.runs_dir), "--data-dir", str(runs.runs_dir.parent / "data")]
    return CliRunner().invoke(app, ["list", "--suite", "published", *arguments, *folders])


def numbers_under(text: str, name: str) -> list[list[str]]:
    """Give the three lines' last three words below an experiment's name."""
    lines = text.splitlines()
    (start,) = [at for at, line in enumerate(lines) if line.split()[1:2] == [name]]
    return [line.split()[-3:] for line in lines[start + 1 : start + 4]]


def test_each_row_has_the_studys_number_its_replay_and_its_twin(runs: RunBuilder) -> None:
    done(runs, LEAKY, 90, leaky=True)
    done(runs, HONEST, 70)
    assert numbers_under(call(runs).stdout, HONEST) == [
        ["92.45", "98.18", "94.95"],
        ["90.0", "90.0", "90.0"],
        ["70.0", "70.0", "70.0"],
    ]


def test_everything_that_leaks_says_so(runs: RunBuilder) -> None:
    done(runs, LEAKY, 90, leaky=True)
    text = call(runs).stdout
    assert text.startswith("LEAKY")
    assert all("LEAKY" in line for line in text.splitlines() if line.split()[-1:] == ["90.0"])


def test_json_keeps_leaking_numbers_apart(runs: RunBuilder) -> None:
    done(runs, LEAKY, 90, leaky=True)
    content = json.loads(call(runs, "--json").stdout)["data"]["experiments"]
    (row,) = [item for item in content if item["name"] == LEAKY]
    assert row["ours"] is None
    assert row["ours_leaky"]["race"]["mean"] == pytest.approx(0.9)
