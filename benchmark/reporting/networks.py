"""What the report shows of one network by itself: matrices, learning curves, confident errors."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup
from PIL import Image

from benchmark.comparison.leaderboard import HEADINGS
from benchmark.comparison.wording import percent, span
from benchmark.data.dataset import FaceSet
from benchmark.errors import DataError, RunError
from benchmark.evaluation.figures import COLOURS, INK
from benchmark.evaluation.intervals import cluster_bootstrap, wilson
from benchmark.evaluation.predictions import mistakes, read_predictions
from benchmark.evaluation.subgroups import SMALL_GROUP, By, group_codes, group_names
from benchmark.reporting.evidence import Evidence, RankedNetwork
from benchmark.reporting.figures import Line, lines_panel
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TaskName, n_classes

CURVE_SEEDS: Final = 5
"""Learning curves are drawn for so many seeds at most."""
MOST_NETWORKS: Final = 60
"""A page with more would not open at once."""
SMALLEST_REACH: Final = 0.05
"""Colours span at least this much accuracy on either side, so that chance stays pale."""
BYS: Final[tuple[By, ...]] = ("gender_race", "gender", "race", "all")


@dataclass(frozen=True)
class MatrixCell:
    """A number on a coloured ground."""

    text: str
    note: str = ""
    tone: str = ""
    """A class of the page: `low`, `high`, `small`, `empty`, `right`."""
    weight: int = 0
    """Percent of the tone's colour."""
    about: str = ""


@dataclass(frozen=True)
class Matrix:
    """A heat map or a confusion matrix of one task."""

    kind: str
    """`heat` or `confusion`."""
    task: TaskName
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[MatrixCell, ...]], ...]
    """Name, what stands small beneath it, cells."""


def heat_map(evidence: Evidence, network: RankedNetwork, task: TaskName) -> Matrix:
    """Show a task's accuracy by gender and race; raise RunError where predictions are unreadable.

    Intervals are Wilson's for one seed, else a cluster bootstrap of seed-averaged correctness.
    """
    predictions = evidence.book.answers(network.group).labelled(task)
    right = predictions.right(task)
    member = np.concatenate(
        [group_codes(predictions.faces, by)[:, None] == np.arange(len(group_names(by)))
         for by in BYS], axis=1,
    )  # fmt: skip
    n_faces = member.sum(axis=0).astype(int)
    values = np.where(member, right.mean(axis=0)[:, None], np.nan)
    rates = np.divide(
        np.nansum(values, axis=0), n_faces, out=np.full(len(n_faces), np.nan), where=n_faces > 0
    )
    if len(right) == 1:
        low, high = wilson((right[0][:, None] & member).sum(axis=0), n_faces)
    else:
        low, high = cluster_bootstrap(values, predictions.faces["cluster"].to_numpy())
    shades = np.where(n_faces >= SMALL_GROUP, rates - rates[-1], 0.0)
    reach = max(SMALLEST_REACH, float(np.abs(shades).max(initial=0.0)))

    def cell(index: int) -> MatrixCell:
        n = int(n_faces[index])
        if n == 0:
            return MatrixCell("–", tone="empty", about="no faces")
        is_small = n < SMALL_GROUP
        tone = "small" if is_small else "low" if shades[index] < 0 else "high"
        ends = span(float(low[index]), float(high[index]))
        weight = round(70 * abs(float(shades[index])) / reach)
        return MatrixCell(percent(float(rates[index])) + "*" * is_small, str(n), tone, weight, ends)

    races, genders = n_classes("race"), n_classes("gender")
    rows = [
        (
            name,
            "",
            (*(cell(at * races + race) for race in range(races)), cell(genders * races + at)),
        )
        for at, name in enumerate(CLASS_NAMES["gender"])
    ]
    beyond = genders * races + genders
    rows.append(("all", "", tuple(cell(beyond + at) for at in range(races + 1))))
    few = ((n_faces > 0) & (n_faces < SMALL_GROUP)).any()
    caption = "Red: lower than of all faces; blue: higher. Small: number of faces." + (
        f" * Under {SMALL_GROUP} faces: hatched, not ranked." if few else ""
    )
    title = f"{TASK_TITLES[task].capitalize()} accuracy by gender and race, %"
    return Matrix("heat", task, title, caption, (*CLASS_NAMES["race"], "all"), tuple(rows))


def _confusion(evidence: Evidence, network: RankedNetwork, task: TaskName) -> Matrix:
    """Show the shares of each true class's faces by predicted class, averaged over seeds."""
    predictions = evidence.book.answers(network.group)
    truth = predictions.faces[task].to_numpy(dtype=np.int64)
    k = n_classes(task)
    counts: npt.NDArray[np.float64] = np.zeros((k, k))
    for one in predictions.predicted[task]:
        np.add.at(counts, (truth, one), 1 / len(predictions.predicted[task]))
    totals, names = np.bincount(truth, minlength=k), CLASS_NAMES[task]
    rows = tuple(
        (
            name,
            str(totals[at]),
            tuple(
                MatrixCell(
                    f"{100 * count / totals[at]:.0f}", "", "right" if at == column else "",
                    round(75 * count / totals[at]),
                )
                if totals[at]
                else MatrixCell("–", tone="empty")
                for column, count in enumerate(counts[at])
            ),
        )
        for at, name in enumerate(names)
    )  # fmt: skip
    title = f"{TASK_TITLES[task].capitalize()}: confusion matrix, % of the true class"
    caption = (
        "Rows: the label, and how many test faces have it; columns: predicted. Framed: correct."
    )
    return Matrix("confusion", task, title, caption, names, rows)


@dataclass(frozen=True)
class NetworkSection:
    """All that the page shows of one network by itself."""

    network: RankedNetwork
    kind: str
    """The heading of the table that it stands in."""
    runs: tuple[tuple[str, str], ...]
    """Words and addresses of its runs."""
    matrices: tuple[Matrix, ...] = ()
    curves: tuple[Markup, ...] = ()
    trouble: str = ""
    """Why something is not shown."""


def shown_networks(evidence: Evidence) -> list[RankedNetwork]:
    """Choose what the page shows by itself: all tested networks, or the best if too many."""
    tested = [network for network in evidence.networks.values() if network.tested]
    best = sorted(tested, key=lambda network: network.row.rank or len(tested))[:MOST_NETWORKS]
    chosen = {network.name for network in best}
    return [network for network in tested if network.name in chosen]


def network_section(evidence: Evidence, network: RankedNetwork) -> NetworkSection:
    """Show one network; what cannot be read is said instead."""
    matrices: list[Matrix] = []
    curves: list[Markup] = []
    trouble = []
    try:
        for task in network.tasks:
            matrices.append(_confusion(evidence, network, task))
            matrices.append(heat_map(evidence, network, task))
    except RunError as error:
        trouble.append(str(error))
    try:
        curves += _curves(network)
    except (RunError, KeyError, ValueError) as error:
        trouble.append(f"learning curves: {error}")
    runs = [(f"seed {run.record.seed}", evidence.links.of([run.record.identity]))
            for run in network.runs]  # fmt: skip
    return NetworkSection(
        network, HEADINGS[network.kind], tuple(runs), tuple(matrices), tuple(curves),
        "; ".join(trouble),
    )  # fmt: skip


def _curves(network: RankedNetwork) -> Iterator[Markup]:
    """Draw loss and each task's validation accuracy by epoch, a line per seed."""
    histories = {run.record.seed: run.record.history() for run in network.runs[:CURVE_SEEDS]}
    panels = [("train/loss", "Training loss", INK)]
    panels += [
        (f"val/{task}/accuracy", f"{TASK_TITLES[task].capitalize()}: validation accuracy",
         COLOURS[task]) for task in network.tasks
    ]  # fmt: skip
    for number, (column, heading, colour) in enumerate(panels):
        lines = [
            Line(f"seed {seed}", history["epoch"].tolist(), history[column].tolist())
            for seed, history in histories.items()
            if column in history
        ]
        if lines:
            yield lines_panel(
                f"{network.anchor}-{number}", heading, lines, x_title="epoch", colour=colour,
                rates=number > 0,
            )  # fmt: skip


SHOWN_PER_TASK: Final = 12
THUMBNAIL_PX: Final = 72
"""Sharp on a screen of twice the pixels at the size that the page shows, and a few kB each."""


@dataclass(frozen=True)
class Mistake:
    """A face with its label and the predicted class."""

    picture: str
    """As a data: address, so that the page needs no file beside it."""
    truth: str
    predicted: str
    confidence: float
    """The probability of the predicted class, in [0, 1]."""


@dataclass(frozen=True)
class Gallery:
    """The most confident errors of one run."""

    network: str
    seed: int
    href: str
    drawn: bool
    tasks: dict[TaskName, tuple[Mistake, ...]]
    """Most confident first."""


def gallery(evidence: Evidence, faces: FaceSet) -> Gallery | None:
    """Show the most confident errors of the best network's first seed; None where none is ranked.

    Raises RunError or DataError where its predictions or the faces cannot be read. Whether
    photographed faces may be shown is for the caller to ask.
    """
    if not evidence.first_ranked:
        return None
    best = evidence.first_ranked[0]
    run = best.runs[0]
    if faces.pixel_digest != run.setting.pixel_digest:
        raise DataError(
            f"{faces.name} was prepared anew since {best.name} was run",
            allowed=f"pixels {run.setting.pixel_digest[:12]}",
            source=str(faces.folder),
        )
    try:
        found = mistakes(read_predictions(run.record.predictions_path))
    except OSError as error:
        raise RunError(f"the predictions of {best.name} cannot be read: {error}") from error
    rows = pd.Series(range(len(faces.table)), index=faces.table["file"])
    pixels = faces.pixels()
    tasks = {}
    for task in best.tasks:
        ours = found[(found["task"] == task) & found["file"].isin(rows.index)]
        tasks[task] = tuple(
            Mistake(
                _thumbnail(pixels[int(rows[item["file"]])]),
                str(item["truth"]),
                str(item["predicted"]),
                float(item["probability"]),
            )
            for item in ours.head(SHOWN_PER_TASK).to_dict("records")
        )
    href = evidence.links.of([run.record.identity])
    return Gallery(best.name, run.record.seed, href, faces.drawn, tasks)


def _thumbnail(pixels: npt.NDArray[np.uint8]) -> str:
    picture = Image.fromarray(pixels)
    if picture.width > THUMBNAIL_PX:
        picture = picture.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
