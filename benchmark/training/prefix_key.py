"""When the frozen part of a network may be computed once, and what makes two of them the same."""

import hashlib
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from benchmark.experiment import Augmentation
from benchmark.files import canonical_json
from benchmark.models.network import FEATURES, Network
from benchmark.training.device import Device

SCHEMA: Final = 1
"""Raised when the same key would mean other numbers."""
VIEWS: Final = ("as_is", "mirrored")
"""What a face may look like; mirrored only where the recipe flips."""


@dataclass(frozen=True)
class PrefixRequest:
    """Whose activations are wanted, and how the faces may be changed."""

    pixel_digest: str
    """sha256 of the packed array that the faces come from."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    rows: Tensor | None = None
    """Ascending rows of the packed array, (n,) int64 on the CPU; None for all of them."""


def views_of(augmentation: Augmentation) -> tuple[str, ...]:
    """Name the views that make up the declared bank of an augmentation; empty where none can."""
    if augmentation == Augmentation():
        return VIEWS[:1]
    return VIEWS if augmentation == Augmentation(flip=True) else ()


def why_live(network: Network, augmentation: Augmentation) -> str | None:
    """Say why the frozen part must be computed anew for every batch; None: it need not be."""
    if network.cut is None:
        frozen = len(network.trunk.stages) - len(network.trained_stages)
        if frozen == 0:
            return "nothing is frozen"
        return f"the frozen stages of {network.trunk.architecture} cannot be cut off"
    if not views_of(augmentation):
        return "the faces are changed in endlessly many ways (only flips make a finite bank)"
    for name, module in prefix_modules(network).items():
        if any(parameter.requires_grad for parameter in module.parameters()):
            return f"{name} is frozen by name, but has parameters that are trained"
        for inner in module.modules():
            if inner.training:
                return f"{name} is frozen, but {type(inner).__name__} in it is in train mode"
            is_norm = isinstance(inner, nn.modules.batchnorm._BatchNorm)
            if is_norm and not inner.track_running_stats:
                return f"a batch norm in {name} depends on which faces share a batch"
    return None


def prefix_modules(network: Network) -> dict[str, nn.Module]:
    """Give the modules before the cut, by name."""
    if network.cut == FEATURES:
        return {"trunk": network.trunk}
    stages = network.trunk.stages
    assert isinstance(stages, nn.ModuleDict)
    return {name: stages[name] for name in stages if name not in network.trained_stages}


def key_of(network: Network, device: Device, request: PrefixRequest, view: str) -> str:
    """Digest everything that the activations of one view depend on: 64 hexadecimal digits."""
    content = {
        "schema": SCHEMA,
        "weights": _digest_of_weights(network),
        "architecture": network.trunk.architecture,
        "options": dict(network.trunk.options),
        "cut": network.cut,
        "flattened": network.flattened and network.cut == FEATURES,
        "preprocessing": network.scaling.preprocessing.as_dict(),
        "input_px": network.scaling.input_px,
        "precision": device.precision,
        "channels_last": device.channels_last,
        "kind": device.kind,
        "exact": device.exact and device.kind != "cpu",
        "pixels": request.pixel_digest,
        "rows": _digest_of_rows(request.rows),
        "view": view,
        "torch": torch.__version__,
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _digest_of_weights(network: Network) -> str:
    """Digest parameters and buffers before the cut, by name: what they are, not whose."""
    digest = hashlib.sha256()
    for name, module in sorted(prefix_modules(network).items()):
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        for path, value in sorted(tensors.items()):
            digest.update(f"{name}.{path} {value.dtype} {tuple(value.shape)}\n".encode())
            values = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(values.numpy().data)
    return digest.hexdigest()


def _digest_of_rows(rows: Tensor | None) -> str | None:
    return None if rows is None else hashlib.sha256(rows.contiguous().numpy().data).hexdigest()
