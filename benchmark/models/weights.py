"""Weights at hand: add a file, fetch one, find it again, and load it as tensors.

They are kept converted, one file per architecture and source (benchmark.models.store). Which are
published, and where, is told by benchmark.models.sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from torch import Tensor

from benchmark.architectures import ARCHITECTURES, architecture_named
from benchmark.errors import WeightsError, WeightsMissing
from benchmark.files import sha256_of
from benchmark.models.backbones import build_trunk
from benchmark.models.conversion import convert
from benchmark.models.download import OnBytes, fetch
from benchmark.models.preprocessing import Preprocessing
from benchmark.models.sources import FILES, PublishedFile, files_for
from benchmark.models.store import WeightFile as WeightFile
from benchmark.models.store import (
    content_sha256,
    not_written,
    read_stored,
    stored_path,
    write_stored,
)

_FAILED: Final[dict[str, str]] = {}
"""Address → why it gave nothing. Every run of a suite resolves its weights: a machine without a
network waits for each address once a process, not once a run."""


@dataclass(frozen=True)
class LoadedWeights:
    """What a network starts from: tensors of a trunk, and what they demand around them."""

    architecture: str
    source: str
    tensors: Mapping[str, Tensor]
    preprocessing: Preprocessing
    options: Mapping[str, str]
    sha256: str
    origin: str


@dataclass(frozen=True)
class SourceState:
    """One weight source of one architecture, and whether it is at hand."""

    architecture: str
    source: str
    state: str
    """`here`, `missing` or `damaged`."""
    published: tuple[PublishedFile, ...]
    file: WeightFile | None = None
    problem: WeightsError | None = None


def resolve(
    architecture: str,
    source: str,
    weights_dir: Path,
    *,
    offline: bool,
    on_bytes: OnBytes | None = None,
    published: tuple[PublishedFile, ...] | None = None,
) -> WeightFile:
    """Find the weights in the store; else convert or fetch a published file into it.

    A published file that lies in `weights_dir` under its own name is converted. Raise
    WeightsMissing, with the addresses, where nothing is to be had; WeightsError for a damaged file.
    """
    path = stored_path(architecture, source, weights_dir)
    candidates = files_for(architecture, source) if published is None else published
    if path.exists():
        return _up_to_date(path, candidates)
    for candidate in candidates:
        if (weights_dir / candidate.file_name).exists():
            return add_file(weights_dir / candidate.file_name, weights_dir, published=candidates)
    for candidate in () if offline else candidates:
        if candidate.url in _FAILED:
            continue
        try:
            return _fetched(candidate, weights_dir, on_bytes)
        except WeightsError as error:
            _FAILED[candidate.url] = f"{urlsplit(candidate.url).netloc}: {error.found}"
    reasons = [] if offline else [_FAILED[candidate.url] for candidate in candidates]
    raise _missing(architecture, source, weights_dir, candidates, reasons)


def _fetched(candidate: PublishedFile, weights_dir: Path, on_bytes: OnBytes | None) -> WeightFile:
    # Beside the store, not in it: an interrupted download is gone on with, never mistaken for it.
    downloaded = weights_dir / "downloads" / candidate.file_name
    try:
        fetch(candidate.url, downloaded, candidate.is_this, on_bytes)
    except OSError as error:
        raise not_written(weights_dir, error) from None
    added = add_file(downloaded, weights_dir, published=(candidate,))
    downloaded.unlink()
    return added


def _missing(
    architecture: str,
    source: str,
    weights_dir: Path,
    candidates: tuple[PublishedFile, ...],
    reasons: list[str],
) -> WeightsMissing:
    why = f", nor to be had ({'; '.join(reasons)})" if reasons else ""
    if not candidates:
        known = ", ".join(architecture_named(architecture).weight_sources)
        return WeightsMissing(
            f"no published file is known for the {source!r} weights of {architecture}",
            allowed=known,
            fix="Choose one of these, or add a source in benchmark/models/sources.py",
        )
    urls = " or ".join(candidate.url for candidate in candidates)
    return WeightsMissing(
        f"the {source!r} weights of {architecture} are not here{why}",
        source=str(weights_dir),
        fix=f"Fetch {urls} where there is a network, then: facebench weights add FILE",
    )


def add_file(
    file: Path,
    weights_dir: Path,
    *,
    replacing: bool = False,
    any_checksum: bool = False,
    published: tuple[PublishedFile, ...] = FILES,
) -> WeightFile:
    """Recognise a file by its content, convert it, and write it to the store, whole or not at all.

    A file whose sha256 is not the published one is refused unless `any_checksum`; one that would
    change weights that are already there, unless `replacing`.
    """
    layout, tensors = convert(file)
    origin_sha256 = sha256_of(file)
    alike = [known for known in published if known.layout == layout.name]
    exact = [known for known in alike if known.is_this(origin_sha256)]
    if not exact and not (any_checksum and len(alike) == 1):
        raise _not_published(file, origin_sha256, alike)
    known = (exact or alike)[0]
    new = WeightFile(
        architecture=known.architecture,
        source=known.source,
        path=stored_path(known.architecture, known.source, weights_dir),
        sha256=content_sha256(tensors, known.preprocessing, known.options),
        origin=file.name,
        origin_sha256=origin_sha256,
        published=bool(exact),
        licence=known.licence,
        trained_on=known.trained_on,
        preprocessing=known.preprocessing,
        options=dict(known.options),
    )
    if new.path.exists() and not replacing:
        here = _up_to_date(new.path, published)
        if here.sha256 == new.sha256:
            return here
        raise WeightsError(
            f"{new.path.name} is already here, from {here.origin}, and {file.name} differs from it",
            source=str(weights_dir),
            fix="Results of the two are not comparable; to change over: facebench weights add "
            f"--replace {file}",
        )
    build_trunk(known.architecture, **known.options).load_state_dict(tensors)
    write_stored(new, tensors)
    return read_stored(new.path)[0]


def _up_to_date(path: Path, published: tuple[PublishedFile, ...]) -> WeightFile:
    """Read a stored file; where the manifest has since learnt better what it demands, say so in it.

    Else two machines with the same facebench would run the same weights differently.
    """
    here, tensors = read_stored(path)
    for known in published:
        if known.is_this(here.origin_sha256):
            preprocessing, options = known.preprocessing, dict(known.options)
            if (preprocessing, options) != (here.preprocessing, dict(here.options)):
                sha256 = content_sha256(tensors, preprocessing, options)
                here = replace(here, sha256=sha256, preprocessing=preprocessing, options=options)
                write_stored(here, tensors)
    return here


def _not_published(file: Path, sha256: str, alike: list[PublishedFile]) -> WeightsError:
    sums = ", ".join(f"{known.sha256} ({known.file_name})" for known in alike)
    return WeightsError(
        f"{file.name} has the layout of a known file but the sha256 {sha256}",
        allowed=sums or "no published file of this layout",
        source=str(file),
        fix="Fetch the published file; or, if you trust this one: "
        f"facebench weights add --any-checksum {file}",
    )


def load(weight_file: WeightFile) -> LoadedWeights:
    """Load the tensors that `resolve` found; raise WeightsError if the file changed since."""
    described, tensors = read_stored(weight_file.path)
    if described.sha256 != weight_file.sha256:
        raise WeightsError(
            f"{weight_file.path.name} has changed since it was resolved",
            source=str(weight_file.path),
            fix="Start again; a run's identity names the weights that it starts from",
        )
    return LoadedWeights(
        architecture=described.architecture,
        source=described.source,
        tensors=tensors,
        preprocessing=described.preprocessing,
        options=described.options,
        sha256=described.sha256,
        origin=described.origin,
    )


def list_weights(weights_dir: Path) -> list[SourceState]:
    """Tell the state of every weight source of every architecture; `none` needs no file."""
    return [
        _state_of(architecture.name, source, weights_dir)
        for architecture in ARCHITECTURES.values()
        for source in architecture.weight_sources
        if source != "none"
    ]


def _state_of(architecture: str, source: str, weights_dir: Path) -> SourceState:
    published = files_for(architecture, source)
    path = stored_path(architecture, source, weights_dir)
    if not path.exists():
        return SourceState(architecture, source, "missing", published)
    try:
        return SourceState(architecture, source, "here", published, file=read_stored(path)[0])
    except WeightsError as error:
        return SourceState(architecture, source, "damaged", published, problem=error)


def verify(weights_dir: Path) -> list[SourceState]:
    """Read every converted file that is at hand, whole: its sum, its tensors, and whether its
    origin is the published file."""
    return [state for state in list_weights(weights_dir) if state.state != "missing"]
