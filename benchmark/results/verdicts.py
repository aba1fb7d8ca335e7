"""What may be said of the differences in one printed table, in numbers and in words.

Better, worse, or not told apart: after Holm over all p-values of the table. The words say nothing
that the numbers do not.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmark.results.arms import Arm
from benchmark.results.paired import ALPHA, Difference, holm, smallest_seen
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

Verdict = Literal["better", "worse", "cannot be told apart"]

TEST_NAMES: Final = {
    "mcnemar": "McNemar's exact test",
    "sign_flip": "sign-flip permutation test",
}
TWINS: Final = "its single-task twins"


@dataclass(frozen=True)
class Line:
    """One task of one pair of arms."""

    reference: Arm
    """The runs that were compared: of an arm, all of them or a single one."""
    arm: Arm
    task: TaskName
    difference: Difference
    """The arm minus its reference."""
    p_holm: float
    """Corrected over all p-values of the table."""
    verdict: Verdict
    """Of the arm."""
    smallest_seen: float | None
    """Where nothing was told apart: the true difference that would have been, in 80 % of cases."""

    @property
    def of_trainings_alone(self) -> bool:
        """Whether single runs were compared, which permit no claim about an experiment."""
        return len(self.arm.runs) == 1

    @property
    def within_seeds(self) -> bool:
        """Whether arms told apart differ by no more than their seeds alone could make them."""
        low, high = self.difference.seed_low, self.difference.seed_high
        told_apart = self.verdict != "cannot be told apart"
        return told_apart and low is not None and high is not None and low <= 0 <= high


Compared = tuple[Arm, Arm, TaskName, Difference]
"""Reference, arm, task, and how far apart they are."""


def judge(compared: Sequence[Compared]) -> tuple[Line, ...]:
    """Pass a verdict on all differences of one table."""
    corrected, level = holm([difference.p for *_, difference in compared])
    lines = []
    for (reference, arm, task, difference), p_holm in zip(compared, corrected, strict=True):
        verdict: Verdict = "cannot be told apart"
        if p_holm <= ALPHA:
            verdict = "better" if difference.accuracy > 0 else "worse"
        seen = smallest_seen(difference, level) if verdict == "cannot be told apart" else None
        lines.append(Line(reference, arm, task, difference, p_holm, verdict, seen))
    return tuple(lines)


def points(difference: float) -> str:
    """Write a difference of rates in points with its sign: 0.0263 is `+2.6`."""
    value = round(100 * difference, 1)
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.1f}"


def size(difference: float) -> str:
    """Write how large a difference is, in points without a sign."""
    return f"{abs(100 * difference):.1f}"


def points_span(low: float, high: float) -> str:
    """Write the ends of a difference's interval: `+1.4 to +3.8`."""
    return f"{points(low)} to {points(high)}"


def p_text(p: float) -> str:
    """Write a p-value with two digits, and none below 0.0001."""
    if p < 0.0001:
        return "<0.0001"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}" if p >= 0.01 else f"{p:.4f}"


def verdict_text(line: Line) -> str:
    """Write the verdict as it stands in a table."""
    if line.smallest_seen is None:
        return f"{line.verdict} (*)" if line.within_seeds else line.verdict
    return f"{line.verdict}; a difference of {size(line.smallest_seen)} would have been seen"


def test_text(line: Line) -> str:
    """Write which test was used, and on what."""
    name = TEST_NAMES[line.difference.test]
    if line.of_trainings_alone:
        seeds = f"seed {line.arm.seeds[0]} against seed {line.reference.seeds[0]}"
        return f"{name}, {seeds}: these two trainings alone"
    ours, theirs = len(line.arm.seeds), len(line.reference.seeds)
    return f"{name}, {f'{ours} seeds each' if ours == theirs else f'{ours} against {theirs} seeds'}"


def pair_sentence(lines: Sequence[Line], *, reference: str) -> str:
    """Say in a sentence how an arm did against `reference` on the tasks of `lines`."""
    told = {
        verdict: [line for line in lines if line.verdict == verdict]
        for verdict in ("better", "worse")
    }
    parts = [
        f"{verdict} on {joined(_by_how_much(line) for line in ours)}"
        for verdict, ours in told.items()
        if ours
    ]
    undecided = [line for line in lines if line.smallest_seen is not None]
    if undecided:
        they = "they " if parts else ""
        parts.append(f"{they}cannot be told apart on {joined(map(_undecided, undecided))}")
    text = f"{lines[0].arm.label} against {reference}: {'; '.join(parts)}."
    within = [line for line in lines if line.within_seeds]
    if within:
        tasks = joined(f"{TASK_TITLES[line.task]} ({_over_seeds(line)})" for line in within)
        text += f" The seeds alone spread as widely as the difference on {tasks}."
    if any(line.of_trainings_alone for line in lines):
        text += " One seed on a side: this speaks of these trainings alone."
    return text


def _by_how_much(line: Line) -> str:
    found = line.difference
    ends = sorted((found.low, found.high), key=abs) if found.low * found.high > 0 else None
    span = f"{size(ends[0])} to {size(ends[1])}" if ends else points_span(found.low, found.high)
    return f"{TASK_TITLES[line.task]} by {size(found.accuracy)} points ({span})"


def _undecided(line: Line) -> str:
    return f"{TASK_TITLES[line.task]} ({_found(line)})"


def _found(line: Line) -> str:
    """Write what was found where nothing was told apart, and what would have been."""
    found = line.difference
    seen = (
        "" if line.smallest_seen is None else f"; {size(line.smallest_seen)} would have been seen"
    )
    return f"{points(found.accuracy)}, {points_span(found.low, found.high)}{seen}"


def _over_seeds(line: Line) -> str:
    found = line.difference
    return points_span(found.seed_low or 0.0, found.seed_high or 0.0)


def joined(words: Iterable[str]) -> str:
    """Join words as a person does: `a, b and c`."""
    said = list(words)
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def pair_sentences(lines: Sequence[Line]) -> Iterator[str]:
    """Say of each pair of a table how the arm did."""
    for ours in by_pair(lines):
        yield pair_sentence(ours, reference=ours[0].reference.label)


def by_pair(lines: Sequence[Line]) -> list[list[Line]]:
    """Part lines by pair, in their order."""
    pairs: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        pairs.setdefault((line.reference.label, line.arm.label), []).append(line)
    return list(pairs.values())


def by_arm(lines: Sequence[Line]) -> list[list[Line]]:
    """Part lines by arm, in their order; each MTL network with all its twins."""
    arms: dict[str, list[Line]] = {}
    for line in lines:
        arms.setdefault(line.arm.label, []).append(line)
    return list(arms.values())


def twins_sentences(lines: Sequence[Line]) -> Iterator[str]:
    """Answer whether MTL beats STL, and by how much: per task, then per network."""
    if not lines:
        yield "Does MTL beat STL? Not answered: no MTL network and its twin were both run."
        return
    answers = []
    for task in TASKS:
        ours = [line for line in lines if line.task == task]
        if ours:
            answers.append(f"{TASK_TITLES[task].capitalize()}: {_answer(ours)}.")
    alone = any(line.of_trainings_alone for line in lines)
    caveat = " One seed on a side speaks of these trainings alone." if alone else ""
    yield f"Does MTL beat STL? {' '.join(answers)}{caveat}"
    rows = by_arm(lines)
    if len(rows) > 1:
        yield from (pair_sentence(ours, reference=TWINS) for ours in rows)


def _answer(lines: Sequence[Line]) -> str:
    """Answer for one task: of one network by how much, of several in how many."""
    if len(lines) > 1:
        counts = {
            verdict: sum(line.verdict == verdict for line in lines)
            for verdict in ("better", "worse", "cannot be told apart")
        }
        return (
            f"better in {counts['better']} of {len(lines)} networks, worse in {counts['worse']}, "
            f"not to be told apart in {counts['cannot be told apart']}"
        )
    (line,) = lines
    found = line.difference
    span = points_span(found.low, found.high)
    if line.smallest_seen is not None:
        return f"cannot be told apart ({_found(line)})"
    word = "yes, better" if line.verdict == "better" else "no, worse"
    seeds = ", though seeds alone spread as widely" if line.within_seeds else ""
    return f"{word} by {size(found.accuracy)} points ({span}){seeds}"
