"""Converted weight files, and backbones taken from finished runs.

The trunk of a finished run as a weight source: `run:ID`, as that run was laid out and fed.

Whether the faces that it saw may be test faces of the next run is for benchmark.runs.plan to check.

One converted weight file: safetensors that say where they came from and what they demand.

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

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.files import canonical_json, replacing, sha256_of, write_json
from benchmark.models.preprocessing import Preprocessing
from benchmark.models.weight_formats import check_fits, fitted, ours, trunk_tensors
from benchmark.models.weight_manifest import PublishedFile, stored_path
from benchmark.models.weight_readers import (
    KnownFirstLayer,
    first_kernel,
    header_of,
    read_json,
    read_tensors,
)
from benchmark.record import RunRecord, work_folder

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


PREFIX: Final = "run:"
N_DIGITS: Final = 8
"""Of a run's identity, at least, that name it."""
MODEL_FILE: Final = "model.safetensors"
NETWORK_HEADER: Final = "network"
"""Key under which a run's network says how it is fed and laid out (Network.describe)."""


def resolve_run(source: str, architecture: str, runs_dir: Path) -> WeightFile:
    """Find the run that `run:ID` names, and describe its trunk.

    Raise WeightsMissing where there is no such run yet, or it is not done; WeightsError where
    several begin so, its weights were not kept, or are of another architecture or damaged.
    """
    record = _named(source.removeprefix(PREFIX), runs_dir)
    if record.state != "done":
        raise WeightsMissing(
            f"run {record.identity[:12]} ({record.experiment_name}, seed {record.seed}) is not "
            f"done but {record.state}",
            source=str(record.folder),
            fix=f"Finish it: facebench run {record.experiment_name} --seeds {record.seed}",
        )
    found = record.about["experiment"]["backbone"]["architecture"]
    if found != architecture:
        raise WeightsError(
            f"run {record.identity[:12]} trained {found}, not {architecture}",
            allowed=f"a run of {architecture}",
            source=str(record.folder),
        )
    return read_run_trunk(record, source)[0]


def _named(digits: str, runs_dir: Path) -> RunRecord:
    folders = sorted(work_folder(runs_dir).glob(f"{digits}*")) if len(digits) >= N_DIGITS else []
    found = [RunRecord(folder) for folder in folders if (folder / "experiment.json").is_file()]
    if len(found) > 1:
        names = ", ".join(record.identity for record in found)
        raise WeightsError(
            f"{len(found)} runs begin with {digits}",
            allowed=f"one of {names}",
            source=str(runs_dir),
            fix="Give more digits",
        )
    if not found:
        raise WeightsMissing(
            f"no run begins with {digits}",
            allowed=f"the first {N_DIGITS} digits or more of a run's identity",
            source=str(runs_dir),
            fix="Make it first: facebench run NAME prints its identity; or copy its folder "
            f"to {work_folder(runs_dir)}",
        )
    return found[0]


def read_run_trunk(record: RunRecord, source: str) -> tuple[WeightFile, dict[str, Tensor]]:
    """Read a finished run's trunk with what it demands; raise WeightsError if it cannot be had."""
    path = record.folder / MODEL_FILE
    if not path.is_file():
        raise WeightsError(
            f"run {record.identity[:12]} kept no weights",
            source=str(record.folder),
            fix="Remove its folder and run it again with --keep-weights best",
        )
    about = record.about
    architecture = about["experiment"]["backbone"]["architecture"]
    preprocessing, options = _demands(path)
    tensors = fitted(ours(architecture), read_tensors(path), str(path))
    described = WeightFile(
        architecture=architecture,
        source=source,
        path=path,
        sha256=content_sha256(tensors, preprocessing, options),
        origin=f"run {record.identity[:12]} ({record.experiment_name}, seed {record.seed})",
        origin_sha256=sha256_of(path),
        published=False,
        licence=f"trained here, from {about['weights']['source']!r} weights",
        trained_on=about["dataset"]["name"],
        preprocessing=preprocessing,
        options=options,
        from_run=record.identity,
        faces_seen=faces_seen_by(record),
    )
    return described, tensors


def _demands(path: Path) -> tuple[Preprocessing, dict[str, str]]:
    try:
        network = read_json(header_of(path)[NETWORK_HEADER])
        return Preprocessing.from_dict(network["preprocessing"]), dict(network["options"])
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} does not say how its network is fed ({error})",
            allowed="the file that a run of facebench wrote",
            source=str(path),
        ) from None


def faces_seen_by(record: RunRecord) -> tuple[FacesSeen, ...]:
    """Say which faces a run's trunk was trained on: its own, and those of the runs before it."""
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
    before = about["weights"].get("faces_seen", [])
    return (own, *(FacesSeen(**seen) for seen in before))
