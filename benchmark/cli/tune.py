"""`facebench tune`: an experiment in, its best recipe out, trained anew and registered."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
from rich.text import Text

from benchmark import registry
from benchmark.cli import options, output
from benchmark.cli.options import advanced, option
from benchmark.cli.output import CommandResult, Display, ExitCode, out, print_table, tell
from benchmark.cli.run import Execution, run_shown, shown_by
from benchmark.errors import BenchmarkError, ClusterLost, ExperimentError, StorageLost, require
from benchmark.experiment import space as spaces
from benchmark.experiment.definition import Experiment
from benchmark.experiment.space import GRID_PREFIX, GridSpace, SearchSpace
from benchmark.files import write_json
from benchmark.record import work_folder
from benchmark.reporting.tables import Column, Table

if TYPE_CHECKING:
    from benchmark.cluster.fleet import Fleet
    from benchmark.data.dataset import FaceSet
    from benchmark.runs.plan import Settings
    from benchmark.tracking.mirror import TrialView
    from benchmark.tuning.search import FreshScores, Outcome, TrialEvent
    from benchmark.tuning.study import Study

COLOURS = {"complete": "green", "pruned": "yellow", "failed": "red"}


def tune(
    answer: options.QuietAnswer,
    names: Annotated[list[str] | None, typer.Argument(
        help="Experiments, or grids of the study, by name.",
        autocompletion=options.complete_tunable)] = None,
    suite: options.OneSuite = None,
    trials: Annotated[int, option(
        "Complete and pruned trials, all sessions together.", min=1)] = 30,
    timeout: Annotated[float | None, option(
        "Seconds; no trial begins after them.", min=0.0)] = None,
    only: Annotated[str | None, option("Search these alone, as in depth,learning_rate.")] = None,
    settings: options.Changes = None,
    storage: Annotated[str, advanced(
        "A database's URL; SQLite beside the runs if none. Give an address with a password in the "
        "variable: others can read command lines.", envvar="FACEBENCH_STORAGE")] = "",
    sampler: Annotated[str, advanced("tpe or random.")] = "tpe",
    sampler_seed: Annotated[int, advanced("Of the sampler.", min=0)] = 0,
    pruner: Annotated[str, advanced("median, hyperband or none.")] = "median",
    jobs: Annotated[int, advanced("Processes here that search at once.", min=1)] = 1,
    row: Annotated[list[str] | None, advanced("Of a grid: only these rows.")] = None,
    refit: Annotated[bool, advanced("Train the best recipe anew and register it.")] = True,
    seeds: Annotated[str, advanced("Seeds of the refit.")] = "0,1,2",
    *, where: Execution,
) -> None:  # fmt: skip
    """Search for the best recipe of experiments by validation; a stopped search resumes.

    Learning rates, unfreezing depth, batch size and more, as the experiment's search space says.
    Fresh seeds decide between the best and the runner-up. The best recipe is then trained anew with
    three more and joins the suite `tuned`. No trial is evaluated on the test set. The same command
    in a second terminal searches along.

    Examples:
      facebench tune mtl-squeezenet1_1-imagenet-full --trials 30
      facebench tune mtl-vgg16-imagenet-block5 --trials 40 --only depth,learning_rate --jobs 2
      facebench tune --suite quick --trials 20 --timeout 600
      facebench tune grid-mtl-vgg16-block5 --row 32
    """
    chosen = _chosen(names or [], suite, row or [])
    changes = options.parse_settings(settings or [])
    refit_seeds = options.parse_seeds(seeds) if refit else ()
    where.cluster()  # A wrong option is answered before anything is opened.
    how = where.settings()
    from benchmark.data.dataset import choose_dataset
    from benchmark.tuning.search import FRESH_SEEDS, grid_study
    from benchmark.tuning.study import TRIAL_SEED, Study

    known = (TRIAL_SEED, *FRESH_SEEDS)
    allowed = f"any but those that the recipe is chosen by: {', '.join(map(str, known))}"
    require(not set(known) & set(refit_seeds), f"--seeds is {seeds}", allowed=allowed)
    with output.busy("opening the data set"):
        faces = choose_dataset(where.data_dir, where.dataset)
    require(jobs == 1 or not where.on, f"--jobs is {jobs} with --on", allowed="one of the two")
    studies, folder = list[dict[str, Any]](), where.runs_dir / "studies"
    answer.data = {"dataset": faces.name, "studies": studies}
    with _further(jobs - 1), where.fleet() as fleet:
        session = TuneSession(answer, how, fleet, trials, timeout, storage, refit_seeds)
        for item in chosen:
            try:
                if isinstance(item, GridSpace):
                    study = grid_study(item, changes, row or [], faces, folder)
                else:
                    start = item.adjusted(changes)
                    space = spaces.space_of(start)
                    space = space.only(only.split(",")) if only else space
                    spaces.check_space(space, start)
                    points = _first_points(start, space, answer)
                    study = Study(
                        start, space, faces, folder, sampler, sampler_seed, pruner, points
                    )
                studies.append(session.tuned(study))
            except BenchmarkError as refused:
                if len(chosen) == 1 or isinstance(refused, ClusterLost | StorageLost):
                    raise
                answer.errors.append(refused)
                studies.append({"experiment": item.name, "ok": False})
    is_fine = all(study["ok"] for study in studies)
    answer.code = ExitCode.FINE if is_fine else ExitCode.RUNS_FAILED


@contextlib.contextmanager
def _further(n: int) -> Iterator[None]:
    """Let n more processes of this command search along; they end with this one, and refit none."""
    program = [sys.executable, "-c", "from benchmark.cli.main import main; main()"]
    command = [*program, *sys.argv[1:], "--jobs", "1", "--no-refit", "--quiet"]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _chosen(names: list[str], suite: str | None, rows: list[str]) -> list[Experiment | GridSpace]:
    """Find what is to be tuned, each once; refuse what is neither experiment nor grid."""
    grids = {name: registry.grid(name) for name in names if name.startswith(GRID_PREFIX)}
    named = options.experiments_named([name for name in names if name not in grids], suite)
    known = ", ".join(registry.grids())
    allowed = f"names of experiments, --suite, or a grid: {known}"
    require(bool(named or grids), "nothing to tune was named", allowed=allowed)
    require(not (rows and named), "--row is of grids", allowed=known)
    return [*named.values(), *grids.values()]


def _first_points(
    start: Experiment, space: SearchSpace, answer: CommandResult
) -> tuple[dict[str, Any], ...]:
    """Let a search begin at the definition itself."""
    try:
        return (spaces.point_of(start, space),)
    except ExperimentError as error:
        answer.warnings.append(f"{error} The search begins elsewhere.")
        return ()


class TuneDisplay(Display):
    """Show a search as it goes: a line per trial and, on a terminal, a bar of all trials."""

    def __init__(self, n_wanted: int) -> None:
        super().__init__(BarColumn(bar_width=16), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar, self._n_wanted = self._bars.add_task("trials", total=n_wanted), n_wanted

    def show(self, event: "TrialEvent", trials: Sequence["TrialView"]) -> None:
        """Take one event in; trials: all there are."""
        if event.kind == "note":
            self.say(f"[yellow]note[/] {escape(event.text)}")
            return
        trial = trials[event.number]
        if event.kind == "began":
            words = ", ".join(f"{_short(path)} {_text(of)}" for path, of in trial.point.items())
            self.say(f"[bold]trial {trial.number}[/] {escape(words)}")
            return
        value = "" if trial.value is None else f" {trial.value:.2%}"
        reason = f": {escape(trial.reason)}" if trial.reason else ""
        self.say(
            f"  [{COLOURS[trial.state]}]{trial.state}[/]{value} in {trial.seconds:.1f} s"
            f"{reason} · {self.count(trials)}"
        )

    def count(self, trials: Sequence["TrialView"]) -> str:
        """Take in how the trials stand, and say it."""
        from benchmark.tracking.mirror import best_trial

        n_done, best = sum(trial.counts for trial in trials), best_trial(trials)
        self._bars.update(self._bar, completed=n_done)
        shown = "" if best is None else f" · best {best.value:.2%} in trial {best.number}"
        return f"{n_done} of {self._n_wanted} trials{shown}"


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short(path: str) -> str:
    return path.split(".", 1)[1]


@dataclass(frozen=True)
class TuneSession:
    """What the searches of one call share."""

    answer: CommandResult
    settings: "Settings"
    fleet: "Fleet | None"
    n_trials: int
    timeout: float | None
    storage: str
    refit_seeds: tuple[int, ...]

    def tuned(self, study: "Study") -> dict[str, Any]:
        """Search, show, refit; give what `--json` says of it."""
        outcome = self._searched(study)
        best, recipe, name = outcome.best, outcome.recipe, study.experiment.name
        ends = ", ".join(f"{n} {state}" for state, n in outcome.ends.items())
        out.print(Text(f"\n{study.name}", style="bold"))
        if study.grid is not None:
            print_grid(study, study.grid, outcome)
        elif best is not None:
            print_best(study, best, outcome)
        out.print(f"{ends}. Written to {study.own_folder}", soft_wrap=True)
        found: dict[str, Any] = {
            "experiment": name, "study": study.identity, "folder": str(study.own_folder),
            "trials": outcome.ends, "best": best and {
                "trial": best.number, "value": best.value, "point": best.point, "run": best.run,
            },
            "fresh_seeds": [item.as_dict() for item in outcome.fresh],
            "recipe": recipe and recipe["settings"], "failures": outcome.reasons,
            "ok": best is not None,
        }  # fmt: skip
        if best is None:
            why = "; ".join(outcome.reasons) or "none was complete"
            fix = "Fix what failed or narrow the search space; the same command resumes"
            source, what = str(study.own_folder), f"no trial of {name} was good: {why}"
            self.answer.errors.append(ExperimentError(what, source=source, fix=fix))
        if outcome.remark:
            self.answer.warnings.append(f"{name}: {outcome.remark}")
        if recipe is not None and self.refit_seeds:
            found["refit"] = self._refit(recipe, study.faces)
            found["ok"] = not found["refit"]["failed"]
        return found

    def _searched(self, study: "Study") -> "Outcome":
        """Search until there are enough trials, let fresh seeds decide, write what was found."""
        from benchmark.runs.folder import CHECKPOINT_FILE
        from benchmark.tracking.mirror import StudyMirror
        from benchmark.tuning.search import fresh_scores, search, training_objective, write_outcome
        from benchmark.tuning.study import TrialQueue

        queue, fleet = TrialQueue(study, self.storage, output.say_warning), self.fleet
        mirror = StudyMirror(
            self.settings.mirror,
            identity=study.identity,
            name=study.experiment.name,
            dataset=study.dataset,
            space=study.space.words,
        )
        trials = queue.trials()
        # Of a grid, every point that was ever asked for: rows add up.
        n_points = len({frozenset(trial.point.items()) for trial in trials})
        n_wanted = self.n_trials if study.grid is None else n_points
        n_at_once = fleet.n_slots if fleet else lambda: 1
        fresh: tuple[FreshScores, ...] = ()
        with TuneDisplay(n_wanted) as display:
            synthetic = "[bold yellow]SYNTHETIC FACES[/], not people: " if study.faces.drawn else ""
            display.say(f"{synthetic}[bold]{study.name}[/], {display.count(trials)}")
            for path, words in study.space.words.items():
                display.say(f"  {path}: {words}")
            shown = shown_by(display, self.settings, self.answer)
            objective = training_objective(study, shown, fleet.run if fleet else None)
            mirror.update(trials)
            found = search(queue, objective, n_wanted, self.timeout, n_at_once)
            try:
                with contextlib.closing(found) as events:
                    for event in events:
                        trials = queue.trials()
                        if event.kind == "pruned" and (run := trials[event.number].run):
                            folder = work_folder(self.settings.runs_dir) / run
                            (folder / CHECKPOINT_FILE).unlink(missing_ok=True)  # Never resumed.
                        mirror.update(trials)
                        display.show(event, trials)
                if study.grid is None:
                    fresh = fresh_scores(study, objective, queue.trials(), display.say)
            except KeyboardInterrupt:
                mirror.update(queue.trials(), state="interrupted")
                raise
        outcome = write_outcome(study, queue, fresh)
        mirror.update(
            outcome.trials,
            files=outcome.files,
            state="done" if outcome.best else "failed",
            fresh=[(item.trial.number, run) for item in fresh for run in item.runs],
        )
        return outcome

    def _refit(self, recipe: dict[str, Any], faces: "FaceSet") -> dict[str, Any]:
        """Register the best recipe, instead of the one before, and train it anew."""
        path = registry.tuned_folder(self.settings.runs_dir) / f"{recipe['base']}.json"
        write_json(path, recipe)
        tuned, seeds = Experiment.from_dict(recipe["tuned"]), self.refit_seeds
        tell(f"\nTraining [bold]{tuned.name}[/] anew, seeds {seeds}.")
        ends = run_shown(self.answer, [tuned], seeds, faces, self.settings, self.fleet)
        untuned = recipe["untuned"]["name"] if recipe["untuned"] else recipe["base"]
        out.print(
            f"\nRegistered as [bold]{tuned.name}[/] in the suite tuned. Against the untuned:\n"
            f"  facebench run {untuned} --seeds {','.join(map(str, seeds))} "
            f"--dataset {faces.name}\n  facebench compare {tuned.name} {untuned}\n"
            "  facebench leaderboard --suite tuned",
            soft_wrap=True,
        )
        return {"experiment": tuned.name, "file": str(path), **ends}


def print_best(study: "Study", best: "TrialView", outcome: "Outcome") -> None:
    """Print the best recipe beside the one that the search began with."""
    from benchmark.tuning.search import is_the_definition

    rows = [
        (_short(path), _text(spaces.value_at(study.experiment, path)), _text(tried))
        for path, tried in best.point.items()
    ]
    complete = [trial for trial in outcome.trials if trial.state == "complete"]
    own = [f"{trial.value:.2%}" for trial in complete if is_the_definition(study, trial)]
    rows.append(("validation", (*own, "–")[0], f"{best.value:.2%}"))
    print_table(Table.of(["searched", "definition", f"best, trial {best.number}"], rows))
    for item in outcome.fresh:
        by_seed = ", ".join(f"{score:.2%}" for score in item.by_seed.values())
        out.print(f"Fresh seeds: trial {item.trial.number} {item.mean:.2%} on average ({by_seed})")


def print_grid(study: "Study", grid: GridSpace, outcome: "Outcome") -> None:
    """Write a grid's table, and print it: at each point our score, then the study's."""
    from benchmark.tuning.search import write_grid

    table = write_grid(study, grid, outcome.trials)
    percent = (100 * table[["ours", "study"]]).map("{:.1f}".format).replace("nan", "–")
    cells = iter(percent["ours"] + " | " + percent["study"])
    rows = [(f"{row:g}", *(next(cells) for _ in grid.columns.values)) for row in grid.rows.values]
    columns = [f"{column:g}" for column in grid.columns.values]
    print_table(Table.of([Column(_short(grid.rows.path), left=True), *columns], rows, grid.asks))
    ours = study.experiment.backbone
    out.print(
        f"Validation accuracy, %: ours ({ours.architecture}, {ours.depth_name}) | the study's "
        f"({grid.experiment.backbone.architecture}, {grid.source}).",
        soft_wrap=True,
    )
