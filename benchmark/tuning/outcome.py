"""What a search leaves: tables, pages, grids, and its trials in MLflow.

MLflow is told of every trial; trouble with it is said once and stops nothing.

What a killed process could not tell, the next one tells when it begins.

What a study shows: its trials as a CSV file, and one interactive page drawn by Optuna.

The page needs nothing else: plotly's library, 4.7 MB, stands in it once, so that it opens from a
disk, from MLflow's artifacts, or from a mail, without a network.

What a study leaves in its folder: table, an interactive page, the best recipe.

A grid of the study: its faces, and what it shows, the study's numbers beside ours.
"""

import hashlib
import html
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import optuna
import pandas as pd
from optuna import visualization
from plotly import graph_objects
from plotly.subplots import make_subplots

from benchmark.data.dataset import FaceSet
from benchmark.data.splits import split_digest
from benchmark.errors import BenchmarkError, DataError, TrackingError
from benchmark.experiment.definition import Experiment
from benchmark.experiment.grids import GridSpace
from benchmark.files import write_json, write_text
from benchmark.record import RunRecord, work_folder
from benchmark.tracking import MlflowMirror, StudyMirror, Trial
from benchmark.tracking import Study as ShownStudy
from benchmark.tuning.recipes import (
    RECIPE_FILE,
    FreshScores,
    best_of,
    decided,
    is_its_own_best,
    recipe_of,
)
from benchmark.tuning.study import Study
from benchmark.tuning.trials import Ledger, Told

PAGE_FILE: Final = "study.html"
TRIALS_FILE: Final = "trials.csv"
FEWEST_FOR_IMPORTANCE: Final = 4
FEWEST_FOR_CONTOUR: Final = 6
MOST_IN_CONTOUR: Final = 4
SCORE: Final = "combined validation accuracy"
STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1180px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.35rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin:2rem 0 .3rem}
p{max-width:48rem} .wide{overflow-x:auto} table{border-collapse:collapse;font-size:.85rem}
td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th{position:sticky;top:0;background:#f5f5f5} tr.best td{background:#fff2cc}
tr.failed td,tr.pruned td{color:#767676} .drawn{background:#fff2cc;padding:.4rem .6rem}
"""


def trials_table(trials: Sequence[Told], paths: Sequence[str]) -> pd.DataFrame:
    """Give trial, state, value, epochs, seconds, each searched path, run, retry_of and reason."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "value": trial.value,
            "best_score": max(trial.scores.values(), default=None),
            "epochs": len(trial.scores),
            "seconds": trial.seconds,
            **{path: trial.point.get(path) for path in paths},
            "run": trial.run,
            "retry_of": trial.retry_of,
            "reason": trial.reason,
        }
        for trial in trials
    ]
    table = pd.DataFrame(rows)
    return table.astype({"retry_of": "Int64"}) if len(table) else table


def write_pages(
    study: Study, ledger: Ledger, trials: Sequence[Told]
) -> tuple[list[Path], list[str]]:
    """Write the table and, once a trial is complete, the page; say what cannot be drawn yet."""
    folder = study.own_folder
    files, remarks = [folder / TRIALS_FILE], list[str]()
    write_text(files[0], trials_table(trials, study.space.paths).to_csv(index=False))
    done = [trial for trial in trials if trial.state == "complete"]
    if done:
        important = _importances(ledger.optuna_study, done)
        if not important:
            remarks.append("too few trials are complete, or all alike: no importance is shown")
        sections = _sections(ledger.optuna_study, len(done), important)
        write_text(folder / PAGE_FILE, _page(study, trials, sections))
        files.append(folder / PAGE_FILE)
    return files, remarks


def _importances(study: optuna.Study, done: Sequence[Told]) -> list[str]:
    """Name the parameters, the most important first; none where that cannot be told."""
    if len(done) < FEWEST_FOR_IMPORTANCE or len({trial.value for trial in done}) < 2:
        return []
    try:
        return list(optuna.importance.get_param_importances(study))
    except (ValueError, RuntimeError):
        return []


def _sections(study: optuna.Study, n_done: int, important: list[str]) -> list[tuple[str, Any]]:
    """Draw each kind of plot that the trials allow, under its title."""
    drawings: dict[str, Callable[[], Any]] = {
        "How the search went": lambda: visualization.plot_optimization_history(
            study, target_name=SCORE
        ),
        "Epoch by epoch": lambda: visualization.plot_intermediate_values(study),
    }
    if important:
        drawings["What mattered"] = lambda: visualization.plot_param_importances(
            study, target_name=SCORE
        )
    drawings["Each parameter by itself"] = lambda: visualization.plot_slice(
        study, target_name=SCORE
    )
    if n_done >= FEWEST_FOR_CONTOUR and len(important) > 1:
        drawings["Parameters together"] = lambda: visualization.plot_contour(
            study, params=important[:MOST_IN_CONTOUR], target_name=SCORE
        )
    return [(title, draw()) for title, draw in drawings.items()]


def label_of(path: str) -> str:
    """Name a path on an axis."""
    return path.removeprefix("recipe.").removeprefix("backbone.").removeprefix("head.")


def _page(study: Study, trials: Sequence[Told], sections: list[tuple[str, Any]]) -> str:
    asks = f"Which recipe suits {study.experiment.name} best on {study.faces.name}?"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{html.escape(asks)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(asks)}</h1>",
    ]
    if study.faces.drawn:
        parts.append("<p class='drawn'><b>Drawn faces</b>, which say nothing of people.</p>")
    parts.append(
        "<p>Each trial trained on the training faces and was scored on validation faces; no trial "
        "read a test face. The best of many trials is flattered by its choice: what it is worth "
        "is said by the runs of the refit, on test faces.</p>"
    )
    for place, (title, figure) in enumerate(sections):
        figure.update_layout(title=None, margin={"t": 30}, template="plotly_white")
        drawn = figure.to_html(
            full_html=False,
            include_plotlyjs="inline" if place == 0 else False,
            config={"displaylogo": False},
        )
        parts.append(f"<h2>{title}</h2><div class='wide'>{drawn}</div>")
    parts.append(f"<h2>Trials</h2><div class='wide'>{_table(study, trials)}</div></body></html>")
    return "\n".join(parts)


def _table(study: Study, trials: Sequence[Told]) -> str:
    table = trials_table(trials, study.space.paths).drop(columns=["run", "retry_of"])
    best = table["value"].idxmax() if table["value"].notna().any() else None
    head = "".join(f"<th>{html.escape(label_of(name))}</th>" for name in table.columns)
    rows = []
    for place, row in table.iterrows():
        kind = "best" if place == best else row["state"]
        cells = "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row)
        rows.append(f"<tr class='{kind}'>{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


MOST_REASONS: Final = 3


@dataclass(frozen=True)
class Outcome:
    """A study as it stands."""

    trials: tuple[Told, ...]
    best: Told | None
    files: tuple[Path, ...]
    recipe: dict[str, Any] | None
    """Of the best trial; None where none is complete, or none beat the definition itself."""
    remarks: tuple[str, ...]
    fresh: tuple[FreshScores, ...] = ()
    """Of the best trial and the runner-up, which decided between them; none of a grid."""

    @property
    def counts(self) -> dict[str, int]:
        """How many trials ended how."""
        states = ("complete", "pruned", "failed")
        return {state: sum(trial.state == state for trial in self.trials) for state in states}


def write_outcome(
    study: Study, base: Experiment, ledger: Ledger, fresh: Sequence[FreshScores] = ()
) -> Outcome:
    """Write all that a study shows; what cannot be drawn of it yet is remarked."""

    trials, folder = tuple(ledger.trials()), study.own_folder
    best = decided(fresh) or best_of(trials)
    files, remarks = write_pages(study, ledger, trials)
    recipe = None
    if best is not None and is_its_own_best(study, best):
        remarks.append("no trial beat the definition itself: its own recipe is the best tried")
    elif best is not None:
        try:
            recipe = recipe_of(study, base, ledger, best, fresh)
            write_json(folder / RECIPE_FILE, recipe)
            files.append(folder / RECIPE_FILE)
        except BenchmarkError as error:
            remarks.append(f"the best recipe cannot be registered: {error}")
    return Outcome(trials, best, tuple(files), recipe, tuple(dict.fromkeys(remarks)), tuple(fresh))


def reasons(trials: Sequence[Told]) -> list[str]:
    """Say why trials failed, the most frequent reasons first."""
    counts = Counter(trial.reason for trial in trials if trial.state == "failed")
    return [f"{n} × {reason}" for reason, n in counts.most_common(MOST_REASONS)]


GRID_FILE: Final = "grid.csv"
GRID_PAGE: Final = "grid.html"
NOT_USED: Final = ""
FEWEST: Final = 10


def grid_faces(grid: GridSpace, faces: FaceSet) -> FaceSet:
    """Give as many faces as the study's grids had: a tenth trains, a twentieth validates.

    Of the training and validation faces of the split, those of lowest hash; the rest, and all test
    faces, have no place. Every machine takes the same. Raises DataError where there are too few.
    """
    table = faces.table.copy()
    keys = [hashlib.sha256(f"grid-1\n{file}".encode()).hexdigest() for file in table["file"]]
    order = np.argsort(np.array(keys), kind="stable")
    part = table["part"].to_numpy(dtype=object).copy()
    kept = np.zeros(len(table), dtype=bool)
    for name, fraction in (("train", grid.train_fraction), ("val", grid.val_fraction)):
        n_wanted = round(fraction * len(table))
        rows = order[part[order] == name][:n_wanted]
        if len(rows) < FEWEST:
            raise DataError(
                f"{fraction:.0%} of {faces.name} are {len(rows)} faces", allowed=f"{FEWEST} or more"
            )
        kept[rows] = True
    # The test part keeps its place: a run wants one, and an ad-hoc run does not read it.
    part[~kept & (part != "test")] = NOT_USED
    table["part"] = part
    manifest = faces.manifest | {"name": f"{faces.name}", "split_digest": split_digest(table)}
    return replace(faces, manifest=manifest, table=table)


def grid_values(grid: GridSpace, trials: Sequence[Told]) -> dict[tuple[Any, Any], float]:
    """Give our score at each point that is complete, by row and column value."""
    return {
        (trial.point[grid.rows.path], trial.point[grid.columns.path]): trial.value
        for trial in trials
        if trial.state == "complete" and trial.value is not None
    }


def write_grid(grid: GridSpace, study: Study, trials: Sequence[Told]) -> list[Path]:
    """Write a grid's table and, of two dimensions, its page; nothing of points not tried."""
    ours, printed = grid_values(grid, trials), grid.printed()
    rows = [
        {grid.rows.path: row, grid.columns.path: column, "ours": ours.get((row, column)),
         "study": value}
        for (row, column), value in printed.items()
    ]  # fmt: skip
    files = [study.own_folder / GRID_FILE]
    write_text(files[0], pd.DataFrame(rows).to_csv(index=False))
    if ours and len(grid.rows.values) > 1 and len(grid.columns.values) > 1:
        files.append(study.own_folder / GRID_PAGE)
        page = _figure(grid, study, ours).to_html(
            include_plotlyjs="inline", config={"displaylogo": False}
        )
        write_text(files[1], page)
    return files


def _figure(grid: GridSpace, study: Study, ours: Mapping[tuple[Any, Any], float]) -> Any:
    """Draw ours and the study's side by side: as numbers on colours, and as the study's surface."""
    both = {
        f"ours: {study.experiment.backbone.architecture}, {study.faces.name}": ours,
        f"the study: {grid.experiment.backbone.architecture}": grid.printed(),
    }
    # Plotly draws some tags of a title, links among them: a name must not hold one.
    titles = [html.escape(title, quote=False) for title in both]
    drawn = " (drawn faces)" if study.faces.drawn else ""
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=titles,
        specs=[[{"type": "heatmap"}] * 2, [{"type": "surface"}] * 2],
    )  # fmt: skip
    rows, columns = grid.rows.values, grid.columns.values
    for place, values in enumerate(both.values(), start=1):
        matrix = np.array(
            [[values.get((row, column), np.nan) for column in columns] for row in rows]
        )
        best = np.unravel_index(np.nanargmax(matrix), matrix.shape)
        row, column, highest = rows[best[0]], columns[best[1]], matrix[best]
        heat_map = graph_objects.Heatmap(
            x=[f"{value:g}" for value in columns], y=[f"{value:g}" for value in rows],
            z=100 * matrix, texttemplate="%{z:.1f}", colorscale="Viridis", showscale=False,
            zmin=100 * min([*ours.values(), *grid.printed().values()]),
            zmax=100 * max([*ours.values(), *grid.printed().values()]),
        )  # fmt: skip
        surface = graph_objects.Surface(
            x=list(rows), y=list(columns), z=matrix.T, colorscale="Viridis", showscale=False
        )
        marker = graph_objects.Scatter3d(
            x=[row], y=[column], z=[highest], mode="markers+text", showlegend=False,
            marker={"color": "red", "size": 6},
            text=[f"Max: {highest:.4f}, lr: {column:g}, batch_size={row:g}"],
        )  # fmt: skip
        figure.add_trace(heat_map, row=1, col=place)
        figure.add_traces([surface, marker], rows=2, cols=place)
    scene = {
        "xaxis": {"title": label_of(grid.rows.path)},
        "yaxis": {"title": label_of(grid.columns.path), "type": "log"},
        "zaxis": {"title": "validation accuracy"},
    }
    title = html.escape(f"{grid.asks}{drawn}", quote=False)
    figure.update_layout(
        title=f"{title}<br><sup>validation accuracy, % above</sup>",
        scene=scene, scene2=scene, width=1300, height=1200,
    )  # fmt: skip
    figure.update_xaxes(title=label_of(grid.columns.path), type="category")
    figure.update_yaxes(title=label_of(grid.rows.path), type="category")
    return figure


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
