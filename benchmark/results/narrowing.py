"""Fewer rows of a leaderboard, or in another order, by any of its columns.

Ranks, marks and corrected p-values stay those of the whole table: who looks at a part of it has
not made fewer comparisons. Reference rows stay as well, for they are what the others are held to.
"""

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmark.errors import RunError
from benchmark.results.board import Leaderboard, Table
from benchmark.results.columns import BY_NAME, Column, Values, flat_row
from benchmark.results.row import Row

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
