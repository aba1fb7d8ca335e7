"""What a study leaves: its table, pictures, a page that needs nothing else, and its best recipe."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from benchmark.errors import RunError
from benchmark.experiment_ranges import DEPTH, RATE
from benchmark.experiment_search import point_of
from benchmark.faces.store import FaceSet
from benchmark.tuning.ledger import Ledger, Told
from benchmark.tuning.outcome import Outcome, reasons, write_outcome
from benchmark.tuning.search import Limits, search
from benchmark.tuning.study import Study
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


def test_there_are_pictures_and_one_page(searched: tuple[Study, Ledger, Outcome]) -> None:
    names = {path.name for path in searched[2].files}
    assert {"history.png", "slice.png", "importance.png", "contour.png", "study.html"} <= names
    assert all(path.stat().st_size > 1000 for path in searched[2].files if path.suffix == ".png")


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
