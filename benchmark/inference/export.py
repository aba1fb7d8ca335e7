"""A trained network as a file for other runtimes, and the proof that it says the same there.

The file takes pictures as they are, (n, 3, px, px) uint8 RGB, and gives softmax probabilities per
task: scaling, the order of channels and resizing are inside. Only what was compared with the
original is left behind.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmark import __version__
from benchmark.errors import RunError
from benchmark.evaluation.predictions import LIMITS
from benchmark.files import canonical_json, replacing
from benchmark.inference.load import TrainedRun, load_trained
from benchmark.models.network import Network, pooled
from benchmark.models.weight_readers import header_of
from benchmark.tasks import AGE_GROUP_RULE, CLASS_NAMES, TaskName

Format = Literal["onnx", "safetensors"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
ENDINGS: Final[dict[Format, str]] = {
    "onnx": ".onnx",
    "safetensors": ".safetensors",
}
TOLERANCE: Final = 1e-3
"""The most that a probability may differ from the original's."""
OPSET: Final = 18
N_RANDOM: Final = 64
BATCHES: Final = (1, 2, 5)
"""Sizes that are tried besides the whole, to see that none is built into the file."""
METADATA_KEY: Final = "facebench"

Pixels = npt.NDArray[np.uint8]
Probabilities = dict[TaskName, npt.NDArray[np.float32]]
Apply = Callable[[Pixels], Probabilities]


class Portable(nn.Module):
    """A network without what other runtimes do not know: autocast, antialiased resizing, dicts."""

    resizing: Tensor

    def __init__(self, network: Network, tasks: tuple[TaskName, ...], faces_px: int) -> None:
        super().__init__()
        self.network = network
        self.tasks = tasks
        side = network.scaling.input_px
        self.resizes = side != faces_px
        self.register_buffer("resizing", resizing_matrix(faces_px, side))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map (n, 3, px, px) uint8 RGB to (n, classes) probabilities, a tensor per task."""
        scaling = self.network.scaling
        pixels = images.float()
        if scaling.preprocessing.channels == "BGR":
            pixels = pixels.flip(1)
        if self.resizes:
            pixels = self.resizing @ pixels @ self.resizing.T
        feature_map = self.network.trunk(pixels * scaling.factor + scaling.offset)
        features = feature_map.flatten(1) if self.network.flattened else pooled(feature_map)
        logits = self.network.head(features)
        return tuple(logits[task].softmax(1) for task in self.tasks)


def resizing_matrix(before_px: int, after_px: int) -> Tensor:
    """Give R, (after, before), with which R @ picture @ R.T is torch's antialiased resizing.

    It is linear, and the same along both sides, so that resizing the unit matrix along one shows
    it; a product of matrices is known to every runtime.
    """
    unit = torch.eye(before_px)[None, None]
    size = (after_px, before_px)
    return nn.functional.interpolate(unit, size, mode="bilinear", antialias=True)[0, 0]


@dataclass(frozen=True)
class Comparison:
    """How far an exported file's probabilities are from the original's, on some pictures."""

    on: str
    n_pictures: int
    max_difference: float
    n_labels_differ: int
    """Pictures and tasks where the most probable class is another."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compared."""

    path: Path
    format: Format
    comparisons: tuple[Comparison, ...]
    n_bytes: int


def export(
    network: TrainedRun, to: Format, path: Path, faces: Mapping[str, Pixels] | None = None
) -> Exported:
    """Write a network as `path`, once what is written answers as the original does.

    faces: besides random pictures, real ones to compare on, by what they are called: (n, px, px, 3)
    uint8 RGB of the network's size. Raises RunError where a package is missing, the format cannot
    hold the network, or the answers differ; nothing is left at `path` then, an older file is kept.
    """
    original = Portable(
        network.trained.network.cpu().eval(), network.tasks, network.faces_px
    ).eval()
    pictures = {"random pictures": random_pictures(network.faces_px), **(faces or {})}
    try:
        with replacing(path) as temporary:
            apply = _WRITERS[to](original, network, temporary)
            reference = _reference(network)
            comparisons = tuple(
                _compared(apply, reference, name, values) for name, values in pictures.items()
            )
            _check(comparisons, to)
            n_bytes = temporary.stat().st_size
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
    return Exported(path, to, comparisons, n_bytes)


def random_pictures(px: int) -> Pixels:
    """Make pictures of noise, and the extremes: all black, all white, and each colour alone."""
    noise = np.random.default_rng(0).integers(0, 256, (N_RANDOM, px, px, 3), dtype=np.uint8)
    for number, colour in enumerate(np.ndindex(2, 2, 2)):
        noise[number] = 255 * np.array(colour, dtype=np.uint8)
    return noise


def description(network: TrainedRun) -> dict[str, Any]:
    """Say what a user of the file needs to know, as plain values; it is kept in the file."""
    px = network.faces_px
    return {
        "facebench": __version__,
        "network": network.title,
        "weights_sha256": network.sha256(),
        "input": {
            "name": "images",
            "shape": ["n", 3, px, px],
            "type": "uint8",
            "channels": "RGB",
            "values": "0 to 255, as they are in the picture",
            "picture": f"a face, brought to {px} x {px} pixels as `facebench data prepare` does",
        },
        "outputs": {task: list(CLASS_NAMES[task]) for task in network.tasks},
        "outputs_are": "softmax probabilities (n, classes), uncalibrated",
        "age_group_rule": AGE_GROUP_RULE,
        "temperatures": dict(network.temperatures),
        "preprocessing": {
            "is_inside": True,
            "input_px": network.trained.network.scaling.input_px,
            **network.trained.network.scaling.preprocessing.as_dict(),
        },
        "limits": list(LIMITS[:2]),
    }


def _reference(network: TrainedRun) -> Apply:
    """Give what the original says, by the very code that `predict` and MLflow use."""

    def apply(pixels: Pixels) -> Probabilities:
        table = network.trained.predict(pixels)
        return {
            task: table[[f"{task}_p{label}" for label in range(len(CLASS_NAMES[task]))]].to_numpy()
            for task in network.tasks
        }

    return apply


def _compared(apply: Apply, reference: Apply, name: str, pixels: Pixels) -> Comparison:
    """Compare on all pictures at once, and on a few in small batches."""
    expected = reference(pixels)
    largest, n_labels = 0.0, 0
    for n_faces in (*(size for size in BATCHES if size < len(pixels)), len(pixels)):
        found = apply(pixels[:n_faces])
        for task, values in expected.items():
            if found[task].shape != values[:n_faces].shape:
                raise RunError(
                    f"the exported file gives {task} of {n_faces} faces as {found[task].shape}",
                    allowed=f"{values[:n_faces].shape}",
                )
            difference = np.abs(found[task] - values[:n_faces])
            # A NaN is larger than anything: max alone could lose it.
            largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
            if n_faces == len(pixels):
                n_labels += int((found[task].argmax(1) != values.argmax(1)).sum())
    return Comparison(name, len(pixels), largest, n_labels)


def _check(comparisons: tuple[Comparison, ...], to: Format) -> None:
    for found in comparisons:
        if not found.max_difference <= TOLERANCE:
            raise RunError(
                f"the {to} file answers otherwise than the network: probabilities differ by up to "
                f"{found.max_difference:.2g} on {found.n_pictures} {found.on}, so that it was "
                "not kept",
                allowed=f"up to {TOLERANCE:g}",
                fix="Export to another format, and tell us which network it was",
            )


def _as_tensor(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _write_onnx(original: Portable, network: TrainedRun, path: Path) -> Apply:
    _require("onnx", "onnxscript", "onnxruntime")
    import onnx

    px = network.faces_px
    batch = torch.export.Dim("n", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own doing
        program = torch.onnx.export(
            original,
            (torch.zeros(2, 3, px, px, dtype=torch.uint8),),
            input_names=["images"],
            output_names=list(original.tasks),
            dynamic_shapes=({0: batch},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {METADATA_KEY: canonical_json(description(network))})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return onnx_runtime(path, original.tasks)


def onnx_runtime(path: Path, tasks: tuple[TaskName, ...]) -> Apply:
    """Open an exported ONNX file with ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)

    def apply(pixels: Pixels) -> Probabilities:
        answers = session.run(list(tasks), {"images": _as_tensor(pixels).numpy()})
        return dict(zip(tasks, answers, strict=True))

    return apply


def _write_safetensors(original: Portable, network: TrainedRun, path: Path) -> Apply:
    """Write the tensors as the run has them; what is to be done with them, in the header."""
    from safetensors.torch import save

    tensors = {
        name: value.detach().contiguous() for name, value in original.network.state_dict().items()
    }
    told = description(network)
    told["preprocessing"]["is_inside"] = False
    told["outputs_are"] = "logits, whose softmax are probabilities (n, classes), uncalibrated"
    header = {**header_of(network.path), METADATA_KEY: canonical_json(told)}
    path.write_bytes(save(tensors, header))
    copy = TrainedRun(load_trained(path), path, network.faces_px, network.title)
    return _reference(copy)


_WRITERS: Final[dict[Format, Callable[[Portable, TrainedRun, Path], Apply]]] = {
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
}


def _require(*packages: str) -> None:
    import importlib

    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise RunError(
                f"{package} is not installed ({error})",
                allowed="the optional extra `export`",
                fix="pip install 'facebench[export]', or export to safetensors",
            ) from error


def read_description(path: Path) -> dict[str, Any]:
    """Read what `description` left in an exported file."""
    if path.suffix == ENDINGS["onnx"]:
        import onnx

        props = onnx.load(str(path)).metadata_props
        text = next(item.value for item in props if item.key == METADATA_KEY)
    else:
        text = header_of(path)[METADATA_KEY]
    found: dict[str, Any] = json.loads(text)
    return found
