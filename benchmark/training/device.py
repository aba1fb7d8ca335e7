"""The device a run trains on, its precision, and how its memory and time are read."""

import contextlib
import os
import platform
import resource
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import nn

from benchmark.errors import DeviceError

Precision = Literal["bf16", "fp32"]
KINDS: Final = ("cpu", "cuda", "mps")
PRECISIONS: Final = ("auto", "bf16", "fp32")


@dataclass(frozen=True)
class Device:
    """Where and how precisely the arithmetic is done. Not part of a run's identity, but logged."""

    torch_device: torch.device
    precision: Precision
    exact: bool = False
    """Whether two runs must end in equal weights on this machine, whatever it costs."""
    channels_last: bool = True
    """Whether a pixel's channels lie together in memory; else a channel's pixels do."""
    probes: bool = False
    """Whether a few steps may decide on precision and layout: a CPU left to itself."""

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

    @property
    def memory_format(self) -> torch.memory_format:
        """How pictures and feature maps lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, network: nn.Module) -> None:
        """Move a network to the device, its kernels in the device's layout."""
        network.to(  # type: ignore[call-overload]
            device=self.torch_device, memory_format=self.memory_format
        )

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute convolutions and products in bf16 if the precision says so; weights stay fp32."""
        with torch.autocast(self.kind, torch.bfloat16, enabled=self.precision == "bf16"):
            yield

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Set torch's switches for this device's way of computing, and put them back.

        Exact: only algorithms that give equal numbers twice, no TF32, no timing contest among
        convolutions, which one time is won by another kernel. Else, on CUDA, such a contest. Of
        several GPUs this one is the current one meanwhile: streams, and what is recorded on them,
        are otherwise another's.
        """
        on_cuda = self.kind == "cuda"
        with torch.cuda.device(self.torch_device) if on_cuda else contextlib.nullcontext():
            yield from self._switched()

    def _switched(self) -> Iterator[None]:
        before = _switches()
        try:
            if self.exact:
                # Read when the first matrix product creates its handle: reproducible workspaces.
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                _set_switches(_EXACT)
            elif self.kind == "cuda":
                _set_switches(before | {"benchmark": True})
            yield
        finally:
            _set_switches(before)

    @contextlib.contextmanager
    def without_contest(self) -> Iterator[None]:
        """Take each convolution's algorithm by rule, and not by a contest of all there are.

        A contest over a batch's shape takes as long as hundreds of such batches; what is computed
        once in a run does not win that back.
        """
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

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

    def free_bytes(self) -> int:
        """Memory that could still be taken: of the device on CUDA, else of the machine."""
        if self.kind == "cuda":
            return int(torch.cuda.mem_get_info(self.torch_device)[0])
        return free_host_bytes()

    def as_dict(self) -> dict[str, Any]:
        """Say how the arithmetic is done, as plain values for a run's record."""
        return {
            "exact": self.exact,
            "precision": self.precision,
            "channels_last": self.channels_last,
            "threads": torch.get_num_threads(),
        }


def device_trouble(error: Exception) -> DeviceError | None:
    """Say in a sentence what befell the device, if that is what an error tells; else None."""
    if is_out_of_memory(error):
        return DeviceError(
            f"the device's memory does not suffice ({_first_line(error)})",
            fix="Lower recipe.batch_size or backbone.input_px, free its memory, or take --device "
            "cpu; the same command goes on after the last epoch that was kept",
        )
    lost = getattr(torch, "AcceleratorError", ())
    if isinstance(error, lost) or (isinstance(error, RuntimeError) and "CUDA error" in str(error)):
        return DeviceError(
            f"the device stopped working ({_first_line(error)})",
            fix="Look at it with nvidia-smi, then run the same command again: it goes on after the "
            "last epoch that was kept",
        )
    return None


ONEDNN_NEEDS_MEMORY: Final = ("could not create a primitive", "could not create a memory object")
"""Whole lines: a primitive's *descriptor* that cannot be created is another matter."""


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that there was no memory, on whatever device.

    Only CUDA has an error of its own for it; the CPU's allocator and MPS say it in words. oneDNN,
    by which CPUs convolve, says only what it could not make: met with too little memory, and with
    too large a batch (https://github.com/pytorch/pytorch/issues/55884).
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError) and _first_line(error) in ONEDNN_NEEDS_MEMORY:
        return True
    words = ("DefaultCPUAllocator", "bad_alloc", "MPS backend out of memory", "CUDA out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


_EXACT: Final[dict[str, Any]] = {
    "deterministic": True,
    "warn_only": False,
    "cudnn_deterministic": True,
    "benchmark": False,
    "matmul_tf32": False,
    "cudnn_tf32": False,
}


def _switches() -> dict[str, Any]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "benchmark": torch.backends.cudnn.benchmark,
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
    }


def _set_switches(values: dict[str, Any]) -> None:
    torch.use_deterministic_algorithms(values["deterministic"], warn_only=values["warn_only"])
    torch.backends.cudnn.deterministic = values["cudnn_deterministic"]
    torch.backends.cudnn.benchmark = values["benchmark"]
    torch.backends.cuda.matmul.allow_tf32 = values["matmul_tf32"]
    torch.backends.cudnn.allow_tf32 = values["cudnn_tf32"]


def choose_device(
    asked: str | None = None, precision: str = "auto", *, exact: bool = False
) -> Device:
    """Find the device asked for, or the best one here: CUDA, then MPS, then CPU.

    Raises DeviceError for an unknown name, an absent device or an unknown precision, and for
    exactness in another precision than fp32.
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
    if exact:
        if precision == "bf16":
            raise DeviceError(
                "--deterministic with --precision bf16",
                allowed="fp32, which --deterministic takes by itself",
            )
        return Device(torch_device, "fp32", exact=True)
    chosen = Device(torch_device, _precision_for(base, precision))
    return replace(chosen, probes=base == "cpu" and precision == "auto")


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
    return "bf16" if kind == "cpu" and cpu_has_bf16() else "fp32"


NATIVE_BF16: Final = ("avx512_bf16", "amx_bf16")
"""As torch and Linux name what multiplies bf16 in a processor."""


def cpu_has_bf16() -> bool:
    """Tell whether the processor multiplies bf16 by itself."""
    # torch.cpu.get_capabilities is newer than the oldest torch we support.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        return any(capabilities.get(name, False) for name in NATIVE_BF16)
    with contextlib.suppress(OSError):
        return any(name in Path("/proc/cpuinfo").read_text().split() for name in NATIVE_BF16)
    return False


def free_host_bytes() -> int:
    """Main memory that could still be taken: the machine's, or less where a container may not."""
    free = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8"))
        free.append(max(0, limit - used))
    if free:
        return min(free)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _processor_name() -> str:
    """Read the processor's name where Linux keeps it; elsewhere the machine type."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
