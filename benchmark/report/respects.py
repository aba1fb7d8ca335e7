"""Which weights, how deep, and does gender help? Experiments that differ in that alone."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from benchmark.experiment import Experiment
from benchmark.report.answers import (
    HOLLOW,
    Answer,
    Sentence,
    comparison_notes,
    forest,
    run_command,
    runs_of,
    suite_command,
    unanswered,
)
from benchmark.report.depths import depth_pictures
from benchmark.report.evidence import Evidence
from benchmark.report.pairs import (
    RESPECT_OF,
    Respect,
    Siblings,
    differing_rates,
    judged,
    respect_couples,
    siblings,
)
from benchmark.report.tables import lines_table
from benchmark.results.comparison import Found
from benchmark.results.comparison_notes import gap_sentences
from benchmark.results.paired import NOT_SIGNIFICANT, Family
from benchmark.results.verdicts import (
    Line,
    by_pair,
    family_text,
    joined,
    pair_sentence,
    points,
)
from benchmark.tasks import TASK_TITLES, TASKS


def which_weights(evidence: Evidence) -> Answer:
    """Which weights to start from?"""
    return _one_respect(
        evidence,
        "weights",
        "weights",
        "Which weights to start from?",
        "The same network from other weights",
    )


def how_deep(evidence: Evidence) -> Answer:
    """How deep to unfreeze?"""
    answer = _one_respect(
        evidence,
        "depth",
        "depth",
        "How deep to unfreeze the trunk?",
        "Each depth against the next shallower one",
    )
    if not answer.answered:
        return answer
    return replace(answer, pictures=(*depth_pictures(evidence), *answer.pictures))


def does_gender_help(evidence: Evidence) -> Answer:
    """Does it help to show gender to the age-group and race branches?"""
    return _one_respect(
        evidence,
        "conditioning",
        "gender",
        "Does showing the network its own reading of gender help?",
        "Each way of conditioning on gender against none",
    )


def _one_respect(
    evidence: Evidence, family: Family, slug: str, question: str, title: str
) -> Answer:
    respect = RESPECT_OF[family]
    couples = respect_couples(evidence, respect)
    known = evidence.library.experiments
    labels = {
        f"{arm}|{reference}": _label(group, known[reference], known[arm])
        for group, reference, arm in couples
    }
    found = judged(evidence, family)
    if not found.lines:
        commands = _wanted(evidence, respect, [pair[1:] for pair in couples])
        why = "no two networks that differ in this alone are finished on the same faces."
        return unanswered(slug, question, why, commands)
    caption = (
        "Difference in test accuracy, in points, with its 95 % interval; right of 0: the first "
        f"named reads more. {HOLLOW}"
    )
    sentences = [
        Sentence(
            pair_sentence(ours, reference=ours[0].reference.label), runs_of(ours, evidence.links)
        )
        for ours in by_pair(found.lines)
    ]
    table = lines_table(
        f"{slug}-lines", title, found.lines, evidence.links, family_text(found.lines)
    )
    return Answer(
        slug,
        question,
        _tally(found, labels),
        runs_of(found.lines, evidence.links),
        sentences=tuple(sentences),
        pictures=(forest(title, caption, found.lines, labels),),
        tables=(table,),
        missing=tuple(gap_sentences(found.gaps)),
        notes=(*_rate_notes(evidence, found.lines), *comparison_notes(found.lines)),
    )


def _honest(experiments: Iterable[Experiment]) -> list[Experiment]:
    return [item for item in experiments if not item.protocol.leaky]


def _label(group: Siblings, reference: Experiment, arm: Experiment) -> str:
    return f"{group.value_of(arm)} − {group.value_of(reference)} · {group.label}"


def _rate_notes(evidence: Evidence, lines: Sequence[Line]) -> Iterator[str]:
    known = evidence.library.experiments
    told: dict[str, None] = {}
    for line in lines:
        rates = differing_rates(known[line.reference.label], known[line.arm.label])
        if rates:
            told[f"{line.arm.label} against {line.reference.label}: {rates}"] = None
    if told:
        yield f"Not only in this: {'; '.join(told)}."


def _tally(found: Found, labels: Mapping[str, str]) -> str:
    """Sum up verdicts: of one pair by name, of several in how many, task by task."""
    pairs = by_pair(found.lines)
    alone = any(line.of_trainings_alone for line in found.lines)
    caveat = " One seed on a side speaks of these trainings alone." if alone else ""
    if len(pairs) == 1:
        return pair_sentence(pairs[0], reference=pairs[0][0].reference.label)
    parts = []
    for task in TASKS:
        ours = [line for line in found.lines if line.task == task]
        if not ours:
            continue
        counts = Counter(line.verdict for line in ours)
        said = [
            f"{verdict} in {counts[verdict]}"
            for verdict in ("better", "worse", NOT_SIGNIFICANT)
            if counts[verdict]
        ]
        part = f"{TASK_TITLES[task].capitalize()}: {joined(said)} of {len(ours)} comparisons"
        told = [line for line in ours if line.significant]
        if told:
            largest = max(told, key=lambda line: abs(line.difference.accuracy))
            label = labels[f"{largest.arm.label}|{largest.reference.label}"]
            part += f", by {points(largest.difference.accuracy)} points at most ({label})"
        parts.append(f"{part}.")
    return " ".join(parts) + caveat


def _wanted(evidence: Evidence, respect: Respect, couples: Sequence[tuple[str, str]]) -> list[str]:
    """Say what to run: the first couple of these experiments, else the smallest suite with one."""
    if couples:
        return [run_command(couples[0], evidence.dataset)]
    known = evidence.library.experiments
    for suite in sorted(evidence.library.suites.values(), key=lambda item: len(item.experiments)):
        members = _honest(known[name] for name in suite.experiments)
        if siblings(members, respect):
            return [suite_command(suite.name, evidence.dataset)]
    return []
