"""The torture: every fault is really made, and a table says what was lost. `make torture` calls it.

    python -m tests.torture [--short] [--only WORD] [--seed N] [--json FILE]

Exits 1 where anything was lost.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from tests.torture import crowd, disks, kills, numbers, records, searches, secrets, server, watched
from tests.torture.rows import Fault, Room, table, tried

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


def drawn_data(folder: Path) -> Path:
    """Make a data directory with 240 drawn faces of 32 px."""
    from benchmark.faces.choice import STORED_NAME
    from benchmark.faces.drawn import draw_faces
    from benchmark.faces.store import store_faces

    drawn = draw_faces(240, seed=3, image_px=32)
    store_faces(drawn.images, drawn.labels, name=STORED_NAME, data_dir=folder)
    return folder


def room_of(scratch: Path, data_dir: Path, name: str, *, short: bool, seed: int) -> Room:
    """Make the empty folder in which a fault is tried."""
    folder = scratch / name.replace(" ", "-")
    folder.mkdir()
    return Room(folder, data_dir, short, seed)


def main() -> None:
    """Read the options, try the faults, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the shortened one, for a first look")
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    scratch = Path(tempfile.mkdtemp(prefix="facebench-torture-"))
    data_dir = drawn_data(scratch / "data")
    chosen = [entry for entry in FAULTS if arguments.only in entry[0]]
    rows = []

    def room(name: str) -> Room:
        return room_of(scratch, data_dir, name, short=arguments.short, seed=arguments.seed)

    for row in tried(chosen, room):
        rows.append(row)
        lost = f"{len(row.lost)} LOST" if row.lost else row.skipped or "survived"
        print(f"{row.fault}: {lost} ({row.seconds:.0f} s)", file=sys.stderr, flush=True)
    print(table(rows))
    print(f"seed {arguments.seed}, {os.cpu_count()} cores, {platform.machine()}, "
          f"Python {platform.python_version()}{', short' if arguments.short else ''}")  # fmt: skip
    if arguments.json:
        content = [row.as_dict() for row in rows]
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if not arguments.keep:
        shutil.rmtree(scratch, ignore_errors=True)
    sys.exit(1 if any(row.lost for row in rows) else 0)


if __name__ == "__main__":
    main()
