"""Whether kernels of our own can be had here, and they themselves."""

import functools
import importlib
import subprocess
from types import ModuleType

import torch


def own_kernels(device: torch.device) -> ModuleType | None:
    """Give benchmark.training.kernels for a device; None where torch must do without."""
    return _on_cuda()[0] if device.type == "cuda" else None


def why_none(device: torch.device) -> str | None:
    """Say why a GPU must do without them; None where it need not, or the device is no GPU."""
    return _on_cuda()[1] if device.type == "cuda" else None


@functools.cache
def _on_cuda() -> tuple[ModuleType | None, str | None]:
    try:
        kernels = importlib.import_module("benchmark.training.kernels")
        kernels.try_out(torch.device("cuda"))
    # No Triton; none for this GPU; no C compiler for what starts its kernels.
    except (ImportError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return None, first[:160]
    return kernels, None
