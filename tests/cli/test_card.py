"""`facebench card`: where a card goes, what is said, and how a wrong call is answered."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from benchmark import registry
from benchmark.cli.main import app
from benchmark.record import RunRecord
from tests.cli.conftest import flat
from tests.results.conftest import RunBuilder, exact_predictions

GENDER = "gender-cnn-none-full-short"


def one_run(runs: RunBuilder, *, seed: int = 0) -> RunRecord:
    experiment = registry.experiment(GENDER)
    answers = exact_predictions(30, 30, n=40, tasks=experiment.head.tasks)
    return runs.done(experiment, answers, seed=seed)


def call(runs: RunBuilder, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["card", *arguments, "--runs-dir", str(runs.runs_dir)])


def test_a_card_is_printed_kept_with_its_run_and_written_as_a_page(
    runs: RunBuilder, tmp_path: Path
) -> None:
    record, target = one_run(runs), tmp_path / "shown" / "card.html"
    answer = call(runs, record.identity[:8])
    assert answer.exit_code == 0
    assert answer.stdout.startswith("# Model card: gender-cnn-none-full-short, seed 0")
    assert (record.folder / "card.md").read_text() in answer.stdout
    answer = call(runs, record.identity[:8], "--out", str(target))
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert f"Written: {target}" in flat(answer.stderr)
    assert target.read_text().startswith("<!doctype html>")
    target.write_text("mine")
    for options, code in (((), 2), (("--overwrite",), 0)):
        assert call(runs, GENDER, "--out", str(target), *options).exit_code == code
        assert (target.read_text() == "mine") == (code == 2)


def test_an_experiment_means_each_of_its_finished_seeds(runs: RunBuilder, tmp_path: Path) -> None:
    for seed in (0, 1):
        one_run(runs, seed=seed)
    runs.begun(registry.experiment(GENDER), seed=2)
    answer = call(runs, GENDER, "--out", str(tmp_path / "cards"), "--json")
    assert len(json.loads(answer.stdout)["data"]["cards"]) == 2
    names = sorted(path.name for path in (tmp_path / "cards").iterdir())
    assert names == [f"{GENDER}-seed-0.md", f"{GENDER}-seed-1.md"]


def test_a_wrong_call_is_answered_with_a_sentence(runs: RunBuilder, tmp_path: Path) -> None:
    one_run(runs)
    runs.begun(registry.experiment("race-cnn-none-full-short"))
    (tmp_path / "file").write_text("")
    for arguments, said in (
        (["gender-cnn-none-full-shrot"], "gender-cnn-none-full-short"),
        (["mtl-cnn-none-full-short"], "there is no run 'mtl-cnn-none-full-short'"),
        (["race-cnn-none-full-short"], "allowed: a finished run"),
        ([GENDER, "--out", "card.pdf"], "FILE.md, FILE.html or a folder"),
        ([GENDER, "--out", str(tmp_path / "file" / "card.md")], "File exists"),
    ):
        answer = call(runs, *arguments)
        assert answer.exit_code == 2, arguments
        assert said in flat(answer.stderr), arguments
