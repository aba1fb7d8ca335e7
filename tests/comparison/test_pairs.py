"""Comparisons from run folders: which runs are compared, what is refused, what is said of it."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from benchmark.comparison.library import Faces, Library, NotRun, read_run
from benchmark.comparison.pairs import Comparison, ComparisonTable, compare
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
STL = tuple(an_experiment("a", tasks=(task,)) for task in TASKS)


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


def counterparts(found: Comparison) -> ComparisonTable:
    (table,) = [table for table in found.tables if table.kind == "twins"]
    return table


def pairs_of(table: ComparisonTable) -> list[tuple[str, str]]:
    """Name each pair of a table once, by the last letter of group and reference."""
    lines = [line for line in table.lines if line.task == table.lines[0].task]
    return [(line.group.label[-1], line.reference.label[-1]) for line in lines]


def test_two_runs_by_their_ids(runs: RunBuilder) -> None:
    (one,), (other,) = done(runs, MTL, 70), done(runs, OTHER, 80)
    found = compare(library(runs), [one.identity[:8], other.identity[:20]])
    line = only(found).lines[0]
    assert (line.difference.test, line.difference.accuracy) == ("mcnemar", pytest.approx(0.1))
    assert (line.difference.only_arm, line.difference.only_reference) == (10, 0)
    assert line.verdict == "better"
    assert "speaks of these trainings alone" in only(found).sentences[0]
    assert [line.task for line in only(found).lines] == list(TASKS)


def test_experiments_with_all_their_seeds(runs: RunBuilder) -> None:
    # Means 0.8 and 0.6 over two and three seeds; 0.79 and 0.81 are 0.01 from their mean.
    done(runs, MTL, 79, 81)
    done(runs, OTHER, 58, 60, 62)
    found = compare(library(runs), [MTL.name, OTHER.name])
    line = only(found).lines[0]
    assert (line.difference.test, line.verdict) == ("faces_and_seeds", "worse")
    assert line.difference.accuracy == pytest.approx(-0.2)
    assert (line.group.seeds, line.reference.seeds) == ((0, 1, 2), (0, 1))
    assert not line.of_trainings_alone
    assert found.groups[0].scores["race"].accuracy_sd == pytest.approx(0.01414, abs=1e-5)


def test_groups_have_the_scores_that_leaderboards_show(runs: RunBuilder) -> None:
    skills: dict[TaskName, float] = dict.fromkeys(TASKS, 1.2)
    for experiment, seeds in ((MTL, 3), (OTHER, 1)):
        for seed in range(seeds):
            runs.done(experiment, made_up_predictions(skills, seed=seed), seed=seed)
    for found in compare(library(runs), [MTL.name, OTHER.name]).groups:
        for task, score in experiment_row("x", found.group.runs).scores.items():
            ours = dataclasses.astuple(found.scores[task])
            assert ours == pytest.approx(dataclasses.astuple(score))


@pytest.mark.parametrize(("seed", "met"), [(1, 1), (7, 0)])
def test_one_seed_is_compared_with_its_own_or_the_lowest_not_the_best(
    runs: RunBuilder, seed: int, met: int
) -> None:
    done(runs, MTL, 60, 50, 90)
    record = finished(runs, OTHER, predictions(70), seed=seed)
    for name in (OTHER.name, record.identity):
        line = only(compare(library(runs), [MTL.name, name])).lines[0]
        assert (line.reference.seeds, line.group.seeds) == ((met,), (seed,))
        assert line.difference.accuracy == pytest.approx(0.2 if met else 0.1)
        assert line.of_trainings_alone


def test_each_with_the_first_each_with_each_or_as_definitions_name(runs: RunBuilder) -> None:
    for experiment in (MTL, OTHER, THIRD):
        done(runs, experiment, 70)
    names = [MTL.name, OTHER.name, THIRD.name]
    first = only(compare(library(runs), names, tasks=("race",)))
    assert (first.title, pairs_of(first)) == ("Each against the first", [("b", "a"), ("c", "a")])
    every = only(compare(library(runs), names, tasks=("gender", "race"), all_pairs=True))
    assert (every.title, pairs_of(every)) == ("All pairs", [("b", "a"), ("c", "a"), ("c", "b")])
    assert "what was named (6 p-values)" in every.family
    second = dataclasses.replace(OTHER, compare_with=MTL.name)
    third = dataclasses.replace(THIRD, compare_with=OTHER.name)
    shelf = library(runs, MTL, second, third, suite=(OTHER.name, THIRD.name))
    found = compare(shelf, ["all"], tasks=("race",))
    assert pairs_of(only(found)) == [("b", "a"), ("c", "b")]
    assert MTL.name in [item.group.label for item in found.groups], "though in no suite"


def test_mtl_with_its_counterparts_by_itself(runs: RunBuilder) -> None:
    done(runs, MTL, 70, 70)
    for stl, n_right in zip(STL, (70, 40, 90), strict=True):
        done(runs, stl, n_right, n_right)
    found = compare(library(runs, MTL, *STL), [MTL.name])
    assert [table.kind for table in found.tables] == ["twins"]
    assert [(line.task, line.verdict) for line in counterparts(found).lines] == [
        ("age_group", "no significant difference"),
        ("gender", "better"),
        ("race", "worse"),
    ]
    (sentence,) = counterparts(found).sentences
    assert sentence.startswith("Does MTL beat STL? Age group: no significant difference (0.0 pp,")
    assert "Gender: yes, better by 30.0 pp (+" in sentence
    assert "Race: no, worse by 20.0 pp (−" in sentence


def test_several_mtl_networks_are_counted_and_described_one_by_one(runs: RunBuilder) -> None:
    others = [an_experiment("b", tasks=(task,), **{"recipe.batch_size": 64}) for task in TASKS]
    for experiment in (MTL, OTHER, *STL, *others):
        done(runs, experiment, 40 if experiment is others[0] else 70)
    found = compare(library(runs, MTL, OTHER, *STL, *others), ["all"])
    answer, *networks = counterparts(found).sentences
    said = "Age group: better in 1 of 2 networks, worse in 0, no significant difference in 1."
    assert said in answer
    assert len(networks) == 2
    start = f"{OTHER.name} against its single-task counterparts: better on age"
    assert networks[1].startswith(start)


def test_missing_counterparts_are_named_with_the_reason(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, STL[0], 70)
    runs.failed(STL[1], "the loss is nan")
    found = compare(library(runs, MTL, *STL[:2]), [MTL.name])
    assert counterparts(found).gap_sentences == (
        f"Single-task counterparts missing of {MTL.name}: gender ({STL[1].name}: seed 0 failed: "
        "the loss is nan), race (not registered).",
    )
    otherwise = dataclasses.replace(STL[2], recipe=OTHER.recipe)
    done(runs, otherwise, 70)
    with pytest.raises(RunError, match="no counterpart, its recipe differ"):
        compare(library(runs, MTL, otherwise), [MTL.name], tasks=("race",))


def test_a_pair_stands_in_the_table_of_one_question_alone(runs: RunBuilder) -> None:
    stl = dataclasses.replace(STL[1], compare_with=MTL.name)
    done(runs, MTL, 70)
    done(runs, stl, 60)
    for argument in ("all", MTL.name):
        found = compare(library(runs, MTL, stl), [argument])
        assert [table.kind for table in found.tables] == ["twins"]
        (line,) = counterparts(found).lines
        assert (line.group.label, line.reference.label) == (MTL.name, stl.name)
    (table,) = compare(library(runs, MTL, stl), [stl.name, MTL.name]).tables
    assert [(line.group.label, line.family) for line in table.lines] == [(MTL.name, "named")]


def test_only_tasks_that_are_compared_are_read_and_scored(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 80)
    found = compare(library(runs), [MTL.name, OTHER.name], tasks=("race", "gender"))
    assert found.tasks == ("gender", "race")
    assert [set(item.scores) for item in found.groups] == [{"gender", "race"}] * 2


def test_p_values_are_corrected_over_the_table(runs: RunBuilder) -> None:
    for experiment, skill in ((MTL, 1.0), (OTHER, 1.3), (THIRD, 1.1)):
        skills: dict[TaskName, float] = dict.fromkeys(TASKS, skill)
        finished(runs, experiment, made_up_predictions(skills, seed=int(10 * skill)))
    table = only(compare(library(runs), ["all"], all_pairs=True))
    expected = multipletests([line.difference.p for line in table.lines], method="holm")[1]
    assert [line.p_holm for line in table.lines] == pytest.approx(expected.tolist())
    undecided = [line for line in table.lines if line.verdict == "no significant difference"]
    assert undecided
    assert all(line.minimum_detectable for line in undecided)


def test_a_difference_that_seeds_alone_could_make_is_not_significant(runs: RunBuilder) -> None:
    # Each group's two seeds are 30 faces apart, and one is right on 10 faces more with either.
    for experiment, gain in ((MTL, 0), (OTHER, 10)):
        for seed, n_right in enumerate((50, 80)):
            right = np.arange(100) < n_right + gain
            finished(runs, experiment, answering(right), seed=seed)
    table = only(compare(library(runs), [MTL.name, OTHER.name]))
    assert table.lines[0].verdict == "no significant difference"
    assert table.lines[0].difference.se_seeds == pytest.approx(np.hypot(0.15, 0.15), rel=0.05)


def test_missing_runs_are_shown_as_missing_and_nothing_at_all_is_an_error(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    with pytest.raises(RunError, match=rf"nothing can be compared.*{OTHER.name}: not run"):
        compare(library(runs), [MTL.name, OTHER.name])
    with pytest.raises(RunError, match=f"nothing of {OTHER.name} was run"):
        compare(library(runs), [OTHER.name])
    for stl in STL[:2]:
        done(runs, stl, 70)
    with pytest.raises(RunError, match="has nothing to stand against"):
        compare(library(runs, *STL), [STL[0].name])
    with pytest.raises(RunError, match="no task in common"):
        compare(library(runs, *STL), [STL[0].name, STL[1].name])
    done(runs, OTHER, 80)
    runs.begun(THIRD)
    found = compare(library(runs), [MTL.name, OTHER.name, THIRD.name])
    why = "seed 0 was interrupted or is still running"
    assert found.absent == (NotRun(THIRD.name, why),)
    assert only(found).gap_sentences == (
        f"{THIRD.name} against {MTL.name}: not compared, {THIRD.name}: {why}.",
    )


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
def test_models_that_were_not_tested_alike_are_refused_with_what_differs(
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


def test_of_several_data_sets_one_is_chosen_or_asked_for(runs: RunBuilder) -> None:
    drawn = RunBuilder(runs.runs_dir, runs.dataset | {"name": "drawn-100", "drawn": True})
    drawn.dataset["pixel_digest"] = "77" * 32
    elsewhere = RunBuilder(runs.runs_dir, runs.dataset | {"name": "faces-200"})
    elsewhere.dataset["pixel_digest"] = "88" * 32
    for experiment in (MTL, OTHER):
        for builder in (runs, drawn):
            (one,) = done(builder, experiment, 70)
    names = [MTL.name, OTHER.name]
    assert compare(library(runs), names).dataset == "utkface-100"
    chosen = compare(library(runs), names, dataset="drawn")
    assert (chosen.dataset, chosen.drawn) == ("drawn-100", True)
    assert "DRAWN FACES" in chosen.limits[0]
    with pytest.raises(RunError, match=r"data set 'moon' \(allowed: drawn-100, utkface-100\)"):
        compare(library(runs), names, dataset="moon")
    (other,) = done(elsewhere, THIRD, 70)
    with pytest.raises(RunError, match=r"different data sets: .* on drawn-100 and .* faces-200"):
        compare(library(runs), [one.identity, other.identity])
    with pytest.raises(RunError, match=r"a on utkface-100; .*c on faces-200") as refused:
        compare(library(runs), [MTL.name, THIRD.name])
    assert "--dataset" in refused.value.fix


def unlike(answers: pd.DataFrame, column: str) -> pd.DataFrame:
    changed = answers[column] + (answers["file"] == "00007.jpg")
    return answers.assign(**{column: changed % (answers[column].max() + 1)})


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (lambda table: table.iloc[:-1], r"99 and 100 of them, 1 only on one side.*'00099.jpg'"),
        (lambda table: unlike(table, "cluster"), "cluster of face '00007.jpg' is not the same"),
        (lambda table: unlike(table, "race"), "race of face '00007.jpg' is not the same"),
        (lambda table: table[table["part"] == "val"], "has no predictions of test faces"),
    ],
)
def test_other_test_faces_are_a_refusal(runs: RunBuilder, spoilt: Any, said: str) -> None:
    finished(runs, MTL, predictions(70))
    finished(runs, OTHER, spoilt(predictions(80)))
    with pytest.raises(RunError, match=said):
        compare(library(runs), [MTL.name, OTHER.name])


def test_predictions_that_cannot_be_trusted_are_a_refusal_and_a_gap_in_a_suite(
    runs: RunBuilder,
) -> None:
    for experiment in (MTL, OTHER, THIRD):
        (record,) = done(runs, experiment, 70)
    path, names = record.predictions_path, [MTL.name, THIRD.name]
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    with pytest.raises(RunError, match="changed after they were scored"):
        compare(library(runs), names)
    found = only(compare(library(runs), ["all"], all_pairs=True))
    assert len(found.lines) == len(TASKS)
    assert all("changed after they were scored" in gap.why for gap in found.gaps)
    seal(record)
    with pytest.raises(RunError, match="face '00099.jpg' is there twice"):
        compare(library(runs), names)
    path.unlink()
    with pytest.raises(RunError, match="predictions of run .* cannot be read"):
        compare(library(runs), names)


def test_ad_hoc_runs_are_found_by_id_alone_and_marked(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    (record,) = done(runs, OTHER.adjusted({"recipe.max_epochs": 1}), 90)
    with pytest.raises(RunError, match="nothing can be compared.* run ad hoc alone"):
        compare(library(runs), [MTL.name, OTHER.name])
    found = compare(library(runs), [MTL.name, record.identity])
    label = f"{OTHER.name} seed 0 (run {record.identity[:8]}, ad hoc)"
    assert [item.group.label for item in found.groups] == [MTL.name, label]
    assert f"{label}: ad hoc: changed on the command line." in found.notes


def test_leaky_models_may_be_compared_and_are_marked(runs: RunBuilder) -> None:
    for experiment in (MTL, OTHER):
        done(runs, experiment, 70, leaky=True)
    notes = compare(library(runs), [MTL.name, OTHER.name]).notes
    assert sum("LEAKY: test faces were seen in training" in note for note in notes) == 2


def test_runs_of_an_older_definition_do_not_count(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, OTHER, 80)
    changed = dataclasses.replace(OTHER, recipe=THIRD.recipe)
    with pytest.raises(RunError, match="its definition was edited after 1 run of an older one"):
        compare(library(runs, MTL, changed), [MTL.name, OTHER.name])


def test_of_several_trainers_the_newest_counts_and_the_rest_is_said(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    (old,) = done(runs, OTHER, 50)
    done(runs, OTHER, 80, trainer_version=2)
    found = compare(library(runs), [MTL.name, OTHER.name])
    assert only(found).lines[0].difference.accuracy == pytest.approx(0.1)
    assert any(old.identity[:12] in note and "left out" in note for note in found.notes)
    assert "They were trained by trainer versions 1 and 2." in found.notes


def test_of_faces_prepared_anew_those_prepared_here_are_meant(runs: RunBuilder) -> None:
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


def test_a_run_is_not_compared_with_itself(runs: RunBuilder) -> None:
    record = done(runs, MTL, 70, 80)[0]
    with pytest.raises(RunError, match=f"they share the run {record.identity[:12]}"):
        compare(library(runs), [MTL.name, record.identity])


def test_an_unknown_argument_is_answered_with_what_is_allowed(runs: RunBuilder) -> None:
    (one,) = done(runs, MTL, 70)
    failed = runs.failed(OTHER, "the loss is nan")
    for argument, said in (
        ("mtl-cnn-none-full-aa", "Did you mean mtl-cnn-none-full-"),
        ("abc123", "at least 8 digits"),
        ("0123456789abcdef", "a run's id, the name of an experiment or of a suite"),
    ):
        with pytest.raises(RunError, match="no run here, no experiment and no suite") as refused:
            compare(library(runs), [argument])
        assert said in str(refused.value), argument
    with pytest.raises(RunError, match="is not done: failed: the loss is nan"):
        compare(library(runs), [MTL.name, failed.identity])
    one.folder.rename(one.folder.with_name(one.identity[:10] + "0" * 54))
    done(runs, MTL, 70)
    with pytest.raises(RunError, match=f"{one.identity[:9]} is the beginning of 2 runs"):
        compare(library(runs), [one.identity[:9]])
