"""The words and numbers of a comparison: cells and sentences."""

from dataclasses import replace

import pytest

from benchmark.comparison import wording as words
from benchmark.comparison.library import RunGroup, read_run
from benchmark.comparison.pairs import judge_lines
from benchmark.comparison.statistics import Difference
from benchmark.comparison.wording import Gap, TaskComparison
from benchmark.comparison.wording import test_text as text_of_test
from benchmark.registry import NOT_REGISTERED
from benchmark.tasks import TASKS
from tests.made_runs import RunBuilder, an_experiment

FOUND = Difference(
    accuracy=0.0263, low=0.0141, high=0.0384, se=0.006, se_seeds=0.004, df=9.0,
    macro_f1=-0.012, macro_f1_low=-0.03, macro_f1_high=0.006, test="faces_and_seeds", p=0.0004,
    only_reference=None, only_arm=None, n_faces=1_000, n_clusters=990,
)  # fmt: skip
TIE = replace(FOUND, accuracy=-0.001, low=-0.02, high=0.018, p=0.9)
LOSS = replace(FOUND, accuracy=-0.0263, low=-0.0384, high=-0.0141)


@pytest.fixture
def groups(runs: RunBuilder) -> tuple[RunGroup, RunGroup]:
    """Two experiments, of three and of two seeds."""

    def group(name: str, n_seeds: int) -> RunGroup:
        begun = (runs.begun(an_experiment(name), seed=seed) for seed in range(n_seeds))
        return RunGroup(name, tuple(map(read_run, begun)))

    return group("new", 3), group("old", 2)


def lines_of(groups: tuple[RunGroup, RunGroup], *found: Difference) -> tuple[TaskComparison, ...]:
    group, reference = groups
    pairs = zip(TASKS, found, strict=False)
    lines = judge_lines(("named", reference, group, task, lambda it=it: it) for task, it in pairs)
    return tuple(line for line in lines if isinstance(line, TaskComparison))


def test_differences_have_a_sign_and_p_values_two_digits() -> None:
    for value, text in ((0.0263, "+2.6"), (-0.0141, "−1.4"), (0.0, "0.0"), (-0.0004, "0.0")):
        assert words.points(value) == text
    for p, text in ((1.0, "1.00"), (0.0123, "0.012"), (0.00123, "0.0012"), (1e-9, "<0.0001")):
        assert words.p_text(p) == text


def test_a_verdict_tells_what_could_have_been_detected(groups: tuple[RunGroup, RunGroup]) -> None:
    # Of two p-values one is rejected, which leaves 0.05 to the other: t quantiles of 9 degrees of
    # freedom, (2.262 + 0.883) times a standard error of 0.006.
    better, tie = lines_of(groups, FOUND, TIE)
    assert words.verdict_text(better) == "better *"
    detectable = "no significant difference; minimum detectable difference 1.9 pp"
    assert words.verdict_text(tie) == detectable
    assert text_of_test(better) == "t test over clusters of faces and seeds, 3 against 2 seeds"
    unsure = lines_of(groups, replace(FOUND, p=0.039), TIE)
    assert unsure[0].p_holm == pytest.approx(0.078)
    said = "not significant after correction (raw p 0.039)"
    assert words.verdict_text(unsure[0]).startswith(f"{said};")
    assert said in next(iter(words.sentences(unsure)))


def test_pairs_and_mtl_are_described_in_sentences(groups: tuple[RunGroup, RunGroup]) -> None:
    tie = "no significant difference on gender (−0.1 pp, −2.0 to +1.8; minimum detectable 1.9 pp)."
    (said,) = words.sentences(lines_of(groups, FOUND, TIE, LOSS))
    assert said.startswith(
        "new against old: better on age group by 2.6 pp (+1.4 to +3.8); worse on"
    )
    assert said.endswith(tie)
    (said,) = words.sentences(lines_of(groups, LOSS, TIE), of_mtl=True)
    assert said.startswith(
        "Does MTL beat STL? Age group: no, worse by 2.6 pp (−3.8 to −1.4). Gender"
    )


def test_networks_that_lack_the_same_counterparts_share_a_sentence() -> None:
    gaps = [Gap(group, f"{task}-x", NOT_REGISTERED, task) for group in ("a", "b") for task in TASKS]
    gaps.append(Gap("c", "race-c", "not run", "race"))
    said, other = words.gap_sentences(gaps)
    assert said.startswith("Single-task counterparts missing of a and b: age group (not registered")
    assert other == "Single-task counterparts missing of c: race (race-c: not run)."


def test_near_duplicates_are_said_where_mcnemar_counts_them_as_independent(
    groups: tuple[RunGroup, RunGroup],
) -> None:
    single = (groups[0].of_seeds([0]), groups[1].of_seeds([0]))
    for sides, test, said in ((single, "mcnemar", True), (groups, "faces_and_seeds", False)):
        lines = lines_of(sides, replace(FOUND, test=test))
        notes = " ".join(words.reading_notes(lines, groups))
        assert ("10 test faces are near-duplicates" in notes) is said
