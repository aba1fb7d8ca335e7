"""Damaged and hostile files are read or refused with a sentence; nothing else happens."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from benchmark.data.archive import open_source
from benchmark.data.drawn import draw_faces
from benchmark.data.pictures import Picture, decode
from benchmark.errors import BenchmarkError, DataError, WeightsError
from benchmark.models.weight_formats import read_weight_file
from tests.data.sources import encoded, faces, tar_of, zip_of

Files = Callable[[Path], dict[str, bytes]]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Damage a file as a bad disk, a broken transfer or a fuzzer does; never gives it unchanged.

    One to sixteen flips, overwrites, cuts, gaps, insertions and repetitions, half of them in the
    first 256 bytes, where headers are.
    """
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 256)
        at, size = rng.randrange(max(1, end)), rng.choice((1, 4, 64, 512))
        piece, noise = changed[at : at + size], rng.randbytes(size)
        flip = 1, bytes(byte ^ 1 << rng.randrange(8) for byte in piece[:1])
        over = size, rng.choice((bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * size, noise))
        cut, gap, insert = (len(changed), b""), (size, b""), (0, noise)
        repeat = 0, piece * rng.choice((1, 2, 8))
        gone, put = rng.choice((flip, flip, over, over, cut, gap, insert, repeat))
        changed[at : at + gone] = put
    return bytes(changed) if changed != content else bytes(changed) + b"\0"


def read_archive(path: Path) -> int:
    source = open_source(path)
    return sum(1 for _ in source.contents({member.path for member in source.members()}))


def read_picture_file(path: Path) -> object:
    """Read a picture; half of the PNGs get right checksums, so that damage reaches the decoder."""
    content = path.read_bytes()
    if content.startswith(b"\x89PNG") and len(content) % 2:
        content = with_checksums(content)
    if not isinstance(found := decode(100, content)[1], Picture):
        raise DataError(found)
    return found


def with_checksums(content: bytes) -> bytes:
    out, at = bytearray(content[:8]), 8
    while at + 12 + (size := int.from_bytes(content[at : at + 4], "big")) <= len(content):
        body = content[at + 4 : at + 8 + size]
        out += content[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + size
    return bytes(out + content[at:])


def archives(folder: Path) -> dict[str, bytes]:
    paths = (tar_of(folder / "a.tar", faces(12)), tar_of(folder / "a.tar.gz", faces(12)))
    return {path.name: path.read_bytes() for path in (*paths, zip_of(folder / "a.zip", faces(12)))}


def pictures(_folder: Path) -> dict[str, bytes]:
    pixels = draw_faces(1, seed=5, image_px=120).images[0]
    image, grey = Image.fromarray(pixels), pixels[:, :, 0]
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    clear = Image.fromarray(np.dstack([pixels, np.full(grey.shape, 200, np.uint8)]))
    return {
        "0.jpg": encoded(image), "1.jpg": encoded(image, progressive=True, optimize=True),
        "2.png": encoded(image, "PNG"), "3.png": encoded(clear, "PNG"),
        "4.png": encoded(Image.fromarray(grey > 99), "PNG"), "5.png": encoded(deep, "PNG"),
        "6.webp": encoded(image, "WEBP"), "7.gif": encoded(image, "GIF"),
        "8.bmp": encoded(image, "BMP"), "9.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "10.tif": encoded(image, "TIFF", compression="jpeg"),
    }  # fmt: skip


def weights(folder: Path) -> dict[str, bytes]:
    tensors = {"features.0.weight": torch.ones(8, 3, 3, 3), "features.0.bias": torch.zeros(8)}
    old = io.BytesIO()
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    keras = keras_file(folder / "sound.h5", lambda group: group.create_dataset(
        "kernel", data=np.ones((3, 3, 3, 8), np.float32)))  # fmt: skip
    return {"weights.safetensors": save(tensors), "weights.pth": torch_file(tensors),
            "weights-old.pth": old.getvalue(), "weights.h5": keras}  # fmt: skip


@pytest.mark.parametrize(
    ("intact_files", "read", "count"),
    [
        (archives, read_archive, 45),
        pytest.param(pictures, read_picture_file, 300, marks=pytest.mark.slow),
        pytest.param(weights, read_weight_file, 100, marks=pytest.mark.slow),
    ],
)
def test_damaged_files_are_read_or_refused(
    intact_files: Files, read: Callable[[Path], object], count: int, tmp_path: Path
) -> None:
    intact, refused = list(intact_files(tmp_path).items()), 0
    for number in range(count):
        name, content = intact[number % len(intact)]
        path = tmp_path / f"damaged-{name}"
        path.write_bytes(damaged(content, random.Random(20_000_060 + number)))
        try:
            read(path)
        except BenchmarkError:
            refused += 1
    assert refused > count / 4


def torch_file(
    tensors: object, change: Callable[[str, bytes], bytes] = lambda _, content: content,
    how: int = zipfile.ZIP_STORED,
) -> bytes:  # fmt: skip
    """Make a torch file whose records are changed."""
    stream, out = io.BytesIO(), io.BytesIO()
    torch.save(tensors, stream)
    source = zipfile.ZipFile(stream)
    with zipfile.ZipFile(out, "w", how) as target:
        for info in source.infolist():
            target.writestr(info.filename, change(info.filename, source.read(info)))
    return out.getvalue()


def keras_file(path: Path, fill: Callable[[h5py.Group], object]) -> bytes:
    """Make a file of one layer as Keras names it and its weights."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        group = file.create_group("conv1")
        group.attrs["weight_names"] = [b"kernel"]
        fill(group)
    return path.read_bytes()


@pytest.mark.slow
def test_hostile_weight_files_are_refused_by_name(tmp_path: Path) -> None:
    one, other = {"weight": torch.zeros(4)}, tmp_path / "other"
    header = b'{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones(4, np.float32)
    many = b"\x8a\x06\x00\x00\x00\x00\x00\x01"

    def external(group: h5py.Group) -> None:
        group.create_dataset("kernel", (16,), np.uint8, external=[("/etc/passwd", 0, 16)])

    def linked(group: h5py.Group) -> None:
        group["kernel"] = h5py.ExternalLink(str(other), "secret")

    hostile = {
        "header of 2^60 bytes.safetensors": struct.pack("<Q", 1 << 60) + b"{}",
        "tensor beyond the end.safetensors": struct.pack("<Q", len(header)) + header + b"12",
        "tensor of 2^40 values.pt": torch_file(one, lambda _, of: of.replace(b"K\x04", many)),
        "record that unpacks to 64 MB.pt": torch_file(
            one, lambda name, of: bytes(1 << 26) if name.endswith("data/0") else of,
            zipfile.ZIP_DEFLATED,
        ),
        "a TiB that is not there.h5": keras_file(
            tmp_path / "made", lambda group: group.create_dataset(
                "kernel", (1 << 19, 1 << 19), np.float32, chunks=(64, 64))),
        "values out of another file.h5": keras_file(tmp_path / "made", external),
        "link to another file.h5": keras_file(tmp_path / "made", linked),
    }  # fmt: skip
    for name, content in hostile.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=name.replace("^", r"\^")):
            read_weight_file(tmp_path / name)
