"""Converted weight files, which say where they came from and how they are fed; trusted checksums.

A converted file is safetensors with a description in its header. Beside them lies `pins.json`: the
checksums of files whose publishers give none, or not the whole of one, as first met. A file that
later comes with another is refused. Which files exist is for benchmark.models.weight_manifest, how
they get here for weights and weight_adding.
"""

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.files import canonical_json, replacing, write_json
from benchmark.models.preprocessing import Preprocessing
from benchmark.models.weight_formats import check_fits
from benchmark.models.weight_manifest import PublishedFile, stored_path
from benchmark.models.weight_readers import header_of, read_json
from benchmark.record import RunRecord

SCHEMA: Final = 1
HEADER: Final = "facebench"
"""Key of the description in a converted file's metadata."""
NETWORK_HEADER: Final = "network"
"""Key under which a run's network says how it is fed and built (Network.describe)."""
MODEL_FILE: Final = "model.safetensors"
TRUSTED_FILE: Final = "pins.json"
NOT_SOUND: Final = (
    SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError,
)  # fmt: skip
"""What reading a file that facebench did not write, or that was damaged since, may raise."""


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
    """Weights that are here, with what is known of them."""

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
    """Whether the origin is taken to be the published file: by its checksum, or by its name and
    layout where none is published. False for a person's own, and where a person insisted."""
    licence: str
    trained_on: str
    preprocessing: Preprocessing
    options: Mapping[str, str]
    from_run: str | None = None
    """Identity of the run whose backbone this is."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was taken of the origin, and what was left, in words; known only where it was added."""
    faces_seen: tuple[FacesSeen, ...] = ()
    """By that run, and by those it started from; empty for weights that no run of ours trained."""

    @property
    def leaky(self) -> bool:
        """Whether a run that these weights come from is marked so."""
        return any(seen.leaky for seen in self.faces_seen)

    @property
    def is_own(self) -> bool:
        """Whether a person added it under a label, or it is a run's backbone."""
        return ":" in self.source


def content_sha256(
    tensors: Mapping[str, Tensor], preprocessing: Preprocessing, options: Mapping[str, str]
) -> str:
    """Sum up what decides a backbone's function: every tensor's name, type, shape and bytes, and
    how it is fed and built."""
    demands = {"preprocessing": preprocessing.as_dict(), "options": dict(options)}
    digest = hashlib.sha256(canonical_json(demands).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def write_stored(described: WeightFile, tensors: Mapping[str, Tensor]) -> None:
    """Write the file that `described` describes, whole or not at all."""
    metadata = asdict(replace(described, options=dict(described.options)))
    metadata |= {"schema": SCHEMA, "preprocessing": described.preprocessing.as_dict()}
    for name in ("path", "from_run", "notes", *(() if described.faces_seen else ("faces_seen",))):
        del metadata[name]
    try:
        with replacing(described.path) as temporary:
            save_file(dict(tensors), temporary, metadata={HEADER: canonical_json(metadata)})
    except (OSError, SafetensorError) as error:
        raise not_written(described.path.parent, error) from None


def not_written(folder: Path, error: Exception) -> WeightsError:
    """Say that a folder takes no files, and what to do."""
    return WeightsError(
        f"weights cannot be written to {folder} ({error})",
        fix="Free space or set FACEBENCH_WEIGHTS_DIR to a folder that can be written",
    )


def describe_stored(path: Path) -> WeightFile:
    """Read what a converted file says of itself; raise WeightsError if it cannot be read.

    One that was cut short is found out, one whose tensors were changed is not: `read_stored`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {})[HEADER])
        if metadata.pop("schema") != SCHEMA:
            message = f"its schema is not {SCHEMA}"
            raise ValueError(message)
        described = WeightFile(
            path=path,
            preprocessing=Preprocessing.from_dict(metadata.pop("preprocessing")),
            faces_seen=tuple(FacesSeen(**seen) for seen in metadata.pop("faces_seen", [])),
            **metadata,
        )
        if path.name != stored_path(described.architecture, described.source, path.parent).name:
            message = f"it holds {described.architecture}-{described.source}"
            raise ValueError(message)
    except NOT_SOUND as error:
        raise _damaged(path, error) from None
    return described


def read_stored(path: Path) -> tuple[WeightFile, dict[str, Tensor]]:
    """Read a converted file and check it against its own sum; raise WeightsError if it differs."""
    described = describe_stored(path)
    try:
        tensors = load_file(path)
        here = content_sha256(tensors, described.preprocessing, described.options)
        if here != described.sha256:
            message = f"its content's sha256 is {here}, not {described.sha256}"
            raise ValueError(message)
    except NOT_SOUND as error:
        raise _damaged(path, error) from None
    check_fits(described.architecture, tensors, str(path))
    return described, tensors


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path.name} is damaged ({error})",
        allowed="a file written by facebench weights add",
        source=str(path),
        fix="Delete it, then: facebench weights add FILE",
    )


def demands_of_run(path: Path) -> tuple[Preprocessing, dict[str, str]]:
    """Read how the network in a run's `model.safetensors` is fed, and its backbone's options."""
    try:
        network = read_json(header_of(path)[NETWORK_HEADER])
        return Preprocessing.from_dict(network["preprocessing"]), dict(network["options"])
    except NOT_SOUND as error:
        raise WeightsError(
            f"{path} does not say how its network is fed ({error})",
            allowed="the file that a run of facebench wrote",
            source=str(path),
        ) from None


def faces_seen_by(record: RunRecord) -> tuple[FacesSeen, ...]:
    """Say which faces a run's backbone was trained on: its own, and those of the runs before it."""
    about: Mapping[str, Any] = record.about
    dataset, protocol = about["dataset"], about["experiment"]["protocol"]
    own = FacesSeen(
        run=about["identity"],
        dataset=dataset["name"],
        pixel_digest=dataset["pixel_digest"],
        split_digest=dataset["split_digest"],
        split_version=protocol["split"],
        fold=protocol["fold"],
        leaky=bool(about["leaky"]),
    )
    return (own, *(FacesSeen(**seen) for seen in about["weights"].get("faces_seen", [])))


@dataclass(frozen=True)
class TrustedChecksum:
    """The sha256 that a published file had when it was first met."""

    sha256: str
    when: str
    """ISO 8601, UTC."""


def read_trusted(weights_dir: Path) -> dict[str, TrustedChecksum]:
    """Read the trusted checksums by file name; none where there is no `pins.json`.

    Raise WeightsError for one that cannot be read: going on would trust anything anew.
    """
    path = weights_dir / TRUSTED_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            message = f"its schema is {content['schema']!r}, not {SCHEMA}"
            raise ValueError(message)
        return {
            name: TrustedChecksum(str(entry["sha256"]), str(entry["when"]))
            for name, entry in content["pins"].items()
        }
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except NOT_SOUND as error:
        raise WeightsError(
            f"{TRUSTED_FILE} cannot be read ({error})",
            allowed="the JSON that facebench wrote",
            source=str(path),
            fix="Restore it from a backup; or delete it, and every checksum in it is taken anew",
        ) from None


def check_trusted(known: PublishedFile, sha256: str, weights_dir: Path) -> None:
    """Raise WeightsError if another checksum than this is trusted for `known`."""
    trusted = read_trusted(weights_dir).get(known.file_name)
    if trusted is not None and trusted.sha256 != sha256:
        raise WeightsError(
            f"{known.file_name} has the sha256 {sha256}, but another one is trusted",
            allowed=f"{trusted.sha256}, trusted since {trusted.when[:10]}",
            source=str(weights_dir / TRUSTED_FILE),
            fix="Something between its publisher and you has changed it. If its publisher says so "
            f"too, remove the entry {known.file_name!r} from {TRUSTED_FILE} and add the file "
            "again; results from before and after are not comparable",
        )


def trust(known: PublishedFile, sha256: str, weights_dir: Path) -> None:
    """Remember the checksum of a file whose published one, if any, could be another's too.

    Raise WeightsError if another is trusted, or nothing can be written.
    """
    if known.has_whole_sha256:
        return
    check_trusted(known, sha256, weights_dir)
    trusted = read_trusted(weights_dir)
    if known.file_name not in trusted:
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        trusted[known.file_name] = TrustedChecksum(sha256, when)
        content = {name: asdict(entry) for name, entry in trusted.items()}
        try:
            write_json(weights_dir / TRUSTED_FILE, {"schema": SCHEMA, "pins": content})
        except OSError as error:
            raise not_written(weights_dir, error) from None
