"""A search: its loop, the training that is a trial, and what is left in the folder at its end.

Reading no further stops a search as Ctrl-C does: the running trial is marked and queued again, and
the same search resumes next time. A search knows only this of a training: from a point come scores,
one per epoch, and closing the generator stops it. Behind it is an ordinary run, tracked like any.
The plots at its end are Optuna's; plotly's library, 4.7 MB, stands once in the page, so that it
opens without a network.
"""

import contextlib
import html
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final, Literal

import numpy as np
import optuna
import pandas as pd
from optuna import visualization
from optuna.trial import TrialState

from benchmark import registry
from benchmark.data.dataset import FaceSet
from benchmark.data.splits import hash_keys, split_digest
from benchmark.errors import BenchmarkError, ClusterLost, StorageLost, require
from benchmark.experiment.space import GridSpace, experiment_at, settings_at
from benchmark.files import write_json, write_text
from benchmark.record import SCHEMA, TRIAL_FILE
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.runs.run import (
    ASK_AGAIN_SECONDS,
    Advanced,
    Event,
    Finished,
    Skipped,
    Started,
    in_this_process,
    interleaved,
)
from benchmark.tracking.mirror import TrialView, best_trial
from benchmark.training.trainer import EpochResult
from benchmark.tuning.study import OBJECTIVE, TRIAL_SEED, EndState, Study, TrialHandle, TrialQueue

FRESH_SEEDS: Final = (1001, 1002, 1003)
"""Of the trainings that decide between the best trial and the runner-up."""
FEWEST_FAILURES: Final = 5
"""A search without a single good trial ends after so many failed, or after as many as wanted."""
GRID_FRACTIONS: Final = {"train": 0.10, "val": 0.05}
"""Of all faces, what the study's grids trained and validated on."""
HEAD: Final = """<!doctype html><html lang='en'><head><meta charset='utf-8'>
<meta name='viewport' content='width=device-width'><title>{question}</title><style>
body{{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1180px;margin:2rem auto}}
body{{padding:0 1rem}} p{{max-width:48rem}} .wide{{overflow-x:auto}}
</style></head><body><h1>{question}</h1>
"""
SYNTHETIC: Final = "<p><b>Synthetic faces</b>, not people.</p>"
ABOUT: Final = (
    "<p>Each trial was trained on the training faces and scored on validation faces; none was "
    "evaluated on the test set. The best of many trials is flattered by its choice: the runs of "
    "the refit say on test faces what it is worth.</p>"
)


@dataclass(frozen=True)
class TrialEvent:
    """A trial began or ended; a note is a sentence about the search."""

    kind: Literal["began", "note"] | EndState
    number: int = 0
    text: str = ""


Score = tuple[int, float]
"""An epoch, counted from 0, and its weighted validation accuracy in [0, 1]."""
Objective = Callable[..., Generator[str | Score | None]]
"""Of a point, a trial's number and, if given, a seed: yields the run's identity, then its scores,
None while nothing happens where it is computed elsewhere; closed, it stops."""


def training_objective(
    study: Study,
    settings: Settings,
    elsewhere: Callable[[Plan, Settings], Generator[Event | None]] | None = None,
) -> Objective:
    """Make the objective that trains the experiment at a point; RunError where training fails.

    No trial is evaluated on the test set or keeps a network. elsewhere: what trains a run, None
    while nothing happens there; this process if left out. Raises WeightsError where weights are
    missing: once, not in every trial.
    """
    settings = replace(settings, evaluate_test=False, keep_weights="none", figures=False)
    plan_run(study.experiment, TRIAL_SEED, study.faces, settings)
    run_plan = elsewhere or in_this_process(study.faces, settings)

    def objective(
        point: Mapping[str, Any], number: int, seed: int = TRIAL_SEED
    ) -> Generator[str | Score | None]:
        plan = plan_run(experiment_at(study.experiment, point), seed, study.faces, settings)
        if plan.record.state == "absent":
            about = {"schema": SCHEMA, "study": study.identity, "trial": number}
            write_json(plan.folder / TRIAL_FILE, about)
        yield plan.identity
        is_waiting = True
        while is_waiting:
            is_waiting = False
            for event in run_plan(plan, settings):
                if isinstance(event, Skipped) and event.why != "done":
                    is_waiting = True  # Another process trains this very recipe: wait for scores.
                    time.sleep(ASK_AGAIN_SECONDS)
                yield from _scores(event, plan)

    return objective


def _scores(event: Event | None, plan: Plan) -> Iterator[Score | None]:
    """Give the scores that an event tells; those of earlier epochs are in the run's history."""
    n_before = 0
    match event:
        case None:
            yield None
        case Advanced(step=EpochResult(epoch=epoch, val_combined=value)):
            yield epoch, value
        case Started(epochs_done=n_epochs):
            n_before = n_epochs
        case Finished() | Skipped(why="done"):
            # All are given again: of a run elsewhere, some may not have come.
            n_before = plan.experiment.recipe.max_epochs
    if n_before:
        yield from enumerate(plan.record.history()[OBJECTIVE].head(n_before).tolist())


def search(
    queue: TrialQueue, objective: Objective, n_trials: int, seconds: float | None = None,
    n_at_once: Callable[[], int] = lambda: 1,
) -> Generator[TrialEvent]:  # fmt: skip
    """Try point after point until there are enough trials; resumes whatever is in the queue.

    n_trials: complete and pruned ones, of all processes and sessions together.
    seconds: of this process; no trial begins after them.
    n_at_once: how many trials may be under way, where they are trained elsewhere.
    """
    began, n_failed, end = time.monotonic(), 0, ""

    def trials() -> Iterator[Generator[TrialEvent | None] | None]:
        nonlocal end
        while not end:
            is_one_good = n_failed > 0 and any(trial.counts for trial in queue.trials())
            if seconds is not None and time.monotonic() - began >= seconds:
                end = f"the time of {seconds:g} s is over: no trial begins"
            elif n_failed >= (max if is_one_good else min)(n_trials, FEWEST_FAILURES):
                good = "" if is_one_good else " and none was good"
                end = f"{n_failed} trials failed{good}: the search ends here"
            elif (taken := queue.take(n_trials)) == "enough":
                return
            else:
                yield None if taken == "wait" else _tried(queue, objective, taken)

    with contextlib.closing(interleaved(trials(), n_at_once)) as events:
        for event in events:
            n_failed += event.kind == "failed"
            yield event
    if end:
        yield TrialEvent("note", text=end)


def _tried(
    queue: TrialQueue, objective: Objective, handle: TrialHandle
) -> Generator[TrialEvent | None]:
    """Run one trial to its end, whatever that is: the last event; its value is its best score."""
    number, scores = handle.trial.number, dict[int, float]()
    last_epoch = queue.study.experiment.recipe.max_epochs - 1
    state: EndState = "complete"
    reason = ""
    try:
        yield TrialEvent("began", number)
        with contextlib.closing(objective(handle.trial.params, number)) as answers:
            for one in answers:
                if one is None:
                    yield None
                elif isinstance(one, str):
                    queue.note_run(handle, one)
                elif one[0] not in scores:
                    epoch, value = one
                    found = f"the score of epoch {epoch + 1} is {value}"
                    require(math.isfinite(value), found, allowed="a finite number")
                    scores[epoch] = value
                    # Pruning after the last epoch would save nothing.
                    if queue.report(handle, epoch, value) and epoch < last_epoch:
                        state = "pruned"
                        break
        require(bool(scores), "the trial ended without a score", allowed="one epoch or more")
    except (KeyboardInterrupt, GeneratorExit, ClusterLost, StorageLost):
        with contextlib.suppress(StorageLost):  # The next search finds it, and queues it again.
            queue.end(handle, "failed", reason="stopped from outside", again=True)
        raise
    except BenchmarkError as error:
        state, reason = "failed", str(error)
    best = max(scores.values()) if state == "complete" else None
    queue.end(handle, state, best, reason)
    yield TrialEvent(state, number)


def finalists(study: Study, trials: Sequence[TrialView]) -> tuple[TrialView, ...]:
    """Give the best trial and the runner-up, the best of those with another recipe, if any."""
    if (best := best_trial(trials)) is None:
        return ()
    start, own = study.experiment, experiment_at(study.experiment, best.point)
    second = best_trial(trial for trial in trials if experiment_at(start, trial.point) != own)
    return () if second is None else (best, second)


@dataclass(frozen=True)
class FreshScores:
    """What a trial's recipe scores with seeds that it was not chosen by; runs: their identities."""

    trial: TrialView
    by_seed: Mapping[int, float]
    runs: tuple[str, ...]

    @property
    def mean(self) -> float:
        return fmean(self.by_seed.values())

    def as_dict(self) -> dict[str, Any]:
        return {"trial": self.trial.number, "by_seed": dict(self.by_seed), "mean": self.mean}


def fresh_scores(
    study: Study, objective: Objective, trials: Sequence[TrialView], say: Callable[[str], None]
) -> tuple[FreshScores, ...]:
    """Train the recipes of the finalists with fresh seeds; give what each scores.

    The best of many trials is flattered by its choice, and the seed it was chosen by is part of
    that. One that cannot be trained again is left out, and said.
    """
    found = []
    for trial in finalists(study, trials):
        scores, runs = dict[int, float](), list[str]()
        try:
            for seed in FRESH_SEEDS:
                answers = list(objective(trial.point, trial.number, seed))
                runs += [one for one in answers if isinstance(one, str)]
                scores[seed] = max(one[1] for one in answers if isinstance(one, tuple))
                say(f"trial {trial.number}, fresh seed {seed}: {scores[seed]:.2%}")
        except BenchmarkError as error:
            say(f"trial {trial.number} cannot be trained anew: {error}")
        else:
            found.append(FreshScores(trial, scores, tuple(runs)))
    return tuple(found)


@dataclass
class Outcome:
    """A study as it stands.

    fresh: of the best trial and the runner-up, which decided between them. recipe: of the best
    trial; None of a grid, and where none is complete, or none beat the definition itself: then the
    remark says so.
    """

    trials: Sequence[TrialView]
    best: TrialView | None
    fresh: Sequence[FreshScores] = ()
    files: Sequence[Path] = ()
    recipe: dict[str, Any] | None = None
    remark: str = ""

    @property
    def ends(self) -> dict[str, int]:
        """How many trials are complete, pruned and failed."""
        states = [trial.state for trial in self.trials]
        return {state: states.count(state) for state in ("complete", "pruned", "failed")}

    @property
    def reasons(self) -> list[str]:
        """Why trials failed, the three most frequent reasons first."""
        counts = Counter(trial.reason for trial in self.trials if trial.state == "failed")
        return [f"{n} × {reason}" for reason, n in counts.most_common(3)]


def is_the_definition(study: Study, trial: TrialView) -> bool:
    """Tell whether a trial's recipe is the one that the search began with."""
    return experiment_at(study.experiment, trial.point) == experiment_at(study.experiment, {})


def write_outcome(study: Study, queue: TrialQueue, fresh: Sequence[FreshScores] = ()) -> Outcome:
    """Write all that a study shows.

    Between finalists their mean over the fresh seeds alone decides; the earlier on a tie.
    """
    trials = queue.trials()
    means = [replace(item.trial, value=item.mean) for item in fresh]
    chosen = best_trial(means) or best_trial(trials)
    best, files = chosen and trials[chosen.number], write_pages(study, queue.snapshot())
    outcome = Outcome(trials, best, fresh, files)
    if best is None or study.grid is not None:
        return outcome
    if is_the_definition(study, best):
        outcome.remark = "no trial beat the definition itself: its own recipe is the best tried"
        return outcome
    try:
        outcome.recipe = _recipe(study, queue, outcome, best)
    except BenchmarkError as error:
        outcome.remark = f"the best recipe cannot be registered: {error}"
    else:
        files.append(study.own_folder / "recipe.json")
        write_json(files[-1], outcome.recipe)
    return outcome


def _recipe(study: Study, queue: TrialQueue, outcome: Outcome, best: TrialView) -> dict[str, Any]:
    start = study.experiment
    base = registry.experiment(start.name) if start.ad_hoc else start
    settings = settings_at(start, best.point)
    return {
        "schema": registry.SCHEMA, "base": base.name,
        "tuned": registry.named(base, experiment_at(start, best.point), "tuned").as_dict(),
        "untuned": registry.named(base, start, "untuned").as_dict() if start.ad_hoc else None,
        "objective": OBJECTIVE, "value": best.value, "trial": best.number, "run": best.run,
        "point": dict(best.point), "fresh_seeds": [item.as_dict() for item in outcome.fresh],
        "settings": {path: vars(value) if is_dataclass(value) else value
                     for path, value in settings.items()},
        "study": {"identity": study.identity, "name": study.name, **study.about},
        "trials": outcome.ends, "sessions": queue.sessions,
    }  # fmt: skip


def write_pages(study: Study, searched: optuna.Study) -> list[Path]:
    """Write the table and, once a trial is complete, the page."""
    columns = ("number", "state", "value", "duration", "params", "user_attrs")
    table, files = searched.trials_dataframe(columns), [study.own_folder / "trials.csv"]
    table = table.rename(columns=lambda name: re.sub("^(params|user_attrs)_", "", name))
    table = table.drop(columns="host", errors="ignore")  # It tells no machine's name.
    write_text(files[0], table.to_csv(index=False))
    if not searched.get_trials(states=[TrialState.COMPLETE]):
        return files
    named: dict[str, Any] = {"target_name": "weighted validation accuracy"}
    plots = {
        "Best score by trial": visualization.plot_optimization_history(searched, **named),
        "Scores by epoch": visualization.plot_intermediate_values(searched),
        "Each parameter by itself": visualization.plot_slice(searched, **named),
    }
    # Too few trials, or all alike, have no importance.
    with contextlib.suppress(ValueError, RuntimeError):
        first = list(optuna.importance.get_param_importances(searched))[:4]
        importance = visualization.plot_param_importances(searched, **named)
        plots["Importance of the parameters"] = importance
        plots["Parameters together"] = visualization.plot_contour(searched, first, **named)
    name, faces = html.escape(study.experiment.name), study.faces
    question = f"Which recipe suits {name} best on {html.escape(faces.name)}?"
    page = HEAD.format(question=question) + SYNTHETIC * faces.drawn + ABOUT
    library: Literal["inline", False] = "inline"
    for title, plot in plots.items():
        figure = plot.update_layout(title=None, margin={"t": 30}, template="plotly_white")
        drawn = figure.to_html(full_html=False, include_plotlyjs=library)
        page, library = f"{page}<h2>{title}</h2><div class='wide'>{drawn}</div>", False
    files.append(study.own_folder / "study.html")
    write_text(files[-1], f"{page}</body></html>\n")
    return files


def grid_faces(faces: FaceSet) -> FaceSet:
    """Give as many faces as the study's grids had: a tenth trains, a twentieth validates.

    Of the training and validation faces of the split, those of lowest hash, the same everywhere;
    the rest have no place. The test part keeps its place: a run needs one, and an ad-hoc run is
    not evaluated on it.
    """
    part = faces.table["part"].to_numpy(dtype=object)
    keys = hash_keys(faces.table["file"], "grid-1")
    order, kept = np.argsort(np.array(keys), kind="stable"), part == "test"
    for name, fraction in GRID_FRACTIONS.items():
        kept[order[part[order] == name][: round(fraction * len(part))]] = True
    table = faces.table.assign(part=np.where(kept, part, ""))
    manifest = faces.manifest | {"split_digest": split_digest(table)}
    return replace(faces, manifest=manifest, table=table)


def grid_study(
    grid: GridSpace, changes: Mapping[str, Any], rows: Sequence[str], faces: FaceSet, folder: Path
) -> Study:
    """Make the search of all points of a grid, or of some rows; changes: of its experiment."""
    known = {str(row) for row in grid.rows.values}
    for row in rows:
        require(row in known, f"--row is {row!r}", allowed=", ".join(map(str, grid.rows.values)))
    paths = grid.space.paths
    points = [dict(zip(paths, point, strict=True)) for point in grid.printed
              if not rows or str(point[0]) in rows]  # fmt: skip
    experiment = replace(grid.experiment, name=grid.name, ad_hoc=True).adjusted(changes)
    return Study(
        experiment, grid.space, grid_faces(faces), folder, "random", pruner="none",
        points=tuple(points), grid=grid,
    )  # fmt: skip


def write_grid(study: Study, grid: GridSpace, trials: Sequence[TrialView]) -> pd.DataFrame:
    """Write and give a row per point: its values, our score if it is complete, the study's.

    Of two dimensions grid.html shows both as heat maps side by side.
    """
    paths = grid.space.paths
    ours = {tuple(trial.point[path] for path in paths): trial.value for trial in trials}
    rows = [(*point, ours.get(point), printed) for point, printed in grid.printed.items()]
    table = pd.DataFrame(rows, columns=[*paths, "ours", "study"]).astype({"ours": float})
    write_text(study.own_folder / "grid.csv", table.to_csv(index=False))
    shape = (2, len(grid.rows.values), len(grid.columns.values))
    if table["ours"].notna().any() and 1 not in shape:
        from plotly import express

        x, y = ([f"{value:g}" for value in of.values] for of in (grid.columns, grid.rows))
        names = {axis: path.rpartition(".")[2] for axis, path in zip("yx", paths, strict=True)}
        figure = express.imshow(
            100 * table[["ours", "study"]].to_numpy().T.reshape(shape), facet_col=0,
            text_auto=".1f", x=x, y=y, labels=names | {"color": "validation<br>accuracy, %"},
        )  # fmt: skip
        mine, theirs = (item.experiment.backbone.architecture for item in (study, grid))
        titles = (f"ours: {mine}, {study.faces.name}", f"the study: {theirs}")
        for annotation, title in zip(figure.layout.annotations, titles, strict=True):
            # Plotly draws some tags of a title, links among them: a name must not hold one.
            annotation.text = html.escape(title, quote=False)
        figure.update_xaxes(type="category").update_yaxes(type="category")
        page = HEAD.format(question=html.escape(grid.asks)) + SYNTHETIC * study.faces.drawn
        drawn = figure.to_html(full_html=False)
        write_text(study.own_folder / "grid.html", f"{page}{drawn}</body></html>\n")
    return table
