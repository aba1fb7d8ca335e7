"""An independent SqueezeNet 1.1 by Keras's rules, in numpy alone, and files in its true layout.

Nothing here is shared with benchmark.models: channels come last, kernels are HWIO, `valid` pooling
floors. Architecture: rcmalli/keras-squeezenet, keras_squeezenet/squeezenet.py.
"""

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Kernels = dict[str, tuple[Array, Array]]
"""Layer → kernel (h, w, in, out) and bias (out,)."""

FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128)}
FIRES |= {6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
POOL_AFTER = (3, 5)


def random_kernels(seed: int = 0) -> Kernels:
    """Draw small values for every layer, in the order of the real file."""
    generator = np.random.default_rng(seed)

    def layer(size: int, n_in: int, n_out: int) -> tuple[Array, Array]:
        deviation = np.sqrt(2 / (size * size * n_in))
        kernel = generator.normal(0, deviation, (size, size, n_in, n_out)).astype(np.float32)
        bias = generator.normal(0, 0.1, n_out).astype(np.float32)
        return kernel.astype(np.float64), bias.astype(np.float64)

    kernels, n_in = {"conv1": layer(3, 3, 64)}, 64
    for number, (n_squeezed, n_expanded) in FIRES.items():
        kernels[f"fire{number}/squeeze1x1"] = layer(1, n_in, n_squeezed)
        kernels[f"fire{number}/expand1x1"] = layer(1, n_squeezed, n_expanded)
        kernels[f"fire{number}/expand3x3"] = layer(3, n_squeezed, n_expanded)
        n_in = 2 * n_expanded
    return kernels


def write_h5(path: Path, kernels: Kernels) -> Path:
    """Write kernels as Keras 1's save_weights did: names, and their odd spelling, as published."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array(["input_1", *kernels, "drop9"], "S")
        for empty in ("input_1", "drop9"):
            file.create_group(empty).attrs["weight_names"] = np.zeros(0)
        for number, (layer, (kernel, bias)) in enumerate(kernels.items(), start=1):
            names = (f"uniform{number}", f"{layer}_b")
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array(names, "S")
            for name, values in zip(names, (kernel, bias), strict=True):
                group.create_dataset(name, data=values.astype(np.float32))
    return path


def read_h5(path: Path) -> Kernels:
    """Read the file's arrays by the names its own attributes give."""
    kernels = {}
    with h5py.File(path) as file:
        for layer in file.attrs["layer_names"]:
            group = file[layer.decode()]
            if len(group.attrs["weight_names"]):
                kernel, bias = (np.asarray(group[name]) for name in group.attrs["weight_names"])
                kernels[layer.decode()] = (kernel.astype(np.float64), bias.astype(np.float64))
    return kernels


def forward(x: Array, kernels: Kernels) -> Array:
    """Map one scaled picture (h, w, 3) to the last feature map (h', w', 512)."""
    x = max_pool(np.maximum(convolve(x, *kernels["conv1"], stride=2), 0))
    for number in FIRES:
        squeezed = np.maximum(convolve(x, *kernels[f"fire{number}/squeeze1x1"]), 0)
        left = convolve(squeezed, *kernels[f"fire{number}/expand1x1"])
        same = np.pad(squeezed, ((1, 1), (1, 1), (0, 0)))
        right = convolve(same, *kernels[f"fire{number}/expand3x3"])
        x = np.maximum(np.concatenate([left, right], axis=2), 0)
        if number in POOL_AFTER:
            x = max_pool(x)
    return x


def convolve(x: Array, kernel: Array, bias: Array, stride: int = 1) -> Array:
    """Correlate (h, w, in) with (kh, kw, in, out), without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
    return np.einsum("hwikl,klio->hwo", windows[::stride, ::stride], kernel, optimize=True) + bias


def max_pool(x: Array) -> Array:
    """Take the maximum of 3x3 cells every two, only where all nine are there."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))
    return windows[::2, ::2].max(axis=(3, 4))
