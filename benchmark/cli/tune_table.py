"""What a search found, as a table: the best recipe against the definition's, or a grid."""

from typing import Any

from rich.table import Table
from rich.text import Text

from benchmark.cli.output import out
from benchmark.experiment.definition import Experiment
from benchmark.experiment.grids import GridSpace
from benchmark.experiment.search_points import count_stages, depth_of
from benchmark.experiment.space import AUGMENTATION, DEPTH
from benchmark.tuning.outcome import Outcome
from benchmark.tuning.study import Study

NONE = "–"


def print_best(study: Study, outcome: Outcome) -> None:
    """Print the best recipe beside the one that the search began with."""
    counts = ", ".join(f"{n} {state}" for state, n in outcome.counts.items() if n)
    out.print(Text(f"\n{study.experiment.name} on {study.faces.name}", style="bold"))
    best = outcome.best
    if best is None:
        out.print(f"No trial is complete ({counts or 'none was begun'}).")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("searched")
    table.add_column("definition", justify="right")
    table.add_column(f"best, trial {best.number}", justify="right", style="bold")
    for path in study.space.paths:
        short = "depth" if path == DEPTH else path.removeprefix("recipe.").removeprefix("head.")
        table.add_row(short, _own(study.experiment, path), _shown(best.point[path], path, study))
    first = next((trial for trial in outcome.trials if trial.point and _is_own(study, trial)), None)
    own = f"{first.value:.2%}" if first is not None and first.value is not None else NONE
    table.add_row("validation", own, f"{best.value:.2%}")
    out.print(table)
    for item in outcome.fresh:
        scores = ", ".join(f"{score:.2%}" for score in item.by_seed.values())
        out.print(f"Fresh seeds: trial {item.trial.number} {item.mean:.2%} on average ({scores})")
    out.print(f"{counts}. Page and table: {study.own_folder}", soft_wrap=True)


def _is_own(study: Study, trial: Any) -> bool:
    from benchmark.tuning.recipes import is_its_own_best

    return trial.state == "complete" and is_its_own_best(study, trial)


def _own(experiment: Experiment, path: str) -> str:
    if path == DEPTH:
        return f"{depth_of(experiment)} of {count_stages(experiment)}"
    value: Any = experiment
    for name in path.split("."):
        value = getattr(value, name)
    if path == AUGMENTATION:
        used = [name for name, amount in vars(value).items() if amount]
        return "+".join(name.split("_")[0] for name in used) or "none"
    return "1" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _shown(value: Any, path: str, study: Study) -> str:
    if path == DEPTH:
        return f"{value} of {count_stages(study.experiment)}"
    if path == AUGMENTATION:
        return ("none", "flip", "mild", "strong")[int(value)]
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def print_grid(grid: GridSpace, study: Study, outcome: Outcome) -> None:
    """Print a grid: ours above, the study's beneath, each its best in bold."""
    from benchmark.tuning.outcome import grid_values

    backbone = study.experiment.backbone
    out.print(Text(f"\n{grid.asks}", style="bold"))
    ours = f"ours: {backbone.architecture}, {backbone.depth_name}, {study.faces.name}"
    theirs = f"the study printed: {grid.experiment.backbone.architecture} ({grid.source})"
    for title, values in (
        (ours, grid_values(grid, outcome.trials)),
        (theirs, dict(grid.printed())),
    ):
        out.print(_grid_table(grid, title, values))
    out.print(f"Validation accuracy, %. Page and table: {study.own_folder}", soft_wrap=True)


def _grid_table(grid: GridSpace, title: str, values: dict[tuple[Any, Any], float]) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column(grid.rows.path.rpartition(".")[2].replace("_", " "))
    for column in grid.columns.values:
        table.add_column(f"{column:g}", justify="right")
    best = max(values.values(), default=None)
    for row in grid.rows.values:
        cells = [values.get((row, column)) for column in grid.columns.values]
        table.add_row(
            f"{row:g}",
            *(
                NONE
                if cell is None
                else Text(f"{100 * cell:.1f}", style="bold" if cell == best else "")
                for cell in cells
            ),
        )
    return table
