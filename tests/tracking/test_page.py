"""What a stranger meets: this machine alone, training runs at once, and the columns that matter."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmark.tracking import (
    MlflowMirror,
    landing_path,
    open_store,
    server_command,
    server_environment,
)
from tests.tracking.conftest import the_record

pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own dependencies deprecate each other


def test_the_ui_is_served_on_this_machine_alone(runs_dir: Path) -> None:
    MlflowMirror(runs_dir, print).mirror(the_record(runs_dir))
    command = server_command(runs_dir, 5055)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    landing = landing_path(runs_dir)
    assert "/runs?workflowType=machine_learning&viewStateShareKey=facebench" in landing
    environment = server_environment(landing)
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == os.environ["MLFLOW_DISABLE_TELEMETRY"]
    assert environment["FACEBENCH_LANDING"] == landing


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


def answered(app: Any, path: str, cookie: str = "") -> tuple[dict[str, str], str]:
    """Ask an ASGI app for a page; give the headers and the body."""
    sent: list[dict[str, Any]] = []
    headers = [(b"cookie", cookie.encode())] if cookie else []
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return head, b"".join(message.get("body", b"") for message in sent[1:]).decode()


async def mlflow_itself(scope: Any, receive: Any, send: Any) -> None:
    """Stand in for MLflow's server, which needs a store to be imported with."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"MLflow"})


def test_a_stranger_is_led_to_the_training_runs_once() -> None:
    from benchmark.tracking.start_page import StartPage

    landing = "/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=facebench"
    app = StartPage(mlflow_itself, landing)
    head, page = answered(app, "/")
    assert json.dumps(landing) in page
    assert "mlflow.workflowType_v1" in page
    assert head["set-cookie"].startswith("facebench_view=1;")
    assert answered(app, "/", cookie="facebench_view=1")[1] == "MLflow"
    assert answered(app, "/static-files/x.js")[1] == "MLflow"


def test_a_landing_address_cannot_break_out_of_its_page() -> None:
    from benchmark.tracking.start_page import StartPage

    page = answered(StartPage(mlflow_itself, '/#/"</script><b>'), "/")[1]
    assert "</script><b>" not in page.replace("\\u003c", "")
