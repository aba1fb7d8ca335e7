"""Weight sources: find their weights here, fetch what is published, and load them as tensors.

They are kept converted, one file per architecture and source (weight_store). Which are published,
and where, is in weight_manifest; a file that a person brings is added by weight_adding.
"""

import http.client
import socket
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import torch.hub
from torch import Tensor

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.experiment.architectures import ARCHITECTURES, NOT_OFFERED, architecture_named
from benchmark.files import file_lock, sha256_of
from benchmark.models.preprocessing import Preprocessing
from benchmark.models.weight_adding import add_file, known_by_tensors
from benchmark.models.weight_formats import fitted, ours
from benchmark.models.weight_manifest import PublishedFile, files_for, stored_path
from benchmark.models.weight_readers import header_of, is_markup, read_weight_file
from benchmark.models.weight_store import (
    HEADER,
    MODEL_FILE,
    WeightFile,
    check_trusted,
    content_sha256,
    demands_of_run,
    describe_stored,
    faces_seen_by,
    not_written,
    read_stored,
)
from benchmark.record import RunRecord, work_folder

LOCAL: Final = "local:"
RUN: Final = "run:"
N_DIGITS: Final = 8
"""Of a run's identity, at least, that name it."""
TIMEOUT_SECONDS: Final = 5.0
"""To connect, and without a byte while downloading."""

_FAILED: Final[dict[str, str]] = {}
"""Address → why it gave nothing. Every run of a suite resolves its weights: a machine without a
network waits for each address once a process, not once a run."""


@dataclass(frozen=True)
class LoadedWeights:
    """What a network starts from: tensors of a backbone, how it is fed and built."""

    architecture: str
    source: str
    tensors: Mapping[str, Tensor]
    preprocessing: Preprocessing
    options: Mapping[str, str]


@dataclass(frozen=True)
class SourceState:
    """One weight source of one architecture, and whether its weights are here."""

    architecture: str
    source: str
    published: tuple[PublishedFile, ...]
    file: WeightFile | None = None
    problem: WeightsError | None = None

    @property
    def state(self) -> str:
        """`here`, `missing` or `damaged`."""
        return "damaged" if self.problem else "here" if self.file else "missing"


def resolve(
    architecture: str,
    source: str,
    weights_dir: Path,
    *,
    offline: bool,
    on_download: Callable[[str], None] | None = None,
    published: tuple[PublishedFile, ...] | None = None,
) -> WeightFile:
    """Find the weights in the store; else convert or download a published file into it.

    A published file that lies in `weights_dir` under its own name is converted. `on_download` is
    called with the name of a file that is downloaded. Raise WeightsMissing, with the addresses,
    where nothing is available; WeightsError for a damaged file, or one that was not published so.
    """
    path = stored_path(architecture, source, weights_dir)
    candidates = files_for(architecture, source) if published is None else published
    if path.exists():
        return read_stored(path)[0]
    for candidate in candidates:
        if (weights_dir / candidate.file_name).exists():
            return add_file(weights_dir / candidate.file_name, weights_dir, published=candidates)
    for candidate in () if offline else candidates:
        if candidate.url in _FAILED:
            continue
        try:
            return _downloaded(candidate, weights_dir, on_download)
        except WeightsMissing as error:
            _FAILED[candidate.url] = f"{urlsplit(candidate.url).netloc}: {error.found}"
    reasons = [] if offline else [_FAILED[candidate.url] for candidate in candidates]
    raise _missing(architecture, source, weights_dir, candidates, reasons)


def _downloaded(
    known: PublishedFile, weights_dir: Path, on_download: Callable[[str], None] | None
) -> WeightFile:
    file = weights_dir / "downloads" / known.file_name
    stored = stored_path(known.architecture, known.source, weights_dir)
    try:
        # One process at a time: others find the file converted.
        with file_lock(file.parent / ".lock", wait=True):
            if stored.exists():
                return read_stored(stored)[0]
            try:
                if on_download is not None:
                    on_download(known.file_name)
                _download(known.url, file)
                return add_file(file, weights_dir, published=(known,))
            finally:
                file.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(weights_dir, error) from None


def _download(url: str, file: Path) -> None:
    """Download a file, whole or not at all; raise WeightsMissing where the address gives none."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    reason = "an HTML page came instead of the file"
    try:
        torch.hub.download_url_to_file(url, str(file), progress=False)
        with file.open("rb") as stream:
            if not is_markup(stream.read(512)):
                return
    except urllib.error.HTTPError as error:
        reason = f"the server answered {error.code} {error.reason}"
    except urllib.error.URLError as error:
        reason = str(error.reason)
    except (http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = str(error) or repr(error)
    finally:
        socket.setdefaulttimeout(timeout)
    raise WeightsMissing(reason, source=url, fix="Download it by hand where there is a network")


def _missing(
    architecture: str,
    source: str,
    weights_dir: Path,
    candidates: tuple[PublishedFile, ...],
    reasons: list[str],
) -> WeightsMissing:
    if source.startswith(LOCAL):
        label, start = source.removeprefix(LOCAL), f"{architecture}-local-"
        paths = sorted(weights_dir.glob(f"{start}*.safetensors"))
        return WeightsMissing(
            f"no weights of {architecture} were added under the label {label!r}",
            allowed=", ".join(path.stem.removeprefix(start) for path in paths) or "none yet",
            source=str(weights_dir),
            fix="Add them: facebench weights add FILE "
            f"--label {label} --architecture {architecture}",
        )
    if not candidates:
        why = f": {NOT_OFFERED[source]}" if source in NOT_OFFERED else ""
        known = ", ".join(architecture_named(architecture).weight_sources)
        return WeightsMissing(
            f"no published file is known for the {source!r} weights of {architecture}{why}",
            allowed=f"{known}, local:LABEL, run:ID",
            fix="Choose one of these, or add a source in benchmark/models/weight_manifest.py",
        )
    why = f", and cannot be downloaded ({'; '.join(reasons)})" if reasons else ""
    urls = " or ".join(candidate.url for candidate in candidates)
    return WeightsMissing(
        f"the {source!r} weights of {architecture} are not here{why}",
        source=str(weights_dir),
        fix=f"Download {urls} where there is a network, then: facebench weights add FILE",
    )


def resolve_run(source: str, architecture: str, runs_dir: Path) -> WeightFile:
    """Find the run that `run:ID` names, and describe its backbone, as it was built and fed.

    Whether the faces that it saw may be test faces of the next run is for benchmark.runs.plan to
    check. Raise WeightsMissing where there is no such run yet, or it is not done; WeightsError
    where several begin so, its weights were not kept, are of another architecture or damaged.
    """
    digits = source.removeprefix(RUN)
    folders = sorted(work_folder(runs_dir).glob(f"{digits}*")) if len(digits) >= N_DIGITS else []
    found = [RunRecord(folder) for folder in folders if (folder / "experiment.json").is_file()]
    if len(found) > 1:
        raise WeightsError(
            f"{len(found)} runs begin with {digits}",
            allowed=f"one of {', '.join(record.identity for record in found)}",
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
    (record,) = found
    if record.state != "done":
        raise WeightsMissing(
            f"run {record.identity[:12]} ({record.experiment_name}, seed {record.seed}) is not "
            f"done but {record.state}",
            source=str(record.folder),
            fix=f"Finish it: facebench run {record.experiment_name} --seeds {record.seed}",
        )
    trained = record.about["experiment"]["backbone"]["architecture"]
    if trained != architecture:
        raise WeightsError(
            f"run {record.identity[:12]} trained {trained}, not {architecture}",
            allowed=f"a run of {architecture}",
            source=str(record.folder),
        )
    return _read_run(record, source)[0]


def _read_run(record: RunRecord, source: str) -> tuple[WeightFile, dict[str, Tensor]]:
    """Read a finished run's backbone with what it demands; raise WeightsError without weights."""
    path, about = record.folder / MODEL_FILE, record.about
    if not path.is_file():
        raise WeightsError(
            f"run {record.identity[:12]} kept no weights",
            source=str(record.folder),
            fix="Remove its folder and run it again with --keep-weights best",
        )
    architecture = about["experiment"]["backbone"]["architecture"]
    preprocessing, options = demands_of_run(path)
    tensors = fitted(ours(architecture), read_weight_file(path).tensors, str(path))
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


def load(file: WeightFile) -> LoadedWeights:
    """Load the tensors that were resolved; raise WeightsError if the file changed since."""
    if file.from_run is None:
        here, tensors = read_stored(file.path)
    else:
        here, tensors = _read_run(RunRecord(file.path.parent), file.source)
    if here.sha256 != file.sha256:
        raise WeightsError(
            f"{file.path.name} has changed since it was resolved",
            source=str(file.path),
            fix="Start again; a run's identity names the weights that it starts from",
        )
    return LoadedWeights(here.architecture, here.source, tensors, here.preprocessing, here.options)


def list_weights(weights_dir: Path, architecture: str | None = None) -> list[SourceState]:
    """Tell the state of every weight source of every architecture, or of one, and of what else is
    here. `none` needs no file. Only headers are read: `verify` reads the rest.

    Left out is what facebench did not write, such as a published file that was not yet converted.
    Raise ExperimentError for an unknown architecture.
    """
    wanted = [architecture_named(architecture)] if architecture else ARCHITECTURES.values()
    states = {
        stored_path(known.name, source, weights_dir): SourceState(
            known.name, source, files_for(known.name, source)
        )
        for known in wanted
        for source in known.weight_sources
        if source != "none"
    }
    for path in sorted(weights_dir.glob("*.safetensors")):
        state = states.get(path)
        try:
            if state is None and HEADER not in header_of(path):
                continue
            here = describe_stored(path)
            published = () if here.is_own else files_for(here.architecture, here.source)
            found = SourceState(here.architecture, here.source, published, here)
        except WeightsError as error:
            # Its header is gone; its name still says what it was.
            name, _, source = path.stem.partition("-")
            if source.startswith("local-"):
                source = LOCAL + source.removeprefix("local-")
            found = replace(state or SourceState(name, source, ()), problem=error)
        if architecture in (None, found.architecture):
            states[path] = found
    return list(states.values())


def verify(weights_dir: Path) -> list[SourceState]:
    """Read every converted file that is here, whole: its sum, its tensors, and whether the file it
    comes from has the trusted checksum."""
    return [_verified(state) for state in list_weights(weights_dir) if state.state != "missing"]


def _verified(state: SourceState) -> SourceState:
    if state.file is None:
        return state
    try:
        file, tensors = read_stored(state.file.path)
        by_tensors = known_by_tensors(file.architecture, tensors, state.published)
        for known in state.published:
            if file.published and file.origin == known.file_name and known != by_tensors:
                check_trusted(known, file.origin_sha256, file.path.parent)
    except WeightsError as error:
        return replace(state, file=None, problem=error)
    return state
