"""What a leak does to the numbers, and whether specialists predict their subset better."""

from collections.abc import Callable, Iterable, Sequence

from benchmark.comparison.leak_study import LEAK_SUITES, leak_page, leak_study
from benchmark.comparison.library import RunGroup
from benchmark.comparison.study_page import StudyPage, StudyPicture
from benchmark.comparison.subset_study import subset_page, subset_study
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment
from benchmark.reporting import figures
from benchmark.reporting.answer import Answer, Sentence, suite_command, unanswered
from benchmark.reporting.evidence import Evidence, text_table
from benchmark.reporting.figures import Picture, Span


def what_the_leak_did(evidence: Evidence) -> Answer:
    """How much of a leaky score is honest? All of it is LEAKY but what is never met or honest."""
    question = "What does a leak do to the numbers?"
    return _answer(
        evidence,
        "leak",
        question,
        LEAK_SUITES,
        lambda members: leak_page(leak_study(evidence.library, members, evidence.dataset)),
    )


def do_specialists_help(evidence: Evidence) -> Answer:
    """Does a network trained on a subset alone predict this subset better?"""
    question = "Does a specialist predict the age group of its subset better?"
    return _answer(
        evidence,
        "specialists",
        question,
        ("subsets",),
        lambda members: subset_page(subset_study(evidence.library, members, evidence.dataset)),
    )


def _answer(
    evidence: Evidence,
    slug: str,
    question: str,
    suites: Sequence[str],
    page_of: Callable[[Sequence[Experiment]], StudyPage],
) -> Answer:
    library = evidence.library
    names = [name for suite in suites for name in library.suites[suite].experiments]
    try:
        page = page_of([library.experiments[name] for name in names])
    except RunError as error:
        places = {place for name in names for place in library.datasets_of(name)}
        others = ", ".join(sorted(places - {evidence.dataset}))
        why = f"{error.found}{f'; there are such runs on {others}' if others else ''}."
        command = suite_command("leak" if slug == "leak" else suites[0], evidence.dataset)
        return unanswered(slug, question, why, [command])
    every = [name for table in page.tables for row in table.experiments for name in row]
    tables = [
        text_table(
            table.name,
            table.caption,
            table.heads,
            table.rows,
            hrefs=[_runs_of(evidence, names) for names in table.experiments],
        )
        for table in page.tables
    ]
    return Answer(
        slug,
        question,
        page.sentences[0][0] if page.sentences else "Nothing could be compared.",
        _runs_of(evidence, every),
        sentences=tuple(
            Sentence(words, _runs_of(evidence, experiments or every))
            for words, experiments in page.sentences
        ),
        pictures=tuple(_picture(picture) for picture in page.pictures),
        tables=tuple(tables),
        notes=page.notes,
        leaky=page.title.startswith("LEAKY"),
    )


def _runs_of(evidence: Evidence, names: Iterable[str]) -> str:
    """Give the address of the runs of some experiments; empty where there is none."""
    groups = [evidence.library.run_group(name, evidence.dataset) for name in dict.fromkeys(names)]
    known = [
        identity for group in groups if isinstance(group, RunGroup) for identity in group.identities
    ]
    return evidence.links.of(known)


def _picture(picture: StudyPicture) -> Picture:
    leaky = picture.title.startswith("LEAKY")
    panels = []
    for panel in picture.panels:
        spans = [
            Span(
                mark.label,
                mark.value,
                mark.low,
                mark.high,
                filled=mark.filled,
                css="leaky" if mark.leaky else "",
                shape="diamond" if mark.leaky else "circle",
            )
            for mark in panel.marks
        ]
        panels.append(
            figures.differences_panel(panel.task, spans, title=panel.title)
            if picture.of_differences
            else figures.rates_panel(panel.task, spans, leaky=leaky)
        )
    return Picture(picture.title, picture.caption, tuple(panels), leaky=leaky)
