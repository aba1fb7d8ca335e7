"""`facebench leaderboard`: what is printed, written and said when there is nothing to show."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from benchmark import registry
from benchmark.cli.leaderboard import app
from benchmark.cli.leaderboard_table import render
from benchmark.comparison.leaderboard import Leaderboard, build
from benchmark.comparison.references import majority_row
from benchmark.tasks import TASKS
from tests.cli.conftest import flat
from tests.results.conftest import (
    RunBuilder,
    exact_predictions,
    made_up_faces,
    made_up_predictions,
)

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

MTL = "mtl-cnn-none-full-short"
ALONE = "gender-cnn-none-full-short"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def call(runs: RunBuilder, data_dir: Path, *arguments: str) -> Result:
    folders = ["--runs-dir", str(runs.runs_dir), "--data-dir", str(data_dir)]
    return CliRunner().invoke(app, [*arguments, *folders])


def one_run(runs: RunBuilder, name: str = MTL, **about: Any) -> None:
    experiment = registry.experiment(name)
    runs.done(experiment, exact_predictions(70, 80, tasks=experiment.head.tasks), **about)


def test_tables_are_printed_and_written(runs: RunBuilder, data_dir: Path) -> None:
    one_run(runs)
    result = call(runs, data_dir, "--suite", "quick")
    assert result.exit_code == 0
    assert "Three tasks, one network (MTL)" in result.output
    assert f"{ALONE}: missing, not run" in result.output
    written = runs.runs_dir / "leaderboards"
    assert f"| {MTL} |" in (written / "leaderboard-utkface-100-quick.md").read_text()
    rows = list(
        csv.DictReader((written / "leaderboard-utkface-100-quick.csv").read_text().splitlines())
    )
    assert {row["experiment"] for row in rows} == set(registry.suite("quick").experiments)


def test_files_are_byte_identical_when_nothing_changed(runs: RunBuilder, data_dir: Path) -> None:
    one_run(runs)
    contents = []
    for _ in range(2):
        call(runs, data_dir)
        folder = runs.runs_dir / "leaderboards"
        contents.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 5


def test_without_a_suite_every_experiment_that_was_begun_is_shown(
    runs: RunBuilder, data_dir: Path, tmp_path: Path
) -> None:
    one_run(runs)
    runs.begun(registry.experiment(ALONE))
    result = call(runs, data_dir, "--out", str(tmp_path / "out"))
    assert "every experiment begun" in result.output
    assert "was interrupted or is still running" in flat(result.output)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert not any("race-cnn-none-full-short" in words[:2] for words in rows)
    assert (tmp_path / "out" / "leaderboard-utkface-100-all.md").is_file()


def test_json_is_alone_on_stdout(runs: RunBuilder, data_dir: Path) -> None:
    one_run(runs)
    answer = json.loads(call(runs, data_dir, "--json").stdout)
    assert (answer["command"], answer["ok"]) == ("leaderboard", True)
    board = answer["data"]["leaderboards"][0]
    row = board["rows"][0]
    assert (row["experiment"], row["rank"], row["gender_accuracy"]) == (MTL, 1, 0.8)
    assert all(Path(path).is_file() for path in board["files"])


def test_rows_are_chosen_and_ordered(runs: RunBuilder, data_dir: Path) -> None:
    one_run(runs)
    one_run(runs, ALONE)
    result = call(runs, data_dir, "--where", "table=gender", "--sort", "seconds")
    assert ALONE in result.output
    assert MTL not in result.output.split("How to read it")[0]
    assert "1 of 2 rows are shown (table=gender, by seconds, ascending)" in flat(result.output)
    assert (runs.runs_dir / "leaderboards/leaderboard-utkface-100-all-part.csv").is_file()


@pytest.mark.parametrize(
    ("format_", "begins"),
    [("md", "# Leaderboard"), ("csv", "table,status,rank"), ("tex", "% Leader"), ("html", "<!do")],
)
def test_a_format_is_alone_on_stdout(
    format_: str, begins: str, runs: RunBuilder, data_dir: Path
) -> None:
    one_run(runs, ALONE)
    result = call(runs, data_dir, "--format", format_)
    assert result.stdout.startswith(begins)
    path = runs.runs_dir / f"leaderboards/leaderboard-utkface-100-all.{format_}"
    assert result.stdout == path.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "moon=1"], "no column 'moon'"),
        (["--sort", "gender"], "did you mean"),
        (["--format", "pdf"], "--format is 'pdf'"),
        (["--where", "architecture=vgg16"], "no row of utkface-100 has architecture=vgg16"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    options: list[str], said: str, runs: RunBuilder, data_dir: Path
) -> None:
    one_run(runs, ALONE)
    result = call(runs, data_dir, *options)
    assert result.exit_code == 2
    assert said in flat(result.stderr)


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
    board = json.loads(call(runs, drawn_data_dir, "--json").stdout)["data"]["leaderboards"][0]
    row = board["rows"][0]
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
        answer = json.loads(call(runs, drawn_data_dir, "--json", *asked).stdout)
        rows = answer["data"]["leaderboards"][0]["rows"]
        assert sum(row["status"] == "reference" for row in rows) == expected


def test_no_runs_say_how_to_make_some(runs: RunBuilder, data_dir: Path) -> None:
    result = call(runs, data_dir)
    assert result.exit_code == 2
    assert "no run to show" in flat(result.stderr)
    assert "facebench run --suite quick" in flat(result.stderr)


@pytest.mark.parametrize(
    ("option", "found", "allowed"),
    [("--suite", "unknown suite 'moon'", "quick"), ("--dataset", "data set 'moon'", "utkface-100")],
)
def test_an_unknown_name_is_answered_with_the_known_ones(
    option: str, found: str, allowed: str, runs: RunBuilder, data_dir: Path
) -> None:
    one_run(runs)
    result = call(runs, data_dir, option, "moon")
    assert result.exit_code == 2
    assert found in flat(result.stderr)
    assert allowed in flat(result.stderr)


def test_photographed_faces_come_before_drawn_ones(runs: RunBuilder, data_dir: Path) -> None:
    one_run(runs)
    drawn = RunBuilder(runs.runs_dir, runs.dataset | {"name": "drawn-100", "drawn": True})
    drawn.dataset |= {"pixel_digest": "77" * 32}
    one_run(drawn)
    result = call(runs, data_dir)
    assert "DRAWN FACES" not in result.output
    assert "runs on drawn faces are not shown" in flat(result.stderr)
    assert (
        "DRAWN FACES · Leaderboard of drawn-100"
        in call(runs, data_dir, "--dataset", "drawn").output
    )


def test_weights_that_are_not_at_hand_are_the_reason(runs: RunBuilder, data_dir: Path) -> None:
    one_run(runs)
    result = call(runs, data_dir, "--suite", "quick")
    assert "not measured: weights missing (imagenet of squeezenet1_1;" in flat(result.output)


def test_a_folder_that_cannot_be_written_is_one_sentence(
    runs: RunBuilder, data_dir: Path, tmp_path: Path
) -> None:
    one_run(runs)
    (tmp_path / "file").write_text("")
    result = call(runs, data_dir, "--out", str(tmp_path / "file"))
    assert result.exit_code == 2
    assert "cannot be written" in flat(result.stderr)


@pytest.fixture(scope="module")
def plausible(tmp_path_factory: pytest.TempPathFactory) -> Leaderboard:
    """The quick suite with a long name, three seeds, a failure and rows that are missing."""
    runs = RunBuilder(tmp_path_factory.mktemp("runs"))
    runs.dataset |= {"name": "others-100"}  # on UTKFace a skill of 4 would be stopped
    for name, skill, seeds in (
        ("mtl-squeezenet1_1-imagenet-fire6_9-short", 4.0, (0,)),
        (MTL, 1.6, (0, 1, 2)),
        (ALONE, 1.6, (0,)),
    ):
        experiment = registry.experiment(name)
        for seed in seeds:
            skills = dict.fromkeys(experiment.head.tasks, skill)
            runs.done(experiment, made_up_predictions(skills, n=1_600, seed=seed), seed=seed)
    runs.failed(registry.experiment("race-cnn-none-full-short"), "the loss of epoch 3 is nan")
    faces = made_up_faces(1_600)
    return build(
        runs.records(),
        list(registry.experiments_of("quick")),
        "others-100",
        suite="quick",
        references=lambda setting, tasks: (majority_row(faces[:800], faces[800:], tasks),),
    )


def printed(board: Leaderboard, width: int) -> Sequence[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(render(board, width))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 100, 140, 200, 250])
def test_the_tables_fit_and_break_no_number(width: int, plausible: Leaderboard) -> None:
    lines = printed(plausible, width)
    text = "\n".join(lines)
    assert max(len(line) for line in lines) <= width
    assert "…" not in text
    for table in plausible.tables:
        for row in table.rows:
            for task, score in row.scores.items():
                assert task in TASKS
                assert f"{100 * score.low:.1f}–{100 * score.high:.1f}" in text
            if row.worst is not None:
                assert f"{100 * row.worst.accuracy:.1f} (" in text
                assert row.worst.group in text
            assert all(piece in text for piece in row.name.split("-"))


def test_rich_markup_in_a_reason_is_shown_as_it_is(runs: RunBuilder) -> None:
    experiment = registry.experiment(ALONE)
    runs.failed(experiment, "[bold]not bold[/bold] [/]")
    board = build(runs.records(), [experiment], "utkface-100")
    assert "[bold]not bold[/bold] [/]" in flat("\n".join(printed(board, 80)))


def flagged_run(runs: RunBuilder, *, seed: int = 0) -> str:
    """Make a run that reads race better than can be believed; give its id."""
    experiment = registry.experiment(MTL)
    return runs.done(experiment, exact_predictions(70, 95), seed=seed).identity


def test_a_flagged_row_is_marked_and_not_ranked(runs: RunBuilder, data_dir: Path) -> None:
    identity = flagged_run(runs)
    result = call(runs, data_dir)
    assert f"!  {MTL}" in result.output
    assert "LEAK WARNING, not ranked: age group 95.0 % is above 83 %" in flat(result.output)
    assert f"--acknowledge {identity[:12]}" in flat(result.output)
    row = json.loads(call(runs, data_dir, "--json").stdout)["data"]["leaderboards"][0]["rows"][0]
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
    assert f"1  {MTL}" in result.output
    assert f"run {identities[0][:12]} is acknowledged" in flat(result.stderr)
    later = call(runs, data_dir)
    assert "RED FLAG, acknowledged on" in flat(later.output)
    assert "The split was checked by hand" in flat(later.output)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--acknowledge", MTL], "no reason is given"),
        (["--why", "because"], "--why gives a reason for nothing"),
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
    page = (runs.runs_dir / "leaderboards" / "folds.md").read_text(encoding="utf-8")
    assert "| 80.0 / 62.0 ± 1.6 |" in page
    shown = call(runs, data_dir, "--folds").stdout
    assert "62.0±1.6" in shown
    # A name is broken at its hyphens alone.
    lines = shown.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("gender"))
    assert [line.split()[0] for line in lines[first : first + 2]] == [
        "gender-cnn-none-", "full-short",
    ]  # fmt: skip


def test_without_any_fold_the_way_to_make_them_is_said(runs: RunBuilder, data_dir: Path) -> None:
    one_run(runs)
    result = call(runs, data_dir, "--folds")
    assert result.exit_code == 2
    assert "facebench run NAME --folds 0-4" in flat(result.stderr)
