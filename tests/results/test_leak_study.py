"""The leak study: faces by how they were met, and steps as paired changes on common faces."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmark import registry
from benchmark.cli.leaderboard_table import render
from benchmark.comparison.cells import name_text
from benchmark.comparison.leaderboard import Leaderboard, build
from benchmark.comparison.leak_study import LeakStudy, NetworkLeak, leak_data, leak_page, leak_study
from benchmark.comparison.library import Library, read_run
from benchmark.errors import RunError
from benchmark.evaluation.figures import Caption
from benchmark.evaluation.predictions import predictions_table, write_predictions
from benchmark.experiment.definition import Experiment
from benchmark.reporting.board_tables import markdown as markdown_board
from benchmark.reporting.figures import study_figure
from benchmark.runs.notes import run_name
from benchmark.tasks import TASKS
from tests.results.conftest import RunBuilder, certain, made_up_faces

LABEL = "mtl-cnn-none-full-until99"
SUITE = [item for item in registry.experiments_of("leak") if item.name.startswith(LABEL)]
N = 100


OWN, LEAK_FREE = made_up_faces(N, seed=2), made_up_faces(N, seed=2)
LEAK_FREE["file"] = [f"free-{name}" for name in LEAK_FREE["file"]]
LEAK_FREE["cluster"] += N
"""The test faces of the leaking split, and those of the leak-free one."""


def predicted(faces: pd.DataFrame, n_right: int) -> pd.DataFrame:
    """Predict every task of the first `n_right` faces rightly, of the others wrongly."""
    wrong = np.arange(len(faces)) >= n_right
    answers = {task: certain((faces[task] + wrong) % (2 if task == "gender" else 5), task)
               for task in TASKS}  # fmt: skip
    return predictions_table(faces, "test", answers)


def a_run(
    runs: RunBuilder,
    experiment: Experiment,
    n_right: int,
    *,
    seed: int = 0,
    on_leak_free: int | None = None,
) -> None:
    """Finish a run; a leaky one predicts the leak-free test faces besides, if `on_leak_free`."""
    faces = OWN if experiment.protocol.split == "published-1" else LEAK_FREE
    table = predicted(faces, n_right)
    record = runs.done(
        experiment,
        pd.concat([table.head(5).assign(part="val"), table], ignore_index=True),
        seed=seed,
        leaky=experiment.protocol.leaky,
    )
    fitted = {f"fitted/{task}/accuracy": [0.5, 0.995] for task in TASKS}
    pd.DataFrame({"epoch": [1, 2], **fitted}).to_csv(record.folder / "history.csv", index=False)
    if experiment.protocol.leaky:
        met = np.repeat(["seen", "related", "clean"], [70, 10, 20])
        exposure = pd.DataFrame({"file": faces["file"], "exposure": met})
        exposure.to_csv(record.exposure_path, index=False)
        if on_leak_free is not None:
            write_predictions(record.outside_path, predicted(LEAK_FREE, on_leak_free))


def studied(runs: RunBuilder, suite: list[Experiment] = SUITE) -> LeakStudy:
    read = tuple(read_run(record) for record in runs.records())
    library = Library(read, registry.experiments(), registry.suites())
    return leak_study(library, suite, "utkface-100")


GROUPS = {item.name.rpartition("-")[2]: item for item in SUITE}


@pytest.fixture
def memorised(runs: RunBuilder) -> RunBuilder:
    """A network that knows what it saw, and half of what it did not."""
    for seed in (0, 1):
        a_run(runs, GROUPS["published"], 90, seed=seed, on_leak_free=86 + seed)
        a_run(runs, GROUPS["duplicates"], 60 + seed, seed=seed)
        a_run(runs, GROUPS["honest"], 50, seed=seed)
    return runs


def steps(network: NetworkLeak) -> dict[str, tuple[str, float | None]]:
    return {
        step.key: (step.title, step.changes["race"].mean if step.changes else None)
        for step in network.steps
    }


def test_the_honest_number_is_that_of_the_faces_never_met(memorised: RunBuilder) -> None:
    (network,) = studied(memorised).networks
    # 70 seen and 10 related faces are right, and the first 10 of the 20 never met
    found = {score.key: score for score in network.scores}
    told = {
        key: (found[key].n_test, found[key].rates["race"].mean)
        for key in ("seen", "related", "clean")
    }
    assert told == {"seen": (70, 1.0), "related": (10, 1.0), "clean": (20, 0.5)}
    assert found["published"].rates["race"].mean == pytest.approx(0.9)
    assert [key for key, score in found.items() if not score.leaky] == ["clean", "honest"]


def test_every_model_of_the_chain_is_scored_on_the_same_faces(memorised: RunBuilder) -> None:
    (network,) = studied(memorised).networks
    assert network.score("common").rates["race"].mean == pytest.approx(0.865)
    told = steps(network)
    assert told["common"] == ("test population", pytest.approx(0.865 - 0.9))
    assert told["duplicates"] == ("training set", pytest.approx(0.605 - 0.865))
    assert told["batches"] == ("batching", None), "not run"
    title, change = told["honest"]
    assert title == "batching, input scaling, selection, together"
    assert change == pytest.approx(0.5 - 0.605)
    step = network.steps[1].changes["gender"]
    # 25 or 26 of 100 faces move: at least the binomial spread of their paired difference
    assert step.high - step.low > 2 * 1.96 * 0.8 * np.sqrt(0.26 * 0.74 / N)
    assert step.over_seeds


def test_a_steps_interval_grows_with_the_spread_over_seeds(runs: RunBuilder) -> None:
    def width(spread: int, folder: str) -> float:
        builder = RunBuilder(runs.runs_dir / folder)
        for seed in (0, 1, 2):
            a_run(builder, GROUPS["published"], 90, seed=seed, on_leak_free=90)
            a_run(builder, GROUPS["honest"], 50 + spread * (seed - 1), seed=seed)
        step = studied(builder).networks[0].steps[-1].changes["race"]
        assert step.mean == pytest.approx(-0.4)
        return step.high - step.low

    assert width(15, "wide") > 1.5 * width(0, "narrow")


def test_leaky_runs_without_predictions_on_the_leak_free_faces_change_the_population_too(
    runs: RunBuilder,
) -> None:
    """Such are runs of an earlier version: two independent samples of faces are compared."""
    a_run(runs, GROUPS["published"], 90)
    a_run(runs, GROUPS["honest"], 50)
    study = studied(runs)
    (network,) = study.networks
    assert network.score("common") is None
    change = network.steps[-1].changes["race"]
    assert change.mean == pytest.approx(-0.4)
    # unpaired: the variances of both samples add
    half = (change.high - change.low) / 2
    assert half == pytest.approx(1.98 * np.sqrt((0.9 * 0.1 + 0.5 * 0.5) / N), rel=0.03)
    assert not change.over_seeds
    page = leak_page(study)
    assert any("of these trainings alone" in note for note in page.notes)
    table = page.tables[1]
    assert table.rows[0] == ("LEAKY · test population", *["not run"] * 3)
    assert table.rows[-1][0].startswith("LEAKY · test population, training set, batching")


def test_one_seed_against_several_compares_the_seed_that_both_have(runs: RunBuilder) -> None:
    for seed in (0, 1):
        a_run(runs, GROUPS["published"], 90, seed=seed, on_leak_free=80 + 10 * seed)
    a_run(runs, GROUPS["honest"], 50, seed=1)
    change = studied(runs).networks[0].steps[-1].changes["race"]
    assert change.mean == pytest.approx(0.5 - 0.9)
    assert not change.over_seeds


def test_two_runs_of_the_studys_network_make_the_headline(runs: RunBuilder) -> None:
    suite = list(registry.experiments_of("headline"))
    a_run(runs, suite[0], 92, on_leak_free=90)
    a_run(runs, suite[1], 60)
    study = studied(runs, suite)
    (network,) = study.networks
    assert study.missing == ("mtl-vgg16-imagenet-full",)
    table = leak_page(study).tables[0]
    assert [row[0] for row in table.rows] == [
        "LEAKY · printed by the study, row 2.2",
        "LEAKY · our replay, on its own test faces",
        "LEAKY · of these, met in training",
        "LEAKY · of these, met in validation or as another picture of the cluster",
        "of these, never met",
        "LEAKY · our replay, on the leak-free test faces",
        "honest: trained, selected and tested without the leak",
    ]
    assert table.rows[0][2:] == ("90.3", "97.6", "92.5")
    assert [row[2].split(" ")[0] for row in table.rows[1:]] == [
        "92.0", "100.0", "100.0", "60.0", "90.0", "60.0"
    ]  # fmt: skip
    (said, honest) = leak_page(study).sentences
    assert "the study printed 90.3 / 97.6 / 92.5 % for its row 2.2" in said.words
    assert "100.0 / 100.0 / 100.0 % on the 70 test faces met in training" in said.words
    assert "60.0 / 60.0 / 60.0 % on the 20 test faces never met" in said.words
    assert honest.words.endswith("against the leaky score −32.0 / −32.0 / −32.0 pp.")
    (picture,) = leak_page(study).pictures
    figure = study_figure(picture, study.dataset, drawn=study.drawn)
    assert "row 2.2" in figure.axes[0].get_yticklabels()[0].get_text()


def test_what_is_not_the_studys_is_not_called_so(memorised: RunBuilder) -> None:
    study = studied(memorised)
    text = leak_page(study).markdown()
    assert "as published" not in text
    assert "Its recipe is not: schedule cosine, batches of 64, faces of 32 px." in text


def test_one_condition_by_itself_is_against_the_replay(memorised: RunBuilder) -> None:
    for seed in (0, 1):
        a_run(memorised, GROUPS["only_batches"], 95, seed=seed)
    (alone,) = studied(memorised).networks[0].alone
    assert alone.title == "batching: drawn anew each epoch"
    assert alone.changes["gender"].mean == pytest.approx(0.05)


def test_leaky_stands_on_everything_that_is(memorised: RunBuilder) -> None:
    study = studied(memorised)
    page = leak_page(study)
    assert page.heading.startswith("LEAKY · ")
    assert all(table.caption.startswith("LEAKY · ") for table in page.tables)
    assert all(
        row[0].startswith("LEAKY · ") == ("never met" not in row[0] and "honest" not in row[0])
        for row in page.tables[0].rows
    )
    assert "LEAKY 90.0 / 90.0 / 90.0 %" in page.sentences[0].words
    figure = study_figure(page.pictures[0], study.dataset, drawn=study.drawn)
    assert figure.get_suptitle().startswith("LEAKY")
    json.dumps(leak_data(study))


def test_an_exposure_about_other_faces_is_refused(memorised: RunBuilder) -> None:
    for record in memorised.records():
        if record.exposure_path.exists():
            table = pd.read_csv(record.exposure_path).iloc[1:]
            table.to_csv(record.exposure_path, index=False)
    with pytest.raises(RunError, match="not about its test faces"):
        studied(memorised)


def test_without_a_published_run_there_is_nothing_to_take_apart(runs: RunBuilder) -> None:
    a_run(runs, GROUPS["honest"], 50)
    with pytest.raises(RunError, match="no network was run under the protocol `published`"):
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
