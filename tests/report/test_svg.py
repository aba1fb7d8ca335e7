"""What pictures are drawn with: scales, ticks, and labels that do not lie on each other."""

import pytest

from benchmark.reporting import figures
from benchmark.reporting.figures import Point


def test_a_scale_holds_all_its_values_with_a_margin() -> None:
    scale = figures.scale_over([0.2, 0.8], 0, 100)
    assert 0 < scale(0.2) < scale(0.8) < 100


def test_a_scale_over_one_value_puts_it_in_the_middle() -> None:
    assert figures.scale_over([0.5], 0, 100)(0.5) == pytest.approx(50)


def test_ticks_are_round_and_within() -> None:
    assert figures.scale_over([0.52, 0.79], 0, 100).ticks(5) == pytest.approx([0.6, 0.7, 0.8])


def test_a_narrow_range_of_costs_has_ticks_too() -> None:
    scale = figures.scale_over([31.0, 34.0], 0, 100, log=True)
    assert len(scale.ticks()) >= 2
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks())


def test_costs_over_magnitudes_have_decades() -> None:
    assert figures.scale_over([1, 10_000], 0, 100, log=True).ticks() == [1, 10, 100, 1000, 10_000]


def test_labels_move_apart_and_keep_their_order() -> None:
    moved = figures.spread([10, 10, 11, 50], 14)
    assert all(b - a >= 14 - 1e-9 for a, b in zip(moved, moved[1:], strict=False))
    assert moved[3] == 50


def test_words_are_escaped_in_an_element() -> None:
    assert str(figures.text(1, 2, "<b>&")) == '<text x="1" y="2">&lt;b&gt;&amp;</text>'
    assert 'aria-label="&#34;&lt;"' in figures.panel([], height=10, says='"<')


def test_a_leaky_panel_says_so_in_the_picture_and_to_a_screen_reader() -> None:
    panel = figures.panel([], height=100, says="Accuracy.", leaky=True)
    assert 'aria-label="LEAKY. Accuracy."' in panel
    assert ">LEAKY</text>" in panel


def test_networks_at_one_place_share_a_label() -> None:
    points = [Point(number, f"n{number}", cost, 0.5, on_front=False)
              for number, cost in ((1, 10.0), (2, 10.0), (3, 99.0))]  # fmt: skip
    panel = figures.cost_panel("By size", points, "parameters")
    assert ">1, 2</text>" in panel
    assert ">3</text>" in panel


def test_a_picture_is_told_to_who_does_not_see_it() -> None:
    spans = [figures.Span("deep − shallow", 0.026, 0.014, 0.038)]
    panel = figures.differences_panel("race", spans)
    assert "deep − shallow: +2.6 points, +1.4 to +3.8" in panel
