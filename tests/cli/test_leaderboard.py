"""`facebench leaderboard`: what is printed, written and said when there is nothing to show."""

import csv
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from benchmark import registry
from benchmark.cli.main import app
from benchmark.tasks import TASKS
from tests.cli.conftest import flat
from tests.results.conftest import (
    RunBuilder,
    exact_predictions,
    made_up_predictions,
)

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

MTL = "mtl-cnn-none-full-short"
ALONE = "gender-cnn-none-full-short"
LONG = "mtl-squeezenet1_1-imagenet-fire6_9-short"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def call(runs: RunBuilder, data_dir: Path, *arguments: str) -> Result:
    folders = ["--runs-dir", str(runs.runs_dir), "--data-dir", str(data_dir)]
    return CliRunner().invoke(app, ["leaderboard", *arguments, *folders])


def board_of(runs: RunBuilder, data_dir: Path, *arguments: str) -> Any:
    answer = json.loads(call(runs, data_dir, *arguments, "--json").stdout)
    assert (answer["command"], answer["ok"]) == ("leaderboard", True)
    return answer["data"]["leaderboards"][0]


def one_run(runs: RunBuilder, name: str = MTL, **about: Any) -> None:
    experiment = registry.experiment(name)
    runs.done(experiment, exact_predictions(70, 80, tasks=experiment.head.tasks), **about)


def test_tables_are_printed_and_written_the_same_again_with_links(
    runs: RunBuilder, data_dir: Path
) -> None:
    one_run(runs)
    (record,) = runs.records()
    (record.folder / "card.md").write_text("card")
    folder, contents = runs.runs_dir / "leaderboards", []
    for _ in range(2):
        result = call(runs, data_dir, "--suite", "quick")
        assert result.exit_code == 0
        contents.append({path.suffix: path.read_text() for path in sorted(folder.iterdir())})
    said = flat(result.output)
    assert "Three tasks, one network (MTL)" in said
    assert f"3 experiments not run, age_group-cnn-none-full-short, {ALONE}" in said
    assert "not measured: weights missing (imagenet of squeezenet1_1;" in said
    assert contents[0] == contents[1]
    assert f"| {MTL} |" in contents[0][".md"]
    rows = csv.DictReader(contents[0][".csv"].splitlines())
    assert {row["experiment"] for row in rows} == set(registry.suite("quick").experiments)
    links = re.findall(r'href="([^"#]+)"', contents[0][".html"])
    assert links[1:] == [f"../work/{record.identity}/", f"../work/{record.identity}/card.md"]


def test_without_a_suite_every_experiment_that_was_begun_is_shown(
    runs: RunBuilder, data_dir: Path, tmp_path: Path
) -> None:
    one_run(runs)
    runs.begun(registry.experiment(ALONE))
    result = call(runs, data_dir, "--out", str(tmp_path / "out"))
    assert "every experiment begun" in result.output
    assert "was interrupted or is still running" in flat(result.output)
    assert "race-cnn-none-full-short" not in result.stdout
    page = tmp_path / "out" / "leaderboard-utkface-100-all.md"
    for options, code in (((), 2), (("--overwrite",), 0)):
        page.write_text("mine")
        assert call(runs, data_dir, "--out", str(tmp_path / "out"), *options).exit_code == code
        assert (page.read_text() == "mine") == (code == 2)


def test_the_limits_are_those_of_the_data_set(runs: RunBuilder, data_dir: Path) -> None:
    one_run(runs)
    (path,) = runs.runs_dir.glob("work/*/experiment.json")
    about = json.loads(path.read_text())
    for digest, is_utkface in ((None, True), ("a" * 64, False)):
        about["dataset"]["labels_digest"] = digest
        path.write_text(json.dumps(about))
        board = board_of(runs, data_dir)
        assert ("UTKFace names no persons" in " ".join(board["limits"])) == is_utkface
        assert ("the data set's own table" in board["limits"][0]) != is_utkface


def test_what_cannot_be_shown_is_refused(runs: RunBuilder, data_dir: Path, tmp_path: Path) -> None:
    refused = call(runs, data_dir)
    assert refused.exit_code == 2
    assert "no run to show" in flat(refused.stderr)
    assert "facebench run --suite quick" in flat(refused.stderr)
    one_run(runs, ALONE)
    (tmp_path / "file").write_text("")
    for option, value, said in (
        ("--suite", "moon", "unknown suite 'moon'"),
        ("--dataset", "moon", "data set 'moon' (allowed: utkface-100)"),
        ("--out", str(tmp_path / "file"), "Check the free space and the right to write there"),
        ("--why", "because", "--why gives a reason for nothing"),
        ("--folds", "--ad-hoc", "facebench run NAME --folds 0-4"),
    ):
        result = call(runs, data_dir, option, value)
        assert result.exit_code == 2, option
        assert said in flat(result.stderr), option


def made_on(runs: RunBuilder, faces: "FaceSet") -> None:
    """Let the runs be of a prepared data set."""
    runs.dataset |= {
        "name": faces.name,
        "drawn": True,
        "pixel_digest": faces.pixel_digest,
        "split_digest": faces.split_digest,
    }


def test_the_majority_row_is_that_of_the_prepared_split(
    runs: RunBuilder, drawn_data_dir: Path, drawn_faces: "FaceSet"
) -> None:
    made_on(runs, drawn_faces)
    one_run(runs)
    row = board_of(runs, drawn_data_dir)["rows"][0]
    table = drawn_faces.table
    most = table[table["part"] == "train"]["race"].mode()[0]
    expected = (table[table["part"] == "test"]["race"] == most).mean()
    assert (row["status"], row["race_accuracy"]) == ("reference", pytest.approx(expected))


def test_regressions_are_fitted_where_that_is_asked(
    runs: RunBuilder, drawn_data_dir: Path, drawn_faces: "FaceSet"
) -> None:
    made_on(runs, drawn_faces)
    one_run(runs, ALONE)
    for asked, expected in (((), 1), (("--fit-references",), 2)):
        rows = board_of(runs, drawn_data_dir, *asked)["rows"]
        assert sum(row["status"] == "reference" for row in rows) == expected


def test_photographed_faces_come_before_drawn_ones(runs: RunBuilder, data_dir: Path) -> None:
    one_run(runs)
    drawn = RunBuilder(runs.runs_dir, runs.dataset | {"name": "drawn-100", "drawn": True})
    drawn.dataset |= {"pixel_digest": "77" * 32}
    one_run(drawn)
    result = call(runs, data_dir)
    assert "SYNTHETIC FACES" not in result.output
    assert "runs on synthetic faces are not shown" in flat(result.stderr)
    assert (
        "SYNTHETIC FACES · Leaderboard of drawn-100"
        in call(runs, data_dir, "--dataset", "drawn").output
    )


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> RunBuilder:
    """The quick suite with a long name, three seeds, a failure, ad-hoc runs; much is missing."""
    runs = RunBuilder(tmp_path_factory.mktemp("runs") / "mlruns")
    runs.dataset |= {"name": "others-100"}  # on UTKFace a skill of 4 would be stopped
    for name, skill, seeds in ((LONG, 4.0, (0,)), (MTL, 1.6, (0, 1, 2)), (ALONE, 1.6, (0,))):
        experiment = registry.experiment(name)
        skills = dict.fromkeys(experiment.head.tasks, skill)
        for seed in seeds:
            runs.done(experiment, made_up_predictions(skills, n=800, seed=seed), seed=seed)
    swept = registry.experiment(MTL).adjusted({"recipe.learning_rate": 3e-4})
    runs.done(swept, made_up_predictions(dict.fromkeys(TASKS, 1.4), n=800))
    runs.failed(registry.experiment("race-cnn-none-full-short"), "[bold]nan[/bold] [/]")
    return runs


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_table_fits_breaks_no_number_and_has_few_notes(
    width: int, several: RunBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = call(several, several.runs_dir.parent / "data", "--suite", "quick", "--ad-hoc")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in result.stdout
    table, _, notes = result.stdout.rpartition("\n\n")
    assert len(notes.splitlines()) <= 10
    assert "SqueezeNet" not in table
    assert "[bold]nan[/bold] [/]" in flat(notes)
    assert "--notes prints" in flat(notes)
    for row in board_of(several, several.runs_dir.parent / "data", "--ad-hoc")["rows"]:
        if row["status"] == "done":
            assert all(piece in table for piece in row["experiment"].split("-"))
            for task in TASKS:
                if row[f"{task}_accuracy"] is not None:
                    low, high = (100 * row[f"{task}_accuracy_{end}"] for end in ("low", "high"))
                    assert f"{low:.1f}–{high:.1f}" in table
    assert "recipe.learning_rate=" in table


def test_notes_prints_differences_costs_and_limitations(several: RunBuilder) -> None:
    told = call(several, several.runs_dir.parent / "data", "--suite", "quick", "--notes").stdout
    for text in ("difference, pp", "to its STL counterpart", "GMACs", "perceived age, gender"):
        assert text in flat(told), text


def flagged_run(runs: RunBuilder, *, seed: int = 0) -> str:
    """Make a run that reads race better than can be believed; give its id."""
    experiment = registry.experiment(MTL)
    return runs.done(experiment, exact_predictions(70, 95), seed=seed).identity


def test_a_flagged_row_is_marked_and_not_ranked(runs: RunBuilder, data_dir: Path) -> None:
    identity = flagged_run(runs)
    result = call(runs, data_dir)
    assert "!  mtl-cnn" in result.output
    assert "LEAK WARNING, not ranked: age group 95.0 % is above 83 %" in flat(result.output)
    assert f"--acknowledge {identity[:12]}" in flat(result.output)
    row = board_of(runs, data_dir)["rows"][0]
    assert (row["rank"], row["stopped"]) == (None, True)
    assert row["red_flag"].startswith("LEAK WARNING")


@pytest.mark.parametrize("by_name", [False, True])
def test_acknowledging_ranks_the_row_and_is_kept(
    by_name: bool, runs: RunBuilder, data_dir: Path
) -> None:
    identities = [flagged_run(runs, seed=seed) for seed in (0, 1)]
    asked = [MTL] if by_name else [identity[:12] for identity in identities]
    options = [part for run in asked for part in ("--acknowledge", run)]
    result = call(runs, data_dir, *options, "--why", "The split was checked by hand")
    assert result.exit_code == 0
    assert "1  mtl-cnn" in result.output
    assert f"run {identities[0][:12]} is acknowledged" in flat(result.stderr)
    later = call(runs, data_dir)
    assert "RED FLAG, acknowledged on" in flat(later.output)
    assert "The split was checked by hand" in flat(later.output)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--acknowledge", MTL], "no reason is given"),
        (["--acknowledge", "moon", "--why", "because"], "'moon' is no run here"),
        (["--acknowledge", ALONE, "--why", "because"], "raises no red flag"),
    ],
)
def test_what_cannot_be_acknowledged_is_refused(
    options: list[str], said: str, runs: RunBuilder, data_dir: Path
) -> None:
    flagged_run(runs)
    one_run(runs, ALONE)
    result = call(runs, data_dir, *options)
    assert result.exit_code == 2
    assert said in flat(result.stderr)


def test_folds_are_compared_with_the_fixed_split_and_not_among_the_rows(
    runs: RunBuilder, data_dir: Path
) -> None:
    experiment = registry.experiment(ALONE)
    one_run(runs, ALONE)
    for fold in range(5):
        n_right = 60 + fold
        predictions = exact_predictions(n_right, n_right, tasks=("gender",))
        runs.done(experiment.in_fold(fold), predictions)
    board = call(runs, data_dir)
    assert "Not shown: 5 runs of single folds; --folds does." in flat(board.stdout)
    result = call(runs, data_dir, "--folds", "--json")
    assert result.exit_code == 0, result.stderr
    (table,) = json.loads(result.stdout)["data"]["folds"]
    (row,) = table["rows"]
    assert (row["name"], row["n_folds"], row["rank_folds"]) == (ALONE, 5, 1)
    assert row["test/gender/accuracy/mean"] == pytest.approx(0.62)
    assert row["test/race/accuracy/mean"] is None
    with Path(table["file"]).open() as stream:
        assert [line["name"] for line in csv.DictReader(stream)] == [ALONE]
    assert "62.0 ± 1.6" in call(runs, data_dir, "--folds").stdout
