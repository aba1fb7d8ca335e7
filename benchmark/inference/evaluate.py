"""A trained run on faces of another data set, and whether its own numbers still hold.

On others only faces that the run was neither trained nor selected on are evaluated, as far as that
is known, and each task on the faces that are labelled with it. Which words of other data sets are
read as which class is said beside every number. An evaluation has a folder of its own,
`evaluations/<run>/<dataset>/`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import torch

from benchmark import files
from benchmark import record as provenance
from benchmark.data.batches import FaceBatches
from benchmark.data.dataset import FaceSet
from benchmark.data.labelled import gaps
from benchmark.data.labels import LABELS
from benchmark.data.splits import Rows
from benchmark.errors import BenchmarkError, DataError, RunError, and_more
from benchmark.evaluation import artifacts, predictions
from benchmark.evaluation.figures import caption_of, write_test_figures
from benchmark.evaluation.intervals import wilson
from benchmark.evaluation.metrics import SCORING_VERSION, Scores, score
from benchmark.experiment.definition import Experiment
from benchmark.identity import Ingredients, identity_of
from benchmark.inference.load import load_trained
from benchmark.record import MODEL_FILE, RunRecord
from benchmark.tasks import MISSING, TASK_TITLES, TASKS, TaskName
from benchmark.training.device import Device
from benchmark.training.predict import OnFaces, probabilities

SCHEMA: Final = 1
BY_WORD: Final = ["column", "word", "task", "n", "accuracy", "low", "high"]
SHOWN_WORDS: Final = 9
"""Words without a class that a note lists."""
MOST_WORDS: Final = 20
"""Of a column, above which they are no groups: years, say."""
Verdict = Literal["holds", "differs", "not checked"]
SAME_NUMBER: Final = 1e-9
SAME_PROBABILITY: Final = 1e-4
"""Two that differ by less are equal: other libraries and machines add in another order."""


@dataclass(frozen=True)
class TasksScored:
    """Tasks that the same faces are labelled with, and their scores."""

    tasks: tuple[TaskName, ...]
    predictions: pd.DataFrame
    """Every face in the part `test`."""
    scores: Scores


@dataclass(frozen=True)
class Evaluation:
    """A run on a data set; `write` keeps it."""

    record: RunRecord
    faces: FaceSet
    sentence: str
    """Which faces were evaluated, and how they were chosen."""
    groups: tuple[TasksScored, ...]
    notes: tuple[str, ...]
    """What must be known beside the numbers."""
    by_word: pd.DataFrame
    """Accuracy by the data set's own words, where they are other groups than our classes: BY_WORD,
    with Wilson's 95 % interval."""

    @property
    def metrics(self) -> dict[str, float]:
        """Every number of every task by its MLflow name, without what joins tasks of other faces.

        `test/<task>/n_faces` counts the faces that the task was evaluated on.
        """
        found: dict[str, float] = {}
        for group in self.groups:
            for name, value in group.scores.metrics.items():
                part, *rest = name.split("/")
                if part == "test" and (len(self.groups) == 1 or rest[0] in TASKS):
                    found[name] = value
            found |= {f"test/{task}/n_faces": float(len(group.predictions)) for task in group.tasks}
        return found

    def as_dict(self) -> dict[str, Any]:
        """Give what `evaluation.json` keeps."""
        about, faces = self.record.about, self.faces
        names = ("name", "drawn", "image_px", "pixel_digest", "split_digest", "labels_digest")
        return {
            "schema": SCHEMA, "run": self.record.identity,
            "experiment": self.record.experiment_name, "seed": self.record.seed,
            "trained_on": about["dataset"]["name"], "leaky": bool(about["leaky"]),
            "dataset": {name: getattr(faces, name) for name in names}, "faces": self.sentence,
            "notes": list(self.notes), "labels": faces.manifest.get("labels"),
            "metrics": self.metrics, "by_word": self.by_word.to_dict("records"),
        }  # fmt: skip


def evaluate(
    record: RunRecord, faces: FaceSet, device: torch.device,
    prepared: Callable[[], Sequence[FaceSet]] = tuple, on_faces: OnFaces | None = None,
) -> Evaluation:  # fmt: skip
    """Predict `faces` with the network of a finished run, and score every task.

    prepared: gives the data sets that are prepared here, to tell which faces the run has seen.
    Raises RunError for a run that kept no weights, DataError where no face can be evaluated.
    """
    trained = load_trained(record.model_path())
    rows, sentence = unseen_rows(record, faces, prepared)
    labelled: dict[bytes, list[TaskName]] = {}
    for task in trained.tasks:
        known = faces.table[task].to_numpy()[rows] != MISSING
        if known.any():
            labelled.setdefault(known.tobytes(), []).append(task)
    if not labelled:
        wanted = ", ".join(TASK_TITLES[task] for task in trained.tasks)
        none = f"no face of {faces.name} that may be read is labelled with {wanted}"
        raise DataError(
            none, allowed="a data set that tells what the run predicts", source=sentence
        )
    batches = FaceBatches.on_device(faces.pixels(), faces.table, device)
    indices = torch.from_numpy(rows).to(device)
    found = probabilities(trained.network.to(device), batches, indices, on_faces=on_faces)
    stored = predictions.read_predictions(record.predictions_path)
    groups = []
    for mask, together in labelled.items():
        known = np.frombuffer(mask, dtype=bool)
        table = predictions.predictions_table(
            faces.table.iloc[rows[known]], "test", {task: found[task][known] for task in together}
        )
        # The run's own validation faces, on which its temperature is fitted.
        validation = stored.loc[stored["part"] == "val", table.columns]
        scores = score(pd.concat([validation, table], ignore_index=True))
        groups.append(TasksScored(tuple(together), table, scores))
    notes = tuple(dict.fromkeys(_notes(record, faces, trained.tasks, rows)))
    return Evaluation(record, faces, sentence, tuple(groups), notes, _by_word(faces, groups))


def _by_word(faces: FaceSet, groups: Sequence[TasksScored]) -> pd.DataFrame:
    """Score every task by the data set's own words, as FairFace's seven races, where these are not
    our classes one by one and are few."""
    words, tables = faces.words(), [pd.DataFrame(columns=BY_WORD)]
    if words is None:
        return tables[0]
    for column, entries in faces.manifest["labels"]["mapping"].items():
        classes, in_order = ([entry[key] for entry in entries] for key in ("class", "word"))
        are_ours = None not in classes and len(set(classes)) == len(classes)
        if column not in words or are_ours or not 1 < len(classes) <= MOST_WORDS:
            continue
        word_of = words.set_index("file")[column]
        rights = {}
        for table, task in ((it.predictions, task) for it in groups for task in it.tasks):
            right = table[f"{task}_pred"] == table[task]
            rights[task] = right.groupby(table["file"].map(word_of)).agg(["sum", "count"])
        in_place = pd.MultiIndex.from_product([in_order, rights], names=["word", "task"])
        counts = pd.concat(rights).swaplevel().reindex(in_place).dropna().astype(int)
        n_right, n = counts["sum"], counts["count"]
        low, high = wilson(n_right.to_numpy(), n.to_numpy())
        cells = {"column": column, "n": n, "accuracy": n_right / n, "low": low, "high": high}
        tables.append(counts.assign(**cells).reset_index()[BY_WORD])
    return pd.concat(tables, ignore_index=True)


def unseen_rows(
    record: RunRecord, faces: FaceSet, prepared: Callable[[], Sequence[FaceSet]] = tuple
) -> tuple[Rows, str]:
    """Choose the faces with a place that a run has neither trained nor been selected on; say how.

    Of its own faces, at whatever size, its test faces. Of others, all but its training and
    validation faces, by bytes or by name and labels; where its own data set is not prepared here,
    DataError is raised if it seems to be the same.
    """
    own, table = record.about["dataset"], faces.table
    experiment = Experiment.from_dict(record.about["experiment"])
    if faces.split_digest == own["split_digest"]:
        rows = artifacts.parts_of_run(experiment, record.seed, faces)[1]["test"]
        return rows, f"the {len(rows):,} test faces of the run's own split"
    placed = np.flatnonzero(table["part"].to_numpy() != "")
    there = next((it for it in prepared() if it.split_digest == own["split_digest"]), None)
    if there is None:
        if n_shared := predictions.n_shared(record.predictions_path, table):
            raise DataError(
                f"{faces.name} holds {n_shared:,} of the faces that the run was evaluated on, so "
                "that it must hold faces of its training, and which is not known",
                source=f"run {record.identity[:12]}, trained on {own['name']}",
                fix=f"Prepare {own['name']} here too; its training faces are left out",
            )
        return placed, (
            f"all {len(placed):,} faces with a place; the run's own data set {own['name']} is not "
            "prepared here, so that no face could be looked up in it"
        )
    _, parts = artifacts.parts_of_run(experiment, record.seed, there)
    candidates = table.iloc[placed]
    met = there.table.iloc[np.concatenate([parts["train"], parts["val"]])]
    by_bytes = candidates["sha256"].isin(set(met["sha256"])).to_numpy()
    known, these = (pd.MultiIndex.from_frame(of[predictions.KNOWN_BY]) for of in (met, candidates))
    # What is the same picture as a face that was seen has been seen, too.
    clusters = candidates["cluster"].to_numpy()
    seen = np.isin(clusters, clusters[by_bytes | these.isin(known)])
    rows = placed[~seen]
    left_out = f", without {int(seen.sum()):,} that the run was trained or selected on"
    return rows, f"{len(rows):,} faces with a place{left_out if seen.any() else ''}"


def _notes(
    record: RunRecord, faces: FaceSet, tasks: Sequence[TaskName], rows: Rows
) -> Iterator[str]:
    """Say what stands between these numbers and the run's own; rows: the faces evaluated."""
    evaluated, words, about = faces.table.iloc[rows], faces.words(), record.about
    if about["leaky"]:
        yield "LEAKY: the run was trained under a split that leaks on purpose."
    if about["experiment"].get("subset") and faces.split_digest != about["dataset"]["split_digest"]:
        yield "The run was trained on a subset; here it is evaluated on all faces."
    lacking = [TASK_TITLES[task] for task in tasks if not (faces.table[task] != MISSING).any()]
    if lacking:
        yield f"{faces.name} does not tell {', '.join(lacking)}: not evaluated."
    labels: dict[str, Any] = faces.manifest.get("labels") or {}
    for column, entries in labels.get("mapping", {}).items():
        if column not in tasks and not (column == "age" and "age_group" in tasks):
            continue
        read = pd.DataFrame(entries).groupby("class", sort=False)["word"].agg(", ".join)
        n_left = {it["word"]: f"{it['rows']:,} rows" for it in entries if it["class"] is None}
        if words is not None:
            counts = words.set_index("file")[column].reindex(evaluated["file"]).value_counts()
            n_left = {it: f"{n:,} faces" for it, n in counts.items() if it in n_left}
        pairs = "; ".join(f"{theirs} as {ours}" for ours, theirs in read.items())
        without = [f"{word} ({n})" for word, n in n_left.items() if word]
        left = f" Without a class here, and left out: {and_more(without, SHOWN_WORDS)}."
        yield f"{column.replace('_', ' ')} is compared as: {pairs}.{left if without else ''}"
    if labels:
        lacks = {label: int((evaluated[label] == MISSING).sum()) for label in LABELS}
        yield from gaps({"without": lacks}, len(evaluated))


def write(evaluation: Evaluation, runs_dir: Path) -> Path:
    """Keep predictions, tables, figures and numbers, `evaluation.json` last; give the folder."""
    record, faces = evaluation.record, evaluation.faces
    folder = runs_dir / "evaluations" / record.identity[:12] / faces.name
    trained_on = record.about["dataset"]["name"]
    title = f"{record.experiment_name}, seed {record.seed}, trained on {trained_on}"
    leaky = bool(record.about["leaky"])
    caption = caption_of(title, f"evaluated on {faces.name}", drawn=faces.drawn, leaky=leaky)
    for group in evaluation.groups:
        place = folder / "-".join(group.tasks) if len(evaluation.groups) > 1 else folder
        predictions.write_predictions(place / "predictions.csv", group.predictions)
        artifacts.write_test_tables(place, group.scores, group.predictions)
        write_test_figures(place, group.scores, caption)
    if len(evaluation.by_word):
        files.write_text(folder / "by_word.csv", evaluation.by_word.to_csv(index=False))
    content = evaluation.as_dict() | {"versions": provenance.versions()}
    files.write_json(folder / "evaluation.json", content)
    return folder


@dataclass(frozen=True)
class Finding:
    """One check of a run, and its result."""

    what: str
    verdict: Verdict
    detail: str


def verify(record: RunRecord, prepared: Sequence[FaceSet] = ()) -> list[Finding]:
    """Make every check that can be made of a finished run here; RunError where it is not done.

    prepared: available data sets; without the run's own its predictions cannot be made again.
    """
    if record.state != "done":
        why = f"run {record.identity[:12]} is not done but {record.state}"
        fix, source = "Run its experiment again: it resumes", str(record.folder)
        raise RunError(why, allowed="a finished run", source=source, fix=fix)
    checks: dict[str, Callable[[RunRecord], tuple[Verdict, str]]] = {
        "files": _files, "definition": _definition, "metrics": _metrics,
        "predictions": functools.partial(_predictions, prepared=prepared),
    }  # fmt: skip
    found = []
    for what, check in checks.items():
        try:
            found.append(Finding(what, *check(record)))
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
    digests = ("pixel_digest", "split_digest", "labels_digest", "missing_labels")
    ingredients = Ingredients(
        weights_sha256=about["weights"]["sha256"], trainer_version=about["trainer_version"],
        **{name: dataset.get(name) for name in digests},
    )  # fmt: skip
    experiment = Experiment.from_dict(about["experiment"])
    identity = identity_of(experiment, ingredients, about["seed"])
    if identity == record.identity == about["identity"]:
        return "holds", f"{experiment.name}, seed {about['seed']}, is its id"
    described = f"experiment.json describes run {identity[:12]}"
    return "differs", f"{described}, its folder is {record.identity[:12]}"


def _metrics(record: RunRecord) -> tuple[Verdict, str]:
    predictions.check_unchanged(record)
    scores = score(predictions.read_predictions(record.predictions_path))
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
    stored, again = (of.select_dtypes("number") for of in (record.subgroups(), scores.subgroups))
    if stored.shape != again.shape or not np.allclose(
        stored, again, rtol=0, atol=SAME_NUMBER, equal_nan=True
    ):
        return "differs", f"the accuracy of {len(again)} subgroups"
    if not artifacts.scores_unchanged(record):
        return "differs", (
            "metrics.json was changed since it was written: a cost, a prediction or a last digit; "
            "`facebench runs rescore --again` makes it anew"
        )
    said = f"{len(table)} numbers and {len(again)} subgroups are reproduced"
    more = "; `facebench runs rescore` adds those of a newer facebench" if older else ""
    return "holds", said + more


def _predictions(record: RunRecord, prepared: Sequence[FaceSet]) -> tuple[Verdict, str]:
    """Predict again with the stored weights, on the CPU in fp32, and compare face by face.

    A class may change only where two probabilities were as good as equal.
    """
    path, own = record.folder / MODEL_FILE, record.about["dataset"]
    if not path.is_file():
        return "not checked", f"the run kept no {path.name}"
    names = ("pixel_digest", "split_digest", "labels_digest")
    alike = (it for it in prepared if all(getattr(it, name) == own.get(name) for name in names))
    if (faces := next(alike, None)) is None:
        return "not checked", f"the faces of data set {own['name']!r} are not prepared here"
    trained = load_trained(path)
    stored = predictions.read_predictions(record.predictions_path)
    _, parts = artifacts.parts_of_run(trained.experiment, record.seed, faces)
    cpu = Device(torch.device("cpu"), "fp32")
    cpu.place(trained.network)
    on_cpu = FaceBatches.on_device(faces.pixels(), faces.table, cpu.torch_device)
    tables = []
    for part in dict.fromkeys(stored["part"]):
        found = probabilities(trained.network, on_cpu, torch.from_numpy(parts[part]))
        tables.append(predictions.predictions_table(faces.table.iloc[parts[part]], part, found))
    again = pd.concat(tables, ignore_index=True)
    both = stored.merge(again, on=["part", "file"], suffixes=("", "_again"))
    is_whole = len(both) == len(stored) == len(again)
    if not is_whole or set(again.columns) != set(stored.columns):
        return "differs", "they are of other faces or other tasks"
    columns = [it for task in trained.tasks for it in predictions.probability_columns(task)]
    # The table keeps nine digits, which give an fp32 number back and no more than that.
    old = both[columns].to_numpy(np.float32)
    new = both[[f"{name}_again" for name in columns]].to_numpy(np.float32)
    most = float(np.abs(old - new).max())
    turned = sum(int((both[f"{t}_pred"] != both[f"{t}_pred_again"]).sum()) for t in trained.tasks)
    said = f"{len(both):,} faces predicted again, {turned} classes differ"
    if most > SAME_PROBABILITY:
        return "differs", f"{said}, probabilities by up to {most:.3g}"
    exactly = "bit for bit" if most == 0 else f"within {most:.1g}"
    return "holds", f"{said}, probabilities equal {exactly}"
