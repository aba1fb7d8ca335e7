"""The torture, shortened: every kind of fault that can be made in a few seconds."""

from pathlib import Path

import pytest

from tests.torture import crowd, kills, records, watched
from tests.torture.rows import Fault, Room, Row, table, tried

ALWAYS: tuple[Fault, ...] = (kills.killed_runs, watched.damaged_archives)
SLOW: tuple[Fault, ...] = (
    crowd.stale_claim,
    watched.damaged_pictures,
    watched.huge_pictures,
    watched.hostile_archives,
    watched.damaged_weights,
    watched.hostile_weights,
    records.damaged_records,
)


def room(folder: Path, data_dir: Path) -> Room:
    return Room(folder, data_dir, short=True, seed=20)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "fault",
    [*ALWAYS, *(pytest.param(fault, marks=pytest.mark.slow) for fault in SLOW)],
    ids=lambda fault: fault.__name__,
)
def test_nothing_is_lost(fault: Fault, tmp_path: Path, drawn_data_dir: Path) -> None:
    row = fault(room(tmp_path, drawn_data_dir))
    assert row.tried > 0
    assert not row.lost


def test_a_loss_is_counted_and_shown() -> None:
    row = Row("a fault")
    row.expect(True, "never said")
    row.expect(False, "a byte is missing")
    assert (row.tried, row.survived) == (2, 1)
    shown = table([row])
    assert "LOST: a byte is missing" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_torture_that_breaks_counts_as_a_loss(tmp_path: Path) -> None:
    def broken(_room: Room) -> Row:
        raise ValueError("no tools")

    row = tried("broken", broken, room(tmp_path, tmp_path))
    assert row.lost == ["the torture broke: ValueError: no tools"]
