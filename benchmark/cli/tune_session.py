"""Studies from the command line: begun or resumed, searched, shown, their best trained anew."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from benchmark import registry
from benchmark.cli.output import CommandResult, Display, err, out, print_table
from benchmark.cli.run_display import RunDisplay
from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, ExperimentError, require
from benchmark.experiment.definition import Experiment
from benchmark.experiment.space import (
    AUGMENTATION,
    AUGMENTATION_NAMES,
    DEPTH,
    GRID_PREFIX,
    GridSpace,
    check_space,
    count_stages,
    point_of,
    space_of,
    value_at,
)
from benchmark.record import work_folder
from benchmark.reporting.tables import Column, Table
from benchmark.runs.checkpoints import CHECKPOINT_FILE
from benchmark.runs.plan import Settings
from benchmark.runs.run import Failed, Finished, Missing, Skipped, run_all
from benchmark.tracking import StudyMirror, TrialView, best_trial
from benchmark.tuning import outcome as outcomes
from benchmark.tuning.outcome import Outcome, short_name
from benchmark.tuning.search import (
    FreshScores,
    TrialEvent,
    fresh_scores,
    search,
    training_objective,
)
from benchmark.tuning.study import FRESH_SEEDS, TRIAL_SEED, Study, default_storage, studies_folder
from benchmark.tuning.trials import TrialQueue

STORAGE_VARIABLE: Final = "FACEBENCH_STORAGE"
COLOURS: Final = {"complete": "green", "pruned": "yellow", "failed": "red"}


class TuneDisplay(Display):
    """Show a search as it goes: a line per trial and, on a terminal, a bar of all epochs."""

    def __init__(self, n_wanted: int, n_epochs: int, *, quiet: bool) -> None:
        percent = TextColumn("{task.percentage:>3.0f} %")
        super().__init__(BarColumn(bar_width=16), percent, TimeRemainingColumn(), quiet=quiet)
        self._n_wanted, self._n_epochs, self._n_done = n_wanted, n_epochs, 0
        self._noted: set[str] = set()
        self._bar = self._bars.add_task("epochs of all trials", total=n_wanted * n_epochs)

    def show(self, event: TrialEvent, trials: Sequence[TrialView]) -> None:
        """Take one event in; trials: all there are, at the end of one."""
        if event.kind == "began":
            self.say(f"[bold]trial {event.number}[/] {escape(_in_words(event.point))}")
        elif event.kind == "note" and event.text.split(":")[0] not in self._noted:
            self._noted.add(event.text.split(":")[0])
            self.say(f"[yellow]note[/] {escape(event.text)}")
        elif event.kind in ("score", "progress"):
            done = self._n_done * self._n_epochs + event.epoch + (event.kind == "score")
            self._bars.update(self._bar, completed=done)
        elif event.kind in COLOURS:
            value = "" if event.value is None else f" {event.value:.2%}"
            reason = f": {escape(event.text)}" if event.text else ""
            self.say(
                f"  [{COLOURS[event.kind]}]{event.kind}[/]{value} in {event.seconds:.1f} s{reason}"
                f" · {self.count(trials)}"
            )

    def count(self, trials: Sequence[TrialView]) -> str:
        """Take in how the trials stand, and say it."""
        self._n_done = sum(trial.counts for trial in trials)
        self._bars.update(self._bar, completed=self._n_done * self._n_epochs)
        best = best_trial(trials)
        shown = "" if best is None else f" · best {best.value:.2%} in trial {best.number}"
        return f"{self._n_done} of {self._n_wanted} trials{shown}"


def _in_words(point: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{short_name(path)} {value:.3g}" if isinstance(value, float)
        else f"{short_name(path)} {value}"
        for path, value in point.items()
    )  # fmt: skip


@dataclass(frozen=True)
class TuneSession:
    """One call of `facebench tune`; a worker searches along with another and shows nothing."""

    answer: CommandResult
    faces: FaceSet
    settings: Settings
    n_trials: int
    timeout: float | None
    jobs: int
    storage: str | None
    sampler: str
    sampler_seed: int
    pruner: str
    only: tuple[str, ...]
    changes: Mapping[str, Any]
    rows: tuple[str, ...]
    refit_seeds: tuple[int, ...]
    is_worker: bool
    quiet: bool
    as_json: bool

    def tune_all(self, names: Sequence[str]) -> bool:
        """Search for each; one of many that cannot be searched does not stop the others."""
        known = sorted({TRIAL_SEED, *FRESH_SEEDS})
        require(
            not set(known) & set(self.refit_seeds),
            f"--seeds is {','.join(map(str, self.refit_seeds))}",
            allowed=f"any but those that the recipe is chosen by: {str(known)[1:-1]}",
        )
        studies: list[dict[str, Any]] = []
        self.answer.data = {"dataset": self.faces.name, "studies": studies}
        for name in names:
            try:
                studies.append(self._tuned(name))
            except BenchmarkError as error:
                if len(names) == 1:
                    raise
                self.answer.errors.append(error)
                studies.append({"experiment": name, "ok": False})
        return all(study["ok"] for study in studies)

    def _tuned(self, name: str) -> dict[str, Any]:
        """Search, show, refit; give what `--json` says of it."""
        grid = registry.grid(name) if name.startswith(GRID_PREFIX) else None
        base = grid.experiment if grid else registry.experiment(name)
        study = self._study(base, grid)
        outcome = self._searched(study, base, grid)
        best = outcome.best
        found: dict[str, Any] = {
            "experiment": study.experiment.name,
            "study": study.identity,
            "folder": str(study.own_folder),
            "trials": outcome.counts,
            "best": best
            and {"trial": best.number, "value": best.value, "point": best.point, "run": best.run},
            "fresh_seeds": [item.as_dict() for item in outcome.fresh],
            "recipe": outcome.recipe["settings"] if outcome.recipe else None,
            "failures": outcomes.reasons(outcome.trials),
            "ok": best is not None or not any(outcome.counts.values()),
        }
        if not (self.is_worker or self.as_json):
            print_grid(grid, study, outcome) if grid else print_best(study, outcome)
        if outcome.recipe is not None and self.refit_seeds and grid is None:
            found["refit"] = self._refit(outcome.recipe)
            found["ok"] = found["ok"] and not found["refit"]["failed"]
        return found

    def _study(self, base: Experiment, grid: GridSpace | None) -> Study:
        folder = studies_folder(self.settings.runs_dir)
        start = replace(base, name=grid.name, ad_hoc=True) if grid else base
        experiment = start.adjusted(self.changes) if self.changes else start
        if grid:
            by_text = {str(row): row for row in grid.rows.values}
            for text in self.rows:
                require(text in by_text, f"--row is {text!r}", allowed=", ".join(by_text))
            points = tuple(grid.points(tuple(by_text[text] for text in self.rows)))
            faces = outcomes.grid_faces(grid, self.faces)
            return Study(experiment, grid.space, faces, folder, "random", 0, "none", points)
        space = space_of(experiment)
        if self.only:
            by_word = {path.rpartition(".")[2]: path for path in space.paths} | {"depth": DEPTH}
            space = space.only(tuple(by_word.get(word, word) for word in self.only))
        check_space(space, experiment)
        chosen_by = (self.sampler, self.sampler_seed, self.pruner)
        return Study(experiment, space, self.faces, folder, *chosen_by)

    def _searched(self, study: Study, base: Experiment, grid: GridSpace | None) -> Outcome:
        """Run the search until it ends, and write what it shows."""
        n_epochs, runs_dir = study.experiment.recipe.max_epochs, self.settings.runs_dir
        queue = TrialQueue(study, self.storage or default_storage(study.folder), n_epochs)
        mirror = StudyMirror(
            self.settings.mirror, self.answer.warnings.append, identity=study.identity,
            name=study.experiment.name, dataset=study.dataset(), space=study.space.words,
        )  # fmt: skip
        # Of a grid, every point that was ever asked for: rows add up.
        n_points = len({tuple(sorted(trial.point.items())) for trial in queue.trials()})
        n_wanted = n_points if grid else self.n_trials
        fresh: tuple[FreshScores, ...] = ()
        with TuneDisplay(n_wanted, n_epochs, quiet=self.quiet or self.as_json) as display:
            self._begin(study, queue, display)
            objective = training_objective(study, self._shown(display))
            mirror.update(queue.trials())
            try:
                with (
                    self._workers(study, queue.address),
                    contextlib.closing(search(queue, objective, n_wanted, self.timeout)) as events,
                ):
                    for event in events:
                        trials = queue.trials() if event.kind in COLOURS else []
                        if event.kind == "pruned" and trials[event.number or 0].run:
                            folder = work_folder(runs_dir) / trials[event.number or 0].run
                            (folder / CHECKPOINT_FILE).unlink(missing_ok=True)  # Never resumed.
                        mirror.update(trials)
                        display.show(event, trials)
                if self.is_worker:
                    return Outcome(tuple(queue.trials()), None, (), None, ())
                if grid is None:
                    finalists = outcomes.finalists(study, queue.trials())
                    fresh = fresh_scores(objective, finalists, display.say)
            except KeyboardInterrupt:
                mirror.update(queue.trials(), state="interrupted")
                raise
        outcome = outcomes.write_outcome(study, base, queue, fresh)
        name = study.experiment.name
        if grid:
            files = outcomes.write_grid(grid, study, outcome.trials)
            outcome = replace(outcome, files=(*outcome.files, *files))
        else:
            self.answer.warnings.extend(f"{name}: {remark}" for remark in outcome.remarks)
        runs = [(item.trial.number, run) for item in fresh for run in item.runs]
        mirror.update(
            outcome.trials,
            fresh=runs,
            files=outcome.files,
            state="done" if outcome.best else "failed",
        )
        if outcome.best is None:
            why = "; ".join(outcomes.reasons(outcome.trials))
            self.answer.errors.append(
                ExperimentError(
                    f"no trial of {name} was good" + (f": {why}" if why else ""),
                    source=str(study.own_folder),
                    fix="Fix what failed or narrow the search space; the same command resumes",
                )
            )
        return outcome

    def _begin(self, study: Study, queue: TrialQueue, display: TuneDisplay) -> None:
        """Say where the search stands, and let a new one begin at the definition itself."""
        trials = queue.trials()
        synthetic = "[bold yellow]SYNTHETIC FACES[/], not people: " if study.faces.drawn else ""
        display.say(f"{synthetic}[bold]{study.name}[/], {display.count(trials)}")
        if queue.n_earlier:
            display.say(
                "[yellow]note[/] the definition, the search space, the faces or the trainer have "
                f"changed: a new study begins, {queue.n_earlier} earlier ones stay as they are."
            )
        for path, words in study.space.words.items():
            display.say(f"  {path}: {words}")
        if not trials:
            try:
                queue.queue_first(point_of(study.experiment, study.space))
            except ExperimentError as error:
                self.answer.warnings.append(f"{error} The search begins elsewhere.")

    def _shown(self, display: TuneDisplay) -> Settings:
        """Let the display show what takes time, and say once what goes otherwise than wished."""

        def say(sentence: str) -> None:
            if sentence not in self.answer.warnings:
                self.answer.warnings.append(sentence)

        watch, cache = display.show_stage, self.settings.cache
        if cache is not None:
            cache = replace(cache, say=say, on_progress=watch)
        speed = replace(self.settings.speed, say=say)
        return replace(self.settings, on_progress=watch, cache=cache, speed=speed)

    @contextlib.contextmanager
    def _workers(self, study: Study, address: str) -> Iterator[None]:
        """Let further processes search along; they end with this one.

        They get the storage's address in the environment: everybody on the machine can read a
        command line, and an address may hold a password.
        """
        words = [word for word in sys.argv[1:] if not word.startswith("--storage=")]
        if "--storage" in words:
            del words[words.index("--storage") : words.index("--storage") + 2]
        program = [sys.executable, "-c", "from benchmark.cli.main import main; main()"]
        command = [*program, *words, "--worker", study.experiment.name, "--quiet"]
        environment = os.environ | {STORAGE_VARIABLE: address}
        workers = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
            for _ in range(0 if self.is_worker else self.jobs - 1)
        ]
        try:
            yield
        except BaseException:
            for worker in workers:
                worker.terminate()
            raise
        finally:
            ends = [worker.wait() for worker in workers]
            if failed := [code for code in ends if code not in (0, 3, 130, -15)]:
                self.answer.warnings.append(
                    f"{len(failed)} of {len(ends)} further processes failed: see above why"
                )

    def _refit(self, recipe: dict[str, Any]) -> dict[str, Any]:
        """Register the best recipe and train it anew, as runs like any other."""
        path = outcomes.register(recipe, self.settings.runs_dir)
        tuned, quiet = Experiment.from_dict(recipe["tuned"]), self.quiet or self.as_json
        ends = {kind.__name__.lower(): 0 for kind in (Finished, Skipped, Missing, Failed)}
        if not quiet:
            err.print(f"\nTraining [bold]{tuned.name}[/] anew, seeds {self.refit_seeds}.")
        runs = run_all([tuned], self.refit_seeds, self.faces, self.settings)
        with RunDisplay(len(self.refit_seeds), quiet=quiet) as display, contextlib.closing(runs):
            for event in runs:
                display.show(event)
                if isinstance(event, (Finished, Skipped, Missing, Failed)):
                    ends[type(event).__name__.lower()] += 1
                if isinstance(event, Failed):
                    self.answer.errors.append(event.error)
        if not self.as_json:
            untuned = recipe["untuned"]["name"] if recipe["untuned"] else recipe["base"]
            seeds = ",".join(map(str, self.refit_seeds))
            out.print(
                f"\nRegistered as [bold]{tuned.name}[/] in the suite tuned. Against the untuned:\n"
                f"  facebench run {untuned} --seeds {seeds} --dataset {self.faces.name}\n"
                f"  facebench compare {tuned.name} {untuned}\n"
                "  facebench leaderboard --suite tuned",
                soft_wrap=True,
            )
        return {"experiment": tuned.name, "file": str(path), **ends}


def print_best(study: Study, outcome: Outcome) -> None:
    """Print the best recipe beside the one that the search began with."""
    counts = ", ".join(f"{n} {state}" for state, n in outcome.counts.items() if n)
    out.print(Text(f"\n{study.experiment.name} on {study.faces.name}", style="bold"))
    best = outcome.best
    if best is None:
        out.print(f"No trial is complete ({counts or 'none was begun'}).")
        return
    rows = []
    for path, tried in best.point.items():
        values = (value_at(study.experiment, path), tried)
        cells = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
        if path == DEPTH:
            cells = [f"{value} of {count_stages(study.experiment)}" for value in values]
        elif path == AUGMENTATION:
            cells = [AUGMENTATION_NAMES[v] if isinstance(v, int) else str(v) for v in values]
        rows.append((short_name(path), *cells))
    complete = [trial for trial in outcome.trials if trial.state == "complete"]
    own = [trial for trial in complete if outcomes.is_the_definition(study, trial)]
    scores = [f"{trial.value:.2%}" for trial in (*own[:1], best)]
    rows.append(("validation", *(scores if own else ["–", *scores])))
    print_table(Table.of(["searched", "definition", f"best, trial {best.number}"], rows))
    for item in outcome.fresh:
        by_seed = ", ".join(f"{score:.2%}" for score in item.by_seed.values())
        out.print(f"Fresh seeds: trial {item.trial.number} {item.mean:.2%} on average ({by_seed})")
    out.print(f"{counts}. Page and table: {study.own_folder}", soft_wrap=True)


def print_grid(grid: GridSpace, study: Study, outcome: Outcome) -> None:
    """Print a grid: at each point our score, then the study's."""
    backbone, ours = study.experiment.backbone, outcomes.grid_table(grid, outcome.trials)
    out.print(Text(f"\n{grid.asks}", style="bold"))
    rows = []
    for row, points in ours.groupby(grid.rows.path, sort=False):
        pairs = zip(points["ours"], points["study"], strict=True)
        cells = [f"{_percent(ours)} | {_percent(theirs)}" for ours, theirs in pairs]
        rows.append((f"{row:g}", *cells))
    columns = [f"{column:g}" for column in grid.columns.values]
    print_table(Table.of([Column(short_name(grid.rows.path), left=True), *columns], rows))
    out.print(
        f"Validation accuracy, %: ours ({backbone.architecture}, {backbone.depth_name}, "
        f"{study.faces.name}) | the study's ({grid.experiment.backbone.architecture}, "
        f"{grid.source}). Page and table: {study.own_folder}",
        soft_wrap=True,
    )


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f}"
