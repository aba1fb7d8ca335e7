"""One network for all three tasks, or one for each? Slopes, differences, and the words for both."""

from collections.abc import Sequence

from benchmark.report import plots
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
from benchmark.report.evidence import Evidence
from benchmark.report.pairs import judged
from benchmark.report.plots import Picture, Slope
from benchmark.report.tables import lines_table
from benchmark.results.arms import Arm
from benchmark.results.comparison_notes import gap_sentences
from benchmark.results.verdicts import Line, by_arm, family_text, mtl_sentences
from benchmark.tasks import TASKS, TaskName


def mtl_or_stl(evidence: Evidence) -> Answer:
    """Does one network for three tasks read better than three networks?"""
    slug, question = "mtl-or-stl", "One network for all three tasks, or one for each?"
    found = judged(evidence, "mtl_stl")
    gaps = tuple(gap_sentences(found.gaps))
    if not found.lines:
        names = _twins_wanted(evidence)
        commands = (
            [run_command(names, evidence.dataset)]
            if names
            else [suite_command("quick", evidence.dataset)]
        )
        why = "no MTL network and its single-task counterpart are finished on the same faces."
        return unanswered(slug, question, why, commands)
    short, *others = mtl_sentences(found.lines)
    networks = by_arm(found.lines)
    sentences = [
        Sentence(words, runs_of(ours, evidence.links))
        for words, ours in zip([short, *others], [found.lines, *networks], strict=False)
    ]
    pictures = (_slopes(evidence, found.lines), _differences(found.lines))
    table = lines_table(
        f"{slug}-lines",
        "Networks of three tasks against their single-task counterparts",
        found.lines,
        evidence.links,
        family_text(found.lines),
    )
    return Answer(
        slug,
        question,
        short.removeprefix("Does MTL beat STL? "),
        sentences[0].href,
        sentences=tuple(sentences),
        pictures=pictures,
        tables=(table,),
        missing=gaps,
        notes=comparison_notes(found.lines),
    )


def _twins_wanted(evidence: Evidence) -> list[str]:
    """Name the first network of three tasks whose twins are all registered, and these twins."""
    known = evidence.library.experiments
    for item in evidence.experiments:
        if len(item.head.tasks) > 1 and not item.protocol.leaky:
            twins = [item.twin_name(task) for task in item.head.tasks]
            if all(name in known for name in twins):
                return [item.name, *twins]
    return []


def _slopes(evidence: Evidence, lines: Sequence[Line]) -> Picture:
    panels = []
    for task in TASKS:
        ours = [line for line in lines if line.task == task]
        slopes = [
            Slope(
                _short_name(evidence, line.arm.label),
                _accuracy(evidence, line.reference, task),
                _accuracy(evidence, line.arm, task),
                line.verdict,
            )
            for line in ours
        ]
        if slopes:
            panels.append(plots.slopes_panel(task, slopes))
    caption = (
        "Test accuracy in percent of each network alone on a task and together with the others. "
        "Triangle: better together; square: worse; hollow circle: no significant difference."
    )
    return Picture("From one task to three, network by network", caption, tuple(panels))


def _short_name(evidence: Evidence, name: str) -> str:
    """Name a network by architecture, and by what else is needed to tell it from the others."""
    backbone = evidence.library.experiments[name].backbone
    same = [
        item
        for item in evidence.experiments
        if len(item.head.tasks) > 1 and item.backbone.architecture == backbone.architecture
    ]
    alone = len({(item.backbone.weights, item.backbone.depth_name) for item in same}) == 1
    return backbone.architecture if alone else f"{backbone.architecture} {backbone.depth_name}"


def _accuracy(evidence: Evidence, arm: Arm, task: TaskName) -> float:
    return float(evidence.book.answers(arm).right(task).mean())


def _differences(lines: Sequence[Line]) -> Picture:
    return forest(
        "Together minus alone",
        "Difference in test accuracy, in points, with its 95 % interval; right of 0: the network "
        f"of three tasks reads more. {HOLLOW}",
        lines,
    )
