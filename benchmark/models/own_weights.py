"""Weights of a person's own, under a label: any file in a known layout, ours included.

How it is fed is never guessed: the file says so, or its publisher, or the person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmark.errors import WeightsError
from benchmark.files import sha256_of
from benchmark.models.adding import (
    check_declared,
    check_first_layer,
    is_published_file,
    keep,
    known_by_tensors,
)
from benchmark.models.backbones import options_of
from benchmark.models.conversion import convert
from benchmark.models.layouts import OURS, Layout
from benchmark.models.pins import read_pins
from benchmark.models.places import stored_path
from benchmark.models.preprocessing import PRESETS, Preprocessing
from benchmark.models.readers import header_of, read_json
from benchmark.models.run_trunks import MODEL_FILE, NETWORK_HEADER, faces_seen_by
from benchmark.models.sources import FILES, PublishedFile
from benchmark.models.store import (
    HEADER,
    FacesSeen,
    WeightFile,
    content_sha256,
)
from benchmark.results.record import RunRecord

LABEL: Final = re.compile(r"[a-z0-9_]+")
NOT_STATED: Final = "not stated"


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
    layout, tensors, notes = convert(file, declared.architecture or told.architecture)
    sha256 = sha256_of(file)
    known = known_by_tensors(layout.architecture, tensors, FILES) or _published_as(
        layout, file, sha256, weights_dir
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
    options = told.options if told.options is not None else _options_of(layout, file)
    check_first_layer(file, tensors, layout.architecture, preprocessing.channels, weights_dir)
    source = f"local:{declared.label}"
    new = WeightFile(
        architecture=layout.architecture,
        source=source,
        path=stored_path(layout.architecture, source, weights_dir),
        sha256=content_sha256(tensors, preprocessing, options),
        origin=file.name,
        origin_sha256=sha256,
        published=False,
        licence=declared.licence or told.licence or NOT_STATED,
        trained_on=declared.trained_on or told.trained_on or NOT_STATED,
        preprocessing=preprocessing,
        options=dict(options),
        faces_seen=told.faces_seen,
    )
    return replace(keep(new, tensors, file, replacing=replacing), notes=notes)


def _published_as(
    layout: Layout, file: Path, sha256: str, weights_dir: Path
) -> PublishedFile | None:
    """Find the published file that this is, by its published sum or its pin."""
    pins = read_pins(weights_dir)
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


def labels_of(architecture: str, weights_dir: Path) -> list[str]:
    """List the labels under which weights of an architecture were added here."""
    start = f"{architecture}-local-"
    found = weights_dir.glob(f"{start}*.safetensors")
    return sorted(path.stem.removeprefix(start) for path in found)
