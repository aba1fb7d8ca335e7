"""Read the weights of a network that LuaTorch saved (`.t7`), as data: nothing in it is run.

Binary little-endian layout with 8-byte longs, as torch7's File.lua, Tensor.c and Storage.c write it
on 64-bit machines. Objects that hold functions are refused.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN = range(6)
_FUNCTIONS: Final = (6, 7, 8)

_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "Byte": np.dtype("u1"),
    "Char": np.dtype("i1"),
    "Short": np.dtype("<i2"),
    "Int": np.dtype("<i4"),
    "Long": np.dtype("<i8"),
    "Float": np.dtype("<f4"),
    "Double": np.dtype("<f8"),
    "Cuda": np.dtype("<f4"),
}
_STORAGES: Final = {f"torch.{name}Storage": dtype for name, dtype in _TYPES.items()}
_TENSORS: Final = {f"torch.{name}Tensor" for name in _TYPES}
_KINDS: Final = {
    "nn.SpatialConvolution": "conv",
    "nn.SpatialConvolutionMM": "conv",
    "cudnn.SpatialConvolution": "conv",
    "nn.Linear": "linear",
}


class HoldsCode(ValueError):
    """Raised inside this package where a file holds a function."""


@dataclass
class Module:
    """A LuaTorch object that is neither tensor nor storage."""

    kind: str
    fields: Any = field(default_factory=dict)


def looks_like_torch7(start: bytes) -> bool:
    """Tell by its first 16 bytes: a versioned torch object, `V 1` and the like."""
    return len(start) >= 16 and start[:4] == b"\4\0\0\0" and start[12:14] == b"V "


def read_torch7(path: Path) -> dict[str, Tensor]:
    """Read weights and biases as `conv1.weight`, ... `linear1.bias`, counted in the file's order.

    Convolutions are (out, in, height, width). Raise ValueError, struct.error or LookupError where
    the file is damaged, HoldsCode where it holds a function.
    """
    with path.open("rb") as stream:
        # Copy-on-write, so that tensors over it are writable and cost no memory until they are.
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    network = _Reader(content).read()
    if not isinstance(network, Module):
        message = f"it holds {type(network).__name__}, no network"
        raise ValueError(message)
    return dict(_weights(network))


def _weights(network: Module) -> Iterator[tuple[str, Tensor]]:
    counts: dict[str, int] = {}
    for module in _in_order(network):
        weight, bias = module.fields.get("weight"), module.fields.get("bias")
        if weight is None:
            continue
        kind = _KINDS.get(module.kind, module.kind)
        counts[kind] = counts.get(kind, 0) + 1
        if kind == "conv":
            # SpatialConvolutionMM keeps (out, in * height * width).
            shape = (module.fields[name] for name in ("nOutputPlane", "nInputPlane", "kH", "kW"))
            weight = weight.reshape([int(size) for size in shape])
        yield f"{kind}{counts[kind]}.weight", torch.from_numpy(weight)
        if bias is not None:
            yield f"{kind}{counts[kind]}.bias", torch.from_numpy(bias)


def _in_order(module: Module) -> Iterator[Module]:
    if not isinstance(module.fields, dict):
        message = f"a {module.kind} that holds {type(module.fields).__name__}"
        raise ValueError(message)
    yield module
    inner = module.fields.get("modules") or {}
    for position in sorted(inner):
        yield from _in_order(inner[position])


class _Reader:
    """Reads one object after another; an object that occurred before is referred to by number."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 0
        self._seen: dict[int, Any] = {}

    def read(self) -> Any:
        """Read the next object."""
        kind = self._int()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            return self._unpacked("<d")
        if kind == _STRING:
            return self._text()
        if kind == _BOOLEAN:
            return self._int() == 1
        if kind in _FUNCTIONS:
            raise HoldsCode("it holds a function")
        if kind not in (_TABLE, _TORCH):
            message = f"an object of the unknown type {kind}"
            raise ValueError(message)
        number = self._int()
        if number not in self._seen:
            if kind == _TABLE:
                self._read_table(number)
            else:
                self._read_torch(number)
        return self._seen[number]

    def _read_table(self, number: int) -> None:
        # Known before it is filled: a table may hold itself.
        table = self._seen[number] = dict[Any, Any]()
        for _ in range(self._int()):
            key = self.read()
            table[key] = self.read()

    def _read_torch(self, number: int) -> None:
        version = self._text()
        kind = self._text() if version.startswith("V ") else version
        if kind in _STORAGES:
            self._seen[number] = self._storage(_STORAGES[kind])
        elif kind in _TENSORS:
            self._seen[number] = self._tensor()
        else:
            module = self._seen[number] = Module(kind)
            module.fields = self.read()

    def _storage(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        n_values = self._long()
        start = self._taken(n_values * dtype.itemsize)
        return np.frombuffer(self._content, dtype, n_values, start)

    def _tensor(self) -> npt.NDArray[Any] | None:
        """Read a view of a storage; nothing where it is empty, as gradients are."""
        n_dimensions = self._int()
        shape = [self._long() for _ in range(n_dimensions)]
        strides = [self._long() for _ in range(n_dimensions)]
        start = self._long() - 1
        storage = self.read()
        if storage is None or n_dimensions == 0:
            return None
        steps = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
        n_values = math.prod(shape)
        if (
            min(shape) < 1
            or min(strides) < 0
            or n_values > len(storage)
            or not 0 <= start <= len(storage) - sum(steps) - 1
        ):
            message = f"a tensor of shape {shape} that its storage does not hold"
            raise ValueError(message)
        in_bytes = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[start:], shape, in_bytes)

    def _int(self) -> int:
        return int(self._unpacked("<i"))

    def _long(self) -> int:
        return int(self._unpacked("<q"))

    def _unpacked(self, form: str) -> Any:
        start = self._taken(struct.calcsize(form))
        return struct.unpack_from(form, self._content, start)[0]

    def _text(self) -> str:
        n_bytes = self._int()
        start = self._taken(n_bytes)
        return self._content[start : start + n_bytes].decode("latin-1")

    def _taken(self, n_bytes: int) -> int:
        """Step over some bytes and say where they began."""
        start = self._at
        if n_bytes < 0 or start + n_bytes > len(self._content):
            message = "it ends in the middle of an object"
            raise ValueError(message)
        self._at = start + n_bytes
        return start
