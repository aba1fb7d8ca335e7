"""What `facebench leak` and `facebench subsets` show: sentences, tables and figures, made once.

The terminal, the files and the report only lay these out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmark.comparison.verdicts import points, points_span
from benchmark.evaluation.intervals import cluster_bootstrap
from benchmark.evaluation.predictions import LIMITS, LIMITS_DRAWN
from benchmark.tasks import TaskName

Sentence = tuple[str, tuple[str, ...]]
"""What is said, and the experiments whose runs say it; none: all of the page."""


def rate_of(right: npt.NDArray[np.bool_], clusters: npt.NDArray[np.int64]) -> dict[str, Any] | None:
    """Score faces, right or wrong as (n_seeds, n_faces); None where there is no face.

    Gives mean, low and high (95 % bootstrap of the seed-averaged correctness over clusters), and
    the rate by_seed, all in [0, 1].
    """
    if not right.size:
        return None
    low, high = cluster_bootstrap(right.mean(axis=0)[:, None], clusters)
    ends = {"mean": float(right.mean()), "low": float(low[0]), "high": float(high[0])}
    return ends | {"by_seed": right.mean(axis=1).tolist()}


def rate_text(rate: Mapping[str, Any] | None) -> str:
    """Write accuracy, sd over several seeds and interval in percent."""
    if rate is None:
        return "–"
    several = len(rate["by_seed"]) > 1
    sd = f" ±{100 * float(np.std(rate['by_seed'], ddof=1)):.1f}" if several else ""
    return f"{100 * rate['mean']:.1f}{sd} ({100 * rate['low']:.1f}–{100 * rate['high']:.1f})"


def change_text(mean: float, low: float, high: float) -> str:
    """Write a difference in percentage points with its interval."""
    return f"{points(mean)} ({points_span(low, high)})"


@dataclass(frozen=True)
class StudyTable:
    """Cells as text; the first of a row names it."""

    name: str
    """Unique on a page."""
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    experiments: tuple[tuple[str, ...], ...]
    """Whose runs each row is made of."""


@dataclass(frozen=True)
class Mark:
    """One point of a figure with its 95 % interval; of none, both ends are the value."""

    label: str
    value: float
    low: float
    high: float
    filled: bool = True
    """Of a difference, whether it is significant."""
    leaky: bool = False


@dataclass(frozen=True)
class StudyPanel:
    """The marks of a task, from top to bottom."""

    task: TaskName
    title: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class StudyPicture:
    """Panels of rates, beside each other, or of differences, one below the other."""

    name: str
    """Unique on a page; empty for the only one."""
    title: str
    caption: str
    panels: tuple[StudyPanel, ...]
    of_differences: bool = False


@dataclass(frozen=True)
class StudyPage:
    """A study in words, tables and figures."""

    title: str
    sentences: tuple[Sentence, ...]
    tables: tuple[StudyTable, ...]
    pictures: tuple[StudyPicture, ...]
    notes: tuple[str, ...]
    drawn: bool

    @property
    def heading(self) -> str:
        """The title; synthetic faces are said first."""
        return f"DRAWN FACES · {self.title}" if self.drawn else self.title

    @property
    def limits(self) -> tuple[str, ...]:
        """The limitations of the numbers."""
        return (*LIMITS_DRAWN, *LIMITS) if self.drawn else LIMITS

    def markdown(self) -> str:
        """Write the page as GitHub Markdown."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from (f"# {self.heading}", "")
        yield from (f"- {words}" for words, _ in self.sentences)
        for table in self.tables:
            yield from ("", f"{table.caption}:", "")
            yield f"| {' | '.join(table.heads)} |"
            yield f"|{'---|' * len(table.heads)}"
            yield from (f"| {' | '.join(cells)} |" for cells in table.rows)
        yield ""
        yield from (f"- {note}" for note in (*self.notes, *self.limits))
        yield ""
