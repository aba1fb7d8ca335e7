"""Whether a run's numbers still hold: recomputed from its predictions, and those from its weights.

Nothing is written or fixed here. What a run's files are: benchmark.record.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
import torch

from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, RunError, WeightsError
from benchmark.evaluation import artifacts, predictions
from benchmark.evaluation.metrics import SCORING_VERSION, score
from benchmark.experiment.definition import Experiment
from benchmark.files import canonical_json, sha256_of
from benchmark.identity import Ingredients, identity_of
from benchmark.inference.load import load_trained
from benchmark.record import MODEL_FILE, RunRecord
from benchmark.training.device import Device
from benchmark.training.predict import probabilities

Verdict = Literal["holds", "differs", "not checked"]
SAME_NUMBER: Final = 1e-9
"""Of a metric computed twice from the same table; libraries may add in another order."""
SAME_PROBABILITY: Final = 1e-4
"""Of a probability computed on another machine: convolutions add in another order there."""


@dataclass(frozen=True)
class Finding:
    """One check of a run, and its result."""

    what: str
    verdict: Verdict
    detail: str


def verify(record: RunRecord, prepared: Iterable[FaceSet] = ()) -> list[Finding]:
    """Make every check that can be made of a finished run here.

    prepared: available data sets; without the run's own its predictions cannot be made again. Raise
    RunError where the run is not done, or its folder does not even say what it is.
    """
    if record.state != "done":
        raise RunError(
            f"run {record.identity[:12]} is not done but {record.state}",
            allowed="a finished run",
            source=str(record.folder),
            fix="Run its experiment again: it resumes from where it stopped",
        )
    checks: dict[str, Callable[[], tuple[Verdict, str]]] = {
        "files": lambda: _files(record),
        "definition": lambda: _definition(record),
        "metrics": lambda: _metrics(record),
        "predictions": lambda: _predictions(record, tuple(prepared)),
    }
    found = []
    for what, check in checks.items():
        try:
            found.append(Finding(what, *check()))
        except BenchmarkError as error:
            found.append(Finding(what, "differs", str(error)))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            why = f"the files hold too little: {type(error).__name__} {error}"
            found.append(Finding(what, "differs", why))
    return found


def _files(record: RunRecord) -> tuple[Verdict, str]:
    if changed := artifacts.changed_files(record):
        return "differs", "changed since the run ended: " + ", ".join(changed)
    return "holds", "as they were when the run ended"


def _definition(record: RunRecord) -> tuple[Verdict, str]:
    """Compute the run's identity again from all that experiment.json says it is made of."""
    about, dataset = record.about, record.about["dataset"]
    ingredients = Ingredients(
        weights_sha256=about["weights"]["sha256"],
        pixel_digest=dataset["pixel_digest"],
        split_digest=dataset["split_digest"],
        trainer_version=about["trainer_version"],
        labels_digest=dataset.get("labels_digest"),
        missing_labels=dataset.get("missing_labels"),
    )
    experiment = Experiment.from_dict(about["experiment"])
    identity = identity_of(experiment, ingredients, about["seed"])
    if identity == record.identity == about["identity"]:
        return "holds", f"{experiment.name}, seed {about['seed']}, is its id"
    described = f"experiment.json describes run {identity[:12]}"
    return "differs", f"{described}, its folder is {record.identity[:12]}"


def _metrics(record: RunRecord) -> tuple[Verdict, str]:
    path = record.predictions_path
    if record.predictions_sha256 != sha256_of(path):
        return "differs", f"they are of other predictions than {path.name} holds now"
    scores = score(predictions.read_predictions(path))
    older = record.scoring_version < SCORING_VERSION
    table = pd.DataFrame({"stored": record.metrics, "computed": scores.metrics}, dtype=float)
    table = table[~table.index.str.startswith(artifacts.COST)]
    if older:  # numbers that came later are not missed
        table = table[table["stored"].notna()]
    wrong = table[~((table["stored"] - table["computed"]).abs() <= SAME_NUMBER)]
    if len(wrong):
        first = wrong.head(3).itertuples()
        shown = (f"{it.Index} (stored {it.stored}, computed {it.computed})" for it in first)
        return "differs", f"{len(wrong)} of {len(table)}: {', '.join(shown)}"
    subgroups = scores.subgroups.reset_index(drop=True)
    try:
        pd.testing.assert_frame_equal(
            record.subgroups().reset_index(drop=True), subgroups, check_dtype=False, rtol=0,
            atol=SAME_NUMBER,
        )  # fmt: skip
    except AssertionError:
        return "differs", f"the accuracy of {len(subgroups)} subgroups"
    if not artifacts.scores_unchanged(record):
        return "differs", (
            "metrics.json was changed since it was written: a cost, a prediction or a last digit; "
            "`facebench runs rescore --again` makes it anew"
        )
    said = f"{len(table)} numbers and {len(subgroups)} subgroups are reproduced"
    more = "; `facebench runs rescore` adds those of a newer facebench" if older else ""
    return "holds", said + more


def _predictions(record: RunRecord, prepared: tuple[FaceSet, ...]) -> tuple[Verdict, str]:
    """Predict again with the stored weights, on the CPU in fp32, and compare face by face.

    A class may change only where two probabilities were as good as equal.
    """
    path, faces = record.folder / MODEL_FILE, artifacts.faces_of(record, prepared)
    if not path.is_file():
        return "not checked", f"the run kept no {path.name}"
    if faces is None:
        name = record.about["dataset"]["name"]
        return "not checked", f"the faces of data set {name!r} are not prepared here"
    trained = load_trained(path)
    if canonical_json(trained.experiment.as_dict()) != canonical_json(record.about["experiment"]):
        raise WeightsError(
            f"{path.name} is of {trained.experiment.name!r} as defined otherwise",
            allowed="the definition in experiment.json",
            source=str(path),
        )
    stored = predictions.read_predictions(record.predictions_path)
    _, parts = artifacts.parts_of_run(trained.experiment, record.seed, faces)
    cpu = Device(torch.device("cpu"), "fp32")
    cpu.place(trained.network)
    on_cpu = FaceBatches.on_device(faces.pixels(), faces.table, cpu.torch_device)
    tables = []
    for part in dict.fromkeys(stored["part"]):
        rows = parts[part]
        predicted = probabilities(trained.network, on_cpu, torch.from_numpy(rows))
        table = faces.table.iloc[rows]
        tables.append(predictions.predictions_table(table, part, predicted))
    again = pd.concat(tables, ignore_index=True)
    tasks = predictions.predicted_tasks(again)
    both = stored.merge(again, on=["part", "file"], suffixes=("", "_again"))
    is_whole = len(both) == len(stored) == len(again)
    if not is_whole or tasks != predictions.predicted_tasks(stored):
        return "differs", "they are of other faces or other tasks"
    columns = [name for task in tasks for name in predictions.probability_columns(task)]
    # The table keeps nine digits, which give an fp32 number back and no more than that.
    old = both[columns].to_numpy(np.float32)
    new = both[[f"{name}_again" for name in columns]].to_numpy(np.float32)
    most = float(np.abs(old - new).max())
    turned = sum(int((both[f"{t}_pred"] != both[f"{t}_pred_again"]).sum()) for t in tasks)
    said = f"{len(both):,} faces predicted again, {turned} classes differ"
    if most > SAME_PROBABILITY:
        return "differs", f"{said}, probabilities by up to {most:.3g}"
    exactly = "bit for bit" if most == 0 else f"within {most:.1g}"
    return "holds", f"{said}, probabilities equal {exactly}"
