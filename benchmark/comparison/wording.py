"""What comparisons and studies show: numbers, verdicts and gaps in words, and a study's page.

The words say nothing that the numbers do not; which p-values are corrected together is in
benchmark.comparison.statistics. The terminal, files and the report only lay these out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from benchmark.comparison.library import LEAKY_REMARK, RunGroup, Setting, counted
from benchmark.comparison.statistics import ALPHA, FAMILIES, NOT_SIGNIFICANT, PairResult, Verdict
from benchmark.evaluation.intervals import cluster_bootstrap
from benchmark.experiment.definition import Protocol
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

NOTHING: Final = "–"
AD_HOC: Final = "ad hoc: "
"""How the remark begins that says what was changed of a definition."""
SIGNIFICANT: Final = "*"
"""The mark of a corrected p of 0.05 or less, everywhere."""
TEST_NAMES: Final = {
    "mcnemar": "McNemar's exact test",
    "faces": "t test over clusters of faces",
    "faces_and_seeds": "t test over clusters of faces and seeds",
}
COUNTERPARTS: Final = "its single-task counterparts"
STUDY_NUMBERS: Final = (
    "Accuracy in percent: mean ± sd over seeds, with the 95 % interval of a bootstrap over "
    "clusters of test faces. Differences are in percentage points (pp), with a 95 % interval from "
    "clusters of faces and, of two seeds or more, from seeds."
)


def percent(rate: float | None) -> str:
    """Write a rate in [0, 1] as percent without the sign: 0.7123 is `71.2`."""
    return NOTHING if rate is None else f"{100 * rate:.1f}"


def span(low: float, high: float) -> str:
    """Write an interval of a rate, in percent."""
    return f"{percent(low)}–{percent(high)}"


def with_sd(mean: float | None, sd: float | None) -> str:
    """Write a rate with its standard deviation over seeds, where there are several."""
    return percent(mean) if sd is None else f"{percent(mean)} ± {percent(sd)}"


def number_text(value: float | None) -> str:
    """Write a positive number with three digits: `0.0512`, `48.4`, `1,320`."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def memory_text(mib: float | None) -> str:
    """Write an amount of memory: `812 MiB`, `3.4 GiB`."""
    if mib is None:
        return NOTHING
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def count_text(count: int | None) -> str:
    """Write a number of parameters with three digits: `722 k`, `14.8 M`."""
    if count is None:
        return NOTHING
    unit, letter = (1_000_000, " M") if count >= 1_000_000 else (1_000, " k")
    return f"{number_text(count / unit)}{letter}" if count >= unit else str(count)


def duration_text(seconds: float | None) -> str:
    """Write a training time with two digits or more: `48 s`, `1.7 min`, `12 min`, `3.4 h`."""
    if seconds is None:
        return NOTHING
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"
    return f"{seconds / 3600:.1f} h"


def pp(difference: float) -> str:
    """Write a difference of rates in percentage points with its sign: 0.0263 is `+2.6`."""
    value = round(100 * difference, 1)
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.1f}"


def one_place(value: float) -> str:
    """Write a number with one place and a true minus sign: -0.04 is `0.0`."""
    return pp(value / 100).removeprefix("+")


def pp_span(low: float, high: float) -> str:
    """Write the ends of a difference's interval: `+1.4 to +3.8`."""
    return f"{pp(low)} to {pp(high)}"


def change_text(mean: float, low: float, high: float) -> str:
    """Write a difference in percentage points with its interval."""
    return f"{pp(mean)} ({pp_span(low, high)})"


def p_text(p: float) -> str:
    """Write a p-value with two digits, and none below 0.0001."""
    if p < 0.0001:
        return "<0.0001"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}" if p >= 0.01 else f"{p:.4f}"


def joined(words: Iterable[str]) -> str:
    """Join words as a person does: `a, b and c`."""
    said = list(words)
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def protocol_text(protocol: Protocol) -> str:
    """Name a protocol and what it does otherwise than the default."""
    plain = Protocol(fold=protocol.fold)
    kinds = {"unit": "inputs scaled to 0-1", "weights_swapped": "red and blue exchanged"}
    scaling = kinds.get(protocol.input_scaling, f"inputs {protocol.input_scaling}")
    otherwise = (
        (protocol.input_scaling != plain.input_scaling, scaling),
        (protocol.shuffling != plain.shuffling, "batches never re-shuffled"),
        (protocol.selection != plain.selection, "last epoch taken"),
    )
    return ", ".join([protocol.name, *(text for differs, text in otherwise if differs)])


def setting_text(setting: Setting) -> str:
    """Say what the rows of a table have in common."""
    said = f"{'LEAKY. ' * setting.protocol.leaky}Split {setting.split_version}"
    if setting.split_digest:
        said += f" (digest {setting.split_digest[:8]}, pixels {setting.pixel_digest[:8]})"
    said += f", protocol {protocol_text(setting.protocol)}."
    said += "" if setting.split_digest else " Not run."
    if setting.subset:
        said += f" Selected and tested on {setting.subset.label.replace('_', ' and ')} alone."
    return said


@dataclass(frozen=True)
class TaskComparison(PairResult):
    """One task of one pair of run groups."""

    reference: RunGroup
    """The runs that were compared: of a group, all of them or a single one."""
    group: RunGroup
    task: TaskName

    @property
    def of_trainings_alone(self) -> bool:
        """Whether single runs were compared, which permit no claim about an experiment."""
        return len(self.group.runs) == 1


class Gap(NamedTuple):
    """A comparison that was not made, and why."""

    group: str
    reference: str
    why: str
    task: TaskName | None = None
    """The task of a counterpart that was not run."""


def family_text(results: Iterable[PairResult]) -> str:
    """Say of which families the p-values of a table are, and how many each holds on the page."""
    sizes = {item.family: item.n_family for item in results}
    said = [
        f"{title} ({counted(sizes[family], 'p-value')})"
        for family, title in FAMILIES.items()
        if family in sizes
    ]
    return f"Holm's correction over the family: {'; '.join(said)}. * marks 0.05 or less."


def verdict_text(result: PairResult) -> str:
    """Write the verdict as it stands in a table."""
    if result.significant:
        return f"{result.verdict} {SIGNIFICANT}"
    detectable = f"{percent(result.minimum_detectable)} pp"
    return f"{_insignificant(result)}; minimum detectable difference {detectable}"


def _insignificant(result: PairResult) -> str:
    """Name apart a difference that the correction alone keeps from being significant."""
    found = result.difference
    if found.p <= ALPHA:
        return f"not significant after correction (raw p {p_text(found.p)})"
    return NOT_SIGNIFICANT


def test_text(line: TaskComparison) -> str:
    """Write which test was used, and on what."""
    name, sides = TEST_NAMES[line.difference.test], (line.group.seeds, line.reference.seeds)
    if line.of_trainings_alone:
        return f"{name}, seed {sides[0][0]} against seed {sides[1][0]}: these two runs only"
    ours, theirs = map(len, sides)
    return f"{name}, {f'{ours} seeds each' if ours == theirs else f'{ours} against {theirs} seeds'}"


def _found_text(line: TaskComparison) -> str:
    """Write how large a significant difference is; else also what could have been detected."""
    found = line.difference
    ends = pp_span(found.low, found.high)
    if line.significant:
        return f"by {percent(abs(found.accuracy))} pp ({ends})"
    why = _insignificant(line)
    corrected = "" if why == NOT_SIGNIFICANT else f"; {why}"
    detectable = f"minimum detectable {percent(line.minimum_detectable)} pp"
    return f"({pp(found.accuracy)} pp, {ends}{corrected}; {detectable})"


def _caveat(lines: Iterable[TaskComparison]) -> str:
    said = " With one seed on a side, the result applies to these training runs only."
    return said * any(line.of_trainings_alone for line in lines)


def by_pair(lines: Sequence[TaskComparison]) -> list[list[TaskComparison]]:
    of_pairs = groupby(lines, lambda line: (line.reference.label, line.group.label))
    return [list(ours) for _, ours in of_pairs]


def verdict_counts(lines: Sequence[TaskComparison]) -> str:
    """Count verdicts: `better in 1 and no significant difference in 2 of 3`."""
    counts = Counter(line.verdict for line in lines)
    said = (f"{verdict} in {counts[verdict]}" for verdict in get_args(Verdict) if counts[verdict])
    return f"{joined(said)} of {len(lines)}"


def _pair_sentence(lines: Sequence[TaskComparison], reference: str) -> str:
    said: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        said[line.verdict].append(f"{TASK_TITLES[line.task]} {_found_text(line)}")
    parts = "; ".join(
        f"{verdict} on {joined(said[verdict])}" for verdict in get_args(Verdict) if verdict in said
    )
    return f"{lines[0].group.label} against {reference}: {parts}.{_caveat(lines)}"


UNANSWERED: Final = (
    "Does MTL beat STL? Not answered: no MTL network and its counterpart were both run."
)


def sentences(lines: Sequence[TaskComparison]) -> Iterator[str]:
    """Say of each pair how the group did; of MTL networks against their counterparts whether MTL
    beats STL, and by how much: per task, then per network."""
    if not all(line.family == "mtl_stl" for line in lines) or not lines:
        yield from (_pair_sentence(ours, ours[0].reference.label) for ours in by_pair(lines))
        return
    answers = []
    for task in TASKS:
        ours = [line for line in lines if line.task == task]
        said = f"{verdict_counts(ours)} networks"
        if len(ours) == 1:
            answer = {"better": "yes, better", "worse": "no, worse"}
            said = f"{answer.get(ours[0].verdict, NOT_SIGNIFICANT)} {_found_text(ours[0])}"
        if ours:
            answers.append(f"{TASK_TITLES[task].capitalize()}: {said}.")
    yield f"Does MTL beat STL? {' '.join(answers)}{_caveat(lines)}"
    networks = [list(ours) for _, ours in groupby(lines, lambda line: line.group.label)]
    if len(networks) > 1:
        yield from (_pair_sentence(ours, COUNTERPARTS) for ours in networks)


def gap_sentences(gaps: Iterable[Gap]) -> Iterator[str]:
    """Say what was not compared and why; networks that lack the same counterparts together."""
    lacking: dict[str, list[str]] = defaultdict(list)
    for gap in gaps:
        if gap.task is None:
            yield f"{gap.group} against {gap.reference}: not compared, {gap.why}."
        else:
            why = gap.why if gap.why == "not registered" else f"{gap.reference}: {gap.why}"
            lacking[gap.group].append(f"{TASK_TITLES[gap.task]} ({why})")
    networks: dict[str, list[str]] = defaultdict(list)
    for network, missing in lacking.items():
        networks[", ".join(missing)].append(network)
    for lacked, names in networks.items():
        yield f"Single-task counterparts of {joined(names)} that were not run: {lacked}."


GENERAL_NOTES: Final = (
    "A difference is the run group minus its reference on the same test faces, in percentage "
    "points (pp), with its 95 % interval. Intervals are not widened for the number of "
    "comparisons; p-values are. Macro-F1 has an interval of the same kind and no test.",
    "No significant difference does not mean equal. The minimum detectable difference is "
    "the smallest true one that such a comparison finds in 80 % of cases, at the level "
    "that Holm leaves.",
    "Run groups are compared as samples of trainings and of test faces: test and interval "
    "hold the variance of both (docs/METHODS.md).",
    "One seed permits no claim about an experiment: where a side has one, a single run of "
    "each is compared, of the same seed where both have it, never the best. McNemar's test counts "
    "near-duplicate test faces as independent.",
)
"""Those of the reading notes that say the same of every comparison."""


def reading_notes(lines: Sequence[TaskComparison], groups: Sequence[RunGroup]) -> Iterator[str]:
    """Say how the numbers of these very tables are to be read."""
    alone = {line.of_trainings_alone for line in lines}
    applies = (True, any(not it.significant for it in lines), False in alone, True in alone)
    yield from (note for note, does in zip(GENERAL_NOTES, applies, strict=True) if does)
    for group in groups:
        remarks = (LEAKY_REMARK,) * group.leaky + group.remarks
        yield from (f"{group.label}: {remark}." for remark in remarks)
    versions = {str(group.runs[0].trainer_version) for group in groups}
    if len(versions) > 1:
        yield f"They were trained by trainer versions {joined(sorted(versions))}."


def rate_of(right: npt.NDArray[np.bool_], clusters: npt.NDArray[np.int64]) -> dict[str, Any] | None:
    """Score faces, right or wrong as (n_seeds, n_faces); None where there is no face.

    Gives mean, low and high (95 % bootstrap of the seed-averaged correctness over clusters), and
    the rate by_seed, all in [0, 1].
    """
    if not right.size:
        return None
    low, high = cluster_bootstrap(right.mean(axis=0)[:, None], clusters)
    ends = {"mean": float(right.mean()), "low": float(low[0]), "high": float(high[0])}
    return ends | {"by_seed": right.mean(axis=1).tolist()}


def rate_text(rate: Mapping[str, Any] | None) -> str:
    """Write accuracy, sd over several seeds and interval in percent."""
    if rate is None:
        return NOTHING
    several = len(rate["by_seed"]) > 1
    sd = f" ±{100 * float(np.std(rate['by_seed'], ddof=1)):.1f}" if several else ""
    return f"{percent(rate['mean'])}{sd} ({span(rate['low'], rate['high'])})"


class StudyTable(NamedTuple):
    """Cells as text; the first of a row names it."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Mark(NamedTuple):
    """One point of a figure with its 95 % interval; of none, both ends are the value."""

    label: str
    value: float
    low: float
    high: float
    filled: bool = True
    """Of a difference, whether it is significant."""
    leaky: bool = False


class StudyPanel(NamedTuple):
    """The marks of a task, from top to bottom."""

    task: TaskName
    title: str
    marks: tuple[Mark, ...]


class StudyFigure(NamedTuple):
    """Panels of rates, beside each other, or of differences, one below the other."""

    name: str
    """Unique on a page; empty for the only one."""
    title: str
    caption: str
    panels: tuple[StudyPanel, ...]
    of_differences: bool = False


class StudyPage(NamedTuple):
    title: str
    sentences: tuple[str, ...]
    tables: tuple[StudyTable, ...]
    figures: tuple[StudyFigure, ...]
    notes: tuple[str, ...]
    """How to read it, and what was not run."""
    data: dict[str, Any]
    """The study as plain values: what `--json` has."""
