"""Comparisons from run folders: who meets whom, what is refused, and what is said of it."""

import dataclasses
import functools
import gc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from benchmark.comparison.library import Faces, Library, NotRun, read_run
from benchmark.comparison.pairs import TITLES, Comparison, ComparisonTable, GroupScores, compare
from benchmark.errors import RunError
from benchmark.evaluation.predictions import predictions_table
from benchmark.experiment.definition import Experiment, Subset, Suite
from benchmark.record import RunRecord
from benchmark.tasks import TASKS, TaskName, n_classes
from tests.comparison.finished_runs import finished, seal
from tests.results.conftest import (
    RunBuilder,
    an_experiment,
    certain,
    exact_predictions,
    experiment_row,
    made_up_faces,
    made_up_predictions,
)

MTL = an_experiment("a")
OTHER = an_experiment("b", **{"recipe.batch_size": 64})
THIRD = an_experiment("c", **{"recipe.batch_size": 16})
TWINS = tuple(an_experiment("a", tasks=(task,)) for task in TASKS)


@pytest.fixture(autouse=True, scope="module")
def few_objects() -> Iterator[None]:
    """Let garbage collections overlook what is there: statsmodels collects at each correction."""
    gc.freeze()
    yield
    gc.unfreeze()


def library(
    runs: RunBuilder, *experiments: Experiment, suite: Sequence[str] = (), **more: Any
) -> Library:
    """Read the runs, with these definitions and a suite `all` of some."""
    known = {item.name: item for item in experiments or (MTL, OTHER, THIRD)}
    suites = {"all": Suite("all", "All?", tuple(suite or known))}
    read = tuple(read_run(record) for record in runs.records())
    return Library(read, known, suites, **more)


def done(runs: RunBuilder, experiment: Experiment, *n_right: int, **about: Any) -> list[RunRecord]:
    """Finish a run per seed that reads so many of 100 test faces, always the first ones."""
    return [
        finished(runs, experiment, predictions(n, experiment.head.tasks), seed=seed, **about)
        for seed, n in enumerate(n_right)
    ]


@functools.cache
def predictions(n_right: int, tasks: tuple[TaskName, ...] = TASKS) -> pd.DataFrame:
    """Make predictions that read the first n_right of 100 test faces; not to be changed."""
    return exact_predictions(70, n_right, tasks=tasks)


def answering(right: Any, *, tasks: Sequence[TaskName] = TASKS) -> pd.DataFrame:
    """Give predictions that are right where `right` (n,) is true, of n faces of each part."""
    faces = made_up_faces(len(right))
    wrong = ~np.asarray(right, dtype=bool)
    answers = {task: certain((faces[task] + wrong) % n_classes(task), task) for task in tasks}
    parts = [predictions_table(faces, part, answers) for part in ("val", "test")]
    return pd.concat(parts, ignore_index=True)


def only(found: Comparison) -> ComparisonTable:
    (table,) = [table for table in found.tables if table.kind != "twins"]
    return table


def twins_of(found: Comparison) -> ComparisonTable:
    (table,) = [table for table in found.tables if table.kind == "twins"]
    return table


def test_two_runs_meet_by_their_ids(runs: RunBuilder) -> None:
    (one,), (other,) = done(runs, MTL, 70), done(runs, OTHER, 80)
    found = compare(library(runs), [one.identity[:8], other.identity[:20]])
    line = only(found).lines[0]
    assert (line.difference.test, line.difference.accuracy) == ("mcnemar", pytest.approx(0.1))
    assert (line.difference.only_arm, line.difference.only_reference) == (10, 0)
    assert line.verdict == "better"
    assert "speaks of these trainings alone" in only(found).sentences[0]
    assert [line.task for line in only(found).lines] == list(TASKS)


def test_experiments_meet_with_all_their_seeds(runs: RunBuilder) -> None:
    # Means 0.8 and 0.6 over two and three seeds.
    done(runs, MTL, 79, 81)
    done(runs, OTHER, 58, 60, 62)
    found = compare(library(runs), [MTL.name, OTHER.name])
    line = only(found).lines[0]
    assert (line.difference.test, line.verdict) == ("faces_and_seeds", "worse")
    assert line.difference.accuracy == pytest.approx(-0.2)
    assert (line.group.seeds, line.reference.seeds) == ((0, 1, 2), (0, 1))
    assert not line.of_trainings_alone


def test_arms_show_what_leaderboards_show(runs: RunBuilder) -> None:
    skills: dict[TaskName, float] = dict.fromkeys(TASKS, 1.2)
    for experiment, seeds in ((MTL, 3), (OTHER, 1)):
        for seed in range(seeds):
            runs.done(experiment, made_up_predictions(skills, seed=seed), seed=seed)
    for standing in compare(library(runs), [MTL.name, OTHER.name]).groups:
        row = experiment_row("x", standing.group.runs)
        for task, score in row.scores.items():
            ours = dataclasses.astuple(standing.scores[task])
            assert ours == pytest.approx(dataclasses.astuple(score))


def test_two_seeds_have_a_spread_and_one_has_none(runs: RunBuilder) -> None:
    # 0.7 and 0.8 are 0.05 from their mean: sqrt(0.05² + 0.05²) = 0.07071.
    done(runs, MTL, 70, 80)
    done(runs, OTHER, 60)
    of_two, of_one = compare(library(runs), [MTL.name, OTHER.name]).groups
    assert of_two.scores["race"].accuracy_sd == pytest.approx(0.07071, abs=1e-5)
    assert of_one.scores["race"].accuracy_sd is None


def test_one_seed_meets_the_run_of_the_same_seed_not_the_best(runs: RunBuilder) -> None:
    done(runs, MTL, 60, 50, 90)
    finished(runs, OTHER, predictions(70), seed=1)
    line = only(compare(library(runs), [MTL.name, OTHER.name])).lines[0]
    assert (line.reference.seeds, line.group.seeds) == ((1,), (1,))
    assert line.difference.accuracy == pytest.approx(0.2)
    assert line.of_trainings_alone


def test_without_a_seed_in_common_the_lowest_meets(runs: RunBuilder) -> None:
    done(runs, MTL, 60, 50, 90)
    finished(runs, OTHER, predictions(70), seed=7)
    line = only(compare(library(runs), [MTL.name, OTHER.name])).lines[0]
    assert (line.reference.seeds, line.group.seeds) == ((0,), (7,))


def test_a_run_by_its_id_meets_one_run_of_an_experiment(runs: RunBuilder) -> None:
    done(runs, MTL, 60, 50, 90)
    record = done(runs, OTHER, 70, 70)[1]
    line = only(compare(library(runs), [MTL.name, record.identity])).lines[0]
    assert (line.reference.seeds, line.group.seeds) == ((1,), (1,))


def test_each_meets_the_first_or_everyone_everyone(runs: RunBuilder) -> None:
    for experiment in (MTL, OTHER, THIRD):
        done(runs, experiment, 70)
    names = [MTL.name, OTHER.name, THIRD.name]
    shelf = library(runs)

    def pairs(**how: bool) -> list[tuple[str, str]]:
        lines = only(compare(shelf, names, tasks=("race",), **how)).lines
        return [(line.group.label[-1], line.reference.label[-1]) for line in lines]

    assert pairs() == [("b", "a"), ("c", "a")]
    assert pairs(all_pairs=True) == [("b", "a"), ("c", "a"), ("c", "b")]


def test_in_a_suite_each_meets_the_one_of_its_definition_in_the_suite_or_not(
    runs: RunBuilder,
) -> None:
    second = dataclasses.replace(OTHER, compare_with=MTL.name)
    third = dataclasses.replace(THIRD, compare_with=OTHER.name)
    for experiment in (MTL, OTHER, THIRD):
        done(runs, experiment, 70)
    shelf = library(runs, MTL, second, third, suite=(OTHER.name, THIRD.name))
    found = compare(shelf, ["all"], tasks=("race",))
    lines = only(found).lines
    assert [(line.group.label[-1], line.reference.label[-1]) for line in lines] == [
        ("b", "a"),
        ("c", "b"),
    ]
    assert MTL.name in [standing.group.label for standing in found.groups]


def test_every_mtl_network_meets_its_twins_by_itself(runs: RunBuilder) -> None:
    done(runs, MTL, 70, 70)
    for twin, n_right in zip(TWINS, (70, 40, 90), strict=True):
        done(runs, twin, n_right, n_right)
    found = compare(library(runs, MTL, *TWINS), [MTL.name])
    assert [table.kind for table in found.tables] == ["twins"]
    lines = twins_of(found).lines
    assert [(line.task, line.verdict) for line in lines] == [
        ("age_group", "no significant difference"),
        ("gender", "better"),
        ("race", "worse"),
    ]
    (sentence,) = twins_of(found).sentences
    assert sentence.startswith("Does MTL beat STL? Age group: no significant difference (0.0 pp,")
    assert "Gender: yes, better by 30.0 pp (+" in sentence
    assert "Race: no, worse by 20.0 pp (−" in sentence


def test_missing_twins_are_named_with_the_reason(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, TWINS[0], 70)
    runs.failed(TWINS[1], "the loss is nan")
    found = compare(library(runs, MTL, *TWINS[:2]), [MTL.name])
    (said,) = twins_of(found).gap_sentences
    assert said == (
        f"Single-task counterparts missing of {MTL.name}: gender ({TWINS[1].name}: seed 0 failed: "
        "the loss is nan), race (not registered)."
    )


def test_a_twin_by_name_alone_is_none(runs: RunBuilder) -> None:
    false = dataclasses.replace(TWINS[2], recipe=OTHER.recipe)
    done(runs, MTL, 70)
    done(runs, false, 70)
    with pytest.raises(RunError, match="no counterpart, its recipe differ"):
        compare(library(runs, MTL, false), [MTL.name], tasks=("race",))


def test_what_is_named_is_compared_and_nothing_else(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 80)
    for twin in TWINS:
        done(runs, twin, 60)
    found = compare(library(runs, MTL, OTHER, *TWINS), [MTL.name, OTHER.name])
    (table,) = found.tables
    assert {(line.group.label, line.reference.label) for line in table.lines} == {
        (OTHER.name, MTL.name)
    }
    assert {line.family for line in table.lines} == {"named"}


def test_in_a_suite_a_pair_of_counterparts_stands_in_one_table_alone(runs: RunBuilder) -> None:
    alone = dataclasses.replace(TWINS[1], compare_with=MTL.name)
    done(runs, MTL, 70)
    done(runs, alone, 60)
    shelf = library(runs, MTL, alone)
    for argument in ("all", MTL.name):
        found = compare(shelf, [argument])
        assert [table.kind for table in found.tables] == ["twins"]
        (line,) = twins_of(found).lines
        assert (line.group.label, line.reference.label) == (MTL.name, alone.name)
    line = only(compare(shelf, [alone.name, MTL.name])).lines[0]
    assert (line.group.label, line.family) == (MTL.name, "named")


def test_several_mtl_networks_are_counted_and_told_one_by_one(runs: RunBuilder) -> None:
    others = [an_experiment("b", tasks=(task,), **{"recipe.batch_size": 64}) for task in TASKS]
    for experiment, n_right in ((MTL, 70), (OTHER, 70)):
        done(runs, experiment, n_right)
    for twin in (*TWINS, *others):
        done(runs, twin, 40 if twin is others[0] else 70)
    found = compare(library(runs, MTL, OTHER, *TWINS, *others), ["all"])
    answer, *networks = twins_of(found).sentences
    assert (
        "Age group: better in 1 of 2 networks, worse in 0, no significant difference in 1."
        in answer
    )
    assert len(networks) == 2
    assert networks[1].startswith(
        f"{OTHER.name} against its single-task counterparts: better on age"
    )


def test_what_was_found_cannot_be_changed(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 80)
    found = compare(library(runs), [MTL.name, OTHER.name])
    for thing, field in ((found, "dataset"), (only(found), "lines"), (found.groups[0], "arm")):
        assert isinstance(thing, Comparison | ComparisonTable | GroupScores)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, field, None)


def test_a_table_says_what_it_is_and_how_many_p_values_were_corrected(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 80)
    names = [MTL.name, OTHER.name]
    table = only(compare(library(runs), names))
    assert table.title == TITLES["first"] == "Each against the first"
    assert "what was named (3 p-values)" in table.family
    two = only(compare(library(runs), names, tasks=("gender", "race")))
    assert "what was named (2 p-values)" in two.family
    one = only(compare(library(runs), names, tasks=("gender",), all_pairs=True))
    assert one.title == "All pairs"
    assert "what was named (1 p-value)" in one.family


def test_only_tasks_that_are_compared_are_read_and_scored(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 80)
    found = compare(library(runs), [MTL.name, OTHER.name], tasks=("race", "gender"))
    assert found.tasks == ("gender", "race")
    assert [set(standing.scores) for standing in found.groups] == [{"gender", "race"}] * 2


def test_p_values_are_corrected_over_the_table(runs: RunBuilder) -> None:
    for experiment, skill in ((MTL, 1.0), (OTHER, 1.3), (THIRD, 1.1)):
        skills: dict[TaskName, float] = dict.fromkeys(TASKS, skill)
        finished(runs, experiment, made_up_predictions(skills, seed=int(10 * skill)))
    table = only(compare(library(runs), ["all"], all_pairs=True))
    expected = multipletests([line.difference.p for line in table.lines], method="holm")[1]
    assert [line.p_holm for line in table.lines] == pytest.approx(expected.tolist())
    assert "(9 p-values)" in table.family
    undecided = [line for line in table.lines if line.verdict == "no significant difference"]
    assert undecided
    assert all(line.minimum_detectable for line in undecided)


def test_a_difference_that_seeds_alone_could_make_is_not_significant(runs: RunBuilder) -> None:
    # Each arm's two seeds are 30 faces apart, and one arm reads 10 faces more with either.
    for experiment, gain in ((MTL, 0), (OTHER, 10)):
        for seed, n_right in enumerate((50, 80)):
            right = np.arange(100) < n_right + gain
            finished(runs, experiment, answering(right), seed=seed)
    table = only(compare(library(runs), [MTL.name, OTHER.name]))
    assert table.lines[0].verdict == "no significant difference"
    assert table.lines[0].difference.se_seeds == pytest.approx(np.hypot(0.15, 0.15), rel=0.05)


def test_missing_runs_are_shown_as_missing(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 80)
    runs.begun(THIRD)
    found = compare(library(runs), [MTL.name, OTHER.name, THIRD.name])
    why = "seed 0 was interrupted or is still running"
    assert found.absent == (NotRun(THIRD.name, why),)
    assert only(found).gap_sentences == (
        f"{THIRD.name} against {MTL.name}: not compared, {THIRD.name}: {why}.",
    )


def test_nothing_to_compare_is_an_error_with_the_reason(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    with pytest.raises(RunError, match=rf"nothing can be compared.*{OTHER.name}: not run"):
        compare(library(runs), [MTL.name, OTHER.name])
    with pytest.raises(RunError, match=f"nothing of {OTHER.name} was run"):
        compare(library(runs), [OTHER.name])
    done(runs, TWINS[0], 70)
    with pytest.raises(RunError, match="has nothing to stand against"):
        compare(library(runs, *TWINS), [TWINS[0].name])


def test_networks_of_different_tasks_have_nothing_in_common(runs: RunBuilder) -> None:
    for twin in TWINS[:2]:
        done(runs, twin, 70)
    with pytest.raises(RunError, match="no task in common"):
        compare(library(runs, *TWINS), [TWINS[0].name, TWINS[1].name])


FOLD = an_experiment("d", **{"protocol.fold": 1})
SCALED = an_experiment("d", **{"protocol.input_scaling": "unit"})
WOMEN = dataclasses.replace(MTL, name=f"{MTL.name}-women", subset=Subset(gender="female"))


@pytest.mark.parametrize(
    ("experiment", "changes", "about", "said"),
    [
        (OTHER, {"pixel_digest": "77" * 32}, {}, r"pixels \(77777777 and abababab\)"),
        (OTHER, {"split_digest": "77" * 32}, {}, r"the split \(77777777 and cdcdcdcd\)"),
        (FOLD, {}, {}, r"protocol.fold \(1 and None\)"),
        (SCALED, {}, {}, r"protocol.input_scaling \(unit and weights\)"),
        (OTHER, {}, {"leaky": True}, r"leaks \(LEAKY and honest\)"),
        (WOMEN, {}, {}, r"the test subset \(women and all\)"),
    ],
)
def test_arms_that_were_not_tested_alike_are_refused_with_what_differs(
    runs: RunBuilder,
    experiment: Experiment,
    changes: dict[str, str],
    about: dict[str, Any],
    said: str,
) -> None:
    done(runs, MTL, 70)
    done(RunBuilder(runs.runs_dir, runs.dataset | changes), experiment, 80, **about)
    names = f"{experiment.name} and {MTL.name} cannot be compared: they differ in {said}"
    with pytest.raises(RunError, match=names):
        compare(library(runs, MTL, experiment), [MTL.name, experiment.name])


def test_runs_on_different_data_sets_are_refused(runs: RunBuilder) -> None:
    (one,) = done(runs, MTL, 70)
    elsewhere = RunBuilder(runs.runs_dir, runs.dataset | {"name": "faces-200"})
    elsewhere.dataset["pixel_digest"] = "77" * 32
    (other,) = done(elsewhere, OTHER, 70)
    with pytest.raises(RunError, match=r"different data sets: .* on utkface-100 and .* faces-200"):
        compare(library(runs), [one.identity, other.identity])
    with pytest.raises(RunError, match=r"a on utkface-100; .*b on faces-200") as refused:
        compare(library(runs), [MTL.name, OTHER.name])
    assert "--dataset" in refused.value.fix


def test_of_several_data_sets_one_is_chosen(runs: RunBuilder) -> None:
    drawn = RunBuilder(runs.runs_dir, runs.dataset | {"name": "drawn-100", "drawn": True})
    drawn.dataset["pixel_digest"] = "77" * 32
    for builder in (runs, drawn):
        for experiment in (MTL, OTHER):
            done(builder, experiment, 70)
    names = [MTL.name, OTHER.name]
    assert compare(library(runs), names).dataset == "utkface-100"
    chosen = compare(library(runs), names, dataset="drawn")
    assert (chosen.dataset, chosen.drawn) == ("drawn-100", True)
    assert "DRAWN FACES" in chosen.limits[0]
    with pytest.raises(RunError, match=r"data set 'moon' \(allowed: drawn-100, utkface-100\)"):
        compare(library(runs), names, dataset="moon")


def test_a_face_that_one_arm_did_not_answer_is_a_refusal(runs: RunBuilder) -> None:
    finished(runs, MTL, predictions(70))
    finished(runs, OTHER, predictions(80).iloc[:-1])
    with pytest.raises(RunError, match=r"99 and 100 of them, 1 only on one side.*'00099.jpg'"):
        compare(library(runs), [MTL.name, OTHER.name])


@pytest.mark.parametrize("column", ["cluster", "race"])
def test_faces_with_other_truths_or_clusters_are_a_refusal(runs: RunBuilder, column: str) -> None:
    answers = predictions(70)
    finished(runs, MTL, answers)
    changed = (answers[column] + (answers["file"] == "00007.jpg")) % (answers[column].max() + 1)
    finished(runs, OTHER, answers.assign(**{column: changed}))
    with pytest.raises(RunError, match=f"{column} of face '00007.jpg' is not the same"):
        compare(library(runs), [MTL.name, OTHER.name])


def test_predictions_that_changed_after_scoring_are_a_refusal_and_a_gap_in_a_suite(
    runs: RunBuilder,
) -> None:
    for experiment in (MTL, OTHER, THIRD):
        (record,) = done(runs, experiment, 70)
    with record.predictions_path.open("a") as stream:
        stream.write("\n")
    with pytest.raises(RunError, match="changed after they were scored"):
        compare(library(runs), [MTL.name, THIRD.name])
    found = compare(library(runs), ["all"], all_pairs=True)
    assert len(only(found).lines) == len(TASKS)
    assert all("changed after they were scored" in gap.why for gap in only(found).gaps)


def test_a_twin_that_cannot_be_read_is_a_gap_unless_it_was_named(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    for twin in TWINS[:2]:
        (record,) = done(runs, twin, 70)
    record.predictions_path.unlink()
    shelf = library(runs, MTL, *TWINS[:2])
    table = twins_of(compare(shelf, [MTL.name]))
    assert [line.task for line in table.lines] == ["age_group"]
    assert "predictions" in table.gap_sentences[0]
    with pytest.raises(RunError, match="predictions of run .* cannot be read"):
        compare(shelf, [MTL.name, TWINS[1].name])


def test_runs_without_predictions_are_a_refusal(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 70)[0].predictions_path.unlink()
    with pytest.raises(RunError, match="predictions of run .* cannot be read"):
        compare(library(runs), [MTL.name, OTHER.name])


def test_runs_whose_test_was_not_read_are_a_refusal(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    answers = predictions(70)
    unread = answers[answers["part"] == "val"]
    record = finished(runs, OTHER.adjusted({"recipe.max_epochs": 1}), unread)
    with pytest.raises(RunError, match="its test was not read"):
        compare(library(runs), [MTL.name, record.identity])


def test_ad_hoc_runs_are_found_by_id_alone_and_marked(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    (record,) = done(runs, OTHER.adjusted({"recipe.max_epochs": 1}), 90)
    shelf = library(runs)
    with pytest.raises(RunError, match="nothing can be compared.* run ad hoc alone"):
        compare(shelf, [MTL.name, OTHER.name])
    found = compare(shelf, [MTL.name, record.identity])
    label = f"{OTHER.name} seed 0 (run {record.identity[:8]}, ad hoc)"
    assert [standing.group.label for standing in found.groups] == [MTL.name, label]
    assert f"{label}: ad hoc: changed on the command line." in found.notes


def test_leaky_arms_may_meet_and_are_marked(runs: RunBuilder) -> None:
    for experiment in (MTL, OTHER):
        done(runs, experiment, 70, leaky=True)
    notes = compare(library(runs), [MTL.name, OTHER.name]).notes
    assert sum("LEAKY: test faces were seen in training" in note for note in notes) == 2


def test_runs_of_an_older_definition_do_not_count(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 80)
    changed = dataclasses.replace(OTHER, recipe=THIRD.recipe)
    with pytest.raises(RunError, match=r"not run as it is defined now \(1 of an older definition"):
        compare(library(runs, MTL, changed), [MTL.name, OTHER.name])


def test_of_several_trainers_the_newest_counts_and_the_rest_is_said(runs: RunBuilder) -> None:
    done(runs, MTL, 70, trainer_version=2)
    (old,) = done(runs, OTHER, 50)
    done(runs, OTHER, 80, trainer_version=2)
    found = compare(library(runs), [MTL.name, OTHER.name])
    assert only(found).lines[0].difference.accuracy == pytest.approx(0.1)
    assert any(old.identity[:12] in note and "left out" in note for note in found.notes)


def test_of_faces_prepared_anew_those_at_hand_are_meant(runs: RunBuilder) -> None:
    anew = RunBuilder(runs.runs_dir, runs.dataset | {"pixel_digest": "77" * 32})
    for builder, n_right in ((runs, 50), (anew, 80)):
        done(builder, MTL, 70)
        done(builder, OTHER, n_right)
    names = [MTL.name, OTHER.name]
    with pytest.raises(RunError, match=r"its runs are of 2 kinds \(other pixels\)"):
        compare(library(runs), names)
    here = Faces("utkface-100", "77" * 32, "cd" * 32)
    line = only(compare(library(runs, prepared=[here]), names)).lines[0]
    assert line.difference.accuracy == pytest.approx(0.1)


def test_arms_of_different_trainers_are_said_to_be(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 80, trainer_version=2)
    notes = compare(library(runs), [MTL.name, OTHER.name]).notes
    assert "They were trained by trainer versions 1 and 2." in notes


def test_a_run_does_not_meet_itself(runs: RunBuilder) -> None:
    record = done(runs, MTL, 70, 80)[0]
    with pytest.raises(RunError, match=f"they share the run {record.identity[:12]}"):
        compare(library(runs), [MTL.name, record.identity])


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("mtl-cnn-none-full-aa", "did you mean mtl-cnn-none-full-"),
        ("abc123", "at least 8 digits"),
        ("0123456789abcdef", "a run's id, the name of an experiment or of a suite"),
    ],
)
def test_an_unknown_argument_is_answered_with_what_is_allowed(
    runs: RunBuilder, argument: str, said: str
) -> None:
    done(runs, MTL, 70)
    with pytest.raises(RunError, match="is no run here, no experiment and no suite") as refused:
        compare(library(runs), [argument])
    assert said in refused.value.allowed


def test_the_beginning_of_two_ids_is_refused_with_both(runs: RunBuilder) -> None:
    (one,) = done(runs, MTL, 70)
    twin = one.folder.with_name(one.identity[:10] + "0" * 54)
    one.folder.rename(twin)
    done(runs, MTL, 70)
    with pytest.raises(RunError, match=f"{one.identity[:9]} is the beginning of 2 runs"):
        compare(library(runs), [one.identity[:9]])


def test_a_run_that_is_not_done_is_refused_by_id(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    record = runs.failed(OTHER, "the loss is nan")
    with pytest.raises(RunError, match="is not done: failed: the loss is nan"):
        compare(library(runs), [MTL.name, record.identity])


def test_a_face_that_was_answered_twice_is_refused(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    (record,) = done(runs, OTHER, 70)
    lines = record.predictions_path.read_text().splitlines()
    record.predictions_path.write_text("\n".join([*lines, lines[-1]]) + "\n")
    seal(record)
    with pytest.raises(RunError, match="hold face '00099.jpg' twice"):
        compare(library(runs), [MTL.name, OTHER.name])
