"""The report: every question's answer, one network beside another, and the leaderboards.

One HTML file with its style, script and figures inside it; it asks no other address for anything.
"""

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmark.comparison.wording import joined, protocol_text
from benchmark.reporting.board_tables import board_table, by_setting
from benchmark.reporting.evidence import Evidence
from benchmark.reporting.networks import Gallery, NetworkSection, network_section, shown_networks
from benchmark.reporting.pair_questions import (
    best_network,
    does_conditioning_help,
    how_deep,
    mtl_or_stl,
    which_weights,
)
from benchmark.reporting.questions import (
    Answer,
    cost_of_accuracy,
    effect_of_the_leak,
    lowest_subgroups,
    specialists,
)
from benchmark.reporting.tables import Table, page

QUESTIONS: Final[tuple[Callable[[Evidence], Answer], ...]] = (
    best_network,
    mtl_or_stl,
    which_weights,
    how_deep,
    does_conditioning_help,
    lowest_subgroups,
    cost_of_accuracy,
    effect_of_the_leak,
    specialists,
)
"""What the report answers, in this order."""


@dataclass(frozen=True)
class Report:
    """What a page shows besides its tables."""

    evidence: Evidence
    answers: tuple[Answer, ...]
    networks: tuple[NetworkSection, ...]
    gallery: Gallery | None = None


def n_steps(evidence: Evidence) -> int:
    """Count the steps of `make_report`."""
    return len(QUESTIONS) + len(shown_networks(evidence))


def make_report(
    evidence: Evidence, gallery: Gallery | None = None, advance: Callable[[], object] = int
) -> Report:
    """Answer every question; advance: called after each of `n_steps`."""
    answers, networks = [], []
    for question in QUESTIONS:
        answers.append(question(evidence))
        advance()
    for network in shown_networks(evidence):
        networks.append(network_section(evidence, network))
        advance()
    return Report(evidence, tuple(answers), tuple(networks), gallery)


def write_page(report: Report, date: datetime.date) -> str:
    """Write the page; equal runs and dates give equal text."""
    evidence = report.evidence
    suites = joined(evidence.suites)
    named = f", suite{'s' * (len(evidence.suites) > 1)} {suites}" if suites else ""
    kinds: dict[str, list[NetworkSection]] = {}
    for item in report.networks:
        kinds.setdefault(item.kind, []).append(item)
    tested = sum(network.tested for network in evidence.networks.values())
    return page(
        "report.html",
        title=f"facebench report: {evidence.dataset}{named}",
        drawn=evidence.board.drawn,
        facts=dict(_facts(evidence, date)),
        answers=report.answers,
        networks=report.networks,
        kinds=kinds,
        n_not_shown=tested - len(report.networks),
        boards=tuple(_boards(evidence, report.networks)),
        gallery=report.gallery,
        notes=evidence.board.notes,
        limits=evidence.board.limits,
        links=evidence.links,
    )


def _boards(
    evidence: Evidence, networks: Sequence[NetworkSection]
) -> Iterator[tuple[str, Table, bool]]:
    """Give the leaderboard of each setting, and whether it is LEAKY; names lead to networks."""
    links: dict[str, tuple[tuple[str, str], ...]] = {}
    for item in networks:
        ours = item.network.row.identities
        runs = evidence.links.of(ours)
        found = [("details", f"#{item.network.anchor}"), *([("runs", runs)] if runs else [])]
        links[ours[0]] = tuple(found)
    for setting, tables in by_setting(evidence.board):
        leaky = any(t.setting.protocol.leaky or any(r.leaky for r in t.rows) for t in tables)
        yield setting, board_table(tables, links).keeping(("scores", "cost")), leaky


def _facts(evidence: Evidence, date: datetime.date) -> Iterator[tuple[str, str]]:
    """Say what the answers are about, and how much there is of it."""
    runs, setting = evidence.runs, evidence.setting
    done = [run for run in runs if run.record.state == "done"]
    yield "Written", date.isoformat()
    finished = sorted({str(run.record.done.get("finished", ""))[:10] for run in done} - {""})
    if finished:
        yield "Runs finished", " to ".join(dict.fromkeys((finished[0], finished[-1])))
    yield "Data set", evidence.dataset
    of_setting = [run for run in done if run.setting == setting]
    if setting is not None and of_setting:
        counts = of_setting[0].about["dataset"]["counts"]
        parts = {"train": "training", "val": "validation", "test": "test"}
        yield "Faces", ", ".join(f"{counts[key]:,} {part}" for key, part in parts.items())
        yield "Split", f"{setting.split_version}, digest {setting.split_digest[:8]}"
        yield "Pixels", f"digest {setting.pixel_digest[:8]}"
        yield "Protocol", protocol_text(setting.protocol)
        yield "Networks", f"{len(evidence.networks)} finished and honest"
    unfinished = len(runs) - len(done)
    yield "Runs", f"{len(done)} finished" + (f", {unfinished} unfinished" if unfinished else "")
    for what, key in (("Device", "device"), ("Commit", "commit"), ("Trainer", "trainer_version")):
        found = sorted({str(run.about.get(key, "?")) for run in done})
        if found:
            yield what, ", ".join(found[:3]) + (" and others" if len(found) > 3 else "")
