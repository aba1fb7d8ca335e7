"""A run's folder as a run of MLflow, with its data sets and network; a search as their parent.

Mirroring is idempotent. A run is found by its identity, an epoch is logged unless its step is
there, and the outcome is logged once the run is done; so whatever is lost, `facebench runs import`
catches up. MLflow gets what runs are compared by: some 25 metrics and 30 parameters; bounds of
intervals, every subgroup and ratio are in its tables. Files of a local store are hard links.
What a killed search could not log of its trials, the next one logs when it begins.
"""

import contextlib
import datetime
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from benchmark.errors import RunError
from benchmark.files import canonical_json, sha256_of
from benchmark.record import MODEL_FILE, RunRecord, work_folder
from benchmark.tracking import notes, store
from benchmark.tracking.notes import code, plain
from benchmark.tracking.store import NOTE_TAG, link_or_copy, store_errors

STATUS_OF_STATE: Final = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MIRRORED_TAG: Final = "facebench.mirrored"
SUPERSEDED_TAG: Final = "superseded_by"
"""Of a run whose folder was removed and trained again: MLflow's id of the later training."""
LAYOUT: Final = 3
"""Of what is mirrored: runs that were mirrored under an older one are brought up to date."""
ARTIFACTS: Final = {
    "record": ("experiment.json", "metrics.json", "calibration.json", "environment.txt"),
    "tables": ("history.csv", "intervals.csv", "subgroups.csv", "gaps.csv", "exposure.csv"),
    "pictures": ("confusion*.png", "subgroups*.png", "curves.png", "label_suspects.png"),
    "card": ("card.md",),
}
"""By folder in MLflow; predictions and all else are in the run's folder alone."""
OUTCOME_STEP: Final = 0
"""Of every number of the end of a run, so that runs of different lengths stand side by side."""
CONTEXTS: Final = {"train": "training", "val": "validation", "test": "test"}
STUDY_TAG: Final = "facebench.study"
PARENT_TAG: Final = "mlflow.parentRunId"
SEARCH_CONTINUES: Final = "The search continues; what is missing then, the same command logs."
SAME_SCORE: Final = 1e-9
"""One face of a million is 1e-6: below this, two scores differ by rounding alone."""


class MlflowMirror:
    """Bring MLflow to what the runs' folders say; `on_trouble` takes the reason why it cannot."""

    def __init__(self, runs_dir: Path, on_trouble: Callable[[str], None]) -> None:
        self.runs_dir = runs_dir
        self._on_trouble = on_trouble
        self._run_ids: dict[tuple[str, int, str], str] = {}
        self._steps: dict[str, set[int]] = {}
        self._failed = False

    def __call__(self, record: RunRecord) -> None:
        """Mirror a run of this process as it stands; trouble is said once, never raised."""
        # A store that failed is tried again at the ends of runs alone: it slows no training.
        if not self._failed or _shown_state(record) != "running":
            with self.trouble_said("The run continues; `facebench runs import` catches up."):
                self.mirror(record)

    @contextlib.contextmanager
    def trouble_said(self, what_then: str) -> Iterator[None]:
        """Say what the store or a run's files raise, the first time, and continue."""
        try:
            with store_errors(self.runs_dir):
                yield
            self._failed = False
        except RunError as error:
            if not self._failed:
                self._on_trouble(f"{error} {what_then}")
            self._failed = True

    def mirror(self, record: RunRecord) -> str:
        """Mirror one run and give its MLflow id.

        Raises TrackingError when the store fails, RunError when the run's files hold too little.
        """
        with store_errors(self.runs_dir):
            try:
                run_id = self._run_id(record)
                self._log_epochs(run_id, record)
                if record.state == "done":
                    self._log_outcome(run_id, record)
                self._log_state(run_id, record)
            except (KeyError, TypeError, ValueError) as error:
                what = f"the files of run {record.folder.name[:12]} hold too little for MLflow"
                found = f"{what} ({type(error).__name__}: {error})"
                allowed, source = "what facebench writes", str(record.folder)
                raise RunError(found, allowed=allowed, source=source) from error
        return run_id

    @cached_property
    def client(self) -> Any:
        return store.open_store(self.runs_dir)

    def _run_id(self, record: RunRecord) -> str:
        """Find the MLflow run of this training, or create it; mark those of earlier trainings."""
        from mlflow.entities import Param

        about, tags = record.about, notes.run_tags(record)
        attempt, training = int(tags[notes.ATTEMPT_TAG]), tags.get(notes.TRAINING_TAG, "")
        key = (record.identity, attempt, training)
        if key in self._run_ids:
            return self._run_ids[key]
        experiment_id = store.experiment_of(
            self.client, self.runs_dir, about["dataset"], of_searches=record.is_trial
        )
        query = f"tags.`{notes.IDENTITY_TAG}` = '{record.identity}'"
        run, earlier = None, []
        for other in self.client.search_runs([experiment_id], filter_string=query):
            marks = other.data.tags
            its_attempt = int(marks.get(notes.ATTEMPT_TAG, 1))
            is_same = its_attempt == attempt and marks.get(notes.TRAINING_TAG, "") == training
            if is_same and run is None:  # the latest, where two processes made one each
                run = other
            elif its_attempt >= attempt and SUPERSEDED_TAG not in marks:
                earlier.append(other.info.run_id)
        run = run or self.client.create_run(
            experiment_id,
            run_name=notes.run_name(record),
            tags=tags,
            start_time=_milliseconds(about["started"]),
        )
        run_id = str(run.info.run_id)
        for other_id in earlier:
            self.client.set_tag(other_id, SUPERSEDED_TAG, run_id)
            self.client.set_tag(other_id, "state", "superseded")
        if not (run.inputs and run.inputs.dataset_inputs):
            # The data sets last: with them the description is whole, whatever kills the process.
            params = [Param(name, value) for name, value in notes.params_of(about).items()]
            self.client.log_batch(run_id, params=params)
            self.client.log_inputs(run_id, _dataset_inputs(about))
        self._run_ids[key] = run_id
        return run_id

    def _log_epochs(self, run_id: str, record: RunRecord) -> None:
        """Log each epoch once: one batch is one transaction, so one metric speaks for all."""
        from mlflow.entities import Metric

        if not (record.folder / "history.csv").is_file():
            return
        if run_id not in self._steps:
            logged = self.client.get_metric_history(run_id, "train/loss")
            self._steps[run_id] = {metric.step for metric in logged}
        tasks = notes.tasks_of(record)
        names = ["train/loss", *(f"{p}/{t}/accuracy" for p in ("train", "val") for t in tasks)]
        names += ["val/combined"] if len(tasks) > 1 else []
        for row in record.history().to_dict("records"):
            epoch = int(row["epoch"])
            if epoch in self._steps[run_id]:
                continue
            now = int(time.time() * 1000)
            metrics = [Metric(name, float(row[name]), now, epoch) for name in names if name in row]
            self.client.log_batch(run_id, metrics=metrics)
            self._steps[run_id].add(epoch)

    def _log_outcome(self, run_id: str, record: RunRecord) -> None:
        """Log metrics, artifacts and network; of a run that was scored again, what has changed."""
        from mlflow.entities import Metric

        client, run = self.client, self.client.get_run(run_id)
        before, outcome = run.data, _outcome_mark(record)
        mark, folder = before.tags.get(MIRRORED_TAG, ""), store.local_folder(run.info.artifact_uri)
        is_gone = bool(mark) and folder is not None and not folder.is_dir()
        if mark == outcome and not is_gone:
            return
        is_trained_anew = bool(mark) and mark.split(" ")[0] != record.done["finished"]
        model_id = self._log_network(run, record, replace=is_trained_anew or is_gone)
        now = int(time.time() * 1000)
        of_test = (model_id, *_input(record.about, "test"))
        metrics = [
            Metric(name, value, now, OUTCOME_STEP, *(of_test if name.startswith("test/") else ()))
            for name, value in notes.metrics_of(record).items()
            if before.metrics.get(name) != value
        ]
        client.log_batch(run_id, metrics=metrics)
        for place, patterns in ARTIFACTS.items():
            for path in sorted(p for pattern in patterns for p in record.folder.glob(pattern)):
                store.send_file(client, run, path, place)
        # As mlflow.log_table writes them, which would append to a table that is there.
        listed, subgroups = [], record.subgroups()
        for name, table in (("subgroups", subgroups), ("scores", notes.scores_of(record.metrics))):
            text = table.to_json(orient="split", index=False, double_precision=15)
            listed.append({"path": f"tables/{name}.json", "type": "table"})
            client.log_text(run_id, text, f"tables/{name}.json")
        client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(listed))
        if "red_flag" in before.tags:  # of an older facebench: the note says it now
            client.delete_tag(run_id, "red_flag")
        client.set_tag(run_id, MIRRORED_TAG, outcome)

    def _log_network(self, run: Any, record: RunRecord, *, replace: bool) -> str | None:
        """Log a run's network as a model, once; give its id, None where no weights were kept."""
        # Tensors and a definition, no pickled code: MLflow's load_model calls inference.load.
        from mlflow.entities import LoggedModelOutput

        client = self.client
        logged = [item.model_id for item in (run.outputs.model_outputs if run.outputs else ())]
        if logged and not replace:
            return str(logged[-1])
        if not (record.folder / MODEL_FILE).is_file():
            return None
        for model_id in logged:
            client.delete_logged_model(model_id)
        faces = run.inputs.dataset_inputs[0].dataset.name
        note = f"{record.experiment_name}, seed {record.seed}, trained on {faces}"
        model = client.create_logged_model(
            run.info.experiment_id, name=f"{record.experiment_name}-seed-{record.seed}",
            source_run_id=run.info.run_id, tags={NOTE_TAG: note},
            params=notes.params_of(record.about), model_type="face classifier",
        )  # fmt: skip
        folder = store.local_folder(model.artifact_location)
        with tempfile.TemporaryDirectory() as scratch:
            _write_model(Path(scratch), record, run.info.run_id, str(model.model_id))
            weights = (folder or Path(scratch)) / MODEL_FILE
            link_or_copy(record.folder / MODEL_FILE, weights)
            client.log_model_artifacts(model.model_id, scratch)
        client.finalize_logged_model(model.model_id, "READY")
        step = int(record.done["selected_epoch"])
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step)])
        return str(model.model_id)

    def _log_state(self, run_id: str, record: RunRecord) -> None:
        state, client = _shown_state(record), self.client
        run = client.get_run(run_id)
        page = f"#/experiments/{run.info.experiment_id}/runs/{run_id}/artifacts/"
        models = run.outputs.model_outputs if run.outputs else ()
        model = f"models:/{models[-1].model_id}" if models else ""
        note = notes.run_note(record, lambda name: page + quote(f"pictures/{name}"), model)
        for name, value in (("state", state), (NOTE_TAG, note)):
            if run.data.tags.get(name) != value:
                client.set_tag(run_id, name, value)
        status = STATUS_OF_STATE.get(state, "RUNNING")
        if status == "RUNNING" != run.info.status:
            client.update_run(run_id, status="RUNNING")
        elif run.info.status != status:
            ended = _milliseconds(record.done["finished"]) if state == "done" else None
            client.set_terminated(run_id, status, ended)


@dataclass(frozen=True)
class TrialView:
    """A trial of a search as it stands: `complete`, `pruned`, `failed`, `running` or `waiting`.

    value: its best weighted validation accuracy in [0, 1], once it is complete; run: the identity
    of its run.
    """

    number: int
    state: str
    point: Mapping[str, Any]
    value: float | None = None
    run: str = ""
    reason: str = ""
    seconds: float | None = None

    @property
    def counts(self) -> bool:
        """Whether it is one of the N that were asked for."""
        return self.state in ("complete", "pruned")


def best_trial(trials: Iterable[TrialView]) -> TrialView | None:
    """Give the trial of the highest value; the earliest of those that differ by rounding alone."""
    scored = [(trial.value, trial) for trial in trials if trial.value is not None]
    highest = max((value for value, _ in scored), default=0.0)
    tied = [trial for value, trial in scored if value >= highest - SAME_SCORE]
    return min(tied, key=lambda trial: trial.number, default=None)


@dataclass
class StudyMirror:
    """Bring MLflow to what a search has tried so far; trouble is said once and stops nothing."""

    mirror: object
    """An MlflowMirror; None, or another callable, where nothing is tracked."""
    identity: str
    name: str
    """Of the experiment that the search starts from."""
    dataset: Mapping[str, Any]
    """As in `experiment.json`."""
    space: Mapping[str, str]
    """Dotted path → its range in words."""
    run_id: str = field(default="", init=False)
    """MLflow's, of the parent."""
    shown: set[int] = field(default_factory=set, init=False)
    """Numbers of the trials whose end MLflow shows."""

    def update(
        self, trials: Sequence[TrialView], *, fresh: Iterable[tuple[int, str]] = (),
        files: Iterable[Path] = (), state: Literal["", "done", "interrupted", "failed"] = "",
    ) -> None:  # fmt: skip
        """Show all trials that have ended since, each once.

        fresh: numbers of trials and identities of runs that trained their recipes with other seeds.
        files: artifacts of the study. state: how the search ended; a later trial reopens it.
        """
        mirror = self.mirror
        if not isinstance(mirror, MlflowMirror) or not (trials or state):
            return
        with mirror.trouble_said(SEARCH_CONTINUES):
            client = mirror.client
            parent = self.run_id = self.run_id or self._found_or_made(mirror)
            self._show(mirror, [one for one in trials if one.state not in ("running", "waiting")])
            for number, identity in fresh:
                record = RunRecord(work_folder(mirror.runs_dir) / identity)
                self._nest(mirror, record, f"Trial {number:03d}, seed {record.seed}")
            for path in files:
                store.send_file(client, client.get_run(parent), path, "study")
            if state:
                client.set_tag(parent, "state", state)
                client.set_terminated(parent, STATUS_OF_STATE[state])

    def _show(self, mirror: MlflowMirror, ended: Sequence[TrialView]) -> None:
        client, parent = mirror.client, self.run_id
        new = [trial for trial in ended if trial.number not in self.shown]
        if not new:
            return
        client.update_run(parent, status="RUNNING")
        client.set_tag(parent, "state", "running")
        for trial in new:
            record = RunRecord(work_folder(mirror.runs_dir) / trial.run)
            # A trial that was queued again has no run of its own: the later one has it.
            if trial.run and record.state != "absent" and "queued again" not in trial.reason:
                number = f"{trial.number:03d}"
                tags = {"trial": number, "trial_state": trial.state}
                tags |= {"trial_reason": trial.reason[:500]} if trial.reason else {}
                self._nest(mirror, record, f"Trial {number}", **tags)
            self.shown.add(trial.number)
        client.set_tag(parent, NOTE_TAG, self._note(ended))
        if best := best_trial(ended):
            client.log_metric(parent, "best/value", best.value, step=new[-1].number)

    def _found_or_made(self, mirror: MlflowMirror) -> str:
        """Find the parent run, and what MLflow shows beneath it; or make it."""
        from mlflow.entities import Param

        client = mirror.client
        experiment_id = store.experiment_of(client, mirror.runs_dir, self.dataset, of_searches=True)
        for run in client.search_runs([experiment_id], f"tags.`{STUDY_TAG}` = '{self.identity}'"):
            parent = str(run.info.run_id)
            beneath = client.search_runs([experiment_id], f"tags.`{PARENT_TAG}` = '{parent}'")
            # Those of fresh seeds are no trials of their own.
            shown = (child.data.tags.get("trial") for child in beneath)
            self.shown = {int(number) for number in shown if number is not None}
            return parent
        tags = {
            STUDY_TAG: self.identity, "experiment": self.name, NOTE_TAG: self._note(()),
            "faces": "drawn" if self.dataset["drawn"] else "photographs", "state": "running",
            "mlflow.source.name": "facebench tune", "mlflow.source.type": "LOCAL",
        }  # fmt: skip
        run = client.create_run(experiment_id, run_name=f"Search · {self.name}", tags=tags)
        params = [Param(f"space.{path}", words) for path, words in self.space.items()]
        client.log_batch(run.info.run_id, params=[*params, Param("objective", "val/combined")])
        return str(run.info.run_id)

    def _nest(self, mirror: MlflowMirror, record: RunRecord, title: str, **tags: str) -> None:
        """Put a run under its study; one that two studies tried stays with the first."""
        client, child = mirror.client, mirror.mirror(record)
        run = client.get_run(child)
        if run.data.tags.get(PARENT_TAG, self.run_id) != self.run_id:
            return
        tags |= {PARENT_TAG: self.run_id, "mlflow.runName": f"{title} · {self.name}"}
        for name, value in tags.items():
            client.set_tag(child, name, value)
        if run.info.status == "RUNNING":  # Its process died, and it is not tried again.
            client.set_terminated(child, "FAILED")

    def _note(self, trials: Sequence[TrialView]) -> str:
        lines = [
            f"**Which recipe suits {plain(self.name)} best on {plain(self.dataset['name'])}?**\n",
            f"A search from {code(self.name)} for the highest weighted validation "
            "accuracy (`val/combined`). Its trials are nested beneath it: open the + before its "
            "name. None is evaluated on the test set.\n",
            *(f"- {code(path)}: {plain(words)}" for path, words in self.space.items()),
        ]
        if best := best_trial(trials):
            shown = ", ".join(f"{code(path)} {plain(value)}" for path, value in best.point.items())
            lines += ["", f"Best so far: trial {best.number:03d}, {best.value:.4f}: {shown}."]
        return "\n".join(lines)


def _input(about: Mapping[str, Any], part: str) -> tuple[str, str]:
    """Name the faces of one part as MLflow shows them, `utkface-100 · train`, and their digest."""
    # Other faces need another name; of a digest MLflow takes 36 letters.
    dataset, definition = about["dataset"], about["experiment"]
    protocol, subset = definition["protocol"], definition.get("subset") or {}
    words = [str(dataset["name"]), part]
    words += [str(dataset["split_version"])] if about["leaky"] else []
    words += [f"fold {protocol['fold']}"] if protocol.get("fold") is not None else []
    words += [str(subset[key]) for key in ("gender", "race", "training") if subset.get(key)]
    return " · ".join(words), f"{dataset['pixel_digest'][:8]}-{dataset['split_digest'][:8]}"


def _dataset_inputs(about: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = about["dataset"]
    source = {
        "made": "drawn by facebench" if dataset["drawn"] else "prepared from local files",
        **{key: dataset[key] for key in ("pixel_digest", "split_digest", "split_version")},
    }
    inputs = []
    for part, context in CONTEXTS.items():
        if part in dataset["counts"]:
            profile = canonical_json({"faces": dataset["counts"][part]})
            name, digest = _input(about, part)
            described = Dataset(name, digest, "facebench", canonical_json(source), profile=profile)
            inputs.append(DatasetInput(described, [InputTag("mlflow.data.context", context)]))
    return inputs


def _write_model(folder: Path, record: RunRecord, run_id: str, model_id: str) -> None:
    """Write what MLflow calls a model, but for the tensors: MLmodel and what it needs."""
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    from benchmark.evaluation.predictions import probability_columns

    versions = record.about["versions"]
    pictures = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    columns: list[Any] = []
    for task in notes.tasks_of(record):
        columns.append(ColSpec("long", f"{task}_pred"))
        columns += [ColSpec("double", name) for name in probability_columns(task)]  # type: ignore[arg-type]
    signature = ModelSignature(pictures, Schema(columns))
    model = Model(run_id=run_id, model_id=model_id, signature=signature)
    model.add_flavor(
        "python_function",
        loader_module="benchmark.inference.load",
        data=MODEL_FILE,
        python_version=versions.get("python", ""),
    )
    model.save(str(folder / "MLmodel"))
    names = ("facebench", "torch", "torchvision", "timm", "numpy", "pandas")
    needed = [f"{name}=={versions[name]}\n" for name in names if name in versions]
    (folder / "requirements.txt").write_text("".join(needed), encoding="utf-8")


def _outcome_mark(record: RunRecord) -> str:
    """Give the time a training ended and a digest of the numbers, from which pictures follow."""
    digest = hashlib.sha256(f"layout {LAYOUT}".encode())
    for path in sorted(record.folder.iterdir()):
        if path.suffix in (".json", ".csv", ".md") and not path.name.startswith("."):
            digest.update(path.name.encode() + sha256_of(path).encode())
    return f"{record.done['finished']} {digest.hexdigest()[:16]}"


def _milliseconds(moment: str) -> int:
    """Read an ISO 8601 time as MLflow counts it: milliseconds since 1970."""
    return int(datetime.datetime.fromisoformat(moment).timestamp() * 1000)


def _shown_state(record: RunRecord) -> str:
    """A run without an end is `running` until its folder says that it was interrupted."""
    is_running = not (record.folder / "interrupted.json").is_file()
    return "running" if record.state == "interrupted" and is_running else record.state
