"""Columns of a leaderboard as plain values, and filters and sorting by them.

Fewer rows of a leaderboard, or in another order, by any of its columns.

Ranks, marks and corrected p-values stay those of the whole table: who looks at a part of it has
not made fewer comparisons. Reference rows stay as well, for they are what the others are held to.

A leaderboard's rows as plain values by column name: what CSV, JSON, filters and pandas see.

Rates and differences of rates are fractions; nothing is rounded for the eye.
"""

import csv
import dataclasses
import difflib
import fnmatch
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmark.comparison.cells import protocol_text, remarks_of
from benchmark.comparison.leaderboard import Leaderboard, Table
from benchmark.comparison.rows import Row, RowQuestion
from benchmark.errors import BenchmarkError, RunError
from benchmark.experiment.definition import Backbone
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


STARTS: Final[dict[RowQuestion, str]] = {"twin": "twin", "defined": "compared", "first": "first"}


def _against(row: Row) -> Values:
    values: Values = {"tied_with_first": row.tied}
    missing = []
    for outcome in row.comparisons:
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


CONDITION: Final = re.compile(r"\s*([A-Za-z_0-9-]+)\s*(<=|>=|!=|==|=|<|>)(.*)", re.DOTALL)
ORDER: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}
USUAL: Final = ("architecture", "weights", "trained", "gender_accuracy", "combined", "seconds")
"""Columns to name to somebody who named none."""
SAME: Final = 1e-9
"""Numbers as near as this are equal."""
FLAGS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Condition:
    """A column, how its values are to compare, and with what; text as it was written."""

    column: Column
    how: str
    value: str

    def holds(self, row: Values) -> bool:
        """Tell whether a row fits; one without such a value fits only where none is asked for."""
        found = row[self.column.name]
        equal = self._equals(found)
        if self.how in ("=", "!="):
            return equal == (self.how == "=")
        return found is not None and ORDER[self.how](float(found), number(self.value, self.column))

    def _equals(self, found: Any) -> bool:
        if found is None or found == "":
            return self.value == ""
        if self.value == "":
            return False
        if self.column.kind == "flag":
            return bool(found) is FLAGS[self.value.lower()]
        if self.column.numeric:
            return abs(float(found) - number(self.value, self.column)) < SAME
        words = str(found).split() if self.column.kind == "words" else []
        wanted = self.value.lower()
        return any(fnmatch.fnmatchcase(word.lower(), wanted) for word in (str(found), *words))


def condition(text: str) -> Condition:
    """Read `column=value`, also with !=, <, <=, > or >=; raise RunError where it is no such thing.

    Text is compared without regard to case, and may hold * and ?; a rate may be written as 90%.
    """
    parts = CONDITION.fullmatch(text)
    if parts is None:
        raise RunError(
            f"--where {text!r} is no condition",
            allowed="COLUMN=VALUE, or with !=, <, <=, > or >= between them",
            fix="For example --where architecture=vgg16 or --where 'gender_accuracy>=0.9'",
        )
    column = column_named(parts[1])
    how, value = parts[2].replace("==", "="), parts[3].strip()
    if how in ORDER and not column.numeric:
        raise RunError(
            f"--where {text!r}: {column.name} holds text, which is not larger or smaller",
            allowed="= and !=, with * for any letters",
        )
    if column.kind == "flag" and value.lower() not in (*FLAGS, ""):
        raise RunError(f"--where {text!r}: {column.name} is true or false", allowed="true, false")
    if column.numeric and (value or how in ORDER):
        number(value, column)
    return Condition(column, how, value)


def column_named(name: str) -> Column:
    """Find a column; an unknown one is answered with the nearest."""
    plain = name.lower().replace("-", "_")
    if plain in BY_NAME:
        return BY_NAME[plain]
    parts = [known for known in BY_NAME if plain in known]
    near = difflib.get_close_matches(plain, BY_NAME, n=3, cutoff=0.7) or parts[:5] or USUAL
    raise RunError(
        f"a leaderboard has no column {name!r}",
        allowed=f"did you mean {', '.join(near)}?",
        fix="The first line of the CSV file names all of them",
    )


def number(text: str, column: Column) -> float:
    """Read a number, or percent as a fraction."""
    plain = text.strip().replace("−", "-")
    try:
        if plain.endswith("%"):
            return float(plain.removesuffix("%")) / 100
        return float(plain)
    except ValueError:
        raise RunError(
            f"{text!r} is no number, and {column.name} holds numbers",
            allowed="rates as fractions (0.9) or percent (90%), times in seconds",
        ) from None


@dataclass(frozen=True)
class Sort:
    """By which column rows are ordered, and which way."""

    column: Column
    descending: bool

    def key(self, values: Values) -> tuple[bool, Any]:
        """Order values; what does not exist comes last, whichever way."""
        found = values[self.column.name]
        missing = found is None or found == ""
        if self.column.numeric:
            value = 0.0 if missing else float(found)
            return missing, -value if self.descending else value
        text = str(found).lower()
        return missing, tuple(-ord(letter) for letter in text) if self.descending else text


def sort_by(text: str) -> Sort:
    """Read `column`, `column:asc` or `column:desc`; best first where nothing is said.

    Larger rates are better, and so are larger differences; of all else, the smaller come first.
    """
    name, _, way = text.partition(":")
    if way not in ("", "asc", "desc"):
        raise RunError(f"--sort {text!r}", allowed="COLUMN, COLUMN:asc or COLUMN:desc")
    column = column_named(name)
    upwards = column.kind not in ("rate", "points")
    return Sort(column, descending=way == "desc" if way else not upwards)


def narrowed(
    board: Leaderboard, conditions: Sequence[Condition], sort: Sort | None = None
) -> Leaderboard:
    """Keep the rows that fit all conditions, ordered; raise RunError where no row is left."""
    if not conditions and sort is None:
        return board
    tables = [_narrowed_table(board, table, conditions, sort) for table in board.tables]
    kept = tuple(table for table in tables if _n_rows(table))
    n_shown, n_rows = (sum(map(_n_rows, some)) for some in (kept, board.tables))
    if not n_shown:
        raise _nothing(board, conditions)
    said = [f"{item.column.name}{item.how}{item.value}" for item in conditions]
    if sort is not None:
        said.append(f"by {sort.column.name}, {'descending' if sort.descending else 'ascending'}")
    what = ", ".join(said)
    note = (
        f"{n_shown} of {n_rows} rows are shown ({what}). Ranks, marks and corrected p-values are "
        "those of the whole table."
    )
    return dataclasses.replace(board, tables=kept, notes=(note, *board.notes), narrowed=what)


def _n_rows(table: Table) -> int:
    return sum(row.status != "reference" for row in table.rows)


def _narrowed_table(
    board: Leaderboard, table: Table, conditions: Sequence[Condition], sort: Sort | None
) -> Table:
    flat = [(row, flat_row(board, table, row)) for row in table.rows]
    first = [row for row in table.rows if row.status == "reference"]
    rest: list[tuple[Row, Values]] = [
        (row, values)
        for row, values in flat
        if row.status != "reference" and all(item.holds(values) for item in conditions)
    ]
    if sort is not None:
        rest.sort(key=lambda item: sort.key(item[1]))
    return dataclasses.replace(table, rows=(*first, *(row for row, _ in rest)))


MOST_VALUES: Final = 12


def _nothing(board: Leaderboard, conditions: Sequence[Condition]) -> RunError:
    """Say which values the columns asked about have."""
    rows = [
        flat_row(board, table, row)
        for table in board.tables
        for row in table.rows
        if row.status != "reference"
    ]
    said = []
    for name in dict.fromkeys(item.column.name for item in conditions):
        values = sorted({str(row[name]) for row in rows if row[name] not in (None, "")})
        more = ", …" if len(values) > MOST_VALUES else ""
        said.append(f"{name}: {', '.join(values[:MOST_VALUES]) or 'nothing'}{more}")
    asked = " and ".join(f"{item.column.name}{item.how}{item.value}" for item in conditions)
    return RunError(f"no row of {board.dataset} has {asked}", allowed="; ".join(said))
