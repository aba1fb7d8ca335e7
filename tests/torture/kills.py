"""Killed with -9 at random moments, and the same command again."""

import random
import subprocess
import time
from pathlib import Path

from benchmark.data.dataset import open_faces
from benchmark.errors import DataError
from tests.torture import archives
from tests.torture.command import (
    EXPERIMENTS,
    Said,
    half_written,
    kill,
    outcomes,
    run,
    run_arguments,
    start,
)
from tests.torture.mirrored import missing_in_mlflow
from tests.torture.rows import Room, Row

KILLS_PER_ROUND = 5
"""Before a suite is left in peace to its end, so that some are killed while they go on."""


def killed_runs(room: Room) -> Row:
    """Kill a suite at random moments; it must end as one that nobody disturbed."""
    row = Row("kill -9 of a suite, then the same command")
    names = EXPERIMENTS[:1] if room.short else EXPERIMENTS
    tracking = "files" if room.short else "mlflow"
    arguments = {
        which: run_arguments(room, room.folder / which, names, tracking=tracking)
        for which in ("undisturbed", "first", *map(str, range(100)))
    }
    whole = run(arguments["undisturbed"])
    row.expect(whole.code == 0, f"undisturbed: {whole.tail()}")
    wanted = outcomes(room.folder / "undisturbed")
    rng, n_kills, round_ = random.Random(room.seed), 0, 0
    while n_kills < room.times(30, 1):
        here, last = room.folder / str(round_), None
        for _ in range(min(KILLS_PER_ROUND, room.times(30, 1) - n_kills)):
            last = _killed(arguments[str(round_)], rng.uniform(0.2, 1.0) * whole.seconds)
            if last is not None:
                break
            n_kills += 1
            wrong = half_written(here)
            row.expect(not wrong, f"kill {n_kills} left half a file: {wrong}")
        last = last or run(arguments[str(round_)])
        row.expect(last.code == 0, f"round {round_}: {last.tail()}")
        row.expect(outcomes(here) == wanted, f"round {round_} ended otherwise than undisturbed")
        if tracking == "mlflow":
            missing = missing_in_mlflow(here)
            row.expect(not missing, f"round {round_}, MLflow: {missing[:3]}")
        round_ += 1
    row.note = (
        f"{n_kills} kills over {round_} rounds of {len(names)} experiments; weights, predictions, "
        "metrics equal"
    )
    return row


def _killed(arguments: list[str], seconds: float) -> Said | None:
    """Start a command and kill it after a while; tell how it ended if it was done before."""
    process, started = start(arguments), time.monotonic()
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        return None
    return Said(process.returncode, out, err, time.monotonic() - started)


def killed_preparation(room: Room) -> Row:
    """Kill `data prepare` at random moments: the data set is whole or not there."""
    row = Row("kill -9 of data prepare")
    source = archives.written(room.folder / "faces.tar", archives.some_faces(room.times(400, 60)))
    data_dir = room.folder / "data"
    command = ["data", "prepare", str(source), "--data-dir", str(data_dir), "--image-px", "32",
               "--name", "faces-32"]  # fmt: skip
    whole = run([*command[:-1], "reference"])
    row.expect(whole.code == 0, f"undisturbed: {whole.tail()}")
    wanted = open_faces(data_dir / "reference")
    rng = random.Random(room.seed)
    for _ in range(room.times(10, 1)):
        process = start(command)
        time.sleep(rng.uniform(0.3, 1.0) * whole.seconds)
        kill(process)
        row.expect(*_whole_or_absent(data_dir / "faces-32"))
    last = run(command)
    made = open_faces(data_dir / "faces-32")
    row.expect(made.pixel_digest == wanted.pixel_digest, f"other pixels: {last.tail()}")
    left = [path.name for path in data_dir.glob(".*.partial")]
    row.expect(not left, f"left behind: {left}")
    return row


def _whole_or_absent(folder: Path) -> tuple[bool, str]:
    if not folder.exists():
        return True, ""
    try:
        open_faces(folder)
    except DataError as error:
        return False, f"half a data set is taken for one: {error}"
    return True, ""
