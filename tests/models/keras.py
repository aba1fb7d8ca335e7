"""Keras's rules in numpy alone; files as Keras writes them, for SqueezeNet 1.1 and VGG; a pickle.

Nothing here is shared with benchmark.models: channels come last, kernels are HWIO, `valid` pooling
floors. Architectures: rcmalli/keras-squeezenet, keras_squeezenet/squeezenet.py;
keras/applications/vgg16.py and vgg19.py; VGG Face's names: rcmalli/keras-vggface, models.py.
"""

import os
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Kernels = dict[str, tuple[Array, Array]]
"""Layer → kernel (h, w, in, out) and bias (out,), in the order of the file."""

FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128)}
FIRES |= {6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
POOL_AFTER = (3, 5)
VGG_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
WIDTHS = (8, 8, 12, 12, 16)
"""Of VGG's blocks: narrower than published, which no name depends on; tests build ours so, too."""


def _layer(generator: np.random.Generator, size: int, n_in: int, n_out: int) -> tuple[Array, Array]:
    kernel = generator.normal(0, np.sqrt(2 / (size * size * n_in)), (size, size, n_in, n_out))
    return kernel.astype(np.float32), generator.normal(0, 0.1, n_out).astype(np.float32)


def squeezenet_kernels(seed: int = 0) -> Kernels:
    """Draw small values for every layer."""
    generator = np.random.default_rng(seed)
    kernels, n_in = {"conv1": _layer(generator, 3, 3, 64)}, 64
    for number, (n_squeezed, n_expanded) in FIRES.items():
        kernels[f"fire{number}/squeeze1x1"] = _layer(generator, 1, n_in, n_squeezed)
        kernels[f"fire{number}/expand1x1"] = _layer(generator, 1, n_squeezed, n_expanded)
        kernels[f"fire{number}/expand3x3"] = _layer(generator, 3, n_squeezed, n_expanded)
        n_in = 2 * n_expanded
    return kernels


def vgg_kernels(architecture: str, name: str = "block{}_conv{}") -> Kernels:
    """Draw small values for every layer; name: how a publisher numbers block and convolution."""
    generator, kernels, n_in = np.random.default_rng(0), dict[str, tuple[Array, Array]](), 3
    for block, n_convolutions in enumerate(VGG_BLOCKS[architecture], start=1):
        for number in range(1, n_convolutions + 1):
            kernels[name.format(block, number)] = _layer(generator, 3, n_in, WIDTHS[block - 1])
            n_in = WIDTHS[block - 1]
    return kernels


def write_h5(
    path: Path, kernels: Kernels, names: tuple[str, str] = ("uniform_{}", "{}_b_1:0")
) -> Path:
    """Write kernels as Keras 1 and 2's save_weights do; names: of a layer's two data sets."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array(["input_1", *kernels, "drop9"], "S")
        for empty in ("input_1", "drop9"):
            file.create_group(empty).attrs["weight_names"] = np.zeros(0)
        for layer, pair in kernels.items():
            group, own = file.create_group(layer), [name.format(layer) for name in names]
            group.attrs["weight_names"] = np.array(own, "S")
            for name, values in zip(own, pair, strict=True):
                group.create_dataset(name, data=values)
    return path


def squeezenet(x: Array, kernels: Kernels) -> Array:
    """Map one scaled picture (h, w, 3) to the last feature map (h', w', 512)."""
    x = max_pool(np.maximum(convolve(x, *kernels["conv1"], stride=2), 0), 3)
    for number in FIRES:
        squeezed = np.maximum(convolve(x, *kernels[f"fire{number}/squeeze1x1"]), 0)
        left = convolve(squeezed, *kernels[f"fire{number}/expand1x1"])
        same = np.pad(squeezed, ((1, 1), (1, 1), (0, 0)))
        right = convolve(same, *kernels[f"fire{number}/expand3x3"])
        x = np.maximum(np.concatenate([left, right], axis=2), 0)
        if number in POOL_AFTER:
            x = max_pool(x, 3)
    return x


def vgg(x: Array, kernels: Kernels, architecture: str) -> Array:
    """Map one scaled picture (h, w, 3) to the last feature map (h', w', WIDTHS[-1])."""
    layers = iter(kernels.values())
    for n_convolutions in VGG_BLOCKS[architecture]:
        for _ in range(n_convolutions):
            x = np.maximum(convolve(np.pad(x, ((1, 1), (1, 1), (0, 0))), *next(layers)), 0)
        x = max_pool(x, 2)
    return x


def convolve(x: Array, kernel: Array, bias: Array, stride: int = 1) -> Array:
    """Correlate (h, w, in) with (kh, kw, in, out), without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
    found: Array = np.einsum("hwikl,klio->hwo", windows[::stride, ::stride], kernel, optimize=True)
    return found + bias


def max_pool(x: Array, size: int) -> Array:
    """Take the maximum of size x size cells every two, only where all of them are there."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))
    found: Array = windows[::2, ::2].max(axis=(3, 4))
    return found


class Evil:
    """Makes a folder when it is unpickled by a loader that runs code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)
