"""The counts are the audit's; figures say what the numbers are; the page stands alone."""

import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.data.dataset import FaceSet, store_faces
from benchmark.data.labels import age_group_of
from benchmark.data.prepare import audit, prepare
from benchmark.evaluation.figures import as_svg
from benchmark.reporting.explore import (
    Explored,
    exploration_page,
    explore,
    figures_of,
    tables_of,
    who_figure,
    write_exploration,
)
from benchmark.tasks import CLASS_NAMES, TASKS
from tests.data.sources import folder_of, jpeg


def explored_of(tmp_path: Path, ages: list[int]) -> Explored:
    """A data set of men who are White, of these ages, no two pictures alike."""
    images = np.random.default_rng(5).integers(0, 256, (len(ages), 24, 24, 3), dtype=np.uint8)
    labels = pd.DataFrame(
        {
            "file": [f"{age}_0_0_{i:04d}.jpg" for i, age in enumerate(ages)],
            "age": ages,
            "age_group": [age_group_of(age) for age in ages],
            "gender": 0,
            "race": 0,
        }
    )
    return explore(store_faces(images, labels, name="aged", data_dir=tmp_path))


def test_the_counts_are_the_audits_and_add_up(drawn_faces: FaceSet) -> None:
    explored, audited = explore(drawn_faces), audit(drawn_faces)
    assert explored.numbers["left_out"] == audited["left_out"]
    assert explored.numbers["duplicates"] == audited["duplicates"]
    rows = [[cell.value for cell in row.cells] for row in tables_of(explored)["classes"].rows]
    for task in TASKS:
        by_class = pd.DataFrame(audited["counts"]).groupby(["part", task])["n"].sum()
        shown = [row for row in rows if row[0] == task.replace("_", " ")]
        assert [row[1] for row in shown] == list(CLASS_NAMES[task])
        assert sum(int(row[2] or 0) for row in shown) == len(drawn_faces.table)
        for code, row in enumerate(shown):
            of_parts = [by_class.get((part, code), 0) for part in ("train", "val", "test")]
            assert row[4:] == of_parts
    crossed = explored.crossed("race", "age_group")
    assert crossed.sum(axis=1).tolist() == explored.counts("race").tolist()
    assert sum(row["n"] for row in explored.numbers["gender_race"]) == explored.numbers["faces"]


def test_faces_on_an_edge_are_those_of_the_last_age_of_a_group(tmp_path: Path) -> None:
    ages = [14] * 3 + [15] * 2 + [25] + [26] * 4 + [40] * 5 + [61] * 5
    edges = explored_of(tmp_path, ages).numbers["bin_edges"]
    assert [(edge["edge"], edge["n"], edge["n_next"]) for edge in edges] == [
        *((14, 3, 2), (25, 1, 4), (40, 5, 0), (60, 0, 5)),
    ]
    assert edges[0]["share"] == pytest.approx(3 / 20)


def test_heaping_is_measured_by_whipples_index(tmp_path: Path) -> None:
    # Each of 23 to 62 once: 8 of 40 end in 0 or 5, which is 100 by definition.
    even = explored_of(tmp_path / "even", list(range(20, 70))).numbers["heaping"]
    assert even["whipple"] == pytest.approx(100)
    heaped = explored_of(tmp_path / "heaped", [30, 35, 40, 45] * 5).numbers["heaping"]
    assert heaped["whipple"] == pytest.approx(500)


def test_what_is_not_labelled_is_in_no_class_and_its_sections_are_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", {f"p{i}.jpg": jpeg(i) for i in range(40)})
    rows = [f"p{i}.jpg,{'mf'[i % 2]},{'White' if i < 20 else ''}" for i in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,gender,race", *rows]))
    labels = [tmp_path / "labels.csv"]
    faces = prepare(folder, tmp_path / "data", image_px=24, labels=labels, name="photos").faces
    found = explore(faces)
    assert found.counts("race").tolist() == [20, 0, 0, 0, 0]
    assert (found.numbers["without"]["race"], found.numbers["ages"]) == (20, {})
    assert found.numbers["heaping"] is None
    assert sum(row["n"] for row in found.numbers["gender_race"]) == 20
    figures = figures_of(found)
    assert list(figures) == ["who", "gender_race"]
    shown = unescape(exploration_page(found, dict.fromkeys(figures, "")))
    assert "No face is labelled with age group: neither trained nor evaluated here." in shown
    assert "20 of 40 faces (50.0 %) have no race" in shown
    assert "<h2>Ages</h2>" not in shown
    assert "How the labels were read" in shown


def test_a_bar_says_its_count_and_share(tmp_path: Path) -> None:
    figure = who_figure(explored_of(tmp_path, [10] * 6 + [70] * 18))
    by_title = {axes.get_title(loc="left"): axes for axes in figure.axes}
    texts = [text.get_text() for text in by_title["age group"].texts]
    assert texts == ["6 · 25.0 %", "0 · 0.0 %", "0 · 0.0 %", "0 · 0.0 %", "18 · 75.0 %"]
    assert "male" in re.sub("<[^>]+>", " ", as_svg(figure, "who"))


def test_the_page_needs_nothing_and_names_of_others_are_text(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    manifest = {**drawn_faces.manifest, "source": "<script>alert(1)</script>"}
    explored = explore(FaceSet(drawn_faces.folder, manifest, drawn_faces.table))
    written = write_exploration(explored, tmp_path)
    text = written[0].read_text(encoding="utf-8")
    assert not re.search(r"<img|<image|@import|src=|data:image/(png|jpe?g|webp)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "SYNTHETIC FACES" in text
    assert "&lt;script&gt;alert" in text
    names = ["who", "ages", "age_groups", "gender_race"]
    assert [path.name for path in written[1:]] == [f"{name}.png" for name in names]
    assert max(path.stat().st_size for path in written[1:]) < 150_000
