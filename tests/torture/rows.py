"""What the torture prints: a line per fault, how often it was tried, survived and lost."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
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


def tried(faults: Sequence[tuple[str, Fault]], rooms: Callable[[str], Room]) -> Iterator[Row]:
    """Try one fault after another; one that breaks the torture itself is lost."""
    for name, fault in faults:
        started = time.monotonic()
        try:
            row = fault(rooms(name))
        except Exception as error:  # noqa: BLE001
            row = Row(name, tried=1, lost=[f"the torture broke: {type(error).__name__}: {error}"])
        row.seconds = time.monotonic() - started
        yield row


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out within 80 columns, losses beneath."""
    lines = [f"{'fault':<49}{'tried':>7}{'survived':>9}{'lost':>6}{'s':>7}"]
    for row in rows:
        if row.skipped:
            lines.append(f"{row.fault[:48]:<49}{'not tried: ' + row.skipped}")
            continue
        lines.append(
            f"{row.fault[:48]:<49}{row.tried:>7,}{row.survived:>9,}{len(row.lost):>6}"
            f"{row.seconds:>7.0f}"
        )
        lines += [f"    {row.note}"] if row.note else []
        lines += [f"    LOST: {loss}" for loss in row.lost[:SHOWN]]
    total = sum(row.tried for row in rows)
    lost = sum(len(row.lost) for row in rows)
    lines.append(f"{'all':<49}{total:>7,}{total - lost:>9,}{lost:>6}"
                 f"{sum(row.seconds for row in rows):>7.0f}")  # fmt: skip
    return "\n".join(lines)
