"""One run's folder as one run of MLflow, with its data sets as inputs.

One run's folder → one run of MLflow.

Mirroring is idempotent. A run is found by its identity, an epoch is logged unless its step is
there, and artifacts are sent once the run is done; so a lost server, a killed process or a
machine without MLflow loses nothing, and `facebench runs import` catches up.

The faces that a run trained, selected and tested on: data sets of MLflow, with digests.
"""

import contextlib
import datetime
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmark.errors import RunError, TrackingError
from benchmark.files import canonical_json, sha256_of
from benchmark.record import RunRecord
from benchmark.runs.notes import (
    ATTEMPT_TAG,
    IDENTITY_TAG,
    RED_FLAG_TAG,
    Links,
    flag_tag,
    run_name,
    run_note,
    run_params,
    run_tags,
)
from benchmark.tracking.page import experiment_of, note_links
from benchmark.tracking.store import MachineWatch, is_local, open_store, store_errors, store_uri
from benchmark.tracking.trained import log_trained

CONTEXTS: Final = {"train": "training", "val": "validation", "test": "test"}


def input_name(about: dict[str, Any], part: str) -> str:
    """Name the faces of one part as MLflow shows them: `utkface-100 train`.

    A fold, a subset and another split than ours say so: other faces need another name.
    """
    dataset, definition = about["dataset"], about["experiment"]
    protocol, subset = definition["protocol"], definition.get("subset") or {}
    words = [str(dataset["name"]), part]
    if about["leaky"]:
        words.append(str(dataset["split_version"]))
    if protocol.get("fold") is not None:
        words.append(f"fold {protocol['fold']}")
    words += [str(subset[key]) for key in ("gender", "race", "training") if subset.get(key)]
    return " · ".join(words)


def dataset_inputs(about: dict[str, Any]) -> list[Any]:
    """Describe each part of the split as an input; `about` is `experiment.json`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = about["dataset"]
    pixels, split = str(dataset["pixel_digest"]), str(dataset["split_digest"])
    source = {
        "made": "drawn by facebench" if dataset["drawn"] else "prepared from local files",
        **{key: dataset[key] for key in ("pixel_digest", "split_digest", "split_version")},
    }
    return [
        DatasetInput(
            Dataset(
                name=input_name(about, part),
                digest=f"{pixels[:8]}-{split[:8]}",
                source_type="facebench",
                source=canonical_json(source),
                profile=canonical_json({"faces": dataset["counts"][part]}),
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for part, context in CONTEXTS.items()
        if part in dataset["counts"]
    ]


STATUS_OF_STATE: Final = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
ARTIFACT_FOLDERS: Final = {".png": "pictures", ".csv": "tables", ".md": "card"}
MIRRORED_TAG: Final = "facebench.mirrored"
LAYOUT: Final = 2
"""Of what is mirrored: runs that were mirrored under an older one are brought up to date."""
METRICS_PER_CALL: Final = 1000
"""MLflow's own limit for one log_batch call."""
PATIENCE_SECONDS: Final = 60.0
"""After trouble with the store, a run that is under way leaves it alone for so long."""


class MlflowMirror:
    """Bring MLflow to what the runs' folders say.

    `on_trouble` hears a sentence when the store cannot be reached; the run itself goes on.
    """

    def __init__(self, runs_dir: Path, on_trouble: Callable[[str], None]) -> None:
        self._runs_dir = runs_dir
        self._on_trouble = on_trouble
        self._client: Any = None
        self._run_ids: dict[tuple[str, str], str] = {}
        self._steps: dict[str, set[int]] = {}
        self._watch = MachineWatch()
        self._tried_in_vain: float | None = None

    def __call__(self, record: RunRecord) -> None:
        """Mirror a run of this process as it stands; trouble is reported once, never raised.

        A store that does not answer is left alone for a minute, so that it slows no training; the
        end of a run is always tried.
        """
        state = _shown_state(record)
        waiting = self._tried_in_vain is not None and (
            time.monotonic() - self._tried_in_vain < PATIENCE_SECONDS
        )
        if state == "running" and waiting:
            return
        try:
            self._mirror_watched(record, state)
            self._tried_in_vain = None
        except RunError as error:
            if self._tried_in_vain is None:
                self._on_trouble(f"{error} The run goes on; `facebench runs import` catches up.")
            self._tried_in_vain = time.monotonic()

    def _mirror_watched(self, record: RunRecord, state: str) -> None:
        run_id = self._run_ids.get(_key(record))
        if run_id is not None and state != "running":
            self._watch.end(run_id)
        run_id = self.mirror(record)
        if state == "running":
            with store_errors(self.uri):
                self._watch.begin(run_id, self.uri)

    def mirror(self, record: RunRecord) -> str:
        """Mirror one run and give its MLflow id.

        Raises TrackingError when the store fails, RunError when the run's files hold too little.
        """
        with store_errors(self.uri), _unreadable(record):
            client = self.client()
            run_id = self._run_id(client, record)
            self._log_epochs(client, run_id, record)
            if record.state == "done":
                self._log_outcome(client, run_id, record)
            self._log_state(client, run_id, record)
        return run_id

    @property
    def uri(self) -> str:
        """The store's address."""
        return store_uri(self._runs_dir)

    def client(self) -> Any:
        """Give MLflow's client of the store, opened once."""
        if self._client is None:
            self._client = open_store(self._runs_dir)
        return self._client

    def experiment_id(self, dataset: dict[str, Any]) -> str:
        """Find or make the MLflow experiment of a data set; `dataset` as in `experiment.json`."""
        return experiment_of(self.client(), self._runs_dir, dataset)

    def _run_id(self, client: Any, record: RunRecord) -> str:
        """Find the MLflow run of this identity and attempt, or create it with its parameters."""
        key = _key(record)
        if key in self._run_ids:
            return self._run_ids[key]
        attempt = key[1]
        experiment_id = self.experiment_id(shown_dataset(record))
        of_identity = client.search_runs(
            [experiment_id], filter_string=f"tags.`{IDENTITY_TAG}` = '{record.identity}'"
        )
        by_attempt = {
            str(run.data.tags.get(ATTEMPT_TAG)): str(run.info.run_id) for run in of_identity
        }
        begun = [run for run in of_identity if run.data.tags.get(ATTEMPT_TAG) == attempt]
        if attempt not in by_attempt:
            by_attempt[attempt] = _create_run(
                client, experiment_id, record, by_attempt.get(str(int(attempt) - 1))
            )
        elif not begun[0].inputs.dataset_inputs:
            # A process that was killed between creating the run and describing it.
            _describe_run(client, by_attempt[attempt], record.about)
        self._run_ids[key] = by_attempt[attempt]
        return by_attempt[attempt]

    def _log_epochs(self, client: Any, run_id: str, record: RunRecord) -> None:
        """Log each epoch once: one batch is one transaction, so one metric speaks for all."""
        from mlflow.entities import Metric

        if not (record.folder / "history.csv").is_file():
            return
        if run_id not in self._steps:
            logged = client.get_metric_history(run_id, "val/combined")
            self._steps[run_id] = {metric.step for metric in logged}
        for row in record.history().to_dict("records"):
            epoch = int(row.pop("epoch"))
            if epoch in self._steps[run_id]:
                continue
            when = int(time.time() * 1000)
            metrics = [Metric(str(name), float(value), when, epoch) for name, value in row.items()]
            client.log_batch(run_id, metrics=metrics)
            self._steps[run_id].add(epoch)

    def _log_outcome(self, client: Any, run_id: str, record: RunRecord) -> None:
        """Log final metrics, artifacts and network, unless this very outcome is there already.

        A run that was scored again has further numbers and the old training: only what is new or
        changed is logged, and the network stays.
        """
        from mlflow.entities import Metric

        before, outcome = client.get_run(run_id).data, _outcome_mark(record)
        mark = before.tags.get(MIRRORED_TAG, "")
        if mark == outcome:
            return
        trained_anew = bool(mark) and mark.split(" ")[0] != record.done["finished"]
        model_id = log_trained(client, run_id, record, again=trained_anew)
        when, step = int(time.time() * 1000), int(record.done["selected_epoch"])
        metrics = [
            Metric(name, float(value), when, step, model_id=model_id if _heads(name) else None)
            for name, value in record.metrics.items()
            if before.metrics.get(name) != value
        ]
        for begin in range(0, len(metrics), METRICS_PER_CALL):
            client.log_batch(run_id, metrics=metrics[begin : begin + METRICS_PER_CALL])
        for path in _told(record):
            client.log_artifact(run_id, str(path), ARTIFACT_FOLDERS.get(path.suffix, "record"))
        if (flags := flag_tag(record)) or RED_FLAG_TAG in before.tags:
            client.set_tag(run_id, RED_FLAG_TAG, flags)
        client.set_tag(run_id, MIRRORED_TAG, outcome)

    def _log_state(self, client: Any, run_id: str, record: RunRecord) -> None:
        state = _shown_state(record)
        info = client.get_run(run_id)
        if info.data.tags.get("state") != state:
            client.set_tag(run_id, "state", state)
        links = note_links(info) if state == "done" else Links()
        note = run_note(record, links)
        if info.data.tags.get("mlflow.note.content") != note:
            client.set_tag(run_id, "mlflow.note.content", note)
        status = STATUS_OF_STATE.get(state, "RUNNING")
        if info.info.status == status:
            return
        if status == "RUNNING":
            client.update_run(run_id, status="RUNNING")
        else:
            ended = record.done["finished"] if state == "done" else None
            client.set_terminated(run_id, status, _milliseconds(ended) if ended else None)


def shown_dataset(record: RunRecord) -> dict[str, Any]:
    """Describe a run's faces, as the MLflow experiment that it belongs in is named.

    Trials of a search have one of their own, so that they swamp no list of runs.
    """
    dataset: dict[str, Any] = record.about["dataset"]
    return searches_on(dataset) if record.is_trial else dataset


def searches_on(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Name the MLflow experiment of the searches on some faces."""
    return {**dataset, "name": f"{dataset['name']}-searches"}


def _key(record: RunRecord) -> tuple[str, str]:
    return record.identity, str(record.about.get("attempt", 1))


def _create_run(client: Any, experiment_id: str, record: RunRecord, previous: str | None) -> str:
    """Create the run with its parameters and data sets; `previous` is the attempt that failed."""
    about, tags = record.about, run_tags(record)
    if previous is not None:
        tags["previous_attempt"] = previous
    run = client.create_run(
        experiment_id,
        run_name=run_name(record),
        tags=tags,
        start_time=_milliseconds(about["started"]),
    )
    run_id = str(run.info.run_id)
    _describe_run(client, run_id, about)
    return run_id


def _describe_run(client: Any, run_id: str, about: dict[str, Any]) -> None:
    """Log a run's parameters and data sets, the latter last: with them the description is whole."""
    from mlflow.entities import Param

    params = [Param(name, str(value)) for name, value in run_params(about).items()]
    client.log_batch(run_id, params=params)
    client.log_inputs(run_id, dataset_inputs(about))


def _heads(name: str) -> bool:
    """Tell whether a metric stands beside a model in lists: the few that name it good or bad."""
    short = name.endswith(("/accuracy", "/macro_f1")) and name.count("/") == 2
    return name in ("test/combined", "selected/val/combined") or (
        short and name.startswith("test/")
    )


def _told(record: RunRecord) -> Iterator[Path]:
    """Yield the files of a run that go to MLflow as artifacts; weights go as a model."""
    for path in sorted(record.folder.iterdir()):
        hidden = path.name.startswith(".") or not path.suffix
        if path.is_file() and not hidden and path.suffix not in (".safetensors", ".pt"):
            yield path


def _outcome_mark(record: RunRecord) -> str:
    """Give the time a training ended and a digest of the numbers made of it.

    Pictures follow from tables, and the weights from the training: neither is read for it.
    """
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
    if record.state != "interrupted":
        return record.state
    return "interrupted" if (record.folder / "interrupted.json").is_file() else "running"


@contextlib.contextmanager
def _unreadable(record: RunRecord) -> Iterator[None]:
    """Turn what a run of an older layout lacks into RunError, as every reader of runs does."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the files of run {record.folder.name[:12]} hold too little for MLflow "
            f"({type(error).__name__}: {error})",
            allowed="what facebench writes",
            source=str(record.folder),
        ) from error


def import_records(
    records: Iterator[RunRecord],
    runs_dir: Path,
    on_unreadable: Callable[[RunError], None] | None = None,
) -> Iterator[tuple[RunRecord, str]]:
    """Mirror many runs, yielding each with its MLflow id; TrackingError where the store fails.

    A run whose files hold too little is told and left out, or raises RunError where nobody hears.
    """
    mirror = MlflowMirror(runs_dir, on_trouble=lambda _: None)
    for record in records:
        try:
            run_id = mirror.mirror(record)
        except TrackingError:
            raise
        except RunError as error:
            if on_unreadable is None:
                raise
            on_unreadable(error)
            continue
        yield record, run_id


def mirror_again(record: RunRecord, runs_dir: Path) -> bool:
    """Bring a run that MLflow has up to date, and tell whether it has it; no store is made for it.

    Raises TrackingError where there is a store and it fails.
    """
    if is_local(runs_dir) and not (runs_dir / "mlflow.db").is_file():
        return False
    with store_errors(store_uri(runs_dir)):
        client = open_store(runs_dir)
        experiment = client.get_experiment_by_name(str(shown_dataset(record)["name"]))
        query = f"tags.`{IDENTITY_TAG}` = '{record.identity}'"
        known = experiment and client.search_runs([experiment.experiment_id], query, max_results=1)
    if not known:
        return False
    MlflowMirror(runs_dir, on_trouble=lambda _: None).mirror(record)
    return True
