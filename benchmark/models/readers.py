"""Read a weight file's tensors under the file's own names, and as tensors only.

A pickle with code in it, or a function, is refused and never run. Which architecture the tensors
belong to is for benchmark.models.conversion.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.models.torch7 import HoldsCode, looks_like_torch7, read_torch7

NOT_LOADABLE: Final = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    OverflowError,
    RecursionError,
    zlib.error,
    struct.error,
    zipfile.BadZipFile,
)
"""What torch.load was seen to raise, or can, on bytes that are no whole state dict."""

MAX_EXPANSION: Final = 100
"""Times its size that a file may unpack to: trained weights hardly shrink."""

FETCH_AGAIN: Final = "Fetch it again: facebench weights list --json has the addresses"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors under the file's own names; its first bytes say what it is.

    HDF5 (Keras), torch zip or pickle (`weights_only`), safetensors, LuaTorch's .t7, bare or in a
    .tar.gz. Raise WeightsError for others.
    """
    start = _first_bytes(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return _read_keras(path)
    if start[8:9] == b"{":
        # Asked first: the length that stands before its header may look like a pickle's start.
        return _read_safetensors(path)
    if start.startswith(b"PK\x03\x04") or start[:1] == b"\x80":
        return _read_torch(path)
    if start.startswith(b"\x1f\x8b"):
        return _read_archive(path)
    if looks_like_torch7(start):
        return _read_torch7(path, path)
    kind = "an HTML page" if is_markup(start) else "no weight file"
    raise WeightsError(
        f"{path.name} is {kind if start else 'empty'}",
        allowed="Keras HDF5, torch's .pth or .pt, safetensors, LuaTorch's .t7",
        source=str(path),
        fix=FETCH_AGAIN,
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(512)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror or error})",
            allowed=".h5, .pth, .pt, .safetensors, .t7 or .tar.gz",
            fix="Give the path of a weight file",
        ) from None


def is_markup(start: bytes) -> bool:
    """Tell whether a file that begins so is a web page."""
    return start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))


def header_of(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file; empty for any other file, and where there are none.

    Only the header is read: a file cut short is found out, one with changed tensors is not.
    """
    if _first_bytes(path)[8:9] != b"{":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> WeightsError:
    """Say that a file is not whole, and why."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsError(
        f"{path.name} is damaged or cut short ({reason})", source=str(path), fix=FETCH_AGAIN
    )


def _holds_code(path: Path) -> WeightsError:
    return WeightsError(
        f"{path.name} holds code or objects besides tensors, which are never loaded",
        allowed="a state dict of tensors",
        source=str(path),
        fix="Fetch the published file, or save only model.state_dict() where you trust it",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, *NOT_LOADABLE) as error:
        raise damaged(path, error) from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what does not load is refused
            _refuse_bomb(path)
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise _holds_code(path) from None
    except NOT_LOADABLE as error:
        raise damaged(path, error) from None
    plain = isinstance(found, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    )
    if not plain:
        raise WeightsError(
            f"{path.name} holds {type(found).__name__} of more than tensors",
            allowed="a state dict: tensor names and tensors",
            source=str(path),
        )
    return dict(found)


def _refuse_bomb(path: Path) -> None:
    """Refuse a torch zip that is said to unpack to far more than it is."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > MAX_EXPANSION * path.stat().st_size:
        message = f"it unpacks to {unpacked:,} bytes"
        raise ValueError(message)


def _read_keras(path: Path) -> dict[str, Tensor]:
    """Read each layer's kernel as `layer:kernel`, turned from HWIO to OIHW, and its `layer:bias`.

    Layout of Keras 1 and 2's save_weights: attribute `layer_names`, a group per layer with an
    attribute `weight_names`, data sets under those names. A dense kernel, (in, out) over cells of
    which the channel comes last, keeps the file's name: no trunk has one.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            return dict(_keras_tensors(root, path.stat().st_size))
    except NOT_LOADABLE as error:
        raise damaged(path, error) from None


def _keras_tensors(root: Any, n_bytes: int) -> Iterator[tuple[str, Tensor]]:
    for layer in _texts(root.attrs["layer_names"]):
        for name in _texts(root[layer].attrs["weight_names"]):
            values = torch.from_numpy(np.asarray(_own(root[layer], name, n_bytes)))
            if values.ndim == 4:
                yield f"{layer}:kernel", values.permute(3, 2, 0, 1)
            else:
                yield f"{layer}:{'bias' if values.ndim == 1 else name}", values


def _own(layer: Any, name: str, n_bytes: int) -> Any:
    """Give a data set that the file itself holds; `n_bytes` is the file's size.

    HDF5 can name values in other files, and say of a few bytes that they are a million times as
    many: neither is how weights are published.
    """
    link = layer.get(name, getlink=True)
    values = layer[name]
    foreign = isinstance(link, h5py.ExternalLink) or values.external or values.is_virtual
    if foreign or values.nbytes > MAX_EXPANSION * n_bytes:
        what = "lies in another file" if foreign else f"is said to have {values.nbytes:,} bytes"
        message = f"{name} {what}"
        raise ValueError(message)
    return values


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _read_torch7(path: Path, shown: Path) -> dict[str, Tensor]:
    """Read LuaTorch's file; `shown` is what a person knows it as."""
    try:
        return read_torch7(path)
    except HoldsCode:
        raise _holds_code(shown) from None
    except NOT_LOADABLE as error:
        raise damaged(shown, error) from None


def _read_archive(path: Path) -> dict[str, Tensor]:
    """Read the one .t7 file in a .tar.gz, as Oxford publishes it; unpacked to a temporary file."""
    try:
        with tarfile.open(path, "r:gz") as archive, tempfile.TemporaryDirectory() as folder:
            for member in archive:
                if member.isreg() and member.name.endswith(".t7"):
                    if member.size > MAX_EXPANSION * path.stat().st_size:
                        raise damaged(path, ValueError(f"{member.size:,} bytes unpacked"))
                    unpacked = Path(folder) / "network.t7"
                    with unpacked.open("wb") as target:
                        shutil.copyfileobj(_opened(archive, member), target)
                    return _read_torch7(unpacked, path)
    except (tarfile.TarError, *NOT_LOADABLE) as error:
        raise damaged(path, error) from None
    raise WeightsError(
        f"{path.name} is an archive without weights", allowed="a .tar.gz with a .t7 file in it",
        source=str(path), fix=FETCH_AGAIN,
    )  # fmt: skip


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    stream = archive.extractfile(member)
    assert stream is not None  # a regular file, as was asked before
    return stream


def read_json(text: str) -> Any:
    """Read a header's JSON; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None
