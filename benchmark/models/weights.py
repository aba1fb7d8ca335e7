"""Weights that backbones start from: found, fetched, added, kept converted, listed and loaded.

One safetensors file per architecture and source, with a description in its header. `pins.json` has
the checksums of published files whose publishers give none, or not the whole of one, as first met.
How weights are fed is never guessed: the file says so, its publisher, or the person.
"""

import contextlib
import datetime
import http.client
import json
import re
import socket
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import torch.hub
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark import files
from benchmark.errors import RunError, WeightsError, WeightsMissing
from benchmark.experiment.architectures import ARCHITECTURES, architecture_named
from benchmark.models import weight_formats as formats
from benchmark.models.backbone import build_backbone
from benchmark.models.weight_manifest import Preprocessing, PublishedFile, files_for, stored_path
from benchmark.record import RunRecord
from benchmark.registry import finished_run

LOCAL: Final = "local:"
RUN: Final = "run:"
SCHEMA: Final = 1
HEADER: Final = "facebench"
"""Key of the description in a converted file's metadata."""
NETWORK_HEADER: Final = "network"
"""Key under which a run's network says how it is fed and built (Network.describe)."""
TRUSTED_FILE: Final = "pins.json"
TIMEOUT_SECONDS: Final = 5.0
"""To connect, and without a byte while downloading."""
_FAILED: Final[dict[str, str]] = {}
"""Address → why it gave nothing: a suite waits for each address once, not once a run."""


@dataclass(frozen=True)
class WeightFile:
    """Weights that are here, with what is known of them."""

    architecture: str
    source: str
    path: Path
    sha256: str
    """Of tensors, preprocessing and options (content_sha256). Part of a run's identity."""
    origin: str
    """Name of the published file, of the file that a person added, or the run."""
    preprocessing: Preprocessing
    options: Mapping[str, str]
    origin_sha256: str = ""
    """Of the published or added file; a run's has none."""
    published: bool = False
    """Whether the origin is taken to be the published file: by its tensors, its checksum, or by its
    name and layout where none is published."""
    licence: str = "not stated"
    trained_on: str = "not stated"
    from_run: str | None = None
    """Identity of the run whose backbone this is."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was taken of the origin, and what was left, in words; known only where it was added."""
    faces_seen: tuple[dict[str, Any], ...] = ()
    """By that run, and by those it started from: run, dataset, pixel_digest, split_digest,
    split_version, fold, and leaky, whether it or one before it had seen its test faces."""


class LoadedWeights(NamedTuple):
    """What a network starts from."""

    file: WeightFile
    tensors: Mapping[str, Tensor]


def read_stored(path: Path) -> LoadedWeights:
    """Read a converted file, and check it against its own sum; raise WeightsError if it differs."""
    try:
        with safe_open(path, framework="pt") as file:
            said: dict[str, Any] = json.loads((file.metadata() or {})[HEADER])
        schema, fed = said.pop("schema"), Preprocessing.from_dict(said.pop("preprocessing"))
        here, tensors = WeightFile(path=path, preprocessing=fed, **said), load_file(path)
        name = stored_path(here.architecture, here.source, path.parent).name
        if (schema, path.name) != (SCHEMA, name):
            raise ValueError(f"it holds {name} of schema {schema}")
        sha256 = formats.content_sha256(tensors, fed, here.options)
        if sha256 != here.sha256:
            raise ValueError(f"its content's sha256 is {sha256}, not {here.sha256}")
    except formats.NOT_LOADABLE as error:
        fix, allowed = "Delete it, then: facebench weights add FILE", "a file written by facebench"
        raise formats.refused(path, f"is damaged ({error})", fix, allowed) from None
    return LoadedWeights(here, tensors)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the system refuses into a WeightsError that says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        fix = "Free space or set FACEBENCH_WEIGHTS_DIR to a folder that can be written"
        raise WeightsError(f"weights cannot be written to {folder} ({error})", fix=fix) from None


def read_trusted(weights_dir: Path) -> dict[str, dict[str, str]]:
    """Read the trusted checksums: by file name, its `sha256` when first met, and `when` (ISO 8601).

    Raise WeightsError where they cannot be read: continuing would trust anything anew.
    """
    path = weights_dir / TRUSTED_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"its schema is {content['schema']!r}, not {SCHEMA}")
        pins = content["pins"].items()
        return {name: {key: str(it[key]) for key in ("sha256", "when")} for name, it in pins}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except formats.NOT_LOADABLE as error:
        fix = "Restore it from a backup; or delete it, and every checksum in it is taken anew"
        raise formats.refused(path, f"cannot be read ({error})", fix) from None


def check_trusted(
    known: PublishedFile, sha256: str, weights_dir: Path, *, remember: bool = False
) -> None:
    """Raise WeightsError if another checksum than this is trusted for `known`.

    remember: trust this one from now on, where none is and the publisher gives no whole sha256.
    """
    trusted = read_trusted(weights_dir)
    before = trusted.get(known.file_name, {"sha256": sha256})
    if before["sha256"] != sha256:
        found = f"{known.file_name} has the sha256 {sha256}, but another one is trusted"
        allowed = f"{before['sha256']}, trusted since {before['when'][:10]}"
        fix = "Something between its publisher and you has changed it. If its publisher says so "
        fix += f"too, remove the entry {known.file_name!r} and add the file again; results from "
        fix += "before and after are not comparable"
        source = str(weights_dir / TRUSTED_FILE)
        raise WeightsError(found, allowed=allowed, source=source, fix=fix)
    if remember and known.file_name not in trusted and known.sha256 != sha256:
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        trusted[known.file_name] = {"sha256": sha256, "when": when}
        with _writing(weights_dir):
            files.write_json(weights_dir / TRUSTED_FILE, {"schema": SCHEMA, "pins": trusted})


def add_file(
    file: Path, weights_dir: Path, architecture: str | None = None, *,
    label: str | None = None, preprocessing: Preprocessing | None = None,
    published: tuple[PublishedFile, ...] | None = None, replacing: bool = False,
    any_checksum: bool = False,
) -> WeightFile:  # fmt: skip
    """Convert a file and write it to the store, whole or not at all: as published, or with a label.

    Tensors that the manifest knows tell what a file is, whatever container and layout they are in.
    Raise WeightsError for a file that is not a published one and has no label, unless
    `any_checksum`; where nobody says how it is fed, or that contradicts its publisher or its first
    layer; for another checksum than the trusted one; where weights change, unless `replacing`.
    """
    if label is not None and re.fullmatch("[a-z0-9_]+", label) is None:
        raise WeightsError(f"the label is {label!r}", allowed="small letters, digits, underscores")
    if formats.header_of(file).keys() & {HEADER, NETWORK_HEADER}:
        fix = "Copy a converted file into the weights folder; weights='run:ID' starts from a run's "
        raise formats.refused(file, "was written by facebench", f"{fix}network")
    converted, sha256 = formats.convert(file, architecture), files.sha256_of(file)
    layout, is_own = converted.layout, label is not None
    digest = formats.tensor_digest(converted.tensors)
    same = files_for(layout.architecture) if published is None else published
    alike = [it for it in same if it.layout == layout.name]
    by_tensors = next((it for it in same if it.digest == digest), None)
    # Under a label the name says nothing.
    by_sum = (it for it in alike if it.is_file(file, sha256, by_name=not is_own))
    known = by_tensors or next(by_sum, None)
    to_trust = None if by_tensors or is_own else known
    if to_trust:
        check_trusted(to_trust, sha256, weights_dir)
    about = known or (alike[0] if any_checksum and len(alike) == 1 and not is_own else None)
    if about is None and not is_own:
        raise _not_published(layout, digest["tensors"], file, sha256, same)
    if about and preprocessing and preprocessing != about.preprocessing:
        found = f"was published as {about.preprocessing.sentence()}, and declared as "
        fix = "Declare nothing; to feed it otherwise on purpose: protocol.input_scaling"
        raise formats.refused(file, f"{found}{preprocessing.sentence()}", fix)
    fed = about.preprocessing if about else preprocessing
    if fed is None:
        fix = "A wrong one trains without a warning, and worse: ask whoever trained it"
        raise formats.refused(file, "does not say how it is fed", fix, formats.DECLARED)
    # Of a person's own: as the publisher of this layout builds the backbone.
    options = dict(like.options) if (like := about or next(iter(alike), None)) else {}
    source = f"{LOCAL}{label}" if is_own or not about else about.source
    new = WeightFile(
        layout.architecture, source, stored_path(layout.architecture, source, weights_dir),
        sha256=formats.content_sha256(converted.tensors, fed, options),
        preprocessing=fed, options=options,
        origin=known.file_name if known and not is_own else file.name, origin_sha256=sha256,
        published=known is not None and not is_own, notes=converted.notes,
        licence=about.licence if about else "not stated",
        trained_on=about.trained_on if about else "not stated",
    )  # fmt: skip
    _check_order(converted.tensors, new, file)
    with torch.device("meta"):
        build_backbone(new.architecture, **options)  # refuses options that nobody states
    here = read_stored(new.path).file if new.path.exists() and not replacing else None
    if here and here.sha256 != new.sha256:
        found = f"is already here, from {here.origin}, and {file.name} differs"
        fix = "Results of the two are not comparable; to change over: facebench weights add "
        raise formats.refused(new.path, found, f"{fix}--replace {file}")
    if here is None or (new.published and not here.published):
        said = asdict(new) | {"schema": SCHEMA}
        kept = said.keys() - {"path", "from_run", "notes", "faces_seen"}
        metadata = {HEADER: files.canonical_json({name: said[name] for name in kept})}
        with _writing(weights_dir), files.replacing(new.path) as temporary:
            save_file(converted.tensors, temporary, metadata)
    if to_trust:
        check_trusted(to_trust, sha256, weights_dir, remember=True)
    return replace(read_stored(new.path).file, notes=new.notes)


def _not_published(
    layout: formats.Layout, here: Mapping[str, str], file: Path, sha256: str,
    same: tuple[PublishedFile, ...],
) -> WeightsError:  # fmt: skip
    why = f"has the layout {layout.name} of {layout.architecture} but the sha256 {sha256}"
    for known in same:
        digests = known.digest["tensors"] if known.digest else {}
        altered = [layout.names[it] for it, digest in digests.items() if here.get(it) != digest]
        if 0 < 2 * len(altered) < len(here):
            why += f"; of {len(here)} tensors {len(here) - len(altered)} are those of "
            why += f"{known.file_name}, altered: {', '.join(altered[:4])}"
    alike = (known for known in same if known.layout == layout.name)
    allowed = [it.sha256 or it.md5 or f"a file named {it.file_name}" for it in alike]
    fix = f"Fetch the published file. If this is one of your own: facebench weights add {file} "
    fix += "--label LABEL; if you trust it to be as good: add --any-checksum"
    return formats.refused(file, why, fix, "; ".join(allowed) or "no published file of this layout")


def _check_order(tensors: Mapping[str, Tensor], new: WeightFile, file: Path) -> None:
    """Raise WeightsError where published weights that are here show that the order is another one.

    A first layer alone does not tell red from blue; where it is, or was fine-tuned from, that of
    weights whose order is known, it is like it in one of the two orders (docs/notes/weights.md).
    What a person declared of their own proves nothing.
    """
    declared = new.preprocessing.channels
    for path in sorted(new.path.parent.glob(f"{new.architecture}-*.safetensors")):
        try:
            known, theirs = read_stored(path)
        except WeightsError:
            continue  # verify says what is wrong with it
        found = formats.order_of(tensors, theirs, known.preprocessing.channels)
        if known.published and found not in (None, declared):
            theirs_is = f"{new.architecture} {known.source} and expects {found}"
            fix = f"Declare {found}; a file in another order than it was published in is not that "
            why = f"is fed {declared}, but its first layer is that of {theirs_is}"
            raise formats.refused(file, why, f"{fix}file")


def resolve(
    architecture: str, source: str, weights_dir: Path, *, offline: bool,
    on_download: Callable[[str], None] | None = None,
    published: tuple[PublishedFile, ...] | None = None,
) -> WeightFile:  # fmt: skip
    """Find the weights in the store; else convert or download a published file into it.

    A published file that lies in `weights_dir` under its own name is converted. `on_download` is
    called with the name of a file that is downloaded. Raise WeightsMissing, with the addresses,
    where nothing is available; WeightsError for a damaged file, or one that was not published so.
    """
    path = stored_path(architecture, source, weights_dir)
    candidates = files_for(architecture, source) if published is None else published
    if path.exists():
        return read_stored(path).file
    for file in (weights_dir / candidate.file_name for candidate in candidates):
        if file.exists():
            return add_file(file, weights_dir, architecture, published=candidates)
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
        found = f"the {source!r} weights of {architecture} are not here{why}"
        fix = f"Download {urls} where there is a network, then: facebench weights add FILE"
        raise WeightsMissing(found, source=str(weights_dir), fix=fix)
    label, found = source.removeprefix(LOCAL), f"there are no {source!r} weights of {architecture}"
    known = (*architecture_named(architecture).weight_sources, f"{LOCAL}LABEL", f"{RUN}ID")
    fix = f"Add them: facebench weights add FILE --label {label} --architecture {architecture}"
    raise WeightsMissing(found, allowed=", ".join(known), source=str(weights_dir), fix=fix)


def _downloaded(
    known: PublishedFile, weights_dir: Path, on_download: Callable[[str], None] | None
) -> WeightFile:
    """Download a file and convert it, or raise WeightsMissing; one process at a time."""
    file = weights_dir / "downloads" / known.file_name
    stored = stored_path(known.architecture, known.source, weights_dir)
    timeout, reason = socket.getdefaulttimeout(), "an HTML page came instead of the file"
    with _writing(weights_dir), files.file_lock(file.parent / ".lock", wait=True):
        if stored.exists():  # another process converted it meanwhile
            return read_stored(stored).file
        if on_download is not None:
            on_download(known.file_name)
        socket.setdefaulttimeout(TIMEOUT_SECONDS)
        try:
            torch.hub.download_url_to_file(known.url, str(file), progress=False)
        except (
            urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError,
            ValueError,
        ) as error:  # fmt: skip
            reason = str(error) or repr(error)
        else:
            if not formats.is_markup(formats.first_bytes(file)):
                return add_file(file, weights_dir, known.architecture, published=(known,))
        finally:
            socket.setdefaulttimeout(timeout)
            file.unlink(missing_ok=True)
    raise WeightsMissing(reason, source=known.url)


def resolve_run(source: str, architecture: str, runs_dir: Path) -> WeightFile:
    """Find the run that `run:ID` names, and describe its backbone, as it was built and fed.

    Raise WeightsMissing where there is no such finished run, or several; RunError where its weights
    were not kept, WeightsError where they are of another architecture or damaged.
    """
    try:
        record = finished_run(source.removeprefix(RUN), runs_dir)
    except RunError as error:
        parts = {"allowed": error.allowed, "source": error.source, "fix": error.fix}
        raise WeightsMissing(error.found, **parts) from None
    trained = record.about["experiment"]["backbone"]["architecture"]
    if trained != architecture:
        found = f"run {record.identity[:12]} trained {trained}, not {architecture}"
        raise WeightsError(found, source=str(record.folder))
    return _read_run(record, source).file


def _read_run(record: RunRecord, source: str) -> LoadedWeights:
    """Read a finished run's backbone, how it is fed, and the faces that it and those before saw."""
    path, about = record.model_path(), record.about
    experiment, dataset, before = about["experiment"], about["dataset"], about["weights"]
    architecture, protocol = experiment["backbone"]["architecture"], experiment["protocol"]
    tensors = formats.convert(path, architecture).tensors
    network = json.loads(formats.header_of(path)[NETWORK_HEADER])
    preprocessing = Preprocessing.from_dict(network["preprocessing"])
    own = {
        "run": about["identity"], "dataset": dataset["name"],
        "pixel_digest": dataset["pixel_digest"], "split_digest": dataset["split_digest"],
        "split_version": protocol["split"], "fold": protocol["fold"], "leaky": bool(about["leaky"]),
    }  # fmt: skip
    sha256 = formats.content_sha256(tensors, preprocessing, network["options"])
    described = WeightFile(
        architecture, source, path, sha256,
        origin=f"run {record.identity[:12]} ({record.experiment_name}, seed {record.seed})",
        preprocessing=preprocessing, options=network["options"],
        from_run=record.identity, faces_seen=(own, *before.get("faces_seen", [])),
    )  # fmt: skip
    return LoadedWeights(described, tensors)


def load(file: WeightFile) -> LoadedWeights:
    """Load the tensors that were resolved; raise WeightsError if the file changed since."""
    record = RunRecord(file.path.parent)
    here = _read_run(record, file.source) if file.from_run else read_stored(file.path)
    if here.file.sha256 != file.sha256:
        fix = "Start again; a run's identity names the weights that it starts from"
        raise formats.refused(file.path, "has changed since it was resolved", fix)
    return here


Listed = dict[tuple[str, str], tuple[tuple[PublishedFile, ...], WeightFile | WeightsError | None]]
"""By architecture and source: its published files; its weights here, or what is wrong with them."""


def list_weights(weights_dir: Path, architecture: str | None = None) -> Listed:
    """List every weight source, or those of one architecture, and what else is here, read whole:
    its sums, and whether what it comes from has the trusted checksum.

    Left out is what facebench did not write, such as a published file that was not yet converted.
    Raise ExperimentError for an unknown architecture.
    """
    wanted = [architecture_named(architecture)] if architecture else ARCHITECTURES.values()
    named = ((it.name, source) for it in wanted for source in it.weight_sources if source != "none")
    listed: Listed = {source: (files_for(*source), None) for source in named}
    for path in sorted(weights_dir.glob("*.safetensors")):
        name, _, label = path.stem.partition("-")
        source = (name, label.replace("local-", LOCAL, 1))
        published, here = listed.get(source, ((), None))
        try:
            if source not in listed and HEADER not in formats.header_of(path):
                continue
            here, tensors = read_stored(path)
            published = () if label.startswith("local-") else files_for(*source)
            origins = (it for it in published if here.published and it.file_name == here.origin)
            for known in origins:
                if known.digest != formats.tensor_digest(tensors):
                    check_trusted(known, here.origin_sha256, weights_dir)
        except WeightsError as error:
            here = error
        if architecture in (None, name):
            listed[source] = (published, here)
    return listed
