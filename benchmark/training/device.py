"""The device a run trains on, its precision, and how its memory and time are measured."""

import contextlib
import ctypes
import os
import platform
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import nn

from benchmark.errors import DeviceError

Precision = Literal["bf16", "fp32"]
PRECISIONS: Final = ("auto", "bf16", "fp32")
NATIVE_BF16: Final = ("avx512_bf16", "amx_bf16")
"""As Linux names what multiplies bf16 in a processor."""
KEPT: Final = {-4: 0, -1: -1}
"""glibc's M_MMAP_MAX and M_TRIM_THRESHOLD: nothing mapped by itself, nothing returned."""
RETURNED: Final = {-4: 65536, -3: 32 * 2**20, -1: 64 * 2**20}
"""The same and M_MMAP_THRESHOLD, as glibc's own adjustment leaves them after large tensors."""


@dataclass(frozen=True)
class Device:
    """Where and how precisely the arithmetic is done. Not part of a run's identity, but logged."""

    torch_device: torch.device
    precision: Precision
    exact: bool = False
    """Whether two runs must end in equal weights on this machine, whatever it costs."""
    channels_last: bool = True
    """Whether the channels of a pixel are adjacent in memory."""
    probes: bool = False
    """Whether a few timed steps may choose precision and layout: a CPU with nothing specified."""

    @property
    def kind(self) -> str:
        """`cpu`, `cuda` or `mps`."""
        return self.torch_device.type

    @property
    def description(self) -> str:
        """The hardware in words: `AMD EPYC, 2 threads` or the GPU's name."""
        if self.kind == "cuda":
            return torch.cuda.get_device_name(self.torch_device)
        threads, model = torch.get_num_threads(), re.search(r"model name\s*: (.*)", _cpuinfo())
        name = model[1] if model else platform.processor() or platform.machine()
        return f"{name}, {threads} thread{'s' if threads > 1 else ''}"

    @property
    def memory_format(self) -> torch.memory_format:
        """How images and feature maps lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, network: nn.Module) -> None:
        """Move a network to the device, its kernels in the device's layout."""
        network.to(self.torch_device, memory_format=self.memory_format)  # type: ignore[call-overload]

    def autocast(self) -> torch.autocast:
        """Compute convolutions and products in bf16 if the precision says so; weights stay fp32."""
        return torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bf16")

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Set torch's switches for this device, and restore them afterwards.

        Exact: deterministic algorithms only, no TF32, no cuDNN benchmark, which may choose another
        kernel each time. Otherwise, on CUDA, cuDNN benchmark. Of several GPUs this one is made the
        current one, because streams and CUDA graphs belong to the current device. A CPU keeps the
        memory that a step frees for the next one.
        """
        on_cuda, before = self.kind == "cuda", _switches()
        if self.exact:
            # Read when the first matrix product creates its handle: reproducible workspaces.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            _set_switches(True, False, True, False, False, False)
        elif on_cuda:
            _set_switches(*before[:3], True, *before[4:])
        try:
            with torch.cuda.device(self.torch_device) if on_cuda else _freed_memory_kept():
                yield
        finally:
            _set_switches(*before)

    @contextlib.contextmanager
    def without_cudnn_benchmark(self) -> Iterator[None]:
        """Choose convolution algorithms by heuristics: benchmarking one batch shape costs as much
        as hundreds of batches, which does not pay for what is computed once in a run."""
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    def synchronise(self) -> None:
        """Wait until the device has finished its queue; needed before reading a clock."""
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

    def as_dict(self) -> dict[str, Any]:
        """Give the arithmetic as plain values for a run's record."""
        names = ("exact", "precision", "channels_last")
        return {name: getattr(self, name) for name in names} | {"threads": torch.get_num_threads()}


def _switches() -> tuple[bool, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )


def _set_switches(*values: bool) -> None:
    """Set what `_switches` gives, in its order."""
    torch.use_deterministic_algorithms(values[0], warn_only=values[1])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = values[2:4]
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = values[4:]


@contextlib.contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Let glibc keep what is freed, as CUDA's allocator does; other C libraries are left alone.

    By itself it returns every large tensor, and the kernel clears the pages of the next step's
    feature maps again (measured: docs/notes/speed.md).
    """
    libc = ctypes.CDLL(None)
    with contextlib.ExitStack() as stack:
        if hasattr(libc, "malloc_trim"):
            stack.callback(libc.malloc_trim, 0)
            for option, value in KEPT.items():
                libc.mallopt(option, value)
            for option, value in RETURNED.items():
                stack.callback(libc.mallopt, option, value)
        yield


def choose_device(
    asked: str | None = None, precision: str = "auto", *, exact: bool = False
) -> Device:
    """Find the device asked for, or the best one here: CUDA, then MPS, then CPU.

    Raises DeviceError for a device that is not on this machine, an unknown precision, and for
    exactness in another precision than fp32.
    """
    counts = {
        "cpu": 1,
        "mps": int(torch.backends.mps.is_available()),
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
    }
    best = next(kind for kind in ("cuda", "mps", "cpu") if counts[kind])
    base, _, number = (asked or best).partition(":")
    if not (number or "0").isdecimal() or int(number or 0) >= counts.get(base, 0):
        here = [
            kind if n == 1 else f"{kind}:0 to {kind}:{n - 1}" for kind, n in counts.items() if n
        ]
        found, fix = "is not on this machine", "Leave --device out to take the best one here"
        raise DeviceError(f"device {asked!r} {found}", allowed=", ".join(here), fix=fix)
    if precision not in PRECISIONS:
        raise DeviceError(f"unknown precision {precision!r}", allowed=", ".join(PRECISIONS))
    if exact and precision == "bf16":
        implied = "fp32, which --deterministic implies"
        raise DeviceError("--deterministic with --precision bf16", allowed=implied)
    fp32 = Device(torch.device(asked or best), "fp32", exact=exact)
    if exact or precision == "fp32":
        return fp32
    # Without native bf16 a CPU emulates it and loses time.
    native = torch.cuda.is_bf16_supported() if base == "cuda" else base == "cpu" and cpu_has_bf16()
    chosen = replace(fp32, precision="bf16") if precision == "bf16" or native else fp32
    return replace(chosen, probes=base == "cpu" and precision == "auto")


def cpu_has_bf16() -> bool:
    """Tell whether the processor multiplies bf16 natively."""
    return not set(NATIVE_BF16).isdisjoint(_cpuinfo().split())


def _cpuinfo() -> str:
    """Give what Linux says of its processors; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""


def device_trouble(error: Exception) -> DeviceError | None:
    """Explain in a sentence an error that says that there was no memory, on whatever device, or
    that the device is lost; None where it is another error.

    Only CUDA has errors of its own for it; the CPU's allocator and MPS say it in words. oneDNN,
    which CPUs convolve with, names only what it could not create: seen with too little memory, and
    with too large a batch (https://github.com/pytorch/pytorch/issues/55884). These are whole lines:
    a primitive's *descriptor* that cannot be created is another matter.
    """
    line, of_runtime = first_line(error), isinstance(error, RuntimeError)
    onednn = ("could not create a primitive", "could not create a memory object")
    words = ("DefaultCPUAllocator", "bad_alloc", "MPS backend out of memory", "CUDA out of memory")
    is_said = line in onednn or any(word in str(error) for word in words)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (of_runtime and is_said):
        fix = "Lower recipe.batch_size or backbone.input_px, free its memory, or take --device cpu"
        fix += "; the same command resumes after the last checkpoint"
        return DeviceError(f"the device's memory does not suffice ({line})", fix=fix)
    lost = getattr(torch, "AcceleratorError", ())
    if isinstance(error, lost) or (of_runtime and "CUDA error" in str(error)):
        fix = "Look at it with nvidia-smi, then run the same command again: it resumes after the "
        return DeviceError(f"the device stopped working ({line})", fix=f"{fix}last checkpoint")
    return None


def first_line(error: Exception) -> str:
    """Give the first line of an error's text, at most 160 letters of it."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
