"""What a study leaves: its table, pictures, a page that needs nothing else, and its best recipe."""

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.experiment.search_points import point_of
from benchmark.experiment.space import DEPTH, RATE
from benchmark.tuning.outcome import Outcome, reasons, write_outcome
from benchmark.tuning.recipes import best_of, decided, finalists
from benchmark.tuning.search import Limits, Score, Step, compared, search
from benchmark.tuning.study import FRESH_SEEDS, TRIAL_SEED, Study
from benchmark.tuning.trials import Ledger, Told
from tests.tuning.planted import EXPERIMENT, SPACE, a_ledger, a_study, planted

pytestmark = pytest.mark.filterwarnings("ignore")  # optuna and plotly warn of each other


def a_searched(folder: Path, faces: FaceSet, n_trials: int) -> tuple[Study, Ledger]:
    study = a_study(folder, faces, sampler="random")
    ledger = a_ledger(study, f"journal:{folder}/log")
    ledger.queue_first(point_of(EXPERIMENT, SPACE))
    list(search(ledger, planted(), Limits(n_trials)))
    return study, ledger


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, drawn_faces: FaceSet
) -> tuple[Study, Ledger, Outcome]:
    study, ledger = a_searched(tmp_path_factory.mktemp("studies"), drawn_faces, 9)
    return study, ledger, write_outcome(study, EXPERIMENT, ledger)


def test_the_table_has_a_row_for_every_trial(searched: tuple[Study, Ledger, Outcome]) -> None:
    study, ledger, _ = searched
    table = pd.read_csv(study.own_folder / "trials.csv")
    assert len(table) == len(ledger.trials()) == 9
    assert {"trial", "state", "value", RATE, DEPTH, "run", "reason"} <= set(table.columns)
    assert table["value"].max() == pytest.approx(max(t.value or 0 for t in ledger.trials()))


def test_the_page_needs_no_network(searched: tuple[Study, Ledger, Outcome]) -> None:
    page = (searched[0].own_folder / "study.html").read_text(encoding="utf-8")
    assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)\s*=", page) == []
    assert page.count("plotly-graph-div") == 5
    assert "<tr class='best'>" in page
    assert "Drawn faces" in page


def test_the_recipe_is_that_of_the_best_trial(searched: tuple[Study, Ledger, Outcome]) -> None:
    study, _, outcome = searched
    recipe = json.loads((study.own_folder / "recipe.json").read_text(encoding="utf-8"))
    assert outcome.best is not None
    assert recipe["trial"] == outcome.best.number
    assert recipe["tuned"]["recipe"]["learning_rate"] == outcome.best.point[RATE]
    assert recipe["untuned"] is None
    assert recipe["sessions"][0]["sampler"] == "random"
    assert recipe["sessions"][0]["optuna"]


def test_where_nothing_beats_the_definition_there_is_no_recipe(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    study, ledger = a_searched(tmp_path, drawn_faces, 1)
    outcome = write_outcome(study, EXPERIMENT, ledger)
    assert outcome.recipe is None
    assert "no trial beat the definition itself" in " ".join(outcome.remarks)


def complete(number: int, value: float, rate: float) -> Told:
    point = {**point_of(EXPERIMENT, SPACE), RATE: rate}
    return Told(number, "complete", point, value, {})


def test_scores_that_differ_by_rounding_are_a_tie_that_the_earliest_wins() -> None:
    trials = [complete(0, 0.7, 1e-4), complete(1, 0.1 + 0.7, 2e-4), complete(2, 0.8 + 2e-16, 3e-4)]
    assert trials[1].value != trials[2].value
    best = best_of(trials)
    assert best is not None
    assert best.number == 1


def test_the_runner_up_is_the_best_of_another_recipe(tmp_path: Path, drawn_faces: FaceSet) -> None:
    trials = [complete(0, 0.5, 1e-4), complete(1, 0.8, 2e-4), complete(2, 0.79, 2e-4)]
    found = finalists(a_study(tmp_path, drawn_faces), trials)
    assert [trial.number for trial in found] == [1, 0]


def test_fresh_seeds_decide_between_the_best_and_the_runner_up(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    """A lucky trial seed is all that is good about the recipe of the highest rate."""
    seeds = []

    def lucky(point: Any, number: int, seed: int = TRIAL_SEED) -> Generator[Step]:
        seeds.append(seed)
        true = 0.7 - point[RATE]
        yield Score(0, true + 10 * point[RATE] * (seed == TRIAL_SEED), is_last=True)

    study = a_study(tmp_path, drawn_faces, sampler="random")
    ledger = a_ledger(study)
    list(search(ledger, lucky, Limits(5)))
    events = compared(lucky, finalists(study, ledger.trials()))
    said = []
    while True:
        try:
            said.append(next(events))
        except StopIteration as ended:
            fresh = ended.value
            break
    assert seeds == [TRIAL_SEED] * 5 + [*FRESH_SEEDS] * 2
    assert len(said) == 6
    by_trial_seed, by_fresh_seeds = best_of(ledger.trials()), decided(fresh)
    assert by_trial_seed is not None
    assert by_fresh_seeds is not None
    assert by_fresh_seeds.number != by_trial_seed.number
    recipe = write_outcome(study, EXPERIMENT, ledger, fresh).recipe
    assert recipe is not None
    assert recipe["trial"] == by_fresh_seeds.number
    assert [len(item["by_seed"]) for item in recipe["fresh_seeds"]] == [3, 3]


def test_reasons_are_counted() -> None:
    failed = [Told(n, "failed", {}, None, {}, reason="too high") for n in range(3)]
    assert reasons([*failed, Told(3, "complete", {}, 0.5, {})]) == ["3 × too high"]


def test_a_search_without_a_good_trial_leaves_its_table(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    def broken(point: object, number: int) -> object:
        raise RunError("no")

    study = a_study(tmp_path, drawn_faces)
    ledger = a_ledger(study, f"journal:{tmp_path}/log")
    list(search(ledger, broken, Limits(2)))  # type: ignore[arg-type]
    outcome = write_outcome(study, EXPERIMENT, ledger)
    assert outcome.best is None
    assert [path.name for path in outcome.files] == ["trials.csv"]
