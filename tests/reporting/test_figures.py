"""The report's figures: marks, scales, and what a screen reader is told."""

import re

import pytest

from benchmark.comparison.wording import Mark, StudyPanel, StudyPicture
from benchmark.reporting import figures
from benchmark.tasks import TASKS


def picture_of(
    *ranges: tuple[float, float], label: str = 'deep − "<b>&', **options: bool
) -> StudyPicture:
    panels = [
        StudyPanel(task, task, (Mark(label, (low + high) / 2, low, high),) * 2)
        for task, (low, high) in zip(TASKS, ranges, strict=False)
    ]
    return StudyPicture("", "LEAKY · scores", "A caption", tuple(panels), **options)


def test_scales_are_of_one_width_about_their_middles_and_end_at_one() -> None:
    limits = figures.common_limits(picture_of((0.60, 0.70), (0.80, 0.82), (0.96, 1.0)))
    widths = [high - low for low, high in limits]
    assert widths == pytest.approx([widths[0]] * 3)
    assert widths[0] > 0.10
    assert [sum(ends) / 2 for ends in limits[:2]] == pytest.approx([0.65, 0.81])
    assert limits[2][1] == pytest.approx(1.01)
    (ends, others) = figures.common_limits(picture_of((0.1, 0.2), (0.3, 0.4), of_differences=True))
    assert ends == others
    assert ends[0] < 0 < 0.4 < ends[1]


def test_numbers_are_told_to_who_does_not_see_the_figure_and_names_are_escaped() -> None:
    picture = picture_of((0.014, 0.038), (0.01, 0.02), of_differences=True)
    made = figures.intervals_figure("name", picture)
    assert len(made.panels) == 2
    assert ">LEAKY<" in made.panels[0]
    assert "+2.6 pp, +1.4 to +3.8" in made.panels[0]
    assert 'id="name-0-' in made.panels[0]
    assert all("<b>" not in panel and "&lt;b&gt;" in panel for panel in made.panels)


def test_a_long_label_is_broken_within_its_panel() -> None:
    label = "LEAKY · of these, met in validation or as another picture of the cluster, n 19"
    picture = picture_of(*[(0.6, 0.8)] * 3, label=label)
    figure = figures.study_figure(picture, "faces", drawn=False)
    figure.draw_without_rendering()
    for axes, following in zip(figure.axes, figure.axes[1:], strict=False):
        text, second = axes.texts[0], axes.texts[2]
        assert re.sub(r"\s", " ", text.get_text()) == label
        mark_above = axes.lines[1].get_window_extent()
        assert second.get_window_extent().y1 < mark_above.y0
        assert text.get_window_extent().x1 < following.get_window_extent().x0
