"""Inline SVG: elements, scales, axes and marks. Colours and fonts are the style sheet's.

Every panel is about as wide as a phone, so that its words can be read there; on a wide screen
panels stand side by side. Marks differ in shape or fill besides colour.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

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
