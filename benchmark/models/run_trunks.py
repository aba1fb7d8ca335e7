"""The trunk of a finished run as a weight source: `run:ID`, as that run was laid out and fed.

Whether the faces that it saw may be test faces of the next run is for benchmark.plans to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.files import sha256_of
from benchmark.models.conversion import fitted
from benchmark.models.layouts import ours
from benchmark.models.preprocessing import Preprocessing
from benchmark.models.readers import header_of, read_json, read_tensors
from benchmark.models.store import FacesSeen, WeightFile, content_sha256
from benchmark.results.record import RunRecord, work_folder

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
