"""What was measured, as tables of text, as a picture, and as plain values with every number."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmark.evaluation.figures import COLOURS, FAINT, INK
from benchmark.speed.measure import SpeedSession
from benchmark.speed.rows import why_not_judged

RowData = Mapping[str, Any]
"""A row as speed.json has it."""
NOTHING: Final = "–"
SCHEMA: Final = 1
RATIO_HEADS: Final = ("what", "images", "other, s", "ours, s", "ratio (low–high)", "CPU", "goal")
WORK_HEADS: Final = ("what", "loop", "seconds", "TFLOP/s", "roofline", "ours faster by")


def ratio_text(ratio: Mapping[str, float]) -> str:
    """Write a ratio with its spread over the rounds."""
    return f"{_times(ratio['middle'])}× ({_times(ratio['low'])}–{_times(ratio['high'])})"


def _times(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def ratio_cells(row: RowData) -> tuple[str, ...]:
    """Give a row of the first table, under RATIO_HEADS."""
    goal = NOTHING
    if row["goal"] is not None:
        aim = "" if row["goal"]["aim"] is None else f", aim {row['goal']['aim']:g}×"
        verdict = f": {row['verdict']}" if row["verdict"] else ""
        goal = f"≥ {row['goal']['at_least']:g}×{aim}{verdict}"
    return (
        row["title"],
        f"{row['images']:,}" + (f" × {row['epochs']}" if row["epochs"] > 1 else ""),
        *(_seconds(row["ways"][row[which]]["seconds"]) for which in ("reference", "ours")),
        ratio_text(row["ratio"]),
        f"{_times(row['cpu_ratio'])}×",
        goal,
    )


def work_cells(row: RowData) -> list[tuple[str, ...]]:
    """Give the rows of the second table, a loop each, under WORK_HEADS."""
    return [
        (
            row["name"],
            name,
            _seconds(loop["seconds"]),
            NOTHING if loop["tflops"] is None else f"{loop['tflops']:.3g}",
            f"{100 * loop['of_roofline']:.0f} %",
            NOTHING if loop["ours_is_faster"] is None else ratio_text(loop["ours_is_faster"]),
        )
        for name, loop in row["ways"].items()
    ]


def notes(session: SpeedSession, rows: Sequence[RowData]) -> list[str]:
    """Say how the tables are to be read."""
    machine = session.machine()
    peaks = ", ".join(f"{n} {value:.3g} TFLOP/s" for n, value in machine["peak_tflops"].items())
    said = [
        f"The other loop is the plain one: {machine['plain']}. For --deterministic it is the exact "
        "mode.",
        "Seconds are medians of the rounds, all loops in turns in one process; a ratio is the "
        "median of the rounds' ratios, with the least and the most. CPU: the ratio of processor "
        "seconds, workers included. Warming up is apart: --json has it.",
        "An epoch trains on the images and validates on an eighth as many. A run trains all its "
        "epochs from fresh weights; ours computes the frozen part inside and keeps it on the disk.",
        f"Peaks measured here: {peaks}; a copy moves {machine['copy_gb_per_second']:.1f} GB/s, "
        "read and written. Roofline: the least seconds at these peaks over the measured ones.",
    ]
    if session.options.compile:
        said.append("Ours with torch.compile; compiling is part of warming up.")
    if session.load_before is not None:
        said.append(f"Load of the machine before (one minute): {session.load_before:.1f}.")
    if short := [row["name"] for row in rows if row["rounds"] < 3]:
        said.append(f"Time was short: fewer than three rounds of {', '.join(short)}.")
    said += [f"{row['name']}: {note}" for row in rows for note in row["notes"]]
    if any(row["goal"] and not row["verdict"] for row in rows):
        said.append(f"No verdicts: {why_not_judged(session.device)}.")
    by_arithmetic: dict[str, list[str]] = {}
    for row in rows:
        layout = "channels_last" if row["channels_last"] else "NCHW"
        by_arithmetic.setdefault(f"{row['precision']} {layout}", []).append(row["name"])
    computed = "; ".join(f"{word}: {', '.join(names)}" for word, names in by_arithmetic.items())
    return [*said, f"Ours computed in {computed}."]


def as_data(session: SpeedSession, rows: Sequence[RowData]) -> dict[str, Any]:
    """Give everything that was measured as plain values."""
    machine, said = session.machine(), notes(session, rows)
    return {"schema": SCHEMA, "machine": machine, "rows": list(rows), "notes": said}


def markdown(session: SpeedSession, rows: Sequence[RowData]) -> str:
    """Write both tables and the notes as a page."""
    faces = session.faces
    tables = (
        (RATIO_HEADS, [ratio_cells(row) for row in rows]),
        (WORK_HEADS, [cells for row in rows for cells in work_cells(row)]),
    )
    lines = [
        f"# Speed on {session.device.description}",
        "",
        f"{faces.name}{', synthetic faces' if faces.drawn else ''}, {faces.image_px} px · "
        f"torch {session.machine()['torch']}",
    ]
    for heads, body in tables:
        lines += ["", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        lines += [f"| {' | '.join(cells)} |" for cells in body]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(session, rows))]) + "\n"


def speed_figure(session: SpeedSession, rows: Sequence[RowData]) -> Figure:
    """Draw a bar for each row on a logarithmic axis; a diamond is the goal, the line the spread."""
    figure = Figure(figsize=(9, 2.0 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    ends = [1.0]
    for place, row in enumerate(rows):
        ratio, goal = row["ratio"], (row["goal"] or {"at_least": 1.0})["at_least"]
        ends += [ratio["low"], ratio["high"], goal]
        colour = COLOURS["age_group"] if row["reference"] == "plain" else FAINT
        bar: dict[str, Any] = {"height": 0.55, "color": colour, "alpha": 0.75, "zorder": 2}
        axes.barh(place, ratio["middle"] - 1, left=1, **bar)
        axes.plot([ratio["low"], ratio["high"]], [place] * 2, color=INK, linewidth=1.5, zorder=3)
        if row["goal"]:
            face, edge = COLOURS["gender"] if row["verdict"] else "white", COLOURS["gender"]
            axes.plot(goal, place, "D", mfc=face, mec=edge, ms=7, zorder=4)
        right = max(ratio["high"], goal) * 1.12
        axes.text(right, place, ratio_text(ratio), va="center", size=9, color=INK)
    labels = ["{}\n{} images".format(*ratio_cells(row)[:2]) for row in rows]
    axes.set_yticks(range(len(rows)), labels, size=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(0.8 * min(ends), 4 * max(ends))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color=INK, linewidth=1)
    axes.grid(axis="x", color="#EEEEEE", zorder=0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    synthetic = " (synthetic faces)" if session.faces.drawn else ""
    where = f"{session.device.description}\n{session.faces.name}{synthetic}"
    title = f"How many times faster than the loop it is compared with\n{where}"
    figure.suptitle(title, size=12, color=INK)
    axes.set_xlabel("bar: median · line: least to most · diamond: the goal, open if not judged")
    return figure
