"""Weights at hand: find them, fetch what is published, and load them as tensors.

They are kept converted, one file per architecture and source (weight_store). Which are published,
and where, is in weight_manifest; a file that a person brings is added by weight_adding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from torch import Tensor

from benchmark.architectures import ARCHITECTURES, NOT_OFFERED, architecture_named
from benchmark.errors import WeightsError, WeightsMissing
from benchmark.files import claimed, sha256_of
from benchmark.models.download import OnBytes, fetch
from benchmark.models.preprocessing import Preprocessing
from benchmark.models.weight_adding import add_file as add_file
from benchmark.models.weight_adding import is_published_file, known_by_tensors, up_to_date
from benchmark.models.weight_formats import convert
from benchmark.models.weight_manifest import PublishedFile, files_for, stored_path
from benchmark.models.weight_readers import header_of
from benchmark.models.weight_store import (
    HEADER,
    check_pin,
    describe_stored,
    labels_of,
    not_written,
    read_run_trunk,
    read_stored,
)
from benchmark.models.weight_store import WeightFile as WeightFile
from benchmark.record import RunRecord

LOCAL: Final = "local:"

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
    WeightsMissing, with the addresses, where nothing is to be had; WeightsError for a damaged file,
    or one that is not what was published.
    """
    path = stored_path(architecture, source, weights_dir)
    candidates = files_for(architecture, source) if published is None else published
    if path.exists():
        return up_to_date(path, candidates)
    for candidate in candidates:
        if (weights_dir / candidate.file_name).exists():
            return add_file(weights_dir / candidate.file_name, weights_dir, published=candidates)
    for candidate in () if offline else candidates:
        if candidate.url in _FAILED:
            continue
        try:
            return _fetched(candidate, weights_dir, on_bytes)
        except WeightsMissing as error:
            _FAILED[candidate.url] = f"{urlsplit(candidate.url).netloc}: {error.found}"
    reasons = [] if offline else [_FAILED[candidate.url] for candidate in candidates]
    raise _missing(architecture, source, weights_dir, candidates, reasons)


def _fetched(candidate: PublishedFile, weights_dir: Path, on_bytes: OnBytes | None) -> WeightFile:
    # Beside the store, not in it: an interrupted download is gone on with, never mistaken for it.
    downloaded = weights_dir / "downloads" / candidate.file_name
    stored = stored_path(candidate.architecture, candidate.source, weights_dir)

    def judge(file: Path) -> None:
        _check_fetched(candidate, file, weights_dir)

    try:
        # One process at a time: two would write into the same half of a file.
        with claimed(downloaded.parent / ".lock", wait=True):
            if stored.exists():
                return up_to_date(stored, (candidate,))
            fetch(candidate.url, downloaded, judge, on_bytes, judged_by_sum=candidate.is_summed_up)
            added = add_file(downloaded, weights_dir, published=(candidate,))
            downloaded.unlink()
            return added
    except OSError as error:
        raise not_written(weights_dir, error) from None


def _check_fetched(candidate: PublishedFile, file: Path, weights_dir: Path) -> None:
    """Raise WeightsError unless this is the published file, or a whole one of its layout."""
    sha256 = sha256_of(file)
    if candidate.is_summed_up and not is_published_file(candidate, file, sha256):
        if _has_its_tensors(candidate, file):
            return
        raise WeightsError(
            f"what came for {candidate.file_name} has the sha256 {sha256}, which is not what was "
            "published",
            allowed=str(candidate.sha256 or f"the md5 {candidate.md5}"),
            source=candidate.url,
            fix="Fetch it by hand, from where you trust it, then: facebench weights add FILE",
        )
    if not candidate.is_summed_up:
        layout = convert(file, candidate.architecture).layout
        if layout.name != candidate.layout:
            raise WeightsError(
                f"what came for {candidate.file_name} is in the layout {layout.name!r}",
                allowed=candidate.layout,
                source=candidate.url,
            )
    check_pin(candidate, sha256, weights_dir)


def _has_its_tensors(candidate: PublishedFile, file: Path) -> bool:
    if candidate.digest is None:
        return False
    try:
        tensors = convert(file, candidate.architecture).tensors
    except WeightsError:
        return False
    return known_by_tensors(candidate.architecture, tensors, (candidate,)) is not None


def _missing(
    architecture: str,
    source: str,
    weights_dir: Path,
    candidates: tuple[PublishedFile, ...],
    reasons: list[str],
) -> WeightsMissing:
    if source.startswith(LOCAL):
        return _label_missing(architecture, source.removeprefix(LOCAL), weights_dir)
    if not candidates:
        why = f": {NOT_OFFERED[source]}" if source in NOT_OFFERED else ""
        known = ", ".join(architecture_named(architecture).weight_sources)
        return WeightsMissing(
            f"no published file is known for the {source!r} weights of {architecture}{why}",
            allowed=f"{known}, local:LABEL, run:ID",
            fix="Choose one of these, or add a source in benchmark/models/weight_manifest.py",
        )
    why = f", nor to be had ({'; '.join(reasons)})" if reasons else ""
    urls = " or ".join(candidate.url for candidate in candidates)
    return WeightsMissing(
        f"the {source!r} weights of {architecture} are not here{why}",
        source=str(weights_dir),
        fix=f"Fetch {urls} where there is a network, then: facebench weights add FILE",
    )


def _label_missing(architecture: str, label: str, weights_dir: Path) -> WeightsMissing:
    return WeightsMissing(
        f"no weights of {architecture} were added under the label {label!r}",
        allowed=", ".join(labels_of(architecture, weights_dir)) or "none yet",
        source=str(weights_dir),
        fix=f"Add them: facebench weights add FILE --label {label} --architecture {architecture}",
    )


def load(weight_file: WeightFile) -> LoadedWeights:
    """Load the tensors that were resolved; raise WeightsError if the file changed since."""
    if weight_file.from_run is None:
        described, tensors = read_stored(weight_file.path)
    else:
        record = RunRecord(weight_file.path.parent)
        described, tensors = read_run_trunk(record, weight_file.source)
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


def list_weights(weights_dir: Path, architecture: str | None = None) -> list[SourceState]:
    """Tell the state of every weight source of every architecture, or of one, and of what else is
    here. `none` needs no file. Only headers are read: `verify` reads the rest.

    Raise ExperimentError for an unknown architecture.
    """
    wanted = [architecture_named(architecture)] if architecture else ARCHITECTURES.values()
    sources = [(known.name, source) for known in wanted for source in known.weight_sources]
    states = [_state_of(name, source, weights_dir) for name, source in sources if source != "none"]
    known_paths = {stored_path(name, source, weights_dir) for name, source in sources}
    states += [
        state
        for path in sorted(weights_dir.glob("*.safetensors"))
        if path not in known_paths
        for state in _state_of_other(path)
        if architecture in (None, state.architecture)
    ]
    return states


def _state_of(architecture: str, source: str, weights_dir: Path) -> SourceState:
    published = files_for(architecture, source)
    path = stored_path(architecture, source, weights_dir)
    if not path.exists():
        return SourceState(architecture, source, "missing", published)
    try:
        return SourceState(architecture, source, "here", published, file=describe_stored(path))
    except WeightsError as error:
        return SourceState(architecture, source, "damaged", published, problem=error)


def _state_of_other(path: Path) -> Iterator[SourceState]:
    """Tell the state of a person's own weights, or another of timm's; of nothing that facebench
    did not write, such as a published file that lies here unconverted."""
    try:
        if HEADER not in header_of(path):
            return
        here = describe_stored(path)
    except WeightsError as error:
        # Its header is gone; its name still says what it was.
        architecture, _, source = path.stem.partition("-")
        label = source.removeprefix("local-")
        source = f"{LOCAL}{label}" if label != source else source
        yield SourceState(architecture, source, "damaged", (), problem=error)
        return
    published = () if here.is_own else files_for(here.architecture, here.source)
    yield SourceState(here.architecture, here.source, "here", published, file=here)


def verify(weights_dir: Path) -> list[SourceState]:
    """Read every converted file that is at hand, whole: its sum, its tensors, and whether the file
    it comes from is the one that is pinned."""
    here = [state for state in list_weights(weights_dir) if state.state != "missing"]
    return [_verified(state) for state in here]


def _verified(state: SourceState) -> SourceState:
    if state.file is None:
        return state
    try:
        file, tensors = read_stored(state.file.path)
        by_tensors = known_by_tensors(file.architecture, tensors, state.published)
        for known in state.published:
            if file.published and file.origin == known.file_name and known != by_tensors:
                check_pin(known, file.origin_sha256, file.path.parent)
    except WeightsError as error:
        return SourceState(
            state.architecture, state.source, "damaged", state.published, problem=error
        )
    return state
