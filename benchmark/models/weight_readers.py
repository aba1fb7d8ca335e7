"""Read weight files (pth, safetensors, h5) as tensors only; find their channel order.

From a weight file to its tensors, under the file's own names, and as tensors only.

A pickle with code in it is refused and never run. Which architecture the tensors belong to is for
benchmark.models.weight_formats.

Which channel a first layer expects first, where that can be told at all.

A first layer alone does not say: blue and red do much the same in it. But where it is, or was
fine-tuned from, the first layer of weights whose order is known, it is like that layer in one of
the two orders and less so in the other (docs/EXPERIMENTS.md has the numbers).
"""

from __future__ import annotations

import json
import math
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
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
from benchmark.models.preprocessing import Channels

SAME_LAYER_COSINE: Final = 0.9
"""Fine-tuning turns a first layer little; two that were trained apart have a cosine near 0."""
CLEARLY: Final = 2.0
"""How many times larger the angle to the other order must be."""


@dataclass(frozen=True)
class KnownFirstLayer:
    """The first layer of weights that are at hand, and the order that they expect."""

    name: str
    kernel: Tensor
    """(out, 3, height, width)"""
    channels: Channels


def first_kernel(tensors: Mapping[str, Tensor]) -> Tensor:
    """Find the kernel that reads the picture: the first with three inputs, (out, 3, h, w)."""
    return next(tensor for tensor in tensors.values() if tensor.ndim == 4 and tensor.shape[1] == 3)


def told_order(kernel: Tensor, known: KnownFirstLayer) -> Channels | None:
    """Say which order a kernel expects if it is `known` in either order; None if it is neither."""
    if kernel.shape != known.kernel.shape:
        return None
    other: Channels = "BGR" if known.channels == "RGB" else "RGB"
    angles = {
        known.channels: _angle(kernel, known.kernel),
        other: _angle(kernel, known.kernel.flip(1)),
    }
    near, far = sorted(angles, key=lambda order: angles[order])
    is_this = angles[near] <= math.acos(SAME_LAYER_COSINE)
    return near if is_this and angles[far] >= CLEARLY * angles[near] + 1e-6 else None


def _angle(a: Tensor, b: Tensor) -> float:
    """Give the angle between two kernels in radians, 0 to pi."""
    a, b = a.double().flatten(), b.double().flatten()
    cosine = torch.dot(a, b) / (a.norm() * b.norm()).clamp_min(1e-30)
    return math.acos(min(1.0, max(-1.0, float(cosine))))


def check_order(
    tensors: Mapping[str, Tensor], declared: Channels, known: Iterable[KnownFirstLayer], source: str
) -> None:
    """Raise WeightsError where a known first layer shows that the declared order is the wrong one.

    `source` is the file that `tensors` come from.
    """
    kernel = first_kernel(tensors)
    for layer in known:
        told = told_order(kernel, layer)
        if told is not None and told != declared:
            turned = " with red and blue exchanged" if told != layer.channels else ""
            raise WeightsError(
                f"{declared} was declared, but the first layer is that of {layer.name}{turned}, "
                f"and expects {told}",
                allowed=told,
                source=source,
                fix=f"Declare {told}; a file that claims to be published and is not in the order "
                "it was published in is not that file",
            )


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
READ: Final = "Keras HDF5 (.h5), torch's .pth or .pt, safetensors"

STATE_DICTS: Final = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "model_ema",
    "state_dict_ema",
    "ema",
)
"""Where training scripts keep the tensors in a checkpoint, the first to be taken first."""


@dataclass(frozen=True)
class FileTensors:
    """The tensors of a file, and which of its entries they are."""

    tensors: dict[str, Tensor]
    entry: str = ""
    """The key of a checkpoint under which they were; empty where the file is a state dict."""
    left: tuple[str, ...] = ()
    """Keys of the checkpoint's other entries."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors under the file's own names; raise WeightsError for what has none."""
    return read_weight_file(path).tensors


def read_weight_file(path: Path) -> FileTensors:
    """Read a file's tensors, and which of its entries they are; its first bytes say what it is.

    HDF5 (Keras), torch zip or pickle (`weights_only`), bare or in a training script's checkpoint,
    safetensors. Raise WeightsError for others, which are named where they are known.
    """
    start = _first_bytes(path)
    _refuse_other_formats(path, start)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return FileTensors(_read_keras(path))
    if start[8:9] == b"{":
        # Asked first: the length that stands before its header may look like a pickle's start.
        return FileTensors(_read_safetensors(path))
    if start.startswith(b"PK\x03\x04") or start[:1] == b"\x80":
        return _read_torch(path)
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


_SAVE_STATE_DICT: Final = "torch.save(model.state_dict(), 'weights.pth')"
_SAVE_H5: Final = "model.save('weights.h5') in Keras, which writes its older HDF5 layout"
_OTHERS: Final = {
    "keras3": ("a Keras 3 file", f"Load it with keras.saving.load_model, then {_SAVE_H5}"),
    "keras3_weights": (
        "a Keras 3 weight file, which names layers by number",
        f"Build the model, model.load_weights(FILE), then {_SAVE_H5}",
    ),
    "torchscript": (
        "a TorchScript program",
        "Where you trust it: model = torch.jit.load(FILE), then " + _SAVE_STATE_DICT,
    ),
    "exported": (
        "a program of torch.export",
        "Where you trust it: model = torch.export.load(FILE), then " + _SAVE_STATE_DICT,
    ),
    "onnx": ("an ONNX graph", "In the PyTorch code that it was exported from: " + _SAVE_STATE_DICT),
    "savedmodel": ("a TensorFlow SavedModel", f"Load it with Keras, then {_SAVE_H5}"),
    "tflite": ("a TensorFlow Lite model", f"In the Keras code that it was made with: {_SAVE_H5}"),
    "numpy": ("numpy arrays", "safetensors.numpy.save_file(dict(numpy.load(FILE)), TARGET)"),
    "archive": ("a .tar.gz archive", "Unpack it, and add the weight file that is in it"),
    "torch7": (
        "a LuaTorch file",
        "Of VGG Face two other files are read: facebench weights list --architecture vgg16",
    ),
}  # fmt: skip
"""Formats that are known and not read: what they are, and how to get a file that is read."""


def _refuse_other_formats(path: Path, start: bytes) -> None:
    """Raise WeightsError for a whole file of a format that is known and not read."""
    found = _other_format(path, start)
    if found:
        what, fix = _OTHERS[found]
        raise WeightsError(
            f"{path.name} is {what}, which is not read", allowed=READ, source=str(path), fix=fix
        )


def _other_format(path: Path, start: bytes) -> str:
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
        if start.startswith(b"PK\x03\x04") and zipfile.is_zipfile(path):
            return _other_zip(path)
        if start.startswith(b"\x89HDF\r\n\x1a\n"):
            with h5py.File(path, "r") as file:
                older = "layer_names" in file.get("model_weights", file).attrs
                return "keras3_weights" if "layers" in file and not older else ""
    except NOT_LOADABLE:
        pass  # its reader says what is wrong
    return ""


def _other_zip(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if "model.weights.h5" in names:
        return "keras3"
    if all(name.endswith(".npy") for name in names):
        return "numpy"
    inside = [name.partition("/")[2] for name in names]
    if any(name.startswith("code/") for name in inside) and "constants.pkl" in inside:
        return "torchscript"
    is_exported = any("exported_program" in name or name == "models/model.json" for name in
                      (*names, *inside))  # fmt: skip
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


def damaged(path: Path, error: Exception) -> WeightsError:
    """Say that a file is not whole, and why."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsError(
        f"{path.name} is damaged or cut short ({reason})", source=str(path), fix=FETCH_AGAIN
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, *NOT_LOADABLE) as error:
        raise damaged(path, error) from None


def _read_torch(path: Path) -> FileTensors:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what does not load is refused
            _refuse_bomb(path)
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _holds_code(path, str(error)) from None
    except NOT_LOADABLE as error:
        raise damaged(path, error) from None
    return _unwrapped(path, found)


def _holds_code(path: Path, reason: str) -> WeightsError:
    names = re.findall(r"(?:GLOBAL|global|class) `?([\w.]+)", reason)
    named = f" ({names[0]})" if names and "." in names[0] else ""
    return WeightsError(
        f"{path.name} holds code or objects besides tensors{named}, which are never loaded",
        allowed="a state dict of tensors",
        source=str(path),
        fix="Fetch the published file, or save only model.state_dict() where you trust it",
    )


def _refuse_bomb(path: Path) -> None:
    """Refuse a torch zip that is said to unpack to far more than it is."""
    if not zipfile.is_zipfile(path):
        return
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
    kind = type(found).__name__
    entries = f" ({', '.join(map(str, list(found)[:6]))})" if isinstance(found, Mapping) else ""
    raise WeightsError(
        f"{path.name} holds no state dict: a {kind} of more than tensors{entries}",
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


def read_json(text: str) -> Any:
    """Read a header's JSON; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None
