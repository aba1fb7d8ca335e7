"""A trained run on faces of another data set: what it says of them, scored as a run is.

Only faces that the run was neither trained nor selected on are read, as far as that can be told.
A task is evaluated on the faces that are labelled with it; which words of other data sets mean
which class is for benchmark.data.labelled, and is said beside every number. The run's own
folder is left as it is: an evaluation has one of its own, `evaluations/<run>/<dataset>/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmark import record as provenance
from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.data.labelled import gaps, unmapped
from benchmark.data.splits import Rows
from benchmark.errors import DataError, RunError
from benchmark.evaluation.artifacts import parts_of_run, write_test_tables
from benchmark.evaluation.figures import Caption, write_test_figures
from benchmark.evaluation.intervals import wilson
from benchmark.evaluation.metrics import Scores, score
from benchmark.evaluation.predictions import (
    FACE_COLUMNS,
    predictions_table,
    probability_columns,
    read_predictions,
    write_predictions,
)
from benchmark.evaluation.suspects import label_suspects
from benchmark.files import sha256_of, write_json, write_text
from benchmark.inference.load import Trained, load_trained
from benchmark.record import RunRecord
from benchmark.tasks import MISSING, TASK_TITLES, TASKS, TaskName
from benchmark.training.predict import OnFaces, probabilities

SCHEMA: Final = 1
SHARED_FRACTION: Final = 0.1
"""Of a run's own evaluated faces found in another data set: above it, the two share faces."""
BY_WORD: Final = ["column", "word", "task", "n", "accuracy", "low", "high"]
MOST_WORDS: Final = 20
"""Of a column, above which they are no groups: years, say."""
KNOWN_BY: Final = ["file", "age", "gender", "race"]
"""A face of the same name and labels is the same face, whatever its bytes."""


@dataclass(frozen=True)
class Unseen:
    """The faces that a run is evaluated on, and how they were chosen, in a sentence."""

    rows: Rows
    sentence: str


@dataclass(frozen=True)
class Group:
    """Tasks that the same faces are labelled with, and their scores."""

    tasks: tuple[TaskName, ...]
    predictions: pd.DataFrame
    """As benchmark.evaluation.predictions has it; every face in the part `test`."""
    scores: Scores


@dataclass(frozen=True)
class Evaluation:
    """A run on a data set; `write` keeps it."""

    record: RunRecord
    faces: FaceSet
    unseen: Unseen
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    """What must be known beside the numbers."""
    by_word: pd.DataFrame
    """Accuracy by the data set's own words, where they are other groups than our classes: columns
    column, word, task, n, accuracy, low, high (Wilson, 95 %)."""

    @property
    def metrics(self) -> dict[str, float]:
        """Every number of every task by its MLflow name, without what joins tasks of other faces.

        `test/<task>/n_faces` counts the faces that the task was read on.
        """
        found: dict[str, float] = {}
        for group in self.groups:
            names = {
                name: value for name, value in group.scores.metrics.items() if _is_of_test(name)
            }
            if len(self.groups) > 1:
                names = {name: v for name, v in names.items() if name.split("/")[1] in TASKS}
            found |= names
            found |= {f"test/{task}/n_faces": float(len(group.predictions)) for task in group.tasks}
        return found

    def as_dict(self) -> dict[str, Any]:
        """Give what `evaluation.json` keeps."""
        about, faces = self.record.about, self.faces
        return {
            "schema": SCHEMA,
            "run": self.record.identity,
            "experiment": self.record.experiment_name,
            "seed": self.record.seed,
            "trained_on": about["dataset"]["name"],
            "leaky": bool(about["leaky"]),
            "dataset": {
                "name": faces.name,
                "drawn": faces.drawn,
                "image_px": faces.image_px,
                "pixel_digest": faces.pixel_digest,
                "split_digest": faces.split_digest,
                "labels_digest": faces.labels_digest,
            },
            "faces": self.unseen.sentence,
            "n_faces": {t: len(g.predictions) for g in self.groups for t in g.tasks},
            "notes": list(self.notes),
            "labels": faces.manifest.get("labels"),
            "metrics": self.metrics,
            "by_word": self.by_word.to_dict("records"),
        }


def _is_of_test(name: str) -> bool:
    return name.startswith("test/")


def evaluate(
    record: RunRecord,
    faces: FaceSet,
    device: torch.device,
    prepared: Callable[[], Sequence[FaceSet]] = tuple,
    on_faces: OnFaces | None = None,
) -> Evaluation:
    """Read the faces of `faces` with the network of a finished run, and score every task.

    prepared: gives the data sets at hand, to tell which faces the run has seen. on_faces: is told
    how many faces were read, and of how many. Raises RunError
    for a run that is not done or kept no weights, DataError where no face can be evaluated.
    """
    trained = _network_of(record)
    unseen = unseen_rows(record, faces, prepared)
    tasks = trained.experiment.head.tasks
    groups = _by_labels(faces.table, unseen.rows, tasks)
    if not groups:
        raise DataError(
            f"no face of {faces.name} that may be read is labelled with "
            + ", ".join(TASK_TITLES[task] for task in tasks),
            allowed="a data set that tells what the run predicts",
            source=unseen.sentence,
        )
    network = trained.network.to(device)
    batches = FaceBatches.on_device(faces.pixels(), faces.table, device)
    rows = torch.from_numpy(unseen.rows).to(device)
    answers = probabilities(network, batches, rows, on_faces=on_faces)
    scored = []
    for chosen, known in groups:
        read = {task: answers[task][known] for task in chosen}
        table = predictions_table(faces.table.iloc[unseen.rows[known]], "test", read)
        with_validation = pd.concat([_validation_of(record, chosen), table], ignore_index=True)
        scored.append(Group(chosen, table, score(with_validation)))
    by_word = _by_word(faces, scored)
    return Evaluation(record, faces, unseen, tuple(scored), _notes(record, faces, tasks), by_word)


def _by_word(faces: FaceSet, groups: Sequence[Group]) -> pd.DataFrame:
    """Score every task by the words of the data set's own labels, as FairFace's seven races.

    Only of columns whose words are not our classes one by one, or not all of them, and are few.
    """
    words, found = faces.words(), []
    for column in () if words is None else map(str, words):
        if words is None or not _are_other_groups(faces, column):
            continue
        word_of = dict(zip(words["file"], words[column], strict=True))
        of_column = []
        in_order = [entry["word"] for entry in faces.manifest["labels"]["mapping"][column]]
        for group in groups:
            theirs = group.predictions["file"].map(word_of)
            for task in group.tasks:
                right = group.predictions[f"{task}_pred"] == group.predictions[task]
                by_word = right.groupby(theirs).agg(["sum", "count"]).reindex(in_order).dropna()
                n_right, n = by_word["sum"].astype(int), by_word["count"].astype(int)
                low, high = wilson(n_right.to_numpy(), n.to_numpy())
                lines = {"column": column, "word": by_word.index, "task": task, "n": n,
                         "accuracy": n_right / n, "low": low, "high": high}  # fmt: skip
                of_column.append(pd.DataFrame(lines))
        place = {word: number for number, word in enumerate(in_order)}
        together = pd.concat(of_column)
        found.append(together.sort_values("word", key=lambda it: it.map(place), kind="stable"))
    return pd.concat([pd.DataFrame(columns=BY_WORD), *found], ignore_index=True)


def _are_other_groups(faces: FaceSet, column: str) -> bool:
    entries = faces.manifest["labels"]["mapping"].get(column, [])
    classes = [entry["class"] for entry in entries]
    return 1 < len(classes) <= MOST_WORDS and (None in classes or len(set(classes)) < len(classes))


def _network_of(record: RunRecord) -> Trained:
    name, weights = record.identity[:12], record.folder / "model.safetensors"
    if record.state != "done":
        raise RunError(
            f"run {name} of {record.experiment_name} is not done",
            allowed="a finished run",
            source=str(record.folder),
            fix=f"`facebench run {record.experiment_name} --seeds {record.seed}` goes on with it",
        )
    if not weights.is_file():
        raise RunError(
            f"run {name} of {record.experiment_name} kept no weights",
            allowed="a run with its model.safetensors",
            source=str(record.folder),
            fix="Remove the run's folder and run it again with --keep-weights best",
        )
    return load_trained(weights)


def unseen_rows(
    record: RunRecord, faces: FaceSet, prepared: Callable[[], Sequence[FaceSet]] = tuple
) -> Unseen:
    """Choose the faces with a place that a run has neither trained nor been selected on.

    Of its own faces, at whatever size, these are its own test faces. Of others, all but those that
    are its training or validation faces too, by bytes or by name and labels; where its own data set
    is not at hand, that cannot be told, and DataError is raised where it seems to be the same.
    """
    about, table = record.about, faces.table
    if faces.split_digest == about["dataset"]["split_digest"]:
        rows = parts_of_run(about, faces)["test"]
        return Unseen(rows, f"the {len(rows):,} test faces of the run's own split")
    placed = np.flatnonzero(table["part"].to_numpy() != "")
    own = _own_faces(record, prepared())
    if own is None:
        _check_not_shared(record, faces)
        return Unseen(
            placed,
            f"all {len(placed):,} faces with a place; the run's own data set "
            f"{about['dataset']['name']} is not at hand, so that no face could be looked up in it",
        )
    seen = _seen_in_training(record, own, table.iloc[placed])
    rows = placed[~seen]
    left_out = f", without {int(seen.sum()):,} that the run was trained or selected on"
    return Unseen(rows, f"{len(rows):,} faces with a place{left_out if seen.any() else ''}")


def _own_faces(record: RunRecord, prepared: Sequence[FaceSet]) -> FaceSet | None:
    wanted = record.about["dataset"]["split_digest"]
    return next((faces for faces in prepared if faces.split_digest == wanted), None)


def _seen_in_training(
    record: RunRecord, own: FaceSet, candidates: pd.DataFrame
) -> npt.NDArray[np.bool_]:
    """Tell for each candidate whether the run's training or validation faces hold it: (n,)."""
    parts = parts_of_run(record.about, own)
    rows = np.concatenate([parts["train"], parts["val"]])
    seen = own.table.iloc[rows]
    by_bytes = candidates["sha256"].isin(set(seen["sha256"])).to_numpy()
    known = set(seen[KNOWN_BY].itertuples(index=False, name=None))
    by_name = [face in known for face in candidates[KNOWN_BY].itertuples(index=False, name=None)]
    # What is the same picture as a face that was seen has been seen, too.
    clusters = candidates["cluster"].to_numpy()
    found = by_bytes | np.array(by_name, dtype=bool)
    return np.isin(clusters, clusters[found])


def _check_not_shared(record: RunRecord, faces: FaceSet) -> None:
    there = read_predictions(record.predictions_path)[KNOWN_BY].drop_duplicates()
    shared = there.merge(faces.table[KNOWN_BY].drop_duplicates(), on=KNOWN_BY)
    if len(shared) <= SHARED_FRACTION * len(there):
        return
    raise DataError(
        f"{faces.name} holds {len(shared):,} of the {len(there):,} faces that the run was judged "
        "on, so that it must hold faces that the run was trained on, and which cannot be told",
        allowed="faces that the run has not seen",
        source=f"run {record.identity[:12]}, trained on {record.about['dataset']['name']}",
        fix=f"Prepare {record.about['dataset']['name']} here too; its training faces are left out",
    )


def _by_labels(
    table: pd.DataFrame, rows: Rows, tasks: Sequence[TaskName]
) -> list[tuple[tuple[TaskName, ...], npt.NDArray[np.bool_]]]:
    """Put together the tasks that the same of `rows` are labelled with; give who they are."""
    groups: dict[bytes, tuple[list[TaskName], npt.NDArray[np.bool_]]] = {}
    for task in tasks:
        known = table[task].to_numpy()[rows] != MISSING
        if known.any():
            groups.setdefault(known.tobytes(), ([], known))[0].append(task)
    return [(tuple(together), known) for together, known in groups.values()]


def _validation_of(record: RunRecord, tasks: Sequence[TaskName]) -> pd.DataFrame:
    """Give what the run says of its own validation faces, which its temperature is fitted on."""
    stored = read_predictions(record.predictions_path)
    columns = [*FACE_COLUMNS]
    for task in tasks:
        columns += [f"{task}_pred", *probability_columns(task)]
    return stored.loc[stored["part"] == "val", columns]


def _notes(record: RunRecord, faces: FaceSet, tasks: Sequence[TaskName]) -> tuple[str, ...]:
    """Say what stands between these numbers and the run's own."""
    notes = []
    if record.about["leaky"]:
        notes.append("LEAKY: the run was trained under a split that leaks on purpose.")
    subset = record.about["experiment"].get("subset")
    if subset and faces.split_digest != record.about["dataset"]["split_digest"]:
        notes.append("The run is about a subset of the people; here it reads everyone.")
    lacking = [TASK_TITLES[task] for task in tasks if not (faces.table[task] != MISSING).any()]
    if lacking:
        notes.append(f"{faces.name} does not tell {', '.join(lacking)}: not evaluated.")
    labels = faces.manifest.get("labels")
    if labels:
        notes += [*_compared(labels, tasks), *gaps(labels, len(faces.table))]
    return tuple(dict.fromkeys(notes))


def _compared(labels: Mapping[str, Any], tasks: Sequence[TaskName]) -> list[str]:
    """Say which words of another data set are compared as which class, task by task."""
    said = []
    for column, entries in labels["mapping"].items():
        if column not in tasks and not (column == "age" and "age_group" in tasks):
            continue
        words: dict[str, list[str]] = {}
        for entry in entries:
            if entry["class"] is not None:
                words.setdefault(entry["class"], []).append(entry["word"])
        pairs = "; ".join(f"{', '.join(theirs)} as {ours}" for ours, theirs in words.items())
        left = [entry for entry in unmapped({"mapping": {column: entries}}) if entry["word"]]
        without = ", ".join(f"{entry['word']} ({entry['rows']:,})" for entry in left)
        said.append(
            f"{column.replace('_', ' ')} is compared as: {pairs}"
            + (f". Without a class here, and left out: {without}." if left else ".")
        )
    return said


def evaluation_folder(runs_dir: Path, evaluation: Evaluation) -> Path:
    """Name the folder of an evaluation."""
    return runs_dir / "evaluations" / evaluation.record.identity[:12] / evaluation.faces.name


def write(evaluation: Evaluation, folder: Path) -> None:
    """Keep predictions, tables, pictures and numbers; `evaluation.json` comes last."""
    record, faces = evaluation.record, evaluation.faces
    experiment = f"{record.experiment_name}, seed {record.seed}, trained on "
    caption = Caption(
        experiment + str(record.about["dataset"]["name"]),
        f"evaluated on {faces.name}",
        faces.drawn,
        leaky=bool(record.about["leaky"]),
    )
    several = len(evaluation.groups) > 1
    digests = {}
    for group in evaluation.groups:
        place = folder / "-".join(group.tasks) if several else folder
        path = place / "predictions.csv"
        write_predictions(path, group.predictions)
        digests[str(path.relative_to(folder))] = sha256_of(path)
        suspects = label_suspects(group.predictions)
        write_test_tables(place, group.scores, group.predictions, suspects)
        write_test_figures(place, group.scores, caption)
    metrics = pd.Series(evaluation.metrics).rename_axis("metric").rename("value")
    write_text(folder / "metrics.csv", metrics.to_csv())
    if len(evaluation.by_word):
        write_text(folder / "by_word.csv", evaluation.by_word.to_csv(index=False))
    more = {
        "predictions_sha256": digests,
        "model_sha256": sha256_of(record.folder / "model.safetensors"),
        "versions": provenance.versions(),
    }
    write_json(folder / "evaluation.json", evaluation.as_dict() | more)
