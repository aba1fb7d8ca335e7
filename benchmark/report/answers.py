"""An answer of the page: its sentences, plots and tables, or the command that would tell.

What each question is, and how it is answered, is in overview, twins, respects and studies.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmark.report import plots
from benchmark.report.links import MlflowLinks
from benchmark.report.networks import HeatMap
from benchmark.report.plots import Picture, Span
from benchmark.report.tables import DataTable
from benchmark.results.comparison_notes import reading_notes
from benchmark.results.verdicts import Line
from benchmark.tasks import TASKS

SEEDS: Final = "--seeds 0,1,2"
HOLLOW: Final = "Filled: significant after Holm's correction; hollow: not."


@dataclass(frozen=True)
class Sentence:
    """What is said, and where the runs that say it are shown."""

    words: str
    href: str = ""


@dataclass(frozen=True)
class Answer:
    """A question and what the runs say to it."""

    slug: str
    question: str
    short: str
    """The answer in a sentence or two, for the top of the page."""
    href: str = ""
    """The runs behind the short answer."""
    answered: bool = True
    sentences: tuple[Sentence, ...] = ()
    """In full."""
    pictures: tuple[Picture, ...] = ()
    heat_maps: tuple[HeatMap, ...] = ()
    tables: tuple[DataTable, ...] = ()
    commands: tuple[str, ...] = ()
    """What would answer the question, or what is missing of the answer."""
    missing: tuple[str, ...] = ()
    """What could not be compared, and why."""
    notes: tuple[str, ...] = ()
    leaky: bool = False


def unanswered(slug: str, question: str, why: str, commands: Iterable[str]) -> Answer:
    """Say that the runs do not tell, and which command would."""
    return Answer(
        slug,
        question,
        f"Not answered by these runs: {why}",
        answered=False,
        commands=tuple(commands),
    )


def run_command(names: Sequence[str], dataset: str) -> str:
    """Write the command that runs experiments."""
    return f"facebench run {' '.join(names)} {SEEDS} --dataset {dataset}"


def suite_command(suite: str, dataset: str) -> str:
    """Write the command that runs a suite."""
    return f"facebench run --suite {suite} {SEEDS} --dataset {dataset}"


def runs_of(lines: Sequence[Line], links: MlflowLinks) -> str:
    """Give the address of all runs that some differences are made of."""
    sides = [side for line in lines for side in (line.reference, line.arm)]
    return links.of([identity for side in sides for identity in side.identities])


def forest(
    title: str, caption: str, lines: Sequence[Line], labels: Mapping[str, str] | None = None
) -> Picture:
    """Draw judged differences, a panel per task; labels by arm, or by `arm|reference`."""
    labels = labels or {}
    panels = []
    for task in TASKS:
        spans = [
            Span(
                labels.get(f"{line.arm.label}|{line.reference.label}")
                or labels.get(line.arm.label, line.arm.label),
                line.difference.accuracy,
                line.difference.low,
                line.difference.high,
                filled=line.significant,
            )
            for line in lines
            if line.task == task
        ]
        if spans:
            panels.append(plots.differences_panel(task, spans))
    return Picture(title, caption, tuple(panels))


def comparison_notes(lines: Sequence[Line]) -> tuple[str, ...]:
    """Say how such a table is to be read."""
    arms = {arm.label: arm for line in lines for arm in (line.reference, line.arm)}
    return tuple(reading_notes(lines, list(arms.values())))
