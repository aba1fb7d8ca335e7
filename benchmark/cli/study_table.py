"""The study's numbers beside ours in the terminal, in the roomier of two forms that fits its width.

One line an experiment, with what it asks where there is room; or the study's line above ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmark.cli.ours import Ours
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TASKS, TaskName

MISSING: Final = "–"
GAP: Final = 2
"""Spaces between two columns."""
SHORTEST_QUESTION: Final = 50
"""Characters that a question gets at least; with less room it is left out."""
SHORTEST_NAME: Final = 18
ASKS: Final = "asks"
TASK_HEADS: Final[dict[TaskName, str]] = {"age_group": "age", "gender": "gender", "race": "race"}

NOT_COMPARABLE: Final = (
    "study: what the original printed, in percent. Its split leaks: four of five of its test faces "
    "were trained on. Its numbers and ours are not comparable."
)
LEGEND: Final = (
    f"{MISSING}: missing; the study printed no number, or no run of ours is finished. Empty: the "
    "network does not read that task. age is age group."
)


@dataclass(frozen=True)
class Column:
    """A column's heading, of one or two lines, and its cells, one an experiment."""

    head: str
    cells: list[Text]
    left: bool = False


def render(title: str, experiments: Sequence[Experiment], ours: Ours, width: int) -> Group:
    """Arrange experiments for a terminal of `width` columns, 80 or more."""
    parts: list[RenderableType] = [Text(title, style="bold"), ""]
    parts += [Text(NOT_COMPARABLE), Text(_about(ours)), Text(LEGEND), ""]
    columns = _lines(experiments, ours)
    spare = width - _total(columns)
    if spare < 0:
        columns = _blocks(experiments, ours, width)
    elif spare >= GAP + SHORTEST_QUESTION:
        columns.append(Column(ASKS, [Text(item.asks) for item in experiments], left=True))
    return Group(*parts, _laid_out(columns))


def _about(ours: Ours) -> str:
    if ours.faces is None:
        return "ours: none of these is measured yet; `facebench run` does it."
    drawn = ", DRAWN FACES and not people" if ours.drawn else ""
    return (
        f"ours: mean test accuracy over seeds, in percent, on {ours.faces.dataset}{drawn}. One "
        "seed permits no claim about an experiment; intervals are in `facebench leaderboard`."
    )


def _lines(experiments: Sequence[Experiment], ours: Ours) -> list[Column]:
    """Put an experiment on one line; where nothing is measured there are no columns of ours."""
    columns = _first_columns(experiments, [Text(item.name) for item in experiments])
    for task in TASKS:
        printed = [_printed(item, task) for item in experiments]
        columns.append(Column(f"study\n{TASK_HEADS[task]}", printed))
    if ours.faces is None:
        return columns
    for task in TASKS:
        means = [_mean(item, task, ours) for item in experiments]
        columns.append(Column(f"ours\n{TASK_HEADS[task]}", means))
    seeds = [Text(str(_n_seeds(item, ours) or MISSING)) for item in experiments]
    return [*columns, Column("seeds", seeds)]


def _blocks(experiments: Sequence[Experiment], ours: Ours, width: int) -> list[Column]:
    """Put the study's numbers on the first line of a name and ours below its last."""
    widest = _total(_lines(experiments, Ours())) - max(cell_len(item.name) for item in experiments)
    room = max(width - widest, SHORTEST_NAME)
    names = [Text(_broken(item.name, room)) for item in experiments]
    printed = {task: [_printed(item, task) for item in experiments] for task in TASKS}
    if ours.faces is not None:
        for index, (name, item) in enumerate(zip(names, experiments, strict=True)):
            gap = "\n" * (1 + name.plain.count("\n"))
            name.append(f"\n  ours, {_seeds_text(item, ours)}")
            for task in TASKS:
                printed[task][index].append(gap).append(_mean(item, task, ours))
    columns = [Column(f"study\n{TASK_HEADS[task]}", printed[task]) for task in TASKS]
    return [*_first_columns(experiments, names), *columns]


def _first_columns(experiments: Sequence[Experiment], names: list[Text]) -> list[Column]:
    rows = [Text(item.study.row if item.study else MISSING) for item in experiments]
    rates = [Text(rate_and_batch(item)) for item in experiments]
    return [
        Column("row", rows, left=True),
        Column("experiment", names, left=True),
        Column("rate/\nbatch", rates, left=True),
    ]


def rate_and_batch(experiment: Experiment) -> str:
    """Write a learning rate and a batch size: `1e-4/32`."""
    mantissa, exponent = f"{experiment.recipe.learning_rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}/{experiment.recipe.batch_size}"


def _printed(experiment: Experiment, task: TaskName) -> Text:
    """Write what the study printed, with its own two decimals of a percent."""
    rate = getattr(experiment.study, task) if experiment.study else None
    return _number(experiment, task, rate, decimals=2)


def _mean(experiment: Experiment, task: TaskName, ours: Ours) -> Text:
    found = ours.accuracies.get(experiment.name, {}).get(task)
    return _number(experiment, task, found.mean if found else None, decimals=1)


def _number(experiment: Experiment, task: TaskName, rate: float | None, *, decimals: int) -> Text:
    if task not in experiment.head.tasks:
        return Text("")
    return Text(MISSING if rate is None else f"{100 * rate:.{decimals}f}")


def _seeds_text(experiment: Experiment, ours: Ours) -> str:
    n = _n_seeds(experiment, ours)
    return f"{n} seed{'' if n == 1 else 's'}" if n else "not measured"


def _n_seeds(experiment: Experiment, ours: Ours) -> int:
    means = ours.accuracies.get(experiment.name, {}).values()
    return max((len(mean.seeds) for mean in means), default=0)


def _broken(name: str, room: int) -> str:
    """Break a name at its hyphens into lines of at most `room`; a longer piece has its own."""
    lines = [""]
    for piece in name.replace("-", "-\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(piece) > room:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _total(columns: Sequence[Column]) -> int:
    """Measure a table with its gaps, in characters."""
    lines = [[column.head, *(cell.plain for cell in column.cells)] for column in columns]
    widths = [max(cell_len(line) for text in texts for line in text.split("\n")) for texts in lines]
    return sum(widths) + GAP * (len(widths) - 1)


def _laid_out(columns: Sequence[Column]) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            Text(column.head),
            justify="left" if column.left else "right",
            vertical="top",
            no_wrap=column.head != ASKS,
            overflow="fold",
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table
