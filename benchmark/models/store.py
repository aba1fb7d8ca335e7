"""One converted weight file: safetensors that say where they came from and what they demand.

Beside them lie the pins, `pins.json`: the sums of files whose publishers say none, or not the whole
of one, as first met, by the published file's name. A file that later comes with another is refused.

Which files exist, and how they get here, is for benchmark.models.weights and adding.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.files import canonical_json, replacing, write_json
from benchmark.models.channel_order import KnownFirstLayer, first_kernel
from benchmark.models.conversion import check_fits
from benchmark.models.layouts import trunk_tensors
from benchmark.models.places import stored_path
from benchmark.models.preprocessing import Preprocessing
from benchmark.models.sources import PublishedFile

SCHEMA: Final = 1
PINS_SCHEMA: Final = 1
PINS_FILE: Final = "pins.json"
ENVIRONMENT_VARIABLE: Final = "FACEBENCH_WEIGHTS_DIR"
HEADER: Final = "facebench"
"""Key of the description in a stored file's metadata."""


@dataclass(frozen=True)
class FacesSeen:
    """Faces that weights were trained on in a run of ours, and under which split."""

    run: str
    """Identity of the run."""
    dataset: str
    pixel_digest: str
    split_digest: str
    split_version: str
    fold: int | None
    leaky: bool
    """Whether that run, or one that it started from, had seen its test faces."""


@dataclass(frozen=True)
class WeightFile:
    """Weights at hand, with what is known of them."""

    architecture: str
    source: str
    path: Path
    sha256: str
    """Of tensors, preprocessing and options: equal weights used alike have equal sums, whatever
    file they came from. Part of a run's identity."""
    origin: str
    """Name of the published file, of the file that a person added, or the run."""
    origin_sha256: str
    published: bool
    """Whether the origin is taken to be the published file: by its sum, or by its name and layout
    where none is published. False for a person's own, and where a person insisted."""
    licence: str
    trained_on: str
    preprocessing: Preprocessing
    options: Mapping[str, str]
    from_run: str | None = None
    """Identity of the run whose trunk this is."""
    notes: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    """What was taken of the origin, and what was left, in words; known only where it was added."""
    faces_seen: tuple[FacesSeen, ...] = ()
    """By that run, and by those it started from; empty for weights that no run of ours trained."""

    @property
    def leaky(self) -> bool:
        """Whether a run that these weights come from is marked so."""
        return any(seen.leaky for seen in self.faces_seen)

    @property
    def is_own(self) -> bool:
        """Whether a person added it under a label, or it is a run's trunk."""
        return ":" in self.source


def write_stored(described: WeightFile, tensors: Mapping[str, Tensor]) -> None:
    """Write the file that `described` describes, whole or not at all."""
    metadata = {
        **dataclasses.asdict(dataclasses.replace(described, options=dict(described.options))),
        "schema": SCHEMA,
        "preprocessing": described.preprocessing.as_dict(),
    }
    del metadata["path"], metadata["from_run"], metadata["notes"]  # a run's trunk is never stored
    if not described.faces_seen:
        del metadata["faces_seen"]
    try:
        with replacing(described.path) as temporary:
            save_file(dict(tensors), temporary, metadata={HEADER: canonical_json(metadata)})
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
        described = _described(path)
        tensors = load_file(path)
        here = content_sha256(tensors, described.preprocessing, described.options)
        if here != described.sha256:
            message = f"its content's sha256 is {here}, not {described.sha256}"
            raise ValueError(message)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None
    check_fits(described.architecture, tensors, str(path))
    return described, tensors


def describe_stored(path: Path) -> WeightFile:
    """Read what a converted file says of itself; raise WeightsError if it cannot be read.

    One that was cut short is found out, one whose tensors were changed is not.
    """
    try:
        return _described(path)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None


def _described(path: Path) -> WeightFile:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, Any] = json.loads((file.metadata() or {})[HEADER])
    if metadata.pop("schema") != SCHEMA:
        message = f"its schema is not {SCHEMA}"
        raise ValueError(message)
    seen = metadata.pop("faces_seen", [])
    described = WeightFile(
        path=path,
        preprocessing=Preprocessing.from_dict(metadata.pop("preprocessing")),
        faces_seen=tuple(FacesSeen(**item) for item in seen),
        **metadata,
    )
    if path.name != stored_path(described.architecture, described.source, path.parent).name:
        message = f"it holds {described.architecture}-{described.source}"
        raise ValueError(message)
    return described


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path.name} is damaged ({error})",
        allowed="a file written by facebench weights add",
        source=str(path),
        fix="Delete it, then: facebench weights add FILE",
    )


def known_first_layers(architecture: str, weights_dir: Path) -> Iterator[KnownFirstLayer]:
    """Give the first layers of an architecture's published weights that are at hand.

    What a person declared for weights of their own proves nothing, so those are left out.
    """
    for path in sorted(weights_dir.glob(f"{architecture}-*.safetensors")):
        try:
            described = _described(path)
            if described.published and described.architecture == architecture:
                with safe_open(path, framework="pt") as file:
                    kernel = file.get_tensor(_first_kernel_name(architecture))
                order = described.preprocessing.channels
                yield KnownFirstLayer(f"{architecture} {described.source}", kernel, order)
        except (WeightsError, SafetensorError, OSError, LookupError, TypeError, ValueError):
            continue  # verify says what is wrong with it


def _first_kernel_name(architecture: str) -> str:
    wanted = trunk_tensors(architecture)
    kernel = first_kernel(wanted)
    return next(name for name, tensor in wanted.items() if tensor is kernel)


@dataclass(frozen=True)
class Pin:
    """The sum that a published file had when it was first met."""

    sha256: str
    when: str
    """ISO 8601, UTC."""


def read_pins(weights_dir: Path) -> dict[str, Pin]:
    """Read the pins by file name; none where there is no `pins.json`.

    Raise WeightsError for one that cannot be read: going on would trust anything anew.
    """
    path = weights_dir / PINS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != PINS_SCHEMA:
            message = f"its schema is {content['schema']!r}, not {PINS_SCHEMA}"
            raise ValueError(message)
        return {name: Pin(str(pin["sha256"]), str(pin["when"])) for name, pin in
                content["pins"].items()}  # fmt: skip
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{PINS_FILE} cannot be read ({error})",
            allowed="the JSON that facebench wrote",
            source=str(path),
            fix="Restore it from a backup; or delete it, and every sum in it is taken anew",
        ) from None


def check_pin(known: PublishedFile, sha256: str, weights_dir: Path) -> None:
    """Raise WeightsError if `known` is pinned to another sum than this."""
    pin = read_pins(weights_dir).get(known.file_name)
    if pin is not None and pin.sha256 != sha256:
        raise WeightsError(
            f"{known.file_name} has the sha256 {sha256}, but was pinned to another",
            allowed=f"{pin.sha256}, pinned {pin.when[:10]}",
            source=str(weights_dir / PINS_FILE),
            fix="Something between its publisher and you has changed it. If its publisher says so "
            f"too, remove the entry {known.file_name!r} from {PINS_FILE} and add the file again; "
            "results from before and after are not comparable",
        )


def pin(known: PublishedFile, sha256: str, weights_dir: Path) -> None:
    """Remember the sum of a file whose published sum, if any, could be another's too.

    Raise WeightsError if it is pinned to another, OSError where nothing can be written.
    """
    if known.has_whole_sha256:
        return
    check_pin(known, sha256, weights_dir)
    pins = read_pins(weights_dir)
    if known.file_name not in pins:
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        pins[known.file_name] = Pin(sha256, when)
        content = {name: dataclasses.asdict(pinned) for name, pinned in pins.items()}
        write_json(weights_dir / PINS_FILE, {"schema": PINS_SCHEMA, "pins": content})


def labels_of(architecture: str, weights_dir: Path) -> list[str]:
    """List the labels under which weights of an architecture were added here."""
    start = f"{architecture}-local-"
    found = weights_dir.glob(f"{start}*.safetensors")
    return sorted(path.stem.removeprefix(start) for path in found)
