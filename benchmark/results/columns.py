"""A leaderboard's rows as plain values by column name: what CSV, JSON, filters and pandas see.

Rates and differences of rates are fractions; nothing is rounded for the eye.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmark.errors import BenchmarkError
from benchmark.experiment import Backbone
from benchmark.results.board import Leaderboard, Table
from benchmark.results.cells import protocol_text, remarks_of
from benchmark.results.row import Opponent, Row
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

Kind = Literal["text", "words", "flag", "count", "rate", "points", "p", "number"]
"""`words`: several values with spaces between; `points`: a difference of rates."""
DIGITS: Final = 9
"""Decimals of a fraction: two machines that add in another order write the same."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of every table, by the name that `--sort` and `--where` take."""

    name: str
    kind: Kind
    label: str

    @property
    def numeric(self) -> bool:
        """Whether its values can be larger or smaller than others."""
        return self.kind not in ("text", "words", "flag")


def _task_columns() -> Iterator[Column]:
    for task in TASKS:
        title = TASK_TITLES[task]
        yield Column(f"{task}_accuracy", "rate", title)
        yield Column(f"{task}_accuracy_sd", "rate", f"{title} sd")
        yield Column(f"{task}_accuracy_low", "rate", f"{title} low")
        yield Column(f"{task}_accuracy_high", "rate", f"{title} high")
        yield Column(f"{task}_macro_f1", "rate", f"{title} macro-F1")
        yield Column(f"{task}_macro_f1_sd", "rate", f"{title} macro-F1 sd")


def _against_columns() -> Iterator[Column]:
    for start, title in (("twin", "against counterpart"), ("compared", "against compare_with")):
        for task in TASKS:
            name, label = f"{start}_{task}", f"{TASK_TITLES[task]} {title}"
            yield Column(name, "points", label)
            yield Column(f"{name}_low", "points", f"{label}, low")
            yield Column(f"{name}_high", "points", f"{label}, high")
            yield Column(f"{name}_p_holm", "p", f"{label}, p (Holm)")
    yield Column("first", "points", "against the first")
    yield Column("first_low", "points", "against the first, low")
    yield Column("first_high", "points", "against the first, high")
    yield Column("first_p_holm", "p", "against the first, p (Holm)")
    yield Column("tied_with_first", "flag", "not separable from the first")


COLUMNS: Final[tuple[Column, ...]] = (
    Column("table", "text", "table"),
    Column("status", "text", "status"),
    Column("rank", "count", "#"),
    Column("experiment", "text", "experiment"),
    Column("architecture", "text", "architecture"),
    Column("weights", "text", "weights"),
    Column("trained", "text", "trained"),
    Column("conditioning", "text", "conditioning"),
    Column("features", "text", "features"),
    Column("hidden_units", "count", "hidden units"),
    Column("input_px", "count", "input px"),
    Column("learning_rate", "number", "learning rate"),
    Column("batch_size", "count", "batch size"),
    Column("max_epochs", "count", "epochs at most"),
    Column("val_combined", "rate", "val"),
    Column("val_combined_sd", "rate", "val sd"),
    *_task_columns(),
    Column("combined", "rate", "test combined"),
    Column("combined_sd", "rate", "test combined sd"),
    Column("combined_low", "rate", "test combined low"),
    Column("combined_high", "rate", "test combined high"),
    Column("worst_task", "text", "worst group of task"),
    Column("worst_by", "text", "worst group by"),
    Column("worst_group", "text", "worst group"),
    Column("worst_n", "count", "worst group n"),
    Column("worst_accuracy", "rate", "worst group accuracy"),
    Column("worst_low", "rate", "worst group low"),
    Column("worst_high", "rate", "worst group high"),
    Column("gap_by", "text", "gap by"),
    Column("gap", "number", "gap"),
    Column("gap_low", "number", "gap low"),
    Column("gap_high", "number", "gap high"),
    Column("gap_chance", "number", "gap by chance"),
    *_against_columns(),
    Column("compare_with", "text", "compare_with"),
    Column("against_missing", "text", "not compared"),
    Column("study_row", "text", "study's row"),
    *(Column(f"study_{task}", "rate", f"study {TASK_TITLES[task]}") for task in TASKS),
    Column("parameters", "count", "parameters"),
    Column("trainable_parameters", "count", "trainable"),
    Column("gmacs", "number", "GMACs"),
    Column("seconds", "number", "training s"),
    Column("images_per_second", "number", "images/s"),
    Column("peak_memory_mib", "number", "peak MiB"),
    Column("n_seeds", "count", "seeds"),
    Column("seeds", "words", "which seeds"),
    Column("device", "text", "device"),
    Column("precision", "words", "precision"),
    Column("commit", "words", "commit"),
    Column("runs", "words", "runs"),
    Column("leaky", "flag", "LEAKY"),
    Column("stopped", "flag", "stopped"),
    Column("red_flag", "text", "red flag"),
    Column("remarks", "text", "remarks"),
    Column("suite", "words", "suite"),
    Column("dataset", "text", "data set"),
    Column("drawn", "flag", "drawn faces"),
    Column("split_version", "text", "split"),
    Column("split_digest", "text", "split digest"),
    Column("pixel_digest", "text", "pixel digest"),
    Column("protocol", "text", "protocol"),
    Column("selection", "text", "selection"),
    Column("people", "text", "people"),
)
BY_NAME: Final = {column.name: column for column in COLUMNS}


def flat_rows(board: Leaderboard) -> Iterator[Values]:
    """Give every row of every table as plain values by column name, in the order of COLUMNS.

    What does not exist is None.
    """
    for table in board.tables:
        for row in table.rows:
            yield flat_row(board, table, row)


def flat_row(board: Leaderboard, table: Table, row: Row) -> Values:
    """Give one row as plain values, a key for each of COLUMNS."""
    known = {
        "table": table.kind,
        "status": row.status,
        "rank": row.rank,
        "experiment": row.name,
        **_definition(row.definition),
        "val_combined": row.val_combined,
        "val_combined_sd": row.val_combined_sd,
        **_scores(row),
        **_against(row),
        **_costs(row),
        **_origin(row),
        **_setting(table),
        "suite": " ".join(board.suites_of(row.name)) or board.suite,
    }
    return {column.name: _rounded(known.get(column.name)) for column in COLUMNS}


def _rounded(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value


def _definition(definition: Mapping[str, Any]) -> Values:
    if not definition:
        return {}
    backbone, head, recipe = (definition[part] for part in ("backbone", "head", "recipe"))
    try:
        trained = Backbone(**backbone).depth_name
    except (BenchmarkError, TypeError):
        # An architecture that is not known here any more: the number of its stages says it.
        trained = str(backbone.get("trainable_stages"))
    values = {name: backbone.get(name) for name in ("architecture", "weights", "input_px")}
    values |= {name: head.get(name) for name in ("conditioning", "features", "hidden_units")}
    values |= {name: recipe.get(name) for name in ("learning_rate", "batch_size", "max_epochs")}
    return values | {"trained": trained, "compare_with": definition.get("compare_with")}


def _scores(row: Row) -> Values:
    values: Values = {}
    for task, score in row.scores.items():
        for part in ("accuracy", "accuracy_sd", "low", "high", "macro_f1", "macro_f1_sd"):
            name = f"{task}_accuracy_{part}" if part in ("low", "high") else f"{task}_{part}"
            values[name] = getattr(score, part)
    if row.combined is not None:
        values["combined"] = row.combined.value
        values |= {f"combined_{part}": getattr(row.combined, part) for part in ("low", "high")}
        values["combined_sd"] = row.combined.sd
    for part in ("task", "by", "group", "n", "accuracy", "low", "high"):
        values[f"worst_{part}"] = getattr(row.worst, part) if row.worst else None
    if row.gap is not None:
        values |= {"gap": row.gap.gap, "gap_by": row.gap.by}
        values |= {f"gap_{part}": getattr(row.gap, part) for part in ("low", "high", "chance")}
    return values


STARTS: Final[dict[Opponent, str]] = {"twin": "twin", "defined": "compared", "first": "first"}


def _against(row: Row) -> Values:
    values: Values = {"tied_with_first": row.tied}
    missing = []
    for outcome in row.against:
        task = f"_{outcome.task}" if outcome.task else ""
        name = STARTS[outcome.kind] + task
        if outcome.judged is None:
            missing += [f"{name}: {outcome.other}: {outcome.why}"]
            continue
        found = outcome.judged.difference
        values[name] = found.accuracy
        values[f"{name}_low"], values[f"{name}_high"] = found.low, found.high
        values[f"{name}_p_holm"] = outcome.judged.p_holm
    values["against_missing"] = "; ".join(missing) or None
    if row.study is not None:
        values["study_row"] = row.study.row
        values |= {f"study_{task}": _printed(row, task) for task in TASKS}
    return values


def _printed(row: Row, task: TaskName) -> float | None:
    return getattr(row.study, task) if row.study else None


def _costs(row: Row) -> Values:
    names = (
        *("parameters", "trainable_parameters", "gmacs", "seconds"),
        *("images_per_second", "peak_memory_mib"),
    )
    return {name: getattr(row, name) for name in names}


def _origin(row: Row) -> Values:
    return {
        "n_seeds": len(row.seeds),
        "seeds": " ".join(str(seed) for seed in row.seeds),
        "device": "; ".join(row.devices),
        "precision": " ".join(row.precisions),
        "commit": " ".join(row.commits),
        "runs": " ".join(row.identities),
        "leaky": row.leaky,
        "stopped": row.stopped,
        "red_flag": row.red_flag,
        "remarks": "; ".join(remarks_of(row)),
    }


def _setting(table: Table) -> Values:
    setting = table.setting
    return {
        "dataset": setting.dataset,
        "drawn": setting.drawn,
        "split_version": setting.split_version,
        "split_digest": setting.split_digest,
        "pixel_digest": setting.pixel_digest,
        "protocol": protocol_text(setting.protocol),
        "selection": setting.protocol.selection,
        "people": setting.subset.label if setting.subset else "everyone",
    }


def csv_text(board: Leaderboard) -> str:
    """Write every row of every table as CSV; a cell that does not exist is empty."""
    stream = io.StringIO()
    names = [column.name for column in COLUMNS]
    writer = csv.DictWriter(stream, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    for row in flat_rows(board):
        writer.writerows([{name: _plain(value) for name, value in row.items()}])
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
        "narrowed": board.narrowed,
        "rows": list(flat_rows(board)),
        "notes": list(board.notes),
        "limits": list(board.limits),
    }


def json_text(board: Leaderboard) -> str:
    """Write a leaderboard as JSON."""
    return json.dumps({"schema": 1, **as_data(board)}, indent=2, ensure_ascii=False) + "\n"
