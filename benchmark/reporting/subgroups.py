"""The report on subgroups, and on test faces that the best network gets wrong.

Test faces that the best network reads wrongly, surest first: drawn ones, or those asked for.

For whom the best network fails, and whether that is more than chance makes.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from PIL import Image

from benchmark.comparison.cells import percent
from benchmark.comparison.leaderboard import KINDS
from benchmark.comparison.verdicts import one_place, p_text
from benchmark.data.dataset import FaceSet
from benchmark.data.table import Pixels
from benchmark.errors import DataError, RunError
from benchmark.evaluation.figures import BY_TITLES
from benchmark.evaluation.predictions import read_predictions
from benchmark.evaluation.subgroups import EQUALIZED_ODDS, By, gap_table
from benchmark.evaluation.suspects import mistakes
from benchmark.reporting.answer import Answer, Sentence, heat_map, suite_command, unanswered
from benchmark.reporting.evidence import (
    Column,
    DataTable,
    Evidence,
    Network,
    TableRow,
    number,
    words,
)
from benchmark.tasks import TASK_TITLES, TaskName

TITLES: Final[dict[str, str]] = {str(by): title for by, title in BY_TITLES.items()}


def for_whom(evidence: Evidence) -> Answer:
    """For whom does the best network fail, and is that more than chance?"""
    slug, question = "for-whom", "For whom does it fail?"
    best = next((ranked[0] for kind in KINDS if (ranked := evidence.ranked(kind))), None)
    if best is None:
        why = "no honest run is finished and ranked on this data set."
        suite = evidence.suites[0] if evidence.suites else "quick"
        return unanswered(slug, question, why, [suite_command(suite, evidence.dataset)])
    try:
        maps = tuple(heat_map(evidence, best, task) for task in best.tasks)
        table = _gaps(evidence, best)
    except RunError as error:
        return unanswered(slug, question, str(error), [])
    href = evidence.links.of(best.row.identities)
    sentences = tuple(Sentence(words, href) for words in _worst_sentences(best, table))
    return Answer(
        slug,
        question,
        sentences[0].words,
        href,
        sentences=sentences,
        heat_maps=maps,
        tables=(table.shown(best, evidence), *_further_tables(best, evidence)),
        notes=(
            "Groups are by the labels; those of under 30 faces are marked and not ranked. Chance: "
            "the mean gap when faces are dealt to the groups at random, with the p-value of a gap "
            "as wide, corrected by Holm over all rows of the table. Several seeds have a gap each; "
            "a row shows their mean, and the p of the seed with the largest p.",
            FURTHER_NOTE,
        ),
    )


FURTHER_NOTE: Final = (
    "Rates: each class against the rest; equalized odds is the larger difference of true- and "
    "false-positive rates between subgroups. Permuted: the mean (absolute) difference when answers "
    "change places among faces of the same true class, for women and men among the row's faces "
    "(adjusted: of one age group). Adjusted: the age groups' differences weighted by their faces. "
    "Years: a prediction read as the mean age of its group's training faces; the true group's is "
    "that of a network that is always right. Several seeds: means, and the largest p."
)


@dataclass(frozen=True)
class _Stored:
    """A table of the runs' folders, as the page shows it."""

    file: str
    caption: str
    keys: tuple[str, ...]
    """Columns that name a row."""
    value: tuple[str, str, str]
    """Columns of the number and of the ends of its interval."""
    heading: str
    scale: float
    only: tuple[str, str] | None = None
    """A column, and the value that it has in the rows shown."""


STORED: Final = (
    _Stored(
        "subgroup_rates", "differences of rates between subgroups", ("task", "by", "class"),
        ("difference", "low", "high"), "equalized odds, pp", 100.0, ("rate", EQUALIZED_ODDS),
    ),
    _Stored(
        "gender_gaps", "accuracy for women minus men", ("task", "within"),
        ("difference", "low", "high"), "women − men, pp", 100.0,
    ),
    _Stored(
        "age_edges", "age group by years from the nearest edge (14, 25, 40, 60)",
        ("years_from_edge", "n"), ("accuracy", "low", "high"), "accuracy, %", 100.0,
    ),
    _Stored(
        "age_years", "age group read as its mean age", ("read_as",), ("mae_years", "low", "high"),
        "mean absolute error, years", 1.0, ("group", "all"),
    ),
)  # fmt: skip


def _further_tables(network: Network, evidence: Evidence) -> Iterator[DataTable]:
    """Show what the runs' folders keep of the network; what an older facebench left out is not."""
    href = evidence.links.of(network.row.identities)
    for kind in STORED:
        paths = [run.record.folder / f"{kind.file}.csv" for run in network.runs]
        if not all(path.is_file() for path in paths):
            continue
        found = pd.concat(
            [pd.read_csv(path, dtype=dict.fromkeys(kind.keys, str)) for path in paths]
        )
        if kind.only is not None:
            found = found[found[kind.only[0]] == kind.only[1]]
        found = found.dropna(subset=[kind.value[0]])
        if found.empty:
            continue
        with_p = "p" in found.columns
        by_row = found.groupby(list(kind.keys), sort=False)
        means = by_row[[*kind.value, *(["permuted"] if with_p else [])]].mean() * kind.scale
        columns = [*(Column(key.replace("_", " "), numeric=False) for key in kind.keys)]
        columns += [Column(kind.heading), *map(Column, ("permuted", "p") if with_p else ())]
        worst_p = by_row["p"].max() if with_p else None
        rows = []
        for place, (names, values) in enumerate(
            zip(means.index.tolist(), means.to_numpy().tolist(), strict=True)
        ):
            said = names if isinstance(names, tuple) else (names,)
            cells = [words(TITLES.get(str(name), str(name))) for name in said]
            note = f"{one_place(values[1])} to {one_place(values[2])}"
            cells.append(number(one_place(values[0]), values[0], href=href, note=note))
            if worst_p is not None:
                p = float(worst_p.iloc[place])
                cells += [number(f"{values[3]:.1f}", values[3]), number(p_text(p), p)]
            rows.append(TableRow(tuple(cells)))
        caption = f"{network.row.name}: {kind.caption}"
        yield DataTable(kind.file.replace("_", "-"), caption, tuple(columns), tuple(rows))


@dataclass(frozen=True)
class _Gap:
    """A division of people, and how far apart its best and worst group are."""

    task: TaskName
    by: By
    gap: float
    low: float
    high: float
    chance: float
    p: float
    worst: str
    best: str


@dataclass(frozen=True)
class _Gaps:
    """All gaps of one network."""

    rows: tuple[_Gap, ...]

    def shown(self, network: Network, evidence: Evidence) -> DataTable:
        """Make the page's table of gaps."""
        columns = (
            Column("task", numeric=False),
            Column("groups by", numeric=False),
            Column("read worst", numeric=False),
            Column("read best", numeric=False),
            Column("gap, points"),
            Column("by chance, points"),
            Column("p, Holm"),
        )
        href = evidence.links.of(network.row.identities)
        rows = []
        for row in self.rows:
            ends = f"{100 * row.low:.1f}–{100 * row.high:.1f}"
            rows.append(
                TableRow(
                    (
                        words(TASK_TITLES[row.task]),
                        words(BY_TITLES[row.by]),
                        words(row.worst),
                        words(row.best),
                        number(f"{100 * row.gap:.1f}", row.gap, href=href, note=ends),
                        number(f"{100 * row.chance:.1f}", row.chance, href=href),
                        number(p_text(row.p), row.p),
                    )
                )
            )
        caption = f"{network.row.name}: worst and best group of people, beside what chance gives"
        return DataTable("gaps", caption, columns, tuple(rows))


def _gaps(evidence: Evidence, network: Network) -> _Gaps:
    """Set groups of people against each other, seed by seed; a task's own classes are no group."""
    answers = evidence.book.answers(network.as_group())
    divisions: tuple[By, ...] = ("gender", "race", "gender_race", "age_group")
    tables = []
    for index in range(len(network.runs)):
        one = answers.of_run(index)
        right = {task: one.right(task)[0] for task in network.tasks}
        tables.append(gap_table(one.faces, right, divisions))
    rows = []
    for place in range(len(tables[0])):
        first = tables[0].iloc[place]
        task, by = first["task"], first["by"]
        own = by == task or (by == "gender_race" and task in ("gender", "race"))
        if own or first["n_ranked"] < 2:
            continue
        seeds = [table.iloc[place] for table in tables]
        mean = {
            name: float(np.mean([row[name] for row in seeds]))
            for name in ("gap", "gap_low", "gap_high", "chance_gap")
        }
        rows.append(
            _Gap(
                task,
                by,
                mean["gap"],
                mean["gap_low"],
                mean["gap_high"],
                mean["chance_gap"],
                max(float(row["p_holm"]) for row in seeds),
                _agreed([f"{row['worst_group']}" for row in seeds]),
                _agreed([f"{row['best_group']}" for row in seeds]),
            )
        )
    return _Gaps(tuple(rows))


def _agreed(groups: Sequence[str]) -> str:
    """Name the group that is worst or best, or all that are with one seed or another."""
    return " or ".join(dict.fromkeys(groups))


def _worst_sentences(best: Network, gaps: _Gaps) -> Iterator[str]:
    worst = best.row.worst
    name = best.row.name
    if worst is not None:
        overall = best.row.scores[worst.task].accuracy
        yield (
            f"{name} reads {TASK_TITLES[worst.task]} worst for the group {worst.group}: "
            f"{percent(worst.accuracy)} % ({percent(worst.low)}–{percent(worst.high)}, n "
            f"{worst.n:,}), against {percent(overall)} % of all test faces."
        )
    for row in gaps.rows:
        beyond = f"p {p_text(row.p)} by permutation"
        yield (
            f"{TASK_TITLES[row.task].capitalize()} by {BY_TITLES[row.by]}: {row.worst} worst, "
            f"{row.best} best, {100 * row.gap:.1f} points apart "
            f"({100 * row.low:.1f}–{100 * row.high:.1f}); chance alone gives "
            f"{100 * row.chance:.1f}: {beyond}."
        )
    if worst is None and not gaps.rows:
        yield f"{name}: no two groups of 30 test faces or more, so none can be ranked."


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
