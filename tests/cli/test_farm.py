"""`facebench farm` as a person meets it: the table, the JSON, and every wrong turn."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from benchmark.cli.farm_table import HeadRow, print_heads
from benchmark.cli.main import app
from benchmark.results.record import all_records

FROZEN = "mtl-squeezenet1_1-none-frozen-short"
TINY = ("--set", "backbone.input_px=32", "--set", "recipe.max_epochs=1", "--device", "cpu")


def facebench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_command_trains_a_grid_and_shows_it(drawn_data_dir: Path, tmp_path: Path) -> None:
    places = ("--data-dir", drawn_data_dir, "--runs-dir", tmp_path, "--tracking", "files")
    grid = ("--learning-rates", "1e-3,1e-2", "--conditionings", "none,gate", "--seeds", "0")
    first = facebench("farm", FROZEN, *grid, *TINY, *places)
    assert first.exit_code == 0, first.stderr
    assert first.stderr.startswith("DRAWN FACES, not people: data set drawn")
    assert "4 heads, in 2 stacks of 2" in first.stderr
    assert "4 finished, 0 needed nothing, 0 missing, 0 failed." in first.stderr
    lines = first.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "DRAWN FACES" in first.stdout
    assert sum("best" in line for line in lines[:-1]) >= 1
    assert "test" not in first.stdout.split("\n\n")[-1].split("\n")[0]
    assert len(list(all_records(tmp_path))) == 4

    told = json.loads(facebench("farm", FROZEN, *grid, *TINY, *places, "--json").stdout)
    assert told["data"]["runs"] == {"finished": 0, "skipped": 4, "missing": 0, "failed": 0}
    scores = [head["validation"] for head in told["data"]["heads"]]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mtl-cnn-none-full-short"], "trains more than its head"),
        ([], "nothing to plant was named"),
        (["--suite", "subsets"], "has no experiment with a frozen trunk"),
        ([FROZEN, "--learning-rates", "fast"], "--learning-rates is 'fast'"),
        ([FROZEN, "--learning-rates", "1e-3,0.001"], "--learning-rates is '1e-3,0.001'"),
        ([FROZEN, "--hidden-units", "64,"], "--hidden-units is '64,'"),
        ([FROZEN, "--hidden-units", "0"], "head.hidden_units is 0"),
        ([FROZEN, "--conditionings", "doors"], "head.conditioning is 'doors'"),
        ([FROZEN, "--weight-decays", "0", "--set", "recipe.weight_decay=1"], "is set twice"),
        ([FROZEN, "--keep-weights", "all"], "--keep-weights is 'all'"),
        ([FROZEN, "--set", "recipe.augmentation.contrast=0.1"], "in endless ways"),
        ([FROZEN, "--dataset", "nobody"], "no data set 'nobody' is prepared"),
    ],
)
def test_a_wrong_word_is_one_sentence_and_exit_code_two(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    answer = facebench("farm", *arguments, "--data-dir", tmp_path, "--runs-dir", tmp_path)
    assert answer.exit_code == 2
    assert said in " ".join(answer.stderr.split())
    assert "Traceback" not in answer.stderr
    assert list(all_records(tmp_path)) == []


def a_row(seed: int, rate: float, validation: float, **changes: object) -> HeadRow:
    fields: dict[str, object] = {
        "experiment": FROZEN, "learning_rate": rate, "weight_decay": 0.0, "hidden_units": 128,
        "conditioning": "none", "seed": seed, "ad_hoc": True, "selected_epoch": 3, "epochs": 6,
        "validation": validation, "test": None, "run": "0123456789ab", "family": f"{rate}",
    }  # fmt: skip
    return HeadRow(**fields | changes)  # type: ignore[arg-type]


def test_the_best_setting_is_best_over_its_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    """The best head is of 0.1, whose other seed fell far; the best mean is of 0.01."""
    rows = [a_row(0, 0.1, 0.80), a_row(0, 0.01, 0.75), a_row(1, 0.01, 0.73), a_row(1, 0.1, 0.50)]
    print_heads(rows, drawn=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "0.1 0 3 80.00% 0123456789ab best" in shown
    # Mean of 0.75 and 0.73; their standard deviation is 0.02 / sqrt(2).
    assert "Best over 2 seeds: rate 0.01. Mean 74.00%, standard deviation 1.41 points." in shown
    assert "The best of 4 on validation is flattered by having been chosen." in shown


def test_what_all_heads_share_stands_above_and_experiments_are_numbered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = "mtl-squeezenet1_1-imagenet-frozen-short"
    rows = [a_row(0, 0.1, 0.8, test=0.7), a_row(0, 0.1, 0.6, experiment=other, family="x")]
    print_heads(rows, drawn=True)
    shown = capsys.readouterr().out
    assert "DRAWN FACES" in shown
    assert "All: rate 0.1, decay 0, width 128, conditioning none, seed 0." in shown
    assert f"  1  {FROZEN}" in shown
    assert f"  2  {other}" in shown
    assert "70.00%" in shown
    assert "–" in shown
    assert max(map(len, shown.splitlines())) <= 80
