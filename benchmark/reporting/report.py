"""The report: every question's answer, the best network's errors, and the leaderboards.

One HTML file with its style, script and figures inside it; it asks no other address for anything.
"""

import base64
import datetime
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from PIL import Image

from benchmark.comparison.wording import joined, protocol_text
from benchmark.data.dataset import FaceSet
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.errors import DataError
from benchmark.evaluation.label_errors import mistakes
from benchmark.evaluation.predictions import read_predictions
from benchmark.reporting.board_tables import Links, board_table, by_setting
from benchmark.reporting.evidence import Evidence
from benchmark.reporting.networks import NetworkSection, network_sections
from benchmark.reporting.questions import QUESTIONS, Answer
from benchmark.reporting.tables import Table, page

SHOWN_PER_TASK: Final = 12
THUMBNAIL_PX: Final = 72
"""Sharp on a screen of twice the pixels at the size that the page shows, and a few kB each."""


@dataclass(frozen=True)
class Gallery:
    """The most confident errors of one run."""

    network: str
    seed: int
    href: str
    drawn: bool
    tasks: dict[str, list[dict[str, Any]]]
    """Most confident first: `picture` as a data: address, `truth`, `predicted`, `probability`."""


@dataclass(frozen=True)
class Report:
    """What a page shows besides its tables."""

    evidence: Evidence
    answers: tuple[Answer, ...]
    networks: tuple[NetworkSection, ...]
    gallery: Gallery | None = None


def make_report(
    evidence: Evidence, gallery: Gallery | None = None, watch: OnProgress = keep_quiet
) -> Report:
    """Answer every question, and show every network by itself."""
    found: list[Answer] = []
    for question in QUESTIONS:
        found.append(question.ask(evidence, question))
        watch("Answering questions", len(found), len(QUESTIONS))
    return Report(evidence, tuple(found), tuple(network_sections(evidence)), gallery)


def gallery(evidence: Evidence, faces: FaceSet) -> Gallery | None:
    """Show the most confident errors of the best network's first seed; None where none is ranked.

    Raises RunError or DataError where its predictions or the faces cannot be read. Whether
    photographed faces may be shown is for the caller to ask.
    """
    if not evidence.first_ranked:
        return None
    best = evidence.first_ranked[0]
    run = best.group.runs[0]
    if faces.pixel_digest != run.setting.pixel_digest:
        raise DataError(
            f"{faces.name} was prepared anew since {best.name} was run", source=str(faces.folder)
        )
    rows = pd.Series(range(len(faces.table)), index=faces.table["file"])
    found = mistakes(read_predictions(run.record.predictions_path))
    found = found[found["file"].isin(rows.index)].groupby("task").head(SHOWN_PER_TASK)
    pixels = faces.pixels()
    found["picture"] = [_thumbnail(pixels[int(rows[file])]) for file in found["file"]]
    tasks = {task: found[found["task"] == task].to_dict("records") for task in best.group.tasks}
    href = evidence.links.of([run.record.identity])
    return Gallery(best.name, run.record.seed, href, faces.drawn, tasks)  # type: ignore[arg-type]


def _thumbnail(pixels: Any) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def write_page(report: Report, date: datetime.date) -> str:
    """Write the page; equal runs and dates give equal text."""
    evidence = report.evidence
    suites = joined(evidence.suites)
    named = f", suite{'s' * (len(evidence.suites) > 1)} {suites}" if suites else ""
    return page(
        "report.html",
        title=f"facebench report: {evidence.dataset}{named}",
        drawn=evidence.board.drawn,
        facts=dict(_facts(evidence, date)),
        answers=report.answers,
        boards=tuple(_boards(evidence)),
        networks=report.networks,
        gallery=report.gallery,
        notes=evidence.board.notes,
        limits=evidence.board.limits,
        links=evidence.links,
    )


def _boards(evidence: Evidence) -> Iterator[tuple[str, Table, bool]]:
    """Give the leaderboard of each setting, and whether it is LEAKY."""
    links: Links = {
        run.short_identity: ((f"seed {run.record.seed}", href),)
        for network in evidence.networks.values()
        for run in network.group.runs
        if (href := evidence.links.of([run.record.identity]))
    }
    for setting, tables in by_setting(evidence.board):
        leaky = any(t.setting.protocol.leaky or any(r.leaky for r in t.rows) for t in tables)
        yield setting, board_table(tables, links).keeping(("scores", "cost")), leaky


def _facts(evidence: Evidence, date: datetime.date) -> Iterator[tuple[str, str]]:
    """Say what the answers are about, and how much there is of it."""
    runs = [run for run in evidence.library.runs if run.setting.dataset == evidence.dataset]
    setting = evidence.setting
    done = [run for run in runs if run.done]
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
