"""Pictures of a study, as PNG: how it went, what mattered, and where the good recipes are."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.tri import Triangulation

from benchmark.experiment_ranges import Choices, Floats, Range
from benchmark.results.figures import FAINT, INK, percent_ticks, write_png
from benchmark.tuning.ledger import Ledger, Told
from benchmark.tuning.study import Study

BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
FEWEST_FOR_IMPORTANCE: Final = 4
FEWEST_FOR_CONTOUR: Final = 6


def write_figures(
    study: Study, ledger: Ledger, trials: Sequence[Told]
) -> tuple[list[Path], list[str]]:
    """Write history, importance, slice and contour; say what there are too few trials for."""
    done = [trial for trial in trials if trial.state == "complete"]
    if not done:
        return [], []
    found = importances(ledger, done)
    figures = {"history": history_figure(study, trials), "slice": slice_figure(study, done)}
    remarks = []
    if found:
        figures["importance"] = importance_figure(study, found)
    else:
        remarks.append("too few trials are complete, or all alike: no importance is shown")
    pair = _pair(study, found)
    if pair is not None and len(done) >= FEWEST_FOR_CONTOUR:
        figures["contour"] = contour_figure(study, done, pair)
    for name, figure in figures.items():
        write_png(study.own_folder / f"{name}.png", figure)
    return [study.own_folder / f"{name}.png" for name in figures], remarks


def importances(ledger: Ledger, done: Sequence[Told]) -> dict[str, float]:
    """Give the share of each parameter in what tells good trials from others; empty if unknown."""
    values = {trial.value for trial in done}
    if len(done) < FEWEST_FOR_IMPORTANCE or len(values) < 2:
        return {}
    try:
        found = optuna.importance.get_param_importances(ledger.optuna_study)
    except (ValueError, RuntimeError):
        return {}
    return {path: share for path, share in found.items() if math.isfinite(share)}


def title_of(study: Study, what: str) -> str:
    """Write what is shown, of which experiment, on which faces."""
    drawn = " (drawn faces)" if study.faces.drawn else ""
    return f"{what}\n{study.experiment.name}\n{study.faces.name}{drawn}"


def label_of(path: str) -> str:
    """Name a path on an axis."""
    return path.removeprefix("recipe.").removeprefix("backbone.").removeprefix("head.")


def history_figure(study: Study, trials: Sequence[Told]) -> Figure:
    """Draw every trial's score by its number, and the best so far."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    done = [trial for trial in trials if trial.state == "complete"]
    given_up = [trial for trial in trials if trial.state == "pruned" and trial.scores]
    axes.plot([t.number for t in done], [t.value or 0 for t in done], "o", color=BLUE,
              label=f"complete ({len(done)})")  # fmt: skip
    axes.plot([t.number for t in given_up], [max(t.scores.values()) for t in given_up], "x",
              color=FAINT, label=f"pruned ({len(given_up)}), best epoch until then")  # fmt: skip
    best = np.maximum.accumulate([trial.value or 0 for trial in done])
    axes.step([t.number for t in done], best, where="post", color=VERMILION, label="best so far")
    failed = [trial.number for trial in trials if trial.state == "failed"]
    if failed:
        low = axes.get_ylim()[0]
        axes.plot(failed, [low] * len(failed), "v", color=INK, label=f"failed ({len(failed)})")
    axes.set_xlabel("trial")
    _accuracy(axes)
    axes.grid(alpha=0.3)
    axes.set_title(title_of(study, "How the search went"), loc="left", size=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def importance_figure(study: Study, found: dict[str, float]) -> Figure:
    """Draw what decided between good and bad trials, the most important first."""
    figure = Figure(figsize=(7.2, 1.8 + 0.4 * len(found)), layout="constrained")
    axes = figure.add_subplot()
    names, shares = list(found)[::-1], list(found.values())[::-1]
    axes.barh([label_of(name) for name in names], shares, color=BLUE)
    for place, share in enumerate(shares):
        axes.text(share, place, f" {share:.2f}", va="center", color=INK)
    axes.set_xlim(0, max(shares) * 1.12 or 1)
    axes.set_xlabel("importance (PED-ANOVA, shares of 1)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title_of(study, "What mattered"), loc="left", size=11)
    return figure


def slice_figure(study: Study, done: Sequence[Told]) -> Figure:
    """Draw score against each parameter by itself, later trials darker in colour."""
    ranges = study.space.ranges
    n_columns = min(3, len(ranges))
    n_rows = math.ceil(len(ranges) / n_columns)
    figure = Figure(figsize=(3.2 * n_columns + 0.8, 2.9 * n_rows + 0.8), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    numbers = np.array([trial.number for trial in done])
    shown = None
    for place, axes in enumerate(grid.flat):
        if place >= len(ranges):
            axes.set_visible(False)
            continue
        item = ranges[place]
        shown = axes.scatter(
            _positions(item, done), [trial.value or 0 for trial in done],
            c=numbers, cmap="viridis_r", vmin=0, edgecolors=INK, linewidths=0.4,
        )  # fmt: skip
        _scale(axes, item)
        axes.set_xlabel(label_of(item.path))
        axes.grid(alpha=0.3)
        if place % n_columns == 0:
            _accuracy(axes)
    if shown is not None:
        figure.colorbar(shown, ax=grid, label="trial", shrink=0.8)
    figure.suptitle(title_of(study, "Each parameter by itself"), ha="left", x=0.02, size=11)
    return figure


def _pair(study: Study, found: dict[str, float]) -> tuple[Range, Range] | None:
    """Choose the two parameters to cross: the most important ones that are no mere choices."""
    ordered = sorted(
        (item for item in study.space.ranges if not isinstance(item, Choices)),
        key=lambda item: -found.get(item.path, 0.0),
    )
    return (ordered[0], ordered[1]) if len(ordered) > 1 else None


def contour_figure(study: Study, done: Sequence[Told], pair: tuple[Range, Range]) -> Figure:
    """Draw score over the two most important parameters; dots are trials."""
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    x, y = (np.array(_positions(item, done), dtype=float) for item in pair)
    values = np.array([trial.value or 0 for trial in done])
    try:
        triangles = Triangulation(
            *(_spread(item, along) for item, along in zip(pair, (x, y), strict=True))
        )
        mesh = Triangulation(x, y, triangles.triangles)
        image = axes.tricontourf(mesh, values, levels=12, cmap="viridis")
        figure.colorbar(image, ax=axes, label="validation accuracy", format=percent_ticks())
    except (ValueError, RuntimeError):
        pass  # All trials on one line: there is no surface, and the dots tell all.
    axes.scatter(x, y, color="white", edgecolors=INK, s=28)
    best = int(values.argmax())
    axes.scatter(x[best], y[best], color=VERMILION, edgecolors=INK, s=90, marker="*", zorder=3)
    for item, is_x in ((pair[0], True), (pair[1], False)):
        _scale(axes, item, is_x=is_x)
    axes.set_xlabel(label_of(pair[0].path))
    axes.set_ylabel(label_of(pair[1].path))
    what = f"Two parameters together; the star is the best, {values.max():.1%}"
    axes.set_title(title_of(study, what), loc="left", size=11)
    return figure


def _spread(item: Range, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Put values where the axis shows them, as a fraction of its length: what is near is near."""
    shown = np.log10(values) if _is_log(item) else values
    along: npt.NDArray[np.float64] = (shown - shown.min()) / (np.ptp(shown) or 1.0)
    return along


def _is_log(item: Range) -> bool:
    return isinstance(item, Floats) and item.log


def _positions(item: Range, done: Sequence[Told]) -> list[float]:
    if isinstance(item, Choices):
        return [item.values.index(trial.point[item.path]) for trial in done]
    return [trial.point[item.path] for trial in done]


def _scale(axes: Axes, item: Range, *, is_x: bool = True) -> None:
    set_scale: Callable[..., Any] = axes.set_xscale if is_x else axes.set_yscale
    set_ticks: Callable[..., Any] = axes.set_xticks if is_x else axes.set_yticks
    if _is_log(item):
        set_scale("log")
        axis = axes.xaxis if is_x else axes.yaxis
        # Each step is about half a decade; by themselves all of a short axis's numbers get a label.
        axis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    elif isinstance(item, Choices):
        set_ticks(range(len(item.values)), [f"{value}" for value in item.values])
    elif not isinstance(item, Floats):
        set_ticks(range(item.low, item.high + 1))


def _accuracy(axes: Axes) -> None:
    axes.set_ylabel("combined validation accuracy")
    axes.yaxis.set_major_formatter(percent_ticks())
