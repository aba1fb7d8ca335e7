"""The contact sheet of label suspects: the faces themselves, beside what label and network say.

It shows people. It is kept with the run and in MLflow, and belongs on no page and in no repository.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.results.figures import COLOURS, INK, Caption
from benchmark.results.suspects import CAUTION
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

FACES_PER_TASK: Final = 16
FACES_PER_ROW: Final = 8
FACE: Final = 1.4
CELL: Final = (1.5, 1.8)
"""Inches: the side of a face; width and height of a face with its two lines of text."""
TITLE: Final = 1.0
HEADING: Final = 0.35
"""Inches above all faces, and above those of each task."""


def contact_sheet(
    suspects: pd.DataFrame,
    pictures: Callable[[Sequence[str]], npt.NDArray[np.uint8]],
    caption: Caption,
) -> Figure:
    """Show the surest suspects of each task with stated and contradicting class.

    suspects: as label_suspects gives them. pictures: gives (n, px, px, 3) RGB by file name.
    """
    shown: dict[TaskName, pd.DataFrame] = {}
    for task in TASKS:
        ours = suspects[suspects["task"] == task].head(FACES_PER_TASK)
        if len(ours):
            shown[task] = ours
    n_rows = {task: -(-len(ours) // FACES_PER_ROW) for task, ours in shown.items()}
    width = CELL[0] * FACES_PER_ROW
    height = TITLE + sum(HEADING + CELL[1] * rows for rows in n_rows.values())
    # One panel measured in inches: laying out a panel per face takes a second and more.
    figure = Figure(figsize=(width, height + (0 if shown else 0.5)))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    title = caption.under("Label suspects: the test faces whose label is contradicted most surely")
    nothing = "" if shown else "\nNo label is contradicted surely."
    axes.text(
        width / 2, 0.08, f"{title}\n{CAUTION}{nothing}", ha="center", va="top", size=11, color=INK
    )
    top = TITLE
    for task, ours in shown.items():
        heading = TASK_TITLES[task].capitalize()
        axes.text(0.05, top + 0.22, heading, size=12, weight="bold", color=COLOURS[task])
        _draw_faces(axes, ours, pictures(list(ours["file"])), top + HEADING)
        top += HEADING + CELL[1] * n_rows[task]
    axes.set_xlim(0, width)
    axes.set_ylim(figure.get_figheight(), 0)
    axes.set_axis_off()
    return figure


def _draw_faces(
    axes: Axes, suspects: pd.DataFrame, images: npt.NDArray[np.uint8], top: float
) -> None:
    for place, suspect in enumerate(suspects.to_dict("records")):
        left = CELL[0] * (place % FACES_PER_ROW) + (CELL[0] - FACE) / 2
        upper = top + CELL[1] * (place // FACES_PER_ROW) + (CELL[1] - FACE - 0.05)
        axes.imshow(images[place], extent=(left, left + FACE, upper + FACE, upper))
        age = f" ({suspect['age']} years)" if suspect["task"] == "age_group" else ""
        axes.text(
            left + FACE / 2,
            upper - 0.03,
            f"label {suspect['label']}{age}\n"
            f"read {suspect['contradicted_by']} {100 * suspect['probability']:.0f} %",
            ha="center",
            va="bottom",
            size=8,
            color=INK,
        )
