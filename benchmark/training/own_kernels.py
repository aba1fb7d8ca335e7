"""Whether kernels of our own can be had here, and they themselves."""

import functools
import importlib
import subprocess
from types import ModuleType

import torch


def own_kernels(device: torch.device) -> ModuleType | None:
    """Give benchmark.training.kernels for a device; None where torch must do without."""
    return _on_cuda() if device.type == "cuda" else None


@functools.cache
def _on_cuda() -> ModuleType | None:
    try:
        kernels = importlib.import_module("benchmark.training.kernels")
        kernels.try_out()
    # No Triton; none for this GPU; no C compiler for what starts its kernels.
    except (ImportError, RuntimeError, OSError, subprocess.SubprocessError):
        return None
    return kernels
