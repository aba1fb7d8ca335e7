"""The report's figures: marks, scales, and what a screen reader is told."""

import re

import pandas as pd
import pytest

from benchmark.comparison.wording import Mark, StudyPanel, StudyPicture
from benchmark.reporting import figures
from benchmark.tasks import TASKS

HOSTILE = '"<b>&'


def picture_of(
    *ranges: tuple[float, float], title: str = "A title", **options: bool
) -> StudyPicture:
    panels = [
        StudyPanel(task, task, (Mark(f"deep − {HOSTILE}", (low + high) / 2, low, high),))
        for task, (low, high) in zip(TASKS, ranges, strict=False)
    ]
    return StudyPicture("", title, "A caption", tuple(panels), **options)


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
    for title in ("A title", "LEAKY · scores"):
        picture = picture_of((0.014, 0.038), (0.01, 0.02), title=title, of_differences=True)
        made = figures.intervals_figure("name", picture)
        assert len(made.panels) == 2
        assert "+2.6 pp, +1.4 to +3.8" in made.panels[0]
        assert 'id="name-0-' in made.panels[0]
        assert all("<b>" not in panel and "&lt;b&gt;" in panel for panel in made.panels)
        assert made.leaky == (">LEAKY<" in made.panels[0]) == title.startswith("LEAKY")


def test_networks_at_one_place_share_a_label() -> None:
    columns = {"label": ["n1", "n2", "n3"], "cost": [10.0, 10.0, 5.0], "score": [0.5, 0.5, 0.6]}
    points = pd.DataFrame(columns, index=[1, 2, 3]).assign(on_front=[False, False, True])
    panel = figures.cost_panel("name", "By size", points, "parameters")
    assert ">1, 2<" in panel
    assert ">3<" in panel
    assert "On the front: n3 (60.0 %)." in panel


def test_lines_are_named_beneath_or_all_have_the_colour_of_a_task() -> None:
    lines = [
        figures.Line(f"series {n}", [0, 1], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7]) for n in range(9)
    ]
    named = figures.lines_panel("a", "Race", lines, x_title="depth", ticks={0: "frozen", 1: "full"})
    assert all(f">series {n}<" in named for n in range(9))
    assert ">frozen<" in named
    plain = figures.lines_panel("a", "Race", lines, x_title="epoch", colour="#009E73", rates=False)
    assert ">series 0<" not in plain
    assert "#009e73" in plain


def test_a_long_label_is_broken_within_its_panel() -> None:
    label = "LEAKY · of these, met in validation or as another picture of the cluster, n 19"
    panels = tuple(StudyPanel(task, task, (Mark(label, 0.7, 0.6, 0.8),) * 2) for task in TASKS)
    figure = figures.study_figure(StudyPicture("", "A title", "", panels), "faces", drawn=False)
    figure.draw_without_rendering()
    for axes, following in zip(figure.axes, figure.axes[1:], strict=False):
        text, second = axes.texts[0], axes.texts[2]
        assert re.sub(r"\s", " ", text.get_text()) == label
        mark_above = axes.lines[1].get_window_extent()
        assert second.get_window_extent().y1 < mark_above.y0
        assert text.get_window_extent().x1 < following.get_window_extent().x0
