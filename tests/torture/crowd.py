"""Several processes on one suite, one store and one data directory, from nothing."""

import time

from benchmark.record import all_records
from tests.torture.command import EXPERIMENTS, kill, outcomes, run, run_arguments, said, start
from tests.torture.mirrored import missing_in_mlflow
from tests.torture.rows import Room, Row

SKIPPED = "needed nothing"


def four_at_once(room: Room) -> Row:
    """Four processes run the same suite: each experiment once, nothing locked, nothing lost."""
    row = Row("four processes on one suite and one store")
    names = EXPERIMENTS[: room.times(3, 1)]
    tracking = "files" if room.short else "mlflow"
    empty = Room(room.folder, room.folder / "data", room.short, room.seed)
    arguments = run_arguments(empty, room.folder / "runs", names, tracking=tracking)
    arguments += ["--dataset", "drawn"]
    for _ in range(room.times(2, 1)):
        started = time.monotonic()
        ends = [said(process, started) for process in [start(arguments) for _ in range(4)]]
        for end in ends:
            row.expect(end.code == 0 and end.is_clear, end.tail())
            row.expect("locked" not in end.err, f"a lock was met: {end.tail()}")
    # Whoever met a claim left the run to its holder, so that nothing is left undone.
    last = run(arguments)
    row.expect(f"{len(names)} {SKIPPED}" in last.err, f"not done yet: {last.tail()}")
    attempts = [int(record.about["attempt"]) for record in all_records(room.folder / "runs")]
    row.expect(attempts == [1] * len(names), f"attempts {attempts}")
    begun = sum(end.err.count(f"{name}, seed 0[") for end in ends for name in names)
    row.expect(begun <= len(names), f"{begun} began")
    if tracking == "mlflow":
        missing = missing_in_mlflow(room.folder / "runs")
        row.expect(not missing, f"MLflow: {missing[:3]}")
    return row


def stale_claim(room: Room) -> Row:
    """A killed process's claim, and one that names a process that never was, are taken over."""
    row = Row("claims of the dead")
    runs_dir = room.folder / "runs"
    arguments = run_arguments(room, runs_dir, EXPERIMENTS[:1], epochs=2, tracking="files")
    process = start(arguments)
    while not list(runs_dir.glob("work/*/claim")) and process.poll() is None:
        time.sleep(0.01)
    kill(process)
    claim = next(runs_dir.glob("work/*/claim"))
    claim.write_text('{"pid": 999999, "since": 0}', encoding="utf-8")
    end = run(arguments)
    row.expect(end.code == 0 and "1 finished" in end.err, end.tail())
    row.expect(all(bool(of) for of in outcomes(runs_dir).values()), "the run is not done")
    return row
