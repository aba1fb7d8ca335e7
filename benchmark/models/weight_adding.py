"""Bring a file by hand: recognise it, convert it, and keep it as a published source or one's own.

How a file of one's own is fed is never guessed: the file says so, its publisher, or the person.
What is at hand, and fetching what is not, is for benchmark.models.weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from benchmark.errors import WeightsError
from benchmark.files import sha256_of
from benchmark.models.chains import build_trunk, options_of
from benchmark.models.preprocessing import PRESETS, Channels, Preprocessing
from benchmark.models.weight_formats import OURS, Converted, Layout, convert, tensor_digest
from benchmark.models.weight_manifest import FILES, PublishedFile, stored_path
from benchmark.models.weight_readers import check_order, header_of, read_json
from benchmark.models.weight_store import (
    HEADER,
    MODEL_FILE,
    NETWORK_HEADER,
    FacesSeen,
    WeightFile,
    check_pin,
    content_sha256,
    faces_seen_by,
    known_first_layers,
    not_written,
    pin,
    read_pins,
    read_stored,
    write_stored,
)
from benchmark.record import RunRecord

LABEL: Final = re.compile(r"[a-z0-9_]+")
NOT_STATED: Final = "not stated"


@dataclass(frozen=True)
class Adding:
    """What a person insists on when a published file is added."""

    replacing: bool = False
    """Change over from other weights of the same name."""
    any_checksum: bool = False
    """Take a file that is not the published one; a pin is never passed over."""
    channels: Channels | None = None
    """The order that the person believes the file to expect."""


PLAINLY: Final = Adding()


def add_file(
    file: Path,
    weights_dir: Path,
    how: Adding = PLAINLY,
    *,
    published: tuple[PublishedFile, ...] = FILES,
) -> WeightFile:
    """Recognise a file by its content, convert it, and write it to the store, whole or not at all.

    Where the manifest has the digest of the published tensors, these tell what a file is, whatever
    it is called and whichever container and layout it is in. Refused are a file that is not the
    published one unless `any_checksum`, one that differs from its pin in any case, one whose
    channels are not in the order it was published with, and one that would change weights that are
    already there unless `replacing`.
    """
    converted = convert(file, _only_architecture(published))
    layout, tensors, _ = converted
    sha256 = sha256_of(file)
    known = known_by_tensors(layout.architecture, tensors, published)
    by_tensors = is_published = known is not None
    if known is None:
        if layout.name == OURS:
            raise _needs_a_label(file, layout)
        alike = [
            known
            for known in published
            if (known.architecture, known.layout) == (layout.architecture, layout.name)
        ]
        altered = altered_tensors(layout, tensors, published)
        known, is_published = _taken_for(file, sha256, alike, how, weights_dir, altered)
    check_declared(file, how.channels, known)
    new = _described(file, weights_dir, converted, known.source, known)
    if is_published:
        new = replace(new, published=True, origin=known.file_name)
    kept = keep(new, tensors, file, published, replacing=how.replacing)
    if is_published and not by_tensors:
        _pin(known, sha256, weights_dir)
    return kept


def _described(
    file: Path, weights_dir: Path, converted: Converted, source: str, said: PublishedFile | Told
) -> WeightFile:
    """Describe a file as it is to be kept, by what is said of it; its first layer must agree."""
    assert said.preprocessing is not None
    architecture, options = converted.layout.architecture, dict(said.options or {})
    order = said.preprocessing.channels
    check_first_layer(file, converted.tensors, architecture, order, weights_dir)
    return WeightFile(
        architecture=architecture,
        source=source,
        path=stored_path(architecture, source, weights_dir),
        sha256=content_sha256(converted.tensors, said.preprocessing, options),
        origin=file.name,
        origin_sha256=sha256_of(file),
        published=False,
        licence=said.licence or NOT_STATED,
        trained_on=said.trained_on or NOT_STATED,
        preprocessing=said.preprocessing,
        options=options,
        notes=converted.notes,
        faces_seen=said.faces_seen if isinstance(said, Told) else (),
    )


def _only_architecture(published: Iterable[PublishedFile]) -> str | None:
    names = {known.architecture for known in published}
    return names.pop() if len(names) == 1 else None


def _needs_a_label(file: Path, layout: Layout) -> WeightsError:
    return WeightsError(
        f"{file.name} is a trunk of facebench's own, no published file",
        source=str(file),
        fix=f"Give it a name: facebench weights add {file} --label LABEL "
        f"--architecture {layout.architecture}",
    )


def known_by_tensors(
    architecture: str, tensors: Mapping[str, Tensor], published: Iterable[PublishedFile]
) -> PublishedFile | None:
    """Find the published file whose converted tensors these are, by their digest."""
    candidates = [known for known in published if known.architecture == architecture]
    if not any(known.digest for known in candidates):
        return None
    whole = tensor_digest(tensors).whole
    return next(
        (known for known in candidates if known.digest and known.digest.whole == whole), None
    )


def _taken_for(
    file: Path,
    sha256: str,
    alike: list[PublishedFile],
    how: Adding,
    weights_dir: Path,
    altered: str,
) -> tuple[PublishedFile, bool]:
    """Decide which published file this is, and whether it is that file or only looks like it."""
    for known in alike:
        if is_published_file(known, file, sha256):
            check_pin(known, sha256, weights_dir)
            return known, True
    for known in alike:
        # Its publisher gives no sum, so its name has to say that it is meant to be that file.
        if not known.is_summed_up and file.name == known.file_name:
            check_pin(known, sha256, weights_dir)
            return known, True
    if how.any_checksum and len(alike) == 1:
        return alike[0], False
    raise _not_published(file, sha256, alike, altered)


def altered_tensors(
    layout: Layout, tensors: Mapping[str, Tensor], published: Iterable[PublishedFile]
) -> str:
    """Say which tensors differ from the published ones that most of them are; else nothing."""
    here = tensor_digest(tensors)
    for known in published:
        if known.digest is None or known.architecture != layout.architecture:
            continue
        altered = known.digest.altered(here)
        if 2 * len(altered) < len(here.tensors) and altered:
            names = ", ".join(layout.names[name] for name in altered[:4])
            more = f" and {len(altered) - 4} more" if len(altered) > 4 else ""
            n_equal = len(here.tensors) - len(altered)
            return (
                f"{n_equal} of its {len(here.tensors)} tensors are those of {known.file_name}, "
                f"altered: {names}{more}"
            )
    return ""


def is_published_file(known: PublishedFile, file: Path, sha256: str) -> bool:
    """Tell whether a file's published sum says that it is that file; no sum says nothing."""
    if known.sha256 is not None:
        return sha256.startswith(known.sha256)
    return known.md5 is not None and md5_of(file) == known.md5


def md5_of(file: Path) -> str:
    """Sum a file up as its publisher did; against accidents, hardly against an attacker."""
    with file.open("rb") as stream:
        return hashlib.file_digest(
            stream, lambda: hashlib.md5(usedforsecurity=False)
        ).hexdigest()  # fmt: skip


def _not_published(
    file: Path, sha256: str, alike: list[PublishedFile], altered: str
) -> WeightsError:
    sums = [f"{known.sha256 or known.md5} ({known.file_name})" for known in alike
            if known.is_summed_up]  # fmt: skip
    names = [
        f"a file named {known.file_name}, of which no sum is published"
        for known in alike
        if not known.is_summed_up
    ]
    return WeightsError(
        f"{file.name} has the layout of a known file but the sha256 {sha256}"
        f"{'; ' if altered else ''}{altered}",
        allowed="; ".join([*sums, *names]) or "no published file of this layout",
        source=str(file),
        fix="Fetch the published file. If this is one of your own: facebench weights add "
        f"{file} --label LABEL; if you trust it to be as good: add --any-checksum",
    )


def check_declared(file: Path, declared: Channels | None, known: PublishedFile) -> None:
    """Raise WeightsError where a person declares another order than the file was published with."""
    if declared is not None and declared != known.preprocessing.channels:
        raise WeightsError(
            f"{declared} was declared for {file.name}, which was published as "
            f"{known.preprocessing.channels}",
            allowed=known.preprocessing.channels,
            source=str(file),
            fix="To feed them otherwise on purpose: protocol.input_scaling=weights_swapped",
        )


def check_first_layer(
    file: Path,
    tensors: Mapping[str, Tensor],
    architecture: str,
    declared: Channels,
    weights_dir: Path,
) -> None:
    """Raise WeightsError where weights at hand show that the order is not the declared one."""
    check_order(tensors, declared, known_first_layers(architecture, weights_dir), str(file))


def _pin(known: PublishedFile, sha256: str, weights_dir: Path) -> None:
    try:
        pin(known, sha256, weights_dir)
    except OSError as error:
        raise not_written(weights_dir, error) from None


def keep(
    new: WeightFile,
    tensors: Mapping[str, Tensor],
    file: Path,
    published: tuple[PublishedFile, ...] = (),
    *,
    replacing: bool,
) -> WeightFile:
    """Write what `new` describes, and read it back; what is there already is not changed silently.

    `file` is where it comes from, for the messages.
    """
    if new.path.exists() and not replacing:
        here = up_to_date(new.path, published)
        if here.sha256 == new.sha256:
            return replace(here, notes=new.notes)
        raise WeightsError(
            f"{new.path.name} is already here, from {here.origin}, and {file.name} differs from it",
            source=str(new.path.parent),
            fix="Results of the two are not comparable; to change over: facebench weights add "
            f"--replace {file}",
        )
    build_trunk(new.architecture, **new.options).load_state_dict(tensors)
    write_stored(new, tensors)
    return replace(read_stored(new.path)[0], notes=new.notes)


def up_to_date(path: Path, published: tuple[PublishedFile, ...]) -> WeightFile:
    """Read a stored file; where the manifest has since learnt more of it, say so in it.

    Else two machines with the same facebench would run the same weights differently.
    """
    here, tensors = read_stored(path)
    known = known_by_tensors(here.architecture, tensors, published)
    if known is not None and known.source == here.source:
        learnt = replace(here, published=True, origin=known.file_name)
    else:
        known, learnt = _origin_of(here, published), here
    if known is None:
        return here
    preprocessing, options = known.preprocessing, dict(known.options)
    if (preprocessing, options) != (here.preprocessing, dict(here.options)):
        sha256 = content_sha256(tensors, preprocessing, options)
        learnt = replace(learnt, sha256=sha256, preprocessing=preprocessing, options=options)
    if learnt != here:
        write_stored(learnt, tensors)
    return learnt


def _origin_of(here: WeightFile, published: Iterable[PublishedFile]) -> PublishedFile | None:
    """Find the published file that a stored one was converted from."""
    pins = read_pins(here.path.parent)
    for known in published:
        if (known.architecture, known.source) != (here.architecture, here.source):
            continue
        pinned = pins.get(known.file_name)
        if known.sha256 is not None and here.origin_sha256.startswith(known.sha256):
            return known
        if pinned is not None and pinned.sha256 == here.origin_sha256:
            return known
    return None


@dataclass(frozen=True)
class Declaration:
    """What a person says of a file of their own."""

    label: str
    architecture: str | None = None
    """None where the file's own tensors, or its header, tell."""
    preprocessing: Preprocessing | None = None
    """None where the file's header, or its publisher, tells."""
    licence: str = ""
    trained_on: str = ""

    def __post_init__(self) -> None:
        if LABEL.fullmatch(self.label) is None:
            raise WeightsError(
                f"the label is {self.label!r}",
                allowed="small letters, digits and underscores",
                fix="Definitions then name the weights `local:LABEL`",
            )


@dataclass(frozen=True)
class Told:
    """What a file, or its publisher, says of itself; whatever is not said is empty."""

    architecture: str | None = None
    preprocessing: Preprocessing | None = None
    options: Mapping[str, str] | None = None
    licence: str = ""
    trained_on: str = ""
    faces_seen: tuple[FacesSeen, ...] = ()


def add_own(
    file: Path, weights_dir: Path, declared: Declaration, *, replacing: bool = False
) -> WeightFile:
    """Convert a file and keep it as `local:LABEL`.

    Raise WeightsError where it fits no trunk, where nobody says how it is fed, or where what is
    declared contradicts what the file says, what it was published with, or its first layer.
    """
    told = _told_by_header(file)
    converted = convert(file, declared.architecture or told.architecture)
    layout, tensors, _ = converted
    known = known_by_tensors(layout.architecture, tensors, FILES) or _published_as(
        layout, file, weights_dir
    )
    if known is not None:
        stated = declared.preprocessing.channels if declared.preprocessing else None
        check_declared(file, stated, known)
        told = Told(None, known.preprocessing, known.options, known.licence, known.trained_on)
    elif None not in (told.preprocessing, declared.preprocessing):
        _check_agree(file, told.preprocessing, declared.preprocessing)
    preprocessing = declared.preprocessing or told.preprocessing
    if preprocessing is None:
        raise _fed_how(file, declared.label)
    told = replace(
        told,
        preprocessing=preprocessing,
        options=told.options if told.options is not None else _options_of(layout, file),
        licence=declared.licence or told.licence,
        trained_on=declared.trained_on or told.trained_on,
    )
    new = _described(file, weights_dir, converted, f"local:{declared.label}", told)
    return keep(new, tensors, file, replacing=replacing)


def _published_as(layout: Layout, file: Path, weights_dir: Path) -> PublishedFile | None:
    """Find the published file that this is, by its published sum or its pin."""
    pins, sha256 = read_pins(weights_dir), sha256_of(file)
    for known in FILES:
        if (known.architecture, known.layout) == (layout.architecture, layout.name):
            pinned = pins.get(known.file_name)
            is_pinned = pinned is not None and pinned.sha256 == sha256
            if is_pinned or is_published_file(known, file, sha256):
                return known
    return None


def _options_of(layout: Layout, file: Path) -> Mapping[str, str]:
    """Take the options that a publisher's layout implies; a bare trunk of ours implies none."""
    open_options = options_of(layout.architecture)
    if layout.name == OURS and open_options:
        raise WeightsError(
            f"{file.name} is a bare {layout.architecture} trunk, which does not say its "
            f"{', '.join(open_options)}",
            allowed="the file that facebench wrote, with its header",
            source=str(file),
        )
    return layout.options


def _check_agree(file: Path, told: Preprocessing | None, declared: Preprocessing | None) -> None:
    if told != declared:
        assert told is not None
        assert declared is not None
        raise WeightsError(
            f"{file.name} says that it is fed {told.sentence()}; {declared.sentence()} was "
            "declared",
            allowed=f"{told.sentence()}, or nothing declared",
            source=str(file),
        )


def _fed_how(file: Path, label: str) -> WeightsError:
    return WeightsError(
        f"nothing says how {file.name} is to be fed",
        allowed=f"--preprocessing {' | '.join(PRESETS)}, or --channels --scale --mean --std",
        source=str(file),
        fix="A wrong order or range trains without a word, and worse: ask whoever trained it, "
        f"then: facebench weights add {file} --label {label} --preprocessing ...",
    )


def _told_by_header(file: Path) -> Told:
    """Read what a file that facebench wrote says of itself: a converted one, or a run's network."""
    header = header_of(file)
    if HEADER in header:
        return _told_by_converted(file, read_json(header[HEADER]))
    if NETWORK_HEADER in header:
        return _told_by_run(file, header)
    return Told()


def _told_by_converted(file: Path, said: Any) -> Told:
    try:
        return Told(
            architecture=str(said["architecture"]),
            preprocessing=Preprocessing.from_dict(said["preprocessing"]),
            options=dict(said["options"]),
            licence=str(said["licence"]),
            trained_on=str(said["trained_on"]),
            faces_seen=tuple(FacesSeen(**seen) for seen in said.get("faces_seen", [])),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(file, error) from None


def _told_by_run(file: Path, header: Mapping[str, str]) -> Told:
    """A network that a run trained has seen faces, which may be test faces elsewhere."""
    record = RunRecord(file.parent)
    if file.name != MODEL_FILE or record.state != "done":
        raise WeightsError(
            f"{file.name} was trained by facebench, and what faces it saw is not beside it",
            allowed=f"{MODEL_FILE} in the whole folder of its run",
            source=str(file),
            fix="Copy the run's folder, or start from weights='run:ID' where the run is",
        )
    try:
        network = read_json(header[NETWORK_HEADER])
        return Told(
            architecture=str(record.about["experiment"]["backbone"]["architecture"]),
            preprocessing=Preprocessing.from_dict(network["preprocessing"]),
            options=dict(network["options"]),
            trained_on=f"{record.about['dataset']['name']}, run {record.about['identity'][:12]}",
            faces_seen=faces_seen_by(record),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"the header of {file.name} cannot be read ({error})",
        allowed="a file that facebench wrote",
        source=str(file),
    )
