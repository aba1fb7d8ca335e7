"""Synthetic faces, drawn by a program: the data set `drawn`, so that a try needs no download.

They are not people and stand for nobody: each is an emblem (an oval with two eyes and a mouth, on
a medal, on a patterned ground). What a network can learn from it is a convention made up here:

| label | carried by | noise on the cue |
|---|---|---|
| age group | number of thin rings round the oval, one more per group | the count wavers with age |
| gender | what rims the medal: twelve beads (0) or twelve rays (1) | 1 in 15 shows the other |
| race | pattern of the ground: stripes, dots, checks, zigzag, crosses | 1 in 11 shows another |

No colour means anything: every colour is drawn apart from the labels, and the oval is green, blue
or violet by chance. Labels are drawn independently of each other, with about UTKFace's shares of
each class. Position, size, tilt, contrast, a ground that shades from place to place, discs laid
over the picture and grain on each pixel make it a task worth a network. Mean colours tell a linear
model nothing: patterns cover equal areas, and so do beads and rays. No number measured on these
faces says anything about faces.
"""

import colorsys
import math
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmark.data.labels import LABELS, FaceLabels
from benchmark.tasks import AGE_GROUP_UPPER_YEARS, TASKS

Plane = NDArray[np.float32]
"""(image_px, image_px): one number per pixel."""
Planes = NDArray[np.float32]
"""(3, image_px, image_px): the picture being painted, RGB in 0..255."""
Colour = NDArray[np.float32]

DRAWING_VERSION: Final = 1
"""Raised when a seed draws other pictures than before, so that stored ones are not confused."""
CLASS_FRACTIONS: Final = {
    "age_group": (0.154, 0.168, 0.395, 0.182, 0.101),
    "gender": (0.523, 0.477),
    "race": (0.425, 0.191, 0.145, 0.168, 0.071),
}
"""Share of each class among the 23,703 file names of aligned, cropped UTKFace that parse."""
OLDEST_YEARS: Final = 96
"""UTKFace reaches 116, but only 41 of its faces are older than this."""
RING_COUNT_SD: Final = 0.3
"""Waver of the ring count, in rings."""
SHOWN_OTHERWISE: Final = {"gender": 1 / 15, "race": 1 / 11}
"""Fraction of faces whose cue is drawn from the other classes, as if mislabelled."""
INKED: Final = 0.4
"""Share of the ground that each pattern covers: its mean brightness must not tell the pattern."""


class DrawnFaces(NamedTuple):
    """Pictures, (n_faces, image_px, image_px, 3) RGB, and, row by row in the order drawn, their
    labels: file, age (years), age_group, gender, race."""

    images: NDArray[np.uint8]
    labels: pd.DataFrame


def draw_faces(n_faces: int, seed: int, image_px: int = 100) -> DrawnFaces:
    """Draw `n_faces` labelled square pictures, the same ones for the same seed.

    Face i depends on `seed` and i alone, its labels and layout not on `image_px` (below about 64 px
    the rings run together). File names are unique within a draw and parse like UTKFace's.
    """
    images = np.empty((n_faces, image_px, image_px, 3), dtype=np.uint8)
    rows = []
    for number in range(n_faces):
        rng = np.random.Generator(np.random.PCG64([seed, number]))
        age_group, gender, race = (_draw_class(rng, CLASS_FRACTIONS[task]) for task in TASKS)
        lowest, highest = _years_of(age_group)
        age = int(rng.integers(lowest, highest + 1))
        labels = FaceLabels(age, age_group, gender, race)
        images[number] = _draw_picture(rng, labels, image_px)
        # 17 digits where UTKFace has date and time: year 0000 marks the face as synthetic.
        serial = f"0000{seed % 1_000_000:06d}{number:07d}"
        name = f"{labels.age}_{labels.gender}_{labels.race}_{serial}.jpg.chip.jpg"
        rows.append((name, *labels))
    return DrawnFaces(images, pd.DataFrame(rows, columns=["file", *LABELS]))


def _draw_class(rng: np.random.Generator, fractions: tuple[float, ...]) -> int:
    draw = rng.random() * sum(fractions)
    return int(np.searchsorted(np.cumsum(fractions)[:-1], draw, side="right"))


def _years_of(age_group: int) -> tuple[int, int]:
    """Give the youngest and oldest age drawn in a group, both included."""
    edges = (0, *AGE_GROUP_UPPER_YEARS)
    return edges[age_group] + 1, min(edges[age_group + 1], OLDEST_YEARS)


def _shown_class(rng: np.random.Generator, task: str, label: int) -> int:
    fractions = CLASS_FRACTIONS[task]
    if rng.random() >= SHOWN_OTHERWISE[task]:
        return label
    others = tuple(0.0 if i == label else fraction for i, fraction in enumerate(fractions))
    return _draw_class(rng, others)


def _paint(planes: Planes, distance: Plane, colour: Colour, opacity: float = 1.0) -> None:
    """Lay a colour where `distance` (to the shape's outline, in pixels) is below 0.

    Per pixel only operations that IEEE 754 rounds exactly are used (no sine, no arc tangent), here
    and below, so that processors with other vector instructions draw the same bytes.
    """
    cover = np.clip(0.5 - distance, 0, 1)
    cover *= np.float32(opacity)
    planes += cover * (colour[:, None, None] - planes)


class _Frame(NamedTuple):
    """A tilted place: `u` across and `v` down, in units of its own size; pixels in one unit."""

    u: Plane
    v: Plane
    pixels: np.float32


def _frame(image_px: int, x: float, y: float, size: float, tilt: float) -> _Frame:
    """Place a frame: middle and size in half pictures (x, y from -1 to 1), tilt in radians."""
    centres = ((np.arange(image_px) + 0.5) * (2 / image_px) - 1).astype(np.float32)
    cos, sin = np.float32(math.cos(tilt) / size), np.float32(math.sin(tilt) / size)
    dx, dy = centres[None, :] - np.float32(x), centres[:, None] - np.float32(y)
    return _Frame(dx * cos + dy * sin, dy * cos - dx * sin, np.float32(size * image_px / 2))


def _colour(hue: float, saturation: float, lightness: float) -> Colour:
    """Convert HSL (each 0 to 1, the hue wrapping round) to RGB in 0..255."""
    return np.array(colorsys.hls_to_rgb(hue % 1, lightness, saturation), dtype=np.float32) * 255


def _draw_picture(rng: np.random.Generator, labels: FaceLabels, image_px: int) -> NDArray[np.uint8]:
    # Near a group's edge the neighbour's count of rings is likelier.
    lowest, highest = _years_of(labels.age_group)
    within = (labels.age - lowest + 0.5) / (highest - lowest + 1)
    level = labels.age_group + within + rng.normal(0, RING_COUNT_SD)
    rings = 1 + int(min(max(level, 0), 4))
    beads = _shown_class(rng, "gender", labels.gender)
    pattern = _shown_class(rng, "race", labels.race)
    hue = rng.random()
    planes = _ground(rng, hue, image_px)
    _paint_pattern(planes, rng, hue, pattern)
    x, y = rng.normal(0, 0.07, size=2)
    head = _frame(image_px, x, y, rng.uniform(0.38, 0.46), rng.uniform(-0.35, 0.35))
    _paint_rings(planes, rng, head, rings)
    _paint_beads(planes, rng, head, beads)
    _paint_head(planes, rng, head)
    for _ in range(rng.integers(0, 4)):  # discs, clear of the eyes, that hide some of the cues
        away, angle = rng.uniform(0.55, 1.2), rng.uniform(0, 2 * math.pi)
        x, y = away * math.cos(angle), away * math.sin(angle)
        spot = _frame(image_px, x, y, rng.uniform(0.15, 0.32), 0.0)
        colour = _colour(rng.random(), 0.5, rng.uniform(0.3, 0.8))
        distance = (np.sqrt(spot.u * spot.u + spot.v * spot.v) - 1) * spot.pixels
        _paint(planes, distance, colour, opacity=rng.uniform(0.5, 0.95))
    grain = rng.standard_normal(planes.shape, dtype=np.float32)
    planes += grain * np.float32(rng.uniform(4, 14))
    np.clip(np.rint(planes, out=grain), 0, 255, out=grain)
    return grain.astype(np.uint8).transpose(1, 2, 0)


def _ground(rng: np.random.Generator, hue: float, image_px: int) -> Planes:
    """Shade (3, image_px, image_px) smoothly between 5 x 5 colours of one hue's neighbourhood."""
    knots = 5
    base = rng.uniform(0.4, 0.7)
    colours = np.empty((3, knots, knots), dtype=np.float32)
    for place in np.ndindex(knots, knots):
        shade = base + rng.uniform(-0.22, 0.22)
        colours[:, *place] = _colour(hue + rng.uniform(-0.07, 0.07), 0.5, shade)
    at = np.linspace(0, knots - 1, image_px)[None, :]
    t = np.clip(1 - np.abs(at - np.arange(knots)[:, None]), 0, 1)
    # How much each of the evenly spaced colours counts at each pixel: (knots, image_px).
    weights = (t * t * (3 - 2 * t)).astype(np.float32)
    bands = np.zeros((3, image_px, knots), dtype=np.float32)
    ground = np.zeros((3, image_px, image_px), dtype=np.float32)
    for k in range(knots):
        bands += weights[k][:, None] * colours[:, k, None, :]
    for k in range(knots):
        ground += weights[k] * bands[:, :, k, None]
    return ground


def _wrapped(a: Plane) -> Plane:
    """Fold a coordinate into cells of length 1: -0.5 to 0.5 round the middle of each."""
    return a - np.floor(a) - np.float32(0.5)


def _pattern(race: int, p: Plane, q: Plane) -> Plane:
    """Give the distance to a race's pattern in periods: stripes, dots, checks, zigzag, crosses."""
    if race in (0, 3):
        bend = np.abs(_wrapped(q * np.float32(0.7))) * np.float32(1.4)
        return np.abs(_wrapped(p + bend if race == 3 else p)) - np.float32(INKED / 2)
    a, b = _wrapped(p), _wrapped(q)
    if race == 1:
        return np.sqrt(a * a + b * b) - np.float32(math.sqrt(INKED / math.pi))
    a, b = np.abs(a), np.abs(b)
    if race == 4:
        return np.maximum(np.minimum(a, b) - np.float32(0.155), np.maximum(a, b) - np.float32(0.4))
    a, b = a - np.float32(0.25), b - np.float32(0.25)
    return np.maximum(np.minimum(a, b), np.minimum(-a, -b)) + np.float32((0.5 - INKED) / 4)


def _paint_pattern(planes: Planes, rng: np.random.Generator, hue: float, pattern: int) -> None:
    x, y = rng.uniform(-0.5, 0.5, size=2)
    period, tilt = rng.uniform(0.3, 0.42), rng.uniform(-0.6, 0.6)
    cells = _frame(planes.shape[1], x, y, period, tilt)
    colour = _colour(hue + rng.uniform(-0.1, 0.1), 0.6, rng.uniform(0.1, 0.25))
    distance = _pattern(pattern, cells.u, cells.v)
    _paint(planes, distance * cells.pixels, colour, opacity=rng.uniform(0.35, 0.8))


def _paint_rings(planes: Planes, rng: np.random.Generator, head: _Frame, rings: int) -> None:
    """Paint 1 to 5 rings round the oval, on a plain medal that hides most of the pattern."""
    radius = np.sqrt(head.u * head.u + head.v * head.v * np.float32(0.8))
    hue, dark = rng.random(), rng.random() < 0.5
    medal = _colour(hue, 0.35, 0.82 if dark else 0.3)
    rim = (radius - np.float32(1.72)) * head.pixels
    _paint(planes, rim, medal, opacity=rng.uniform(0.45, 0.85))
    spacing = np.float32(rng.uniform(0.12, 0.14))
    turn = (radius - np.float32(0.94)) / spacing
    nearest = np.clip(np.rint(turn), 1, rings)
    line = np.abs(turn - nearest) - np.float32(rng.uniform(0.16, 0.3))
    colour = _colour(hue + rng.uniform(-0.1, 0.1), 0.5, 0.3 if dark else 0.8)
    _paint(planes, line * (spacing * head.pixels), colour, opacity=rng.uniform(0.5, 1))


def _paint_beads(planes: Planes, rng: np.random.Generator, head: _Frame, beads: int) -> None:
    """Paint twelve beads on the medal's rim, round (0) or long as rays (1)."""
    u, v = _folded(np.abs(head.u), np.abs(head.v), math.pi / 3)
    u, v = _folded(u, v, math.pi / 6)
    cos, sin = np.float32(math.cos(math.pi / 12)), np.float32(math.sin(math.pi / 12))
    along, aside = u * cos + v * sin - np.float32(1.85), v * cos - u * sin
    size = np.float32(rng.uniform(0.16, 0.21))
    if beads == 0:
        outline = np.sqrt(along * along + aside * aside) - size
    else:
        long, wide = np.float32(math.pi / 2), np.float32(0.5)  # as much area as the round bead
        outline = np.maximum(np.abs(along) - size * long, np.abs(aside) - size * wide)
    colour = _colour(rng.random(), 0.7, rng.uniform(0.8, 0.95))
    _paint(planes, outline * head.pixels, colour, opacity=rng.uniform(0.7, 1))


def _folded(u: Plane, v: Plane, angle: float) -> tuple[Plane, Plane]:
    """Mirror what lies beyond a line through the middle at `angle` back to this side of it."""
    sin, cos = np.float32(math.sin(angle)), np.float32(math.cos(angle))
    beyond = np.maximum(v * cos - u * sin, 0) * np.float32(2)
    return u + beyond * sin, v - beyond * cos


def _paint_head(planes: Planes, rng: np.random.Generator, head: _Frame) -> None:
    """Paint the oval, two eyes and a smile: alike for all labels."""

    def oval(x: float, y: float, width: float, height: float, colour: Colour) -> None:
        a = (head.u - np.float32(x)) / np.float32(width)
        b = (head.v - np.float32(y)) / np.float32(height)
        shortest = min(np.float32(width), np.float32(height))
        _paint(planes, (np.sqrt(a * a + b * b) - 1) * (shortest * head.pixels), colour)

    width, height = rng.uniform(0.8, 0.92), rng.uniform(0.96, 1.06)
    hue = rng.uniform(0.28, 0.78)
    oval(0, 0, width, height, _colour(hue, 0.45, rng.uniform(0.62, 0.86)))
    ink = _colour(hue + rng.uniform(-0.1, 0.1), 0.6, 0.14)
    apart, level, eye = rng.uniform(0.24, 0.34), rng.uniform(-0.24, -0.1), rng.uniform(0.07, 0.11)
    for side in (-apart, apart):
        oval(side, level, eye, eye * 1.25, ink)
    curve, half = np.float32(rng.uniform(0.5, 1.4)), np.float32(rng.uniform(0.2, 0.34))
    u, v = head.u, head.v - np.float32(rng.uniform(0.34, 0.44))
    line = np.abs(v + curve * (u * u - half * half * np.float32(0.5))) - np.float32(0.045)
    _paint(planes, np.maximum(line, np.abs(u) - half) * head.pixels, ink)
