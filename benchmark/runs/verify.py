"""Whether a run's numbers still hold: recomputed from its predictions, and those from its weights.

Nothing is written or mended here. What a run's files are is told by benchmark.record.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import pandas as pd
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.splits import PartName, Rows
from benchmark.errors import BenchmarkError, RunError, WeightsError
from benchmark.evaluation.artifacts import COST, changed_files, faces_of, scores_unchanged
from benchmark.evaluation.metrics import SCORING_VERSION, score
from benchmark.evaluation.predictions import (
    PARTS,
    predicted_tasks,
    predictions_digest,
    predictions_table,
    probability_columns,
    read_predictions,
)
from benchmark.experiment.definition import Experiment
from benchmark.files import canonical_json
from benchmark.identity import Ingredients, identity_of
from benchmark.inference.load import load_trained
from benchmark.models.weight_store import MODEL_FILE
from benchmark.record import RunRecord
from benchmark.training.device import Device
from benchmark.training.predict import probabilities

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

Verdict = Literal["holds", "differs", "not checked"]
SAME_NUMBER: Final = 1e-9
"""Of a metric computed twice from the same table; libraries may add in another order."""
SAME_PROBABILITY: Final = 1e-4
"""Of a probability computed on another machine: convolutions add in another order there."""


@dataclass(frozen=True)
class Finding:
    """One question asked of a run, and the answer."""

    what: str
    verdict: Verdict
    detail: str


def verify(record: RunRecord, prepared: Iterable["FaceSet"] = ()) -> list[Finding]:
    """Ask everything that can be asked of a finished run here.

    prepared: data sets at hand; without the run's own its predictions cannot be made again. Raise
    RunError where the run is not done, or its folder does not even say what it is.
    """
    if record.state != "done":
        raise RunError(
            f"run {record.identity[:12]} is not done but {record.state}",
            allowed="a finished run",
            source=str(record.folder),
            fix="Run its experiment again: it goes on from where it stopped",
        )
    faces = tuple(prepared)
    questions: dict[str, Callable[[RunRecord], Finding]] = {
        "files": _files,
        "definition": lambda run: _definition(run, faces),
        "metrics": _metrics,
        "predictions": lambda run: _predictions(run, faces),
    }
    return [_answered(what, ask, record) for what, ask in questions.items()]


def _answered(what: str, ask: Callable[[RunRecord], Finding], record: RunRecord) -> Finding:
    """Ask; what cannot be read does not hold."""
    try:
        return ask(record)
    except BenchmarkError as error:
        return Finding(what, "differs", str(error))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return Finding(
            what, "differs", f"the files hold too little: {type(error).__name__} {error}"
        )


def _files(record: RunRecord) -> Finding:
    changed = changed_files(record)
    if changed is None:
        return Finding(
            "files", "not checked", "done.json has no list of digests: of an older facebench"
        )
    if changed:
        return Finding("files", "differs", "changed since the run ended: " + ", ".join(changed))
    return Finding("files", "holds", "as they were when the run ended")


def _definition(record: RunRecord, prepared: tuple["FaceSet", ...]) -> Finding:
    """Compute the run's identity again from all that experiment.json says it is made of.

    Where it is of before digests of labels were kept, the digest is taken from the prepared faces.
    """
    about = record.about
    own_faces = faces_of(record, prepared) if "labels_digest" not in about["dataset"] else None
    stored = about["dataset"].get("labels_digest")
    ingredients = Ingredients(
        weights_sha256=about["weights"]["sha256"],
        pixel_digest=about["dataset"]["pixel_digest"],
        split_digest=about["dataset"]["split_digest"],
        trainer_version=about["trainer_version"],
        labels_digest=own_faces.faces.labels_digest if own_faces else stored,
    )
    experiment = Experiment.from_dict(about["experiment"])
    identity = identity_of(experiment, ingredients, about["seed"])
    if identity != record.identity or about["identity"] != identity:
        return Finding(
            "definition", "differs",
            f"experiment.json describes run {identity[:12]}, its folder is {record.identity[:12]}",
        )  # fmt: skip
    return Finding("definition", "holds", f"{experiment.name}, seed {about['seed']}, is its id")


def _metrics(record: RunRecord) -> Finding:
    path = record.predictions_path
    if record.predictions_sha256 != predictions_digest(path):
        return Finding(
            "metrics", "differs", f"they are of other predictions than {path.name} holds now"
        )
    scores = score(read_predictions(path))
    stored = {name: value for name, value in record.metrics.items() if not name.startswith(COST)}
    older = record.scoring_version < SCORING_VERSION
    expected = {k: v for k, v in scores.metrics.items() if k in stored or not older}
    wrong = sorted(_unequal(stored, expected))
    subgroups = record.subgroups().reset_index(drop=True)
    if not wrong and not _same_table(subgroups, scores.subgroups):
        wrong = ["subgroups"]
    if wrong:
        shown = ", ".join(f"{name} {_both(name, stored, scores.metrics)}" for name in wrong[:3])
        return Finding("metrics", "differs", f"{len(wrong)} of {len(stored)}: {shown}")
    if scores_unchanged(record) is False:
        return Finding(
            "metrics", "differs", "metrics.json was changed since it was written: a cost, an "
            "answer or a last digit; `facebench runs rescore --again` makes it anew",
        )  # fmt: skip
    said = f"{len(stored)} numbers and {len(scores.subgroups)} subgroups come out again"
    if older:
        said += "; `facebench runs rescore` adds those that came since"
    return Finding("metrics", "holds", said)


def _unequal(stored: dict[str, float], again: dict[str, float]) -> Iterator[str]:
    for name in stored.keys() | again.keys():
        old, new = stored.get(name), again.get(name)
        if old is None or new is None or not abs(float(old) - float(new)) <= SAME_NUMBER:
            yield name


def _both(name: str, stored: dict[str, float], again: dict[str, float]) -> str:
    return f"(stored {stored.get(name, 'none')}, computed {again.get(name, 'none')})"


def _same_table(stored: pd.DataFrame, again: pd.DataFrame) -> bool:
    again = again.reset_index(drop=True)
    if list(stored.columns) != list(again.columns) or len(stored) != len(again):
        return False
    for name in again.columns:
        if again[name].dtype.kind == "f":
            close = np.isclose(
                stored[name].to_numpy(float), again[name].to_numpy(float),
                rtol=0, atol=SAME_NUMBER, equal_nan=True,
            )  # fmt: skip
        else:
            close = stored[name].astype(str).to_numpy() == again[name].astype(str).to_numpy()
        if not close.all():
            return False
    return True


def _predictions(record: RunRecord, prepared: tuple["FaceSet", ...]) -> Finding:
    """Let the stored weights say again what they said, on the CPU in fp32."""
    path = record.folder / MODEL_FILE
    if not path.is_file():
        return Finding("predictions", "not checked", f"the run kept no {path.name}")
    run_faces = faces_of(record, prepared)
    if run_faces is None:
        name = record.about["dataset"]["name"]
        return Finding(
            "predictions", "not checked", f"the faces of data set {name!r} are not prepared here"
        )
    stored = read_predictions(record.predictions_path)
    again = _said_again(record, path, run_faces.faces, run_faces.parts, stored)
    return _compared(stored, again)


def _said_again(
    record: RunRecord, path: Path, faces: "FaceSet", parts: Mapping[PartName, Rows],
    stored: pd.DataFrame,
) -> pd.DataFrame:  # fmt: skip
    trained = load_trained(path)
    if canonical_json(trained.experiment.as_dict()) != canonical_json(record.about["experiment"]):
        raise WeightsError(
            f"{path.name} is of {trained.experiment.name!r} as defined otherwise",
            allowed="the definition in experiment.json",
            source=str(path),
        )
    cpu = Device(torch.device("cpu"), "fp32")
    cpu.place(trained.network)
    on_cpu = FaceBatches.on_device(faces.pixels(), faces.table, cpu.torch_device)
    tables = []
    for part in PARTS:
        if (stored["part"] == part).any():
            said = probabilities(trained.network, on_cpu, torch.from_numpy(parts[part]))
            tables.append(predictions_table(faces.table.iloc[parts[part]], part, said))
    return pd.concat(tables, ignore_index=True)


def _compared(stored: pd.DataFrame, again: pd.DataFrame) -> Finding:
    """Compare face by face; a class may change only where the two were as good as equal."""
    tasks = predicted_tasks(again)
    if tasks != predicted_tasks(stored) or len(stored) != len(again):
        return Finding("predictions", "differs", "they are of other faces or other tasks")
    both = stored.merge(again, on=["part", "file"], suffixes=("", "_again"))
    if len(both) != len(stored):
        return Finding("predictions", "differs", "they are of other faces")
    columns = [name for task in tasks for name in probability_columns(task)]
    # The table keeps nine digits, which give an fp32 number back and no more than that.
    old = both[columns].to_numpy(np.float32)
    new = both[[f"{name}_again" for name in columns]].to_numpy(np.float32)
    most = float(np.abs(old - new).max())
    turned = sum(int((both[f"{t}_pred"] != both[f"{t}_pred_again"]).sum()) for t in tasks)
    faces = f"{len(both):,} faces said again, {turned} classes differ"
    if most > SAME_PROBABILITY:
        return Finding("predictions", "differs", f"{faces}, probabilities by up to {most:.3g}")
    exactly = "bit for bit" if most == 0 else f"within {most:.1g}"
    return Finding("predictions", "holds", f"{faces}, probabilities equal {exactly}")
