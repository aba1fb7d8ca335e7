"""The torture: every fault is really made, and a table says what was lost. `make torture` calls it.

    python -m tests.torture [--short] [--only WORD] [--seed N] [--jobs N] [--json FILE]

Faults are tried a few at a time, the longest first, each in a folder of its own. Exits 1 where
anything was lost.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.torture import crowd, disks, kills, numbers, records, searches, secrets, server, watched
from tests.torture.rows import Fault, Room, Row, table, tried

FAULTS: tuple[tuple[str, Fault], ...] = (
    ("killed runs", kills.killed_runs),
    ("killed preparation", kills.killed_preparation),
    ("crowd", crowd.four_at_once),
    ("stale claims", crowd.stale_claim),
    ("full disk", disks.full_disk),
    ("full disk of data", disks.full_disk_of_data),
    ("read-only", disks.read_only),
    ("vanished faces", disks.vanished_faces),
    ("lost server", server.lost_server),
    ("bad loss", numbers.bad_loss),
    ("no memory", numbers.no_memory),
    ("same twice", numbers.same_twice),
    ("damaged records", records.damaged_records),
    ("damaged tables", records.damaged_tables),
    ("damaged checkpoint", records.damaged_checkpoint),
    ("damaged cache", records.damaged_cache),
    ("damaged store", records.damaged_store),
    ("damaged recipes", searches.damaged_recipes),
    ("damaged journal", searches.damaged_journal),
    ("damaged pictures", watched.damaged_pictures),
    ("huge pictures", watched.huge_pictures),
    ("damaged archives", watched.damaged_archives),
    ("hostile archives", watched.hostile_archives),
    ("damaged weights", watched.damaged_weights),
    ("hostile weights", watched.hostile_weights),
    ("calls", secrets.calls),
    ("secrets", secrets.secrets),
    ("privacy", secrets.privacy),
)
LONGEST_FIRST = ("killed runs", "lost server", "crowd", "damaged pictures", "bad loss", "no memory")
"""So that no core has nothing to do while the other is at the last of them."""


def drawn_data(folder: Path) -> Path:
    """Make a data directory with 240 drawn faces of 32 px."""
    from benchmark.data.dataset import store_faces
    from benchmark.data.drawn import draw_faces
    from benchmark.data.sample import STORED_NAME

    drawn = draw_faces(240, seed=3, image_px=32)
    store_faces(drawn.images, drawn.labels, name=STORED_NAME, data_dir=folder)
    return folder


def room_of(scratch: Path, data_dir: Path, name: str, *, short: bool, seed: int) -> Room:
    """Make the empty folder in which a fault is tried."""
    folder = scratch / name.replace(" ", "-")
    folder.mkdir()
    return Room(folder, data_dir, short, seed)


def all_tried(
    faults: Sequence[tuple[str, Fault]], rooms: Sequence[Room], jobs: int
) -> Iterator[tuple[int, Row]]:
    """Try all faults, in processes of their own, and give each row with its place in the list."""
    order = sorted(
        range(len(faults)),
        key=lambda place: (
            LONGEST_FIRST.index(faults[place][0])
            if faults[place][0] in LONGEST_FIRST
            else len(LONGEST_FIRST) + place
        ),
    )
    # Started afresh and not forked: libraries hold threads and locks.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=fresh) as pool:
        begun = {pool.submit(tried, *faults[place], rooms[place]): place for place in order}
        for ended in as_completed(begun):
            yield begun[ended], ended.result()


def main() -> None:
    """Read the options, try the faults, print the table."""
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the shortened one, for a first look")
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=min(2, cores), help="faults at a time")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="facebench-torture-"))
    data_dir = drawn_data(scratch / "data")
    chosen = [entry for entry in FAULTS if arguments.only in entry[0]]
    rooms = [
        room_of(scratch, data_dir, name, short=arguments.short, seed=arguments.seed)
        for name, _ in chosen
    ]
    found: dict[int, Row] = {}
    for place, row in all_tried(chosen, rooms, arguments.jobs):
        found[place] = row
        lost = f"{len(row.lost)} LOST" if row.lost else row.skipped or "survived"
        print(f"{row.fault}: {lost} ({row.seconds:.0f} s)", file=sys.stderr, flush=True)
    rows = [found[place] for place in sorted(found)]
    print(table(rows))
    print(f"{time.monotonic() - started:.0f} s by the clock, {arguments.jobs} at a time, seed "
          f"{arguments.seed}{', short' if arguments.short else ''}; {cores} cores, "
          f"{platform.machine()}, Python {platform.python_version()}")  # fmt: skip
    if arguments.json:
        content = [row.as_dict() for row in rows]
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if not arguments.keep:
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(1 if any(row.lost for row in rows) else 0)


if __name__ == "__main__":
    main()
