"""A search over recipes as a parent run of MLflow, its trials nested beneath it.

Who searches, and where, is for others to say: a study is told of trials in any order, as often as
they like, and MLflow shows what was told last.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchmark.record import RunRecord
from benchmark.runs.notes import code, plain
from benchmark.tracking.mirror import MlflowMirror, searches_on
from benchmark.tracking.page import NOTE_TAG
from benchmark.tracking.store import store_errors

STUDY_TAG: Final = "facebench.study"
TRIAL_TAG: Final = "trial"
TRIAL_STATE_TAG: Final = "trial_state"
TRIAL_REASON_TAG: Final = "trial_reason"
PARENT_TAG: Final = "mlflow.parentRunId"
SAME_VALUE: Final = 1e-9
TRIALS_SHOWN: Final = 30
"""In a study's note: MLflow cuts a note after 8,000 letters."""

TrialState = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Study:
    """A search: what it asks, where it starts, and what it may change."""

    identity: str
    """What makes two searches the same; found again by it."""
    name: str
    """Of the experiment that the search starts from."""
    asks: str
    dataset: Mapping[str, Any]
    """As `experiment.json` has it: name, drawn, counts, digests and version of the split."""
    space: Mapping[str, str]
    """Dotted path → its range in words: `recipe.learning_rate` → `1e-5 to 1e-2, by factors`."""
    objective: str = "val/combined"


@dataclass(frozen=True)
class Trial:
    """One try of a search."""

    number: int
    """Counted from 0, as the search counts."""
    state: TrialState
    settings: Mapping[str, Any]
    value: float | None = None
    """Of the objective; None while there is none."""
    reason: str = ""
    """Why it failed."""


class StudyMirror:
    """Bring MLflow to what a search has tried so far; raises TrackingError when the store fails."""

    def __init__(self, mirror: MlflowMirror, study: Study) -> None:
        self._mirror = mirror
        self._study = study
        self._trials: dict[int, Trial] = {}
        self._run_id = ""

    def run_id(self) -> str:
        """Find the parent run of this study, or make it."""
        if not self._run_id:
            with store_errors(self._mirror.uri):
                self._run_id = self._found() or self._made()
        return self._run_id

    def tell(self, trial: Trial, record: RunRecord | None = None) -> None:
        """Show a trial as it stands; its run, where there is one, is nested under the study."""
        parent = self.run_id()
        child = self._mirror.mirror(record) if record is not None else None
        with store_errors(self._mirror.uri):
            if child is not None:
                self._nest(child, parent, trial)
            self._trials[trial.number] = trial
            self._log_progress(parent, trial)

    def tell_again(self, number: int, record: RunRecord) -> None:
        """Show a run that trained a trial's recipe again, with another seed, under its study."""
        parent, child = self.run_id(), self._mirror.mirror(record)
        with store_errors(self._mirror.uri):
            client = self._mirror.client()
            client.set_tag(child, PARENT_TAG, parent)
            title = f"Trial {number:03d}, seed {record.seed} · {self._study.name}"
            client.set_tag(child, "mlflow.runName", title)

    def end(self, state: Literal["done", "interrupted", "failed"] = "done") -> None:
        """Close the study; telling it of a further trial opens it again."""
        status = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}[state]
        with store_errors(self._mirror.uri):
            client = self._mirror.client()
            client.set_tag(self.run_id(), "state", state)
            client.set_terminated(self.run_id(), status)

    def shown(self) -> dict[int, str]:
        """Give the state that MLflow shows of each trial that has a run there, by its number."""
        parent = self.run_id()
        with store_errors(self._mirror.uri):
            experiment_id = self._mirror.experiment_id(searches_on(self._study.dataset))
            runs = self._mirror.client().search_runs(
                [experiment_id], filter_string=f"tags.`{PARENT_TAG}` = '{parent}'"
            )
        tags = [run.data.tags for run in runs if TRIAL_TAG in run.data.tags]
        return {int(item[TRIAL_TAG]): str(item[TRIAL_STATE_TAG]) for item in tags}

    def attach(self, paths: Iterable[Path]) -> None:
        """Keep files as artifacts of the study: pages, pictures, the table, the recipe."""
        parent = self.run_id()
        with store_errors(self._mirror.uri):
            for path in paths:
                self._mirror.client().log_artifact(parent, str(path), "study")

    def _found(self) -> str:
        experiment_id = self._mirror.experiment_id(searches_on(self._study.dataset))
        found = self._mirror.client().search_runs(
            [experiment_id], filter_string=f"tags.`{STUDY_TAG}` = '{self._study.identity}'"
        )
        return str(found[0].info.run_id) if found else ""

    def _made(self) -> str:
        from mlflow.entities import Param

        client, study = self._mirror.client(), self._study
        dataset = dict(study.dataset)
        run = client.create_run(
            self._mirror.experiment_id(searches_on(dataset)),
            run_name=f"Search · {study.name}",
            tags={
                STUDY_TAG: study.identity,
                "experiment": study.name,
                "faces": "drawn" if dataset["drawn"] else "photographs",
                "state": "running",
                NOTE_TAG: self._note(),
                "mlflow.source.name": "facebench tune",
                "mlflow.source.type": "LOCAL",
            },
        )
        params = [Param(f"space.{path}", words) for path, words in study.space.items()]
        client.log_batch(run.info.run_id, params=[*params, Param("objective", study.objective)])
        return str(run.info.run_id)

    def _nest(self, child: str, parent: str, trial: Trial) -> None:
        """Put a run under its study; one that two studies tried stays with the first."""
        client = self._mirror.client()
        run = client.get_run(child)
        if run.data.tags.get(PARENT_TAG, parent) != parent:
            return
        tags = {
            PARENT_TAG: parent,
            TRIAL_TAG: f"{trial.number:03d}",
            TRIAL_STATE_TAG: trial.state,
            "mlflow.runName": f"Trial {trial.number:03d} · {self._study.name}",
        }
        if trial.reason:
            tags[TRIAL_REASON_TAG] = trial.reason[:500]
        for name, value in tags.items():
            if run.data.tags.get(name) != value:
                client.set_tag(child, name, value)
        if trial.state == "pruned" and run.info.status != "KILLED":
            client.set_terminated(child, "KILLED")
        if trial.state == "failed" and run.info.status == "RUNNING":
            client.set_terminated(child, "FAILED")

    def _log_progress(self, parent: str, trial: Trial) -> None:
        client = self._mirror.client()
        if client.get_run(parent).info.status != "RUNNING":
            client.update_run(parent, status="RUNNING")
            client.set_tag(parent, "state", "running")
        if trial.state == "complete" and trial.value is not None:
            steps = {item.step for item in client.get_metric_history(parent, "trial/value")}
            if trial.number not in steps:
                client.log_metric(parent, "trial/value", trial.value, step=trial.number)
                best = self.best()
                assert best is not None
                client.log_metric(parent, "best/value", best.value, step=trial.number)
        client.set_tag(parent, NOTE_TAG, self._note())

    def best(self) -> Trial | None:
        """Give the complete trial of the highest value; the earliest of those that tie.

        Values of equal accuracies differ by rounding.
        """
        complete = [
            trial
            for trial in self._trials.values()
            if trial.state == "complete" and trial.value is not None
        ]
        highest = max((trial.value or 0 for trial in complete), default=0)
        tied = [trial for trial in complete if (trial.value or 0) >= highest - SAME_VALUE]
        return min(tied, key=lambda trial: trial.number, default=None)

    def _note(self) -> str:
        study, best = self._study, self.best()
        told = sorted(self._trials.values(), key=lambda trial: trial.number)
        shown = sorted(told, key=_by_value)[:TRIALS_SHOWN]
        lines = [
            f"**{plain(study.asks)}**",
            "",
            f"A search from `{study.name}` for the highest `{study.objective}`. Its trials are "
            "nested beneath it: open the + before its name. Test faces are read by none of them.",
            "",
            *(f"- {code(path)}: {plain(words)}" for path, words in study.space.items()),
        ]
        if best is not None:
            lines += ["", f"Best so far: trial {best.number:03d}, {best.value:.4f}.", ""]
        if told:
            lines += ["| trial | state | value | settings |", "|--:|---|--:|---|"]
            lines += [_line(trial) for trial in shown]
        if len(told) > len(shown):
            lines += ["", f"The best {len(shown)} of {len(told)} trials; all are beneath it."]
        return "\n".join(lines)


def _by_value(trial: Trial) -> tuple[bool, float, int]:
    return (trial.value is None, -(trial.value or 0), trial.number)


def _line(trial: Trial) -> str:
    value = "–" if trial.value is None else f"{trial.value:.4f}"
    settings = ", ".join(
        f"{code(path)} {plain(_short(value))}" for path, value in trial.settings.items()
    )
    why = f" ({plain(trial.reason)})" if trial.reason else ""
    return f"| {trial.number:03d} | {trial.state}{why} | {value} | {settings} |"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
