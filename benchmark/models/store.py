"""One converted weight file: safetensors that say where they came from and what they demand.

Which files exist, and how they get here, is for benchmark.models.weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.files import canonical_json, replacing
from benchmark.models.conversion import check_fits
from benchmark.models.preprocessing import Preprocessing

SCHEMA: Final = 1
ENVIRONMENT_VARIABLE: Final = "FACEBENCH_WEIGHTS_DIR"


@dataclass(frozen=True)
class WeightFile:
    """A converted file in the store, with what its metadata says."""

    architecture: str
    source: str
    path: Path
    sha256: str
    """Of tensors, preprocessing and options: equal weights used alike have equal sums, whatever
    file they came from. Part of a run's identity."""
    origin: str
    """Name of the published file."""
    origin_sha256: str
    published: bool
    """Whether the origin's sum is the published one; False only where a person insisted."""
    licence: str
    trained_on: str
    preprocessing: Preprocessing
    options: Mapping[str, str]


def stored_path(architecture: str, source: str, weights_dir: Path) -> Path:
    """Say where the converted file of a source belongs."""
    return weights_dir / f"{architecture}-{source}.safetensors"


def write_stored(described: WeightFile, tensors: Mapping[str, Tensor]) -> None:
    """Write the file that `described` describes, whole or not at all."""
    metadata = {
        **dataclasses.asdict(dataclasses.replace(described, options=dict(described.options))),
        "schema": SCHEMA,
        "preprocessing": described.preprocessing.as_dict(),
    }
    del metadata["path"]
    try:
        with replacing(described.path) as temporary:
            save_file(dict(tensors), temporary, metadata={"facebench": canonical_json(metadata)})
    except (OSError, SafetensorError) as error:
        raise not_written(described.path.parent, error) from None


def not_written(folder: Path, error: Exception) -> WeightsError:
    """Say that a folder takes no files, and what to do."""
    return WeightsError(
        f"weights cannot be written to {folder} ({error})",
        fix=f"Free space or set {ENVIRONMENT_VARIABLE} to a folder that can be written",
    )


def content_sha256(
    tensors: Mapping[str, Tensor], preprocessing: Preprocessing, options: Mapping[str, str]
) -> str:
    """Sum up what decides a trunk's function: every tensor's name, type, shape and bytes, and
    how it is fed and laid out."""
    demands = {"preprocessing": preprocessing.as_dict(), "options": dict(options)}
    digest = hashlib.sha256(canonical_json(demands).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def read_stored(path: Path) -> tuple[WeightFile, dict[str, Tensor]]:
    """Read a converted file and check it against its own sum; raise WeightsError if it differs."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["facebench"])
        tensors = load_file(path)
        if metadata["schema"] != SCHEMA:
            message = f"its schema is {metadata['schema']}, not {SCHEMA}"
            raise ValueError(message)
        if path.stem != f"{metadata['architecture']}-{metadata['source']}":
            message = f"it holds {metadata['architecture']}-{metadata['source']}"
            raise ValueError(message)
        described = WeightFile(
            path=path,
            preprocessing=Preprocessing.from_dict(metadata.pop("preprocessing")),
            **{key: value for key, value in metadata.items() if key != "schema"},
        )
        here = content_sha256(tensors, described.preprocessing, described.options)
        if here != described.sha256:
            message = f"its content's sha256 is {here}, not {described.sha256}"
            raise ValueError(message)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path.name} is damaged ({error})",
            allowed="a file written by facebench weights add",
            source=str(path),
            fix="Delete it, then: facebench weights add FILE",
        ) from None
    check_fits(described.architecture, tensors, str(path))
    return described, tensors
