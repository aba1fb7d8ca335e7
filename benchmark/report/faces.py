"""Test faces that the best network reads wrongly, surest first: drawn ones, or those asked for."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pandas as pd
from PIL import Image

from benchmark.errors import DataError, RunError
from benchmark.faces.pixels import Pixels
from benchmark.faces.store import FaceSet
from benchmark.report.evidence import Evidence, Network
from benchmark.results.board import KINDS
from benchmark.results.mistakes import mistakes
from benchmark.results.predictions import read_predictions
from benchmark.tasks import TASK_TITLES, TaskName

SHOWN_PER_TASK: Final = 12
THUMBNAIL_PX: Final = 72
"""Sharp on a screen of twice the pixels at the size that the page shows, and a few kB each."""


@dataclass(frozen=True)
class Mistake:
    """A face with what its label says and what the network says."""

    picture: str
    """As a data: address, so that the page needs no file beside it."""
    truth: str
    predicted: str
    sure: float
    """The probability of the predicted class, in [0, 1]."""


@dataclass(frozen=True)
class TaskMistakes:
    """One task's mistakes, surest first."""

    task: TaskName
    shown: tuple[Mistake, ...]

    @property
    def title(self) -> str:
        """What it is of."""
        return TASK_TITLES[self.task].capitalize()


@dataclass(frozen=True)
class Gallery:
    """The mistakes of one run."""

    network: str
    seed: int
    href: str
    tasks: tuple[TaskMistakes, ...]
    drawn: bool


def gallery(evidence: Evidence, faces: FaceSet) -> Gallery | None:
    """Show the surest mistakes of the best network's first seed; None where none is ranked.

    Raises RunError or DataError where its answers or the faces cannot be read. Whether photographed
    faces may be shown is for the caller to ask.
    """
    best = next((ranked[0] for kind in KINDS if (ranked := evidence.ranked(kind))), None)
    if best is None:
        return None
    run = best.runs[0]
    if faces.pixel_digest != run.setting.pixel_digest:
        raise DataError(
            f"{faces.name} was prepared anew since {best.row.name} was run",
            allowed=f"pixels {run.setting.pixel_digest[:12]}",
            source=str(faces.folder),
        )
    href = evidence.links.of([run.record.identity])
    shown = tuple(_by_task(best, faces))
    return Gallery(best.row.name, run.record.seed, href, shown, faces.drawn)


def _by_task(network: Network, faces: FaceSet) -> Iterator[TaskMistakes]:
    try:
        found = mistakes(read_predictions(network.runs[0].record.predictions_path))
    except OSError as error:
        raise RunError(f"the answers of {network.row.name} cannot be read: {error}") from error
    rows = pd.Series(range(len(faces.table)), index=faces.table["file"])
    pixels = faces.pixels()
    for task in network.tasks:
        ours = found[(found["task"] == task) & found["file"].isin(rows.index)]
        shown = [
            Mistake(
                _thumbnail(pixels, int(rows[str(item.file)])),
                str(item.truth),
                str(item.predicted),
                float(str(item.probability)),
            )
            for item in ours.head(SHOWN_PER_TASK).itertuples()
        ]
        yield TaskMistakes(task, tuple(shown))


def _thumbnail(pixels: Pixels, row: int) -> str:
    picture = Image.fromarray(pixels[row])
    if picture.width > THUMBNAIL_PX:
        picture = picture.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
