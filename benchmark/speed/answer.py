"""What was measured, in words and as tables of text; `as_data` has every number."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmark.speed.measuring import Ratio, Timings
from benchmark.speed.rows import why_not_judged
from benchmark.speed.session import Machine, RowMeasured

NOTHING: Final = "–"
SCHEMA: Final = 1
RATIO_HEADS: Final = ("what", "images", "other, s", "ours, s", "ratio (low–high)", "CPU", "goal")
WORK_HEADS: Final = ("what", "way", "seconds", "TFLOP/s", "roofline", "ours faster by")


def ratio_text(ratio: Ratio) -> str:
    """Write a ratio with its spread over the rounds."""
    return f"{_times(ratio.middle)}× ({_times(ratio.low)}–{_times(ratio.high)})"


def _times(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def seconds_text(seconds: float) -> str:
    """Write seconds with three digits."""
    return (
        f"{seconds:.3f}" if seconds < 1 else f"{seconds:.2f}" if seconds < 100 else f"{seconds:.0f}"
    )


def goal_text(measured: RowMeasured) -> str:
    """Write the goal and, where it is judged, what became of it."""
    if measured.goal is None:
        return NOTHING
    verdict = measured.verdict
    return measured.goal.text() + ("" if verdict is None else f": {verdict}")


def images_text(measured: RowMeasured) -> str:
    """Write how many faces train, and for how many epochs where it is more than one."""
    epochs = f" × {measured.epochs}" if measured.epochs > 1 else ""
    return f"{measured.n_images:,}{epochs}"


def ratio_cells(measured: RowMeasured) -> tuple[str, ...]:
    """Give a row of the first table, under RATIO_HEADS."""
    reference, ours = measured.row.ways
    return (
        measured.row.title,
        images_text(measured),
        seconds_text(measured.timings[reference].seconds),
        seconds_text(measured.timings[ours].seconds),
        ratio_text(measured.ratio()),
        f"{_times(measured.cpu_ratio)}×",
        goal_text(measured),
    )


def work_cells(measured: RowMeasured) -> list[tuple[str, ...]]:
    """Give the rows of the second table, a way each, under WORK_HEADS."""
    ours = measured.row.ways[1]
    found: list[tuple[str, ...]] = []
    for name, timing in measured.timings.items():
        reached = measured.efficiency[name]
        tflops = NOTHING if reached.tflops is None else f"{reached.tflops:.3g}"
        faster = NOTHING if name == ours else ratio_text(measured.ratio(name))
        share = f"{100 * reached.of_roofline:.0f} %"
        found.append((measured.row.name, name, seconds_text(timing.seconds), tflops, share, faster))
    return found


def notes(machine: Machine, rows: Sequence[RowMeasured]) -> list[str]:
    """Say how the tables are to be read."""
    peaks = ", ".join(
        f"{name} {value / 1e12:.3g} TFLOP/s" for name, value in machine.peaks.flops.items()
    )
    copied = machine.peaks.copy_bytes / 1e9
    said = [
        f"The other way is the plain loop: {machine.config.sentence()}. For "
        "--deterministic it is the exact way.",
        "Seconds are medians of the rounds, all ways in turns in one process; a ratio is the "
        "median of the rounds' ratios, with the least and the most. CPU: the ratio of processor "
        "seconds, workers included. Warming up is apart: --json has it.",
        "An epoch trains on the images and validates on an eighth as many. A run trains all its "
        "epochs from fresh weights; ours computes the frozen part inside and keeps it on the disk.",
        f"Peaks measured here: {peaks}; a copy moves {copied:.1f} GB/s, read and written. "
        "Roofline: the least seconds at these peaks over the measured ones.",
    ]
    if machine.compiled:
        said.append("Ours with torch.compile; compiling is part of warming up.")
    if machine.load_before:
        before, after = machine.load_before[0], (machine.load_after or machine.load_before)[0]
        said.append(
            f"Load of the machine (one minute): {before} before, {after} after, this command "
            "included."
        )
    if short := [row.row.name for row in rows if row.rounds < 3]:
        said.append(f"Time was short: fewer than three rounds of {', '.join(short)}.")
    said += [f"{row.row.name}: {note}" for row in rows for note in row.notes]
    if any(row.goal is not None and not row.judged for row in rows):
        said.append(f"No verdicts: {why_not_judged(machine.device)}.")
    return said


def how_ours(rows: Sequence[RowMeasured]) -> str:
    """Say which precision and layout ours took, by row."""
    by_way: dict[str, list[str]] = {}
    for row in rows:
        layout = "channels_last" if row.ours_channels_last else "NCHW"
        by_way.setdefault(f"{row.ours_precision} {layout}", []).append(row.row.name)
    return "; ".join(f"{way}: {', '.join(names)}" for way, names in by_way.items())


def as_data(machine: Machine, rows: Sequence[RowMeasured]) -> dict[str, Any]:
    """Give everything that was measured as plain values."""
    return {
        "schema": SCHEMA,
        "machine": machine.as_dict(),
        "rows": [_row_data(row) for row in rows],
        "notes": notes(machine, rows),
    }


def _row_data(row: RowMeasured) -> dict[str, Any]:
    reference, ours = row.row.ways
    return {
        "name": row.row.name,
        "title": row.row.title,
        "images": row.n_images,
        "validation_images": row.n_val,
        "epochs": row.epochs,
        "rounds": row.rounds,
        "reference": reference,
        "ours": ours,
        "ratio": asdict(row.ratio()),
        "cpu_ratio": row.cpu_ratio,
        "goal": None if row.goal is None else asdict(row.goal),
        "verdict": row.verdict,
        "precision": row.ours_precision,
        "channels_last": row.ours_channels_last,
        "ways": {name: _way_data(timing, row, name) for name, timing in row.timings.items()},
        "notes": list(row.notes),
    }


def _way_data(timing: Timings, row: RowMeasured, name: str) -> dict[str, Any]:
    return {
        "seconds": timing.seconds,
        "cpu_seconds": timing.cpu_seconds,
        "warm_up_seconds": timing.warm_up_seconds,
        "rounds": [asdict(one) for one in timing.measured],
        **asdict(row.efficiency[name]),
        "ours_is_faster": None if name == row.row.ways[1] else asdict(row.ratio(name)),
    }


def markdown(machine: Machine, rows: Sequence[RowMeasured]) -> str:
    """Write both tables and the notes as a page."""
    drawn = ", drawn faces" if machine.drawn else ""
    lines = [
        f"# Speed on {machine.device.description}",
        "",
        f"{machine.dataset}{drawn}, {machine.image_px} px · torch {machine.as_dict()['torch']}",
        "",
        *_table(RATIO_HEADS, [ratio_cells(row) for row in rows]),
        "",
        *_table(WORK_HEADS, [cells for row in rows for cells in work_cells(row)]),
        "",
        *(f"- {note}" for note in notes(machine, rows)),
        f"- Ours computed in {how_ours(rows)}.",
    ]
    return "\n".join(lines) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
