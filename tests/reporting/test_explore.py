"""The counts are the audit's; figures say what the numbers are; the page stands alone."""

import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Wedge

from benchmark.data.dataset import FaceSet, store_faces
from benchmark.data.labels import age_group_of
from benchmark.data.prepare import audit, prepare
from benchmark.reporting import explore
from benchmark.reporting.explore import Explored, figures_of, write_exploration
from benchmark.tasks import CLASS_NAMES, TASKS
from tests.data.sources import folder_of, jpeg


def explored_of(tmp_path: Path, ages: list[int]) -> Explored:
    """A data set of men who are White, of these ages, no two pictures alike."""
    images = np.random.default_rng(5).integers(0, 256, (len(ages), 24, 24, 3), dtype=np.uint8)
    labels = pd.DataFrame({"age": ages, "gender": 0, "race": 0})
    labels["file"] = [f"{age}_0_0_{i:04d}.jpg" for i, age in enumerate(ages)]
    labels["age_group"] = [age_group_of(age) for age in ages]
    return Explored(store_faces(images, labels, name="aged", data_dir=tmp_path))


def test_the_counts_are_the_audits_and_add_up(drawn_faces: FaceSet) -> None:
    explored, audited = Explored(drawn_faces), audit(drawn_faces)
    for key in ("left_out", "duplicates"):
        assert explored.numbers[key] == audited[key]
    rows = [row.cells for row in explore.tables_of(explored)["classes"].rows]
    classes = [(task, code, name) for task in TASKS for code, name in enumerate(CLASS_NAMES[task])]
    for (task, code, name), row in zip(classes, rows, strict=True):
        counts = pd.DataFrame(audited["counts"]).groupby(["part", task])["n"].sum()
        of_parts = [counts.get((part, code), 0) for part in ("train", "val", "test")]
        assert (row[0].text, [cell.value for cell in row[3:6]]) == (name, of_parts)
        assert row[1].value == (drawn_faces.table[task] == code).sum()
    assert explored.counts("gender", "race").sum() == explored.numbers["faces"]


def test_edges_are_the_last_ages_of_groups_and_heaping_is_measured(tmp_path: Path) -> None:
    ages = [14] * 3 + [15] * 2 + [25] + [26] * 4 + [40] * 5 + [61] * 5
    edges = explored_of(tmp_path / "edges", ages).numbers["bin_edges"]
    found = [(edge["edge"], edge["n"], edge["n_next"]) for edge in edges]
    assert found == [(14, 3, 2), (25, 1, 4), (40, 5, 0), (60, 0, 5)]
    assert edges[0]["share"] == pytest.approx(3 / 20)
    # Each of 23 to 62 once: 8 of 40 end in 0 or 5, which is 100 by definition.
    even = explored_of(tmp_path / "even", list(range(20, 70))).numbers["heaping"]
    assert even["whipple"] == pytest.approx(100)
    assert even["digit_shares"] == pytest.approx([0.1] * 10)
    heaped = explored_of(tmp_path / "heaped", [30, 35, 40, 45] * 5).numbers["heaping"]
    assert heaped["whipple"] == pytest.approx(500)
    children = explored_of(tmp_path / "children", [3] * 10 + [9] * 10)
    assert children.numbers["heaping"]["whipple"] is None
    assert "heaping" not in figures_of(children)


def test_every_slice_of_the_donut_is_named_after_the_faces_it_stands_for(
    drawn_faces: FaceSet,
) -> None:
    table, axes = drawn_faces.table, explore.donut_figure(Explored(drawn_faces)).axes[0]
    slices = [patch for patch in axes.patches if isinstance(patch, Wedge)]
    counts = table.groupby(["gender", "race"]).size()
    genders = counts.groupby("gender").sum()
    expected = [*zip(CLASS_NAMES["gender"], genders, strict=True)]
    expected += [(CLASS_NAMES["race"][race], n) for (_, race), n in counts.items()]
    starts = [0, genders[0], 0, *counts.cumsum()[:-1]]
    for text, piece, (name, n), start in zip(axes.texts, slices, expected, starts, strict=True):
        assert text.get_text().startswith(f"{name}\n{n:,}")
        shares = (90 - piece.theta2) / 360, (piece.theta2 - piece.theta1) / 360
        assert shares == pytest.approx((start / len(table), n / len(table)), abs=1e-5)


def test_what_is_not_labelled_is_in_no_class_and_its_sections_are_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", {f"p{i}.jpg": jpeg(i) for i in range(40)})
    rows = [f"p{i}.jpg,{'mf'[i % 2]},{'White' if i < 20 else ''}" for i in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,gender,race", *rows]))
    faces = prepare(folder, tmp_path, image_px=24, labels=[tmp_path / "labels.csv"]).faces
    found = Explored(faces)
    assert found.counts("race").tolist() == [20, 0, 0, 0, 0]
    assert found.numbers["heaping"] is None
    assert list(figures_of(found)) == ["who", "gender_race", "parts"]
    shown = unescape(write_exploration(found, tmp_path / "page")[0].read_text(encoding="utf-8"))
    assert "40 of 40 faces (100.0 %) have no age group" in shown
    assert "20 of 40 faces (50.0 %) have no race" in shown
    assert "<h2>Ages</h2>" not in shown


def test_the_page_needs_nothing_and_a_bar_says_its_count(tmp_path: Path) -> None:
    explored = explored_of(tmp_path, [10] * 6 + [30] * 18)
    by_title = {axes.get_title(loc="left"): axes for axes in figures_of(explored)["who"].axes}
    texts = [text.get_text() for text in by_title["age group"].texts]
    assert texts == ["6 · 25.0 %", "0 · 0.0 %", "18 · 75.0 %", "0 · 0.0 %", "0 · 0.0 %"]
    page, *pictures = write_exploration(explored, tmp_path / "page")
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<img|<image|@import|src=|data:image/(png|jpe?g|webp)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    names = ["who", "ages", "heaping", "age_groups", "gender_race", "ages_by_race", "parts"]
    assert [path.name for path in pictures] == [f"{name}.png" for name in names]
