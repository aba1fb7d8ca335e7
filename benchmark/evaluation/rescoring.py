"""Computing a finished run's numbers again from its predictions, by the rules of this version.

No network is needed. Costs (seconds, parameters, memory) are taken from the run's other files.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from benchmark.data.replays import replayed_parts
from benchmark.data.splits import PartName, Rows, parts_of
from benchmark.data.subsets import labelled_parts, subset_parts
from benchmark.errors import RunError
from benchmark.evaluation.artifacts import (
    SUSPECTS_SHEET,
    AtHand,
    is_scored,
    scores_are_sealed,
    write_artifacts,
)
from benchmark.evaluation.predictions import predictions_digest
from benchmark.evaluation.red_flags import CHECKS_FILE
from benchmark.experiment.definition import Protocol, Subset
from benchmark.files import claimed, holder
from benchmark.record import RunRecord

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

COST: Final = "cost/"
"""Prefix of the metrics that no predictions can tell."""

Outcome = Literal["rescored", "current"]


def rescore(
    record: RunRecord, prepared: Iterable["FaceSet"] = (), *, again: bool = False
) -> Outcome:
    """Bring a finished run's numbers, tables and pictures to this version's rules.

    prepared: data sets at hand; where the run's own is among them, the sheet of label suspects and
    the checks for leaks are made too. A run that has all of it already is left alone unless
    `again`. Raises RunError for a run that is not done, is being worked on, or whose predictions
    are missing, damaged, or not those it was scored by.
    """
    name = record.identity[:12]
    if record.state != "done":
        raise RunError(
            f"run {name} of {record.experiment_name} is not done",
            allowed="a finished run",
            source=str(record.folder),
            fix=f"`facebench run {record.experiment_name} --seeds {record.seed}` goes on with it",
        )
    at_hand = faces_of(record, prepared)
    if not again and is_scored(record) and _has_what_faces_tell(record, at_hand):
        return "current"
    with claimed(record.folder / "claim") as mine:
        if not mine:
            pid = holder(record.folder / "claim").get("pid")
            raise RunError(f"process {pid} is at run {name}", fix="Try again when it is done")
        _check_unchanged(record)
        epoch = int(record.done["selected_epoch"])
        write_artifacts(record, costs_of(record), selected_epoch=epoch, at_hand=at_hand)
    return "rescored"


def _has_what_faces_tell(record: RunRecord, at_hand: AtHand | None) -> bool:
    if at_hand is None:
        return True
    names: tuple[str, ...] = (CHECKS_FILE,)
    if any(name.startswith("test/") for name in record.metrics):
        names = (CHECKS_FILE, SUSPECTS_SHEET)
    if (record.folder / "age_edges.csv").is_file():
        names = (*names, "age_years.csv")
    return all((record.folder / name).is_file() for name in names)


def _check_unchanged(record: RunRecord) -> None:
    """Refuse predictions that somebody changed: new numbers would make them look sound.

    A run whose metrics.json is gone has nothing to be compared with, and is scored as it stands.
    """
    if not (record.folder / "metrics.json").is_file() or not record.predictions_path.is_file():
        return
    scored, stored = record.predictions_sha256, predictions_digest(record.predictions_path)
    if scored != stored:
        raise RunError(
            f"the predictions of run {record.identity[:12]} changed after they were scored",
            allowed=f"sha256 {scored[:12]}…",
            source=str(record.predictions_path),
            fix="Remove the run's folder and run the experiment again",
        )


def costs_of(record: RunRecord) -> dict[str, float]:
    """Give a finished run's cost metrics, from what its folder says besides predictions."""
    about, done = record.about, record.done
    costs = {
        "cost/seconds": done["seconds"],
        "cost/images_per_second": done["images_per_second"],
        "cost/peak_memory_mib": done["peak_memory_mib"],
        "cost/parameters": about["parameters"]["total"],
        "cost/trainable_parameters": about["parameters"]["trainable"],
        "cost/gmacs": about["multiply_adds"] / 1e9,
    }
    kept = (record.folder / "metrics.json").is_file()
    if kept and scores_are_sealed(record) is not False:
        costs |= {name: value for name, value in record.metrics.items() if name.startswith(COST)}
    return {name: float(value) for name, value in costs.items()}


def faces_of(record: RunRecord, prepared: Iterable["FaceSet"]) -> AtHand | None:
    """Find the faces of a run among the available data sets: same pixels, split and labels.

    Runs of before digests of labels were kept are told by pixels and split alone.
    """
    dataset = record.about["dataset"]
    for faces in prepared:
        own = {
            "pixel_digest": faces.pixel_digest,
            "split_digest": faces.split_digest,
            "labels_digest": faces.labels_digest,
        }
        if all(dataset.get(name, digest) == digest for name, digest in own.items()):
            return AtHand(faces, parts_of_run(record.about, faces))
    return None


def parts_of_run(about: Mapping[str, Any], faces: "FaceSet") -> dict[PartName, Rows]:
    """Give the rows that a run trained, selected and tested on; about: `experiment.json`."""
    definition = about["experiment"]
    protocol = Protocol(**definition["protocol"])
    if protocol.leaky:
        whole = replayed_parts(faces.table, protocol.split)
    else:
        whole = parts_of(faces, protocol.fold)
    whole = labelled_parts(faces.table, whole, definition["head"]["tasks"])
    subset = Subset(**definition["subset"]) if definition.get("subset") else None
    return subset_parts(faces.table, whole, subset, int(about["seed"]))
