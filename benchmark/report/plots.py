"""The pictures of the page: differences, rates, slopes, depths, costs. Numbers come ready.

A picture is panels, mostly one per task, each as wide as a phone. Whatever is drawn stands in a
table beside it too; a screen reader is told what the panel says, not how it looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from benchmark.report import svg
from benchmark.report.svg import SHAPES, WIDTH, Scale, scale_over
from benchmark.results.cells import percent
from benchmark.results.paired import Verdict
from benchmark.results.verdicts import points, points_span
from benchmark.tasks import TASK_TITLES, TaskName

MARKERS: Final[dict[str, str]] = {"age_group": "circle", "gender": "square", "race": "triangle"}
ROW: Final = 36.0
"""Height of a row with its label above its mark."""
LABEL: Final = 13.0
"""Height of a line of words."""
N_STYLES: Final = 8
NEAR: Final = 9.0
"""Marks nearer than this share one label."""


@dataclass(frozen=True)
class Picture:
    """Panels under one heading."""

    title: str
    caption: str
    panels: tuple[Markup, ...]
    legend: tuple[tuple[Markup, str], ...] = ()
    """Swatches and what they stand for."""
    leaky: bool = False


@dataclass(frozen=True)
class Span:
    """A labelled value with its interval; `filled` where it is significant."""

    label: str
    value: float
    low: float
    high: float
    filled: bool = True
    css: str = ""
    shape: str = ""


def swatch(css: str, shape: str = "circle", *, filled: bool = True) -> Markup:
    """Draw the sign of a legend's entry."""
    style = f"mark {css} {'' if filled else 'hollow'}".strip()
    drawn = (
        svg.line(1, 8, 27, 8, f"stroke {css}"),
        svg.mark(14, 8, shape, style),
    )
    return svg.element("svg", *drawn, viewBox="0 0 28 16", class_="swatch plot", aria_hidden="true")


def differences_panel(
    task: TaskName, spans: Sequence[Span], *, title: str = "", leaky: bool = False
) -> Markup:
    """Draw differences in points with 95 % intervals, about a line at 0."""
    heading = title or TASK_TITLES[task].capitalize()
    ends = [0.0, *(end for span in spans for end in (span.low, span.high))]
    scale = scale_over(ends, 10, WIDTH - 52)
    top = 26.0
    height = top + ROW * len(spans) + 34
    floor = top + ROW * len(spans)
    parts = [svg.text(0, 14, heading, css="head"), *_points_axis(scale, top, floor)]
    for row, span in enumerate(spans):
        words = points(span.value)
        parts += _span(span, scale, top + ROW * row, task, words)
    told = "; ".join(
        f"{span.label}: {points(span.value)} points, {points_span(span.low, span.high)}"
        for span in spans
    )
    says = f"{heading}, differences in points with 95 % intervals. {told}."
    return svg.panel(parts, height=height, says=says, css=task, leaky=leaky)


def _points_axis(scale: Scale, top: float, floor: float) -> list[Markup]:
    parts = []
    for tick in scale.ticks(4):
        at = scale(tick)
        css = "zero" if abs(tick) < 1e-12 else "grid"
        words = svg.points_axis_text(tick)
        parts += [
            svg.line(at, top, at, floor, css),
            svg.text(at, floor + 15, words, anchor="middle", css="tick"),
        ]
    middle = (scale.start + scale.end) / 2
    parts.append(svg.text(middle, floor + 30, "points", anchor="middle", css="tick"))
    return parts


def _span(span: Span, scale: Scale, top: float, task: str, words: str) -> list[Markup]:
    """Draw one row: its label above, interval and mark beneath, the value at the right."""
    y = top + LABEL + 11
    style = f"mark {'' if span.filled else 'hollow'} {span.css}".strip()
    return [
        svg.text(2, top + LABEL, span.label, css="label"),
        svg.line(scale(span.low), y, scale(span.high), y, f"stroke {span.css}".strip()),
        svg.mark(scale(span.value), y, span.shape or MARKERS.get(task, "circle"), style),
        svg.text(WIDTH - 2, y + 4, words, anchor="end", css="value"),
    ]


@dataclass(frozen=True)
class Slope:
    """One network's accuracy alone and together, and what may be said of the difference."""

    label: str
    alone: float
    together: float
    verdict: Verdict


def slopes_panel(task: TaskName, slopes: Sequence[Slope]) -> Markup:
    """Draw a line per network from its single-task twin to the network of all tasks."""
    heading = TASK_TITLES[task].capitalize()
    height = max(190.0, 60 + 17.0 * len(slopes))
    left, right, top, floor = 62.0, WIDTH - 150, 40.0, height - 14
    values = [value for slope in slopes for value in (slope.alone, slope.together)]
    scale = scale_over(values, floor, top)
    parts = [
        svg.text(0, 14, heading, css="head"),
        svg.text(left, 32, "alone (STL)", anchor="middle", css="tick"),
        svg.text(right, 32, "together (MTL)", anchor="middle", css="tick"),
        svg.line(left, top, left, floor, "grid"),
        svg.line(right, top, right, floor, "grid"),
    ]
    ends = svg.spread([scale(slope.together) for slope in slopes], 14)
    starts = svg.spread([scale(slope.alone) for slope in slopes], 14)
    for slope, start, end in zip(slopes, starts, ends, strict=True):
        css = {"better": "better", "worse": "worse"}.get(slope.verdict, "undecided")
        a, b = scale(slope.alone), scale(slope.together)
        hollow = " hollow" if css == "undecided" else ""
        shape = {"better": "triangle", "worse": "square"}.get(css, "circle")
        parts += [
            svg.line(left, a, right, b, f"stroke {css}"),
            svg.mark(left, a, "circle", f"mark hollow {css}", size=3.5),
            svg.mark(right, b, shape, f"mark {css}{hollow}"),
            svg.text(left - 8, start + 4, f"{100 * slope.alone:.1f}", anchor="end", css="value"),
            svg.text(right + 8, end + 4, f"{100 * slope.together:.1f} {slope.label}", css="label"),
        ]
    told = "; ".join(
        f"{slope.label}: {100 * slope.alone:.1f} alone, {100 * slope.together:.1f} together, "
        f"{slope.verdict}"
        for slope in slopes
    )
    says = f"{heading} accuracy in percent, alone and together. {told}."
    return svg.panel(parts, height=height, says=says, css=task)


@dataclass(frozen=True)
class Series:
    """A line through labelled or numbered places, with intervals where there are any."""

    label: str
    places: tuple[float, ...]
    values: tuple[float, ...]
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    style: int = 0
    """Colour, dash and marker: of the eight that the style sheet has."""
    css: str = ""

    @property
    def shape(self) -> str:
        """The marker that goes with the style."""
        return shape_of(self.style)


def shape_of(index: int) -> str:
    """Give the marker of a series; with eight colours, no two of eight are alike in both."""
    return SHAPES[(index + index // len(SHAPES)) % len(SHAPES)]


def style_of(index: int) -> str:
    """Name the style sheet's colour and dash of a series."""
    return f"s{index % N_STYLES}"


def series_panel(
    heading: str,
    series: Sequence[Series],
    x_ticks: Mapping[float, str],
    *,
    x_title: str,
    in_percent: bool = True,
    css: str = "",
    height: float = 230.0,
    upright: float | None = None,
) -> Markup:
    """Draw lines over places of an axis; `upright` marks one place, such as the chosen epoch."""
    left, right, top, floor = 46.0, WIDTH - 14, 28.0, height - 42
    ends = [end for item in series for end in (*item.values, *item.lows, *item.highs)]
    scale = scale_over(ends, floor, top)
    across = scale_over(sorted(x_ticks), left, right, margin=0.05)
    parts = [svg.text(0, 14, heading, css="head")]
    for tick in scale.ticks(5):
        words = svg.percent_text(tick) if in_percent else f"{tick:.3g}"
        parts += [
            svg.line(left, scale(tick), right, scale(tick), "grid"),
            svg.text(left - 6, scale(tick) + 4, words, anchor="end", css="tick"),
        ]
    for at, words in x_ticks.items():
        parts.append(svg.text(across(at), floor + 16, words, anchor="middle", css="tick"))
    parts.append(svg.text((left + right) / 2, height - 6, x_title, anchor="middle", css="tick"))
    if upright is not None:
        parts.append(svg.line(across(upright), top, across(upright), floor, "upright"))
    shift = min(5.0, 16.0 / max(len(series), 1))
    for index, item in enumerate(series):
        offset = shift * (index - (len(series) - 1) / 2) if item.lows else 0.0
        parts += _series(item, across, scale, offset)
    told = "; ".join(
        f"{item.label}: "
        + ", ".join(f"{100 * v:.1f}" if in_percent else f"{v:.3g}" for v in item.values)
        for item in series
    )
    says = f"{heading}{', percent' if in_percent else ''}, by {x_title}. {told}."
    return svg.panel(parts, height=height, says=says, css=css)


def _series(item: Series, across: Scale, scale: Scale, offset: float) -> list[Markup]:
    css = item.css or style_of(item.style)
    xs = [across(place) + offset for place in item.places]
    ys = [scale(value) for value in item.values]
    parts = [svg.polyline(zip(xs, ys, strict=True), f"path {css}")]
    for x, low, high in zip(xs, item.lows, item.highs, strict=False):
        parts.append(svg.line(x, scale(low), x, scale(high), f"whisker {css}"))
    if len(xs) <= 12:
        parts += [
            svg.mark(x, y, item.shape, f"mark {css}", size=3.8, words=f"{item.label}: {value:.3f}")
            for x, y, value in zip(xs, ys, item.values, strict=True)
        ]
    return parts


@dataclass(frozen=True)
class Point:
    """A network by its cost and its score; `number` names it in the table beside."""

    number: int
    label: str
    cost: float
    score: float
    on_front: bool


def cost_panel(heading: str, networks: Sequence[Point], x_title: str) -> Markup:
    """Draw scores against a cost on a logarithmic axis, and the front that nothing beats."""
    height = 260.0
    left, right, top, floor = 46.0, WIDTH - 22, 28.0, height - 42
    across = scale_over([point.cost for point in networks], left, right, log=True)
    scale = scale_over([point.score for point in networks], floor, top, margin=0.1)
    parts = [svg.text(0, 14, heading, css="head")]
    for tick in scale.ticks(5):
        parts += [
            svg.line(left, scale(tick), right, scale(tick), "grid"),
            svg.text(left - 6, scale(tick) + 4, svg.percent_text(tick), anchor="end", css="tick"),
        ]
    for tick in across.ticks():
        parts += [
            svg.text(across(tick), floor + 16, f"{tick:g}", anchor="middle", css="tick"),
            svg.line(across(tick), floor, across(tick), floor + 4, "grid"),
        ]
    parts.append(svg.text((left + right) / 2, height - 6, x_title, anchor="middle", css="tick"))
    front = sorted((p for p in networks if p.on_front), key=lambda p: p.cost)
    parts.append(svg.polyline(_stairs(front, across, scale, right), "path front"))
    for point in networks:
        css = "mark front" if point.on_front else "mark behind hollow"
        x, y = across(point.cost), scale(point.score)
        shape = "diamond" if point.on_front else "circle"
        parts.append(svg.mark(x, y, shape, css, words=f"{point.number}: {point.label}"))
    for (x, y), numbers in _places(networks, across, scale).items():
        parts.append(svg.text(x + 8, y - 5, ", ".join(map(str, numbers)), css="label"))
    told = ", ".join(f"{p.label} ({100 * p.score:.1f} %)" for p in front)
    says = f"{heading}: {len(networks)} networks, score against {x_title}. On the front: {told}."
    return svg.panel(parts, height=height, says=says)


def _places(
    networks: Sequence[Point], across: Scale, scale: Scale
) -> dict[tuple[float, float], list[int]]:
    """Gather the numbers of networks whose marks lie on each other, so that all can be read."""
    found: dict[tuple[float, float], list[int]] = {}
    for point in networks:
        x, y = across(point.cost), scale(point.score)
        near = ((a, b) for a, b in found if abs(a - x) < NEAR and abs(b - y) < NEAR)
        found.setdefault(next(near, (x, y)), []).append(point.number)
    return found


def _stairs(
    front: Sequence[Point], across: Scale, scale: Scale, right: float
) -> list[tuple[float, float]]:
    """Draw the front as what a budget buys: flat until the next better network."""
    path: list[tuple[float, float]] = []
    for point in front:
        x, y = across(point.cost), scale(point.score)
        if path:
            path.append((x, path[-1][1]))
        path.append((x, y))
    return [*path, (right, path[-1][1])] if path else []


def rates_panel(
    task: TaskName,
    spans: Sequence[Span],
    *,
    upright: float | None = None,
    says: str = "",
    leaky: bool = False,
) -> Markup:
    """Draw accuracies with their 95 % intervals, a row each; `upright` marks one of them."""
    heading = TASK_TITLES[task].capitalize()
    top = 26.0
    floor = top + ROW * len(spans)
    ends = [end for span in spans for end in (span.low, span.high)]
    scale = scale_over([*ends, *([upright] if upright is not None else [])], 10, WIDTH - 56)
    parts = [svg.text(0, 14, heading, css="head")]
    for tick in scale.ticks(4):
        at, words = scale(tick), svg.percent_text(tick)
        parts += [
            svg.line(at, top, at, floor, "grid"),
            svg.text(at, floor + 15, words, anchor="middle", css="tick"),
        ]
    if upright is not None:
        parts.append(svg.line(scale(upright), top, scale(upright), floor, "upright"))
    for row, span in enumerate(spans):
        words = f"{percent(span.value)} %"
        parts += _span(span, scale, top + ROW * row, task, words)
    told = says or "; ".join(
        f"{span.label}: {100 * span.value:.1f}, {100 * span.low:.1f} to {100 * span.high:.1f}"
        for span in spans
    )
    said = f"{heading}, test accuracy in percent with 95 % intervals. {told}."
    return svg.panel(parts, height=floor + 22, says=said, css=task, leaky=leaky)
