"""Damaged and hostile files are read or refused with a sentence; nothing else happens."""

import random
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.data.archive import open_source
from benchmark.data.drawn import draw_faces
from benchmark.data.pictures import pillow_quiet, read_picture
from benchmark.errors import BenchmarkError, WeightsError
from benchmark.models.weight_formats import read_weight_file
from tests.faults import hostile
from tests.faults.hostile import damaged, encoded

Read = Callable[[int, random.Random], object]


def read_archive(path: Path) -> int:
    source = open_source(path)
    return sum(1 for _ in source.contents({member.path for member in source.members()}))


def pictures(_folder: Path) -> Read:
    """Damage JPEG, PNG, WebP, GIF, BMP and TIFF files; half of the PNGs get right checksums, so
    that the damage reaches the decoder."""
    image = draw_faces(1, seed=5, image_px=120).images[0]
    alpha = np.dstack([image, np.full(image.shape[:2], 200, np.uint8)])
    intact = [
        encoded(image, "JPEG"), encoded(image, "JPEG", progressive=True, optimize=True),
        encoded(image, "PNG"), encoded(alpha, "PNG"), encoded(image[:, :, 0] > 99, "PNG"),
        encoded(image[:, :, 0].astype(np.uint16) * 257, "PNG"), encoded(image, "WEBP"),
        encoded(image // 64 * 64, "GIF"), encoded(image, "BMP"),
        encoded(image, "TIFF", compression="tiff_lzw"), encoded(image, "TIFF", compression="jpeg"),
    ]  # fmt: skip

    def read(number: int, rng: random.Random) -> object:
        content = damaged(intact[number % len(intact)], rng)
        if content.startswith(b"\x89PNG") and rng.random() < 0.5:
            content = with_checksums(content)
        return read_picture(content, 100)

    return read


def with_checksums(content: bytes) -> bytes:
    out, at = bytearray(content[:8]), 8
    while at + 12 + (size := int.from_bytes(content[at : at + 4], "big")) <= len(content):
        body = content[at + 4 : at + 8 + size]
        out += content[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + size
    return bytes(out + content[at:])


def archives(folder: Path) -> Read:
    files = hostile.some_faces(12)
    paths = (folder / f"intact{ending}" for ending in (".tar", ".tar.gz", ".zip"))
    intact = [hostile.written(path, files).read_bytes() for path in paths]

    def read(number: int, rng: random.Random) -> object:
        (folder / "damaged").write_bytes(damaged(intact[number % len(intact)], rng))
        return read_archive(folder / "damaged")

    return read


def weights(folder: Path) -> Read:
    intact = hostile.sound_weights(folder)

    def read(number: int, rng: random.Random) -> object:
        name = list(intact)[number % len(intact)]
        path = folder / f"damaged-{name}"
        path.write_bytes(damaged(intact[name], rng))
        return read_weight_file(path)

    return read


@pytest.mark.parametrize(
    ("kind", "count"),
    [(archives, 45), pytest.param(pictures, 300, marks=pytest.mark.slow),
     pytest.param(weights, 100, marks=pytest.mark.slow)],
)  # fmt: skip
def test_damaged_files_are_read_or_refused(
    kind: Callable[[Path], Read], count: int, tmp_path: Path
) -> None:
    read, refused = kind(tmp_path), 0
    with pillow_quiet():
        for number in range(count):
            try:
                read(number, random.Random(20_000_060 + number))
            except BenchmarkError:
                refused += 1
    assert refused > count / 4


@pytest.mark.slow
def test_a_zip_whose_members_are_all_the_same_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError):
        read_archive(hostile.overlapping_zip(tmp_path / "overlap.zip", 2000))


@pytest.mark.slow
def test_hostile_weight_files_are_refused_by_name(tmp_path: Path) -> None:
    for file, make in hostile.WEIGHTS.values():
        (tmp_path / file).write_bytes(make(tmp_path))
        with pytest.raises(WeightsError, match=file):
            read_weight_file(tmp_path / file)
