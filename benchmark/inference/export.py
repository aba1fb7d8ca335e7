"""A trained network as a file for other runtimes, compared with the network before it is kept.

An ONNX file takes pictures as they are, (n, 3, px, px) uint8 RGB, and gives softmax probabilities
per task. A safetensors file holds the tensors, and says in its header how they are fed.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmark import __version__
from benchmark.errors import RunError
from benchmark.evaluation.predictions import Probabilities, limits_of
from benchmark.files import canonical_json, replacing, sha256_of
from benchmark.inference.load import Pixels, TrainedNetwork, load_trained
from benchmark.models.network import Network, pooled
from benchmark.models.weight_formats import header_of
from benchmark.tasks import AGE_GROUP_RULE, CLASS_NAMES, TaskName

Format = Literal["onnx", "safetensors"]
TOLERANCE: Final = 1e-3
"""The most that a probability may differ from the original's."""
OPSET: Final = 18
N_RANDOM: Final = 64
BATCHES: Final = (1, 2, 5)
"""Sizes that are tried besides the whole, to see that none is built into the file."""
METADATA_KEY: Final = "facebench"

Apply = Callable[[Pixels], Probabilities]


class Portable(nn.Module):
    """A network without what other runtimes do not know: autocast, antialiased resizing, dicts."""

    resizing: Tensor

    def __init__(self, network: Network, tasks: tuple[TaskName, ...], faces_px: int) -> None:
        super().__init__()
        self.network, self.tasks = network, tasks
        side = network.scaling.input_px
        # R, with which R @ picture @ R.T is torch's antialiased resizing: it is linear, and the
        # same along both sides, so that resizing the unit matrix along one shows it.
        how: dict[str, Any] = {"size": (side, faces_px), "mode": "bilinear", "antialias": True}
        matrix = nn.functional.interpolate(torch.eye(faces_px)[None, None], **how)[0, 0]
        self.register_buffer("resizing", matrix)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map (n, 3, px, px) uint8 RGB to (n, classes) probabilities, a tensor per task."""
        scaling = self.network.scaling
        pixels = images.float()
        if scaling.preprocessing.channels == "BGR":
            pixels = pixels.flip(1)
        if self.resizing.shape[0] != self.resizing.shape[1]:
            pixels = self.resizing @ pixels @ self.resizing.T
        feature_map = self.network.backbone(pixels * scaling.factor + scaling.offset)
        features = feature_map.flatten(1) if self.network.flattened else pooled(feature_map)
        logits = self.network.head(features)
        return tuple(logits[task].softmax(1) for task in self.tasks)


def export(
    trained: TrainedNetwork, to: Format, path: Path, faces: Mapping[str, Pixels] | None = None
) -> list[dict[str, Any]]:
    """Write a network as `path`, once what is written answers as the original does.

    faces: besides random pictures, real ones to compare on, by what they are called: (n, px, px, 3)
    uint8 RGB of the network's size. Gives per kind `on`, `pictures`, `max_difference` of a
    probability, and `labels_that_differ`. Raises RunError where a package is missing or the answers
    differ; what is at `path` is then left as it is.
    """
    pictures = {"random pictures": random_pictures(trained.faces_px), **(faces or {})}
    trained.network.cpu().eval()
    write = _write_onnx if to == "onnx" else _write_safetensors
    try:
        with replacing(path) as temporary:
            apply = write(trained, temporary)
            return [_compared(apply, trained, name, them) for name, them in pictures.items()]
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def random_pictures(px: int) -> Pixels:
    """Make pictures of noise, and black, white and each colour alone."""
    noise = np.random.default_rng(0).integers(0, 256, (N_RANDOM, px, px, 3), dtype=np.uint8)
    for number, colour in enumerate(np.ndindex(2, 2, 2)):
        noise[number] = 255 * np.array(colour, dtype=np.uint8)
    return noise


def description(trained: TrainedNetwork, *, is_inside: bool = True) -> dict[str, Any]:
    """Say what a user of the file needs to know, as plain values that are kept in it; is_inside:
    whether scaling and softmax are, too."""
    px, scaling = trained.faces_px, trained.network.scaling
    outputs = "softmax probabilities" if is_inside else "logits, whose softmax are probabilities"
    dataset = trained.record.about["dataset"] if trained.record else {}
    return {
        "facebench": __version__, "network": trained.title,
        "weights_sha256": sha256_of(trained.path),
        "input": {
            "name": "images", "shape": ["n", 3, px, px], "values": "uint8 RGB, 0 to 255",
            "picture": f"a face, brought to {px} x {px} pixels as `facebench data prepare` does",
        },
        "outputs": {task: list(CLASS_NAMES[task]) for task in trained.tasks},
        "outputs_are": f"{outputs} (n, classes), uncalibrated",
        "age_group_rule": AGE_GROUP_RULE, "temperatures": dict(trained.temperatures),
        "preprocessing": {"is_inside": is_inside, "input_px": scaling.input_px}
        | asdict(scaling.preprocessing),
        "limits": list(limits_of(dataset)[:-1]),
    }  # fmt: skip


def _compared(apply: Apply, trained: TrainedNetwork, name: str, pixels: Pixels) -> dict[str, Any]:
    """Compare on all pictures at once, and on a few in small batches; RunError beyond TOLERANCE."""
    expected, most = trained.probabilities(pixels), 0.0
    for n_faces in (*(size for size in BATCHES if size < len(pixels)), len(pixels)):
        found = apply(pixels[:n_faces])
        for task, values in expected.items():
            difference = np.abs(found[task] - values[:n_faces])
            # A NaN is larger than anything: max alone could lose it.
            most = max(most, float(np.nan_to_num(difference, nan=np.inf).max()))
    if most > TOLERANCE:
        raise RunError(
            "the exported file does not predict what the network does: probabilities differ by up "
            f"to {most:.2g} on {len(pixels)} {name}, so that it was not kept",
            allowed=f"up to {TOLERANCE:g}",
            fix="Export to another format",
        )
    n_labels = sum(int((found[t].argmax(1) != it.argmax(1)).sum()) for t, it in expected.items())
    counts = {"on": name, "pictures": len(pixels), "labels_that_differ": n_labels}
    return counts | {"max_difference": most}


def _write_onnx(trained: TrainedNetwork, path: Path) -> Apply:
    try:
        import onnx
        import onnxruntime  # noqa: F401, for the comparison
        import onnxscript  # noqa: F401, for torch's exporter
    except ImportError as error:
        raise RunError(
            f"{error.name} is not installed ({error})",
            allowed="the optional extra `export`",
            fix="pip install 'facebench[export]', or export to safetensors",
        ) from error
    px = trained.faces_px
    portable = Portable(trained.network, trained.tasks, px).eval()
    example = (torch.zeros(2, 3, px, px, dtype=torch.uint8),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own doing
        program = torch.onnx.export(
            portable, example, input_names=["images"], output_names=list(trained.tasks),
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},), opset_version=OPSET, dynamo=True,
            verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {METADATA_KEY: canonical_json(description(trained))})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return onnx_runtime(path, trained.tasks)


def onnx_runtime(path: Path, tasks: tuple[TaskName, ...]) -> Apply:
    """Open an exported ONNX file with ONNX Runtime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def apply(pixels: Pixels) -> Probabilities:
        images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return dict(zip(tasks, session.run(list(tasks), {"images": images}), strict=True))

    return apply


def _write_safetensors(trained: TrainedNetwork, path: Path) -> Apply:
    """Write the tensors as the run has them; how they are used, in the header."""
    tensors = {name: it.contiguous() for name, it in trained.network.state_dict().items()}
    said = canonical_json(description(trained, is_inside=False))
    save_file(tensors, path, {**header_of(trained.path), METADATA_KEY: said})
    return load_trained(path).probabilities
