"""Converted weight files: how a file gets here, says where it came from, and is read back.

A converted file is safetensors with a description in its header. Beside them lies `pins.json`: the
checksums of published files whose publishers give none, or not the whole of one, as first met. How
weights are fed is never guessed: the file says so, its publisher, or the person. Which files are
published: benchmark.models.weight_manifest; finding and fetching them: benchmark.models.weights.
"""

import datetime
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark import files
from benchmark.errors import WeightsError
from benchmark.models.backbone import build_backbone
from benchmark.models.preprocessing import PRESETS, Channels, Preprocessing
from benchmark.models.weight_formats import Converted, backbone_tensors, convert, header_of
from benchmark.models.weight_manifest import FILES, PublishedFile, files_for, stored_path

SCHEMA: Final = 1
HEADER: Final = "facebench"
"""Key of the description in a converted file's metadata."""
NETWORK_HEADER: Final = "network"
"""Key under which a run's network says how it is fed and built (Network.describe)."""
TRUSTED_FILE: Final = "pins.json"
SAME_LAYER_COSINE: Final = 0.9
"""Fine-tuning turns a first layer little; two that were trained apart have a cosine near 0."""
CLEARLY: Final = 2.0
"""How many times larger the angle to the other channel order must be."""
NOT_SOUND: Final = (
    SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError,
)  # fmt: skip
"""What reading a file that facebench did not write, or that was damaged since, may raise."""


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
    faces_seen: tuple[dict[str, Any], ...] = ()
    """By that run, and by those it started from: run, dataset, pixel_digest, split_digest,
    split_version, fold, and leaky, whether it or one before it had seen its test faces. Empty for
    weights that no run of ours trained."""

    @property
    def leaky(self) -> bool:
        """Whether a run that these weights come from is marked so."""
        return any(seen["leaky"] for seen in self.faces_seen)

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
    digest = hashlib.sha256(files.canonical_json(demands).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(files.canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def read_stored(path: Path) -> tuple[WeightFile, dict[str, Tensor]]:
    """Read a converted file, and check it against its own sum; raise WeightsError if it differs."""
    try:
        with safe_open(path, framework="pt") as file:
            said: dict[str, Any] = json.loads((file.metadata() or {})[HEADER])
        schema, preprocessing = said.pop("schema"), said.pop("preprocessing")
        said["faces_seen"] = tuple(said.get("faces_seen", []))
        described = WeightFile(
            path=path, preprocessing=Preprocessing.from_dict(preprocessing), **said
        )
        name = stored_path(described.architecture, described.source, path.parent).name
        if (schema, path.name) != (SCHEMA, name):
            message = f"it holds {name} of schema {schema}"
            raise ValueError(message)
        tensors = load_file(path)
        here = content_sha256(tensors, described.preprocessing, described.options)
        if here != described.sha256:
            message = f"its content's sha256 is {here}, not {described.sha256}"
            raise ValueError(message)
    except NOT_SOUND as error:
        raise WeightsError(
            f"{path.name} is damaged ({error})",
            allowed="a file written by facebench weights add",
            source=str(path),
            fix="Delete it, then: facebench weights add FILE",
        ) from None
    return described, tensors


def not_written(folder: Path, error: Exception) -> WeightsError:
    """Say that a folder takes no files, and what to do."""
    return WeightsError(
        f"weights cannot be written to {folder} ({error})",
        fix="Free space or set FACEBENCH_WEIGHTS_DIR to a folder that can be written",
    )


def read_trusted(weights_dir: Path) -> dict[str, dict[str, str]]:
    """Read the trusted checksums: by file name, its `sha256` when first met, and `when` (ISO 8601).

    Raise WeightsError where they cannot be read: going on would trust anything anew.
    """
    path = weights_dir / TRUSTED_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            message = f"its schema is {content['schema']!r}, not {SCHEMA}"
            raise ValueError(message)
        trusted = content["pins"].items()
        return {name: {key: str(it[key]) for key in ("sha256", "when")} for name, it in trusted}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except NOT_SOUND as error:
        raise WeightsError(
            f"{TRUSTED_FILE} cannot be read ({error})",
            source=str(path),
            fix="Restore it from a backup; or delete it, and every checksum in it is taken anew",
        ) from None


def check_trusted(known: PublishedFile, sha256: str, weights_dir: Path) -> None:
    """Raise WeightsError if another checksum than this is trusted for `known`."""
    trusted = read_trusted(weights_dir).get(known.file_name)
    if trusted is not None and trusted["sha256"] != sha256:
        raise WeightsError(
            f"{known.file_name} has the sha256 {sha256}, but another one is trusted",
            allowed=f"{trusted['sha256']}, trusted since {trusted['when'][:10]}",
            source=str(weights_dir / TRUSTED_FILE),
            fix="Something between its publisher and you has changed it. If its publisher says so "
            f"too, remove the entry {known.file_name!r} and add the file again; results from "
            "before and after are not comparable",
        )


def trust(known: PublishedFile, sha256: str, weights_dir: Path) -> None:
    """Remember the checksum of a file unless its whole sha256 is published; raise WeightsError if
    another is trusted, or nothing can be written."""
    if known.sha256 and len(known.sha256) == len(sha256):
        return
    check_trusted(known, sha256, weights_dir)
    trusted = read_trusted(weights_dir)
    if known.file_name not in trusted:
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        trusted[known.file_name] = {"sha256": sha256, "when": when}
        try:
            files.write_json(weights_dir / TRUSTED_FILE, {"schema": SCHEMA, "pins": trusted})
        except OSError as error:
            raise not_written(weights_dir, error) from None


def add_file(
    file: Path,
    weights_dir: Path,
    architecture: str | None = None,
    *,
    label: str | None = None,
    preprocessing: Preprocessing | None = None,
    published: tuple[PublishedFile, ...] = FILES,
    replacing: bool = False,
    any_checksum: bool = False,
) -> WeightFile:
    """Convert a file and write it to the store, whole or not at all: as published, or with a label.

    Where the manifest has the digest of the published tensors, these tell what a file is, whatever
    it is called and whichever container and layout it is in. Raise WeightsError for a file that is
    not a published one and has no label, unless `any_checksum`; for one of a person's own where
    nobody says how it is fed (`preprocessing`), or that contradicts its publisher or its first
    layer; for one that differs from its trusted checksum; and where it would change weights that
    are already there, unless `replacing`.
    """
    if label is not None and re.fullmatch("[a-z0-9_]+", label) is None:
        raise WeightsError(f"the label is {label!r}", allowed="small letters, digits, underscores")
    if header_of(file).keys() & {HEADER, NETWORK_HEADER}:
        raise WeightsError(
            f"{file.name} was written by facebench",
            source=str(file),
            fix="Copy a converted file into the weights folder as it is; weights='run:ID' starts "
            "from a run's network, and knows the faces that it saw",
        )
    if architecture and architecture not in {known.architecture for known in published}:
        published = files_for(architecture, "imagenet")
    architectures = {known.architecture for known in published}
    only = architectures.pop() if len(architectures) == 1 else None
    converted, sha256 = convert(file, architecture or only), files.sha256_of(file)
    known = _recognised(converted, file, sha256, published, by_name=label is None)
    about, by_tensors = known, bool(known and known.digest == converted.digest)
    is_trusted_by_sum = known is not None and label is None and not by_tensors
    if known and is_trusted_by_sum:
        check_trusted(known, sha256, weights_dir)
    if label is None:
        about = known or _insisted(converted, file, sha256, published, any_checksum=any_checksum)
    if about and preprocessing and preprocessing != about.preprocessing:
        raise WeightsError(
            f"{preprocessing.sentence()} was declared for {file.name}, which was published as "
            f"{about.preprocessing.sentence()}",
            source=str(file),
            fix="Declare nothing; to feed it otherwise on purpose: protocol.input_scaling",
        )
    fed = about.preprocessing if about else preprocessing
    if fed is None:
        raise WeightsError(
            f"nothing says how {file.name} is fed",
            allowed=f"--preprocessing {' | '.join(PRESETS)}, or JSON",
            source=str(file),
            fix="A wrong one trains without a warning, and worse: ask whoever trained it",
        )
    layout, name = converted.layout, f"local:{label}"
    check_order(converted.tensors, fed.channels, layout.architecture, weights_dir, str(file))
    options, source = dict((about or layout).options), name if label or not about else about.source
    new = WeightFile(
        architecture=layout.architecture,
        source=source,
        path=stored_path(layout.architecture, source, weights_dir),
        sha256=content_sha256(converted.tensors, fed, options),
        origin=known.file_name if known and not label else file.name,
        origin_sha256=sha256,
        published=known is not None and not label,
        licence=about.licence if about else "not stated",
        trained_on=about.trained_on if about else "not stated",
        preprocessing=fed,
        options=options,
        notes=converted.notes,
    )
    with torch.device("meta"):
        build_backbone(new.architecture, **options)  # refuses options that nobody states
    is_kept = False
    if new.path.exists() and not replacing:
        here = read_stored(new.path)[0]
        if here.sha256 != new.sha256:
            raise WeightsError(
                f"{new.path.name} is already here, from {here.origin}, and {file.name} differs",
                source=str(weights_dir),
                fix="Results of the two are not comparable; to change over: facebench weights add "
                f"--replace {file}",
            )
        is_kept = here.published or not new.published
    if not is_kept:
        _write(new, converted.tensors)
    if known and is_trusted_by_sum:
        trust(known, sha256, weights_dir)
    return replace(read_stored(new.path)[0], notes=new.notes)


def _write(new: WeightFile, tensors: dict[str, Tensor]) -> None:
    said = asdict(new) | {"schema": SCHEMA, "preprocessing": new.preprocessing.as_dict()}
    said = {name: said[name] for name in said.keys() - {"path", "from_run", "notes", "faces_seen"}}
    try:
        with files.replacing(new.path) as temporary:
            save_file(tensors, temporary, metadata={HEADER: files.canonical_json(said)})
    except (OSError, SafetensorError) as error:
        raise not_written(new.path.parent, error) from None


def _recognised(
    converted: Converted,
    file: Path,
    sha256: str,
    published: Iterable[PublishedFile],
    *,
    by_name: bool,
) -> PublishedFile | None:
    """Find the published file that this is: by its tensors, its checksum, or, where its publisher
    gives none, by its name, which then says what it is meant to be."""
    layout = converted.layout
    same = [known for known in published if known.architecture == layout.architecture]
    for known in same:
        if known.digest and known.digest == converted.digest:
            return known
    for known in same:
        is_it = by_name and file.name == known.file_name
        if known.sha256 is not None:
            is_it = sha256.startswith(known.sha256)
        elif known.md5 is not None:  # guards against accidents, hardly against an attacker
            is_it = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() == known.md5
        if is_it and known.layout == layout.name:
            return known
    return None


def _insisted(
    converted: Converted,
    file: Path,
    sha256: str,
    published: Iterable[PublishedFile],
    *,
    any_checksum: bool,
) -> PublishedFile:
    """Give the published file in whose place a person takes this one, or refuse it."""
    layout, here = converted.layout, converted.digest["tensors"]
    same = [known for known in published if known.architecture == layout.architecture]
    alike = [known for known in same if known.layout == layout.name]
    if any_checksum and len(alike) == 1:
        return alike[0]
    why = f"has the layout {layout.name} of {layout.architecture} but the sha256 {sha256}"
    for known in same:
        digests = known.digest["tensors"] if known.digest else {}
        altered = [layout.names[it] for it, digest in digests.items() if here.get(it) != digest]
        if 0 < 2 * len(altered) < len(here):
            why += f"; of {len(here)} tensors {len(here) - len(altered)} are those of "
            why += f"{known.file_name}, altered: {', '.join(altered[:4])}"
    allowed = [it.sha256 or it.md5 or f"a file named {it.file_name}" for it in alike]
    raise WeightsError(
        f"{file.name} {why}",
        allowed="; ".join(allowed) or "no published file of this layout",
        source=str(file),
        fix="Fetch the published file. If this is one of your own: facebench weights add "
        f"{file} --label LABEL; if you trust it to be as good: add --any-checksum",
    )


def check_order(
    tensors: Mapping[str, Tensor],
    declared: Channels,
    architecture: str,
    weights_dir: Path,
    source: str,
) -> None:
    """Raise WeightsError where published weights that are here show that the order is another one.

    A first layer alone does not tell red from blue; where it is, or was fine-tuned from, that of
    weights whose order is known, it is like it in one of the two orders (docs/notes/weights.md).
    What a person declared of their own proves nothing. `source`: the file of `tensors`.
    """
    name = first_kernel_name(backbone_tensors(architecture))
    for path in sorted(weights_dir.glob(f"{architecture}-*.safetensors")):
        try:
            known, theirs = read_stored(path)
        except WeightsError:
            continue  # verify says what is wrong with it
        order = known.preprocessing.channels
        found = order_of(tensors[name], theirs[name], order) if known.published else None
        if found not in (None, declared):
            turned = " with red and blue exchanged" if found != order else ""
            raise WeightsError(
                f"{declared} was declared, but the first layer is that of {architecture} "
                f"{known.source}{turned}, and expects {found}",
                allowed=str(found),
                source=source,
                fix=f"Declare {found}; a file that claims to be published and is not in the order "
                "it was published in is not that file",
            )


def first_kernel_name(tensors: Mapping[str, Tensor]) -> str:
    """Find the kernel that reads the picture: the first with three inputs, (out, 3, h, w)."""
    return next(name for name, it in tensors.items() if it.ndim == 4 and it.shape[1] == 3)


def order_of(kernel: Tensor, known: Tensor, channels: Channels) -> Channels | None:
    """Say which order a kernel expects if it is `known`, which expects `channels`, in one of the
    two orders; None if it is neither."""
    if kernel.shape != known.shape:
        return None
    other: Channels = "BGR" if channels == "RGB" else "RGB"
    angles = {channels: _angle(kernel, known), other: _angle(kernel, known.flip(1))}
    near, far = sorted(angles, key=lambda order: angles[order])
    is_this = angles[near] <= math.acos(SAME_LAYER_COSINE)
    return near if is_this and angles[far] >= CLEARLY * angles[near] + 1e-6 else None


def _angle(a: Tensor, b: Tensor) -> float:
    """Give the angle between two kernels in radians, 0 to pi."""
    a, b = a.double().flatten(), b.double().flatten()
    cosine = a.dot(b) / (a.norm() * b.norm()).clamp_min(1e-30)
    return math.acos(min(1.0, max(-1.0, float(cosine))))
