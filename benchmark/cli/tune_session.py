"""One study from the command line: begun or taken up, searched, shown, its best trained anew."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmark import registry
from benchmark.cli.output import Answer, err, out
from benchmark.cli.run_display import RunDisplay
from benchmark.cli.tune_display import TuneDisplay
from benchmark.cli.tune_table import print_best, print_grid
from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, ExperimentError, require
from benchmark.experiment.definition import Experiment
from benchmark.experiment.grids import PREFIX as GRID_PREFIX
from benchmark.experiment.grids import GridSpace
from benchmark.experiment.search_points import check_space, point_of, space_of
from benchmark.experiment.space import DEPTH
from benchmark.runs.plan import Settings
from benchmark.runs.run import Failed, Finished, Missing, Skipped, run_all
from benchmark.tracking import MlflowMirror
from benchmark.tuning.outcome import Outcome, Teller, reasons, write_outcome
from benchmark.tuning.recipes import FreshScores, finalists, register
from benchmark.tuning.search import Ended, Limits, Training, compared, search, trial_settings
from benchmark.tuning.study import (
    FRESH_SEEDS,
    TRIAL_SEED,
    Study,
    default_storage,
    shown,
    studies_folder,
)
from benchmark.tuning.trials import Ledger

if TYPE_CHECKING:
    from benchmark.cli.tune import Wish

STORAGE_VARIABLE: Final = "FACEBENCH_STORAGE"


class Session:
    """One call of `facebench tune`, study after study."""

    def __init__(
        self,
        answer: Answer,
        faces: FaceSet,
        settings: Settings,
        wish: "Wish",
        *,
        quiet: bool,
        as_json: bool,
    ) -> None:
        self._answer = answer
        self._faces = faces
        self._settings = settings
        self._wish = wish
        self._quiet = quiet or as_json
        self._as_json = as_json
        known = {TRIAL_SEED, *FRESH_SEEDS}
        require(
            not known & set(wish.refit_seeds),
            f"--seeds is {','.join(map(str, wish.refit_seeds))}",
            allowed="any but those that the recipe is chosen by: "
            + ", ".join(map(str, sorted(known))),
        )

    def tune(self, name: str) -> dict[str, Any]:
        """Search, show, refit; give what `--json` says of it."""
        grid = registry.grid(name) if name.startswith(GRID_PREFIX) else None
        base = grid.experiment if grid else registry.experiment(name)
        study = self._grid_study(grid) if grid else self._study(base)
        outcome = self._searched(study, base, grid)
        found = _data(study, outcome)
        if self._wish.helps:
            return found
        if not self._as_json:
            print_grid(grid, study, outcome) if grid else print_best(study, outcome)
        if outcome.recipe is not None and self._wish.refit_seeds and grid is None:
            found["refit"] = self._refit(outcome.recipe)
            found["ok"] = found["ok"] and not found["refit"]["failed"]
        return found

    def _study(self, base: Experiment) -> Study:
        experiment = base.adjusted(self._wish.changes) if self._wish.changes else base
        space = space_of(experiment)
        if self._wish.only:
            space = space.only(tuple(_path(name, space.paths) for name in self._wish.only))
        check_space(space, experiment)
        return Study(
            experiment, space, self._faces, studies_folder(self._settings.runs_dir),
            self._wish.sampler, self._wish.sampler_seed, self._wish.pruner,
        )  # fmt: skip

    def _grid_study(self, grid: GridSpace) -> Study:
        from benchmark.tuning.outcome import grid_faces

        rows = tuple(_value(text, grid.rows.values) for text in self._wish.rows) or None
        experiment = replace(grid.experiment, name=grid.name, ad_hoc=True)
        if self._wish.changes:
            experiment = experiment.adjusted(self._wish.changes)
        return Study(
            experiment, grid.space, grid_faces(grid, self._faces),
            studies_folder(self._settings.runs_dir), "random", 0, "none",
            tuple(grid.points(rows)),
        )  # fmt: skip

    def _searched(self, study: Study, base: Experiment, grid: GridSpace | None) -> Outcome:
        """Run the search until it ends, and write what it shows."""
        n_epochs = study.experiment.recipe.max_epochs
        address = self._wish.storage or default_storage(study.folder)
        ledger = Ledger(study, address, n_epochs)
        n_wanted = ledger.n_queued if grid else self._wish.n_trials
        mirror = self._settings.mirror
        teller = Teller(
            study, self._settings.runs_dir, mirror if isinstance(mirror, MlflowMirror) else None,
            self._answer.warnings.append,
        )  # fmt: skip
        with TuneDisplay(n_wanted, n_epochs, quiet=self._quiet) as display:
            settings = self._shown(display)
            self._begin(study, ledger, display, n_wanted)
            objective = Training(study, settings)
            limits = Limits(n_wanted, self._wish.timeout)
            teller.catch_up(ledger.trials())
            try:
                with (
                    self._helpers(study, address),
                    contextlib.closing(search(ledger, objective, limits)) as events,
                ):
                    for event in events:
                        trials = ledger.trials() if isinstance(event, Ended) else []
                        if isinstance(event, Ended):
                            _thin(self._settings.runs_dir, event, trials)
                            teller.catch_up(trials)
                        display.show(event, trials)
                fresh = (
                    ()
                    if grid or self._wish.helps
                    else self._compared(study, ledger, objective, display)
                )
            except KeyboardInterrupt:
                teller.catch_up(ledger.trials())
                teller.end("interrupted")
                raise
        if self._wish.helps:
            return Outcome(tuple(ledger.trials()), None, (), None, ())
        return self._ended(study, base, ledger, teller, grid, fresh)

    def _compared(
        self, study: Study, ledger: Ledger, objective: Training, display: TuneDisplay
    ) -> tuple[FreshScores, ...]:
        """Let fresh seeds decide between the best trial and the runner-up."""
        events = compared(objective, finalists(study, ledger.trials()))
        with contextlib.closing(events):
            while True:
                try:
                    display.show(next(events), [])
                except StopIteration as ended:
                    return tuple(ended.value)

    def _ended(
        self,
        study: Study,
        base: Experiment,
        ledger: Ledger,
        teller: Teller,
        grid: GridSpace | None,
        fresh: tuple[FreshScores, ...],
    ) -> Outcome:
        from benchmark.tuning.outcome import write_grid

        outcome = write_outcome(study, base, ledger, fresh)
        files = [*outcome.files, *(write_grid(grid, study, outcome.trials) if grid else ())]
        teller.catch_up(outcome.trials)
        teller.tell_fresh(fresh)
        teller.end("done" if outcome.best else "failed", files)
        if not grid:
            name = study.experiment.name
            self._answer.warnings += [f"{name}: {remark}" for remark in outcome.remarks]
        if outcome.best is None:
            why = reasons(outcome.trials)
            self._answer.errors.append(
                ExperimentError(
                    f"no trial of {study.experiment.name} was good"
                    + (f": {'; '.join(why)}" if why else ""),
                    source=str(study.own_folder),
                    fix="Mend what failed or narrow the search space; the same command tries on",
                )
            )
        return replace(outcome, files=tuple(files))

    def _begin(self, study: Study, ledger: Ledger, display: TuneDisplay, n_wanted: int) -> None:
        """Say where the search stands, and let a new one begin at the definition itself."""
        trials = ledger.trials()
        display.begin(trials)
        n_done = sum(trial.counts for trial in trials)
        drawn = "[bold yellow]DRAWN FACES[/], not people: " if study.faces.drawn else ""
        display.say(
            f"{drawn}[bold]{study.name}[/], {n_done} of {n_wanted} trials, {shown(ledger.address)}"
        )
        if not ledger.was_there:
            for name, about in ledger.earlier_studies().items():
                why = _difference(study, about)
                display.say(f"[yellow]note[/] {why}: a new study begins. {name} stays as it is.")
        if not trials:
            try:
                ledger.queue_first(point_of(study.experiment, study.space))
            except ExperimentError as error:
                self._answer.warnings.append(f"{error} The search begins elsewhere.")
        for path, words in study.space.words.items():
            display.say(f"  {path}: {words}")

    def _shown(self, display: TuneDisplay) -> Settings:
        """Let what goes otherwise than wished be said once."""

        def say(sentence: str) -> None:
            if sentence not in self._answer.warnings:
                self._answer.warnings.append(sentence)

        settings, cache = trial_settings(self._settings), self._settings.cache
        return replace(
            settings,
            on_progress=display.show_stage,
            cache=None
            if cache is None
            else replace(cache, say=say, on_progress=display.show_stage),
            speed=replace(settings.speed, say=say),
        )

    @contextlib.contextmanager
    def _helpers(self, study: Study, address: str) -> Iterator[None]:
        """Let further processes search along; they end with this one."""
        command = [
            sys.executable, "-c", "from benchmark.cli.main import main; main()",
            *_again(sys.argv[1:]), "--worker", study.experiment.name, "--quiet",
        ]  # fmt: skip
        n_more = 0 if self._wish.helps else self._wish.jobs - 1
        with contextlib.ExitStack() as files:
            # Files, which never fill as a pipe does that nobody reads until the end.
            said = [files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(n_more)]
            helpers = [
                subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=file,
                    # Everybody on the machine can read a command line, and an address may hold a
                    # password.
                    env=os.environ | {STORAGE_VARIABLE: address},
                )
                for file in said
            ]  # fmt: skip
            try:
                yield
            except BaseException:
                for helper in helpers:
                    helper.terminate()
                raise
            finally:
                for helper, file in zip(helpers, said, strict=True):
                    if helper.wait() not in (0, 3, 130, -15):
                        file.seek(0)
                        last = (file.read().strip().splitlines() or ["without a word"])[-1]
                        self._answer.warnings.append(f"a process that searched along ended: {last}")

    def _refit(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """Register the best recipe and train it anew, as runs like any other."""
        path = register(recipe, self._settings.runs_dir)
        tuned = Experiment.from_dict(recipe["tuned"])
        seeds = self._wish.refit_seeds
        ends = {"finished": 0, "skipped": 0, "missing": 0, "failed": 0}
        errors: list[BenchmarkError] = []
        if not self._quiet:
            err.print(f"\nTraining [bold]{tuned.name}[/] anew with {len(seeds)} seeds.")
        with (
            RunDisplay(len(seeds), quiet=self._quiet) as display,
            contextlib.closing(run_all([tuned], seeds, self._faces, self._settings)) as events,
        ):
            for event in events:
                display.show(event)
                if isinstance(event, (Finished, Skipped, Missing, Failed)):
                    ends[type(event).__name__.lower()] += 1
                if isinstance(event, Failed):
                    errors.append(event.error)
        self._answer.errors += errors
        if not self._as_json:
            untuned = recipe["untuned"]["name"] if recipe["untuned"] else recipe["base"]
            seeds_text = ",".join(map(str, seeds))
            out.print(
                f"\nRegistered as [bold]{tuned.name}[/] in the suite tuned. Against the untuned:\n"
                f"  facebench run {untuned} --seeds {seeds_text} --dataset {self._faces.name}\n"
                f"  facebench compare {tuned.name} {untuned}\n"
                "  facebench leaderboard --suite tuned",
                soft_wrap=True,
            )
        return {"experiment": tuned.name, "file": str(path), **ends}


def _again(arguments: list[str]) -> list[str]:
    """Give the words of this command for another process, but for the storage's address."""
    kept = [word for word in arguments if not word.startswith("--storage=")]
    if "--storage" in kept:
        place = kept.index("--storage")
        del kept[place : place + 2]
    return kept


def _thin(runs_dir: Path, event: Ended, trials: list[Any]) -> None:
    """Remove the checkpoint of a trial that was given up: nobody goes on with it."""
    from benchmark.record import work_folder
    from benchmark.runs.checkpoints import CHECKPOINT_FILE

    if event.state == "pruned" and trials[event.number].run:
        (work_folder(runs_dir) / trials[event.number].run / CHECKPOINT_FILE).unlink(missing_ok=True)


def _path(name: str, paths: tuple[str, ...]) -> str:
    """Find the path that a short name stands for: its last word, or `depth`."""
    if name == "depth":
        return DEPTH
    return next((path for path in paths if path.endswith(f".{name}")), name)


def _value(text: str, values: tuple[Any, ...]) -> Any:
    found = next((value for value in values if str(value) == text), None)
    if found is None:
        raise ExperimentError(f"--row is {text!r}", allowed=", ".join(map(str, values)))
    return found


def _difference(study: Study, about: Any) -> str:
    """Say in what a study differs from an earlier one of the same experiment on these faces."""
    before, now = dict(about.get("space", {})), study.space.words
    changed = sorted(
        path for path in before.keys() | now.keys() if before.get(path) != now.get(path)
    )
    if changed:
        return f"the search space has changed since ({', '.join(changed)})"
    return "the definition, the faces or the trainer have changed since"


def _data(study: Study, outcome: Outcome) -> dict[str, Any]:
    best = outcome.best
    return {
        "experiment": study.experiment.name,
        "study": study.identity,
        "folder": str(study.own_folder),
        "trials": outcome.counts,
        "best": None
        if best is None
        else {
            "trial": best.number,
            "value": best.value,
            "point": dict(best.point),
            "run": best.run,
        },
        "fresh_seeds": [item.as_dict() for item in outcome.fresh],
        "recipe": outcome.recipe["settings"] if outcome.recipe else None,
        "failures": reasons(outcome.trials),
        "ok": best is not None or not any(outcome.counts.values()),
    }
