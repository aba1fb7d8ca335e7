"""Figures of a run: drawn without pyplot, with names, counts, and where they come from."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmark.evaluation import figures
from benchmark.evaluation.figures import Caption
from benchmark.evaluation.metrics import Scores, score
from benchmark.tasks import CLASS_NAMES, TaskName
from tests.made_runs import made_up_predictions

CAPTION = Caption("mtl-cnn-none-full-short", "utkface-100", drawn=False)
SKILLS: dict[TaskName, float] = {"age_group": 1.2, "gender": 1.5, "race": 1.5}
HISTORY = pd.DataFrame({"epoch": [1, 2], "train/loss": [1.2, 0.9], "val/race/accuracy": [0.4, 0.5]})


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    """300 test faces without Asian women."""
    return made_up_predictions(SKILLS, n=600).query("race != 2 or gender == 0")


@pytest.fixture(scope="module")
def scores(predictions: pd.DataFrame) -> Scores:
    return score(predictions)


def texts(figure: Figure) -> str:
    """All that is written in a figure."""
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def test_confusion_matrices_show_names_counts_and_row_percentages(scores: Scores) -> None:
    written = texts(figures.confusion_figure(scores.confusion, CAPTION))
    assert "mtl-cnn-none-full-short\nutkface-100" in written
    for task, matrix in scores.confusion.items():
        assert all(name in written for name in CLASS_NAMES[task])
        assert f"{100 * matrix[0, 0] / matrix[0].sum():.1f} %\n{matrix[0, 0]}" in written
    empty = texts(figures.confusion_figure({"gender": np.array([[3, 1], [0, 0]])}, CAPTION))
    assert "75.0 %\n3" in empty
    assert "–\n0" in empty


def test_synthetic_faces_and_leaks_are_said_on_every_figure(scores: Scores) -> None:
    caption = Caption("mtl-cnn-none-full-short", "drawn-100", drawn=True, leaky=True)
    drawn = [figures.confusion_figure(scores.confusion, caption)]
    drawn.append(figures.subgroups_figure(scores.subgroups, scores.gaps, caption))
    drawn.append(figures.reliability_figure(scores.calibration, caption))
    for history in (HISTORY, HISTORY.drop(columns="epoch")):
        drawn.append(figures.curves_figure(history, caption))
    for figure in drawn:
        assert "LEAKY · " in texts(figure)
        assert "synthetic faces" in texts(figure)


def test_subgroups_are_shown_with_count_interval_and_gap(scores: Scores) -> None:
    written = texts(figures.subgroups_figure(scores.subgroups, scores.gaps, CAPTION))
    assert "no faces" in written
    assert "hollow: under 30 faces, not ranked" in written
    for task in SKILLS:
        gap = scores.gaps.query("task == @task and by == 'age_group'").iloc[0]
        values = [100 * gap[name] for name in ("gap", "gap_low", "gap_high", "chance_gap")]
        said = "gap {:.1f} pp ({:.1f}–{:.1f}), permuted {:.1f}".format(*values)
        assert said in written, task
        group = scores.subgroups.query("task == @task and group == 'male Black'").iloc[0]
        assert f"{100 * group['accuracy']:.1f} %, n {group['n']}" in written, task
    men = score(made_up_predictions(SKILLS, n=200).query("gender == 0"))
    lone = texts(figures.subgroups_figure(men.subgroups, men.gaps, CAPTION))
    assert "too few subgroups to rank" in lone


def test_curves_and_reliability_name_what_they_show(scores: Scores) -> None:
    written = texts(figures.curves_figure(HISTORY, CAPTION, selected_epoch=2))
    assert all(label in written for label in ("training", "race", "selected epoch"))
    assert "gender" not in written
    assert figures.percent_ticks()(0.925) == "92.5 %"
    written = texts(figures.reliability_figure(scores.calibration, CAPTION))
    for found in scores.calibration.values():
        assert f"calibration error {100 * found.error['test']:.1f} pp" in written
        assert f"expected if calibrated: {100 * (found.by_chance or 0):.1f} pp" in written


def test_equal_figures_give_equal_files_and_equal_svg(scores: Scores, tmp_path: Path) -> None:
    made = [figures.confusion_figure(scores.confusion, CAPTION) for _ in range(2)]
    for number, figure in enumerate(made):
        figures.write_png(tmp_path / f"{number}.png", figure)
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    one, other = (figures.as_svg(figure, "name") for figure in made)
    assert one == other
    assert "var(--ink)" in one
    assert figures.INK not in one
    assert all(name.startswith("name-") for name in re.findall(r'id="([^"]+)"', one))


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    # pyplot keeps every figure alive: a suite of 600 runs would fill the memory.
    code = (
        "import sys; from pathlib import Path; import pandas as pd\n"
        "from benchmark.evaluation.figures import Caption, curves_figure, write_png\n"
        "history = pd.DataFrame({'epoch': [1], 'train/loss': [1.0]})\n"
        "write_png(Path(sys.argv[1]), curves_figure(history, Caption('e', 'd', drawn=True)))\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "curves.png")], check=True)
