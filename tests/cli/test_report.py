"""`facebench report`: what it writes, and what it says of runs that are none, few or broken."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmark import registry
from benchmark.cli.main import app
from benchmark.data.dataset import STORED_NAME, store_faces
from benchmark.data.drawn import draw_faces
from tests.cli.conftest import flat
from tests.reporting.stores import QUICK, builder, fill, finish, predictions_on
from tests.results.conftest import RunBuilder

MTL = QUICK[0]


@pytest.fixture
def runs(tmp_path: Path) -> RunBuilder:
    return builder(tmp_path / "mlruns")


def call(runs: RunBuilder, *arguments: str, data_dir: Path | None = None) -> Result:
    folders = ["--runs-dir", str(runs.runs_dir)]
    folders += ["--data-dir", str(data_dir or runs.runs_dir.parent / "data")]
    return CliRunner().invoke(app, ["report", *arguments, *folders])


def test_a_page_is_written_and_its_answers_are_printed(runs: RunBuilder) -> None:
    fill(runs, QUICK[:2], n=80)
    result = call(runs)
    assert result.exit_code == 0
    assert "Which network predicts best?" in result.stdout
    assert f"{MTL} is best on validation" in flat(result.stdout)
    page = runs.runs_dir / "reports" / f"report-{STORED_NAME}-all.html"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert f"Written: {page}" in flat(result.stderr)


def test_json_is_alone_on_stdout(runs: RunBuilder, tmp_path: Path) -> None:
    fill(runs, QUICK[:1], n=80)
    result = call(runs, "--suite", "quick", "--out", str(tmp_path / "a" / "page.html"), "--json")
    (written,) = json.loads(result.stdout)["data"]["reports"]
    assert written["file"] == str(tmp_path / "a" / "page.html")
    assert written["suites"] == ["quick"]
    assert written["answers"]["best"]["answered"]
    assert not written["answers"]["gender"]["answered"]
    page = Path(written["file"])
    page.write_text("mine")
    result = call(runs, "--suite", "quick", "--out", str(page))
    assert (result.exit_code, "exists already" in result.stderr) == (2, True)
    assert page.read_text() == "mine"


def test_no_run_is_said_with_what_to_do(runs: RunBuilder) -> None:
    result = call(runs)
    assert result.exit_code == 2
    assert "there is no run" in result.stderr
    assert "facebench run --suite quick" in flat(result.stderr)


def test_what_cannot_be_meant_is_refused(runs: RunBuilder) -> None:
    fill(runs, QUICK[:1], n=80)
    for options, said in (
        (["--suite", "moon"], "unknown suite 'moon'"),
        (["--dataset", "moon"], "no run is on the data set 'moon'"),
        (["--mlflow-url", "file:///etc"], "is no address"),
        (["--out", "page.pdf"], "FILE.html or a folder"),
    ):
        result = call(runs, *options)
        assert result.exit_code == 2, options
        assert said in flat(result.stderr), options


def test_a_run_that_cannot_be_read_is_left_out_and_said(runs: RunBuilder) -> None:
    fill(runs, QUICK[:1], n=80)
    broken = runs.begun(registry.experiment(QUICK[1]))
    (broken.folder / "experiment.json").write_text('{"schema": 0}', encoding="utf-8")
    result = call(runs)
    assert result.exit_code == 0
    assert "Left out, not readable" in flat(result.stderr)


def test_an_mlflow_store_that_cannot_be_read_costs_the_links_alone(runs: RunBuilder) -> None:
    fill(runs, QUICK[:1], n=80)
    (runs.runs_dir / "mlflow.db").write_text("no database at all, but some text", encoding="utf-8")
    assert "MLflow" not in call(runs).stderr
    result = call(runs, "--mlflow-url", "http://127.0.0.1:5000")
    assert result.exit_code == 0
    assert "the MLflow store cannot be read" in flat(result.stderr)
    assert "No run of the page is linked to MLflow" in flat(result.stderr)


def test_faces_are_shown_if_synthetic_or_if_asked_for_and_then_with_a_warning(
    runs: RunBuilder, tmp_path: Path
) -> None:
    made = draw_faces(120, seed=3, image_px=32)
    experiment, data_dir = registry.experiment(MTL), tmp_path / "data"
    for drawn, options, n in ((True, [], 36), (False, [], 0), (False, ["--with-faces"], 36)):
        name = f"faces-{int(drawn)}-{n}"
        faces = store_faces(made.images, made.labels, name=name, drawn=drawn, data_dir=data_dir)
        store = builder(tmp_path / name / "mlruns", dataset=name, drawn=drawn)
        store.dataset |= {"pixel_digest": faces.pixel_digest}
        finish(store, experiment, predictions=predictions_on(faces, experiment))
        result = call(store, *options, data_dir=data_dir)
        page = store.runs_dir / "reports" / f"report-{name}-all.html"
        shown = re.findall(r'src="data:image/webp;base64,([^"]+)"', page.read_text("utf-8"))
        assert 3 * (n > 0) <= len(shown) <= n, name
        assert ("personal data" in flat(result.stderr)) == bool(options), name
