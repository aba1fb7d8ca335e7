"""MLflow is told of every trial; trouble with it is said once and stops nothing.

What a killed process could not tell, the next one tells when it begins.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from benchmark.errors import TrackingError
from benchmark.results.record import RunRecord, work_folder
from benchmark.tracking import MlflowMirror, StudyMirror, Trial
from benchmark.tracking import Study as ShownStudy
from benchmark.tuning.ledger import Told
from benchmark.tuning.recipes import FreshScores
from benchmark.tuning.study import Study


class Teller:
    """What tells MLflow of one study; it only ever catches up."""

    def __init__(
        self, study: Study, runs_dir: Path, mirror: MlflowMirror | None, say: Callable[[str], None]
    ) -> None:
        self._runs_dir = runs_dir
        self._say = say
        self._told: dict[int, str] = {}
        self._shown: dict[int, str] | None = None
        self._mirror = None if mirror is None else StudyMirror(mirror, _shown_study(study))

    def catch_up(self, trials: Iterable[Told]) -> None:
        """Tell of all that has ended since; each trial once in each state."""
        if self._mirror is None:
            return
        try:
            if self._shown is None:
                self._shown = self._mirror.shown()
            for trial in trials:
                self._tell(self._mirror, self._shown, trial)
        except TrackingError as error:
            self._give_up(error)

    def _tell(self, mirror: StudyMirror, shown: dict[int, str], trial: Told) -> None:
        if trial.state in ("running", "waiting") or self._told.get(trial.number) == trial.state:
            return
        state: Literal["complete", "pruned", "failed"] = trial.state  # type: ignore[assignment]
        record = RunRecord(work_folder(self._runs_dir) / trial.run) if trial.run else None
        # A trial that another one took up has no run of its own: the later one has it.
        has_run = record is not None and (record.folder / "experiment.json").is_file()
        mirrored = shown.get(trial.number) == state or "queued again" in trial.reason
        mirror.tell(
            Trial(trial.number, state, trial.point, trial.value, trial.reason),
            record if has_run and not mirrored else None,
        )
        self._told[trial.number] = trial.state

    def tell_fresh(self, fresh: Iterable[FreshScores]) -> None:
        """Tell of the runs that decided between the best trial and the runner-up."""
        if self._mirror is None:
            return
        try:
            for item in fresh:
                for identity in item.runs:
                    record = RunRecord(work_folder(self._runs_dir) / identity)
                    self._mirror.tell_again(item.trial.number, record)
        except TrackingError as error:
            self._give_up(error)

    def end(
        self, state: Literal["done", "interrupted", "failed"], files: Iterable[Path] = ()
    ) -> None:
        """Close the study there, with its files."""
        if self._mirror is None:
            return
        try:
            self._mirror.attach(files)
            self._mirror.end(state)
        except TrackingError as error:
            self._give_up(error)

    def _give_up(self, error: TrackingError) -> None:
        self._say(f"{error} The search goes on; the next `facebench tune` tells MLflow the rest.")
        self._mirror = None


def _shown_study(study: Study) -> ShownStudy:
    name = study.experiment.name
    return ShownStudy(
        identity=study.identity,
        name=name,
        asks=f"Which recipe suits {name} best on {study.faces.name}?",
        dataset=study.dataset(),
        space=study.space.words,
    )
