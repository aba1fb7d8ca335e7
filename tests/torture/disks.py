"""A disk that fills up, a folder that may not be written to, a data set that is gone."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmark.data.sample import STORED_NAME
from benchmark.record import all_records
from tests.torture.command import (
    ENTRY,
    EXPERIMENTS,
    half_written,
    outcomes,
    run,
    run_arguments,
    said,
    start,
    wait_for,
)
from tests.torture.mirrored import missing_in_mlflow
from tests.torture.rows import Room, Row

RUNS_FAILED = 3
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({n}, {n})); " + ENTRY


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[bool]:
    """Mount a small disk of memory, where we may; yield whether it is one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def full_disk(room: Room) -> Row:
    """Fill the disk that runs are on at several moments; then make room and run again."""
    row = Row("full disk")
    names = EXPERIMENTS[:2]
    with small_disk(room.folder / "disk", 64) as is_disk:
        if not is_disk:
            return _limited_files(room, row)
        for mib_left in (0.2, 1.0, 2.0, 4.0)[: room.times(4, 1)]:
            # Each in a folder of its own: MLflow's client keeps a store open by its address, and
            # would go on reading the one that was removed.
            runs_dir = room.folder / "disk" / f"runs-{mib_left}"
            arguments = run_arguments(room, runs_dir, names, epochs=3)
            ballast = room.folder / "disk" / "ballast"
            _fill(ballast, mib_left)
            full = run(arguments)
            row.expect(full.code == RUNS_FAILED and full.is_clear, full.tail())
            row.expect("No space left" in full.err, f"not said: {full.tail()}")
            row.expect(not (wrong := half_written(runs_dir)), f"half a file: {wrong}")
            ballast.unlink()
            row.expect(*_mended(arguments, runs_dir, len(names)))
            row.expect(not (missing := missing_in_mlflow(runs_dir)), f"MLflow: {missing[:3]}")
            shutil.rmtree(runs_dir)
    return row


def _fill(ballast: Path, mib_left: float) -> None:
    free = shutil.disk_usage(ballast.parent).free
    with ballast.open("wb") as stream:
        for _ in range(int((free - mib_left * 2**20) / 4096)):
            stream.write(bytes(4096))


def _limited_files(room: Room, row: Row) -> Row:
    """Without leave to mount a disk: a limit on the size of files fails a write in the middle."""
    row.note = "by a limit on file sizes, as no disk may be mounted here"
    for n_bytes in (20_000, 60_000, 200_000, 400_000)[: room.times(4, 1)]:
        runs_dir = room.folder / str(n_bytes)
        arguments = run_arguments(room, runs_dir, EXPERIMENTS[:1], epochs=2, tracking="files")
        full = run(arguments, entry=LIMITED.format(n=n_bytes))
        row.expect(full.code == RUNS_FAILED and full.is_clear, full.tail())
        row.expect("File too large" in full.err, f"not said: {full.tail()}")
        row.expect(*_mended(arguments, runs_dir, 1))
    return row


def _mended(arguments: list[str], runs_dir: Path, n_runs: int) -> tuple[bool, str]:
    again = run(arguments)
    done = [record for record in all_records(runs_dir) if record.state == "done"]
    return again.code == 0 and len(done) == n_runs, f"with room again: {again.tail()}"


def full_disk_of_data(room: Room) -> Row:
    """Fill the disk that a data set is prepared on: a sentence, and nothing half-made."""
    from tests.torture import archives

    row = Row("full disk under data prepare")
    source = archives.written(room.folder / "faces.tar", archives.some_faces(200))
    with small_disk(room.folder / "disk", 2) as is_disk:
        if not is_disk:
            row.skipped = "no disk may be mounted here"
            return row
        data_dir = room.folder / "disk" / "data"
        command = ["data", "prepare", str(source), "--data-dir", str(data_dir)]
        full = run(command)
        row.expect(full.code == 2 and full.is_clear and "disk is full" in full.err, full.tail())
        left = [path.name for path in data_dir.glob("*")] + list(data_dir.glob(".*.partial"))
        row.expect(not left, f"left behind: {left}")
    return row


def read_only(room: Room) -> Row:
    """Take the right to write away, before a run and in the middle of one."""
    row = Row("read-only directory")
    before = room.folder / "before"
    before.mkdir()
    arguments = run_arguments(room, before, EXPERIMENTS[:1], epochs=2, tracking="files")
    with _locked(before) as is_locked:
        if not is_locked:
            row.skipped = "this user may write everywhere"
            return row
        end = run(arguments)
        row.expect(end.code != 0 and end.is_clear, end.tail())
    row.expect(*_mended(arguments, before, 1))
    middle = room.folder / "middle"
    arguments = run_arguments(room, middle, EXPERIMENTS[:1], epochs=40, tracking="files")
    process, started = start(arguments), time.monotonic()
    wait_for(lambda: bool(list(middle.glob("work/*/checkpoint.pt"))), process)
    with _locked(next(middle.glob("work/*"))):
        end = said(process, started)
        row.expect(end.code == RUNS_FAILED and end.is_clear, end.tail())
    row.expect(not half_written(middle), "half a file")
    row.expect(*_mended(arguments, middle, 1))
    return row


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Forbid writing in a folder: by its mode, and to root, who may all, by its immutable flag."""
    if os.geteuid() != 0:
        mode = folder.stat().st_mode
        folder.chmod(0o555)
        try:
            yield True
        finally:
            folder.chmod(mode)
        return
    changed = subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False)
    try:
        yield changed.returncode == 0
    finally:
        subprocess.run(["chattr", "-i", str(folder)], capture_output=True, check=False)


def vanished_faces(room: Room) -> Row:
    """Remove the data set in the middle of a run: a sentence, and all goes on once it is back."""
    row = Row("vanished data set")
    for number in range(room.times(2, 1)):
        data_dir = Path(shutil.copytree(room.data_dir, room.folder / f"data{number}"))
        runs_dir = room.folder / f"runs{number}"
        here = Room(room.folder, data_dir, room.short, room.seed)
        arguments = run_arguments(here, runs_dir, EXPERIMENTS[:2], epochs=20, tracking="files")
        process, started = start(arguments), time.monotonic()
        wait_for(lambda at=runs_dir: bool(list(at.glob("work/*/history.csv"))), process)
        data_dir.rename(room.folder / "away")
        end = said(process, started)
        row.expect(end.code == RUNS_FAILED and end.is_clear, end.tail())
        (room.folder / "away").rename(data_dir)
        row.expect(*_mended(arguments, runs_dir, 2))
        row.expect(all(outcomes(runs_dir).values()), "a run is not done")
        shutil.rmtree(data_dir)
        absent = run([*arguments, "--seeds", "1", "--dataset", STORED_NAME])
        row.expect(absent.code == 2 and absent.is_clear, f"before a run: {absent.tail()}")
    return row
