"""One run's folder as one run of MLflow, with its data sets as inputs and its network as a model.

Mirroring is idempotent. A run is found by its identity, an epoch is logged unless its step is
there, and the outcome is logged once the run is done; so whatever is lost, `facebench runs import`
catches up. MLflow gets what runs are compared by: some 25 metrics and 30 parameters; bounds of
intervals, every subgroup and ratio are in its tables. Files of a local store are hard links.
"""

import contextlib
import datetime
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pandas as pd

from benchmark.errors import RunError
from benchmark.experiment.parts import flattened
from benchmark.files import canonical_json, sha256_of
from benchmark.record import RunRecord
from benchmark.tracking import notes, store
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
COSTS: Final = ("parameters", "gmacs", "images_per_second", "peak_memory_mib", "seconds")
OF_A_TASK: Final = ("accuracy", "macro_f1", "worst_gender_race", "gap_gender_race")
OUTCOME_STEP: Final = 0
"""Of every number of the end of a run, so that runs of different lengths stand side by side."""
WEIGHTS_FILE: Final = "model.safetensors"
PARTS: Final = ("backbone", "head", "recipe", "protocol", "subset")
CONTEXTS: Final = {"train": "training", "val": "validation", "test": "test"}


class MlflowMirror:
    """Bring MLflow to what the runs' folders say; `on_trouble` is told why it cannot be done."""

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
        """Say what the store or a run's files raise, the first time, and go on."""
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
            experiment_id, run_name=notes.run_name(record), tags=tags,
            start_time=_milliseconds(about["started"]),
        )  # fmt: skip
        run_id = str(run.info.run_id)
        for other_id in earlier:
            self.client.set_tag(other_id, SUPERSEDED_TAG, run_id)
            self.client.set_tag(other_id, "state", "superseded")
        if not (run.inputs and run.inputs.dataset_inputs):
            # The data sets last: with them the description is whole, whatever kills the process.
            params = [Param(name, value) for name, value in _params(about).items()]
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
        tasks = _tasks(record)
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
            for name, value in _metrics(record).items()
            if before.metrics.get(name) != value
        ]
        client.log_batch(run_id, metrics=metrics)
        for place, patterns in ARTIFACTS.items():
            for path in sorted(p for pattern in patterns for p in record.folder.glob(pattern)):
                store.send_file(client, run, path, place)
        # As mlflow.log_table writes them, which would append to a table that is there.
        listed, subgroups = [], record.subgroups()
        for name, table in (("subgroups", subgroups), ("scores", _scores(record.metrics))):
            text = table.to_json(orient="split", index=False, double_precision=15)
            listed.append({"path": f"tables/{name}.json", "type": "table"})
            client.log_text(run_id, text, f"tables/{name}.json")
        client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(listed))
        client.set_tag(run_id, MIRRORED_TAG, outcome)

    def _log_network(self, run: Any, record: RunRecord, *, replace: bool) -> str | None:
        """Log a run's network as a model, once; give its id, None where no weights were kept."""
        # Tensors and a definition, no pickled code: MLflow's load_model calls inference.load.
        from mlflow.entities import LoggedModelOutput

        client, tags = self.client, notes.run_tags(record)
        logged = [item.model_id for item in (run.outputs.model_outputs if run.outputs else ())]
        if logged and not replace:
            return str(logged[-1])
        if not (record.folder / WEIGHTS_FILE).is_file():
            return None
        for model_id in logged:
            client.delete_logged_model(model_id)
        faces = run.inputs.dataset_inputs[0].dataset.name
        note = f"{record.experiment_name}, seed {record.seed}, trained on {faces}"
        # The record's own: the run's tags in MLflow may have been changed or removed.
        kept = {key: tags[key] for key in ("architecture", "weights", "tasks", "faces")}
        model = client.create_logged_model(
            run.info.experiment_id, name=f"{record.experiment_name}-seed-{record.seed}",
            source_run_id=run.info.run_id, tags=kept | {NOTE_TAG: note},
            params=_params(record.about), model_type="face classifier",
        )  # fmt: skip
        folder = store.local_folder(model.artifact_location)
        with tempfile.TemporaryDirectory() as scratch:
            _write_model(Path(scratch), record, run.info.run_id, str(model.model_id))
            weights = (folder or Path(scratch)) / WEIGHTS_FILE
            link_or_copy(record.folder / WEIGHTS_FILE, weights)
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


def _params(about: Mapping[str, Any]) -> dict[str, str]:
    """Flatten a definition to what it uses: no None, no augmentation of strength 0."""
    definition = about["experiment"]
    parts = {part: definition.get(part) for part in PARTS}
    values = {"experiment": definition["name"], "seed": about["seed"]} | dict(flattened(parts))
    return {
        name: str(value)
        for name, value in values.items()
        if value is not None and not (name.startswith("recipe.augmentation.") and not value)
    }


def _metrics(record: RunRecord) -> dict[str, float]:
    """Give the numbers of a finished run by which runs are compared, by MLflow's name."""
    tasks, metrics = _tasks(record), record.metrics
    selected = ["selected/val/combined", "test/combined"]
    names = [f"test/{task}/{name}" for task in tasks for name in OF_A_TASK]
    names += [f"cost/{name}" for name in COSTS]
    names += selected if len(tasks) > 1 else [f"selected/val/{tasks[0]}/accuracy"]
    return {name: float(metrics[name]) for name in names if name in metrics}


def _scores(metrics: Mapping[str, float]) -> pd.DataFrame:
    """Give every number of a run with the bounds of its interval, where it has one."""
    rows = [
        (name, value, metrics.get(f"{name}/low"), metrics.get(f"{name}/high"))
        for name, value in metrics.items()
        if not name.endswith(("/low", "/high"))
    ]
    return pd.DataFrame(rows, columns=["score", "value", "low", "high"])


def _tasks(record: RunRecord) -> list[str]:
    return list(record.about["experiment"]["head"]["tasks"])


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
    for task in _tasks(record):
        columns.append(ColSpec("long", f"{task}_pred"))
        columns += [ColSpec("double", name) for name in probability_columns(task)]  # type: ignore[arg-type]
    signature = ModelSignature(pictures, Schema(columns))
    model = Model(run_id=run_id, model_id=model_id, signature=signature)
    model.add_flavor(
        "python_function", loader_module="benchmark.inference.load", data=WEIGHTS_FILE,
        python_version=versions.get("python", ""),
    )  # fmt: skip
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
