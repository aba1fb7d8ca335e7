"""The device a run trains on, its precision, and how its memory and time are read."""

import contextlib
import platform
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch

from benchmark.errors import DeviceError

Precision = Literal["bf16", "fp32"]
KINDS: Final = ("cpu", "cuda", "mps")
PRECISIONS: Final = ("auto", "bf16", "fp32")


@dataclass(frozen=True)
class Device:
    """Where and how precisely the arithmetic is done. Not part of a run's identity, but logged."""

    torch_device: torch.device
    precision: Precision

    @property
    def kind(self) -> str:
        """`cpu`, `cuda` or `mps`."""
        return self.torch_device.type

    @property
    def description(self) -> str:
        """The hardware in words: `AMD EPYC, 2 threads` or the GPU's name."""
        if self.kind == "cuda":
            return torch.cuda.get_device_name(self.torch_device)
        threads = torch.get_num_threads()
        return f"{_processor_name()}, {threads} thread{'s' if threads > 1 else ''}"

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute convolutions and products in bf16 if the precision says so; weights stay fp32."""
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bf16"):
            yield

    def synchronise(self) -> None:
        """Wait until the device has done all it was given; needed before reading a clock."""
        if self.kind == "cuda":
            torch.cuda.synchronize(self.torch_device)
        elif self.kind == "mps":
            torch.mps.synchronize()

    def reset_peak_memory(self) -> None:
        """Start counting the peak anew; only a CUDA device can."""
        if self.kind == "cuda":
            torch.cuda.reset_peak_memory_stats(self.torch_device)

    def peak_memory_mib(self) -> float:
        """Peak memory in MiB: of the device on CUDA, else of this process since it began."""
        if self.kind == "cuda":
            return torch.cuda.max_memory_allocated(self.torch_device) / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def choose_device(asked: str | None = None, precision: str = "auto") -> Device:
    """Find the device asked for, or the best one here: CUDA, then MPS, then CPU.

    Raises DeviceError for an unknown name, an absent device or an unknown precision.
    """
    kind = asked or _best_kind()
    base = kind.split(":")[0]
    if base not in KINDS:
        raise DeviceError(f"unknown device {asked!r}", allowed="cpu, cuda, cuda:N, mps")
    if base not in _present_kinds():
        raise DeviceError(
            f"device {asked!r} is not on this machine",
            allowed=", ".join(_present_kinds()),
            fix="Leave --device out to take the best one here",
        )
    try:
        torch_device = torch.device(kind)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {asked!r}", allowed="cpu, cuda, cuda:N, mps") from error
    if base == "cuda" and (torch_device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"there is no {kind}", allowed=f"cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        )
    if precision not in PRECISIONS:
        raise DeviceError(f"unknown precision {precision!r}", allowed=", ".join(PRECISIONS))
    return Device(torch_device, _precision_for(base, precision))


def _present_kinds() -> list[str]:
    present = ["cpu"]
    if torch.cuda.is_available():
        present.append("cuda")
    if torch.backends.mps.is_available():
        present.append("mps")
    return present


def _best_kind() -> str:
    present = _present_kinds()
    return next(kind for kind in ("cuda", "mps", "cpu") if kind in present)


def _precision_for(kind: str, asked: str) -> Precision:
    if asked == "bf16" or asked == "fp32":
        return "bf16" if asked == "bf16" else "fp32"
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # Without native bf16 a CPU emulates it and loses time.
    return "bf16" if kind == "cpu" and _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    # torch.cpu.get_capabilities is newer than the oldest torch we support.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16", False))


def _processor_name() -> str:
    """Read the processor's name where Linux keeps it; elsewhere the machine type."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
