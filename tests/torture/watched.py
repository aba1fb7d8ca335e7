"""Thousands of damaged files, read by children whose clock and memory are watched."""

import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from benchmark.data.archive import open_source
from benchmark.data.pictures import pillow_quiet, read_picture
from benchmark.errors import BenchmarkError, WeightsError
from benchmark.models.weight_readers import read_weight_file
from tests.torture import archives, fuzz, weight_files
from tests.torture.command import ROOT, environment
from tests.torture.rows import Room, Row

HANG_SECONDS = 5.0
"""Of processor time for one file."""
SILENCE_SECONDS = 120.0
"""By the clock, for a machine that is busy with other work; then the child is taken for hung."""
MOST_MIB = 1024
"""Peak memory of a child, its libraries included; torch alone takes 300."""


def damaged_pictures(room: Room) -> Row:
    """Read damaged pictures in six formats."""
    row = Row("damaged pictures in six formats")
    return _fuzzed(room, row, "pictures", room.times(10_000, 150))


def damaged_archives(room: Room) -> Row:
    """Read damaged archives of three kinds."""
    row = Row("damaged archives (tar, tar.gz, zip)")
    return _fuzzed(room, row, "archives", room.times(1_000, 45))


def damaged_weights(room: Room) -> Row:
    """Read damaged weight files of five kinds."""
    row = Row("damaged weight files (safetensors, pth, h5, …)")
    return _fuzzed(room, row, "weights", room.times(1_000, 50))


def _fuzzed(room: Room, row: Row, kind: str, count: int) -> Row:
    """Read damaged files in children, or where there are few in this very process."""
    ends: Counter[str] = Counter()
    if room.short:
        read = fuzz.KINDS[kind](room.folder)
        with pillow_quiet():
            for number in range(count):
                ended = fuzz.outcome(read, number, random.Random(room.seed * 1_000_003 + number))
                ends[ended.split()[0]] += 1
                row.expect(not ended.startswith("broke"), f"file {number}: {ended}")
    else:
        begin, slowest, most = 0, 0.0, 0.0
        while begin < count:
            begin, seconds, mib = _child(room, row, kind, begin, count, ends)
            slowest, most = max(slowest, seconds), max(most, mib)
        row.expect(most < MOST_MIB, f"{most:.0f} MiB were taken")
        row.note = f"slowest {slowest:.2f} s of processor time, peak {most:.0f} MiB; "
    row.note += ", ".join(f"{ends[end]:,} {end}" for end in ("read", "refused"))
    return row


def _child(
    room: Room, row: Row, kind: str, begin: int, count: int, ends: Counter[str]
) -> tuple[int, float, float]:
    """Let a child read on from a number; give where the next one begins, and the worst it took."""
    scratch = Path(tempfile.mkdtemp(dir=room.folder))
    arguments = [kind, str(room.seed), str(count), str(scratch), str(begin)]
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.fuzz", *arguments],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_hear, args=(child, lines), daemon=True).start()
    slowest, most, current = 0.0, 0.0, begin
    try:
        while line := lines.get(timeout=SILENCE_SECONDS):
            word, number, *rest = line.split(maxsplit=4)
            current = int(number)
            if word == "end":
                slowest, most = max(slowest, float(rest[0])), max(most, float(rest[1]))
                ended = rest[2].strip()
                ends[ended.split()[0]] += 1
                slow = float(rest[0]) > HANG_SECONDS
                row.expect(
                    not (slow or ended.startswith("broke")),
                    f"file {number}: {'took ' + rest[0] + ' s' if slow else ended}",
                )
        if child.wait() != 0 or current + 1 < count:
            row.expect(False, f"file {current} ended the process (code {child.returncode})")
    except queue.Empty:
        row.expect(False, f"file {current} was not answered within {SILENCE_SECONDS:.0f} s")
    finally:
        child.kill()
        child.wait()
        shutil.rmtree(scratch, ignore_errors=True)
    return current + 1, slowest, most


def _hear(child: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    assert child.stdout is not None, "opened as a pipe"
    for line in child.stdout:
        lines.put(line)
    lines.put("")


def hostile_archives(room: Room) -> Row:
    """Archives that somebody made on purpose: each is refused as a whole, and none takes long."""
    row = Row("hostile archives (../, links, devices, bombs)")
    slow = ("tar.gz: 8 GiB of zeros", "zip: many zeros")
    for name, make in archives.HOSTILE.items():
        if room.short and name in slow:
            continue
        path = make(room.folder)
        ended = fuzz.outcome(lambda _, __, at=path: _read_archive(at), 0, random.Random(0))
        row.expect(ended == "refused", f"{name} was {ended}")
        path.unlink()
    return row


def _read_archive(path: Path) -> int:
    source = open_source(path)
    return sum(1 for _ in source.contents({member.path for member in source.members()}))


def huge_pictures(room: Room) -> Row:
    """Pictures whose headers say 30,000 × 30,000: refused by the header, before any pixel."""
    row = Row("pictures of 30,000 × 30,000")
    with pillow_quiet():
        for name, content in huge(whole=not room.short).items():
            try:
                read_picture(content, 100)
                row.expect(False, f"{name} was read")
            except BenchmarkError as error:
                row.expect("pixels" in str(error), f"{name}: {error}")
    return row


def huge(*, whole: bool) -> dict[str, bytes]:
    """Give headers that claim 30,000 pixels a side (WebP: 16,383, the most it can).

    whole: with a picture that really has so many, which takes seconds to make.
    """
    from PIL import Image

    def put(form: str, before: bytes, after: bytes, size: tuple[int, int] = (31, 17)) -> bytes:
        content = archives.encoded(archives.np.zeros((*size[::-1], 3), "uint8"), form)
        assert before in content[:400], f"{form} has its size elsewhere"
        return content.replace(before, after, 1)

    side = 30_000
    really = (
        {"PNG, a whole one": fuzz.io_bytes(Image.new("1", (side, side)), "PNG")} if whole else {}
    )
    return really | {
        "PNG": fuzz.with_sums(
            put(
                "PNG", (31).to_bytes(4, "big") + (17).to_bytes(4, "big"),
                side.to_bytes(4, "big") * 2,
            )
        ),
        "JPEG": put(
            "JPEG", (17).to_bytes(2, "big") + (31).to_bytes(2, "big"), side.to_bytes(2, "big") * 2
        ),
        "BMP": put(
            "BMP", (31).to_bytes(4, "little") + (17).to_bytes(4, "little"),
            side.to_bytes(4, "little") * 2,
        ),
        "GIF": put(
            "GIF", (31).to_bytes(2, "little") + (17).to_bytes(2, "little"),
            side.to_bytes(2, "little") * 2,
        ),
        "WebP": put(
            "WEBP", (31).to_bytes(2, "little") + (17).to_bytes(2, "little"),
            (16_383).to_bytes(2, "little") * 2,
        ),
    }  # fmt: skip


def hostile_weights(room: Room) -> Row:
    """Weight files with code in them, wrong sizes, lying headers: refused, nothing is run."""
    row = Row("hostile weight files (code, lies, bombs)")
    for name, (file, make) in weight_files.HOSTILE.items():
        path = room.folder / file
        path.write_bytes(make(room.folder))
        try:
            read_weight_file(path)
            row.expect(False, f"{name} was read")
        except WeightsError as error:
            row.expect(str(path.name) in str(error), f"{name}: {error}")
    row.expect(not (room.folder / "harm-done").exists(), "code of a weight file was run")
    return row
