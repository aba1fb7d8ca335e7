"""A trained run on faces of another data set, and whether its own numbers still hold.

On others only faces that the run was neither trained nor selected on are evaluated, as far as that
is known, and each task on the faces that are labelled with it. Which words of other data sets are
read as which class is said beside every number. An evaluation has a folder of its own,
`evaluations/<run>/<dataset>/`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
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
from benchmark.errors import BenchmarkError, DataError, and_more
from benchmark.evaluation import artifacts, predictions
from benchmark.evaluation.artifacts import RebuiltRecord
from benchmark.evaluation.figures import caption_of, write_test_figures
from benchmark.evaluation.intervals import rate
from benchmark.evaluation.metrics import SCORING_VERSION, Scores, score
from benchmark.experiment.definition import Experiment
from benchmark.identity import Ingredients, identity_of
from benchmark.inference.load import load_trained
from benchmark.record import MODEL_FILE, SCHEMA, RunRecord
from benchmark.tasks import MISSING, TASK_TITLES, TaskName
from benchmark.training.device import Device
from benchmark.training.steps import OnFaces, in_fp32

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
class Evaluation:
    """A run on a data set; `write` keeps it."""

    record: RunRecord
    faces: FaceSet
    sentence: str
    """Which faces were evaluated, and how they were chosen."""
    scores: Scores
    """Of every face as one of the test, each task on the faces that are labelled with it."""
    notes: tuple[str, ...]
    """What must be known beside the numbers."""
    by_word: pd.DataFrame
    """Accuracy by the data set's own words, where they are other groups than our classes: BY_WORD,
    with Wilson's 95 % interval."""

    @property
    def metrics(self) -> dict[str, float]:
        """Every number by its MLflow name; `test/<task>/n_faces`: those the task is scored on."""
        found = {name: it for name, it in self.scores.metrics.items() if name.startswith("test/")}
        counts = self.scores.confusion.items()
        return found | {f"test/{task}/n_faces": float(matrix.sum()) for task, matrix in counts}

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
    record: RunRecord, faces: FaceSet, device: torch.device, prepared: Sequence[FaceSet] = (),
    on_faces: OnFaces | None = None,
) -> Evaluation:  # fmt: skip
    """Predict `faces` with the network of a finished run, and score every task.

    prepared: the data sets that are prepared here, to tell which faces the run has seen. Raises
    RunError for a run that kept no weights, DataError where no face can be evaluated.
    """
    trained = load_trained(record.model_path())
    seen, sentence = unseen_rows(record, faces, prepared)
    known = faces.table.iloc[seen][[*trained.tasks]] != MISSING
    rows = seen[known.any(axis=1).to_numpy()]
    tasks = [task for task in trained.tasks if known[task].any()]
    if not tasks:
        wanted = ", ".join(TASK_TITLES[task] for task in trained.tasks)
        none = f"no face of {faces.name} that may be read is labelled with {wanted}"
        allowed = "a data set that tells what the run predicts"
        raise DataError(none, allowed=allowed, source=sentence)
    batches = FaceBatches.on_device(faces.pixels(), faces.table, device)
    indices = torch.from_numpy(rows).to(device)
    found = in_fp32(trained.network.to(device), batches).probabilities(indices, on_faces)
    answers = {task: found[task] for task in tasks}
    table = predictions.predictions_table(faces.table.iloc[rows], "test", answers)
    stored = predictions.read_predictions(record.predictions_path)
    # The run's own validation faces, on which its temperature is fitted.
    validation = stored.loc[stored["part"] == "val", table.columns]
    scores = score(pd.concat([validation, table], ignore_index=True))
    notes = tuple(dict.fromkeys(_notes(record, faces, seen)))
    return Evaluation(record, faces, sentence, scores, notes, _by_word(faces, table))


def _by_word(faces: FaceSet, table: pd.DataFrame) -> pd.DataFrame:
    """Score every task by the data set's own words, as FairFace's seven races, where these are not
    our classes one by one and are few."""
    words, rows = faces.words(), list[tuple[Any, ...]]()
    if words is None:
        return pd.DataFrame(columns=BY_WORD)
    for column, entries in faces.manifest["labels"]["mapping"].items():
        classes = [entry["class"] for entry in entries]
        are_ours = None not in classes and len(set(classes)) == len(classes)
        if are_ours or not 1 < len(classes) <= MOST_WORDS:
            continue
        word_of = words.set_index("file")[column]
        for entry, (task, known, truth, predicted) in product(entries, predictions.by_task(table)):
            chosen = (known["file"].map(word_of) == entry["word"]).to_numpy()
            n, n_right = int(chosen.sum()), int((truth == predicted)[chosen].sum())
            if n:
                rows.append((column, entry["word"], task, n, *rate(n_right, n)))
    return pd.DataFrame(rows, columns=BY_WORD)


def unseen_rows(
    record: RunRecord, faces: FaceSet, prepared: Sequence[FaceSet] = ()
) -> tuple[Rows, str]:
    """Choose the faces with a place that a run has neither trained nor been selected on; say how.

    Of its own faces, at whatever size, its test faces. Of others, all but its training and
    validation faces, by bytes or by name and labels; where its own data set is not prepared here,
    DataError is raised if it seems to be the same.
    """
    own, table = record.about["dataset"], faces.table
    ran = Experiment.from_dict(record.about["experiment"])
    setting = ran.protocol, ran.head.tasks, ran.subset, record.seed
    if faces.split_digest == own["split_digest"]:
        rows = artifacts.rows_by_part(faces, *setting)[1]["test"]
        return rows, f"the {len(rows):,} test faces of the run's own split"
    placed = np.flatnonzero(table["part"].to_numpy() != "")
    there = next((it for it in prepared if it.split_digest == own["split_digest"]), None)
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
    _, parts = artifacts.rows_by_part(there, *setting)
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


def _notes(record: RunRecord, faces: FaceSet, rows: Rows) -> Iterator[str]:
    """Say what stands between these numbers and the run's own; rows: the faces evaluated."""
    evaluated, words, about = faces.table.iloc[rows], faces.words(), record.about
    tasks: list[TaskName] = about["experiment"]["head"]["tasks"]
    if about["leaky"]:
        yield "LEAKY: the run was trained under a split that leaks on purpose."
    if about["experiment"].get("subset") and faces.split_digest != about["dataset"]["split_digest"]:
        yield "The run was trained on a subset; here it is evaluated on all faces."
    lacking = [TASK_TITLES[task] for task in tasks if not (faces.table[task] != MISSING).any()]
    if lacking:
        yield f"{faces.name} has no labels of {', '.join(lacking)}: not evaluated."
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
    predictions.write_predictions(folder / "predictions.csv", evaluation.scores.test)
    artifacts.write_test_tables(folder, evaluation.scores)
    write_test_figures(folder, evaluation.scores, caption)
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
    """Make every check that can be made of a finished run here.

    prepared: available data sets; without the run's own its predictions cannot be made again.
    """
    checks: dict[str, Callable[[RunRecord], tuple[Verdict, str]]] = {
        "files": _files,
        "definition": _definition,
        "metrics": _metrics,
        "predictions": lambda record: _predictions(record, prepared),
    }
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
        weights_sha256=about["weights"]["sha256"],
        trainer_version=about["trainer_version"],
        **{name: dataset.get(name) for name in digests},
    )
    experiment = Experiment.from_dict(about["experiment"])
    identity = identity_of(experiment, ingredients, about["seed"])
    if identity == record.identity == about["identity"]:
        return "holds", f"{experiment.name}, seed {about['seed']}, is its id"
    described = f"experiment.json describes run {identity[:12]}"
    return "differs", f"{described}, its folder is {record.identity[:12]}"


def _metrics(record: RunRecord) -> tuple[Verdict, str]:
    rebuilt, older = RebuiltRecord(record.folder), record.scoring_version < SCORING_VERSION
    table = pd.DataFrame({"stored": record.metrics, "computed": rebuilt.metrics}, dtype=float)
    table = table[~table.index.str.startswith(artifacts.COST)]
    if older:  # numbers that came later are not missed
        table = table[table["stored"].notna()]
    wrong = table[~((table["stored"] - table["computed"]).abs() <= SAME_NUMBER)]
    if len(wrong):
        first = wrong.head(3).itertuples()
        shown = (f"{it.Index} (stored {it.stored}, computed {it.computed})" for it in first)
        return "differs", f"{len(wrong)} of {len(table)}: {', '.join(shown)}"
    if not artifacts.is_unchanged(record.scored):
        return "differs", (
            "metrics.json was changed since it was written: a cost, a prediction or a last digit; "
            "`facebench runs rescore --again` makes it anew"
        )
    more = "; `facebench runs rescore` adds those of a newer facebench" if older else ""
    return "holds", f"{len(table)} numbers are reproduced{more}"


def _predictions(record: RunRecord, prepared: Sequence[FaceSet]) -> tuple[Verdict, str]:
    """Predict again with the stored weights, on the CPU in fp32, and compare face by face; a class
    may change only where two probabilities were as good as equal."""
    path, own = record.folder / MODEL_FILE, record.about["dataset"]
    if not path.is_file():
        return "not checked", f"the run kept no {path.name}"
    names = ("pixel_digest", "split_digest", "labels_digest")
    alike = (it for it in prepared if all(getattr(it, name) == own.get(name) for name in names))
    if (faces := next(alike, None)) is None:
        return "not checked", f"the faces of data set {own['name']!r} are not prepared here"
    stored, trained = predictions.read_predictions(record.predictions_path), load_trained(path)
    protocol, subset = trained.experiment.protocol, trained.experiment.subset
    _, parts = artifacts.rows_by_part(faces, protocol, trained.tasks, subset, record.seed)
    cpu = Device(torch.device("cpu"), "fp32")
    cpu.place(trained.network)
    on_cpu = FaceBatches.on_device(faces.pixels(), faces.table, cpu.torch_device)
    tables = []
    for part in dict.fromkeys(stored["part"]):
        found = in_fp32(trained.network, on_cpu).probabilities(torch.from_numpy(parts[part]))
        tables.append(predictions.predictions_table(faces.table.iloc[parts[part]], part, found))
    again = pd.concat(tables, ignore_index=True)
    stored, again = (of.set_index(["part", "file"]).sort_index() for of in (stored, again))
    if not stored.index.equals(again.index) or set(again.columns) != set(stored.columns):
        return "differs", "they are of other faces or other tasks"
    columns = [it for task in trained.tasks for it in predictions.probability_columns(task)]
    # The table keeps nine digits, which give an fp32 number back and no more than that.
    apart = stored[columns].astype(np.float32) - again[columns]
    most = float(apart.abs().to_numpy().max())
    classes = [f"{task}_pred" for task in trained.tasks]
    turned = int((stored[classes] != again[classes]).to_numpy().sum())
    said = f"{len(stored):,} faces predicted again, {turned} classes differ"
    if most > SAME_PROBABILITY:
        return "differs", f"{said}, probabilities by up to {most:.3g}"
    exactly = "bit for bit" if most == 0 else f"within {most:.1g}"
    return "holds", f"{said}, probabilities equal {exactly}"
