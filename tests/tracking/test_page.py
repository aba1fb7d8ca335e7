"""What a stranger meets: this machine alone, training runs at once, and the columns that matter."""

import json
from pathlib import Path

import pytest

from benchmark.tracking import MlflowMirror, landing_path, open_store, server_command
from tests.tracking.conftest import the_record

pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other


def test_the_ui_is_served_on_this_machine_alone(runs_dir: Path) -> None:
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    command = server_command(runs_dir, 5055)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    landing = landing_path(runs_dir)
    assert "/runs?workflowType=machine_learning&viewStateShareKey=facebench" in landing


def test_the_columns_that_matter_are_shown(runs_dir: Path) -> None:
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    experiment = open_store(runs_dir).get_experiment_by_name("drawn-v1")
    view = json.loads(experiment.tags["mlflow.sharedViewState.facebench"])
    assert "metrics.`test/race/accuracy`" in view["selectedColumns"]
    assert view["orderByKey"] == "metrics.`selected/val/combined`"
    assert "**Drawn faces**: emblems, not people" in experiment.tags["mlflow.note.content"]


def test_a_view_of_an_older_facebench_is_brought_up_to_date(runs_dir: Path) -> None:
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    client = open_store(runs_dir)
    experiment = client.get_experiment_by_name("drawn-v1")
    tag, note = "mlflow.sharedViewState.facebench", "mlflow.note.content"
    client.set_experiment_tag(experiment.experiment_id, tag, "{}")
    client.set_experiment_tag(experiment.experiment_id, note, "My own words")
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    after = client.get_experiment_by_name("drawn-v1").tags
    assert "selectedColumns" in after[tag]
    assert after[note] == "My own words"
