"""Figures of the report as inline SVG, and those of the studies.

The pictures of the leak and of the subsets: rows of marks with their 95 % intervals.

What is drawn comes from benchmark.comparison.leak_study and .subset_study.

Inline SVG: elements, scales, axes and marks. Colours and fonts are the style sheet's.

Every panel is about as wide as a phone, so that its words can be read there; on a wide screen
panels stand side by side. Marks differ in shape or fill besides colour.

The pictures of the page: differences, rates, slopes, depths, costs. Numbers come ready.

A picture is panels, mostly one per task, each as wide as a phone. Whatever is drawn stands in a
table beside it too; a screen reader is told what the panel says, not how it looks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmark.comparison.cells import percent
from benchmark.comparison.statistics import Verdict
from benchmark.comparison.study_page import StudyPanel, StudyPicture
from benchmark.comparison.verdicts import points, points_span
from benchmark.evaluation.figures import COLOURS, FAINT, INK, percent_ticks
from benchmark.tasks import TASK_TITLES, TaskName

WIDTH: Final = 360.0
"""Of every panel, in its own units; the style sheet scales it to the column."""
SHAPES: Final = ("circle", "square", "triangle", "diamond")


def element(name: str, *children: str, **attributes: object) -> Markup:
    """Write one element; children that are not Markup are escaped, None attributes left out.

    `class_` and `stroke_width` are written as SVG spells them.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(children)
    return Markup(f"<{name}{said}>{inner}</{name}>") if inner else Markup(f"<{name}{said}/>")


def _plain(value: object) -> str:
    """Write a number with at most one decimal: a tenth of a unit is less than a pixel."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def text(x: float, y: float, words: str, *, anchor: str = "start", css: str = "") -> Markup:
    """Write words at a place; anchor is start, middle or end."""
    shown = None if anchor == "start" else anchor
    return element("text", words, x=x, y=y, text_anchor=shown, class_=css or None)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """Draw a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)


def polyline(points: Iterable[tuple[float, float]], css: str) -> Markup:
    """Draw a line through points."""
    path = " ".join(f"{_plain(float(x))},{_plain(float(y))}" for x, y in points)
    return element("polyline", points=path, class_=css)


def mark(x: float, y: float, shape: str, css: str, *, size: float = 4.5, words: str = "") -> Markup:
    """Draw a mark centred on a place; `words` are shown when a pointer rests on it."""
    told = (element("title", words),) if words else ()
    if shape == "circle":
        return element("circle", *told, cx=x, cy=y, r=size, class_=css)
    if shape == "square":
        side = 1.75 * size
        return element(
            "rect", *told, x=x - side / 2, y=y - side / 2, width=side, height=side, class_=css
        )
    corners = {
        "triangle": ((0.0, -1.25), (1.15, 0.85), (-1.15, 0.85)),
        "diamond": ((0.0, -1.35), (1.35, 0.0), (0.0, 1.35), (-1.35, 0.0)),
    }[shape]
    path = " ".join(f"{_plain(x + size * dx)},{_plain(y + size * dy)}" for dx, dy in corners)
    return element("polygon", *told, points=path, class_=css)


def panel(
    children: Iterable[Markup], *, height: float, says: str, css: str = "", leaky: bool = False
) -> Markup:
    """Put a panel together; `says` is what a screen reader is told instead of the picture.

    leaky: LEAKY is written across it, so that a copied picture says so too.
    """
    marked: tuple[Markup, ...] = ()
    if leaky:
        place = f"translate({WIDTH / 2:.0f} {height / 2:.0f}) rotate(-24)"
        words = text(0, 14, "LEAKY", anchor="middle", css="watermark")
        marked = (element("g", words, transform=place, aria_hidden="true"),)
    return element(
        "svg",
        *marked,
        *children,
        viewBox=f"0 0 {WIDTH:.0f} {height:.0f}",
        role="img",
        aria_label=f"LEAKY. {says}" if leaky else says,
        class_=f"plot {css}".strip(),
    )


@dataclass(frozen=True)
class Scale:
    """From values to places along an axis; `log` for costs that span magnitudes."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Give the place of a value."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, n: int = 5) -> list[float]:
        """Give about n round values within the scale."""
        found = _decades(self.low, self.high) if self.log else []
        return found if len(found) > 1 else _round(self.low, self.high, n)


def scale_over(
    values: Sequence[float], start: float, end: float, *, log: bool = False, margin: float = 0.06
) -> Scale:
    """Make a scale that holds all values with a margin on either side."""
    low, high = min(values), max(values)
    if log:
        reach = max(math.log10(high / low), 0.3) * (margin + 0.04)
        return Scale(low / 10**reach, high * 10**reach, start, end, log=True)
    reach = max((high - low) * margin, 0.004)
    return Scale(low - reach, high + reach, start, end)


def _round(low: float, high: float, n: int) -> list[float]:
    rough = (high - low) / max(n, 1)
    unit = 10 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Give 1, 2 and 5 times powers of ten, or powers alone where these are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for leads in ((1, 2, 5), (1, 3), (1,)):
        found = [k * 10.0**p for p in range(first, last + 1) for k in leads]
        within = [value for value in found if low <= value <= high]
        if len(within) <= 6:
            return within
    return within[:: math.ceil(len(within) / 6)]


def percent_text(rate: float) -> str:
    """Write a rate on an axis, in percent."""
    shown = f"{100 * rate:.1f}".removesuffix(".0")
    return f"{shown} %"


def points_axis_text(difference: float) -> str:
    """Write a difference on an axis, in points."""
    value = round(100 * difference, 1)
    sign = "−" if value < 0 else "+" if value > 0 else ""
    return sign + f"{abs(value):.1f}".removesuffix(".0")


def spread(places: Sequence[float], apart: float) -> list[float]:
    """Move labels apart so that none overlaps the next, keeping their order and their middle."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[tuple[list[int], float]] = []
    for index in order:
        groups.append(([index], places[index]))
        while len(groups) > 1:
            (below, one), (above, other) = groups[-2:]
            if other - one >= apart * (len(below) + len(above)) / 2:
                break
            members = below + above
            groups[-2:] = [(members, sum(places[member] for member in members) / len(members))]
    moved = list(places)
    for members, middle in groups:
        for rank, member in enumerate(members):
            moved[member] = middle + apart * (rank - (len(members) - 1) / 2)
    return moved


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
        line(1, 8, 27, 8, f"stroke {css}"),
        mark(14, 8, shape, style),
    )
    return element("svg", *drawn, viewBox="0 0 28 16", class_="swatch plot", aria_hidden="true")


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
    parts = [text(0, 14, heading, css="head"), *_points_axis(scale, top, floor)]
    for row, span in enumerate(spans):
        words = points(span.value)
        parts += _span(span, scale, top + ROW * row, task, words)
    told = "; ".join(
        f"{span.label}: {points(span.value)} points, {points_span(span.low, span.high)}"
        for span in spans
    )
    says = f"{heading}, differences in points with 95 % intervals. {told}."
    return panel(parts, height=height, says=says, css=task, leaky=leaky)


def _points_axis(scale: Scale, top: float, floor: float) -> list[Markup]:
    parts = []
    for tick in scale.ticks(4):
        at = scale(tick)
        css = "zero" if abs(tick) < 1e-12 else "grid"
        words = points_axis_text(tick)
        parts += [
            line(at, top, at, floor, css),
            text(at, floor + 15, words, anchor="middle", css="tick"),
        ]
    middle = (scale.start + scale.end) / 2
    parts.append(text(middle, floor + 30, "points", anchor="middle", css="tick"))
    return parts


def _span(span: Span, scale: Scale, top: float, task: str, words: str) -> list[Markup]:
    """Draw one row: its label above, interval and mark beneath, the value at the right."""
    y = top + LABEL + 11
    style = f"mark {'' if span.filled else 'hollow'} {span.css}".strip()
    return [
        text(2, top + LABEL, span.label, css="label"),
        line(scale(span.low), y, scale(span.high), y, f"stroke {span.css}".strip()),
        mark(scale(span.value), y, span.shape or MARKERS.get(task, "circle"), style),
        text(WIDTH - 2, y + 4, words, anchor="end", css="value"),
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
        text(0, 14, heading, css="head"),
        text(left, 32, "alone (STL)", anchor="middle", css="tick"),
        text(right, 32, "together (MTL)", anchor="middle", css="tick"),
        line(left, top, left, floor, "grid"),
        line(right, top, right, floor, "grid"),
    ]
    ends = spread([scale(slope.together) for slope in slopes], 14)
    starts = spread([scale(slope.alone) for slope in slopes], 14)
    for slope, start, end in zip(slopes, starts, ends, strict=True):
        css = {"better": "better", "worse": "worse"}.get(slope.verdict, "undecided")
        a, b = scale(slope.alone), scale(slope.together)
        hollow = " hollow" if css == "undecided" else ""
        shape = {"better": "triangle", "worse": "square"}.get(css, "circle")
        parts += [
            line(left, a, right, b, f"stroke {css}"),
            mark(left, a, "circle", f"mark hollow {css}", size=3.5),
            mark(right, b, shape, f"mark {css}{hollow}"),
            text(left - 8, start + 4, f"{100 * slope.alone:.1f}", anchor="end", css="value"),
            text(right + 8, end + 4, f"{100 * slope.together:.1f} {slope.label}", css="label"),
        ]
    told = "; ".join(
        f"{slope.label}: {100 * slope.alone:.1f} alone, {100 * slope.together:.1f} together, "
        f"{slope.verdict}"
        for slope in slopes
    )
    says = f"{heading} accuracy in percent, alone and together. {told}."
    return panel(parts, height=height, says=says, css=task)


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
    parts = [text(0, 14, heading, css="head")]
    for tick in scale.ticks(5):
        words = percent_text(tick) if in_percent else f"{tick:.3g}"
        parts += [
            line(left, scale(tick), right, scale(tick), "grid"),
            text(left - 6, scale(tick) + 4, words, anchor="end", css="tick"),
        ]
    for at, words in x_ticks.items():
        parts.append(text(across(at), floor + 16, words, anchor="middle", css="tick"))
    parts.append(text((left + right) / 2, height - 6, x_title, anchor="middle", css="tick"))
    if upright is not None:
        parts.append(line(across(upright), top, across(upright), floor, "upright"))
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
    return panel(parts, height=height, says=says, css=css)


def _series(item: Series, across: Scale, scale: Scale, offset: float) -> list[Markup]:
    css = item.css or style_of(item.style)
    xs = [across(place) + offset for place in item.places]
    ys = [scale(value) for value in item.values]
    parts = [polyline(zip(xs, ys, strict=True), f"path {css}")]
    for x, low, high in zip(xs, item.lows, item.highs, strict=False):
        parts.append(line(x, scale(low), x, scale(high), f"whisker {css}"))
    if len(xs) <= 12:
        parts += [
            mark(x, y, item.shape, f"mark {css}", size=3.8, words=f"{item.label}: {value:.3f}")
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
    parts = [text(0, 14, heading, css="head")]
    for tick in scale.ticks(5):
        parts += [
            line(left, scale(tick), right, scale(tick), "grid"),
            text(left - 6, scale(tick) + 4, percent_text(tick), anchor="end", css="tick"),
        ]
    for tick in across.ticks():
        parts += [
            text(across(tick), floor + 16, f"{tick:g}", anchor="middle", css="tick"),
            line(across(tick), floor, across(tick), floor + 4, "grid"),
        ]
    parts.append(text((left + right) / 2, height - 6, x_title, anchor="middle", css="tick"))
    front = sorted((p for p in networks if p.on_front), key=lambda p: p.cost)
    parts.append(polyline(_stairs(front, across, scale, right), "path front"))
    for point in networks:
        css = "mark front" if point.on_front else "mark behind hollow"
        x, y = across(point.cost), scale(point.score)
        shape = "diamond" if point.on_front else "circle"
        parts.append(mark(x, y, shape, css, words=f"{point.number}: {point.label}"))
    for (x, y), numbers in _places(networks, across, scale).items():
        parts.append(text(x + 8, y - 5, ", ".join(map(str, numbers)), css="label"))
    told = ", ".join(f"{p.label} ({100 * p.score:.1f} %)" for p in front)
    says = f"{heading}: {len(networks)} networks, score against {x_title}. On the front: {told}."
    return panel(parts, height=height, says=says)


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
    parts = [text(0, 14, heading, css="head")]
    for tick in scale.ticks(4):
        at, words = scale(tick), percent_text(tick)
        parts += [
            line(at, top, at, floor, "grid"),
            text(at, floor + 15, words, anchor="middle", css="tick"),
        ]
    if upright is not None:
        parts.append(line(scale(upright), top, scale(upright), floor, "upright"))
    for row, span in enumerate(spans):
        words = f"{percent(span.value)} %"
        parts += _span(span, scale, top + ROW * row, task, words)
    told = says or "; ".join(
        f"{span.label}: {100 * span.value:.1f}, {100 * span.low:.1f} to {100 * span.high:.1f}"
        for span in spans
    )
    said = f"{heading}, test accuracy in percent with 95 % intervals. {told}."
    return panel(parts, height=floor + 22, says=said, css=task, leaky=leaky)


LEAKY_COLOUR: Final = "#B22222"


def study_figure(picture: StudyPicture, dataset: str, *, drawn: bool) -> Figure:
    """Draw a study's panels; significant differences are filled, LEAKY rates are red diamonds."""
    heights = [len(panel.marks) for panel in picture.panels]
    if picture.of_differences:
        figure = Figure(figsize=(9.5, 2.2 + 0.33 * sum(heights)), layout="constrained")
        ratios = {"height_ratios": heights}
        grid = figure.subplots(len(heights), sharex=True, squeeze=False, gridspec_kw=ratios)
    else:
        figure = Figure(figsize=(11.5, 2.2 + 0.62 * max(heights)), layout="constrained")
        grid = figure.subplots(1, len(heights), sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, picture.panels, strict=True):
        _draw(axes, panel, of_differences=picture.of_differences)
    faces = " (drawn faces)" if drawn else ""
    figure.suptitle(f"{picture.title}\n{dataset}{faces}", size=12, color=INK)
    figure.supxlabel(picture.caption.replace("; ", "\n"), size=10)
    return figure


def _draw(axes: Axes, panel: StudyPanel, *, of_differences: bool) -> None:
    for row, mark in enumerate(panel.marks):
        colour = LEAKY_COLOUR if mark.leaky else COLOURS[panel.task]
        axes.plot([mark.low, mark.high], [row, row], color=colour, linewidth=2, zorder=2)
        fill = colour if mark.filled else "white"
        shape = "D" if mark.leaky else "o"
        axes.plot(mark.value, row, shape, color=colour, markerfacecolor=fill, ms=7, zorder=3)
        if not of_differences:
            words = f"{100 * mark.value:.1f}"
            axes.text(mark.value, row - 0.22, words, size=10, color=INK, ha="center")
    if of_differences:
        axes.axvline(0, color=FAINT, linewidth=1.2, zorder=1)
        signed = FuncFormatter(lambda value, _place: f"{round(100 * value):+d}" if value else "0")
        axes.xaxis.set_major_formatter(signed)
    else:
        axes.xaxis.set_major_formatter(percent_ticks())
        axes.margins(x=0.12)
    axes.set_title(panel.title, size=11, color=INK)
    labels = [mark.label.replace(", ", ",\n", 1) for mark in panel.marks]
    axes.set_yticks(range(len(labels)), labels, size=10)
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.grid(axis="x", color="#EEEEEE", zorder=0)
    axes.tick_params(length=0, labelsize=10)
    axes.spines[:].set_visible(False)
