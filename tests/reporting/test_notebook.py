"""What a notebook gets: the rows of the available runs, typed objects and pandas tables; and
docs/quickstart.ipynb, executed."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import benchmark
from benchmark import leaderboard, load_run, registry
from benchmark.cli.main import app
from benchmark.comparison.rows import Row
from benchmark.errors import RunError
from benchmark.files import write_json, write_text
from benchmark.registry import named
from benchmark.reporting.columns import FIELDS
from benchmark.reporting.leaderboards import FORMATS, write_board
from benchmark.reporting.notebook import Board
from tests.conftest import ROOT
from tests.made_runs import RunBuilder, an_experiment, exact_predictions

GENDER = registry.experiment("gender-cnn-none-full-short")


def one_run(runs: RunBuilder, *, seed: int = 0) -> str:
    predictions = exact_predictions(70, 80, tasks=("gender",))
    return runs.done(GENDER, predictions, seed=seed).identity


def shown(runs: RunBuilder, *suites: str, **options: Any) -> Board:
    return leaderboard(*suites, runs_dir=runs.runs_dir, data_dir=runs.runs_dir, **options)


def test_importing_the_package_and_asking_its_commands_for_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, benchmark, benchmark.errors\n"
        "heavy = {'torch', 'pandas', 'numpy', 'mlflow', 'benchmark.reporting.notebook'}\n"
        "heavy &= set(sys.modules)\n"
        "import benchmark.cli.compare, benchmark.cli.report, benchmark.cli.registry\n"
        "heavy |= {'torch', 'sklearn', 'statsmodels', 'mlflow', 'timm'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"leaderboard", "load_run"} <= set(dir(benchmark))
    with pytest.raises(AttributeError, match="has no attribute 'moon'"):
        _ = benchmark.moon


def test_tuned_experiments_are_on_leaderboards_and_can_be_loaded(runs: RunBuilder) -> None:
    tuned = named(GENDER, GENDER.adjusted({"recipe.learning_rate": 2e-4}), "tuned")
    recipe = {"schema": 1, "base": GENDER.name, "tuned": tuned.as_dict()}
    write_json(runs.runs_dir / "tuned/recipe.json", recipe)
    runs.done(tuned, exact_predictions(70, 80, tasks=("gender",)))
    board = shown(runs, "tuned")
    assert tuned.name in set(board.table["experiment"])
    assert load_run(tuned.name, runs_dir=runs.runs_dir).name == tuned.name
    assert tuned.name not in registry.experiments()


def test_a_leaderboard_is_rows_and_a_table_of_one_data_set(runs: RunBuilder) -> None:
    one_run(runs)
    board = shown(runs, "quick")
    assert isinstance(board.rows[0], Row)
    assert list(board.table.columns) == list(FIELDS)
    line = board.table.query("table == 'gender'").iloc[0]
    assert (line["experiment"], line["gender_accuracy"]) == (GENDER.name, pytest.approx(0.8))
    assert line["parameters"] == 722_496
    assert pd.isna(line["race_accuracy"])
    assert "| 1 | gender-cnn" in board._repr_markdown_()
    assert board.html().startswith("<!doctype html>")
    one_run(RunBuilder(runs.runs_dir, runs.dataset | {"name": "other", "pixel_digest": "1" * 64}))
    with pytest.raises(RunError, match="other, utkface-100"):
        shown(runs)
    assert shown(runs, dataset="other").leaderboard.dataset == "other"


def test_several_suites_share_their_tables_and_each_row_stands_once(
    runs: RunBuilder, tmp_path: Path
) -> None:
    one_run(runs)
    board = shown(runs, "quick", "depth", "quick").leaderboard
    names = [row.name for table in board.tables for row in table.rows]
    quick, depth = (set(registry.suite(name).experiments) for name in ("quick", "depth"))
    assert sorted(names) == sorted(quick | depth)
    name = "mtl-squeezenet1_1-imagenet-frozen-short"
    assert [suite for suite, ours in board.suites.items() if name in ours] == ["quick", "depth"]
    files = [path.name for path in write_board(board, tmp_path / "out")]
    assert files == [f"leaderboard-utkface-100-quick+depth.{ending}" for ending in FORMATS]


def test_runs_on_the_older_split_are_shown_and_never_pooled_with_those_on_the_current(
    runs: RunBuilder,
) -> None:
    one_run(runs)
    split = {"split_version": "leak-free-1", "split_digest": "11" * 32}
    older = RunBuilder(runs.runs_dir, runs.dataset | split)
    was_run = GENDER.varied(name=GENDER.name, **{"protocol.split": "leak-free-1"})
    older.done(was_run, exact_predictions(60, 80, tasks=("gender",)), seed=1)
    lines = shown(runs).table.query("seeds != ''")[["split_version", "seeds"]].to_numpy().tolist()
    assert sorted(lines) == [["leak-free-1", "1"], ["leak-free-2", "0"]]


def test_what_cannot_be_shown_is_counted_and_said_in_few_lines(runs: RunBuilder) -> None:
    write_text(runs.runs_dir / "work/0abc/experiment.json", '{"schema": 0}')
    with pytest.raises(RunError, match="no run to show .*has schema 0"):
        shown(runs)
    record = runs.begun(GENDER, seed=2)
    write_text(record.folder / "history.csv", "epoch,val/combined\n1,0.5\n2,0.6\n")
    stranger = an_experiment("stranger", tasks=("race",), **{"recipe.learning_rate": 7e-3})
    runs.begun(stranger)
    for number in range(1, 9):
        write_text(runs.runs_dir / f"work/{number}abc/experiment.json", '{"schema": 0}')
    board = shown(runs).leaderboard
    notes = [note for note in board.notes if note.startswith("Left out")]
    assert len(notes) == 5
    assert "has schema 0" in notes[0]
    assert notes[3] == "Left out, not readable either: 6 more runs."
    assert notes[4] == f"Left out: 1 run of experiments not registered here ({stranger.name})."
    done = f"2 of {GENDER.recipe.max_epochs} epochs done"
    (row,) = board.tables[0].rows
    assert row.remarks == (f"seed 2 was interrupted or is still running ({done})",)


def test_a_run_is_loaded_by_id_or_by_name_and_seed_with_its_figures(runs: RunBuilder) -> None:
    first, second = (one_run(runs, seed=seed) for seed in (0, 1))
    run = load_run(first[:10], runs_dir=runs.runs_dir)
    assert (run.identity, run.name, run.seed, run.tasks) == (first, GENDER.name, 0, ("gender",))
    assert load_run(GENDER.name, seed=1, runs_dir=runs.runs_dir).identity == second
    assert run.metrics["test/gender/accuracy"] == pytest.approx(0.8)
    counts = run.confusion("gender").to_numpy()
    assert (counts.trace(), counts.sum(), len(run.predictions)) == (80, 100, 200)
    with pytest.raises(RunError, match="does not predict 'race'"):
        run.confusion("race")
    Image.new("RGB", (7, 5)).save(run.run.record.folder / "curves.png")
    assert run.figure("curves").size == (7, 5)
    with pytest.raises(RunError, match=r"no figure 'confusion' \(allowed: curves\)"):
        run.figure("confusion")


def test_what_is_no_one_run_is_refused(runs: RunBuilder, tmp_path: Path) -> None:
    for seed in (0, 1):
        one_run(runs, seed=seed)
    empty = tmp_path / "empty"
    for asked, seed, where, said in (
        (GENDER.name, None, runs.runs_dir, "has 2 such finished runs"),
        (GENDER.name, 7, runs.runs_dir, "has no such finished run"),
        (GENDER.name[:-1], None, runs.runs_dir, f"Did you mean {GENDER.name}"),
        ("x", None, empty, "facebench run --suite quick"),
    ):
        with pytest.raises(RunError, match=said):
            load_run(asked, seed=seed, runs_dir=where)
    with pytest.raises(RunError, match="facebench run --suite quick"):
        leaderboard(runs_dir=empty)


def code_cells() -> list[dict[str, Any]]:
    """Read the cells of the quickstart that are executed."""
    book = json.loads((ROOT / "docs/quickstart.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def test_the_quickstart_carries_the_outputs_of_its_cells() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [out.get("data", {"text": ""}) for cell in cells for out in cell["outputs"]]
    assert {"text", "text/html", "text/markdown", "image/png"} < set().union(*outputs)


@pytest.mark.slow
def test_the_quickstart_runs_from_its_first_cell_to_its_last(
    drawn_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").symlink_to(drawn_data_dir)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for source in ("".join(cell["source"]) for cell in code_cells()):
        if source.startswith("!facebench "):
            result = CliRunner().invoke(app, shlex.split(source.removeprefix("!facebench ")))
            assert result.exit_code == 0, result.output
        else:
            exec(source, names)
    experiments = set(names["board"].table["experiment"])
    assert {"mtl-cnn-none-full-demo-32px", "mtl-cnn-none-frozen-demo"} < experiments
