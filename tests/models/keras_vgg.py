"""An independent VGG by Keras's rules, in numpy alone, and files in the layouts it is published in.

Nothing here is shared with benchmark.models: channels come last, kernels are HWIO, `same` padding,
`valid` pooling floors. Architecture: keras/applications/vgg16.py and vgg19.py; the VGG Face names
are those of rcmalli/keras-vggface, keras_vggface/models.py.
"""

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from tests.models.keras_squeezenet import convolve

Array = npt.NDArray[np.float32]
Kernels = list[list[tuple[Array, Array]]]
"""Blocks of convolutions: kernel (3, 3, in, out) and bias (out,)."""

VGG16 = (2, 2, 3, 3, 3)
VGG19 = (2, 2, 4, 4, 4)
WIDTHS = (8, 8, 12, 12, 16)
"""Narrower than published, which no name depends on: tests make the backbone so, too."""


def random_kernels(blocks: tuple[int, ...], seed: int = 0) -> Kernels:
    """Draw values that keep activations about as large as they are."""
    generator = np.random.default_rng(seed)
    kernels: Kernels = []
    n_in = 3
    for n_convolutions, width in zip(blocks, WIDTHS, strict=True):
        kernels.append([])
        for _ in range(n_convolutions):
            kernel = generator.standard_normal((3, 3, n_in, width), np.float32)
            bias = generator.standard_normal(width, np.float32)
            kernels[-1].append((kernel * np.float32(np.sqrt(2 / (9 * n_in))), bias))
            n_in = width
    return kernels


def write_imagenet_h5(path: Path, kernels: Kernels) -> Path:
    """Write as keras.applications publishes it: `block1_conv1`, data sets `..._W_1:0`."""
    layers = {
        f"block{block}_conv{number}": pair
        for block, pairs in enumerate(kernels, start=1)
        for number, pair in enumerate(pairs, start=1)
    }
    return _write(path, layers, ("{}_W_1:0", "{}_b_1:0"), empty=("input_1", "block5_pool"))


def write_vggface_h5(path: Path, kernels: Kernels) -> Path:
    """Write as keras-vggface publishes it: `conv1_1`, data sets `conv1_1/kernel:0`."""
    layers = {
        f"conv{block}_{number}": pair
        for block, pairs in enumerate(kernels, start=1)
        for number, pair in enumerate(pairs, start=1)
    }
    return _write(path, layers, ("{}/kernel:0", "{}/bias:0"), empty=("input_1", "pool5"))


def _write(
    path: Path,
    layers: dict[str, tuple[Array, Array]],
    names: tuple[str, str],
    empty: tuple[str, ...],
) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([*layers, *empty], "S")
        for layer in empty:
            file.create_group(layer).attrs["weight_names"] = np.zeros(0)
        for layer, pair in layers.items():
            group = file.create_group(layer)
            own = [name.format(layer) for name in names]
            group.attrs["weight_names"] = np.array(own, "S")
            for name, values in zip(own, pair, strict=True):
                group.create_dataset(name, data=values)
    return path


def caffe_input(picture: npt.NDArray[np.uint8], mean: tuple[float, float, float]) -> Array:
    """Scale one RGB picture (h, w, 3) as `preprocess_input` does: blue first, minus `mean`."""
    return picture[..., ::-1].astype(np.float32) - np.array(mean, np.float32)


def forward(x: Array, kernels: Kernels) -> Array:
    """Map one scaled picture (h, w, 3) to the last feature map (h', w', 512)."""
    for pairs in kernels:
        for kernel, bias in pairs:
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            x = np.maximum(convolve(padded, kernel, bias), 0)
        x = _max_pool(x)
    return x


def _max_pool(x: Array) -> Array:
    height, width, n_channels = x.shape
    whole = x[: height // 2 * 2, : width // 2 * 2]
    return whole.reshape(height // 2, 2, width // 2, 2, n_channels).max(axis=(1, 3))
