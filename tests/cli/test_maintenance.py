"""`runs rescore` and `doctor`: what they touch, say and leave alone."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from benchmark import registry
from benchmark.cli.main import app as main
from benchmark.cli.tracking import app
from benchmark.evaluation.artifacts import is_scored
from benchmark.record import RunRecord
from tests.cli.conftest import flat
from tests.results.conftest import RunBuilder, an_experiment, exact_predictions

GENDER = "gender-cnn-none-full-short"
RACE = "race-cnn-none-full-short"


def call(runs_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--runs-dir", str(runs_dir)])


def one_run(runs: RunBuilder, name: str) -> RunRecord:
    experiment = registry.experiment(name)
    return runs.done(experiment, exact_predictions(20, 20, n=25, tasks=experiment.head.tasks))


def test_every_finished_run_is_rescored_and_then_left_alone(runs: RunBuilder) -> None:
    records = [one_run(runs, name) for name in (GENDER, RACE)]
    runs.begun(registry.experiment(GENDER), seed=1)
    first = call(runs.runs_dir, "rescore")
    assert first.exit_code == 0
    assert "2 runs rescored, 0 were up to date" in flat(first.output)
    assert all(is_scored(record) for record in records)
    assert "0 runs rescored, 2 were up to date" in flat(call(runs.runs_dir, "rescore").output)


def test_only_the_runs_that_are_named_are_rescored(runs: RunBuilder) -> None:
    gender, race = one_run(runs, GENDER), one_run(runs, RACE)
    other = runs.done(an_experiment("other"), exact_predictions(20, 20, n=25))
    for name, done in ((gender.identity[:8], [gender]), (RACE, [gender, race])):
        answer = json.loads(call(runs.runs_dir, "rescore", name, "--json").stdout)
        assert answer["data"] == {"runs": {"rescored": 1}}
        assert [record for record in (gender, race, other) if is_scored(record)] == done
    assert "0 runs rescored, 2 were" in flat(call(runs.runs_dir, "rescore", "quick").output)


def test_a_run_that_cannot_be_rescored_does_not_stop_the_others(runs: RunBuilder) -> None:
    broken, sound = one_run(runs, GENDER), one_run(runs, RACE)
    broken.predictions_path.unlink()
    result = call(runs.runs_dir, "rescore")
    assert result.exit_code == 3
    assert "1 runs rescored, 0 were up to date, 1 could not be" in flat(result.output)
    assert "cannot be read" in flat(result.stderr)
    assert is_scored(sound)


def test_a_name_that_is_no_run_is_answered(runs: RunBuilder) -> None:
    result = call(runs.runs_dir, "rescore")
    assert (result.exit_code, "facebench run --suite quick" in flat(result.stderr)) == (2, True)
    one_run(runs, GENDER)
    result = call(runs.runs_dir, "rescore", "moon")
    assert (result.exit_code, "there is no run 'moon'" in flat(result.stderr)) == (2, True)


def test_doctor_names_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    options = ["--data-dir", str(tmp_path), "--runs-dir", str(tmp_path / "new" / "mlruns")]
    answer = CliRunner().invoke(main, ["doctor", "--json", *options])
    rows = {row["what"]: row for row in json.loads(answer.stdout)["data"]}
    assert list(rows) == ["device", "data", "weights", "disk", "packages"]
    assert rows["data"]["found"] == "no prepared data set"
    assert "data prepare" in rows["data"]["fix"]
    assert rows["packages"]["fix"] == ""
    assert "This machine" in CliRunner().invoke(main, ["doctor", *options]).output
