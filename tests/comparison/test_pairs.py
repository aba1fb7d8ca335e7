"""Comparisons from run folders: which runs are compared, what is refused, what is said of it, in
cells and sentences; and where each run stands."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from benchmark.comparison import wording as words
from benchmark.comparison.library import Library, RunGroup, read_run, standing
from benchmark.comparison.pairs import Found, compare, compare_lines
from benchmark.comparison.statistics import Difference, Family
from benchmark.comparison.wording import Gap, TaskComparison, gap_sentences, sentences
from benchmark.comparison.wording import test_text as text_of_test
from benchmark.errors import RunError
from benchmark.evaluation.predictions import write_predictions
from benchmark.experiment.definition import Experiment, Subset, Suite
from benchmark.files import sha256_of, write_json
from benchmark.record import RunRecord
from benchmark.registry import NOT_REGISTERED
from benchmark.tasks import TASKS, TaskName
from tests import made_runs as made
from tests.made_runs import RunBuilder, an_experiment

MTL = an_experiment("a")
OTHER = an_experiment("b", **{"recipe.batch_size": 64})
THIRD = an_experiment("c", **{"recipe.batch_size": 16})
STL = tuple(an_experiment("a", tasks=(task,)) for task in TASKS)
ABC = (MTL, OTHER, THIRD)


def compared(
    runs: RunBuilder, *arguments: str | Experiment, known: Sequence[Experiment] = ABC,
    suite: Sequence[str] = (), prepared: Sequence[tuple[str, str, str]] = (), **options: Any,
) -> Any:  # fmt: skip
    experiments = {item.name: item for item in known}
    suites = {"all": Suite("all", "All?", tuple(suite or experiments))}
    read = tuple(read_run(record) for record in runs.records())
    names = [item if isinstance(item, str) else item.name for item in arguments]
    return compare(Library(read, experiments, suites, prepared), names, **options)


def refused(said: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(RunError, match=said):
        compared(*arguments, **options)


def only(found: Any, asked: Family | None = None) -> Found:
    ((family, table),) = found["tables"].items()
    assert asked in (family, None)
    return table


def elsewhere(runs: RunBuilder, **changes: Any) -> RunBuilder:
    return RunBuilder(runs.runs_dir, runs.dataset | changes)


def finished(
    runs: RunBuilder, experiment: Experiment, table: pd.DataFrame, *, seed: int = 0, **about: Any
) -> RunRecord:
    """Write a finished run with these predictions; no metric, which would take time."""
    record = runs.begun(experiment, seed=seed, **about)
    write_predictions(record.predictions_path, table)
    mark_scored(record)
    write_json(record.folder / "done.json", {"schema": 1})
    return RunRecord(record.folder)


def mark_scored(record: RunRecord) -> None:
    kept = {"predictions_sha256": sha256_of(record.predictions_path), "metrics": {}}
    write_json(record.folder / "metrics.json", {"schema": 1, **kept})


def done(runs: RunBuilder, experiment: Experiment, *n_right: int, **about: Any) -> list[RunRecord]:
    """Finish a run per seed that predicts so many of 100 test faces right, always the first."""
    return [
        finished(runs, experiment, predictions(n, experiment.head.tasks), seed=seed, **about)
        for seed, n in enumerate(n_right)
    ]


@functools.cache
def predictions(n_right: int, tasks: tuple[TaskName, ...] = TASKS) -> pd.DataFrame:
    """Predict the first n_right of 100 test faces rightly; not to be changed."""
    return made.exact_predictions(70, n_right, tasks=tasks)


def said_of(table: Found) -> list[str]:
    return [*sentences(table.lines), *gap_sentences(table.gaps)]


def pairs_of(table: Found) -> list[tuple[str, str]]:
    """Name each pair of a table once, by the last letter of group and reference."""
    lines = [line for line in table.lines if line.task == table.lines[0].task]
    return [(line.group.label[-1], line.reference.label[-1]) for line in lines]


def test_two_runs_by_their_ids_and_experiments_with_all_their_seeds(runs: RunBuilder) -> None:
    # Means 0.8 and 0.6 over two and three seeds; 0.79 and 0.81 are 0.01 from their mean.
    ours, theirs = done(runs, MTL, 79, 81), done(runs, OTHER, 58, 60, 62)
    found = compared(runs, MTL, OTHER)
    line = only(found).lines[0]
    assert (line.difference.test, line.verdict) == ("faces_and_seeds", "worse")
    assert line.difference.accuracy == pytest.approx(-0.2)
    assert (line.group.seeds, line.reference.seeds) == ((0, 1, 2), (0, 1))
    assert not line.of_trainings_alone
    assert found["arms"][0]["scores"]["race"]["accuracy_sd"] == pytest.approx(0.01414, abs=1e-5)
    table = only(compared(runs, theirs[0].identity[:8], ours[0].identity[:20]))
    by_hand = table.lines[0].difference
    assert (by_hand.test, by_hand.accuracy) == ("mcnemar", pytest.approx(0.21))
    assert (by_hand.only_arm, by_hand.only_reference) == (21, 0)
    assert "applies to these training runs only" in said_of(table)[0]
    assert [(line.task, line.verdict) for line in table.lines] == [(t, "better") for t in TASKS]


def test_one_seed_is_compared_with_its_own_or_the_lowest_not_the_best(runs: RunBuilder) -> None:
    done(runs, MTL, 60, 50, 90)
    for experiment, seed, other, gain in ((OTHER, 1, 1, 0.2), (THIRD, 7, 0, 0.1)):
        record = finished(runs, experiment, predictions(70), seed=seed)
        for name in (experiment.name, record.identity):
            line = only(compared(runs, MTL, name)).lines[0]
            assert (line.reference.seeds, line.group.seeds) == ((other,), (seed,))
            assert line.difference.accuracy == pytest.approx(gain)
            assert line.of_trainings_alone


def test_each_with_the_first_or_as_definitions_name(runs: RunBuilder) -> None:
    for experiment in ABC:
        done(runs, experiment, 70)
    first = only(compared(runs, *ABC), "named")
    assert pairs_of(first) == [("b", "a"), ("c", "a")]
    second = dataclasses.replace(OTHER, compare_with=MTL.name)
    third = dataclasses.replace(THIRD, compare_with=OTHER.name)
    some = (OTHER.name, THIRD.name)
    found = compared(runs, "all", known=(MTL, second, third), suite=some)
    assert pairs_of(found["tables"]["compare_with"]) == [("b", "a"), ("c", "b")]
    assert MTL.name in [arm["arm"] for arm in found["arms"]], "though in no suite"


def test_mtl_networks_are_compared_with_their_counterparts(runs: RunBuilder) -> None:
    done(runs, MTL, 70, 70)
    for stl, n_right in zip(STL, (70, 40, 90), strict=True):
        done(runs, stl, n_right, n_right)
    table = only(compared(runs, MTL, known=(MTL, *STL)), "mtl_stl")
    verdicts = ["no significant difference", "better", "worse"]
    assert [(line.task, line.verdict) for line in table.lines] == [
        *zip(TASKS, verdicts, strict=True)
    ]
    other = an_experiment("b", tasks=("age_group",), **{"recipe.batch_size": 64})
    done(runs, OTHER, 70)
    done(runs, other, 40)
    table = only(compared(runs, "all", known=(MTL, OTHER, *STL, other)), "mtl_stl")
    said = "Age group: better in 1 and no significant difference in 1 of 2 networks."
    assert said in next(iter(sentences(table.lines)))


def test_missing_counterparts_are_named_with_the_reason(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    done(runs, STL[0], 70)
    runs.failed(STL[1], "the loss is nan")
    assert said_of(only(compared(runs, MTL, known=(MTL, *STL[:2]))))[1:] == [
        f"Single-task counterparts of {MTL.name} that were not run: gender ({STL[1].name}: "
        "seed 0 failed: the loss is nan), race (not registered)."
    ]
    otherwise = dataclasses.replace(STL[2], recipe=OTHER.recipe)
    done(runs, otherwise, 70)
    refused("no counterpart, its recipe differ", runs, MTL, known=(MTL, otherwise))


def test_a_pair_stands_in_the_table_of_one_question_alone(runs: RunBuilder) -> None:
    stl = dataclasses.replace(STL[1], compare_with=MTL.name)
    done(runs, MTL, 70)
    done(runs, stl, 60)
    for argument in ("all", MTL.name):
        (line,) = only(compared(runs, argument, known=(MTL, stl)), "mtl_stl").lines
        assert (line.group.label, line.reference.label) == (MTL.name, stl.name)


def test_missing_runs_are_shown_as_missing_and_nothing_at_all_is_an_error(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    refused(rf"nothing can be compared.*{OTHER.name}: not run", runs, MTL, OTHER)
    refused(f"nothing of {OTHER.name} was run", runs, OTHER)
    for stl in STL[:2]:
        done(runs, stl, 70)
    refused("has nothing to be compared with", runs, STL[0], known=STL)
    refused("no task in common", runs, *STL[:2], known=STL)
    done(runs, OTHER, 80)
    runs.begun(THIRD)
    found = compared(runs, *ABC)
    why = "seed 0 was interrupted or is still running"
    assert found["missing"] == [{"arm": THIRD.name, "why": why}]
    said = f"{THIRD.name} against {MTL.name}: not compared, {THIRD.name}: {why}."
    assert said_of(only(found))[1:] == [said]


FOLD = an_experiment("b", **{"protocol.fold": 1})
SCALED = an_experiment("b", **{"protocol.input_scaling": "unit"})
WOMEN = dataclasses.replace(MTL, name=f"{MTL.name}-women", subset=Subset(gender="female"))


RIGHT = predictions(80)


def unlike(column: str) -> pd.DataFrame:
    changed = RIGHT[column] + (RIGHT["file"] == "00007.jpg")
    return RIGHT.assign(**{column: changed % (RIGHT[column].max() + 1)})


@pytest.mark.parametrize(
    ("experiment", "changes", "about", "table", "said"),
    [
        (OTHER, {"pixel_digest": "77" * 32}, {}, RIGHT, r"in pixels \(77777777 and abababab\)"),
        (OTHER, {"split_digest": "77" * 32}, {}, RIGHT, r"in the split \(77777777 and cdcdcdcd\)"),
        (FOLD, {}, {}, RIGHT, r"protocol.fold \(1 and None\)"),
        (SCALED, {}, {}, RIGHT, r"protocol.input_scaling \(unit and weights\)"),
        (OTHER, {}, {"leaky": True}, RIGHT, r"leaks \(LEAKY and honest\)"),
        (WOMEN, {}, {}, RIGHT, r"the test subset \(women and all\)"),
        (OTHER, {}, {}, RIGHT[:-1], "99 and 100 of them, 1 only on one side.*00099"),
        (OTHER, {}, {}, unlike("cluster"), "cluster of face '00007.jpg' is"),
        (OTHER, {}, {}, unlike("race"), "race of face '00007.jpg' is not the"),
        (OTHER, {}, {}, RIGHT.query("part == 'val'"), "no predictions of test faces"),
    ],
)
def test_models_that_were_not_tested_alike_are_refused_with_what_differs(
    runs: RunBuilder, experiment: Experiment, changes: Any, about: Any, table: Any, said: str
) -> None:
    done(runs, MTL, 70)
    finished(elsewhere(runs, **changes), experiment, table, **about)
    refused(said, runs, MTL, experiment, known=(MTL, experiment))


def test_of_several_data_sets_one_is_chosen_or_asked_for(runs: RunBuilder) -> None:
    drawn = elsewhere(runs, name="drawn-100", drawn=True, pixel_digest="77" * 32)
    for experiment in (MTL, OTHER):
        for builder in (runs, drawn):
            (one,) = done(builder, experiment, 70)
    assert compared(runs, MTL, OTHER)["dataset"] == "utkface-100"
    chosen = compared(runs, MTL, OTHER, dataset="drawn")
    assert (chosen["dataset"], chosen["drawn"]) == ("drawn-100", True)
    unknown = r"data set 'moon' \(allowed: drawn-100, utkface-100\)"
    refused(unknown, runs, MTL, OTHER, dataset="moon")
    (other,) = done(elsewhere(runs, name="faces-200"), THIRD, 70)
    both = "different data sets: .* on drawn-100 and .* faces-200"
    refused(both, runs, one.identity, other.identity)
    refused(r"c on faces-200 and .*a on utkface-100.*--dataset", runs, MTL, THIRD)


def test_predictions_that_cannot_be_trusted_are_a_refusal_and_a_gap_in_a_suite(
    runs: RunBuilder,
) -> None:
    for experiment in ABC:
        (record,) = done(runs, experiment, 70)
    path = record.predictions_path
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    refused("changed after they were scored", runs, MTL, THIRD)
    naming = [dataclasses.replace(item, compare_with=MTL.name) for item in (OTHER, THIRD)]
    table = compared(runs, "all", known=(MTL, *naming))["tables"]["compare_with"]
    assert len(table.lines) == len(TASKS)
    assert all("changed after they were scored" in gap.why for gap in table.gaps)
    mark_scored(record)
    refused("face '00099.jpg' is test, twice", runs, MTL, THIRD)


def test_a_damaged_seed_is_a_gap_also_where_another_one_is_compared(runs: RunBuilder) -> None:
    *_, record = done(runs, MTL, 70, 71, 72)
    done(runs, OTHER, 60)
    done(runs, THIRD, 50, 51, 52)
    path = record.predictions_path
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    of = ((OTHER, MTL), (THIRD, OTHER))
    naming = [dataclasses.replace(item, compare_with=other.name) for item, other in of]
    table = compared(runs, "all", known=(MTL, *naming))["tables"]["compare_with"]
    assert {line.group.label for line in table.lines} == {THIRD.name}
    assert ["changed after they were scored" in gap.why for gap in table.gaps] == [True]


def test_ad_hoc_runs_are_found_by_id_alone_and_marked(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    (record,) = done(runs, OTHER.adjusted({"recipe.max_epochs": 1}), 90)
    refused("nothing can be compared.* run ad hoc alone", runs, MTL, OTHER)
    found = compared(runs, MTL, record.identity)
    label = f"{OTHER.name} seed 0 (run {record.identity[:8]}, ad hoc)"
    assert [arm["arm"] for arm in found["arms"]] == [MTL.name, label]
    assert f"{label}: ad hoc: changed on the command line." in found["notes"]


def test_runs_of_the_definition_as_it_is_now_and_of_the_newest_trainer_count(
    runs: RunBuilder,
) -> None:
    done(runs, MTL, 70, leaky=True)
    (old,) = done(runs, OTHER, 50, leaky=True)
    edited = (MTL, dataclasses.replace(OTHER, recipe=THIRD.recipe))
    said = "its definition was edited after 1 run of an older one"
    refused(said, runs, MTL, OTHER, known=edited)
    done(runs, OTHER, 80, trainer_version=2, leaky=True)
    found = compared(runs, MTL, OTHER)
    assert only(found).lines[0].difference.accuracy == pytest.approx(0.1)
    assert any(old.identity[:12] in note and "left out" in note for note in found["notes"])
    assert "They were trained by trainer versions 1 and 2." in found["notes"]
    assert sum("LEAKY: test faces were seen in training" in note for note in found["notes"]) == 2


def test_of_faces_prepared_anew_those_prepared_here_are_meant(runs: RunBuilder) -> None:
    for builder, n_right in ((runs, 50), (elsewhere(runs, pixel_digest="77" * 32), 80)):
        done(builder, MTL, 70)
        done(builder, OTHER, n_right)
    refused(r"its runs are of 2 kinds \(other pixels\)", runs, MTL, OTHER)
    here = ("utkface-100", "77" * 32, "cd" * 32)
    line = only(compared(runs, MTL, OTHER, prepared=[here])).lines[0]
    assert line.difference.accuracy == pytest.approx(0.1)


def test_what_names_no_finished_run_of_its_own_is_refused(runs: RunBuilder) -> None:
    one = done(runs, MTL, 70, 80)[0]
    failed = runs.failed(OTHER, "the loss is nan")
    for argument, said in (
        ("mtl-cnn-none-full-aa", "no run here, no experiment.*Did you mean mtl-cnn-none-full-"),
        ("abc123", "at least 8 digits"),
        ("0123456789abcdef", "a run's id, the name of an experiment or of a suite"),
        (failed.identity, "is not done: failed: the loss is nan"),
        (one.identity, f"they share the run {one.identity[:12]}"),
    ):
        refused(said, runs, MTL, argument)
    one.folder.rename(one.folder.with_name(one.identity[:10] + "0" * 54))
    done(runs, MTL, 70)
    refused(f"{one.identity[:9]} is the beginning of 2 runs", runs, one.identity[:9])


def test_a_stale_lock_says_nothing_and_a_damaged_run_is_shown_as_such(runs: RunBuilder) -> None:
    (record,) = done(runs, MTL, 70)
    (record.folder / "claim").write_text('{"pid": 1, "since": 0}', encoding="utf-8")
    shown = standing(record)
    assert (shown["state"], "pid" in shown) == ("done", False)
    (record.folder / "experiment.json").write_text("{", encoding="utf-8")
    shown = standing(RunRecord(record.folder))
    assert shown["state"] == "damaged"
    assert "experiment.json" in shown["why"]


FOUND = Difference(
    accuracy=0.0263, low=0.0141, high=0.0384, se=0.006, se_seeds=0.004, df=9.0,
    macro_f1=-0.012, macro_f1_low=-0.03, macro_f1_high=0.006, test="faces_and_seeds", p=0.0004,
    only_reference=None, only_arm=None, n_faces=1_000, n_clusters=990,
)  # fmt: skip
TIE = dataclasses.replace(FOUND, accuracy=-0.001, low=-0.02, high=0.018, p=0.9)
LOSS = dataclasses.replace(FOUND, accuracy=-0.0263, low=-0.0384, high=-0.0141)


@pytest.fixture
def groups(runs: RunBuilder) -> Any:
    """Two experiments, of three and of two seeds."""

    def group(name: str, n_seeds: int) -> RunGroup:
        begun = (runs.begun(an_experiment(name), seed=seed) for seed in range(n_seeds))
        return RunGroup(name, tuple(map(read_run, begun)))

    return group("new", 3), group("old", 2)


def lines_of(
    groups: Any, *found: Difference, family: Family = "named"
) -> tuple[TaskComparison, ...]:
    group, reference = groups
    pairs = zip(TASKS, found, strict=False)
    lines = compare_lines(
        (family, reference, group, task, lambda *_, it=it: it) for task, it in pairs
    )
    return tuple(line for line in lines if isinstance(line, TaskComparison))


def test_differences_have_a_sign_and_p_values_two_digits() -> None:
    for value, text in ((0.0263, "+2.6"), (-0.0141, "−1.4"), (0.0, "0.0"), (-0.0004, "0.0")):
        assert words.pp(value) == text
    for p, text in ((1.0, "1.00"), (0.0123, "0.012"), (0.00123, "0.0012"), (1e-9, "<0.0001")):
        assert words.p_text(p) == text


def test_a_verdict_tells_what_could_have_been_detected(groups: Any) -> None:
    # Of two p-values one is rejected, which leaves 0.05 to the other: t quantiles of 9 degrees of
    # freedom, (2.262 + 0.883) times a standard error of 0.006.
    better, tie = lines_of(groups, FOUND, TIE)
    assert words.verdict_text(better) == "better *"
    detectable = "no significant difference; minimum detectable difference 1.9 pp"
    assert words.verdict_text(tie) == detectable
    assert text_of_test(better) == "t test over clusters of faces and seeds, 3 against 2 seeds"
    unsure = lines_of(groups, dataclasses.replace(FOUND, p=0.039), TIE)
    assert unsure[0].p_holm == pytest.approx(0.078)
    said = "not significant after correction (raw p 0.039)"
    assert words.verdict_text(unsure[0]).startswith(f"{said};")
    assert said in next(iter(words.sentences(unsure)))


def test_pairs_and_mtl_are_described_in_sentences(groups: Any) -> None:
    tie = "no significant difference on gender (−0.1 pp, −2.0 to +1.8; minimum detectable 1.9 pp)."
    (said,) = words.sentences(lines_of(groups, FOUND, TIE, LOSS))
    assert said.startswith(
        "new against old: better on age group by 2.6 pp (+1.4 to +3.8); worse on"
    )
    assert said.endswith(tie)
    (said,) = words.sentences(lines_of(groups, LOSS, TIE, family="mtl_stl"))
    assert said.startswith(
        "Does MTL beat STL? Age group: no, worse by 2.6 pp (−3.8 to −1.4). Gender"
    )


def test_networks_that_lack_the_same_counterparts_share_a_sentence() -> None:
    gaps = [Gap(group, f"{task}-x", NOT_REGISTERED, task) for group in ("a", "b") for task in TASKS]
    gaps.append(Gap("c", "race-c", "not run", "race"))
    said, other = words.gap_sentences(gaps)
    assert said.startswith("Single-task counterparts of a and b that were not run: age group (not")
    assert other == "Single-task counterparts of c that were not run: race (race-c: not run)."


def test_mcnemar_s_limit_is_said_where_it_was_used(groups: Any) -> None:
    single = tuple(group.of_seeds([0]) for group in groups)
    for sides, said in ((single, True), (groups, False)):
        notes = " ".join(words.reading_notes(lines_of(sides, FOUND), groups))
        assert ("near-duplicate test faces as independent" in notes) is said
