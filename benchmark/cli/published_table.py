"""The study's rows on its own leaking split, each above its leak-free twin, in the terminal.

Three lines a row: what the study printed, what its conditions give here, and what is left without
the leak. It fits 80 columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmark.cli.ours import Ours
from benchmark.cli.study_table import GAP, MISSING, TASK_HEADS
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TASKS, TaskName

ABOUT: Final = (
    "LEAKY: four of five test faces of that split were trained on; such numbers rank nothing and "
    "are no measure of a network. leak-free: the same row on faces that it never met; the "
    "difference is the leak's together with the study's other conditions (`facebench leak` takes "
    "one apart). One seed permits no claim."
)
LEGEND: Final = (
    f"Percent of test faces. {MISSING}: missing; the study printed no number, or no run of ours is "
    "finished. Empty: the network does not read that task. age is age group."
)


def is_replay(experiments: Sequence[Experiment]) -> bool:
    """Tell whether these are pairs: a row under the study's leaking protocol, then its twin."""
    pairs = list(zip(experiments[::2], experiments[1::2], strict=False))
    return bool(pairs) and all(
        leaky.protocol.leaky
        and not honest.protocol.leaky
        and (leaky.backbone, leaky.head) == (honest.backbone, honest.head)
        for leaky, honest in pairs
    )


def render_replay(title: str, experiments: Sequence[Experiment], ours: Ours) -> Group:
    """Arrange pairs of a leaking row and its leak-free twin."""
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("row", vertical="top", no_wrap=True)
    table.add_column("experiment", overflow="fold")
    for task in TASKS:
        table.add_column(TASK_HEADS[task], justify="right", no_wrap=True)
    for leaky, honest in zip(experiments[::2], experiments[1::2], strict=False):
        for cells in _lines(leaky, honest, ours):
            table.add_row(*cells)
    return Group(Text(f"LEAKY · {title}", style="bold"), "", Text(ABOUT), Text(LEGEND), "", table)


def _lines(leaky: Experiment, honest: Experiment, ours: Ours) -> Iterator[tuple[str, ...]]:
    study = leaky.study or honest.study
    yield (study.row if study else MISSING, honest.name, "", "", "")
    printed = {task: getattr(study, task) for task in TASKS} if study else {}
    replayed = {task: found.mean for task, found in ours.leaky.get(leaky.name, {}).items()}
    clean = {task: found.mean for task, found in ours.accuracies.get(honest.name, {}).items()}
    yield ("", "  LEAKY · printed by the study", *_cells(leaky, printed, decimals=2))
    yield ("", f"  LEAKY · replayed here, {_seeds(ours.leaky, leaky)}", *_cells(leaky, replayed))
    yield ("", f"  leak-free, {_seeds(ours.accuracies, honest)}", *_cells(honest, clean))


def _cells(
    experiment: Experiment, rates: Mapping[TaskName, float | None], *, decimals: int = 1
) -> tuple[str, ...]:
    """Write rates in percent; what is missing is missing, what is not read is empty."""
    return tuple(
        ""
        if task not in experiment.head.tasks
        else MISSING
        if (rate := rates.get(task)) is None
        else f"{100 * rate:.{decimals}f}"
        for task in TASKS
    )


def _seeds(found: Mapping[str, Mapping[TaskName, object]], experiment: Experiment) -> str:
    means = found.get(experiment.name, {}).values()
    n = max((len(getattr(mean, "seeds", ())) for mean in means), default=0)
    return f"{n} seed{'' if n == 1 else 's'}" if n else "not measured"
