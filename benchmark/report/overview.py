"""Which network is best, and which cannot be told apart from it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from markupsafe import Markup

from benchmark.report import plots
from benchmark.report.answers import Answer, Sentence, runs_of, suite_command, unanswered
from benchmark.report.evidence import Evidence, Network
from benchmark.report.pairs import Judged, judged, plan_couples
from benchmark.report.plots import Picture, Span
from benchmark.report.tables import lines_table
from benchmark.results.board import HEADINGS, KINDS, Kind
from benchmark.results.cells import accuracy_text, with_sd
from benchmark.results.comparison_notes import gap_sentences
from benchmark.results.verdicts import by_pair, joined
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

SHOWN_IN_RANKING: Final = 12
MOST_RIVALS: Final = 60
"""So many networks meet the first of their table; what stands far below it needs no test."""


def which_network(evidence: Evidence) -> Answer:
    """Which network is best on validation, and which cannot be told apart from it on test?"""
    slug, question = "best", "Which network reads a face best?"
    boards = [(kind, evidence.ranked(kind)) for kind in KINDS]
    first = next((ranked for _, ranked in boards if ranked), None)
    if first is None:
        why = "no honest run is finished and ranked on this data set."
        suite = evidence.suites[0] if evidence.suites else "quick"
        return unanswered(slug, question, why, [suite_command(suite, evidence.dataset)])
    sentences, tables, missing = [], [], []
    for kind, ranked in boards:
        if ranked:
            rivals = _rivals(evidence, ranked)
            href = evidence.links.of(ranked[0].row.identities)
            sentences.append(Sentence(_best_sentence(kind, ranked), href))
            sentences += [
                Sentence(words, runs_of(rivals.lines, evidence.links))
                for words in _tie_sentences(ranked, rivals)
            ]
            missing += list(gap_sentences(rivals.gaps))
            if rivals.lines:
                caption = f"{HEADINGS[kind]}: every other network against the first"
                tables.append(
                    lines_table(
                        f"{slug}-{kind}", caption, rivals.lines, evidence.links, rivals.family
                    )
                )
    return Answer(
        slug,
        question,
        " ".join(item.words for item in sentences[: 1 + (len(first) > 1)]),
        sentences[0].href,
        sentences=tuple(sentences),
        pictures=tuple(_rankings(dict(boards))),
        tables=tuple(tables),
        missing=tuple(missing),
        notes=(
            "Best means best on validation, which ranks; test was read once and is shown. Not told "
            "apart means not separable on any of the tasks, no more.",
        ),
    )


def _rankings(boards: Mapping[Kind, Sequence[Network]]) -> Iterator[Picture]:
    """Draw the test accuracies of the best networks, in the order of their rank."""
    caption = (
        "Test accuracy with its 95 % interval, in the order of their rank on validation, the "
        f"first {SHOWN_IN_RANKING} at most. Intervals that overlap do not say that two networks "
        "are equal: the table does."
    )
    together = [panel for task in TASKS if (panel := _ranking(task, boards["mtl"]))]
    if together:
        yield Picture(HEADINGS["mtl"], caption, tuple(together))
    alone = [panel for task in TASKS if (panel := _ranking(task, boards[task]))]
    if alone:
        yield Picture("One task, one network (STL)", caption, tuple(alone))


def _ranking(task: TaskName, ranked: Sequence[Network]) -> Markup | None:
    spans = [
        Span(f"{network.row.rank}  {network.row.name}", score.accuracy, score.low, score.high)
        for network in ranked[:SHOWN_IN_RANKING]
        if (score := network.row.scores.get(task)) is not None
    ]
    return plots.rates_panel(task, spans) if spans else None


def _rivals(evidence: Evidence, ranked: Sequence[Network]) -> Judged:
    couples = [(ranked[0].row.name, other.row.name) for other in ranked[1 : 1 + MOST_RIVALS]]
    return judged(evidence, plan_couples(evidence, couples, TASKS))


def _best_sentence(kind: Kind, ranked: Sequence[Network]) -> str:
    best = ranked[0].row
    scores = joined(
        f"{TASK_TITLES[task]} {accuracy_text(score)} %" for task, score in best.scores.items()
    )
    among = f"of {len(ranked)} networks" if len(ranked) > 1 else "and the only one"
    seeds = f"{len(best.seeds)} seeds" if len(best.seeds) > 1 else "one seed"
    return (
        f"{HEADINGS[kind]}: {best.name} is best on validation {among}, with "
        f"{with_sd(best.val_combined, best.val_combined_sd)} % over {seeds}. On test it reads "
        f"{scores}."
    )


def _tie_sentences(ranked: Sequence[Network], rivals: Judged) -> Iterator[str]:
    if len(ranked) < 2 or not rivals.lines:
        return
    pairs = by_pair(rivals.lines)
    tied = [
        ours[0].arm.label
        for ours in pairs
        if all(line.verdict == "cannot be told apart" for line in ours)
    ]
    better = {
        ours[0].arm.label: [TASK_TITLES[line.task] for line in ours if line.verdict == "better"]
        for ours in pairs
    }
    ahead = [f"{name} ({joined(tasks)})" for name, tasks in better.items() if tasks]
    if tied:
        yield f"Not to be told apart from it on test: {joined(tied)}."
    else:
        yield f"Each of the {len(pairs)} others can be told apart from it on test."
    if ahead:
        yield f"Better than it on test: {joined(ahead)}."
    if any(line.of_trainings_alone for line in rivals.lines):
        yield "Where one seed met one seed, this speaks of these trainings alone."
