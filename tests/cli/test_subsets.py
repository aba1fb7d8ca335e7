"""`facebench subsets`: the table, the sentences and the files, from stored predictions alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark import registry
from benchmark.cli.main import app
from tests.comparison.test_subset_study import with_validation
from tests.results.conftest import RunBuilder, answered, made_up_faces

BASE = "age_group-cnn-none-full-steps"


@pytest.fixture
def women(tmp_path: Path) -> Path:
    """Finish the three run groups of women with two seeds: the specialist is right on 60 more."""
    runs = RunBuilder(tmp_path / "mlruns")
    faces = made_up_faces(400, seed=2)
    faces = faces[faces["gender"] == 1].head(150).reset_index(drop=True)
    for ending, n_right in (("women", 120), ("women-everyone", 60), ("women-matched", 118)):
        for seed in (0, 1):
            table = with_validation(answered(faces, np.arange(150) < n_right, ("age_group",)))
            runs.done(registry.experiment(f"{BASE}-{ending}"), table, seed=seed)
    return tmp_path / "mlruns"


def called(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["subsets", *arguments])


def test_tables_fit_eighty_columns_and_are_written_with_a_figure(women: Path) -> None:
    answer = called("--runs-dir", str(women))
    assert answer.exit_code == 0, answer.output
    assert max(len(line) for line in answer.stdout.splitlines()) <= 80
    said = " ".join(answer.stdout.split())
    assert "the specialist is better for women" in said
    assert "shows no significant difference for 1 of 1 subsets" in said
    assert "+40.0" in said
    text = (women / "leaderboards" / "subsets-utkface-100.md").read_text()
    assert "| women, n 150 | 80.0 ±0.0" in text
    assert (women / "leaderboards" / "subsets-utkface-100.png").stat().st_size > 10_000


def test_a_machine_gets_numbers(women: Path) -> None:
    data = json.loads(called("--runs-dir", str(women), "--json").stdout)["data"]
    (result,) = data["subsets"]
    against = {item["against"]: item for item in data["compared"]}["everyone"]
    assert against["difference"]["accuracy"] == pytest.approx(0.4)
    assert against["verdict"] == "better"
    assert result["groups"]["size_matched"]["seeds"] == [0, 1]


def test_a_data_set_is_itself_beside_a_sample_named_after_it(women: Path) -> None:
    about = next(women.glob("work/*/experiment.json"))
    other = json.loads(about.read_text())
    other["dataset"]["name"] = "utkface-100-4000"
    about.write_text(json.dumps(other))
    answer = called("--runs-dir", str(women), "--dataset", "utkface-100", "--json")
    assert json.loads(answer.stdout)["data"]["dataset"] == "utkface-100"
