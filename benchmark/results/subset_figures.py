"""The picture of the subset study: how much a specialist gains or loses, subset by subset.

The numbers come from benchmark.results.subset_study and are only drawn here.
"""

from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmark.results.figures import COLOURS, FAINT, INK
from benchmark.results.paired import Judged
from benchmark.results.subset_answer import people_text
from benchmark.results.subset_study import SubsetResult, SubsetStudy, SystemResult

OFFSET: Final = 0.17
"""Half the distance between the two marks of a subset, in rows."""
SERIES: Final = (
    ("against_everyone", "against one trained on everyone", COLOURS["age_group"], "o"),
    ("against_matched", "against one trained on as many of everyone", COLOURS["gender"], "s"),
)


def subset_figure(study: SubsetStudy) -> Figure:
    """Draw the specialist's difference to the two other arms, in points, with 95 % intervals.

    Filled marks are significant after the correction, hollow ones are not.
    """
    results = study.subsets
    heights = [len(results), *([len(study.systems)] if study.systems else [])]
    figure = Figure(figsize=(9.5, 2.6 + 0.5 * sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    _draw_subsets(panels[0], results)
    if study.systems:
        _draw_systems(panels[1], study.systems)
    panels[-1].set_xlabel(
        "age-group accuracy on the same test faces: difference in points, 95 % interval\n"
        "right of 0: the specialist (or the routed system) reads more\n"
        f"filled: significant, Holm's correction over {study.n_compared} comparisons",
        size=10,
    )
    panels[-1].xaxis.set_major_formatter(FuncFormatter(_points))
    panels[0].legend(frameon=False, fontsize=10, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    faces = " (drawn faces)" if study.drawn else ""
    title = f"Does a specialist read the age group of its people better?\n{study.dataset}{faces}"
    figure.suptitle(title, size=12, color=INK)
    return figure


def _points(value: float, _: int | None) -> str:
    points = round(100 * value)
    return f"{points:+d}" if points else "0"


def _draw_subsets(axes: Axes, results: tuple[SubsetResult, ...]) -> None:
    for place, (name, label, colour, marker) in enumerate(SERIES):
        offset = OFFSET * (2 * place - 1)
        for row, result in enumerate(results):
            compared: Judged | None = getattr(result, name)
            if compared is not None:
                _mark(axes, row + offset, compared, colour, marker)
        axes.plot([], [], marker, color=colour, label=label)
    labels = [f"{people_text(item)}  n {item.n_test:,}" for item in results]
    _finish(axes, labels)


def _draw_systems(axes: Axes, systems: tuple[SystemResult, ...]) -> None:
    for row, system in enumerate(systems):
        if system.against_single is not None:
            _mark(axes, row, system.against_single, COLOURS["race"], "D")
    _finish(axes, [f"routed by {item.router}  n {item.n_test:,}" for item in systems])
    axes.set_title("every face, routed by a classifier, against one network", loc="left", size=10)


def _mark(axes: Axes, y: float, compared: Judged, colour: str, marker: str) -> None:
    found = compared.difference
    axes.plot([found.low, found.high], [y, y], color=colour, linewidth=2, zorder=2)
    fill = colour if compared.significant else "white"
    axes.plot(found.accuracy, y, marker, color=colour, markerfacecolor=fill, ms=7, zorder=3)


def _finish(axes: Axes, labels: list[str]) -> None:
    axes.axvline(0, color=FAINT, linewidth=1.2, zorder=1)
    axes.set_yticks(range(len(labels)), labels, size=11)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", color="#EEEEEE", zorder=0)
    axes.tick_params(length=0, labelsize=11)
    axes.spines[:].set_visible(False)
