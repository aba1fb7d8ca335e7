"""What was measured, as tables of text, as a picture, and as plain values with every number."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmark.evaluation.figures import COLOURS, FAINT, INK
from benchmark.speed.measure import Ratio, RowMeasured, Session
from benchmark.speed.rows import why_not_judged

NOTHING: Final = "–"
SCHEMA: Final = 1
RATIO_HEADS: Final = ("what", "images", "other, s", "ours, s", "ratio (low–high)", "CPU", "goal")
WORK_HEADS: Final = ("what", "way", "seconds", "TFLOP/s", "roofline", "ours faster by")


def ratio_text(ratio: Ratio) -> str:
    """Write a ratio with its spread over the rounds."""
    return f"{_times(ratio.middle)}× ({_times(ratio.low)}–{_times(ratio.high)})"


def _times(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def ratio_cells(measured: RowMeasured) -> tuple[str, ...]:
    """Give a row of the first table, under RATIO_HEADS."""
    reference, ours = measured.row.ways
    goal, verdict = measured.goal, measured.verdict
    return (
        measured.row.title,
        f"{measured.n_images:,}" + (f" × {measured.epochs}" if measured.epochs > 1 else ""),
        _seconds(measured.timings[reference].seconds),
        _seconds(measured.timings[ours].seconds),
        ratio_text(measured.ratio()),
        f"{_times(measured.cpu_ratio)}×",
        NOTHING if goal is None else goal.text() + (f": {verdict}" if verdict else ""),
    )


def work_cells(measured: RowMeasured) -> list[tuple[str, ...]]:
    """Give the rows of the second table, a way each, under WORK_HEADS."""
    found: list[tuple[str, ...]] = []
    for name, timing in measured.timings.items():
        tflops, share = measured.efficiency[name].values()
        is_ours = name == measured.row.ways[1]
        found.append(
            (
                measured.row.name,
                name,
                _seconds(timing.seconds),
                NOTHING if tflops is None else f"{tflops:.3g}",
                f"{100 * (share or 0):.0f} %",
                NOTHING if is_ours else ratio_text(measured.ratio(name)),
            )
        )
    return found


def notes(session: Session, rows: Sequence[RowMeasured]) -> list[str]:
    """Say how the tables are to be read."""
    rates = session.peaks.flops.items()
    peaks = ", ".join(f"{name} {value / 1e12:.3g} TFLOP/s" for name, value in rates)
    said = [
        f"The other way is the plain loop: {session.config.sentence()}. For --deterministic it is "
        "the exact way.",
        "Seconds are medians of the rounds, all ways in turns in one process; a ratio is the "
        "median of the rounds' ratios, with the least and the most. CPU: the ratio of processor "
        "seconds, workers included. Warming up is apart: --json has it.",
        "An epoch trains on the images and validates on an eighth as many. A run trains all its "
        "epochs from fresh weights; ours computes the frozen part inside and keeps it on the disk.",
        f"Peaks measured here: {peaks}; a copy moves {session.peaks.copy_bytes / 1e9:.1f} GB/s, "
        "read and written. Roofline: the least seconds at these peaks over the measured ones.",
    ]
    if session.options.compile:
        said.append("Ours with torch.compile; compiling is part of warming up.")
    if session.load_before is not None:
        said.append(f"Load of the machine before (one minute): {session.load_before:.1f}.")
    if short := [row.row.name for row in rows if row.rounds < 3]:
        said.append(f"Time was short: fewer than three rounds of {', '.join(short)}.")
    said += [f"{row.row.name}: {note}" for row in rows for note in row.notes]
    if any(row.goal is not None and not row.judged for row in rows):
        said.append(f"No verdicts: {why_not_judged(session.device)}.")
    by_way: dict[str, list[str]] = {}
    for row in rows:
        layout = "channels_last" if row.ours_channels_last else "NCHW"
        by_way.setdefault(f"{row.ours_precision} {layout}", []).append(row.row.name)
    computed = "; ".join(f"{way}: {', '.join(names)}" for way, names in by_way.items())
    return [*said, f"Ours computed in {computed}."]


def as_data(session: Session, rows: Sequence[RowMeasured]) -> dict[str, Any]:
    """Give everything that was measured as plain values."""
    return {
        "schema": SCHEMA,
        "machine": session.machine(),
        "rows": [_row_data(row) for row in rows],
        "notes": notes(session, rows),
    }


def _row_data(row: RowMeasured) -> dict[str, Any]:
    reference, ours = row.row.ways
    ways = {
        name: {
            "seconds": timing.seconds,
            "cpu_seconds": timing.cpu_seconds,
            "warm_up_seconds": timing.warm_up_seconds,
            "rounds": [asdict(one) for one in timing.measured],
            **row.efficiency[name],
            "ours_is_faster": None if name == ours else asdict(row.ratio(name)),
        }
        for name, timing in row.timings.items()
    }
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
        "ways": ways,
        "notes": list(row.notes),
    }


def markdown(session: Session, rows: Sequence[RowMeasured]) -> str:
    """Write both tables and the notes as a page."""
    faces = session.faces
    lines = [
        f"# Speed on {session.device.description}",
        "",
        f"{faces.name}{', drawn faces' if faces.drawn else ''}, {faces.image_px} px · "
        f"torch {session.machine()['torch']}",
        "",
        *_table(RATIO_HEADS, [ratio_cells(row) for row in rows]),
        "",
        *_table(WORK_HEADS, [cells for row in rows for cells in work_cells(row)]),
        "",
        *(f"- {note}" for note in notes(session, rows)),
    ]
    return "\n".join(lines) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *body]


def speed_figure(session: Session, rows: Sequence[RowMeasured]) -> Figure:
    """Draw a bar for each row on a logarithmic axis; a diamond is the goal, the line the spread."""
    figure = Figure(figsize=(9, 2.0 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    least, most = 1.0, 1.0
    for place, row in enumerate(rows):
        ratio, goal = row.ratio(), row.goal.at_least if row.goal else 1.0
        least, most = min(least, ratio.low), max(most, ratio.high, goal)
        colour = COLOURS["age_group"] if row.row.kind != "cost" else FAINT
        axes.barh(place, ratio.middle - 1, left=1, height=0.55, color=colour, alpha=0.75, zorder=2)
        axes.plot([ratio.low, ratio.high], [place, place], color=INK, linewidth=1.5, zorder=3)
        if row.goal is not None:
            face, edge = COLOURS["gender"] if row.judged else "white", COLOURS["gender"]
            axes.plot(goal, place, "D", mfc=face, mec=edge, ms=7, zorder=4)
        right = max(ratio.high, goal) * 1.12
        axes.text(right, place, ratio_text(ratio), va="center", size=9, color=INK)
    labels = ["{}\n{} images".format(*ratio_cells(row)[:2]) for row in rows]
    axes.set_yticks(range(len(rows)), labels, size=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(least * 0.8, most * 4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color=INK, linewidth=1)
    axes.grid(axis="x", color="#EEEEEE", zorder=0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    drawn = " (drawn faces)" if session.faces.drawn else ""
    where = f"{session.device.description}\n{session.faces.name}{drawn}"
    title = f"How many times faster than the loop it is compared with\n{where}"
    figure.suptitle(title, size=12, color=INK)
    axes.set_xlabel("bar: median · line: least to most · diamond: the goal, open if not judged")
    return figure
