"""Weight files: sound ones to be damaged, and ones that were made to do harm."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.torch import save


def sound_weights(scratch: Path) -> dict[str, bytes]:
    """Make a small file of every kind that we read."""
    tensors = {"features.0.weight": torch.ones(8, 3, 3, 3), "features.0.bias": torch.zeros(8)}
    zipped, pickled = io.BytesIO(), io.BytesIO()
    torch.save(tensors, zipped)
    torch.save(tensors, pickled, _use_new_zipfile_serialization=False)
    path = scratch / "sound.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
        group = file.create_group("conv1")
        group.attrs["weight_names"] = [b"kernel", b"bias"]
        group["kernel"] = np.ones((3, 3, 3, 8), np.float32)
        group["bias"] = np.zeros(8, np.float32)
    return {
        "weights.safetensors": save(tensors),
        "weights.pth": zipped.getvalue(),
        "weights-old.pth": pickled.getvalue(),
        "weights.h5": path.read_bytes(),
    }


class Harm:
    """Unpickled, it would make a folder; `path` tells afterwards whether it did."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def _pickled_code(at: Path) -> bytes:
    return pickle.dumps({"weight": Harm(at / "harm-done")})


def _zipped_code(at: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"weight": Harm(at / "harm-done")}, stream)
    return stream.getvalue()


def _lying_safetensors(header: dict[str, Any], body: bytes = b"") -> Callable[[Path], bytes]:
    text = json.dumps(header).encode()
    return lambda _: struct.pack("<Q", len(text)) + text + body


def _huge_zip_record(_at: Path) -> bytes:
    """A torch file whose tensor is said to have 2^40 values."""
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, stream)
    source = zipfile.ZipFile(stream)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith("data.pkl"):
                content = content.replace(b"K\x04", b"\x8a\x06\x00\x00\x00\x00\x00\x01")
            target.writestr(info.filename, content)
    return out.getvalue()


def _compressed_zeros(_at: Path) -> bytes:
    """A torch file of a few dozen KB whose record unpacks to 64 MB."""
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(4)}, stream)
    source = zipfile.ZipFile(stream)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            tensor = info.filename.endswith("data/0")
            target.writestr(info.filename, bytes(1 << 26) if tensor else source.read(info))
    return out.getvalue()


def _keras(change: Callable[[h5py.Group, Path], None]) -> Callable[[Path], bytes]:
    def make(at: Path) -> bytes:
        path = at / "hostile-source.h5"
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"conv1"]
            group = file.create_group("conv1")
            group.attrs["weight_names"] = [b"kernel"]
            change(group, at)
        return path.read_bytes()

    return make


def _tebibytes(group: h5py.Group, _at: Path) -> None:
    group.create_dataset("kernel", (1 << 19, 1 << 19), np.float32, chunks=(64, 64))


def _other_file(group: h5py.Group, _at: Path) -> None:
    group.create_dataset("kernel", (16,), np.uint8, external=[("/etc/passwd", 0, 16)])


def _linked_file(group: h5py.Group, at: Path) -> None:
    other = at / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones(4, np.float32)
    group["kernel"] = h5py.ExternalLink(str(other), "secret")


HOSTILE: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "pickle with code": ("code.pth", _pickled_code),
    "torch zip with code": ("code.pt", _zipped_code),
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
    "torch: tensor of 2^40 values": ("huge.pt", _huge_zip_record),
    "torch: record that unpacks to 64 MB": ("bomb.pt", _compressed_zeros),
    "HDF5: a TiB that is not there": ("tib.h5", _keras(_tebibytes)),
    "HDF5: values out of another file": ("external.h5", _keras(_other_file)),
    "HDF5: link to another file": ("link.h5", _keras(_linked_file)),
    "HTML": ("page.pth", lambda _: b"<!DOCTYPE html><html>not found</html>"),
    "nothing": ("empty.pth", lambda _: b""),
}  # fmt: skip
"""Every one of them must be refused with a WeightsError."""
