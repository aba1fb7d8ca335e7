"""What a leak does to the numbers, and whether specialists read their people better."""

from collections.abc import Iterator

from benchmark.errors import RunError
from benchmark.report import plots
from benchmark.report.answers import Answer, Sentence, suite_command, unanswered
from benchmark.report.evidence import Evidence
from benchmark.report.plots import Picture, Span, Step
from benchmark.report.tables import DataTable, text_table
from benchmark.results import leak_answer, subset_answer
from benchmark.results.arms import Arm
from benchmark.results.leak_study import (
    ALONE,
    HONEST,
    PUBLISHED,
    LeakStudy,
    NetworkLeak,
    leak_study,
)
from benchmark.results.subset_study import SubsetStudy, study
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

LEAK_SUITE = "leak"
SUBSET_SUITE = "subsets"


def what_the_leak_did(evidence: Evidence) -> Answer:
    """How much of a leaky number is honest? All of it is LEAKY but what is called clean."""
    slug, question = "leak", "What does a leak do to the numbers?"
    members = [
        evidence.library.experiments[name]
        for name in evidence.library.suites[LEAK_SUITE].experiments
    ]
    try:
        found = leak_study(evidence.library, members, evidence.dataset)
    except RunError as error:
        why = f"{error.found}{_elsewhere(evidence, LEAK_SUITE)}."
        return unanswered(slug, question, why, [suite_command(LEAK_SUITE, evidence.dataset)])
    said = leak_answer.sentences(found)
    every_run = _runs_of(
        evidence, *(arm.name for net in found.networks for arm in net.arms.values())
    )
    return Answer(
        slug,
        question,
        said[0] if said else "The study's conditions were run, and no face of the test is clean.",
        every_run,
        sentences=tuple(Sentence(words, _runs_told(evidence, found, words)) for words in said),
        pictures=tuple(_waterfall(network) for network in found.networks),
        tables=tuple(_leak_tables(found, evidence)),
        notes=(*leak_answer.notes(found), *_study_notes(found)),
        leaky=True,
    )


def _runs_told(evidence: Evidence, found: LeakStudy, words: str) -> str:
    """Give the runs of the network that a sentence begins with."""
    told = [network for network in found.networks if words.startswith(f"{network.label}")]
    names = [network.arms[ending].name for network in told for ending in (PUBLISHED, HONEST)
             if ending in network.arms]  # fmt: skip
    return _runs_of(evidence, *names)


def _elsewhere(evidence: Evidence, suite: str) -> str:
    """Name the data sets on which a suite was run, if it was."""
    names = evidence.library.suites[suite].experiments
    found = sorted({place for name in names for place in evidence.library.datasets_of(name)})
    others = [place for place in found if place != evidence.dataset]
    return f"; there are such runs on {', '.join(others)}" if others else ""


def _waterfall(network: NetworkLeak) -> Picture:
    endings = network.shown
    clean = next((group for group in network.groups if group.exposure == "clean"), None)
    panels = []
    for task in TASKS:
        rates = {ending: network.arms[ending].rates[task] for ending in endings}
        steps = [
            Step(
                leak_answer.mark(network, ending),
                rates[ending].mean,
                rates[ending].low,
                rates[ending].high,
                network.arms[ending].leaky,
            )
            for ending in endings
        ]
        met_never = clean.rates[task].mean if clean is not None and task in clean.rates else None
        told = "; ".join(f"{step.label}: {100 * step.value:.1f} percent" for step in steps)
        panels.append(plots.waterfall_panel(task, steps, clean=met_never, says=told))
    return Picture(
        f"LEAKY · From a leaky number to an honest one: {network.label}",
        "Accuracy on test faces with its 95 % interval, one condition mended more in each row. "
        "Dashed: the first row's network on the test faces that it never met.",
        tuple(panels),
        leaky=True,
    )


def _leak_tables(found: LeakStudy, evidence: Evidence) -> Iterator[DataTable]:
    titles = [TASK_TITLES[task] for task in TASKS]
    for network in found.networks:
        name = f"leak-{network.label}"
        published = network.arms[PUBLISHED].name
        met = [_runs_of(evidence, published)] * (1 + len(network.groups))
        yield text_table(
            f"{name}-met",
            f"LEAKY · {network.label}: how the leaky network met its test faces",
            ["test faces", "n", *titles],
            list(leak_answer.decomposition_cells(network)),
            hrefs=met,
        )
        steps = [head for title in titles for head in (title, f"{title}: change")]
        yield text_table(
            f"{name}-steps",
            f"LEAKY · {network.label}: from the leaky number to the honest one, in steps",
            ["condition", "n test", *steps, "epochs"],
            list(leak_answer.waterfall_cells(network)),
            hrefs=[_runs_of(evidence, network.arms[ending].name) for ending in network.shown],
        )
        if network.alone:
            yield text_table(
                f"{name}-alone",
                f"LEAKY · {network.label}: one condition mended by itself, against as published",
                ["condition", *titles],
                list(leak_answer.alone_cells(network)),
                hrefs=[
                    _runs_of(evidence, published, network.arms[ending].name)
                    for ending in ALONE
                    if ending in network.alone
                ],
            )


def _runs_of(evidence: Evidence, *names: str) -> str:
    """Give the address of the runs of some experiments; empty where there is none."""
    arms = [evidence.library.experiment_arm(name, evidence.dataset) for name in names]
    known = [identity for arm in arms if isinstance(arm, Arm) for identity in arm.identities]
    return evidence.links.of(known)


def _study_notes(found: LeakStudy) -> Iterator[str]:
    for network in found.networks:
        if network.study is not None and PUBLISHED in network.arms:
            printed = [getattr(network.study, task) for task in TASKS]
            shown = " / ".join("–" if rate is None else f"{100 * rate:.1f}" for rate in printed)
            yield (
                f"For reference, LEAKY: the study printed {shown} % for its row "
                f"{network.study.row}; its crops and its framework were others."
            )


def do_specialists_help(evidence: Evidence) -> Answer:
    """Does a network trained on some people alone read these people better?"""
    slug, question = "specialists", "Does a specialist read the age of its people better?"
    members = [
        evidence.library.experiments[name]
        for name in evidence.library.suites[SUBSET_SUITE].experiments
    ]
    records = [run.record for run in evidence.library.runs]
    try:
        found = study(records, members, evidence.dataset)
    except RunError as error:
        why = f"{error.found}{_elsewhere(evidence, SUBSET_SUITE)}."
        return unanswered(slug, question, why, [suite_command(SUBSET_SUITE, evidence.dataset)])
    sentences = subset_answer.sentences(found)
    names = [arm.name for result in found.subsets for arm in result.arms.values()]
    every_run = _runs_of(evidence, *names)
    return Answer(
        slug,
        question,
        sentences[0] if sentences else "No arm of a subset met another.",
        every_run,
        sentences=tuple(Sentence(words, every_run) for words in sentences),
        pictures=tuple(_subset_pictures(found)),
        tables=tuple(_subset_tables(found, evidence)),
        notes=tuple(subset_answer.notes(found)),
    )


def _subset_pictures(found: SubsetStudy) -> Iterator[Picture]:
    task: TaskName = "age_group"
    against = (
        ("against_everyone", "Against one trained on everyone"),
        ("against_matched", "Against one trained on as many of everyone"),
    )
    panels = []
    for field, title in against:
        spans = []
        for result in found.subsets:
            compared = getattr(result, field)
            if compared is not None:
                difference = compared.difference
                label = f"{subset_answer.people_text(result)}, n {result.n_test:,}"
                spans.append(
                    Span(
                        label,
                        difference.accuracy,
                        difference.low,
                        difference.high,
                        filled=compared.significant,
                    )
                )
        if spans:
            panels.append(plots.differences_panel(task, spans, title=title))
    systems = [
        Span(
            f"routed by {system.router}, n {system.n_test:,}",
            system.against_single.difference.accuracy,
            system.against_single.difference.low,
            system.against_single.difference.high,
            filled=system.against_single.significant,
        )
        for system in found.systems
        if system.against_single is not None
    ]
    if systems:
        title = "Every face routed to a specialist, against one network"
        panels.append(plots.differences_panel(task, systems, title=title))
    if panels:
        yield Picture(
            "What a specialist gains or loses",
            "Difference in age-group accuracy on the same test faces, in points, with its 95 % "
            "interval; right of 0: the specialist reads more. Filled: significant after Holm's "
            f"correction over {found.n_compared} comparisons; hollow: not.",
            tuple(panels),
        )


def _subset_tables(found: SubsetStudy, evidence: Evidence) -> Iterator[DataTable]:
    names = [name for _, name in subset_answer.TRAININGS]
    heads = ["people", "n test", *names, "specialist − everyone", "p"]
    heads += ["specialist − size-matched", "p, size-matched", "seeds"]
    yield text_table(
        "specialists-people",
        "Age-group accuracy by people: trained on them alone, on everyone, on as many of everyone",
        heads,
        list(subset_answer.table_cells(found)),
        hrefs=[
            _runs_of(evidence, *(arm.name for arm in result.arms.values()))
            for result in found.subsets
        ],
    )
    if found.systems:
        heads = ["system", "n test", "routed", "single network", "difference", "p", "misrouted"]
        yield text_table(
            "specialists-systems",
            "A classifier that sends each face to a specialist, against one network",
            heads,
            list(subset_answer.system_cells(found)),
            hrefs=[_runs_of(evidence, system.single.name) for system in found.systems],
        )
