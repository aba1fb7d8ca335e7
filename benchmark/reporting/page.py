"""Everything put together: one HTML file with its style, script and pictures inside it."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from benchmark.comparison.cells import protocol_text
from benchmark.comparison.verdicts import joined
from benchmark.reporting.answer import Answer, Portrait, portrait, portrayed
from benchmark.reporting.boards import boards
from benchmark.reporting.comparisons import does_gender_help, how_deep, mtl_or_stl, which_weights
from benchmark.reporting.costs import costs, which_network
from benchmark.reporting.evidence import Evidence
from benchmark.reporting.studies import do_specialists_help, what_the_leak_did
from benchmark.reporting.subgroups import Gallery, for_whom

QUESTIONS: Final = (
    which_network,
    mtl_or_stl,
    which_weights,
    how_deep,
    does_gender_help,
    for_whom,
    what_the_leak_did,
    do_specialists_help,
)
"""What the page answers, in this order."""
NAMES: Final = {
    "best": "Best network",
    "mtl-or-stl": "MTL or STL",
    "weights": "Weights",
    "depth": "Depth",
    "gender": "Gender",
    "for-whom": "For whom",
    "leak": "Leak",
    "specialists": "Specialists",
}
"""The questions in a word or two, by their slugs."""


@dataclass(frozen=True)
class Fact:
    """What all numbers of the page have in common."""

    what: str
    value: str


def answers(evidence: Evidence) -> Iterator[Answer]:
    """Put every question to the runs, one after another."""
    for question in QUESTIONS:
        yield question(evidence)


def portraits(evidence: Evidence) -> Iterator[Portrait]:
    """Portray the networks that the page shows by themselves, one after another."""
    for network in portrayed(evidence):
        yield portrait(evidence, network)


def n_steps(evidence: Evidence) -> int:
    """Count what `answers` and `portraits` are going to yield, for a display of progress."""
    return len(QUESTIONS) + len(portrayed(evidence))


def write_page(
    evidence: Evidence,
    answered: Sequence[Answer],
    shown: Sequence[Portrait],
    gallery: Gallery | None = None,
) -> str:
    """Write the page about the runs of one data set; equal runs give equal text."""
    names = frozenset(item.name for item in shown)
    style, script = _part("style.css"), _part("page.js")
    return _template().render(
        title=_title(evidence),
        drawn=evidence.drawn,
        dataset=evidence.dataset,
        facts=tuple(_facts(evidence)),
        answers=answered,
        names=NAMES,
        costs=costs(evidence),
        portraits=shown,
        by_kind=_by_kind(shown),
        n_unportrayed=sum(network.tested for network in evidence.networks) - len(shown),
        boards=tuple(boards(evidence, names)),
        gallery=gallery,
        notes=evidence.board.notes,
        limits=evidence.board.limits,
        links=evidence.links,
        style=Markup(style),
        script=Markup(script),
        script_digest=_digest(script),
    )


def _title(evidence: Evidence) -> str:
    suites = joined(evidence.suites)
    named = f", suite {suites}" if len(evidence.suites) == 1 else f", suites {suites}"
    return f"facebench report: {evidence.dataset}{named if suites else ''}"


def _facts(evidence: Evidence) -> Iterator[Fact]:
    """Say what the answers are about, and how much there is of it."""
    here = [run for run in evidence.library.runs if run.setting.dataset == evidence.dataset]
    done = [run for run in here if run.record.state == "done"]
    yield Fact("Data set", evidence.dataset)
    setting = evidence.setting
    if setting is not None:
        yield Fact("Split", f"{setting.split_version}, digest {setting.split_digest[:8]}")
        yield Fact("Pixels", f"digest {setting.pixel_digest[:8]}")
        yield Fact("Protocol", protocol_text(setting.protocol))
        yield Fact("Networks", f"{len(evidence.networks)} finished and honest")
    yield Fact("Runs", _run_counts(len(here), len(done)))
    for what, key in (
        ("Trained on", "device"),
        ("Commit", "commit"),
        ("Trainer", "trainer_version"),
    ):
        found = sorted({str(run.about.get(key, "?")) for run in done})
        if found:
            yield Fact(what, ", ".join(found[:3]) + (" and others" if len(found) > 3 else ""))


def _by_kind(shown: Sequence[Portrait]) -> dict[str, list[Portrait]]:
    """Group networks by the table that they stand in, in the order of the tables."""
    found: dict[str, list[Portrait]] = {}
    for item in shown:
        found.setdefault(item.kind, []).append(item)
    return found


def _run_counts(n_begun: int, n_done: int) -> str:
    unfinished = n_begun - n_done
    return f"{n_done} finished" + (f", {unfinished} unfinished" if unfinished else "")


def _part(name: str) -> str:
    return files("benchmark.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """Give what the page's policy names its one script by: nothing else on it can run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("benchmark.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _template() -> Template:
    return _environment().get_template("page.html")
