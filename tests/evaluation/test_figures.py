"""Figures of a run: drawn without pyplot, with names, counts, and where they come from."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmark.evaluation import figures
from benchmark.evaluation.artifacts import possible_label_errors
from benchmark.evaluation.figures import caption_of
from benchmark.evaluation.metrics import Scores, score
from benchmark.tasks import CLASS_NAMES, TaskName
from tests.made_runs import made_up_predictions

CAPTION = caption_of("mtl-cnn-none-full-short", "drawn-100", drawn=True, leaky=True)
SKILLS: dict[TaskName, float] = {"age_group": 1.2, "gender": 1.5, "race": 1.5}
HISTORY = pd.DataFrame({"epoch": [1, 2], "train/loss": [1.2, 0.9], "val/race/accuracy": [0.4, 0.5]})


@pytest.fixture(scope="module")
def scores() -> Scores:
    """Of 300 test faces without Asian women."""
    return score(made_up_predictions(SKILLS, n=600).query("race != 2 or gender == 0"))


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def test_figures_name_what_they_show_with_counts_and_where_it_comes_from(scores: Scores) -> None:
    confusion, subgroups, reliability, curves = drawn = [
        texts(figure)
        for figure in (
            figures.confusion_figure(scores.confusion, CAPTION),
            figures.subgroups_figure(scores.subgroups, scores.gaps, CAPTION),
            figures.reliability_figure(scores.calibration, CAPTION),
            figures.curves_figure(HISTORY, CAPTION, selected_epoch=2),
        )
    ]
    for written in drawn:
        assert "LEAKY · " in written
        assert "mtl-cnn-none-full-short\ndrawn-100 (synthetic faces)" in written
    assert "no faces" in subgroups
    assert "hollow: under 30 faces, not ranked" in subgroups
    for task, matrix in scores.confusion.items():
        assert all(name in confusion for name in CLASS_NAMES[task])
        assert f"{100 * matrix[0, 0] / matrix[0].sum():.1f} %\n{matrix[0, 0]}" in confusion
        gap = scores.gaps.query("task == @task and by == 'age_group'").iloc[0]
        values = [100 * gap[name] for name in ("gap", "gap_low", "gap_high", "chance_gap")]
        assert "gap {:.1f} pp ({:.1f}–{:.1f}), permuted {:.1f}".format(*values) in subgroups
        group = scores.subgroups.query("task == @task and group == 'male Black'").iloc[0]
        assert f"{100 * group['accuracy']:.1f} %, n {group['n']}" in subgroups
        error = scores.calibration[task].ece["test"]
        assert f"calibration error {100 * error:.1f} pp" in reliability
    assert all(label in curves for label in ("training", "race", "selected epoch"))
    assert "gender" not in curves
    men = score(made_up_predictions(SKILLS, n=200).query("gender == 0"))
    lone = texts(figures.subgroups_figure(men.subgroups, men.gaps, CAPTION))
    assert "too few subgroups to rank" in lone
    errors = possible_label_errors(made_up_predictions({"race": 1.2}))
    faces = SimpleNamespace(table=errors[["file"]], pixels=lambda: [[[0.0]]] * len(errors))
    sheet = figures.contact_sheet(errors, faces, CAPTION)  # type: ignore[arg-type]
    said = "label {label}\npredicted {contradicted_by}".format(**errors.iloc[0])
    assert all(text in texts(sheet) for text in (said, figures.CAUTION))
    assert len(sheet.axes[0].images) == min(len(errors), figures.FACES_PER_TASK)


def test_equal_figures_give_equal_files(scores: Scores, tmp_path: Path) -> None:
    made = [figures.confusion_figure(scores.confusion, CAPTION) for _ in range(2)]
    for number, figure in enumerate(made):
        figures.write_png(tmp_path / f"{number}.png", figure)
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
