"""A child that reads damaged files, one after another, and says of each how it ended.

    python -m tests.torture.fuzz pictures|archives|weights SEED COUNT SCRATCH

A line per file: `begin NUMBER`, then `end NUMBER CPU_SECONDS PEAK_MIB OUTCOME`. Outcomes are
`read`, `refused` or `broke` with what went wrong. Whoever started it watches the clock.
"""

import io
import random
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.errors import BenchmarkError
from tests.torture.archives import Files, damaged, encoded, some_faces, written

Read = Callable[[int, random.Random], object]
"""Make the damaged file of a number and read it; raise BenchmarkError where it is refused."""


def pictures(_scratch: Path) -> Read:
    """Read damaged JPEG, PNG, WebP, GIF, BMP and TIFF files as `data prepare` does."""
    from benchmark.data.pictures import read_picture, read_upright

    sound = sound_pictures()

    def read(number: int, rng: random.Random) -> object:
        content = damaged(sound[number % len(sound)], rng)
        if content.startswith(b"\x89PNG") and rng.random() < 0.5:
            content = with_sums(content)
        if rng.random() < 0.1:
            return read_upright(content)
        return read_picture(content, 100)

    return read


def sound_pictures() -> list[bytes]:
    """Encode one face in every way that we read."""
    image = next(iter(_drawn(120)))
    grey, palette = image[:, :, 0], image // 64 * 64
    alpha = np.dstack([image, np.full(image.shape[:2], 200, np.uint8)])
    deep = grey.astype(np.uint16) * 257
    return [
        encoded(image, "JPEG"),
        encoded(image, "JPEG", progressive=True, optimize=True),
        encoded(grey, "JPEG"),
        encoded(image, "PNG"),
        encoded(alpha, "PNG"),
        encoded(deep, "PNG"),
        encoded(grey > 99, "PNG"),
        encoded(image, "WEBP"),
        encoded(image, "WEBP", lossless=True),
        encoded(palette, "GIF"),
        encoded(image, "BMP"),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image, "TIFF", compression="jpeg"),
        encoded(image, "TIFF"),
    ]


def io_bytes(picture: Any, form: str) -> bytes:
    """Encode a picture of Pillow's."""
    stream = io.BytesIO()
    picture.save(stream, form)
    return stream.getvalue()


def _drawn(image_px: int) -> Any:
    from benchmark.data.drawn import draw_faces

    return draw_faces(1, seed=5, image_px=image_px).images


def with_sums(content: bytes) -> bytes:
    """Mend the check sums of a PNG, so that its damage gets as far as the decoder."""
    out, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        body = content[at + 4 : at + 8 + size]
        if at + 12 + size > len(content):
            break
        out += content[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + size
    return bytes(out + content[at:])


def archives(scratch: Path) -> Read:
    """Read damaged .tar, .tar.gz and .zip files to their ends, as `data prepare` does."""
    from benchmark.data.archive import open_source

    files: Files = some_faces(12)
    sound = [
        written(scratch / f"sound{ending}", files).read_bytes()
        for ending in (".tar", ".tar.gz", ".zip")
    ]

    def read(number: int, rng: random.Random) -> object:
        path = scratch / "damaged"
        path.write_bytes(damaged(sound[number % len(sound)], rng))
        source = open_source(path)
        paths = {member.path for member in source.members()}
        return sum(1 for _ in source.contents(paths))

    return read


def weights(scratch: Path) -> Read:
    """Read damaged weight files of every kind, as `weights add` does."""
    from benchmark.models.weight_readers import read_weight_file
    from tests.torture.weight_files import sound_weights

    sound = sound_weights(scratch)

    def read(number: int, rng: random.Random) -> object:
        name = list(sound)[number % len(sound)]
        path = scratch / f"damaged-{name}"
        path.write_bytes(damaged(sound[name], rng))
        return len(read_weight_file(path).tensors)

    return read


KINDS: dict[str, Callable[[Path], Read]] = {
    "pictures": pictures, "archives": archives, "weights": weights,
}  # fmt: skip


def outcome(read: Read, number: int, rng: random.Random) -> str:
    """Read one file and say how that ended."""
    try:
        read(number, rng)
    except BenchmarkError:
        return "refused"
    except BaseException as error:  # noqa: BLE001
        return f"broke {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return "read"


def peak_mib() -> float:
    """Give the most memory that this program held; `ru_maxrss` begins with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Read the files and say how it went."""
    kind, seed, count, scratch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    begin = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    read = KINDS[kind](scratch)
    from benchmark.data.pictures import pillow_quiet

    with pillow_quiet():
        for number in range(begin, count):
            print("begin", number, flush=True)
            started = time.process_time()
            ended = outcome(read, number, random.Random(seed * 1_000_003 + number))
            seconds = time.process_time() - started
            print("end", number, f"{seconds:.3f}", f"{peak_mib():.0f}", ended, flush=True)


if __name__ == "__main__":
    main()
