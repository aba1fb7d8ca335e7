"""A leaderboard as text: the words and numbers of its cells, Markdown for people, CSV for machines.

The terminal's table is in benchmark.cli.leaderboard. In CSV, rates are fractions and nothing is
rounded for the eye; everywhere else they are percent with one decimal.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final

from benchmark.experiment import Protocol
from benchmark.results.leaderboard import Kind, Leaderboard, Table
from benchmark.results.rows import Row, Setting, TaskScore, WorstGroup
from benchmark.tasks import TASK_TITLES, TASKS

NOTHING: Final = "–"
STOPPED: Final = "!"

HEADINGS: Final[dict[Kind, str]] = {
    "mtl": "Three tasks, one network (MTL)",
    "age_group": "Age group alone (STL)",
    "gender": "Gender alone (STL)",
    "race": "Race alone (STL)",
}


def percent(rate: float | None) -> str:
    """Write a rate in [0, 1] as percent without the sign: 0.7123 is `71.2`."""
    return NOTHING if rate is None else f"{100 * rate:.1f}"


def span(low: float, high: float) -> str:
    """Write an interval of a rate, in percent."""
    return f"{percent(low)}–{percent(high)}"


def with_sd(mean: float | None, sd: float | None) -> str:
    """Write a rate with its standard deviation over seeds, where there are several."""
    return percent(mean) if sd is None else f"{percent(mean)} ± {percent(sd)}"


def accuracy_text(score: TaskScore | None) -> str:
    """Write an accuracy with its 95 % interval."""
    if score is None:
        return NOTHING
    return f"{with_sd(score.accuracy, score.accuracy_sd)} ({span(score.low, score.high)})"


def macro_f1_text(score: TaskScore | None) -> str:
    """Write a macro-F1."""
    return NOTHING if score is None else with_sd(score.macro_f1, score.macro_f1_sd)


def worst_text(worst: WorstGroup | None) -> str:
    """Write the worst subgroup with its count and interval."""
    if worst is None:
        return NOTHING
    accuracy = f"{percent(worst.accuracy)} ({span(worst.low, worst.high)})"
    return f"{worst.group} {accuracy}, n {worst.n}"


def count_text(count: int | None) -> str:
    """Write a number of parameters with three digits: `722 k`, `14.8 M`."""
    if count is None:
        return NOTHING
    for size, unit in ((1_000_000, " M"), (1_000, " k")):
        if count >= size:
            value = count / size
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.3g}{unit}"
    return str(count)


def duration_text(seconds: float | None) -> str:
    """Write a training time: `48 s`, `12 min`, `3.4 h`."""
    if seconds is None:
        return NOTHING
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def seeds_text(seeds: Sequence[int]) -> str:
    """List seeds: `0, 1, 2`."""
    return ", ".join(str(seed) for seed in seeds) or NOTHING


def remarks_of(row: Row) -> tuple[str, ...]:
    """Give a row's remarks, a leak first, then a red flag."""
    leak = ("LEAKY: test faces were seen in training",) if row.leaky else ()
    return leak + ((row.red_flag,) if row.red_flag else ()) + row.remarks


def rank_text(row: Row) -> str:
    """Write a row's rank; `!` for one that is stopped by a red flag."""
    return STOPPED if row.stopped else str(row.rank or "")


def protocol_text(protocol: Protocol) -> str:
    """Name a protocol and what it does otherwise than the default."""
    plain = Protocol(fold=protocol.fold)
    words = [protocol.name]
    if protocol.input_scaling != plain.input_scaling:
        kinds = {"unit": "inputs scaled to 0-1", "weights_swapped": "red and blue exchanged"}
        words.append(kinds.get(protocol.input_scaling, f"inputs {protocol.input_scaling}"))
    if protocol.shuffling != plain.shuffling:
        words.append("batches never re-shuffled")
    if protocol.selection != plain.selection:
        words.append("last epoch taken")
    return ", ".join(words)


def title_of(board: Leaderboard) -> str:
    """Write a leaderboard's title; drawn faces say so."""
    drawn = "DRAWN FACES · " if board.drawn else ""
    suite = f"suite {board.suite}" if board.suite else "every experiment begun"
    return f"{drawn}Leaderboard of {board.dataset} · {suite}"


def name_text(row: Row) -> str:
    """Write a row's name, with what must never be read without it."""
    leaky = "LEAKY " if row.leaky else ""
    return f"{leaky}{row.name}{' (missing)' if row.status == 'missing' else ''}"


def setting_text(setting: Setting) -> str:
    """Say what the rows of a table have in common."""
    leak = "LEAKY. " if setting.protocol.leaky else ""
    people = setting.subset.label.replace("_", " and ") if setting.subset else ""
    who = f" Selected and tested on {people} alone." if people else ""
    if not setting.split_digest:
        protocol = protocol_text(setting.protocol)
        return f"{leak}Split {setting.split_version}, protocol {protocol}. Not run.{who}"
    return (
        f"{leak}Split {setting.split_version} (digest {setting.split_digest[:8]}, pixels "
        f"{setting.pixel_digest[:8]}), protocol {protocol_text(setting.protocol)}.{who}"
    )


def worst_heading(table: Table) -> str:
    """Name the column of the worst subgroup by the task it is about."""
    return f"worst {TASK_TITLES[table.tasks[0]]} subgroup"


def markdown(board: Leaderboard) -> str:
    """Write the leaderboard as GitHub Markdown, in percent."""
    lines = [f"# {title_of(board)}", ""]
    lines += [
        "Ranked by validation (*val*). Test accuracy in percent with its 95 % interval.",
        "",
    ]
    setting = None
    for table in board.tables:
        lines += [f"## {HEADINGS[table.kind]}", ""]
        if table.setting != setting:
            lines += [setting_text(table.setting), ""]
            setting = table.setting
        lines += [*_markdown_table(table), ""]
    if board.notes:
        lines += ["## How to read it", "", *(f"- {_cell(note)}" for note in board.notes), ""]
    lines += ["## What these numbers are not", "", *(f"- {text}" for text in board.limits), ""]
    return "\n".join(lines)


def _markdown_table(table: Table) -> Iterator[str]:
    heads = ["#", "experiment", "val"]
    for task in table.tasks:
        heads += [TASK_TITLES[task], f"{TASK_TITLES[task]} macro-F1"]
    heads += [worst_heading(table), "parameters", "trained", "time", "seeds", "device", "remarks"]
    yield "| " + " | ".join(heads) + " |"
    yield (
        "|"
        + "|".join("---" if head in ("experiment", "remarks") else "--:" for head in heads)
        + "|"
    )
    for row in table.rows:
        cells = [
            rank_text(row) or NOTHING,
            name_text(row),
            with_sd(row.val_combined, row.val_combined_sd),
        ]
        for task in table.tasks:
            cells += [accuracy_text(row.scores.get(task)), macro_f1_text(row.scores.get(task))]
        cells += [
            worst_text(row.worst),
            count_text(row.parameters),
            count_text(row.trainable_parameters),
            duration_text(row.seconds),
            seeds_text(row.seeds),
            ", ".join(row.devices) or NOTHING,
            "; ".join(remarks_of(row)),
        ]
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Keep text of any origin from breaking a Markdown table or being read as HTML."""
    flat = " ".join(text.split())
    return flat.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def flat_rows(board: Leaderboard) -> Iterator[dict[str, Any]]:
    """Give every row of every table as plain values by column name, rates as fractions.

    What does not exist is None. The columns are the same in every row, in one order.
    """
    for table in board.tables:
        for row in table.rows:
            yield _flat_row(board, table, row)


def _flat_row(board: Leaderboard, table: Table, row: Row) -> dict[str, Any]:
    setting, worst = table.setting, row.worst
    values: dict[str, Any] = {
        "table": table.kind,
        "status": row.status,
        "rank": row.rank,
        "experiment": row.name,
        "val_combined": row.val_combined,
        "val_combined_sd": row.val_combined_sd,
    }
    for task in TASKS:
        score = row.scores.get(task)
        for column in ("accuracy", "accuracy_sd", "low", "high", "macro_f1", "macro_f1_sd"):
            name = f"{task}_accuracy_{column}" if column in ("low", "high") else f"{task}_{column}"
            values[name] = getattr(score, column) if score else None
    for column in ("task", "by", "group", "n", "accuracy", "low", "high"):
        values[f"worst_{column}"] = getattr(worst, column) if worst else None
    return values | {
        "parameters": row.parameters,
        "trainable_parameters": row.trainable_parameters,
        "seconds": row.seconds,
        "n_seeds": len(row.seeds),
        "seeds": " ".join(str(seed) for seed in row.seeds),
        "device": "; ".join(row.devices),
        "commit": " ".join(row.commits),
        "runs": " ".join(row.identities),
        "leaky": row.leaky,
        "stopped": row.stopped,
        "red_flag": row.red_flag,
        "remarks": "; ".join(remarks_of(row)),
        "suite": board.suite,
        "dataset": setting.dataset,
        "drawn": setting.drawn,
        "split_version": setting.split_version,
        "split_digest": setting.split_digest,
        "pixel_digest": setting.pixel_digest,
        "protocol": protocol_text(setting.protocol),
        "selection": setting.protocol.selection,
    }


def csv_text(board: Leaderboard) -> str:
    """Write every row of every table as CSV; a cell that does not exist is empty."""
    stream = io.StringIO()
    rows = list(flat_rows(board))
    if rows:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    return f"{value:.6f}" if isinstance(value, float) else value
