"""The study's rows in its order: what it printed, the leak-free number, its leak replayed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmark.comparison.cells import accuracy_text, percent
from benchmark.comparison.leaderboard import Leaderboard
from benchmark.comparison.rows import Row
from benchmark.reporting.tables import NOTHING, Column, Table
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

READING: Final = (
    "Test accuracy in percent: age group / gender / race. printed: by the study, on a split that "
    "puts about 80 % of its test faces into training, and so is LEAKY. leak-free: this benchmark, "
    "mean ± sd over seeds with its 95 % interval; one seed permits no claim about the experiment. "
    "replayed: the same network under the study's conditions, its leak included, and LEAKY."
)


def study_rows(board: Leaderboard) -> Iterator[tuple[Row, Row | None]]:
    """Give the rows that the study has too, in the order asked for, each with its replay."""
    rows = {row.name: row for table in board.tables for row in table.rows if not row.leaky}
    for name in dict.fromkeys(name for names in board.suites.values() for name in names):
        if (row := rows.get(name)) and row.study:
            yield row, board.replays.get(name)


def study_table(board: Leaderboard) -> Table:
    """Lay the study's rows out; no rows where the leaderboard's suite is not the study's."""
    columns = (
        Column("row", left=False),
        Column("experiment", left=True),
        Column("printed, LEAKY", left=True, below=True),
        Column("leak-free", left=True),
        Column("replayed, LEAKY", left=True, below=True),
        Column("state", left=True),
    )
    found = list(study_rows(board))
    references = (
        [r for t in board.tables[:1] for r in t.rows if r.status == "reference"] if found else []
    )
    rows: list[tuple[str, ...]] = [
        ("", row.name, "", "\n".join(_scores(row, TASKS)), "", "") for row in references
    ]
    for row, replay in found:
        tasks = [task for task in TASKS if task in _tasks(row)]
        printed = {task: getattr(row.study, task) for task in tasks}
        rows.append(
            (
                row.study.row if row.study else NOTHING,
                row.name,
                f"printed {_joined(printed.values())}",
                "\n".join(_scores(row, tasks)) or NOTHING,
                _replayed(replay, tasks),
                state(row),
            )
        )
    return Table.of(columns, rows)


def study_data(board: Leaderboard) -> list[dict[str, Any]]:
    """Give the same as plain values, accuracies in [0, 1]."""
    return [
        {
            "row": row.study.row if row.study else None,
            "experiment": row.name,
            "printed_leaky": {task: getattr(row.study, task) for task in _tasks(row)},
            "leak_free": _plain(row),
            "replayed_leaky": _plain(replay) if replay else None,
            "seeds": list(row.seeds),
            "runs": list(row.identities),
            "state": state(row),
        }
        for row, replay in study_rows(board)
    ]


def state(row: Row) -> str:
    """Say what a row was measured on, or why it was not."""
    if row.status == "missing":
        return "weights not available" if "weights missing" in " ".join(row.remarks) else "not run"
    devices = {"GPU" if "nvidia" in device.lower() else "CPU" for device in row.devices}
    return f"{' and '.join(sorted(devices))}, {len(row.seeds)} seed{'s' * (len(row.seeds) > 1)}"


def _tasks(row: Row) -> Sequence[TaskName]:
    return tuple(row.definition["head"]["tasks"])


def _joined(rates: Any) -> str:
    return " / ".join(percent(rate) if rate is not None else NOTHING for rate in rates)


def _scores(row: Row, tasks: Sequence[TaskName]) -> Iterator[str]:
    for task in tasks:
        if score := row.scores.get(task):
            yield f"{TASK_TITLES[task]} {accuracy_text(score)}"


def _replayed(replay: Row | None, tasks: Sequence[TaskName]) -> str:
    if not replay or not replay.scores:
        return NOTHING
    return f"replayed {_joined(replay.scores[task].accuracy for task in tasks)}"


def _plain(row: Row) -> Mapping[TaskName, Any]:
    return {
        task: {
            "mean": score.accuracy,
            "sd": score.accuracy_sd,
            "low": score.low,
            "high": score.high,
        }
        for task, score in row.scores.items()
    }
