"""Which network is best, and which do not differ from it significantly."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from markupsafe import Markup

from benchmark.report import plots
from benchmark.report.answers import Answer, Sentence, runs_of, suite_command, unanswered
from benchmark.report.evidence import Evidence, Network
from benchmark.report.pairs import judged
from benchmark.report.plots import Picture, Span
from benchmark.report.tables import lines_table
from benchmark.results.board import HEADINGS, KINDS, Kind
from benchmark.results.cells import accuracy_text, with_sd
from benchmark.results.comparison import Found
from benchmark.results.comparison_notes import gap_sentences
from benchmark.results.verdicts import by_pair, family_text, joined
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

SHOWN_IN_RANKING: Final = 12


def which_network(evidence: Evidence) -> Answer:
    """Which network is best on validation, and which do not differ from it on test?"""
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
                        f"{slug}-{kind}",
                        caption,
                        rivals.lines,
                        evidence.links,
                        family_text(rivals.lines),
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
            "Best means best on validation, which ranks; test was read once and is shown. No "
            "significant difference does not mean equal.",
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


def _rivals(evidence: Evidence, ranked: Sequence[Network]) -> Found:
    """Keep what was compared with the first of these networks."""
    found, first = judged(evidence, "first"), ranked[0].row.name
    return Found(
        tuple(line for line in found.lines if line.reference.label == first),
        tuple(gap for gap in found.gaps if gap.reference == first),
    )


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


def _tie_sentences(ranked: Sequence[Network], rivals: Found) -> Iterator[str]:
    if len(ranked) < 2 or not rivals.lines:
        return
    pairs = by_pair(rivals.lines)
    tied = [ours[0].arm.label for ours in pairs if not any(line.significant for line in ours)]
    better = {
        ours[0].arm.label: [TASK_TITLES[line.task] for line in ours if line.verdict == "better"]
        for ours in pairs
    }
    ahead = [f"{name} ({joined(tasks)})" for name, tasks in better.items() if tasks]
    if tied:
        yield f"No significant difference from it on any task of the test: {joined(tied)}."
    else:
        yield "Each of the others differs from it significantly on some task of the test."
    if ahead:
        yield f"Better than it on test: {joined(ahead)}."
    if any(line.of_trainings_alone for line in rivals.lines):
        yield "Where one seed met one seed, this speaks of these trainings alone."
