"""A search over recipes as a parent run of MLflow, its trials nested beneath it.

Trials may be given in any order and again; MLflow shows what was given last. What a killed process
could not log, the next one logs when it begins.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmark.record import RunRecord, work_folder
from benchmark.tracking.mirror import STATUS_OF_STATE, MlflowMirror
from benchmark.tracking.notes import code, plain
from benchmark.tracking.store import NOTE_TAG, experiment_of, send_file

STUDY_TAG: Final = "facebench.study"
PARENT_TAG: Final = "mlflow.parentRunId"
SEARCH_CONTINUES: Final = "The search continues; what is missing then, the same command logs."
SAME_SCORE: Final = 1e-9
"""One face of a million is 1e-6: below this, two scores differ by rounding alone."""


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
                send_file(client, client.get_run(parent), path, "study")
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
        experiment_id = experiment_of(client, mirror.runs_dir, self.dataset, of_searches=True)
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
            f"A search from {code(self.name)} for the highest `val/combined`. Its trials are "
            "nested beneath it: open the + before its name. None is evaluated on the test set.\n",
            *(f"- {code(path)}: {plain(words)}" for path, words in self.space.items()),
        ]
        if best := best_trial(trials):
            shown = ", ".join(f"{code(path)} {plain(value)}" for path, value in best.point.items())
            lines += ["", f"Best so far: trial {best.number:03d}, {best.value:.4f}: {shown}."]
        return "\n".join(lines)
