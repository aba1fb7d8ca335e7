"""Weight sources: find their weights here, fetch what is published, and load them as tensors.

They are kept converted, one file per architecture and source (weight_store). Which are published,
and where, is in weight_manifest.
"""

import http.client
import json
import socket
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import torch.hub
from torch import Tensor

from benchmark.errors import RunError, WeightsError, WeightsMissing
from benchmark.experiment.architectures import ARCHITECTURES, NOT_OFFERED, architecture_named
from benchmark.files import file_lock, sha256_of
from benchmark.models.preprocessing import Preprocessing
from benchmark.models.weight_formats import (
    fitted,
    header_of,
    is_markup,
    ours,
    read_weight_file,
    tensor_digest,
)
from benchmark.models.weight_manifest import PublishedFile, files_for, stored_path
from benchmark.models.weight_store import (
    HEADER,
    WeightFile,
    add_file,
    check_trusted,
    content_sha256,
    not_written,
    read_stored,
)
from benchmark.record import RunRecord, finished_run

LOCAL: Final = "local:"
RUN: Final = "run:"
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
    reasons = []
    for candidate in () if offline else candidates:
        if candidate.url not in _FAILED:
            try:
                return _downloaded(candidate, weights_dir, on_download)
            except WeightsMissing as error:
                _FAILED[candidate.url] = f"{urlsplit(candidate.url).netloc}: {error.found}"
        reasons.append(_FAILED[candidate.url])
    if candidates:
        why = f", and cannot be downloaded ({'; '.join(reasons)})" if reasons else ""
        urls = " or ".join(candidate.url for candidate in candidates)
        raise WeightsMissing(
            f"the {source!r} weights of {architecture} are not here{why}",
            source=str(weights_dir),
            fix=f"Download {urls} where there is a network, then: facebench weights add FILE",
        )
    label = source.removeprefix(LOCAL)
    known = (*architecture_named(architecture).weight_sources, "local:LABEL", "run:ID")
    raise WeightsMissing(
        f"there are no {source!r} weights of {architecture}"
        + (f": {NOT_OFFERED[source]}" if source in NOT_OFFERED else ""),
        allowed=", ".join(known),
        source=str(weights_dir),
        fix=f"Add them: facebench weights add FILE --label {label} --architecture {architecture}",
    )


def _downloaded(
    known: PublishedFile, weights_dir: Path, on_download: Callable[[str], None] | None
) -> WeightFile:
    """Download a file and convert it, or raise WeightsMissing; one process at a time."""
    file = weights_dir / "downloads" / known.file_name
    stored = stored_path(known.architecture, known.source, weights_dir)
    try:
        with file_lock(file.parent / ".lock", wait=True):
            if stored.exists():  # another process converted it meanwhile
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
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    reason = "an HTML page came instead of the file"
    try:
        torch.hub.download_url_to_file(url, str(file), progress=False)
        with file.open("rb") as stream:
            if not is_markup(stream.read(512)):
                return
    except (
        urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError,
    ) as error:  # fmt: skip
        reason = str(error) or repr(error)
    finally:
        socket.setdefaulttimeout(timeout)
    raise WeightsMissing(reason, source=url)


def resolve_run(source: str, architecture: str, runs_dir: Path) -> WeightFile:
    """Find the run that `run:ID` names, and describe its backbone, as it was built and fed.

    Whether the faces that it saw may be test faces of the next run is for benchmark.runs.plan to
    check. Raise WeightsMissing where there is no such finished run, or several; RunError where its
    weights were not kept, WeightsError where they are of another architecture or damaged.
    """
    try:
        record = finished_run(source.removeprefix(RUN), runs_dir)
    except RunError as error:
        parts = {"allowed": error.allowed, "source": error.source, "fix": error.fix}
        raise WeightsMissing(error.found, **parts) from None
    trained = record.about["experiment"]["backbone"]["architecture"]
    if trained != architecture:
        raise WeightsError(
            f"run {record.identity[:12]} trained {trained}, not {architecture}",
            source=str(record.folder),
        )
    return _read_run(record, source)[0]


def _read_run(record: RunRecord, source: str) -> tuple[WeightFile, dict[str, Tensor]]:
    """Read a finished run's backbone, how it is fed, and the faces that it and those before saw."""
    path, about = record.model_path(), record.about
    definition, dataset = about["experiment"], about["dataset"]
    architecture, protocol = definition["backbone"]["architecture"], definition["protocol"]
    tensors = fitted(ours(architecture), read_weight_file(path).tensors, str(path))
    network = json.loads(header_of(path)["network"])
    preprocessing = Preprocessing.from_dict(network["preprocessing"])
    options = dict(network["options"])
    own = {
        "run": about["identity"],
        "dataset": dataset["name"],
        "pixel_digest": dataset["pixel_digest"],
        "split_digest": dataset["split_digest"],
        "split_version": protocol["split"],
        "fold": protocol["fold"],
        "leaky": bool(about["leaky"]),
    }
    described = WeightFile(
        architecture=architecture,
        source=source,
        path=path,
        sha256=content_sha256(tensors, preprocessing, options),
        origin=f"run {record.identity[:12]} ({record.experiment_name}, seed {record.seed})",
        origin_sha256=sha256_of(path),
        published=False,
        licence=f"trained here, from {about['weights']['source']!r} weights",
        trained_on=dataset["name"],
        preprocessing=preprocessing,
        options=options,
        from_run=record.identity,
        faces_seen=(own, *about["weights"].get("faces_seen", [])),
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
    here, read whole: its sums, and whether what it comes from has the trusted checksum. `none`
    needs no file.

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
        # What a file was where its header is gone.
        name, _, source = path.stem.partition("-")
        state = states.get(path) or SourceState(name, source.replace("local-", LOCAL, 1), ())
        try:
            if path not in states and HEADER not in header_of(path):
                continue
            here, tensors = read_stored(path)
            published = () if here.is_own else files_for(here.architecture, here.source)
            for known in published:
                is_it = here.published and here.origin == known.file_name
                if is_it and not (known.digest and known.digest == tensor_digest(tensors)):
                    check_trusted(known, here.origin_sha256, weights_dir)
            found = SourceState(here.architecture, here.source, published, here)
        except WeightsError as error:
            found = replace(state, problem=error)
        if architecture in (None, found.architecture):
            states[path] = found
    return list(states.values())
