"""Pictures: drawn without pyplot or warnings, with names, counts and where they come from."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmark.evaluation import figures
from benchmark.evaluation.calibration import calibrate
from benchmark.evaluation.figures import (
    DPI,
    Caption,
    confusion_figure,
    contact_sheet,
    curves_figure,
    heat_map_figure,
    percent_ticks,
    reliability_figure,
    subgroups_figure,
    write_png,
)
from benchmark.evaluation.metrics import Scores, score
from benchmark.evaluation.suspects import CAUTION, label_suspects
from benchmark.tasks import CLASS_NAMES, TASKS, TaskName
from tests.results.conftest import exact_predictions, made_up_predictions

CAPTION = Caption("mtl-cnn-none-full-short", "utkface-100", drawn=False)


SKILLS: dict[TaskName, float] = {"age_group": 1.2, "gender": 1.5, "race": 1.5}


@pytest.fixture(autouse=True)
def _as_fine_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what the other tests do to pictures: DPI was read before that."""
    monkeypatch.setattr(figures, "DPI", DPI)


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    """300 test faces without Asian women."""
    return made_up_predictions(SKILLS, n=600).query("race != 2 or gender == 0")


@pytest.fixture(scope="module")
def scores(predictions: pd.DataFrame) -> Scores:
    return score(predictions)


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
        subgroups_figure(scores.subgroups, scores.gaps, caption),
        heat_map_figure(scores.subgroups, scores.gaps, caption),
        reliability_figure(scores.calibration["race"], caption, task="race"),
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
    figure = subgroups_figure(scores.subgroups, scores.gaps, CAPTION)
    write_png(tmp_path / "subgroups.png", figure)
    written = texts(figure)
    assert "no faces" in written
    assert "hollow: under 30 faces, not ranked" in written
    assert all(title in written for title in ("by gender", "by race", "by gender × race"))
    assert "by age group (recall of its classes)" in written


def test_the_gap_stands_beside_what_chance_gives(scores: Scores) -> None:
    row = scores.gaps.query("task == 'age_group' and by == 'gender'").iloc[0]
    expected = (
        f"gap {100 * row['gap']:.1f} points ({100 * row['gap_low']:.1f}–"
        f"{100 * row['gap_high']:.1f}), by chance {100 * row['chance_gap']:.1f}"
    )
    assert expected in texts(subgroups_figure(scores.subgroups, scores.gaps, CAPTION))


def test_a_division_with_one_large_group_has_no_gap_in_its_picture() -> None:
    men = score(made_up_predictions(SKILLS, n=200).query("gender == 0"))
    assert "too few groups to rank" in texts(subgroups_figure(men.subgroups, men.gaps, CAPTION))


@pytest.mark.parametrize("task", TASKS)
def test_the_heat_map_has_accuracy_interval_and_count_in_each_cell(
    task: TaskName, scores: Scores, tmp_path: Path
) -> None:
    figure = heat_map_figure(scores.subgroups, scores.gaps, CAPTION, task=task)
    write_png(tmp_path / "heat_map.png", figure)
    written = texts(figure)
    cells = scores.subgroups[
        (scores.subgroups["task"] == task) & scores.subgroups["by"].isin(["gender_race", "all"])
    ]
    for cell in cells[cells["n"] > 0].to_dict("records"):
        assert f"{100 * cell['accuracy']:.1f} %" in written
        assert f"{100 * cell['low']:.1f}–{100 * cell['high']:.1f}" in written
        assert f"n {cell['n']:,}" in written
    assert "no faces" in written
    assert "hatched: under 30 faces, not ranked" in written


def test_small_and_empty_cells_have_no_colour(scores: Scores) -> None:
    figure = heat_map_figure(scores.subgroups, scores.gaps, CAPTION)
    (image,) = figure.axes[0].images
    crossed = scores.subgroups.query("task == 'age_group' and by == 'gender_race'")
    coloured = ~np.isnan(np.ma.filled(image.get_array(), np.nan))[:2, :5]
    np.testing.assert_array_equal(coloured.ravel(), crossed["n"].to_numpy() >= 30)


def test_the_reliability_diagram_says_both_errors_and_the_temperature(
    scores: Scores, tmp_path: Path
) -> None:
    found = scores.calibration["race"]
    figure = reliability_figure(found, CAPTION, task="race")
    write_png(tmp_path / "reliability.png", figure)
    written = texts(figure)
    assert f"as predicted: error {100 * found.error['test']:.1f} points" in written
    assert f"at temperature {found.temperature:.2f}" in written
    assert f"{100 * (found.by_chance or 0):.1f} by chance" in written


def test_without_validation_there_is_no_temperature_to_draw() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
    found = calibrate({"test": (probabilities, np.array([0, 1]))})
    assert "temperature" not in texts(reliability_figure(found, CAPTION, task="gender"))


def test_the_contact_sheet_shows_each_suspect_with_both_classes_and_the_caution(
    predictions: pd.DataFrame, tmp_path: Path
) -> None:
    suspects = label_suspects(predictions)
    asked: list[str] = []

    def grey(files: Sequence[str]) -> npt.NDArray[np.uint8]:
        asked.extend(files)
        return np.full((len(files), 8, 8, 3), 128, dtype=np.uint8)

    figure = contact_sheet(suspects, grey, CAPTION)
    write_png(tmp_path / "suspects.png", figure)
    first = suspects[suspects["task"] == "race"].iloc[0]
    shown = f"label {first['label']}\nread {first['contradicted_by']}"
    assert shown in texts(figure)
    assert CAUTION in texts(figure)
    assert first["file"] in asked
    assert len(figure.axes[0].images) == len(asked) <= 3 * 16


def test_a_sheet_without_suspects_says_so() -> None:
    none = label_suspects(exact_predictions(10, 10, n=10))
    figure = contact_sheet(none, lambda files: np.empty((0, 1, 1, 3), np.uint8), CAPTION)
    assert "No label is contradicted surely." in texts(figure)


def test_a_tick_between_whole_percents_is_written_as_it_is() -> None:
    written = percent_ticks()
    assert [written(rate) for rate in (0.9, 0.925, 0.95, 1, -0.05)] == [
        "90 %", "92.5 %", "95 %", "100 %", "−5 %",
    ]  # fmt: skip


def test_equal_figures_give_equal_bytes(scores: Scores, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        figure = subgroups_figure(scores.subgroups, scores.gaps, CAPTION, task="race")
        write_png(tmp_path / name, figure)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_laid_out_once_they_are_what_savefig_writes(scores: Scores, tmp_path: Path) -> None:
    history = pd.DataFrame({"train/loss": [1.0, 0.5], "val/combined": [0.2, 0.4]})
    makers: tuple[Callable[[], Figure], ...] = (
        lambda: confusion_figure(scores.confusion["race"], "race", CAPTION),
        lambda: subgroups_figure(scores.subgroups, scores.gaps, CAPTION, task="race"),
        lambda: heat_map_figure(scores.subgroups, scores.gaps, CAPTION, task="race"),
        lambda: reliability_figure(scores.calibration["race"], CAPTION, task="race"),
        lambda: curves_figure(history, CAPTION, selected_epoch=2),
        lambda: Figure(figsize=(2, 1)),
    )
    for make in makers:
        write_png(tmp_path / "ours.png", make())
        make().savefig(tmp_path / "theirs.png", dpi=DPI, metadata={"Software": None})
        assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()


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
