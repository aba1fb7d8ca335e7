"""What may be said of the differences on one page, in numbers and in words.

Which p-values are corrected together: benchmark.comparison.statistics. The words say nothing that
the numbers do not.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmark.comparison.library import RunGroup
from benchmark.comparison.statistics import (
    ALPHA,
    FAMILIES,
    NOT_SIGNIFICANT,
    Difference,
    Family,
    Judged,
    judge,
)
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

SIGNIFICANT: Final = "*"
"""The mark of a corrected p of 0.05 or less, everywhere."""

TEST_NAMES: Final = {
    "mcnemar": "McNemar's exact test",
    "faces": "t test over clusters of faces",
    "faces_and_seeds": "t test over clusters of faces and seeds",
}
COUNTERPARTS: Final = "its single-task counterparts"


@dataclass(frozen=True)
class Line(Judged):
    """One task of one pair of arms."""

    reference: RunGroup
    """The runs that were compared: of an arm, all of them or a single one."""
    group: RunGroup
    task: TaskName

    @property
    def of_trainings_alone(self) -> bool:
        """Whether single runs were compared, which permit no claim about an experiment."""
        return len(self.group.runs) == 1


Compared = tuple[RunGroup, RunGroup, TaskName, Difference]
"""Reference, arm, task, and how far apart they are."""


def judge_lines(asked: Sequence[tuple[Family, Compared]]) -> tuple[Line, ...]:
    """Judge the differences of a page, in their order."""
    keys = [_key(compared) for _, compared in asked]
    judged = judge((family, key, item[3]) for key, (family, item) in zip(keys, asked, strict=True))
    return tuple(
        Line(
            **vars(judged[key].of(difference)),
            reference=reference,
            group=group,
            task=task,
        )
        for key, (_, (reference, group, task, difference)) in zip(keys, asked, strict=True)
    )


def _key(compared: Compared) -> Hashable:
    reference, group, task, _ = compared
    return frozenset((reference.identities, group.identities)), task


def family_text(judged: Iterable[Judged]) -> str:
    """Say of which families the p-values of a table are, and how many each holds on the page."""
    sizes = {item.family: item.n_family for item in judged}
    told = [
        f"{FAMILIES[family]} ({sizes[family]} p-value{'' if sizes[family] == 1 else 's'})"
        for family in FAMILIES
        if family in sizes
    ]
    return f"Holm's correction over the family: {'; '.join(told)}. * marks 0.05 or less."


def points(difference: float) -> str:
    """Write a difference of rates in points with its sign: 0.0263 is `+2.6`."""
    value = round(100 * difference, 1)
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.1f}"


def one_place(value: float) -> str:
    """Write a number with one place and a true minus sign: -0.04 is `0.0`."""
    value = round(value, 1)
    return f"{'−' if value < 0 else ''}{abs(value):.1f}"


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


def verdict_text(judged: Judged) -> str:
    """Write the verdict as it stands in a table."""
    if judged.significant:
        return f"{judged.verdict} {SIGNIFICANT}"
    return f"{_insignificant(judged)}; minimum detectable difference {_detectable(judged)}"


def _insignificant(judged: Judged) -> str:
    """Tell a difference that the correction alone keeps from being one from other such."""
    found = judged.difference
    if found.excludes_zero or found.p <= ALPHA:
        return f"not significant after correction (raw p {p_text(found.p)})"
    return NOT_SIGNIFICANT


def _detectable(judged: Judged) -> str:
    return f"{size(judged.minimum_detectable)} pp"


def test_text(line: Line) -> str:
    """Write which test was used, and on what."""
    name = TEST_NAMES[line.difference.test]
    if line.of_trainings_alone:
        seeds = f"seed {line.group.seeds[0]} against seed {line.reference.seeds[0]}"
        return f"{name}, {seeds}: these two trainings alone"
    ours, theirs = len(line.group.seeds), len(line.reference.seeds)
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
    undecided = [line for line in lines if not line.significant]
    if undecided:
        parts.append(f"{NOT_SIGNIFICANT} on {joined(map(_undecided, undecided))}")
    text = f"{lines[0].group.label} against {reference}: {'; '.join(parts)}."
    if any(line.of_trainings_alone for line in lines):
        text += " One seed on a side: this speaks of these trainings alone."
    return text


def _by_how_much(line: Line) -> str:
    found = line.difference
    ends = sorted((found.low, found.high), key=abs) if found.low * found.high > 0 else None
    span = f"{size(ends[0])} to {size(ends[1])}" if ends else points_span(found.low, found.high)
    return f"{TASK_TITLES[line.task]} by {size(found.accuracy)} pp ({span})"


def _undecided(line: Line) -> str:
    return f"{TASK_TITLES[line.task]} ({_found(line)})"


def _found(line: Line) -> str:
    """Write what was found where nothing is significant, and what could have been detected."""
    found = line.difference
    raw = "" if _insignificant(line) == NOT_SIGNIFICANT else f"; {_insignificant(line)}"
    return (
        f"{points(found.accuracy)} pp, {points_span(found.low, found.high)}{raw}; minimum "
        f"detectable {_detectable(line)}"
    )


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
        pairs.setdefault((line.reference.label, line.group.label), []).append(line)
    return list(pairs.values())


def by_group(lines: Sequence[Line]) -> list[list[Line]]:
    """Part lines by arm, in their order; each MTL network with all its counterparts."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.group.label, []).append(line)
    return list(groups.values())


def mtl_sentences(lines: Sequence[Line]) -> Iterator[str]:
    """Answer whether MTL beats STL, and by how much: per task, then per network."""
    if not lines:
        yield "Does MTL beat STL? Not answered: no MTL network and its counterpart were both run."
        return
    answers = []
    for task in TASKS:
        ours = [line for line in lines if line.task == task]
        if ours:
            answers.append(f"{TASK_TITLES[task].capitalize()}: {_answer(ours)}.")
    alone = any(line.of_trainings_alone for line in lines)
    caveat = " One seed on a side speaks of these trainings alone." if alone else ""
    yield f"Does MTL beat STL? {' '.join(answers)}{caveat}"
    rows = by_group(lines)
    if len(rows) > 1:
        yield from (pair_sentence(ours, reference=COUNTERPARTS) for ours in rows)


def _answer(lines: Sequence[Line]) -> str:
    """Answer for one task: of one network by how much, of several in how many."""
    if len(lines) > 1:
        counts = Counter(line.verdict for line in lines)
        return (
            f"better in {counts['better']} of {len(lines)} networks, worse in {counts['worse']}, "
            f"{NOT_SIGNIFICANT} in {counts[NOT_SIGNIFICANT]}"
        )
    (line,) = lines
    found = line.difference
    if not line.significant:
        return f"{NOT_SIGNIFICANT} ({_found(line)})"
    word = "yes, better" if line.verdict == "better" else "no, worse"
    return f"{word} by {size(found.accuracy)} pp ({points_span(found.low, found.high)})"
