"""From a weight file to its tensors, under the file's own names and as tensors only.

Reads Keras's HDF5, torch's zip and pickle, and safetensors, also as training scripts wrap them. A
pickle with code in it is refused and never run; other known formats are refused by name. Which
architecture the tensors belong to is for benchmark.models.weight_formats.
"""

import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

import h5py
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from benchmark.errors import WeightsError

NOT_LOADABLE: Final = (
    SafetensorError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError,
    AttributeError, AssertionError, MemoryError, OverflowError, RecursionError, zlib.error,
    struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What readers were seen to raise, or can, on bytes that are no whole state dict."""

MAX_EXPANSION: Final = 100
"""Times its size that a file may unpack to: trained weights hardly shrink."""

FETCH_AGAIN: Final = "Fetch it again: facebench weights list --json has the addresses"
READ: Final = "Keras HDF5 (.h5), torch's .pth or .pt, safetensors"
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_ZIP: Final = b"PK\x03\x04"

STATE_DICTS: Final = (
    "state_dict", "model_state_dict", "model", "net", "network", "model_ema", "state_dict_ema",
    "ema",
)  # fmt: skip
"""Where training scripts keep the tensors in a checkpoint, the first to be taken first."""

_SAVE_STATE_DICT: Final = "torch.save(model.state_dict(), 'weights.pth')"
_SAVE_H5: Final = "model.save('weights.h5') in Keras, which writes its older HDF5 layout"
_WHERE_TRUSTED: Final = "Where you trust it: model = torch.{}.load(FILE), then " + _SAVE_STATE_DICT
_NOT_READ: Final = {
    "keras3": ("a Keras 3 file", f"Load it with keras.saving.load_model, then {_SAVE_H5}"),
    "keras3_weights": (
        "a Keras 3 weight file, which names layers by number",
        f"Build the model, model.load_weights(FILE), then {_SAVE_H5}",
    ),
    "torchscript": ("a TorchScript program", _WHERE_TRUSTED.format("jit")),
    "exported": ("a program of torch.export", _WHERE_TRUSTED.format("export")),
    "onnx": ("an ONNX graph", "In the PyTorch code that it was exported from: " + _SAVE_STATE_DICT),
    "savedmodel": ("a TensorFlow SavedModel", f"Load it with Keras, then {_SAVE_H5}"),
    "tflite": ("a TensorFlow Lite model", f"In the Keras code that it was made with: {_SAVE_H5}"),
    "numpy": ("numpy arrays", "safetensors.numpy.save_file(dict(numpy.load(FILE)), TARGET)"),
    "archive": ("a .tar.gz archive", "Unpack it, and add the weight file that is in it"),
    "torch7": (
        "a LuaTorch file",
        "Of VGG Face two other files are read: facebench weights list --architecture vgg16",
    ),
}
"""Formats that are known and not read: what they are, and how to get a file that is read."""


@dataclass(frozen=True)
class FileTensors:
    """The tensors of a file, and which of its entries they are."""

    tensors: dict[str, Tensor]
    entry: str = ""
    """The key of a checkpoint under which they were; empty where the file is a state dict."""
    left: tuple[str, ...] = ()
    """Keys of the checkpoint's other entries."""


def read_weight_file(path: Path) -> FileTensors:
    """Read a file's tensors, and which of its entries they are; its first bytes say what it is.

    Raise WeightsError for a file without tensors, or in a format that is not read.
    """
    start = _first_bytes(path)
    if kind := _format_not_read(path, start):
        what, fix = _NOT_READ[kind]
        raise WeightsError(
            f"{path.name} is {what}, which is not read", allowed=READ, source=str(path), fix=fix
        )
    try:
        if start.startswith(_HDF5):
            with h5py.File(path, "r") as file:
                root = file.get("model_weights", file)
                return FileTensors(dict(_keras_tensors(root, path.stat().st_size)))
        # Before pickles: the length that stands before the header may look like a pickle's start.
        if start[8:9] == b"{":
            return FileTensors(load_file(path))
        if start.startswith((_ZIP, b"\x80")):
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of pickle protocols: what does not load is refused
                _refuse_bomb(path)
                found = torch.load(path, map_location="cpu", weights_only=True)
            return _unwrapped(path, found)
    except pickle.UnpicklingError as error:
        names = re.findall(r"(?:GLOBAL|global|class) `?([\w.]+)", str(error))
        named = f" ({names[0]})" if names and "." in names[0] else ""
        raise WeightsError(
            f"{path.name} holds code or objects besides tensors{named}, which are never loaded",
            allowed="a state dict of tensors",
            source=str(path),
            fix="Fetch the published file, or save only model.state_dict() where you trust it",
        ) from None
    except NOT_LOADABLE as error:
        raise damaged(path, error) from None
    kind = "an HTML page" if is_markup(start) else "no weight file"
    raise WeightsError(
        f"{path.name} is {kind if start else 'empty'}",
        allowed=READ,
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
            allowed=READ,
            fix="Give the path of a weight file",
        ) from None


def is_markup(start: bytes) -> bool:
    """Tell whether a file that begins so is a web page."""
    return start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))


def _format_not_read(path: Path, start: bytes) -> str:
    """Name the known format of a file that is not read, a key of _NOT_READ; empty for others."""
    if start.startswith(b"\x93NUMPY"):
        return "numpy"
    if start[4:8] == b"TFL3":
        return "tflite"
    if start.startswith(b"\x1f\x8b"):
        return "archive"
    if path.suffix == ".t7":
        return "torch7"
    # Protocol buffers: field 1 is ONNX's version of its format, from 3 on, or SavedModel's, 1.
    if start[:3] == b"\x08\x01\x12":
        return "savedmodel"
    if start[:1] == b"\x08" and start[1:2] >= b"\x03" and start[2:3] in (b"\x12", b":", b"B"):
        return "onnx"
    try:
        if start.startswith(_ZIP) and zipfile.is_zipfile(path):
            return _zip_not_read(path)
        if start.startswith(_HDF5):
            with h5py.File(path, "r") as file:
                older = "layer_names" in file.get("model_weights", file).attrs
                return "keras3_weights" if "layers" in file and not older else ""
    except NOT_LOADABLE:
        pass  # its reader says what is wrong
    return ""


def _zip_not_read(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inside = [name.partition("/")[2] for name in names]
    if "model.weights.h5" in names:
        return "keras3"
    if all(name.endswith(".npy") for name in names):
        return "numpy"
    if any(name.startswith("code/") for name in inside) and "constants.pkl" in inside:
        return "torchscript"
    every = (*names, *inside)
    is_exported = any("exported_program" in name or name == "models/model.json" for name in every)
    return "exported" if is_exported else ""


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


def read_json(text: str) -> Any:
    """Read a header's JSON; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def damaged(path: Path, error: Exception) -> WeightsError:
    """Say that a file is not whole, and why."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsError(
        f"{path.name} is damaged or cut short ({reason})", source=str(path), fix=FETCH_AGAIN
    )


def _refuse_bomb(path: Path) -> None:
    """Refuse a torch zip that is said to unpack to far more than it is."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > MAX_EXPANSION * path.stat().st_size:
            message = f"it unpacks to {unpacked:,} bytes"
            raise ValueError(message)


def _unwrapped(path: Path, found: Any) -> FileTensors:
    """Find the state dict: what was loaded, or one of the entries that training scripts write."""
    if _is_state_dict(found):
        return FileTensors(found)
    if isinstance(found, Mapping):
        for key in STATE_DICTS:
            inner = found.get(key)
            if isinstance(inner, Mapping) and not _is_state_dict(inner):
                inner = inner.get("state_dict")
            if _is_state_dict(inner):
                return FileTensors(inner, key, tuple(str(other) for other in found if other != key))
    entries = f" ({', '.join(map(str, list(found)[:6]))})" if isinstance(found, Mapping) else ""
    raise WeightsError(
        f"{path.name} holds no state dict: a {type(found).__name__} of more than tensors{entries}",
        allowed=f"tensors by name, alone or under {', '.join(STATE_DICTS)}",
        source=str(path),
        fix=f"Save the tensors alone: {_SAVE_STATE_DICT}",
    )


def _is_state_dict(found: Any) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(found, dict)
        and bool(found)
        and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in found.items())
    )


def _keras_tensors(root: Any, n_bytes: int) -> Iterator[tuple[str, Tensor]]:
    """Give each layer's kernel as `layer:kernel`, turned from HWIO to OIHW, and its `layer:bias`.

    Layout of Keras 1 and 2's save_weights: attribute `layer_names`, a group per layer with an
    attribute `weight_names`, data sets under those names. A dense kernel, (in, out) over cells of
    which the channel comes last, keeps the file's name: no backbone has one. `n_bytes` is the
    file's size: HDF5 can name values in other files, and say of a few bytes that they are a million
    times as many; neither is how weights are published.
    """
    for layer in _texts(root.attrs["layer_names"]):
        group = root[layer]
        for name in _texts(group.attrs["weight_names"]):
            data = group[name]
            is_link = isinstance(group.get(name, getlink=True), h5py.ExternalLink)
            foreign = is_link or data.external or data.is_virtual
            if foreign or data.nbytes > MAX_EXPANSION * n_bytes:
                what = (
                    "lies in another file" if foreign else f"is said to have {data.nbytes:,} bytes"
                )
                message = f"{name} {what}"
                raise ValueError(message)
            values = torch.from_numpy(np.asarray(data))
            if values.ndim == 4:
                yield f"{layer}:kernel", values.permute(3, 2, 0, 1)
            else:
                yield f"{layer}:{'bias' if values.ndim == 1 else name}", values


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
