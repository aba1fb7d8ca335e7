"""What may be said of differences, in numbers and in words, and of what could not be compared.

The words say nothing that the numbers do not; which p-values are corrected together is in
benchmark.comparison.statistics.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmark.comparison.library import RunGroup, counted
from benchmark.comparison.statistics import ALPHA, FAMILIES, NOT_SIGNIFICANT, Judged
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
class TaskComparison(Judged):
    """One task of one pair of run groups."""

    reference: RunGroup
    """The runs that were compared: of a group, all of them or a single one."""
    group: RunGroup
    task: TaskName

    @property
    def of_trainings_alone(self) -> bool:
        """Whether single runs were compared, which permit no claim about an experiment."""
        return len(self.group.runs) == 1


@dataclass(frozen=True)
class Gap:
    """A comparison that was not made, and why."""

    group: str
    reference: str
    why: str
    task: TaskName | None = None
    """The task of a counterpart that is missing."""


def family_text(judged: Iterable[Judged]) -> str:
    """Say of which families the p-values of a table are, and how many each holds on the page."""
    sizes = {item.family: item.n_family for item in judged}
    said = [
        f"{title} ({counted(sizes[family], 'p-value')})"
        for family, title in FAMILIES.items()
        if family in sizes
    ]
    return f"Holm's correction over the family: {'; '.join(said)}. * marks 0.05 or less."


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
    detectable = f"{size(judged.minimum_detectable)} pp"
    return f"{_insignificant(judged)}; minimum detectable difference {detectable}"


def _insignificant(judged: Judged) -> str:
    """Name apart a difference that the correction alone keeps from being significant."""
    found = judged.difference
    if found.excludes_zero or found.p <= ALPHA:
        return f"not significant after correction (raw p {p_text(found.p)})"
    return NOT_SIGNIFICANT


def test_text(line: TaskComparison) -> str:
    """Write which test was used, and on what."""
    name = TEST_NAMES[line.difference.test]
    if line.of_trainings_alone:
        seeds = f"seed {line.group.seeds[0]} against seed {line.reference.seeds[0]}"
        return f"{name}, {seeds}: these two trainings alone"
    ours, theirs = len(line.group.seeds), len(line.reference.seeds)
    return f"{name}, {f'{ours} seeds each' if ours == theirs else f'{ours} against {theirs} seeds'}"


def pair_sentence(lines: Sequence[TaskComparison], *, reference: str) -> str:
    """Say in a sentence how a group did against `reference` on the tasks of `lines`."""
    parts = []
    for verdict in ("better", "worse"):
        ours = [_significant_text(line) for line in lines if line.verdict == verdict]
        parts += [f"{verdict} on {joined(ours)}"] if ours else []
    undecided = [line for line in lines if not line.significant]
    if undecided:
        said = [f"{TASK_TITLES[line.task]} ({_insignificant_text(line)})" for line in undecided]
        parts.append(f"{NOT_SIGNIFICANT} on {joined(said)}")
    text = f"{lines[0].group.label} against {reference}: {'; '.join(parts)}."
    if any(line.of_trainings_alone for line in lines):
        text += " One seed on a side: this speaks of these trainings alone."
    return text


def _significant_text(line: TaskComparison) -> str:
    found = line.difference
    span = points_span(found.low, found.high)
    if found.low * found.high > 0:
        low, high = sorted((found.low, found.high), key=abs)
        span = f"{size(low)} to {size(high)}"
    return f"{TASK_TITLES[line.task]} by {size(found.accuracy)} pp ({span})"


def _insignificant_text(line: TaskComparison) -> str:
    """Write what was found where nothing is significant, and what could have been detected."""
    found = line.difference
    why = _insignificant(line)
    return (
        f"{points(found.accuracy)} pp, {points_span(found.low, found.high)}"
        f"{'' if why == NOT_SIGNIFICANT else f'; {why}'}; minimum "
        f"detectable {size(line.minimum_detectable)} pp"
    )


def joined(words: Iterable[str]) -> str:
    """Join words as a person does: `a, b and c`."""
    said = list(words)
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def pair_sentences(lines: Sequence[TaskComparison]) -> Iterator[str]:
    """Say of each pair of a table how the group did."""
    for ours in by_pair(lines):
        yield pair_sentence(ours, reference=ours[0].reference.label)


def by_pair(lines: Sequence[TaskComparison]) -> list[list[TaskComparison]]:
    """Part lines by pair, in their order."""
    return _parted(lines, lambda line: (line.reference.label, line.group.label))


def by_group(lines: Sequence[TaskComparison]) -> list[list[TaskComparison]]:
    """Part lines by run group, in their order; each MTL network with all its counterparts."""
    return _parted(lines, lambda line: line.group.label)


def _parted(
    lines: Sequence[TaskComparison], key: Callable[[TaskComparison], Hashable]
) -> list[list[TaskComparison]]:
    parts: dict[Hashable, list[TaskComparison]] = {}
    for line in lines:
        parts.setdefault(key(line), []).append(line)
    return list(parts.values())


def mtl_sentences(lines: Sequence[TaskComparison]) -> Iterator[str]:
    """Answer whether MTL beats STL, and by how much: per task, then per network."""
    if not lines:
        yield "Does MTL beat STL? Not answered: no MTL network and its counterpart were both run."
        return
    answers = []
    for task in TASKS:
        if ours := [line for line in lines if line.task == task]:
            answers.append(f"{TASK_TITLES[task].capitalize()}: {_mtl_answer(ours)}.")
    alone = any(line.of_trainings_alone for line in lines)
    caveat = " One seed on a side speaks of these trainings alone." if alone else ""
    yield f"Does MTL beat STL? {' '.join(answers)}{caveat}"
    rows = by_group(lines)
    if len(rows) > 1:
        yield from (pair_sentence(ours, reference=COUNTERPARTS) for ours in rows)


def _mtl_answer(lines: Sequence[TaskComparison]) -> str:
    """Answer for one task: of one network by how much, of several in how many."""
    if len(lines) > 1:
        counts = Counter(line.verdict for line in lines)
        return (
            f"better in {counts['better']} of {len(lines)} networks, worse in {counts['worse']}, "
            f"{NOT_SIGNIFICANT} in {counts[NOT_SIGNIFICANT]}"
        )
    found = lines[0].difference
    if not lines[0].significant:
        return f"{NOT_SIGNIFICANT} ({_insignificant_text(lines[0])})"
    word = "yes, better" if lines[0].verdict == "better" else "no, worse"
    return f"{word} by {size(found.accuracy)} pp ({points_span(found.low, found.high)})"


def gap_sentences(gaps: Sequence[Gap]) -> Iterator[str]:
    """Say what was not compared and why; networks that lack the same counterparts together."""
    lacking: dict[str, dict[str, list[str]]] = {}
    for gap in gaps:
        if gap.task is None:
            yield f"{gap.group} against {gap.reference}: not compared, {gap.why}."
            continue
        why = gap.why if gap.why == "not registered" else f"{gap.reference}: {gap.why}"
        lacking.setdefault(gap.group, {}).setdefault(why, []).append(TASK_TITLES[gap.task])
    networks: dict[str, list[str]] = {}
    for network, reasons in lacking.items():
        missing = ", ".join(f"{joined(titles)} ({why})" for why, titles in reasons.items())
        networks.setdefault(missing, []).append(network)
    for missing, names in networks.items():
        yield f"Single-task counterparts missing of {joined(names)}: {missing}."


def reading_notes(lines: Sequence[TaskComparison], groups: Sequence[RunGroup]) -> Iterator[str]:
    """Say how the numbers of these very tables are to be read."""
    yield (
        "A difference is the arm minus its reference on the same test faces, in percentage points "
        "(pp), with its 95 % interval. Intervals are not widened for the number of comparisons; "
        "p-values are. Macro-F1 has an interval of the same kind and no test."
    )
    if any(not line.significant for line in lines):
        yield (
            "No significant difference does not mean equal. The minimum detectable difference is "
            "the smallest true one that such a comparison finds in 80 % of cases, at the level "
            "that Holm leaves."
        )
    alone = [line.difference for line in lines if line.of_trainings_alone]
    if len(alone) < len(lines):
        yield (
            "Run groups are compared as samples of trainings and of test faces: test and interval "
            "hold the variance of both (docs/METHODS.md)."
        )
    if alone:
        yield (
            "One seed permits no claim about an experiment: where a side has one, a single run of "
            "each is compared, of the same seed where both have it, never the best."
        )
    sharing = max((found.n_faces - found.n_clusters for found in alone), default=0)
    if sharing:
        one = sharing == 1
        yield (
            f"{sharing} test face{' is a' if one else 's are'} near-duplicate"
            f"{' of another' if one else 's of others'} there; McNemar's test "
            "counts every face as independent, and its p is a little too small."
        )
    for group in groups:
        leak = ("LEAKY: test faces were seen in training",) if group.leaky else ()
        yield from (f"{group.label}: {remark}." for remark in (*leak, *group.remarks))
    versions = {str(group.runs[0].about.get("trainer_version")) for group in groups}
    if len(versions) > 1:
        yield f"They were trained by trainer versions {joined(sorted(versions))}."
