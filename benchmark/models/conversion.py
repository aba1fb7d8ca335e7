"""From the layouts in which weights are published to the tensors of our trunks, and nothing else.

Files are read as tensors only: a pickle with code in it is refused. Whether a file is the one that
was published, and where the converted one is kept, is for benchmark.models.weights.
"""

from __future__ import annotations

import pickle
import struct
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.models.backbones import OPTIONS, build_trunk
from benchmark.models.sources import LayoutName

NOT_LOADABLE: Final = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
"""What torch.load was seen to raise, or can, on bytes that are no whole state dict."""

FETCH_AGAIN: Final = "Fetch it again: facebench weights list --json has the addresses"


@dataclass(frozen=True)
class Layout:
    """How one publisher names the tensors of an architecture."""

    name: LayoutName
    architecture: str
    names: Mapping[str, str]
    """Tensor of our trunk → tensor of the file."""
    left_behind: frozenset[str]
    """Tensors of the file's classifier, which no trunk has."""

    def score(self, found: Mapping[str, Tensor]) -> int:
        """Count the tensors that this layout knows by name."""
        return sum(name in found for name in self.names.values())


FIRES: Final = {"fire2_3": (2, 3), "fire4_5": (4, 5), "fire6_9": (6, 7, 8, 9)}
TORCHVISION_INDEX: Final = {2: 3, 3: 4, 4: 6, 5: 7, 6: 9, 7: 10, 8: 11, 9: 12}
"""Fire module → its place in torchvision's `features`, where the pools are counted too."""


def _squeezenet_layouts() -> Iterator[Layout]:
    keras = {"stages.conv1.conv": "conv1"}
    torchvision = {"stages.conv1.conv": "features.0"}
    for stage, fires in FIRES.items():
        for fire in fires:
            for ours, theirs in (("squeeze", "squeeze1x1"), ("expand1x1",) * 2, ("expand3x3",) * 2):
                module = f"stages.{stage}.fire{fire}.{ours}"
                keras[module] = f"fire{fire}/{theirs}"
                torchvision[module] = f"features.{TORCHVISION_INDEX[fire]}.{ours}"
    ends = {"weight": "kernel", "bias": "bias"}
    yield Layout(
        "keras_squeezenet1_1",
        "squeezenet1_1",
        {f"{ours}.{end}": f"{keras[ours]}:{ends[end]}" for ours in keras for end in ends},
        frozenset({"conv10:kernel", "conv10:bias"}),
    )
    yield Layout(
        "torchvision_squeezenet1_1",
        "squeezenet1_1",
        {f"{ours}.{end}": f"{torchvision[ours]}.{end}" for ours in torchvision for end in ends},
        frozenset({"classifier.1.weight", "classifier.1.bias"}),
    )


LAYOUTS: Final[tuple[Layout, ...]] = tuple(_squeezenet_layouts())


def convert(path: Path) -> tuple[Layout, dict[str, Tensor]]:
    """Read a published file and give its layout and the tensors of our trunk, float32.

    Raise WeightsError for anything that is not wholly one of the known layouts.
    """
    found = read_tensors(path)
    layout = max(LAYOUTS, key=lambda known: known.score(found))
    if layout.score(found) == 0:
        some = ", ".join(sorted(found)[:3]) or "none at all"
        raise WeightsError(
            f"{path.name} holds tensors of no known layout ({some} ...)",
            allowed=", ".join(known.name for known in LAYOUTS),
            source=str(path),
            fix="A new layout is added in benchmark/models/conversion.py",
        )
    unexpected = found.keys() - set(layout.names.values()) - layout.left_behind
    renamed = {ours: found[theirs] for ours, theirs in layout.names.items() if theirs in found}
    check_fits(layout.architecture, renamed, str(path), theirs=layout.names, unexpected=unexpected)
    return layout, {name: tensor.float().contiguous() for name, tensor in renamed.items()}


def check_fits(
    architecture: str,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    theirs: Mapping[str, str] | None = None,
    unexpected: Collection[str] = (),
) -> None:
    """Raise WeightsError unless `tensors` are exactly the state of the architecture's trunk.

    `theirs` gives the names under which a person finds them in the file, `unexpected` those of the
    file's tensors that have no place in the trunk.
    """
    options = {option: values[0] for option, values in OPTIONS[architecture].items()}
    with torch.device("meta"):
        wanted = build_trunk(architecture, **options).state_dict()
    names = theirs or {name: name for name in wanted}
    found = [
        _misfit(names[name], tensors[name], wanted[name]) for name in wanted if name in tensors
    ]
    misfits = [misfit for misfit in found if misfit]
    misfits += [f"missing {names[name]}" for name in wanted if name not in tensors]
    misfits += [f"unexpected {name}" for name in sorted({*unexpected, *tensors} - wanted.keys())]
    if misfits:
        more = f" and {len(misfits) - 4} more" if len(misfits) > 4 else ""
        raise WeightsError(
            f"the tensors do not fit {architecture}: {'; '.join(misfits[:4])}{more}",
            allowed=f"exactly the {len(wanted)} tensors of the {architecture} trunk",
            source=source,
            fix=FETCH_AGAIN,
        )


def _misfit(name: str, tensor: Tensor, wanted: Tensor) -> str:
    """Say what keeps a tensor from taking the place of `wanted`; nothing where it fits."""
    if tensor.shape != wanted.shape:
        return f"{name} of shape {tuple(tensor.shape)} instead of {tuple(wanted.shape)}"
    if wanted.is_floating_point() and not tensor.is_floating_point():
        return f"{name} of type {tensor.dtype} instead of a float"
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        return f"{name} with values that are not finite"
    return ""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors under the file's own names; its first bytes say what it is.

    HDF5 (Keras), torch zip or pickle (`weights_only`), safetensors. Raise WeightsError for others.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror or error})",
            allowed=".h5, .pth, .pt or .safetensors",
            fix="Give the path of a weight file",
        ) from None
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return _read_keras(path)
    if start.startswith(b"PK\x03\x04") or start[:1] == b"\x80":
        return _read_torch(path)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    kind = "an HTML page" if _is_markup(start) else "no weight file"
    raise WeightsError(
        f"{path.name} is {kind if start else 'empty'}",
        allowed="Keras HDF5, torch's .pth or .pt, safetensors",
        source=str(path),
        fix=FETCH_AGAIN,
    )


def _is_markup(start: bytes) -> bool:
    return start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))


def _damaged(path: Path, error: Exception) -> WeightsError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsError(
        f"{path.name} is damaged or cut short ({reason})", source=str(path), fix=FETCH_AGAIN
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols: what does not load is refused
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path.name} holds code or objects besides tensors, which are never loaded",
            allowed="a state dict of tensors",
            source=str(path),
            fix="Fetch the published file, or save only model.state_dict() where you trust it",
        ) from None
    except NOT_LOADABLE as error:
        raise _damaged(path, error) from None
    plain = isinstance(found, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    )
    if not plain:
        raise WeightsError(
            f"{path.name} holds {type(found).__name__} of more than tensors",
            allowed="a state dict: tensor names and tensors",
            source=str(path),
        )
    return dict(found)


def _read_keras(path: Path) -> dict[str, Tensor]:
    """Read each layer's kernel as `layer:kernel`, turned from HWIO to OIHW, and its `layer:bias`.

    Layout of Keras 1 and 2's save_weights: attribute `layer_names`, a group per layer with an
    attribute `weight_names`, data sets under those names.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            return dict(_keras_tensors(root))
    except (OSError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise _damaged(path, error) from None


def _keras_tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    for layer in _texts(root.attrs["layer_names"]):
        for name in _texts(root[layer].attrs["weight_names"]):
            values = torch.from_numpy(np.asarray(root[layer][name]))
            if values.ndim == 4:
                yield f"{layer}:kernel", values.permute(3, 2, 0, 1)
            else:
                yield f"{layer}:{'bias' if values.ndim == 1 else name}", values


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
