"""The report: every question's answer, each network by itself, and the leaderboards.

One HTML file with its style, script and figures inside it; it asks no other address for anything.
"""

import base64
import datetime
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pandas as pd
from PIL import Image

from benchmark.comparison.leaderboard import HEADINGS
from benchmark.comparison.library import Run
from benchmark.comparison.wording import joined, protocol_text
from benchmark.data.dataset import FaceSet
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.errors import DataError, RunError, and_more
from benchmark.evaluation.artifacts import mistakes
from benchmark.evaluation.predictions import read_predictions
from benchmark.reporting.board_tables import board_table, by_setting
from benchmark.reporting.evidence import Evidence
from benchmark.reporting.figures import confusion_matrix, curves_panels, heat_map
from benchmark.reporting.questions import QUESTIONS, Answer, answer
from benchmark.reporting.tables import Table, template

SHOWN_PER_TASK: Final = 12
THUMBNAIL_PX: Final = 72
"""Sharp on a screen of twice the pixels at the size that the page shows, and a few kB each."""
MOST_NETWORKS: Final = 60
"""A page with more would not open at once."""
CURVE_SEEDS: Final = 5
"""Learning curves are drawn for so many seeds at most."""


def answers_of(evidence: Evidence, watch: OnProgress = keep_quiet) -> list[Answer]:
    found: list[Answer] = []
    for question in QUESTIONS:
        found.append(answer(evidence, question))
        watch("Answering questions", len(found), len(QUESTIONS))
    return found


def gallery(evidence: Evidence, faces: FaceSet) -> dict[str, Any] | None:
    """Show the most confident errors of the best network's first seed; None where none is ranked.

    Gives network, seed, href, drawn and, by task, the faces, most confident first: `picture` as a
    data: address, `truth`, `predicted`, `probability`. Raises RunError or DataError where its
    predictions or the faces cannot be read. Whether photographed faces may be shown is for the
    caller to ask.
    """
    if not evidence.first_ranked:
        return None
    best = evidence.first_ranked[0].group
    run = best.runs[0]
    if faces.pixel_digest != run.setting.pixel_digest:
        anew = f"{faces.name} was prepared anew since {best.label} was run"
        raise DataError(anew, source=str(faces.folder))
    rows = pd.Series(range(len(faces.table)), index=faces.table["file"])
    predictions = read_predictions(run.record.predictions_path)
    found = mistakes(predictions[predictions["part"] == "test"])
    found = found[found["file"].isin(rows.index)].groupby("task").head(SHOWN_PER_TASK)
    pixels = faces.pixels()
    found["picture"] = [_thumbnail(pixels[int(rows[file])]) for file in found["file"]]
    return {
        "network": best.label,
        "seed": run.record.seed,
        "href": evidence.links.of([run.record.identity]),
        "drawn": faces.drawn,
        "tasks": {task: found[found["task"] == task].to_dict("records") for task in best.tasks},
    }


def _thumbnail(pixels: Any) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def network_sections(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Show every ranked network, or the best where there are too many; none that leaks.

    Gives name, kind (the heading of the table that it stands in), href, matrices, curves and
    trouble, which says why something is not shown.
    """
    tested = (row for row in evidence.networks.values() if row.scores)
    best = sorted(tested, key=lambda row: row.rank or MOST_NETWORKS)[:MOST_NETWORKS]
    for number, row in enumerate(best):
        tasks, shown = row.group.tasks, dict[str, Any](matrices=[], curves=[], trouble="")
        try:
            predictions = row.group.predictions
            for task in tasks:
                shown["matrices"].append(confusion_matrix(predictions, task))
                shown["matrices"].append(heat_map(row.group, task))
            histories = [run.record.history() for run in row.runs[:CURVE_SEEDS]]
            shown["curves"] = curves_panels(f"network-{number}", histories)
        except (RunError, KeyError, ValueError) as error:
            shown["trouble"] = str(error)
        kind = HEADINGS["mtl" if len(tasks) > 1 else tasks[0]]
        href = evidence.links.of(row.group.identities)
        yield {"name": row.name, "kind": kind, "href": href, **shown}


def write_page(
    evidence: Evidence,
    answers: Sequence[Answer],
    date: datetime.date,
    faces: dict[str, Any] | None = None,
) -> str:
    """Write the page; equal runs and dates give equal text. faces: as `gallery` gives them."""
    suites = joined(evidence.suites)
    named = f", suite{'s' * (len(evidence.suites) > 1)} {suites}" if suites else ""
    title, facts = f"facebench report: {evidence.dataset}{named}", dict(_facts(evidence, date))
    found = {"boards": tuple(_boards(evidence)), "networks": tuple(network_sections(evidence))}
    said = {"title": title, "facts": facts, "answers": answers, "gallery": faces}
    links, board = evidence.links, evidence.board
    return template("report.html").render(said, **found, links=links, board=board)


def _boards(evidence: Evidence) -> Iterator[tuple[str, Table, bool]]:
    """Give the leaderboard of each setting, and whether it is LEAKY."""

    def links(run: Run) -> tuple[tuple[str, str], ...]:
        href = evidence.links.of([run.record.identity])
        return ((f"seed {run.record.seed}", href),) if href else ()

    for setting, tables in by_setting(evidence.board):
        leaky = any(t.setting.protocol.leaky or any(r.leaky for r in t.rows) for t in tables)
        yield setting, board_table(tables, links).keeping(("scores", "cost")), leaky


def _facts(evidence: Evidence, date: datetime.date) -> Iterator[tuple[str, str]]:
    """Say what the answers are about, and how much there is of it."""
    runs = [run for run in evidence.library.runs if run.setting.dataset == evidence.dataset]
    done = [run for run in runs if run.done]
    yield "Written", date.isoformat()
    yield "Data set", evidence.dataset
    if of_setting := [run for run in done if run.setting == evidence.setting]:
        setting = of_setting[0].setting
        counts = of_setting[0].record.about["dataset"]["counts"]
        parts = {"train": "training", "val": "validation", "test": "test"}
        yield "Faces", ", ".join(f"{counts[key]:,} {part}" for key, part in parts.items())
        yield "Split", f"{setting.split_version}, digest {setting.split_digest[:8]}"
        yield "Protocol", protocol_text(setting.protocol)
    unfinished = len(runs) - len(done)
    yield "Runs", f"{len(done)} finished" + (f", {unfinished} unfinished" if unfinished else "")
    for what, key in (("Device", "device"), ("Commit", "commit")):
        if found := sorted({str(run.record.about.get(key, "?")) for run in done}):
            yield what, and_more(found)
