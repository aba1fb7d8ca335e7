"""What a study leaves: its table, a page that needs nothing else, its best recipe; and grids."""

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark import registry
from benchmark.data.dataset import FaceSet
from benchmark.experiment.space import RATE, point_of
from benchmark.tracking.mirror import TrialView, best_trial
from benchmark.tuning.search import (
    FRESH_SEEDS,
    finalists,
    fresh_scores,
    grid_faces,
    grid_study,
    search,
    write_grid,
    write_outcome,
)
from benchmark.tuning.study import TRIAL_SEED, TrialQueue
from tests.tuning.planted import EXPERIMENT, SPACE, a_study, scored

pytestmark = pytest.mark.filterwarnings("ignore")  # optuna and plotly warn of each other
GRID = registry.grid("grid-mtl-vgg16-block5")


def complete(number: int, value: float, rate: float) -> TrialView:
    return TrialView(number, "complete", {**point_of(EXPERIMENT, SPACE), RATE: rate}, value)


def test_a_study_leaves_a_table_a_page_and_its_recipe(tmp_path: Path, drawn_faces: FaceSet) -> None:
    points = (point_of(EXPERIMENT, SPACE),)
    study = a_study(tmp_path, drawn_faces, sampler="random", points=points)
    queue = TrialQueue(study)
    list(search(queue, scored(), 1))
    outcome = write_outcome(study, queue)
    assert outcome.recipe is None
    assert "no trial beat the definition itself" in outcome.remark
    list(search(queue, scored(), 9))
    best = write_outcome(study, queue).best
    assert best is not None
    table = pd.read_csv(study.own_folder / "trials.csv")
    before = ["number", "state", "value", "duration"]
    assert list(table.columns) == [*before, *sorted(SPACE.paths), "run"]
    assert len(table) == 9
    assert table["value"].max() == pytest.approx(best.value)
    page = (study.own_folder / "study.html").read_text(encoding="utf-8")
    assert re.findall(r"<(?:script|link|img)[^>]+(?:src|href)\s*=", page) == []
    assert page.count("plotly-graph-div") == 5
    assert "Synthetic faces" in page
    recipe = json.loads((study.own_folder / "recipe.json").read_text(encoding="utf-8"))
    assert recipe["trial"] == best.number
    assert recipe["tuned"]["recipe"]["learning_rate"] == best.point[RATE]
    assert recipe["untuned"] is None
    assert recipe["sessions"][0]["sampler"] == "random"
    assert recipe["trials"] == {"complete": 9, "pruned": 0, "failed": 0}


def test_scores_that_differ_by_rounding_are_a_tie_that_the_earliest_wins() -> None:
    trials = [complete(0, 0.7, 1e-4), complete(1, 0.1 + 0.7, 2e-4), complete(2, 0.8 + 2e-16, 3e-4)]
    assert trials[1].value != trials[2].value
    assert best_trial(trials) == trials[1]


def test_fresh_seeds_decide_between_the_two_best(tmp_path: Path, drawn_faces: FaceSet) -> None:
    """A lucky trial seed is all that is good about the recipe of the highest rate."""
    seeds, said = list[int](), list[str]()

    def lucky(point: Any, number: int, seed: int = TRIAL_SEED) -> Generator[Any]:
        seeds.append(seed)
        yield f"{number:064d}"
        yield 0, 0.7 - point[RATE] + 10 * point[RATE] * (seed == TRIAL_SEED)

    study = a_study(tmp_path, drawn_faces, sampler="random")
    alike = [complete(0, 0.5, 1e-4), complete(1, 0.8, 2e-4), complete(2, 0.79, 2e-4)]
    assert [trial.number for trial in finalists(study, alike)] == [1, 0], "of another recipe"
    queue = TrialQueue(study)
    list(search(queue, lucky, 5))
    fresh = fresh_scores(study, lucky, queue.trials(), said.append)
    assert seeds == [TRIAL_SEED] * 5 + [*FRESH_SEEDS] * 2
    assert len(said) == 6
    outcome = write_outcome(study, queue, fresh)
    chosen, recipe = outcome.best, outcome.recipe
    assert chosen
    assert recipe
    assert chosen != best_trial(queue.trials())
    assert (recipe["trial"], recipe["value"]) == (chosen.number, chosen.value)
    assert [len(item["by_seed"]) for item in recipe["fresh_seeds"]] == [3, 3]


def test_a_tenth_trains_and_a_twentieth_validates(drawn_faces: FaceSet) -> None:
    faces = grid_faces(drawn_faces)
    counts = faces.table["part"].value_counts()
    assert (counts["train"], counts["val"]) == (24, 12)
    assert faces.split_digest != drawn_faces.split_digest
    assert (drawn_faces.table["part"][faces.table["part"] == "train"] == "train").all()
    assert grid_faces(drawn_faces).table.equals(faces.table)


def test_rows_of_a_grid_add_up_and_ours_stand_beside_the_studys(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    for n_wanted, name in ((4, "32"), (8, "64")):
        study = grid_study(GRID, {}, [name], drawn_faces, tmp_path)
        queue = TrialQueue(study)
        list(search(queue, scored(lambda point, _: 0.4 + point[RATE]), n_wanted))
    trials = queue.trials()
    assert [trial.state for trial in trials] == ["complete"] * 8
    assert len({tuple(trial.point.values()) for trial in trials}) == 8
    write_grid(study, GRID, trials)
    table = pd.read_csv(study.own_folder / "grid.csv")
    assert list(table) == ["recipe.batch_size", RATE, "ours", "study"]
    row = table[(table["recipe.batch_size"] == 32) & (table[RATE] == 1e-4)].iloc[0]
    assert (row["ours"], row["study"]) == (pytest.approx(0.4001), 0.684550)
    assert (len(table), table["ours"].isna().sum()) == (16, 8)
    page = (study.own_folder / "grid.html").read_text()
    assert "ours: vgg16, " in page
    assert "the study: vgg16" in page
    assert "https://" not in page.split("plotly.js v")[0]
