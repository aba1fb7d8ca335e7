"""Files as LuaTorch writes them, byte by byte; shares nothing with benchmark.models.torch7.

Source: torch/torch7, File.lua (writeObject), generic/Tensor.c and generic/Storage.c, binary mode on
a 64-bit machine: int is 4 bytes, long 8, numbers are doubles.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Function:
    """Stands for a Lua function, which is serialised as byte code."""


class Lua:
    """Writes objects one after another, each with a number of its own."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._n_objects = 0

    def nil(self) -> None:
        self._int(0)

    def number(self, value: float) -> None:
        self._int(1)
        self.content += struct.pack("<d", value)

    def text(self, value: str) -> None:
        self._int(2)
        self._string(value)

    def boolean(self, value: bool) -> None:
        self._int(5)
        self._int(int(value))

    def function(self) -> None:
        self._int(8)
        self._next_object()
        self._string("byte code")
        self.nil()

    def table(self, values: dict[Any, Any]) -> None:
        self._int(3)
        self._next_object()
        self._int(len(values))
        for key, value in values.items():
            self.write(key)
            self.write(value)

    def module(self, kind: str, fields: dict[str, Any]) -> None:
        self._torch(kind)
        self.table(fields)

    def tensor(self, values: npt.NDArray[np.float32]) -> None:
        self._torch("torch.FloatTensor")
        self._int(values.ndim)
        self._longs(values.shape)
        self._longs(tuple(stride // 4 for stride in values.strides))
        self._longs((1,))
        if values.size == 0:
            self.nil()
            return
        self._torch("torch.FloatStorage")
        self._longs((values.size,))
        self.content += values.tobytes()

    def write(self, value: Any) -> None:
        if isinstance(value, bool):
            self.boolean(value)
        elif isinstance(value, (int, float)):
            self.number(float(value))
        elif isinstance(value, str):
            self.text(value)
        elif isinstance(value, dict):
            self.table(value)
        elif isinstance(value, np.ndarray):
            self.tensor(value)
        elif isinstance(value, Function):
            self.function()
        else:
            kind, fields = value
            self.module(kind, fields)

    def _torch(self, kind: str) -> None:
        self._int(4)
        self._next_object()
        self._string("V 1")
        self._string(kind)

    def _next_object(self) -> None:
        self._n_objects += 1
        self._int(self._n_objects)

    def _int(self, value: int) -> None:
        self.content += struct.pack("<i", value)

    def _longs(self, values: tuple[int, ...]) -> None:
        self.content += struct.pack(f"<{len(values)}q", *values)

    def _string(self, value: str) -> None:
        self._int(len(value))
        self.content += value.encode()


NOTHING = np.zeros(0, np.float32)


def convolution(weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> Any:
    """A nn.SpatialConvolutionMM, which keeps its OIHW weight as (out, in * height * width)."""
    n_out, n_in, height, width = weight.shape
    return (
        "nn.SpatialConvolutionMM",
        {
            "nInputPlane": n_in, "nOutputPlane": n_out, "kW": width, "kH": height,
            "dW": 1, "dH": 1, "padW": 1, "padH": 1, "train": False,
            "weight": np.ascontiguousarray(weight.reshape(n_out, -1)), "bias": bias,
            "gradWeight": NOTHING, "gradInput": NOTHING, "output": NOTHING,
            "_type": "torch.FloatTensor",
        },
    )  # fmt: skip


def linear(weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> Any:
    return ("nn.Linear", {"weight": weight, "bias": bias, "gradBias": NOTHING})


def relu() -> Any:
    return ("nn.ReLU", {"threshold": 0, "val": 0, "inplace": True})


def write_network(path: Path, modules: list[Any]) -> Path:
    """Write a nn.Sequential of modules."""
    lua = Lua()
    numbered = dict(enumerate(modules, start=1))
    lua.write(("nn.Sequential", {"modules": numbered, "train": False}))
    path.write_bytes(bytes(lua.content))
    return path
