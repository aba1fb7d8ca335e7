"""Numbers and rows of a leaderboard in words: percent with one decimal, sizes with three digits."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from benchmark.experiment.definition import Protocol
from benchmark.tasks import TASK_TITLES

if TYPE_CHECKING:
    from benchmark.comparison.leaderboard import BoardTable, Leaderboard
    from benchmark.comparison.library import Setting
    from benchmark.comparison.rows import Row, TaskScore

NOTHING: Final = "–"
AD_HOC: Final = "ad hoc: "
"""How the remark begins that says what was changed of a definition."""


def percent(rate: float | None) -> str:
    """Write a rate in [0, 1] as percent without the sign: 0.7123 is `71.2`."""
    return NOTHING if rate is None else f"{100 * rate:.1f}"


def span(low: float, high: float) -> str:
    """Write an interval of a rate, in percent."""
    return f"{percent(low)}–{percent(high)}"


def with_sd(mean: float | None, sd: float | None) -> str:
    """Write a rate with its standard deviation over seeds, where there are several."""
    return percent(mean) if sd is None else f"{percent(mean)} ± {percent(sd)}"


def accuracy_text(score: "TaskScore | None") -> str:
    """Write an accuracy with its 95 % interval."""
    if score is None:
        return NOTHING
    return f"{with_sd(score.accuracy, score.accuracy_sd)} ({span(score.low, score.high)})"


def number_text(value: float | None) -> str:
    """Write a positive number with three digits: `0.0512`, `48.4`, `1,320`."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def memory_text(mib: float | None) -> str:
    """Write an amount of memory: `812 MiB`, `3.4 GiB`."""
    if mib is None:
        return NOTHING
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


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
    """Write a training time with two digits or more: `48 s`, `1.7 min`, `12 min`, `3.4 h`."""
    if seconds is None:
        return NOTHING
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"
    return f"{seconds / 3600:.1f} h"


def seeds_text(seeds: Sequence[int]) -> str:
    """List seeds: `0, 1, 2`."""
    return ", ".join(str(seed) for seed in seeds) or NOTHING


def remarks_of(row: "Row") -> tuple[str, ...]:
    """Give a row's remarks, a leak first, then a red flag."""
    leak = ("LEAKY: test faces were seen in training",) if row.leaky else ()
    return leak + ((row.red_flag,) if row.red_flag else ()) + row.remarks


def rank_text(row: "Row") -> str:
    """Write a row's rank; `!`: stopped by a red flag, `=`: not significantly below the first."""
    return "!" if row.stopped else f"{row.rank or ''}{'=' if row.tied else ''}"


def name_text(row: "Row") -> str:
    """Write a row's name, with what must never be read without it."""
    leaky = "LEAKY " if row.leaky else ""
    return f"{leaky}{row.name}{' (not run)' if row.status == 'missing' else ''}"


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


def setting_text(setting: "Setting") -> str:
    """Say what the rows of a table have in common."""
    leak = "LEAKY. " if setting.protocol.leaky else ""
    subset = setting.subset.label.replace("_", " and ") if setting.subset else ""
    subset = f" Selected and tested on {subset} alone." if subset else ""
    protocol = protocol_text(setting.protocol)
    if not setting.split_digest:
        return f"{leak}Split {setting.split_version}, protocol {protocol}. Not run.{subset}"
    return (
        f"{leak}Split {setting.split_version} (digest {setting.split_digest[:8]}, pixels "
        f"{setting.pixel_digest[:8]}), protocol {protocol}.{subset}"
    )


def title_of(board: "Leaderboard") -> str:
    """Write a leaderboard's title; synthetic faces say so."""
    synthetic = "SYNTHETIC FACES · " if board.drawn else ""
    several = "suites" if len(board.suites) > 1 else "suite"
    suite = f"{several} {board.suite}" if board.suite else "every experiment begun"
    part = f" · {board.narrowed}" if board.narrowed else ""
    return f"{synthetic}Leaderboard of {board.dataset} · {suite}{part}"


def worst_heading(table: "BoardTable") -> str:
    """Name the column of the worst subgroup by the task it is about."""
    return f"worst {TASK_TITLES[table.tasks[0]]} subgroup"
