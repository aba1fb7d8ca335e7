"""What a search leaves in its folder: a table, an interactive page, the best recipe; and grids.

The plots are Optuna's; plotly's library, 4.7 MB, stands once in the page, so that it opens without
a network.
"""

import contextlib
import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import optuna
import pandas as pd
from optuna import visualization
from optuna.trial import TrialState

from benchmark import registry
from benchmark.data.dataset import FaceSet
from benchmark.data.splits import hash_keys, split_digest
from benchmark.errors import BenchmarkError, require
from benchmark.experiment.space import GridSpace, experiment_at, settings_at
from benchmark.files import write_json, write_text
from benchmark.tracking.searches import TrialView, best_trial
from benchmark.tuning.search import FreshScores
from benchmark.tuning.study import OBJECTIVE, Study, TrialQueue

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


def finalists(study: Study, trials: Sequence[TrialView]) -> tuple[TrialView, ...]:
    """Give the best trial and the runner-up, the best of those with another recipe, if any."""
    if (best := best_trial(trials)) is None:
        return ()
    start, own = study.experiment, experiment_at(study.experiment, best.point)
    second = best_trial(trial for trial in trials if experiment_at(start, trial.point) != own)
    return () if second is None else (best, second)


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
        outcome.recipe = _recipe_of(study, queue, outcome, best)
    except BenchmarkError as error:
        outcome.remark = f"the best recipe cannot be registered: {error}"
    else:
        files.append(study.own_folder / "recipe.json")
        write_json(files[-1], outcome.recipe)
    return outcome


def _recipe_of(
    study: Study, queue: TrialQueue, outcome: Outcome, best: TrialView
) -> dict[str, Any]:
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
    """Write and give a row per point: its values, our score if it is complete, the study's."""
    paths = grid.space.paths
    ours = {tuple(trial.point[path] for path in paths): trial.value for trial in trials}
    rows = [(*point, ours.get(point), printed) for point, printed in grid.printed.items()]
    table = pd.DataFrame(rows, columns=[*paths, "ours", "study"]).astype({"ours": float})
    write_text(study.own_folder / "grid.csv", table.to_csv(index=False))
    return table
