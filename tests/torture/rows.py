"""What the torture prints: a line per fault, how often it was tried, survived and lost."""

import dataclasses
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHOWN = 5
"""Losses that are printed of each fault; the JSON has them all."""


@dataclass
class Row:
    """One fault: survived are the times when nothing was lost and a sentence said what happened."""

    fault: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of processor time, the children's too: a busy machine lengthens the others alone."""
    skipped: str = ""
    """Why it could not be tried on this machine."""

    @property
    def survived(self) -> int:
        """Times that nothing was lost."""
        return self.tried - len(self.lost)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Count one more trial, and a loss unless `holds`."""
        self.tried += 1
        if not holds:
            self.lost.append(otherwise)

    def as_dict(self) -> dict[str, object]:
        """Give it for the JSON."""
        return dataclasses.asdict(self) | {"survived": self.survived}


@dataclass(frozen=True)
class Room:
    """Where a fault is tried, and how thoroughly."""

    folder: Path
    """Its own, empty at first."""
    data_dir: Path
    """With 240 drawn faces of 32 px; not to be changed."""
    short: bool
    seed: int

    def times(self, thorough: int, short: int) -> int:
        """Choose how often something is tried."""
        return short if self.short else thorough


Fault = Callable[[Room], Row]


def tried(name: str, fault: Fault, room: Room) -> Row:
    """Try a fault and count what it takes; one that breaks the torture itself is lost."""
    started, cpu = time.monotonic(), _cpu_seconds()
    try:
        row = fault(room)
    except Exception as error:  # noqa: BLE001
        row = Row(name, tried=1, lost=[f"the torture broke: {type(error).__name__}: {error}"])
    row.seconds, row.cpu_seconds = time.monotonic() - started, _cpu_seconds() - cpu
    return row


def _cpu_seconds() -> float:
    """Count the processor time of this process and of children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out within 80 columns, losses beneath."""
    lines = [f"{'fault':<47}{'tried':>7}{'survived':>9}{'lost':>5}{'s':>6}{'cpu s':>6}"]
    for row in rows:
        if row.skipped:
            lines.append(f"{row.fault[:46]:<47}{'not tried: ' + row.skipped}")
            continue
        lines.append(_line(row.fault, row.tried, len(row.lost), row.seconds, row.cpu_seconds))
        lines += [f"    {row.note}"] if row.note else []
        lines += [f"    LOST: {loss}" for loss in row.lost[:SHOWN]]
    total, lost = sum(row.tried for row in rows), sum(len(row.lost) for row in rows)
    seconds, cpu = sum(row.seconds for row in rows), sum(row.cpu_seconds for row in rows)
    return "\n".join([*lines, _line("all", total, lost, seconds, cpu)])


def _line(name: str, n_tried: int, n_lost: int, seconds: float, cpu_seconds: float) -> str:
    return (
        f"{name[:46]:<47}{n_tried:>7,}{n_tried - n_lost:>9,}{n_lost:>5}"
        f"{seconds:>6.0f}{cpu_seconds:>6.0f}"
    )
