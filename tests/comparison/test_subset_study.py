"""The subset study: run groups paired on their subset, systems routed face by face."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmark.comparison.library import Library, read_run
from benchmark.comparison.subset_study import subset_page, subset_study
from benchmark.errors import RunError
from benchmark.evaluation.predictions import write_predictions
from benchmark.experiment.definition import Experiment, Subset
from benchmark.tasks import MISSING
from tests.made_runs import RunBuilder, an_experiment, answered, made_up_faces

EVERYONE = an_experiment("steps", tasks=("age_group",))
ROUTER = an_experiment("steps", tasks=("gender",))
WOMEN, MEN = Subset(gender="female"), Subset(gender="male")
N = 200
IS_WOMAN = (made_up_faces(N, seed=2)["gender"] == 1).to_numpy()


def a_group(subset: Subset, base: Experiment = EVERYONE) -> Experiment:
    return base.varied(name=f"{base.name}-{subset.ending}", subset=subset)


GROUPS = {
    (people.label, training): a_group(replace(people, training=training))
    for people in (WOMEN, MEN)
    for training in ("subset", "everyone", "size_matched")
}
ALL = [EVERYONE, ROUTER, *GROUPS.values()]


def a_run(
    runs: RunBuilder, experiment: Experiment, right: Any, *, unlabelled: int = 0, **about: Any
) -> None:
    """Finish a run on its subset's faces, of 200; `right` tells for all 200 what it predicts.
    unlabelled: of the first faces, how many have no gender."""
    faces = made_up_faces(N, seed=2)
    faces.loc[faces.index < unlabelled, "gender"] = MISSING
    task, subset = experiment.head.tasks[0], experiment.subset
    own = (faces[task] != MISSING).to_numpy()
    if subset is not None:
        own = (faces["gender"] == (subset.gender == "female")).to_numpy()
    table = answered(faces[own], right[own], (task,))
    record = runs.done(experiment, pd.concat([table.head(5).assign(part="val"), table]), **about)
    if subset is not None and subset.training == "subset":
        write_predictions(record.outside_path, answered(faces[~own], right[~own], (task,)))


def studied(runs: RunBuilder, experiments: Sequence[Experiment] = ALL) -> Any:
    read = tuple(map(read_run, runs.records()))
    library = Library(read, {item.name: item for item in experiments}, {})
    return subset_study(library, experiments, "utkface-100")


def first(n: int) -> Any:
    return np.arange(N) < n


def test_a_specialist_is_paired_with_both_other_run_groups(runs: RunBuilder) -> None:
    for (label, training), group in GROUPS.items():
        if label == "women":
            a_run(runs, group, first(150) if training == "subset" else first(100))
    found = studied(runs)
    assert found["subsets"][0]["n_test"] == IS_WOMAN.sum()
    # the specialist is right on the women among faces 100 to 149 besides, and on no other less
    gained = IS_WOMAN[100:150].sum()
    against = found["compared"]["women", "everyone"]
    assert against.difference.accuracy == pytest.approx(gained / IS_WOMAN.sum())
    assert against.difference.p == pytest.approx(2 * 0.5**gained)
    # two comparisons of one question: the smallest p counts twice (Holm)
    assert against.p_holm == pytest.approx(4 * 0.5**gained)
    assert against.significant


def test_only_seeds_that_all_run_groups_have_are_compared(runs: RunBuilder) -> None:
    for training, seeds in (("subset", (0, 1, 2)), ("everyone", (1, 2))):
        for seed in seeds:
            a_run(runs, GROUPS["men", training], first(100 + seed), seed=seed)
    found = studied(runs)
    groups = found["subsets"][0]["groups"]
    assert groups["subset"]["seeds"] == groups["everyone"]["seeds"] == (1, 2)
    assert found["compared"]["men", "everyone"].difference.test == "faces_and_seeds"
    assert ("men", "size_matched") not in found["compared"]


def test_runs_from_two_weight_files_are_refused(runs: RunBuilder) -> None:
    started = {"backbone.architecture": "squeezenet1_1", "backbone.weights": "imagenet"}
    base = EVERYONE.varied(name="age_group-squeezenet1_1-imagenet-full-steps", **started)
    own, every = a_group(WOMEN, base), a_group(replace(WOMEN, training="everyone"), base)
    a_run(runs, own, first(150), weights_sha256="aa" * 32)
    a_run(runs, every, first(100), weights_sha256="bb" * 32)
    with pytest.raises(RunError, match="2 different weight files"):
        studied(runs, [own, every])


def a_system(runs: RunBuilder, router_right: Any, *, unlabelled: int = 0) -> None:
    """A women's specialist that is right on all women and no man, a men's the other way round."""
    for experiment, right in (
        (GROUPS["women", "subset"], IS_WOMAN),
        (GROUPS["women", "everyone"], first(100)),
        (GROUPS["men", "subset"], ~IS_WOMAN),
        (GROUPS["men", "everyone"], first(100)),
        (EVERYONE, first(100)),
        (ROUTER, router_right),
    ):
        a_run(runs, experiment, right, unlabelled=unlabelled)


def test_a_face_sent_to_the_wrong_specialist_gets_that_ones_answer(runs: RunBuilder) -> None:
    a_system(runs, ~first(20))
    found = studied(runs)
    (system,) = found["systems"]
    assert system["misrouted_fraction"] == pytest.approx(0.1)
    assert system["routed"]["rate"]["mean"] == pytest.approx(0.9), "each misrouted face is wrong"
    assert system["oracle_accuracy"] == pytest.approx(1.0)
    assert system["single"]["rate"]["mean"] == pytest.approx(0.5)
    assert found["compared"]["gender", "single"].difference.accuracy == pytest.approx(0.4)


def test_faces_without_the_label_that_routes_them_are_in_no_system(runs: RunBuilder) -> None:
    a_system(runs, ~first(50), unlabelled=30)
    found = studied(runs)
    (system,) = found["systems"]
    assert system["n_test"] == N - 30
    # Of faces 30 to 199 the classifier is wrong on 20, and the single network right on 70.
    assert system["misrouted_fraction"] == pytest.approx(20 / 170)
    assert system["routed"]["rate"]["mean"] == pytest.approx(150 / 170)
    assert system["single"]["rate"]["mean"] == pytest.approx(70 / 170)
    assert found["subsets"][0]["n_test"] == IS_WOMAN[30:].sum()


def test_specialists_that_miss_a_face_are_refused(runs: RunBuilder) -> None:
    a_system(runs, first(N))
    name = GROUPS["women", "subset"].name
    (record,) = (record for record in runs.records() if record.experiment_name == name)
    men = made_up_faces(N, seed=2)[~IS_WOMAN].iloc[1:]
    write_predictions(record.outside_path, answered(men, first(N)[: len(men)], ("age_group",)))
    with pytest.raises(RunError, match="no predictions on 1 of the 200 test faces"):
        studied(runs)


def test_what_was_not_run_is_named_and_nothing_at_all_is_an_error(runs: RunBuilder) -> None:
    a_run(runs, GROUPS["women", "subset"], first(80))
    with pytest.raises(RunError, match="no subset has finished runs of two run groups"):
        studied(runs)
    a_run(runs, GROUPS["women", "size_matched"], first(80))
    found = studied(runs)
    assert GROUPS["women", "everyone"].name in found["missing"]
    assert found["systems"] == []
    assert subset_page(found).notes[-1].startswith("Not run: ")
