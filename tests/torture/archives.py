"""Archives of drawn faces, sound ones and ones that somebody made on purpose."""

import gzip
import io
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.data.drawn import draw_faces

Files = dict[str, bytes]


def some_faces(n_faces: int, image_px: int = 32) -> Files:
    """Draw faces and name them as UTKFace does."""
    drawn = draw_faces(n_faces, seed=11, image_px=image_px)
    files = {}
    for row, (_, face) in enumerate(drawn.labels.iterrows()):
        name = f"{face['age']}_{face['gender']}_{face['race']}_2017010913{row:07}.jpg"
        files[f"UTKFace/{name}"] = encoded(drawn.images[row], "JPEG")
    return files


def encoded(pixels: np.ndarray, form: str, **options: object) -> bytes:
    """Encode a picture."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def written(path: Path, files: Files) -> Path:
    """Write a .tar, .tar.gz or .zip, by the ending of its name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    mode = "w:gz" if path.suffix == ".gz" else "w"
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _tar_member(path: Path, **fields: object) -> Path:
    """Write a tar with one sound face and one member of another kind."""
    written(path, some_faces(1))
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("UTKFace/odd.jpg")
        for name, value in fields.items():
            setattr(info, name, value)
        tar.addfile(info)
    return path


def _zip_member(path: Path, name: str, mode: int = 0) -> Path:
    written(path, some_faces(1))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, b"content")
    return path


def _zeros_tar_gz(path: Path, gib: int) -> Path:
    """A bomb: a few MB that unpack to GiB of zeros, in one member."""
    info = tarfile.TarInfo("UTKFace/1_0_0_20170109130000000.jpg")
    info.size = gib << 30
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(info.tobuf())
        for _ in range(gib << 6):
            stream.write(bytes(1 << 24))
        stream.write(bytes(1024))
    return path


def _many_zeros_zip(path: Path, n_members: int) -> Path:
    """A bomb of members that each are just small enough to be read."""
    zeros = bytes(63 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(n_members):
            archive.writestr(f"1_0_0_2017010913{number:07}.jpg", zeros)
    return path


def _overlapping_zip(path: Path, n_members: int) -> Path:
    """A bomb whose members all are the same bytes: the directory names one place many times."""
    written(path, {"1_0_0_20170109130000000.jpg": bytes(32 << 20)})
    content = path.read_bytes()
    start = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    entry = content[start:end]
    directory = entry * n_members
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, n_members, n_members, len(directory),
                       start, 0)  # fmt: skip
    path.write_bytes(content[:start] + directory + tail)
    return path


def _encrypted_zip(path: Path) -> Path:
    written(path, some_faces(1))
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    return path


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "tar: ../": lambda at: _tar_member(at / "up.tar", name="../../etc/cron.d/1_0_0_1.jpg"),
    "tar: absolute": lambda at: _tar_member(at / "root.tar", name="/etc/1_0_0_1.jpg"),
    "tar: symbolic link": lambda at: _tar_member(
        at / "soft.tar", type=tarfile.SYMTYPE, linkname="/etc/passwd"
    ),
    "tar: hard link": lambda at: _tar_member(
        at / "hard.tar", type=tarfile.LNKTYPE, linkname="/etc/passwd"
    ),
    "tar: device": lambda at: _tar_member(at / "dev.tar", type=tarfile.BLKTYPE),
    "tar: pipe": lambda at: _tar_member(at / "pipe.tar", type=tarfile.FIFOTYPE),
    "tar.gz: 8 GiB of zeros": lambda at: _zeros_tar_gz(at / "bomb.tar.gz", 8),
    "zip: ../": lambda at: _zip_member(at / "up.zip", "../1_0_0_1.jpg"),
    "zip: backslashes": lambda at: _zip_member(at / "slash.zip", "..\\..\\1_0_0_1.jpg"),
    "zip: drive": lambda at: _zip_member(at / "drive.zip", "C:/1_0_0_1.jpg"),
    "zip: absolute": lambda at: _zip_member(at / "root.zip", "/tmp/1_0_0_1.jpg"),
    "zip: link": lambda at: _zip_member(at / "link.zip", "1_0_0_1.jpg", 0o120777),
    "zip: many zeros": lambda at: _many_zeros_zip(at / "bomb.zip", 60),
    "zip: overlapping": lambda at: _overlapping_zip(at / "overlap.zip", 2000),
    "zip: encrypted": lambda at: _encrypted_zip(at / "locked.zip"),
}
"""Every one of them must be refused as a whole."""


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Damage a file as a bad disk, a broken transfer or a fuzzer does; never gives it unchanged."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        _DAMAGE[rng.randrange(len(_DAMAGE))](changed, rng)
    return bytes(changed) if changed != content else bytes(changed) + b"\0"


def _place(content: bytearray, rng: random.Random) -> int:
    """Choose a place, half of the time where headers are."""
    end = len(content) if rng.random() < 0.5 else min(len(content), 256)
    return rng.randrange(max(1, end))


def _flip(content: bytearray, rng: random.Random) -> None:
    if content:
        content[_place(content, rng) % len(content)] ^= 1 << rng.randrange(8)


def _overwrite(content: bytearray, rng: random.Random) -> None:
    at, size = _place(content, rng), rng.choice((1, 2, 4, 8, 32))
    content[at : at + size] = rng.choice(
        (bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), rng.randbytes(size))
    )


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[_place(content, rng) :]


def _leave_out(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    del content[at : at + rng.choice((1, 4, 64, 512))]


def _insert(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    content[at:at] = rng.randbytes(rng.choice((1, 4, 64, 512)))


def _repeat(content: bytearray, rng: random.Random) -> None:
    at, size = _place(content, rng), rng.choice((4, 64, 512, 4096))
    content[at:at] = content[at : at + size] * rng.choice((1, 2, 8))


_DAMAGE = (_flip, _flip, _overwrite, _overwrite, _cut, _leave_out, _insert, _repeat)
