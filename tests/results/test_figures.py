"""Pictures: drawn without pyplot or warnings, with names, counts and where they come from."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmark.results.figures import (
    Caption,
    confusion_figure,
    curves_figure,
    subgroups_figure,
    write_png,
)
from benchmark.results.metrics import Scores, score
from benchmark.tasks import CLASS_NAMES, TASKS, TaskName
from tests.results.conftest import made_up_predictions

CAPTION = Caption("mtl-cnn-none-full-short", "utkface-100", drawn=False)


@pytest.fixture(scope="module")
def scores() -> Scores:
    skills: dict[TaskName, float] = {"age_group": 1.2, "gender": 1.5, "race": 1.5}
    return score(made_up_predictions(skills, n=600).query("race != 2 or gender == 0"))


def texts(figure: Figure) -> str:
    """All that is written in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(match=_is_text))


def _is_text(artist: object) -> bool:
    return hasattr(artist, "get_text")


@pytest.mark.parametrize("task", TASKS)
def test_a_confusion_matrix_shows_names_counts_and_row_percentages(
    task: TaskName, scores: Scores, tmp_path: Path
) -> None:
    figure = confusion_figure(scores.confusion[task], task, CAPTION)
    write_png(tmp_path / "confusion.png", figure)
    matrix, written = scores.confusion[task], texts(figure)
    assert all(name in written for name in CLASS_NAMES[task])
    assert f"{100 * matrix[0, 0] / matrix[0].sum():.1f} %\n{matrix[0, 0]}" in written
    assert "mtl-cnn-none-full-short\nutkface-100" in written


def test_the_longest_name_fits_the_narrowest_picture(scores: Scores) -> None:
    caption = Caption("mtl-squeezenet1_1-imagenet-frozen-swapped-short, seed 10", "drawn", True)
    figure = confusion_figure(scores.confusion["gender"], "gender", caption)
    figure.draw_without_rendering()
    assert figure.get_suptitle().count("\n") == 2
    (title,) = [item for item in figure.texts if "seed 10" in item.get_text()]
    extent = title.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width


def test_a_class_without_faces_has_no_percentage(tmp_path: Path) -> None:
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), "gender", CAPTION)
    write_png(tmp_path / "confusion.png", figure)
    assert "75.0 %\n3" in texts(figure)
    assert "–\n0" in texts(figure)


def test_drawn_faces_say_so(scores: Scores) -> None:
    caption = Caption("mtl-cnn-none-full-short", "drawn-100", drawn=True)
    figures = (
        confusion_figure(scores.confusion["race"], "race", caption),
        subgroups_figure(scores.subgroups, caption),
        curves_figure(pd.DataFrame({"epoch": [1], "train/loss": [1.0]}), caption),
    )
    assert all("drawn faces" in texts(figure) for figure in figures)


def test_curves_show_the_columns_that_are_there_and_the_selected_epoch(tmp_path: Path) -> None:
    history = pd.DataFrame(
        {"epoch": [1, 2], "train/loss": [1.2, 0.9], "val/race/accuracy": [0.4, 0.5]}
    )
    figure = curves_figure(history, CAPTION, selected_epoch=2)
    write_png(tmp_path / "curves.png", figure)
    written = texts(figure)
    assert all(label in written for label in ("training", "race", "selected epoch"))
    assert "gender" not in written


def test_small_and_empty_subgroups_are_marked(scores: Scores, tmp_path: Path) -> None:
    figure = subgroups_figure(scores.subgroups, CAPTION)
    write_png(tmp_path / "subgroups.png", figure)
    written = texts(figure)
    assert "no faces" in written
    assert "hollow: under 30 faces, not ranked" in written
    assert all(title in written for title in ("by gender", "by race", "by gender × race"))
    assert "by age group" not in written


def test_equal_figures_give_equal_bytes(scores: Scores, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, subgroups_figure(scores.subgroups, CAPTION, task="race"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    # pyplot keeps every figure alive: a suite of 600 runs would fill the memory.
    code = (
        "import sys; from pathlib import Path; import pandas as pd\n"
        "from benchmark.results.figures import Caption, curves_figure, write_png\n"
        "history = pd.DataFrame({'epoch': [1], 'train/loss': [1.0]})\n"
        "write_png(Path(sys.argv[1]), curves_figure(history, Caption('e', 'd', drawn=True)))\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "curves.png")], check=True)
