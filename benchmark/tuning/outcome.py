"""What a search leaves in its folder: a table, an interactive page, the best recipe; and grids.

The plots are Optuna's; plotly's library, 4.7 MB, stands once in the page, so that it opens without
a network.
"""

import contextlib
import hashlib
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
import pandas as pd
from optuna import visualization

from benchmark.data.dataset import FaceSet
from benchmark.data.splits import split_digest
from benchmark.errors import BenchmarkError, require
from benchmark.experiment.definition import Experiment
from benchmark.experiment.space import GridSpace, experiment_at, settings_at
from benchmark.files import write_json, write_text
from benchmark.identity import steering_content
from benchmark.registry import SCHEMA, named
from benchmark.tracking import TrialView, best_trial
from benchmark.tuning.search import FreshScores
from benchmark.tuning.study import OBJECTIVE, Study, TrialQueue

FEWEST_FOR_IMPORTANCE: Final = 4
STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1180px;margin:2rem auto;padding:0 1rem}
p{max-width:48rem} .wide{overflow-x:auto}
"""
ABOUT: Final = (
    "<p>Each trial was trained on the training faces and scored on validation faces; none was "
    "evaluated on the test set. The best of many trials is flattered by its choice: the runs of "
    "the refit say on test faces what it is worth.</p>"
)


@dataclass(frozen=True)
class Outcome:
    """A study as it stands.

    recipe: of the best trial; None where none is complete, or none beat the definition itself:
    then the remark says so. fresh: of the best trial and the runner-up, which decided between them;
    none of a grid.
    """

    trials: tuple[TrialView, ...]
    best: TrialView | None
    files: tuple[Path, ...]
    recipe: dict[str, Any] | None
    remark: str = ""
    fresh: tuple[FreshScores, ...] = ()


def count_ends(trials: Sequence[TrialView]) -> dict[str, int]:
    """Count complete, pruned and failed trials."""
    ends = ("complete", "pruned", "failed")
    return {state: sum(trial.state == state for trial in trials) for state in ends}


def reasons(trials: Sequence[TrialView]) -> list[str]:
    """Say why trials failed, the three most frequent reasons first."""
    counts = Counter(trial.reason for trial in trials if trial.state == "failed")
    return [f"{n} × {reason}" for reason, n in counts.most_common(3)]


def _recipe_at(study: Study, trial: TrialView) -> dict[str, Any]:
    return steering_content(experiment_at(study.experiment, trial.point).as_dict())


def finalists(study: Study, trials: Sequence[TrialView]) -> tuple[TrialView, ...]:
    """Give the best trial and the runner-up: the best of those with another recipe."""
    best = best_trial(trials)
    if best is None:
        return ()
    recipe, complete = _recipe_at(study, best), [item for item in trials if item.value is not None]
    second = best_trial([trial for trial in complete if _recipe_at(study, trial) != recipe])
    return (best,) if second is None else (best, second)


def decided(fresh: Sequence[FreshScores]) -> TrialView | None:
    """Choose between finalists by their mean over the fresh seeds alone; the earlier on a tie."""
    chosen = best_trial([replace(item.trial, value=item.mean) for item in fresh])
    trials = {item.trial.number: item.trial for item in fresh}
    return trials[chosen.number] if chosen else None


def is_the_definition(study: Study, trial: TrialView) -> bool:
    """Tell whether a trial's recipe is the one that the search began with."""
    return _recipe_at(study, trial) == steering_content(study.experiment.as_dict())


def write_outcome(
    study: Study, base: Experiment, queue: TrialQueue, fresh: Sequence[FreshScores] = ()
) -> Outcome:
    """Write all that a study shows.

    base: the registered experiment that the study's is, but for the changes of `--set`.
    """
    trials = tuple(queue.trials())
    best, recipe, remark = decided(fresh) or best_trial(trials), None, ""
    files = write_pages(study, queue.snapshot(), trials)
    if best is not None and is_the_definition(study, best):
        remark = "no trial beat the definition itself: its own recipe is the best tried"
    elif best is not None:
        try:
            recipe = _recipe_of(study, base, queue, best, fresh)
            files.append(study.own_folder / "recipe.json")
            write_json(files[-1], recipe)
        except BenchmarkError as error:
            remark = f"the best recipe cannot be registered: {error}"
    return Outcome(trials, best, tuple(files), recipe, remark, tuple(fresh))


def _recipe_of(
    study: Study, base: Experiment, queue: TrialQueue, best: TrialView, fresh: Sequence[FreshScores]
) -> dict[str, Any]:
    tuned = named(base, experiment_at(study.experiment, best.point), "tuned")
    untuned = named(base, study.experiment, "untuned") if study.experiment.ad_hoc else None
    settings = {
        path: vars(value) if hasattr(value, "__dataclass_fields__") else value
        for path, value in settings_at(study.experiment, best.point).items()
    }
    return {
        "schema": SCHEMA, "base": base.name, "tuned": tuned.as_dict(),
        "untuned": untuned.as_dict() if untuned else None, "objective": OBJECTIVE,
        "value": best.value, "trial": best.number, "run": best.run, "point": dict(best.point),
        "fresh_seeds": [item.as_dict() for item in fresh], "settings": settings,
        "study": {"identity": study.identity, "name": study.name, **study.about},
        "trials": count_ends(queue.trials()), "sessions": queue.sessions,
    }  # fmt: skip


def write_pages(study: Study, searched: optuna.Study, trials: Sequence[TrialView]) -> list[Path]:
    """Write the table and, once a trial is complete, the page."""
    rows = [
        {
            "trial": trial.number, "state": trial.state, "value": trial.value,
            "best_score": max(trial.scores.values(), default=None), "epochs": len(trial.scores),
            "seconds": trial.seconds,
            **{path: trial.point.get(path) for path in study.space.paths},
            "run": trial.run, "retry_of": trial.retry_of, "reason": trial.reason,
        }
        for trial in trials
    ]  # fmt: skip
    table, files = pd.DataFrame(rows), [study.own_folder / "trials.csv"]
    table = table.astype({"retry_of": "Int64"}) if rows else table
    write_text(files[0], table.to_csv(index=False))
    n_complete = sum(trial.state == "complete" for trial in trials)
    if not n_complete:
        return files
    named: dict[str, Any] = {"target_name": "weighted validation accuracy"}
    plots = {
        "Best score by trial": visualization.plot_optimization_history(searched, **named),
        "Scores by epoch": visualization.plot_intermediate_values(searched),
        "Each parameter by itself": visualization.plot_slice(searched, **named),
    }
    # Too few trials, or all alike, have no importance.
    with contextlib.suppress(ValueError, RuntimeError):
        if n_complete >= FEWEST_FOR_IMPORTANCE:
            first = list(optuna.importance.get_param_importances(searched))[:4]
            importance = visualization.plot_param_importances(searched, **named)
            plots["Importance of the parameters"] = importance
            plots["Parameters together"] = visualization.plot_contour(searched, first, **named)
    parts = [ABOUT]
    for title, plot in plots.items():
        figure = plot.update_layout(title=None, margin={"t": 30}, template="plotly_white")
        library = "inline" if len(parts) == 1 else False
        drawn = figure.to_html(full_html=False, include_plotlyjs=library)
        parts.append(f"<h2>{title}</h2><div class='wide'>{drawn}</div>")
    question = f"Which recipe suits {study.experiment.name} best on {study.faces.name}?"
    files.append(study.own_folder / "study.html")
    write_text(files[-1], _page(question, study, parts))
    return files


def _page(title: str, study: Study, parts: Sequence[str]) -> str:
    title = html.escape(title)
    synthetic = "<p><b>Synthetic faces</b>, not people.</p>" if study.faces.drawn else ""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        f"content='width=device-width'><title>{title}</title><style>{STYLE}</style></head><body>"
        f"<h1>{title}</h1>{synthetic}{''.join(parts)}</body></html>\n"
    )


def grid_faces(grid: GridSpace, faces: FaceSet) -> FaceSet:
    """Give as many faces as the study's grids had: a tenth trains, a twentieth validates.

    Of the training and validation faces of the split, those of lowest hash, the same everywhere;
    the rest have no place. The test part keeps its place: a run needs one, and an ad-hoc run is
    not evaluated on it.
    """
    part = faces.table["part"].to_numpy(dtype=object)
    files = [hashlib.sha256(f"grid-1\n{file}".encode()).hexdigest() for file in faces.table["file"]]
    order, kept = np.argsort(np.array(files), kind="stable"), part == "test"
    for name, fraction in (("train", grid.train_fraction), ("val", grid.val_fraction)):
        kept[order[part[order] == name][: round(fraction * len(part))]] = True
    table = faces.table.assign(part=np.where(kept, part, ""))
    manifest = faces.manifest | {"split_digest": split_digest(table)}
    return replace(faces, manifest=manifest, table=table)


def grid_study(
    grid: GridSpace, changes: Mapping[str, Any], rows: Sequence[str], faces: FaceSet, folder: Path
) -> Study:
    """Make the search of all points of a grid, or of some rows; changes: of its experiment."""
    by_text = {str(row): row for row in grid.rows.values}
    for text in rows:
        require(text in by_text, f"--row is {text!r}", allowed=", ".join(by_text))
    points = tuple(grid.points(tuple(by_text[text] for text in rows)))
    experiment = replace(grid.experiment, name=grid.name, ad_hoc=True).adjusted(changes)
    faces = grid_faces(grid, faces)
    return Study(experiment, grid.space, faces, folder, "random", 0, "none", points)


def write_grid(grid: GridSpace, study: Study, trials: Sequence[TrialView]) -> pd.DataFrame:
    """Write and give a row per point: its values, our score if it is complete, the study's.

    Of two dimensions grid.html shows both as heat maps side by side.
    """
    paths = [grid.rows.path, grid.columns.path]
    ours = {tuple(trial.point[path] for path in paths): trial.value for trial in trials}
    rows = [(*point, ours.get(point), printed) for point, printed in grid.printed().items()]
    table = pd.DataFrame(rows, columns=[*paths, "ours", "study"]).astype({"ours": float})
    write_text(study.own_folder / "grid.csv", table.to_csv(index=False))
    shape = (2, len(grid.rows.values), len(grid.columns.values))
    if table["ours"].notna().any() and 1 not in shape:
        from plotly import express

        figure = express.imshow(
            100 * table[["ours", "study"]].to_numpy().T.reshape(shape), facet_col=0,
            text_auto=".1f", x=[f"{value:g}" for value in grid.columns.values],
            y=[f"{value:g}" for value in grid.rows.values],
            labels={"x": grid.columns.path.rpartition(".")[2],
                    "y": grid.rows.path.rpartition(".")[2], "color": "validation<br>accuracy, %"},
        )  # fmt: skip
        mine, theirs = (item.experiment.backbone.architecture for item in (study, grid))
        titles = (f"ours: {mine}, {study.faces.name}", f"the study: {theirs}")
        for annotation, title in zip(figure.layout.annotations, titles, strict=True):
            # Plotly draws some tags of a title, links among them: a name must not hold one.
            annotation.text = html.escape(title, quote=False)
        figure.update_xaxes(type="category").update_yaxes(type="category")
        page = _page(grid.asks, study, [figure.to_html(full_html=False)])
        write_text(study.own_folder / "grid.html", page)
    return table
