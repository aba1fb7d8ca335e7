"""Archives and weight files: intact ones to be damaged, and ones that were made to do harm."""

import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

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


def overlapping_zip(path: Path, n_members: int) -> Path:
    """A bomb whose members all are the same bytes: the directory names one place many times."""
    written(path, {"1_0_0_20170109130000000.jpg": bytes(32 << 20)})
    content = path.read_bytes()
    start, end = content.rindex(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    directory = content[start:end] * n_members
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, n_members, n_members, len(directory),
                       start, 0)  # fmt: skip
    path.write_bytes(content[:start] + directory + tail)
    return path


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Damage a file as a bad disk, a broken transfer or a fuzzer does; never gives it unchanged.

    One to sixteen flips, overwrites, cuts, gaps, insertions and repetitions, half of them in the
    first 256 bytes, where headers are.
    """
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 256)
        at, size = rng.randrange(max(1, end)), rng.choice((1, 4, 64, 512))
        kind = rng.choice(("flip", "flip", "over", "over", "cut", "gap", "insert", "repeat"))
        if kind == "flip" and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == "over":
            changed[at : at + size] = rng.choice(
                (bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), rng.randbytes(size))
            )
        elif kind in ("cut", "gap"):
            del changed[at : len(changed) if kind == "cut" else at + size]
        elif kind == "insert":
            changed[at:at] = rng.randbytes(size)
        elif kind == "repeat":
            changed[at:at] = changed[at : at + size] * rng.choice((1, 2, 8))
    return bytes(changed) if changed != content else bytes(changed) + b"\0"


def sound_weights(scratch: Path) -> dict[str, bytes]:
    """Make a small file of every kind that we read."""
    tensors = {"features.0.weight": torch.ones(8, 3, 3, 3), "features.0.bias": torch.zeros(8)}
    zipped, pickled = io.BytesIO(), io.BytesIO()
    torch.save(tensors, zipped)
    torch.save(tensors, pickled, _use_new_zipfile_serialization=False)
    path = scratch / "sound.h5"
    with h5py.File(path, "w") as file:
        group = _conv1(file, b"kernel", b"bias")
        group["kernel"] = np.ones((3, 3, 3, 8), np.float32)
        group["bias"] = np.zeros(8, np.float32)
    return {
        "weights.safetensors": save(tensors), "weights.pth": zipped.getvalue(),
        "weights-old.pth": pickled.getvalue(), "weights.h5": path.read_bytes(),
    }  # fmt: skip


def _lying_safetensors(header: dict[str, Any], body: bytes = b"") -> Callable[[Path], bytes]:
    text = json.dumps(header).encode()
    return lambda _: struct.pack("<Q", len(text)) + text + body


def _torch_file(change: Callable[[str, bytes], bytes], how: int) -> bytes:
    stream, out = io.BytesIO(), io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, stream)
    source = zipfile.ZipFile(stream)
    with zipfile.ZipFile(out, "w", how) as target:
        for info in source.infolist():
            target.writestr(info.filename, change(info.filename, source.read(info)))
    return out.getvalue()


def _huge_tensor(_at: Path) -> bytes:
    """A torch file whose tensor is said to have 2^40 values."""
    many = b"\x8a\x06\x00\x00\x00\x00\x00\x01"
    return _torch_file(
        lambda name, of: of.replace(b"K\x04", many) if name.endswith("data.pkl") else of,
        zipfile.ZIP_STORED,
    )


def _compressed_zeros(_at: Path) -> bytes:
    """A torch file of a few dozen KB whose record unpacks to 64 MB."""
    return _torch_file(
        lambda name, of: bytes(1 << 26) if name.endswith("data/0") else of, zipfile.ZIP_DEFLATED
    )


def _keras(change: Callable[[h5py.Group, Path], None]) -> Callable[[Path], bytes]:
    def make(at: Path) -> bytes:
        path = at / "hostile-source.h5"
        with h5py.File(path, "w") as file:
            change(_conv1(file, b"kernel"), at)
        return path.read_bytes()

    return make


def _conv1(file: h5py.File, *names: bytes) -> h5py.Group:
    """Make the group of a layer as Keras names it and its weights."""
    file.attrs["layer_names"] = [b"conv1"]
    group = file.create_group("conv1")
    group.attrs["weight_names"] = list(names)
    return group


def _tebibytes(group: h5py.Group, _at: Path) -> None:
    group.create_dataset("kernel", (1 << 19, 1 << 19), np.float32, chunks=(64, 64))


def _other_file(group: h5py.Group, _at: Path) -> None:
    group.create_dataset("kernel", (16,), np.uint8, external=[("/etc/passwd", 0, 16)])


def _linked_file(group: h5py.Group, at: Path) -> None:
    other = at / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones(4, np.float32)
    group["kernel"] = h5py.ExternalLink(str(other), "secret")


WEIGHTS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "safetensors: header of 2^60 bytes": (
        "long.safetensors", lambda _: struct.pack("<Q", 1 << 60) + b"{}",
    ),
    "safetensors: tensor beyond the end": (
        "beyond.safetensors",
        _lying_safetensors({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"12"),
    ),
    "safetensors: shape of 2^62 values": (
        "shape.safetensors",
        _lying_safetensors(
            {"w": {"dtype": "F32", "shape": [1 << 31, 1 << 31], "data_offsets": [0, 4]}}, b"1234"
        ),
    ),
    "torch: tensor of 2^40 values": ("huge.pt", _huge_tensor),
    "torch: record that unpacks to 64 MB": ("bomb.pt", _compressed_zeros),
    "HDF5: a TiB that is not there": ("tib.h5", _keras(_tebibytes)),
    "HDF5: values out of another file": ("external.h5", _keras(_other_file)),
    "HDF5: link to another file": ("link.h5", _keras(_linked_file)),
}  # fmt: skip
"""Every one of them must be refused with a WeightsError."""
