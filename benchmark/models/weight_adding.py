"""Add a weight file: recognise it, convert it, and keep it as published or under a label.

How a file of one's own is fed is never guessed: the file says so, its publisher, or the person. A
first layer alone does not tell red from blue: they do much the same in it. But where it is, or was
fine-tuned from, the first layer of weights whose order is known, it is like that layer in one of
the two orders and less so in the other (docs/notes/weights.md).
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.files import sha256_of
from benchmark.models.backbone import build_backbone, options_of
from benchmark.models.preprocessing import PRESETS, Channels, Preprocessing
from benchmark.models.weight_formats import (
    OURS,
    Converted,
    Layout,
    backbone_tensors,
    convert,
    tensor_digest,
)
from benchmark.models.weight_manifest import FILES, PublishedFile, stored_path
from benchmark.models.weight_readers import header_of, read_json
from benchmark.models.weight_store import (
    HEADER,
    MODEL_FILE,
    NETWORK_HEADER,
    NOT_SOUND,
    FacesSeen,
    WeightFile,
    check_trusted,
    content_sha256,
    demands_of_run,
    describe_stored,
    faces_seen_by,
    read_stored,
    read_trusted,
    trust,
    write_stored,
)
from benchmark.record import RunRecord

LABEL: Final = re.compile(r"[a-z0-9_]+")
SAME_LAYER_COSINE: Final = 0.9
"""Fine-tuning turns a first layer little; two that were trained apart have a cosine near 0."""
CLEARLY: Final = 2.0
"""How many times larger the angle to the other order must be."""


def add_file(
    file: Path,
    weights_dir: Path,
    *,
    published: tuple[PublishedFile, ...] = FILES,
    replacing: bool = False,
    any_checksum: bool = False,
    channels: Channels | None = None,
) -> WeightFile:
    """Convert a published file and write it to the store, whole or not at all.

    Where the manifest has the digest of the published tensors, these tell what a file is, whatever
    it is called and whichever container and layout it is in. Refused are a file that is not the
    published one unless `any_checksum`, one that differs from its trusted checksum in any case, one
    whose channels are not in the order it was published with or in `channels`, and one that would
    change weights that are already there unless `replacing`.
    """
    architectures = {known.architecture for known in published}
    converted = convert(file, *(architectures if len(architectures) == 1 else ()))
    layout, tensors, _ = converted
    sha256 = sha256_of(file)
    by_tensors = known_by_tensors(layout.architecture, tensors, published)
    if by_tensors is None and layout.name == OURS:
        raise WeightsError(
            f"{file.name} is a backbone of facebench's own, no published file",
            source=str(file),
            fix=f"Give it a name: facebench weights add {file} --label LABEL "
            f"--architecture {layout.architecture}",
        )
    alike = [
        known
        for known in published
        if (known.architecture, known.layout) == (layout.architecture, layout.name)
    ]
    known = by_tensors or _known_by_file(file, sha256, alike)
    is_published = known is not None
    if known is None:
        if not any_checksum or len(alike) != 1:
            altered = _altered_tensors(layout, tensors, published)
            raise _not_published(file, sha256, alike, altered)
        (known,) = alike
    elif by_tensors is None:
        check_trusted(known, sha256, weights_dir)
    _check_declared(file, channels, known)
    new = _described(
        file, weights_dir, converted, known.source, known.preprocessing,
        options=dict(known.options), licence=known.licence, trained_on=known.trained_on,
    )  # fmt: skip
    if is_published:
        new = replace(new, published=True, origin=known.file_name)
    kept = _keep(new, tensors, file, replacing=replacing)
    if is_published and by_tensors is None:
        trust(known, sha256, weights_dir)
    return kept


@dataclass(frozen=True)
class Declaration:
    """What a person says of a file of their own; empty where the file or its publisher tells."""

    label: str
    architecture: str | None = None
    preprocessing: Preprocessing | None = None
    licence: str = ""
    trained_on: str = ""

    def __post_init__(self) -> None:
        if LABEL.fullmatch(self.label) is None:
            raise WeightsError(
                f"the label is {self.label!r}",
                allowed="small letters, digits and underscores",
                fix="Definitions then name the weights `local:LABEL`",
            )


def add_own(
    file: Path, weights_dir: Path, declared: Declaration, *, replacing: bool = False
) -> WeightFile:
    """Convert a file and keep it as `local:LABEL`.

    Raise WeightsError where it fits no backbone, where nobody says how it is fed, or where what is
    declared contradicts what the file says, what it was published with, or its first layer.
    """
    said = _said_by_header(file)
    converted = convert(file, declared.architecture or said.pop("architecture", None))
    layout, tensors, _ = converted
    known = known_by_tensors(layout.architecture, tensors, FILES) or _known_by_file(
        file,
        sha256_of(file),
        [it for it in FILES if (it.architecture, it.layout) == (layout.architecture, layout.name)],
        weights_dir,
    )
    fed = declared.preprocessing
    if known is not None:
        _check_declared(file, fed.channels if fed else None, known)
        said = {name: getattr(known, name) for name in ("preprocessing", "licence", "trained_on")}
        said["options"] = dict(known.options)
    elif fed is not None and said.get("preprocessing", fed) != fed:
        stated = said["preprocessing"].sentence()
        raise WeightsError(
            f"{file.name} says that it is fed {stated}; {fed.sentence()} was declared",
            allowed=f"{stated}, or nothing declared",
            source=str(file),
        )
    preprocessing = fed or said.get("preprocessing")
    if preprocessing is None:
        raise WeightsError(
            f"nothing says how {file.name} is fed",
            allowed=f"--preprocessing {' | '.join(PRESETS)}, or --channels --scale --mean --std",
            source=str(file),
            fix="A wrong order or range trains without a warning, and worse: ask whoever trained "
            f"it, then: facebench weights add {file} --label {declared.label} --preprocessing ...",
        )
    if "options" not in said and layout.name == OURS and options_of(layout.architecture):
        raise WeightsError(
            f"{file.name} is a bare {layout.architecture} backbone, which does not say its "
            f"{', '.join(options_of(layout.architecture))}",
            allowed="the file that facebench wrote, with its header",
            source=str(file),
        )
    new = _described(
        file, weights_dir, converted, f"local:{declared.label}", preprocessing,
        options=said.get("options", dict(layout.options)),
        licence=declared.licence or said.get("licence") or "not stated",
        trained_on=declared.trained_on or said.get("trained_on") or "not stated",
        faces_seen=said.get("faces_seen", ()),
    )  # fmt: skip
    return _keep(new, tensors, file, replacing=replacing)


def _described(
    file: Path,
    weights_dir: Path,
    converted: Converted,
    source: str,
    preprocessing: Preprocessing,
    **said: Any,
) -> WeightFile:
    """Describe a file as it will be kept; its first layer must agree with how it is fed."""
    architecture, tensors = converted.layout.architecture, converted.tensors
    check_order(tensors, preprocessing.channels, architecture, weights_dir, str(file))
    return WeightFile(
        architecture=architecture,
        source=source,
        path=stored_path(architecture, source, weights_dir),
        sha256=content_sha256(tensors, preprocessing, said["options"]),
        origin=file.name,
        origin_sha256=sha256_of(file),
        published=False,
        preprocessing=preprocessing,
        notes=converted.notes,
        **said,
    )


def _said_by_header(file: Path) -> dict[str, Any]:
    """Read what a file that facebench wrote says of itself: a converted one, or a run's network.

    A run's network has seen faces, which may be test faces elsewhere.
    """
    header = header_of(file)
    try:
        if HEADER in header:
            said = read_json(header[HEADER])
            return {
                "architecture": str(said["architecture"]),
                "preprocessing": Preprocessing.from_dict(said["preprocessing"]),
                "options": dict(said["options"]),
                "licence": str(said["licence"]),
                "trained_on": str(said["trained_on"]),
                "faces_seen": tuple(FacesSeen(**seen) for seen in said.get("faces_seen", [])),
            }
        if NETWORK_HEADER not in header:
            return {}
        record = RunRecord(file.parent)
        if file.name != MODEL_FILE or record.state != "done":
            raise WeightsError(
                f"{file.name} was trained by facebench, and what faces it saw is not beside it",
                allowed=f"{MODEL_FILE} in the whole folder of its run",
                source=str(file),
                fix="Copy the run's folder, or start from weights='run:ID' where the run is",
            )
        preprocessing, options = demands_of_run(file)
        about = record.about
        return {
            "architecture": str(about["experiment"]["backbone"]["architecture"]),
            "preprocessing": preprocessing,
            "options": options,
            "trained_on": f"{about['dataset']['name']}, run {about['identity'][:12]}",
            "faces_seen": faces_seen_by(record),
        }
    except NOT_SOUND as error:
        raise WeightsError(
            f"the header of {file.name} cannot be read ({error})",
            allowed="a file that facebench wrote",
            source=str(file),
        ) from None


def known_by_tensors(
    architecture: str, tensors: Mapping[str, Tensor], published: Iterable[PublishedFile]
) -> PublishedFile | None:
    """Find the published file whose converted tensors these are, by their digest."""
    candidates = {
        known.digest.whole: known
        for known in reversed([*published])
        if known.architecture == architecture and known.digest
    }
    return candidates.get(tensor_digest(tensors).whole) if candidates else None


def _altered_tensors(
    layout: Layout, tensors: Mapping[str, Tensor], published: Iterable[PublishedFile]
) -> str:
    """Say which tensors differ from the published ones that most of them are; else nothing."""
    here = tensor_digest(tensors).tensors
    for known in published:
        if known.digest is None or known.architecture != layout.architecture:
            continue
        theirs = known.digest.tensors
        altered = [name for name, sha256 in theirs.items() if here.get(name) != sha256]
        if 0 < 2 * len(altered) < len(here):
            names = ", ".join(layout.names[name] for name in altered[:4])
            more = f" and {len(altered) - 4} more" if len(altered) > 4 else ""
            return (
                f"{len(here) - len(altered)} of its {len(here)} tensors are those of "
                f"{known.file_name}, altered: {names}{more}"
            )
    return ""


def has_published_checksum(known: PublishedFile, file: Path, sha256: str) -> bool:
    """Tell whether the published checksum says that this is the file; none says nothing.

    An md5 guards against accidents, hardly against an attacker.
    """
    if known.sha256 is not None:
        return sha256.startswith(known.sha256)
    if known.md5 is None:
        return False
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() == known.md5


def _known_by_file(
    file: Path, sha256: str, alike: Iterable[PublishedFile], weights_dir: Path | None = None
) -> PublishedFile | None:
    """Find the published file that this is: by its checksum, or where none is published by name.

    With `weights_dir`, a checksum that is trusted there counts in the place of the name.
    """
    trusted = {} if weights_dir is None else read_trusted(weights_dir)
    for known in alike:
        entry = trusted.get(known.file_name)
        if has_published_checksum(known, file, sha256) or (entry and entry.sha256 == sha256):
            return known
    for known in alike if weights_dir is None else ():
        # Its publisher gives no checksum, so its name has to say that it is meant to be that file.
        if not known.has_checksum and file.name == known.file_name:
            return known
    return None


def _not_published(
    file: Path, sha256: str, alike: list[PublishedFile], altered: str
) -> WeightsError:
    named = [known.file_name for known in alike if not known.has_checksum]
    allowed = [
        *(f"{it.sha256 or it.md5} ({it.file_name})" for it in alike if it.has_checksum),
        *(f"a file named {name}, of which no checksum is published" for name in named),
    ]
    return WeightsError(
        f"{file.name} has the layout of a known file but the sha256 {sha256}"
        f"{'; ' if altered else ''}{altered}",
        allowed="; ".join(allowed) or "no published file of this layout",
        source=str(file),
        fix="Fetch the published file. If this is one of your own: facebench weights add "
        f"{file} --label LABEL; if you trust it to be as good: add --any-checksum",
    )


def _check_declared(file: Path, declared: Channels | None, known: PublishedFile) -> None:
    """Raise WeightsError where a person declares another order than the file was published with."""
    published = known.preprocessing.channels
    if declared not in (None, published):
        raise WeightsError(
            f"{declared} was declared for {file.name}, which was published as {published}",
            allowed=published,
            source=str(file),
            fix="To feed them otherwise on purpose: protocol.input_scaling=weights_swapped",
        )


def _keep(
    new: WeightFile, tensors: Mapping[str, Tensor], file: Path, *, replacing: bool
) -> WeightFile:
    """Write what `new` describes, and read it back; other weights are not replaced silently."""
    if new.path.exists() and not replacing:
        here = read_stored(new.path)[0]
        if here.sha256 != new.sha256:
            raise WeightsError(
                f"{new.path.name} is already here, from {here.origin}, and {file.name} differs "
                "from it",
                source=str(new.path.parent),
                fix="Results of the two are not comparable; to change over: facebench weights add "
                f"--replace {file}",
            )
        if here.published or not new.published:
            return replace(here, notes=new.notes)
    build_backbone(new.architecture, **new.options).load_state_dict(tensors)
    write_stored(new, tensors)
    return replace(read_stored(new.path)[0], notes=new.notes)


def check_order(
    tensors: Mapping[str, Tensor],
    declared: Channels,
    architecture: str,
    weights_dir: Path,
    source: str,
) -> None:
    """Raise WeightsError where published weights that are here show that the order is another one.

    `source` is the file that `tensors` come from. What a person declared for weights of their own
    proves nothing, so those are left out.
    """
    name = first_kernel_name(backbone_tensors(architecture))
    for path in sorted(weights_dir.glob(f"{architecture}-*.safetensors")):
        try:
            known = describe_stored(path)
            if not known.published or known.architecture != architecture:
                continue
            with safe_open(path, framework="pt") as file:
                kernel = file.get_tensor(name)
        except (WeightsError, *NOT_SOUND):
            continue  # verify says what is wrong with it
        order = known.preprocessing.channels
        order_found = order_of(tensors[name], kernel, order)
        if order_found not in (None, declared):
            turned = " with red and blue exchanged" if order_found != order else ""
            raise WeightsError(
                f"{declared} was declared, but the first layer is that of {architecture} "
                f"{known.source}{turned}, and expects {order_found}",
                allowed=str(order_found),
                source=source,
                fix=f"Declare {order_found}; a file that claims to be published and is not in the "
                "order it was published in is not that file",
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
