"""Leaderboards and comparisons as plain values by column name: CSV, JSON, pandas, `--where`.

Rates and differences of rates are fractions; nothing is rounded for the eye.
"""

import difflib
import fnmatch
import json
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmark.comparison import wording as words
from benchmark.comparison.leaderboard import BoardTable, Leaderboard
from benchmark.comparison.pairs import QUESTIONS
from benchmark.comparison.rows import Row
from benchmark.errors import BenchmarkError, RunError, require_choice
from benchmark.experiment.definition import Backbone
from benchmark.tasks import TASKS

DIGITS: Final = 9
"""Decimals of a fraction: two machines that add in another order write the same."""

Values = dict[str, Any]


_SCORES: Final = ("accuracy", "accuracy_sd", "accuracy_low", "accuracy_high", "macro_f1",
                  "macro_f1_sd")  # fmt: skip
_COMPARED: Final = [*(f"{it}_{task}" for it in ("twin", "compared") for task in TASKS), "first"]
_NAMES: Final = f"""
table status rank:count experiment architecture weights trained conditioning features
hidden_units:count input_px:count learning_rate:number batch_size:count max_epochs:count
val_combined:rate val_combined_sd:rate
{" ".join(f"{task}_{name}:rate" for task in TASKS for name in _SCORES)}
combined:rate combined_sd:rate combined_low:rate combined_high:rate
worst_task worst_by worst_group worst_n:count worst_accuracy:rate worst_low:rate worst_high:rate
gap_by gap:number gap_low:number gap_high:number gap_chance:number
{" ".join(f"{it}:rate {it}_low:rate {it}_high:rate {it}_p_holm:number" for it in _COMPARED)}
tied_with_first compare_with against_missing
study_row study_age_group:rate study_gender:rate study_race:rate
parameters:count trainable_parameters:count gmacs:number seconds:number images_per_second:number
peak_memory_mib:number n_seeds:count seeds device precision commit runs
leaky stopped red_flag remarks suite dataset drawn split_version split_digest
pixel_digest protocol selection people
"""
FIELDS: Final = {
    name: kind or "text" for name, _, kind in (text.partition(":") for text in _NAMES.split())
}
"""The columns and their kinds: text (flags too), count, rate (differences of rates too), number."""
STARTS: Final = {"mtl_stl": "twin", "compare_with": "compared", "first": "first"}


def flat_rows(board: Leaderboard) -> Iterator[Values]:
    """Give every row of every table as plain values by column name, in the order of FIELDS; what
    does not exist is None."""
    return (flat_row(board, table, row) for table in board.tables for row in table.rows)


def flat_row(board: Leaderboard, table: BoardTable, row: Row) -> Values:
    """Give one row as plain values, a key for each of FIELDS."""
    setting, known = table.setting, vars(table.setting) | vars(row)
    if row.definition:
        backbone = row.definition["backbone"]
        known |= {**backbone, **row.definition["head"], **row.definition["recipe"]}
        known["compare_with"] = row.definition.get("compare_with")
        try:
            known["trained"] = Backbone(**backbone).depth_name
        except (BenchmarkError, TypeError):
            # An architecture that is not known here any more: the number of its stages says it.
            known["trained"] = str(backbone.get("trainable_stages"))
    for task, score in row.scores.items():
        for part, value in vars(score).items():
            known[f"{task}_{'accuracy_' * (part in ('low', 'high'))}{part}"] = value
    for name in ("combined", "worst", "gap", "study"):
        if known[name] is not None:
            known |= {f"{name}_{part}": value for part, value in vars(known[name]).items()}
    missing = []
    for family, outcome in row.comparisons:
        of_task = family != "first" and outcome.task
        name = f"{STARTS[family]}_{outcome.task}" if of_task else STARTS[family]
        if isinstance(outcome, words.Gap):
            missing.append(f"{name}: {outcome.reference}: {outcome.why}")
            continue
        found = outcome.difference
        known |= {name: found.accuracy, f"{name}_low": found.low, f"{name}_high": found.high}
        known[f"{name}_p_holm"] = outcome.p_holm
    suites = (suite for suite, names in board.suites.items() if row.name in names)
    known |= {
        "table": table.kind,
        "experiment": row.name,
        "combined": known.get("combined_value"),
        "gap": known.get("gap_gap"),
        "tied_with_first": row.tied,
        "against_missing": "; ".join(missing) or None,
        "n_seeds": len(row.seeds),
        "seeds": " ".join(map(str, row.seeds)),
        "device": "; ".join(row.devices),
        "precision": " ".join(row.precisions),
        "commit": " ".join(row.commits),
        "runs": " ".join(row.identities),
        "remarks": "; ".join(row.all_remarks),
        "suite": " ".join(suites) or board.suite,
        "protocol": words.protocol_text(setting.protocol),
        "selection": setting.protocol.selection,
        "people": setting.subset.label if setting.subset else "everyone",
    }
    plain = {name: known.get(name) for name in FIELDS}
    return {k: round(v, DIGITS) if isinstance(v, float) else v for k, v in plain.items()}


CONDITION: Final = re.compile(r"\s*([\w-]+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)
COMPARE: Final = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def narrowed(board: Leaderboard, where: Sequence[str], sort: str = "") -> Leaderboard:
    """Keep the rows for which all conditions hold, in an order; reference rows stay first.

    where: COLUMN=VALUE, or with !=, <, <=, > or >=. Columns are those of FIELDS; text is compared
    without regard to case and may hold * and ?; a rate may be written as 90%. sort: COLUMN,
    COLUMN:asc or COLUMN:desc; larger rates and differences first where nothing is said, else the
    smaller; what does not exist last. Ranks, marks and p-values stay those of the whole table.

    Raises RunError where a column is unknown, a condition cannot be read, or no row is left.
    """
    placed = [(at, row) for at, table in enumerate(board.tables) for row in table.rows]
    frame = pd.DataFrame(flat_rows(board), columns=[*FIELDS])
    shown = ranked = frame[frame["status"] != "reference"]
    for text in where:
        shown = shown[_holds(shown, text)]
    if sort:
        column, _, order = sort.partition(":")
        kind = FIELDS[_column(column)]
        order = order or ("desc" if kind == "rate" else "asc")
        require_choice("the order of --sort", order, ("asc", "desc"))
        keys = shown[column].map(_word) if kind == "text" else shown[column].astype(float)
        shown = shown.loc[keys.sort_values(ascending=order == "asc", kind="stable").index]
    asked = " and ".join([*where, *([f"sorted by {sort}"] if sort else [])])
    if shown.empty:
        allowed = "conditions that some row fulfils; the CSV file has every value"
        raise RunError(f"no row of {board.dataset} fits {asked}", allowed=allowed)
    tables = []
    for number, table in enumerate(board.tables):
        rows = [row for at, row in map(placed.__getitem__, shown.index) if at == number]
        references = [row for row in table.rows if row.status == "reference"]
        tables += [replace(table, rows=(*references, *rows))] if rows else []
    note = (
        f"{len(shown)} of {len(ranked)} rows are shown ({asked}). Ranks, marks and corrected "
        "p-values are those of the whole table."
    )
    return replace(board, tables=tuple(tables), notes=(note, *board.notes))


def _column(name: str) -> str:
    if name in FIELDS:
        return name
    near = difflib.get_close_matches(name, FIELDS, n=3) or ["architecture"]
    fix = f"Did you mean {', '.join(near)}? The first line of the CSV file names all of them"
    raise RunError(f"a leaderboard has no column {name!r}", fix=fix)


def _word(value: Any) -> str | None:
    return None if value is None or value == "" else str(_plain(value)).lower()


def _holds(frame: pd.DataFrame, text: str) -> Any:
    """Tell of each row whether a condition holds; a missing value fulfils `!=` alone."""
    parts = CONDITION.fullmatch(text)
    if parts is None:
        allowed = "COLUMN=VALUE, or with !=, <, <=, > or >=, as in 'gender_accuracy>=90%'"
        raise RunError(f"--where is {text!r}", allowed=allowed)
    values, how, asked = frame[_column(parts[1])], parts[2], parts[3].lower()
    if FIELDS[parts[1]] == "text":
        if how not in ("=", "!="):
            raise RunError(f"--where {text!r}: {parts[1]} holds text", allowed="= and !=")
        words = [_word(value) or "" for value in values]
        fits = [any(fnmatch.fnmatch(one, asked) for one in (word, *word.split())) for word in words]
        return np.array(fits, dtype=bool) == (how == "=")
    numbers = values.to_numpy(dtype=float)
    if not asked and how in ("=", "!="):
        return np.isnan(numbers) == (how == "=")
    try:
        number = float(asked.removesuffix("%")) / (100 if asked.endswith("%") else 1)
    except ValueError:
        found, allowed = f"--where {text!r}: {parts[1]} holds numbers", "a number, or 90%"
        raise RunError(found, allowed=allowed) from None
    close = np.isclose(numbers, number, rtol=1e-9, atol=0.0)
    return COMPARE[how](numbers, number) if how in COMPARE else close == (how == "=")


def csv_text(board: Leaderboard) -> str:
    """Write every row of every table as CSV; a cell that does not exist is empty."""
    rows = [{name: _plain(value) for name, value in row.items()} for row in flat_rows(board)]
    frame = pd.DataFrame(rows, columns=list(FIELDS), dtype=object)
    return frame.to_csv(index=False, lineterminator="\n")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6f}" if abs(value) >= 1e-4 or not value else f"{value:.3g}"
    # A spreadsheet would take such a text for a formula.
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@"))
    return f"'{value}" if is_formula else value


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
    }


def json_text(board: Leaderboard) -> str:
    return json.dumps({"schema": 1, **as_data(board)}, indent=2, ensure_ascii=False) + "\n"


def comparison_data(comparison: Values) -> Values:
    """Give everything that benchmark.comparison.pairs.compare found as plain values."""
    tables = [
        {
            "kind": kind,
            "title": title,
            "rows": [_line_data(kind, line) for line in found.lines],
            "not_compared": [
                {"arm": it.group, "reference": it.reference, "why": it.why, "task": it.task}
                for it in found.gaps
            ],
            "sentences": list(words.sentences(found.lines))
            or [words.UNANSWERED] * (family == "mtl_stl"),
            "family": words.family_text(found.lines),
        }
        for family, found in comparison["tables"].items()
        for kind, title in [QUESTIONS[family]]
    ]
    return comparison | {"tables": tables}


def _line_data(kind: str, line: words.TaskComparison) -> Values:
    """Give one task of one pair as plain values by column name; the same columns every time."""
    numbers = dict(vars(line.difference))
    sides = {"arm": line.group, "reference": line.reference}
    return {
        "table": kind,
        **{side: group.label for side, group in sides.items()},
        "task": line.task,
        "difference": numbers.pop("accuracy"),
        **numbers,
        "p_holm": line.p_holm,
        "verdict": line.verdict,
        "family": line.family,
        "p_values_in_family": line.n_family,
        "minimum_detectable": line.minimum_detectable,
        **{f"{side}_seeds": " ".join(map(str, group.seeds)) for side, group in sides.items()},
        **{f"{it}_runs": " ".join(k[:12] for k in group.identities) for it, group in sides.items()},
    }
