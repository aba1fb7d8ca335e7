"""A leaderboard's rows as plain values by column name: CSV, JSON, pandas; and the study's rows.

Rates and differences of rates are fractions; nothing is rounded for the eye.
"""

import csv
import difflib
import fnmatch
import io
import json
import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmark.comparison.leaderboard import BoardTable, Leaderboard
from benchmark.comparison.rows import Row, RowQuestion
from benchmark.comparison.wording import accuracy_text, percent, protocol_text, remarks_of
from benchmark.errors import BenchmarkError, RunError, require_choice
from benchmark.experiment.definition import Backbone
from benchmark.reporting.tables import NOTHING, Cell, Column, Table
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

READING: Final = (
    "Test accuracy in percent: age group / gender / race. printed: by the study, on a split that "
    "puts about 80 % of its test faces into training, and so is LEAKY. leak-free: this benchmark, "
    "mean ± sd over seeds with its 95 % interval; one seed permits no claim about the experiment. "
    "replayed: the same network under the study's conditions, its leak included, and LEAKY."
)
DIGITS: Final = 9
"""Decimals of a fraction: two machines that add in another order write the same."""

Values = dict[str, Any]


def _difference_fields(start: str) -> str:
    return f"{start}:points {start}_low:points {start}_high:points {start}_p_holm:p"


_NAMES: Final = f"""
table status rank:count experiment architecture weights trained conditioning features
hidden_units:count input_px:count learning_rate:number batch_size:count max_epochs:count
val_combined:rate val_combined_sd:rate
{
    " ".join(
        f"{task}_accuracy:rate {task}_accuracy_sd:rate {task}_accuracy_low:rate "
        f"{task}_accuracy_high:rate {task}_macro_f1:rate {task}_macro_f1_sd:rate"
        for task in TASKS
    )
}
combined:rate combined_sd:rate combined_low:rate combined_high:rate
worst_task worst_by worst_group worst_n:count worst_accuracy:rate worst_low:rate worst_high:rate
gap_by gap:number gap_low:number gap_high:number gap_chance:number
{
    " ".join(
        _difference_fields(f"{start}_{task}") for start in ("twin", "compared") for task in TASKS
    )
}
{_difference_fields("first")} tied_with_first:flag
compare_with against_missing study_row study_age_group:rate study_gender:rate study_race:rate
parameters:count trainable_parameters:count gmacs:number seconds:number images_per_second:number
peak_memory_mib:number n_seeds:count seeds:words device precision:words commit:words runs:words
leaky:flag stopped:flag red_flag remarks suite:words dataset drawn:flag split_version split_digest
pixel_digest protocol selection people
"""
FIELDS: Final = {
    name: kind or "text" for name, _, kind in (text.partition(":") for text in _NAMES.split())
}
"""The columns and their kinds: text; words, several with spaces between; flag; count; rate;
points, a difference of rates; p; number."""
COSTS: Final = (
    *("parameters", "trainable_parameters", "gmacs", "seconds"),
    *("images_per_second", "peak_memory_mib"),
)


def flat_rows(board: Leaderboard) -> Iterator[Values]:
    """Give every row of every table as plain values by column name, in the order of FIELDS; what
    does not exist is None."""
    return (flat_row(board, table, row) for table in board.tables for row in table.rows)


def flat_row(board: Leaderboard, table: BoardTable, row: Row) -> Values:
    """Give one row as plain values, a key for each of FIELDS."""
    setting = table.setting
    known = {
        **_definition(row.definition),
        **{name: getattr(row, name) for name in (*COSTS, "leaky", "stopped", "red_flag")},
        **_scores(row),
        **_differences(row),
        "table": table.kind,
        "status": row.status,
        "rank": row.rank,
        "experiment": row.name,
        "n_seeds": len(row.seeds),
        "seeds": " ".join(map(str, row.seeds)),
        "device": "; ".join(row.devices),
        "precision": " ".join(row.precisions),
        "commit": " ".join(row.commits),
        "runs": " ".join(row.identities),
        "remarks": "; ".join(remarks_of(row)),
        "suite": " ".join(board.suites_of(row.name)) or board.suite,
        "dataset": setting.dataset,
        "drawn": setting.drawn,
        "split_version": setting.split_version,
        "split_digest": setting.split_digest,
        "pixel_digest": setting.pixel_digest,
        "protocol": protocol_text(setting.protocol),
        "selection": setting.protocol.selection,
        "people": setting.subset.label if setting.subset else "everyone",
    }
    found = {name: known.get(name) for name in FIELDS}
    return {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in found.items()}


def _definition(definition: Mapping[str, Any]) -> Values:
    if not definition:
        return {}
    backbone = definition["backbone"]
    try:
        trained = Backbone(**backbone).depth_name
    except (BenchmarkError, TypeError):
        # An architecture that is not known here any more: the number of its stages says it.
        trained = str(backbone.get("trainable_stages"))
    return {**backbone, **definition["head"], **definition["recipe"], "trained": trained} | {
        "compare_with": definition.get("compare_with")
    }


def _scores(row: Row) -> Values:
    values: Values = {"val_combined": row.val_combined, "val_combined_sd": row.val_combined_sd}
    for task, score in row.scores.items():
        for part, value in vars(score).items():
            name = f"{task}_accuracy_{part}" if part in ("low", "high") else f"{task}_{part}"
            values[name] = value
    for name in ("combined", "worst", "gap"):
        if getattr(row, name) is not None:
            values |= {f"{name}_{part}": v for part, v in vars(getattr(row, name)).items()}
    return values | {"combined": values.get("combined_value"), "gap": values.get("gap_gap")}


STARTS: Final[dict[RowQuestion, str]] = {"twin": "twin", "defined": "compared", "first": "first"}


def _differences(row: Row) -> Values:
    values: Values = {"tied_with_first": row.tied}
    missing = []
    for outcome in row.comparisons:
        name = STARTS[outcome.kind] + (f"_{outcome.task}" if outcome.task else "")
        if outcome.judged is None:
            missing.append(f"{name}: {outcome.other}: {outcome.why}")
            continue
        found = outcome.judged.difference
        values |= {name: found.accuracy, f"{name}_low": found.low, f"{name}_high": found.high}
        values[f"{name}_p_holm"] = outcome.judged.p_holm
    values["against_missing"] = "; ".join(missing) or None
    if row.study is not None:
        values["study_row"] = row.study.row
        values |= {f"study_{task}": getattr(row.study, task) for task in TASKS}
    return values


CONDITION: Final = re.compile(r"\s*([\w-]+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)


def narrowed(board: Leaderboard, where: Sequence[str], sort: str = "") -> Leaderboard:
    """Keep the rows for which all conditions hold, in an order; reference rows stay first.

    where: COLUMN=VALUE, or with !=, <, <=, > or >=. Columns are those of FIELDS; text is compared
    without regard to case and may hold * and ?; a rate may be written as 90%. sort: COLUMN,
    COLUMN:asc or COLUMN:desc; larger rates and differences first where nothing is said, else the
    smaller; what does not exist last. Ranks, marks and p-values stay those of the whole table.

    Raises RunError where a column is unknown, a condition cannot be read, or no row is left.
    """
    column, _, order = sort.partition(":")
    if sort:
        order = order or ("desc" if FIELDS[_column(column)] in ("rate", "points") else "asc")
        require_choice("the order of --sort", order, ("asc", "desc"))
    tables, n_rows = [], 0
    for table in board.tables:
        ranked = [row for row in table.rows if row.status != "reference"]
        frame = pd.DataFrame([flat_row(board, table, row) for row in ranked], columns=list(FIELDS))
        n_rows += len(frame)
        for text in where:
            frame = frame.loc[np.array(_holds(frame, text), dtype=bool)]
        if sort:
            keys = frame[column].astype(float) if _is_number(column) else frame[column].map(_word)
            ascending = order != "desc"
            frame = frame.loc[keys.sort_values(ascending=ascending, kind="stable").index]
        references = [row for row in table.rows if row.status == "reference"]
        rows = (*references, *(ranked[place] for place in frame.index))
        tables += [replace(table, rows=rows)] if len(frame) else []
    asked = " and ".join([*where, *([f"sorted by {sort}"] if sort else [])])
    if not tables:
        raise RunError(
            f"no row of {board.dataset} fits {asked}",
            allowed="conditions that some row fulfils; the CSV file has every value",
        )
    n_shown = sum(row.status != "reference" for table in tables for row in table.rows)
    note = (
        f"{n_shown} of {n_rows} rows are shown ({asked}). Ranks, marks and corrected p-values are "
        "those of the whole table."
    )
    return replace(board, tables=tuple(tables), notes=(note, *board.notes))


def _column(name: str) -> str:
    if name in FIELDS:
        return name
    near = difflib.get_close_matches(name, FIELDS, n=3) or ["architecture"]
    raise RunError(
        f"a leaderboard has no column {name!r}",
        fix=f"Did you mean {', '.join(near)}? The first line of the CSV file names all of them",
    )


def _is_number(column: str) -> bool:
    return FIELDS[column] not in ("text", "words", "flag")


def _word(value: Any) -> str | None:
    missing = value is None or value == ""
    return None if missing else str(_plain(value)).lower()


def _holds(frame: pd.DataFrame, text: str) -> list[bool]:
    """Tell of each row whether a condition holds; a missing value fulfils `!=` alone."""
    parts = CONDITION.fullmatch(text)
    if parts is None:
        raise RunError(
            f"--where is {text!r}",
            allowed="COLUMN=VALUE, or with !=, <, <=, > or >=, as in 'gender_accuracy>=90%'",
        )
    values, how, asked = frame[_column(parts[1])], parts[2], parts[3].lower()
    if not _is_number(parts[1]):
        if how not in ("=", "!="):
            raise RunError(f"--where {text!r}: {parts[1]} holds text", allowed="= and !=")
        words = [_word(value) or "" for value in values]
        fits = [any(fnmatch.fnmatch(one, asked) for one in (word, *word.split())) for word in words]
        return [fit == (how == "=") for fit in fits]
    if not asked and how in ("=", "!="):
        return [bool(pd.isna(value)) == (how == "=") for value in values]
    try:
        number = float(asked.removesuffix("%")) / (100 if asked.endswith("%") else 1)
    except ValueError:
        raise RunError(
            f"--where {text!r}: {parts[1]} holds numbers",
            allowed="a number, or a percentage as 90%",
        ) from None
    compare = {"=": math.isclose, "!=": lambda a, b: not math.isclose(a, b), "<": operator.lt,
               "<=": operator.le, ">": operator.gt, ">=": operator.ge}[how]  # fmt: skip
    missing = how == "!="
    return [missing if pd.isna(value) else bool(compare(value, number)) for value in values]


def csv_text(board: Leaderboard) -> str:
    """Write every row of every table as CSV; a cell that does not exist is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in flat_rows(board):
        writer.writerow({name: _plain(value) for name, value in row.items()})
    return stream.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6f}" if abs(value) >= 1e-4 or not value else f"{value:.3g}"
    # A spreadsheet would take such a text for a formula.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return f"'{value}"
    return value


def as_data(board: Leaderboard) -> Values:
    """Give a leaderboard as plain values: what `--json` and the JSON file hold."""
    return {
        "dataset": board.dataset,
        "suite": board.suite,
        "drawn": board.drawn,
        "narrowed": "",
        "rows": list(flat_rows(board)),
        "notes": list(board.notes),
        "limits": list(board.limits),
        **({"study": rows} if (rows := study_data(board)) else {}),
    }


def json_text(board: Leaderboard) -> str:
    """Write a leaderboard as JSON."""
    return json.dumps({"schema": 1, **as_data(board)}, indent=2, ensure_ascii=False) + "\n"


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
    firsts = board.tables[0].rows if found else ()
    rows = [("", r.name, "", _scores_text(r), "", "") for r in firsts if r.status == "reference"]
    for row, replay in found:
        tasks = _tasks(row)
        scores = replay.scores if replay else {}
        rows.append(
            (
                row.study.row if row.study else NOTHING,
                row.name,
                f"printed {_joined(getattr(row.study, task) for task in tasks)}",
                _scores_text(row) or NOTHING,
                f"replayed {_joined(scores[t].accuracy for t in tasks)}" if scores else NOTHING,
                state(row),
            )
        )
    # A page for phones hides cells without a value: here only those with nothing to show.
    cells = [[Cell(text, value=text.strip(NOTHING) or None) for text in row] for row in rows]
    return Table.of(columns, cells)


def study_data(board: Leaderboard) -> list[dict[str, Any]]:
    """Give the same as plain values, accuracies in [0, 1]."""
    return [
        {
            "row": row.study.row if row.study else None,
            "experiment": row.name,
            "printed_leaky": {task: getattr(row.study, task) for task in _tasks(row)},
            "leak_free": _plain_scores(row),
            "replayed_leaky": _plain_scores(replay) if replay else None,
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


def _tasks(row: Row) -> list[TaskName]:
    return [task for task in TASKS if task in row.definition["head"]["tasks"]]


def _joined(rates: Iterable[float | None]) -> str:
    return " / ".join(map(percent, rates))


def _scores_text(row: Row) -> str:
    scores = row.scores
    return "\n".join(f"{TASK_TITLES[t]} {accuracy_text(scores[t])}" for t in TASKS if t in scores)


def _plain_scores(row: Row) -> dict[str, Any]:
    return {
        task: {"mean": it.accuracy, "sd": it.accuracy_sd, "low": it.low, "high": it.high}
        for task, it in row.scores.items()
    }
