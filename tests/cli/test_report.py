"""`facebench report`, `card` and `data explore`: what they write, and what they say of trouble."""

import re
from pathlib import Path

import pytest

from benchmark import registry
from benchmark.data.dataset import STORED_NAME, store_faces
from benchmark.data.drawn import draw_faces
from tests.cli import conftest
from tests.cli.conftest import GENDER, answered_json, facebench, fits, flat, one_run, outcome
from tests.made_runs import RunBuilder
from tests.reporting.stores import QUICK, builder, fill, finish, predictions_on

MTL = QUICK[0]


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunBuilder:
    """A folder of runs with one finished run on synthetic faces."""
    runs = conftest.use(builder(tmp_path / "mlruns"), monkeypatch)
    fill(runs, QUICK[:1], n=80)
    return runs


def test_a_page_is_written_where_it_is_asked_for_and_its_answers_are_printed(
    filled: RunBuilder, tmp_path: Path
) -> None:
    fill(filled, QUICK[1:2], n=80)
    code, stdout, stderr = outcome("report")
    assert (code, f"{MTL} is best on validation" in flat(stdout)) == (0, True)
    assert "Which network predicts best?" in stdout
    page = filled.runs_dir / "reports" / f"report-{STORED_NAME}-all.html"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert f"Written: {page}" in flat(stderr)
    page = tmp_path / "a" / "page.html"
    options = ("--suite", "quick", "--out", page)
    (written,) = answered_json("report", *options)["reports"]
    assert (written["file"], written["suites"]) == (str(page), ["quick"])
    assert written["answers"]["best"]["answered"]
    assert not written["answers"]["gender"]["answered"]
    conftest.check_kept(page, "report", *options)


def test_a_run_or_an_mlflow_store_that_cannot_be_read_is_said(filled: RunBuilder) -> None:
    broken = filled.begun(registry.experiment(QUICK[1]))
    (broken.folder / "experiment.json").write_text('{"schema": 0}', encoding="utf-8")
    (filled.runs_dir / "mlflow.db").write_text("no database at all, but some text")
    assert "MLflow" not in facebench("report").stderr
    code, _, stderr = outcome("report", "--mlflow-url", "http://127.0.0.1:5000")
    assert (code, "Left out, not readable" in flat(stderr)) == (0, True)
    trouble = r"the MLflow store cannot be used.* No run of the page is linked to MLflow"
    assert re.search(trouble, flat(stderr))


@pytest.mark.parametrize(
    ("drawn", "options", "n"), [(True, [], 36), (False, [], 0), (False, ["--with-faces"], 36)]
)
def test_faces_are_shown_if_synthetic_or_if_asked_for_and_then_with_a_warning(
    drawn: bool, options: list[str], n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, experiment = draw_faces(120, seed=3, image_px=32), registry.experiment(MTL)
    data = {"name": "faces", "drawn": drawn, "data_dir": tmp_path / "data"}
    faces = store_faces(made.images, made.labels, **data)
    store = conftest.use(builder(tmp_path / "mlruns", dataset="faces", drawn=drawn), monkeypatch)
    store.dataset |= {"pixel_digest": faces.pixel_digest}
    finish(store, experiment, predictions=predictions_on(faces, experiment))
    result = facebench("report", *options)
    page = store.runs_dir / "reports" / "report-faces-all.html"
    shown = re.findall(r'src="data:image/webp;base64,([^"]+)"', page.read_text("utf-8"))
    assert 3 * (n > 0) <= len(shown) <= n
    assert ("personal data" in flat(result.stderr)) == bool(options)


def test_a_card_is_printed_and_kept_with_its_run_for_each_seed(runs: RunBuilder) -> None:
    record = one_run(runs, GENDER)
    answer = facebench("card", record.identity[:8])
    assert answer.exit_code == 0
    assert answer.stdout.startswith("# Model card: gender-cnn-none-full-short, seed 0")
    assert (record.folder / "card.md").read_text() in answer.stdout
    other = one_run(runs, GENDER, seed=1)
    runs.begun(registry.experiment(GENDER), seed=2)
    assert len(answered_json("card", GENDER)["cards"]) == 2
    assert (other.folder / "card.md").is_file()


def test_a_data_set_is_explored_in_eighty_columns_and_as_numbers(
    drawn_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = ("--dataset", "drawn", "--data-dir", drawn_data_dir)
    explore = ("data", "explore", *drawn, "--out", "who")
    code, stdout, _ = outcome(*explore)
    assert (code, fits(stdout), "Page: who/index.html" in stdout) == (0, True, True)
    assert "240 usable synthetic faces" in flat(stdout)
    conftest.check_kept(Path("who/ages.png"), *explore)
    data = answered_json(*explore, "--overwrite")
    assert data["faces"] == sum(data["counts"]["gender"].values()) == 240
    assert sorted(data["files"]) == sorted(f"who/{path.name}" for path in Path("who").iterdir())
