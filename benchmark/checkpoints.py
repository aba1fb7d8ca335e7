"""Mid-run checkpoints and the weights of a finished run; both load as tensors only."""

import io
import json
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save

from benchmark.experiment import Experiment
from benchmark.files import canonical_json, replacing
from benchmark.models.network import Network

CHECKPOINT_FILE: Final = "checkpoint.pt"
"""In a run's folder, until the run is done."""
HEADER: Final = b"facebench checkpoint "
HEADER_BYTES: Final = len(HEADER) + 9
"""With the CRC-32 of what follows in eight digits: torch.load lets a changed tensor pass."""
LENGTH_BYTES: Final = 8
"""A safetensors file begins with its header's length; the header is padded to a multiple of it."""
ZIP: Final = b"PK"
"""How torch.save begins: checkpoints of an older facebench have no header before it."""


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a mid-run checkpoint atomically; a full disk raises OSError like any other write.

    torch.save into a file would answer a full disk with an internal error of its own.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(HEADER + b"%08x\n" % zlib.crc32(content))
        stream.write(content)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a mid-run checkpoint onto the CPU; None where there is none or it is damaged.

    A damaged checkpoint costs the epochs it held, never the run: training starts anew.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if content.startswith(HEADER):
        header, content = content[:HEADER_BYTES], content[HEADER_BYTES:]
        if header != HEADER + b"%08x\n" % zlib.crc32(content):
            return None
    elif not content.startswith(ZIP):
        return None
    try:
        checkpoint: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, pickle.UnpicklingError):
        return None
    except zipfile.BadZipFile:
        return None
    return checkpoint


def save_weights(
    path: Path, network: Network, experiment: Experiment, *, faces_px: int | None = None
) -> None:
    """Write a network's tensors with the definition that rebuilds it in the file's header.

    faces_px: side of the faces that it was trained on, which is not the side it works at.
    """
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    with replacing(path) as temporary:
        header = {
            "experiment": canonical_json(experiment.as_dict()),
            "network": canonical_json(network.describe()),
            **({"faces_px": str(faces_px)} if faces_px else {}),
        }
        with temporary.open("wb") as stream:
            stream.writelines(_in_order(save(tensors, header)))


def _in_order(content: bytes) -> tuple[bytes, bytes, memoryview]:
    """Give a safetensors file with its notes sorted: equal weights are to be equal files.

    The library writes them in another order each time.
    """
    end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    header = json.loads(content[LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little"), text, memoryview(content)[end:]
