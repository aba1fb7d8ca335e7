"""The subset study: arms paired on their people, systems routed face by face, all corrected."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.errors import RunError
from benchmark.experiment import Backbone, Experiment, Head, Recipe, Subset
from benchmark.results.predictions import predictions_table, write_predictions
from benchmark.results.subset_answer import notes
from benchmark.results.subset_study import study
from benchmark.tasks import TaskName, n_classes
from tests.results.conftest import RunBuilder, certain, made_up_faces

EVERYONE = Experiment(
    name="age_group-cnn-none-full-steps",
    asks="Who reads best?",
    backbone=Backbone("cnn"),
    head=Head(tasks=("age_group",)),
    recipe=Recipe(learning_rate=1e-3),
)
ROUTER = EVERYONE.varied(name="gender-cnn-none-full-steps", **{"head.tasks": ("gender",)})
N = 200


def an_arm(subset: Subset) -> Experiment:
    return EVERYONE.varied(name=f"{EVERYONE.name}-{subset.ending}", subset=subset)


WOMEN, MEN = Subset(gender="female"), Subset(gender="male")
ARMS = {
    (people.label, training): an_arm(replace(people, training=training))
    for people in (WOMEN, MEN)
    for training in ("subset", "everyone", "size_matched")
}
ALL = [EVERYONE, ROUTER, *ARMS.values()]


def answered(faces: pd.DataFrame, right: Any, task: TaskName) -> pd.DataFrame:
    """Answer rightly where `right`, else with the next class; test part only."""
    classes = (faces[task] + ~np.asarray(right)) % n_classes(task)
    return predictions_table(faces, "test", {task: certain(classes, task)})


def with_validation(table: pd.DataFrame) -> pd.DataFrame:
    validation = table.head(5).assign(part="val")
    return pd.concat([validation, table], ignore_index=True)


def a_run(runs: RunBuilder, experiment: Experiment, right: Any, *, seed: int = 0) -> None:
    """Finish a run on its people's faces, of 200; `right` tells for all 200 what it reads."""
    faces = made_up_faces(N, seed=2)
    task = experiment.head.tasks[0]
    own = np.ones(N, dtype=bool)
    if experiment.subset is not None:
        own = (faces["gender"] == (experiment.subset.gender == "female")).to_numpy()
    record = runs.done(
        experiment, with_validation(answered(faces[own], right[own], task)), seed=seed
    )
    if experiment.subset is not None and experiment.subset.training == "subset":
        write_predictions(record.outside_path, answered(faces[~own], right[~own], task))


def first(n: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.arange(N) < n


def test_a_specialist_is_paired_with_both_other_arms(runs: RunBuilder) -> None:
    women = made_up_faces(N, seed=2)["gender"] == 1
    for (label, training), arm in ARMS.items():
        if label == "women":
            a_run(runs, arm, first(150) if training == "subset" else first(100))
    result = study(runs.records(), ALL, "utkface-100").subsets[0]
    assert result.n_test == women.sum()
    # the specialist reads the women among faces 100 to 149 besides, and nobody less
    gained = women[100:150].sum()
    assert result.against_everyone is not None
    assert result.against_everyone.difference.accuracy == pytest.approx(gained / women.sum())
    assert result.against_everyone.difference.p == pytest.approx(2 * 0.5**gained)
    # two comparisons in the table: the smallest p counts twice (Holm)
    assert result.against_everyone.p_holm == pytest.approx(4 * 0.5**gained)
    assert result.against_everyone.significant


def test_only_seeds_that_all_arms_have_are_compared(runs: RunBuilder) -> None:
    for seed in (0, 1, 2):
        a_run(runs, ARMS["men", "subset"], first(100 + seed), seed=seed)
    for seed in (1, 2):
        a_run(runs, ARMS["men", "everyone"], first(90), seed=seed)
    result = study(runs.records(), ALL, "utkface-100").subsets[0]
    assert result.arms["subset"].seeds == result.arms["everyone"].seeds == (1, 2)
    assert result.against_everyone is not None
    assert result.against_everyone.difference.test == "faces_and_seeds"
    assert result.against_matched is None


def a_system(runs: RunBuilder, router_right: Any) -> None:
    """A women's specialist that reads all women and no man, a men's the other way round."""
    women = (made_up_faces(N, seed=2)["gender"] == 1).to_numpy()
    a_run(runs, ARMS["women", "subset"], women)
    a_run(runs, ARMS["women", "everyone"], first(100))
    a_run(runs, ARMS["men", "subset"], ~women)
    a_run(runs, ARMS["men", "everyone"], first(100))
    a_run(runs, EVERYONE, first(100))
    a_run(runs, ROUTER, router_right)


def test_a_face_sent_to_the_wrong_specialist_gets_that_ones_answer(runs: RunBuilder) -> None:
    a_system(runs, ~first(20))
    (system,) = study(runs.records(), ALL, "utkface-100").systems
    assert system.misrouted_fraction == pytest.approx(0.1)
    assert system.routed.accuracy == pytest.approx(0.9), "each misrouted face is misread"
    assert system.oracle_accuracy == pytest.approx(1.0)
    assert system.single.accuracy == pytest.approx(0.5)
    assert system.against_single is not None
    assert system.against_single.difference.accuracy == pytest.approx(0.4)


def test_specialists_that_miss_a_face_are_refused(runs: RunBuilder) -> None:
    a_system(runs, first(N))
    faces = made_up_faces(N, seed=2)
    specialist = next(
        record for record in runs.records() if record.experiment_name == f"{EVERYONE.name}-women"
    )
    men = faces[faces["gender"] == 0].iloc[1:]
    write_predictions(
        specialist.outside_path, answered(men, np.ones(len(men), dtype=bool), "age_group")
    )
    with pytest.raises(RunError, match="answers on 199 test faces and not on the 200"):
        study(runs.records(), ALL, "utkface-100")


def test_what_was_not_run_is_named_and_nothing_at_all_is_an_error(runs: RunBuilder) -> None:
    with pytest.raises(RunError, match="no subset has finished runs of two arms"):
        study([], ALL, "utkface-100")
    a_run(runs, ARMS["women", "subset"], first(80))
    a_run(runs, ARMS["women", "size_matched"], first(80))
    found = study(runs.records(), ALL, "utkface-100")
    assert ARMS["women", "everyone"].name in found.missing
    assert ARMS["women", "subset"].name not in found.missing
    assert found.systems == ()


def test_missing_experiments_are_listed_with_their_common_beginning_once(runs: RunBuilder) -> None:
    a_run(runs, ARMS["women", "subset"], first(80))
    a_run(runs, ARMS["women", "size_matched"], first(80))
    said = notes(study(runs.records(), list(ARMS.values()), "utkface-100"))[-1]
    assert said == (
        "Not run: age_group-cnn-none-full-steps-… women-everyone, men, men-everyone, men-matched."
    )
