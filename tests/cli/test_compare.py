"""`facebench compare`: what is printed and written, and how it answers a wrong call."""

import json

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from benchmark import registry
from benchmark.cli import compare as compare_module
from benchmark.cli import output
from benchmark.cli.compare import compare
from benchmark.comparison import pairs
from benchmark.comparison.library import Library, read_run
from benchmark.comparison.pairs import Comparison
from benchmark.comparison.wording import points
from tests.cli.conftest import flat
from tests.comparison.finished_runs import finished
from tests.results.conftest import RunBuilder, exact_predictions, made_up_predictions

MTL = "mtl-cnn-none-full-short"
ALONE = "gender-cnn-none-full-short"
FROZEN = "mtl-squeezenet1_1-imagenet-frozen-short"
SWAPPED = "mtl-squeezenet1_1-imagenet-frozen-swapped-short"

app = typer.Typer()
app.command()(compare)


def call(runs: RunBuilder, *arguments: str) -> Result:
    folders = ["--runs-dir", str(runs.runs_dir), "--data-dir", str(runs.runs_dir.parent / "data")]
    return CliRunner().invoke(app, [*arguments, *folders])


def one_run(runs: RunBuilder, name: str, n_right: int = 80, *, seed: int = 0) -> str:
    experiment = registry.experiment(name)
    answers = exact_predictions(70, n_right, n=100, tasks=experiment.head.tasks)
    return finished(runs, experiment, answers, seed=seed).identity


def test_a_suite_is_answered_in_words(runs: RunBuilder) -> None:
    one_run(runs, MTL, 80)
    one_run(runs, ALONE, 50)
    broken = runs.runs_dir / "work" / ("0" * 64)
    broken.mkdir()
    (broken / "experiment.json").write_text("{")
    result = call(runs, "quick")
    assert result.exit_code == 0
    assert "Left out, not readable" in flat(result.stderr)
    said = flat(result.output)
    assert "Does MTL beat STL? Gender: yes, better by 30.0 pp" in said
    assert "One seed on a side speaks of these trainings alone." in said
    missing = "age group (age_group-cnn-none-full-short: not run)"
    assert f"Single-task counterparts missing of {MTL}: {missing}" in said
    assert "race-cnn-none-full-short (not run: not run)" in said


def test_json_is_alone_on_stdout(runs: RunBuilder) -> None:
    one_run(runs, MTL, 80)
    identity = one_run(runs, ALONE, 50)
    answer = json.loads(call(runs, MTL, identity[:8], "--json").stdout)
    assert (answer["command"], answer["ok"]) == ("compare", True)
    row = answer["data"]["tables"][0]["rows"][0]
    assert (row["task"], row["verdict"]) == ("gender", "worse")
    assert row["difference"] == pytest.approx(-0.3)
    assert answer["data"]["limits"]


def test_one_task_alone_may_be_asked_for(runs: RunBuilder) -> None:
    one_run(runs, MTL)
    one_run(runs, FROZEN)
    rows = json.loads(call(runs, MTL, FROZEN, "--task", "race", "--json").stdout)["data"]
    assert [row["task"] for row in rows["tables"][0]["rows"]] == ["race"]
    result = call(runs, MTL, FROZEN, "--task", "age")
    assert result.exit_code == 2
    assert "unknown task 'age' (allowed: age_group, gender, race)" in flat(result.stderr)


@pytest.fixture(scope="module")
def plausible(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Long names, several seeds and one, a counterpart, a gap, what is missing."""
    runs = RunBuilder(tmp_path_factory.mktemp("runs"))
    for name, skill, seeds in (
        ("mtl-squeezenet1_1-imagenet-fire6_9-short", 3.0, (0, 1)),
        (FROZEN, 1.5, (0, 1)),
        (MTL, 1.6, (0,)),
        (ALONE, 1.6, (0,)),
        (SWAPPED, 1.5, (0,)),
    ):
        experiment = registry.experiment(name)
        for seed in seeds:
            skills = dict.fromkeys(experiment.head.tasks, skill)
            finished(runs, experiment, made_up_predictions(skills, seed=seed), seed=seed)
    read = tuple(read_run(record) for record in runs.records())
    shelf = Library(read, registry.experiments(), registry.suites())
    return pairs.compare(shelf, ["quick", "controls"], all_pairs=True)


@pytest.mark.parametrize("width", [80, 140, 200])
def test_the_tables_fit_and_break_no_number(
    width: int, plausible: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(width=width, color_system=None)
    monkeypatch.setattr(compare_module, "out", console)
    monkeypatch.setattr(output, "out", console)
    with console.capture() as capture:
        compare_module._print(plausible)
    text = capture.get()
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    notes = text.rpartition("\n\n")[2]
    assert notes.count("·") <= 5
    assert f"--json has all {len(plausible.notes) + len(plausible.limits)} notes" in flat(notes)
    for kind, found in plausible.tables.items():
        for line in found.lines:
            assert f"{points(line.difference.high)}" in text
            assert flat(f"against {line.reference.label}") in flat(text) or kind == "twins"
    for _, scores in plausible.groups:
        for score in scores.values():
            assert f"{100 * score.low:.1f}–{100 * score.high:.1f}" in text
