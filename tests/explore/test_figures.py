"""Figures say what the numbers are: slices are named after the very rows that drew them."""

import re
from pathlib import Path

import pytest
from matplotlib.patches import Wedge

from benchmark.data.dataset import FaceSet
from benchmark.reporting.explore_figures import as_svg, donut_figure, figures_of, who_figure
from benchmark.reporting.explore_numbers import Explored, explore
from benchmark.tasks import CLASS_NAMES
from tests.explore.conftest import faces_aged


@pytest.fixture
def explored(drawn_faces: FaceSet) -> Explored:
    return explore(drawn_faces)


def test_every_slice_of_the_donut_is_named_after_the_faces_it_stands_for(
    explored: Explored,
) -> None:
    axes = donut_figure(explored).axes[0]
    slices = {patch.get_gid(): patch for patch in axes.patches if isinstance(patch, Wedge)}
    labels = {text.get_gid(): text.get_text() for text in axes.texts if text.get_gid()}
    table = explored.table
    seen = 0
    for mark, text in labels.items():
        gender, race = re.fullmatch(r"label-gender-(\d)-race-(\d)", mark).groups()  # type: ignore[union-attr]
        n = int(((table["gender"] == int(gender)) & (table["race"] == int(race))).sum())
        piece = slices[mark.removeprefix("label-")]
        span = (piece.theta2 - piece.theta1) % 360
        assert span == pytest.approx(360 * n / len(table))
        assert text.startswith(f"{CLASS_NAMES['race'][int(race)]}\n{n:,} ")
        # Men are drawn first, clockwise from the top: their slices lie within the men's half.
        whole = slices[f"gender-{gender}"]
        assert whole.theta1 - 1e-6 <= piece.theta1 <= piece.theta2 <= whole.theta2 + 1e-6
        seen += n
    assert seen == len(table)


def test_a_bar_says_its_count_and_share(tmp_path: Path) -> None:
    figure = who_figure(explore(faces_aged(tmp_path, [10] * 6 + [70] * 18)))
    by_title = {axes.get_title(loc="left"): axes for axes in figure.axes}
    texts = [text.get_text() for text in by_title["age group"].texts]
    assert texts == ["6 · 25.0 %", "0 · 0.0 %", "0 · 0.0 %", "0 · 0.0 %", "18 · 75.0 %"]


def test_all_figures_are_drawn_and_only_where_there_are_labels(
    explored: Explored, without_ages: FaceSet
) -> None:
    assert list(figures_of(explored)) == [
        "who", "ages", "heaping", "bin_edges", "age_groups", "gender_race", "ages_by_race", "parts",
    ]  # fmt: skip
    assert list(figures_of(explore(without_ages))) == ["who", "gender_race", "parts"]


def test_a_figure_on_a_page_takes_the_pages_colours_and_has_ids_of_its_own(
    explored: Explored,
) -> None:
    svg = as_svg(who_figure(explored), "who")
    assert "var(--ink)" in svg
    assert "#222222" not in svg
    assert set(re.findall(r'id="(\w+)-', svg)) == {"who"}
    assert as_svg(who_figure(explored), "who") == svg
    assert "male" in re.sub("<[^>]+>", " ", svg)
    assert not re.search(r"<image|data:image|<script", svg)
