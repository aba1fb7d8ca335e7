"""`facebench leaderboard`: what is printed, written and said when there is nothing to show."""

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark import registry
from benchmark.data.dataset import FaceSet
from benchmark.tasks import TASKS
from tests.cli import conftest
from tests.cli.conftest import GENDER, MTL, RACE, answered_json, facebench, fits, flat, one_run
from tests.made_runs import RunBuilder, exact_predictions, made_up_predictions

LONG = "mtl-squeezenet1_1-imagenet-fire6_9-short"


def board_of(*options: object) -> Any:
    return answered_json("leaderboard", *options)["leaderboards"][0]


def test_tables_are_printed_and_written_the_same_again_with_links(
    runs: RunBuilder, tmp_path: Path
) -> None:
    record = one_run(runs)
    (record.folder / "card.md").write_text("card")
    folder, contents = runs.runs_dir / "leaderboards", []
    for _ in range(2):
        result = facebench("leaderboard", "--suite", "quick")
        assert result.exit_code == 0
        contents.append({path.suffix: path.read_text() for path in sorted(folder.iterdir())})
    assert "Three tasks, one network (MTL)" in flat(result.output)
    assert "weights not available (imagenet of squeezenet1_1;" in flat(result.output)
    assert contents[0] == contents[1]
    assert f"| {MTL} |" in contents[0][".md"]
    rows = pd.read_csv(io.StringIO(contents[0][".csv"]))
    assert set(rows["experiment"]) == set(registry.suite("quick").experiments)
    links = re.findall(r'href="([^"#]+)"', contents[0][".html"])
    assert links[1:] == [f"../work/{record.identity}/", f"../work/{record.identity}/card.md"]
    runs.begun(registry.experiment(GENDER))
    result = facebench("leaderboard")
    assert "every experiment begun" in result.output
    assert "was interrupted or is still running" in flat(result.output)
    assert RACE not in result.stdout
    page = tmp_path / "leaderboard-utkface-100-all.md"
    conftest.check_kept(page, "leaderboard", "--out", tmp_path)


def test_reference_rows_are_of_the_prepared_split_and_fitted_where_that_is_asked(
    runs: RunBuilder, drawn_data_dir: Path, drawn_faces: FaceSet
) -> None:
    digests = {"pixel_digest": drawn_faces.pixel_digest, "split_digest": drawn_faces.split_digest}
    runs.dataset |= {"name": drawn_faces.name, "drawn": True} | digests
    one_run(runs, GENDER)
    table = drawn_faces.table
    most = table[table["part"] == "train"]["gender"].mode()[0]
    majority = (table[table["part"] == "test"]["gender"] == most).mean()
    for asked, n_rows in (((), 1), (("--fit-references",), 2)):
        rows = board_of("--data-dir", drawn_data_dir, *asked)["rows"]
        assert rows[0]["gender_accuracy"] == pytest.approx(majority)
        assert sum(row["status"] == "reference" for row in rows) == n_rows


def test_photographed_faces_come_before_drawn_ones(runs: RunBuilder) -> None:
    one_run(runs)
    drawn = RunBuilder(runs.runs_dir, runs.dataset | {"name": "drawn-100", "drawn": True})
    drawn.dataset |= {"pixel_digest": "77" * 32}
    one_run(drawn)
    result = facebench("leaderboard")
    assert "SYNTHETIC FACES" not in result.output
    assert "Labels are perceived" in flat(result.output)
    assert "runs on synthetic faces are not shown" in flat(result.stderr)
    shown = flat(facebench("leaderboard", "--dataset", "drawn").output)
    assert "SYNTHETIC FACES · Leaderboard of drawn-100" in shown


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> RunBuilder:
    """The quick suite with a long name, three seeds, a failure, ad-hoc runs; much is missing."""
    runs = RunBuilder(tmp_path_factory.mktemp("runs") / "mlruns")
    runs.dataset |= {"name": "others-100"}  # on UTKFace a skill of 4 would be stopped
    for name, skill, seeds in ((LONG, 4.0, (0,)), (MTL, 1.6, (0, 1, 2)), (GENDER, 1.6, (0,))):
        experiment = registry.experiment(name)
        skills = dict.fromkeys(experiment.head.tasks, skill)
        for seed in seeds:
            runs.done(experiment, made_up_predictions(skills, n=800, seed=seed), seed=seed)
    swept = registry.experiment(MTL).adjusted({"recipe.learning_rate": 3e-4})
    runs.done(swept, made_up_predictions(dict.fromkeys(TASKS, 1.4), n=800))
    runs.failed(registry.experiment(RACE), "[bold]nan[/bold] [/]")
    return runs


def test_the_table_fits_breaks_no_number_and_has_few_notes(
    several: RunBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    conftest.use(several, monkeypatch)
    rows = board_of("--ad-hoc")["rows"]
    for width in (80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        result = facebench("leaderboard", "--suite", "quick", "--ad-hoc")
        assert (fits(result.stdout, width), "…" in result.stdout) == (True, False)
        table, _, notes = result.stdout.rpartition("\n\n")
        assert len(notes.splitlines()) <= 10
        assert "[bold]nan[/bold] [/]" in flat(notes)
        assert "--notes prints" in flat(notes)
        for row in (row for row in rows if row["status"] == "done"):
            assert all(piece in table for piece in row["experiment"].split("-"))
            for task in (task for task in TASKS if row[f"{task}_accuracy"] is not None):
                low, high = (100 * row[f"{task}_accuracy_{end}"] for end in ("low", "high"))
                assert f"{low:.1f}–{high:.1f}" in table
        assert "recipe.learning_rate=" in table
    told = flat(facebench("leaderboard", "--suite", "quick", "--notes").stdout)
    for text in ("difference, pp", "to its STL counterpart", "GMACs", "perceived age, gender"):
        assert text in told, text


def test_a_flagged_row_is_not_ranked_until_it_is_acknowledged(runs: RunBuilder) -> None:
    identities = [one_run(runs, n_right=95, seed=seed).identity[:12] for seed in (0, 1)]
    said = facebench("leaderboard").output
    assert "!  mtl-cnn" in said
    assert "LEAK WARNING, not ranked: age group 95.0 % is above 83 %" in flat(said)
    assert f"--acknowledge {MTL}" in flat(said)
    row = board_of()["rows"][0]
    assert (row["rank"], row["stopped"]) == (None, True)
    assert "no reason is given" in flat(facebench("leaderboard", "--acknowledge", MTL).stderr)
    options = ["--acknowledge", identities[1], "--acknowledge", MTL]
    result = facebench("leaderboard", *options, "--why", "The split was checked by hand")
    assert "1  mtl-cnn" in result.stdout
    assert f"run {identities[0]} is acknowledged" in flat(result.stderr)
    later = flat(facebench("leaderboard").output)
    assert re.search("RED FLAG, acknowledged on .*The split was checked by hand", later)


def test_folds_are_compared_with_the_fixed_split_and_not_among_the_rows(runs: RunBuilder) -> None:
    experiment = registry.experiment(GENDER)
    one_run(runs, GENDER)
    for fold in range(5):
        predictions = exact_predictions(60 + fold, 60 + fold, tasks=("gender",))
        runs.done(experiment.in_fold(fold), predictions)
    said = flat(facebench("leaderboard").stdout)
    assert "Not shown: 5 runs of single folds; --folds does." in said
    (table,) = answered_json("leaderboard", "--folds")["folds"]
    (row,) = table["rows"]
    assert (row["name"], row["n_folds"], row["rank_folds"]) == (GENDER, 5, 1)
    assert row["test/gender/accuracy/mean"] == pytest.approx(0.62)
    assert row["test/race/accuracy/mean"] is None
    assert "62.0 ± 1.6" in facebench("leaderboard", "--folds").stdout
