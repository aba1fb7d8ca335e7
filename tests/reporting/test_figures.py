"""The report's figures: marks, scales, and what a screen reader is told."""

import pytest

from benchmark.comparison.wording import Mark, StudyPanel, StudyPicture
from benchmark.reporting import figures
from benchmark.reporting.figures import CostPoint

HOSTILE = '"<b>&'


def test_scales_are_of_one_width_about_their_middles() -> None:
    ranges = figures.same_width([(0.60, 0.70), (0.90, 0.92)])
    widths = [high - low for low, high in ranges]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[0] > 0.10
    assert [sum(ends) / 2 for ends in ranges] == pytest.approx([0.65, 0.91])


def test_numbers_are_told_to_who_does_not_see_the_figure_and_names_are_escaped() -> None:
    for title in ("A title", "LEAKY · scores"):
        mark = Mark(f"deep − {HOSTILE}", 0.026, 0.014, 0.038)
        panels = tuple(StudyPanel(task, task, (mark,)) for task in ("age_group", "race"))  # type: ignore[arg-type]
        picture = StudyPicture("", title, "A caption", panels, of_differences=True)
        made = figures.intervals_figure("name", picture)
        assert len(made.panels) == 2
        assert "+2.6 pp, +1.4 to +3.8" in made.panels[0]
        assert 'id="name-0-' in made.panels[0]
        assert all("<b>" not in panel and "&lt;b&gt;" in panel for panel in made.panels)
        assert made.leaky == (">LEAKY<" in made.panels[0]) == title.startswith("LEAKY")


def test_networks_at_one_place_share_a_label() -> None:
    points = [
        CostPoint(1, "n1", 10.0, 0.5, on_front=False),
        CostPoint(2, "n2", 10.0, 0.5, on_front=False),
        CostPoint(3, "n3", 5.0, 0.6, on_front=True),
    ]
    panel = figures.cost_panel("name", "By size", points, "parameters")
    assert ">1, 2<" in panel
    assert ">3<" in panel
    assert "On the front: n3 (60.0 %)." in panel
