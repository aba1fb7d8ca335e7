"""The leak study: faces told apart by how they were met, and steps told with their signs."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark import registry
from benchmark.cli.leaderboard_table import render
from benchmark.errors import RunError
from benchmark.experiment import Experiment
from benchmark.results.cells import name_text
from benchmark.results.figures import Caption
from benchmark.results.formats import markdown as markdown_board
from benchmark.results.leaderboard import Leaderboard, build
from benchmark.results.leak_answer import change_text, mark, markdown, sentences
from benchmark.results.leak_figures import waterfall_figure
from benchmark.results.leak_study import Change, LeakStudy, Rate, change, leak_study
from benchmark.results.library import Library
from benchmark.results.predictions import predictions_table
from benchmark.results.rows import read_run
from benchmark.run_notes import run_name
from benchmark.tasks import TASKS
from tests.results.conftest import RunBuilder, certain, made_up_faces

LABEL = "mtl-cnn-none-full-until99"
SUITE = [item for item in registry.experiments_of("leak") if item.name.startswith(LABEL)]
N = 100


def a_run(runs: RunBuilder, experiment: Experiment, right: Any, *, seed: int) -> None:
    """Finish a run that reads the test faces `right` rightly on every task."""
    faces = made_up_faces(N, seed=2)
    wrong = ~np.asarray(right)
    answers = {task: certain((faces[task] + wrong) % (2 if task == "gender" else 5), task)
               for task in TASKS}  # fmt: skip
    table = predictions_table(faces, "test", answers)
    validation = table.head(5).assign(part="val")
    record = runs.done(
        experiment,
        pd.concat([validation, table], ignore_index=True),
        seed=seed,
        leaky=experiment.protocol.leaky,
    )
    fitted = {f"fitted/{task}/accuracy": [0.5, 0.995] for task in TASKS}
    pd.DataFrame({"epoch": [1, 2], **fitted}).to_csv(record.folder / "history.csv", index=False)
    if experiment.protocol.leaky:
        met = np.repeat(["seen", "related", "clean"], [70, 10, 20])
        exposure = pd.DataFrame({"file": faces["file"], "exposure": met})
        exposure.to_csv(record.exposure_path, index=False)


def first(n: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.arange(N) < n


def studied(runs: RunBuilder) -> LeakStudy:
    read = tuple(read_run(record) for record in runs.records())
    library = Library(read, registry.experiments(), registry.suites())
    return leak_study(library, SUITE, "utkface-100")


@pytest.fixture
def memorised(runs: RunBuilder) -> RunBuilder:
    """A network that knows what it saw, and reads half of what it did not."""
    arms = {item.name.rpartition("-")[2]: item for item in SUITE}
    for seed in (0, 1):
        a_run(runs, arms["published"], first(90), seed=seed)
        a_run(runs, arms["split"], first(60 + seed), seed=seed)
        a_run(runs, arms["honest"], first(50), seed=seed)
    return runs


def test_the_honest_number_is_that_of_the_faces_never_met(memorised: RunBuilder) -> None:
    (network,) = studied(memorised).networks
    # 70 seen and 10 related faces are right, and the first 10 of the 20 clean ones
    told = {group.exposure: (group.n, group.rates["race"].mean) for group in network.groups}
    assert told == {"seen": (70, 1.0), "related": (10, 1.0), "clean": (20, 0.5)}
    assert network.arms["published"].rates["race"].mean == pytest.approx(0.9)


def test_a_step_is_against_the_one_run_before_it_and_says_what_it_mends_besides(
    memorised: RunBuilder,
) -> None:
    (network,) = studied(memorised).networks
    assert network.steps["split"]["gender"].mean == pytest.approx(0.605 - 0.9)
    assert "duplicates" not in network.steps
    assert network.steps["honest"]["gender"].mean == pytest.approx(0.5 - 0.605)
    assert mark(network, "honest") == "selected on clean faces, and the 3 steps before it"
    assert mark(network, "split") == "LEAKY · no test file in training"
    assert network.alone["split"]["gender"].mean == pytest.approx(0.605 - 0.9)
    assert network.arms["split"].epochs == (2, 2)


def test_a_change_over_seeds_has_welchs_interval() -> None:
    # means 0.5 and 0.7, both with variance 0.02 over two seeds: se = sqrt(0.02), 2 degrees of
    # freedom, t(0.975) = 4.303: half width 0.6085
    before = Rate(0.5, 0.4, 0.6, (0.4, 0.6))
    after = Rate(0.7, 0.6, 0.8, (0.6, 0.8))
    found = change(before, after)
    assert found.mean == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2 - 0.6085, abs=1e-3)
    assert change(before, Rate(0.7, 0.6, 0.8, (0.7,))).low is None


def test_a_change_is_written_with_a_minus_sign_and_no_hyphen() -> None:
    assert change_text(Change(-0.123, -0.2, 0.01)) == "−12.3 (−20.0 to +1.0)"
    assert change_text(Change(0.0, None, None)) == "0.0"


def test_leaky_stands_on_everything_that_is(memorised: RunBuilder) -> None:
    study = studied(memorised)
    text = markdown(study)
    assert text.startswith("# LEAKY · What a leak is worth")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row for row in rows if "as published" in row] == [
        row for row in rows if row.startswith("| LEAKY · as published")
    ]
    assert not any(row.startswith("| LEAKY") for row in rows if "selected on clean" in row)
    assert "LEAKY 90.0 / 90.0 / 90.0 %" in sentences(study)[0]
    assert "50.0 / 50.0 / 50.0 % on the 20 of them that it never met" in sentences(study)[0]
    figure = waterfall_figure(study.networks[0], study.dataset, drawn=study.drawn)
    assert figure.get_suptitle().startswith("LEAKY")


def test_an_exposure_about_other_faces_is_refused(memorised: RunBuilder) -> None:
    for record in memorised.records():
        if record.exposure_path.exists():
            table = pd.read_csv(record.exposure_path).iloc[1:]
            table.to_csv(record.exposure_path, index=False)
    with pytest.raises(RunError, match="not about its test faces"):
        studied(memorised)


def test_without_a_published_arm_there_is_nothing_to_take_apart(runs: RunBuilder) -> None:
    honest = next(item for item in SUITE if item.name.endswith("-honest"))
    a_run(runs, honest, first(50), seed=0)
    with pytest.raises(RunError, match="no network was run under the study's conditions"):
        studied(runs)


def test_leaky_runs_say_so_in_tables_titles_and_the_tracker(memorised: RunBuilder) -> None:
    leaky = [record for record in memorised.records() if record.about["leaky"]]
    assert all(run_name(record).startswith("LEAKY · ") for record in leaky)
    assert Caption("a", "b", drawn=False, leaky=True).under("Confusion").startswith("LEAKY · ")
    board = build(memorised.records(), SUITE, "utkface-100")
    named = [row for table in board.tables for row in table.rows if row.status == "done"]
    for row in named:
        assert name_text(row).startswith("LEAKY ") == ("-honest" not in row.name)
    for form in (markdown_board(board), rendered(board)):
        for line in form.splitlines():
            assert "until99-published" not in line or "LEAKY" in line or "missing" in line


def rendered(board: Leaderboard) -> str:
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(render(board, 240))
    return console.export_text()
