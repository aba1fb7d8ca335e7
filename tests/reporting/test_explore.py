"""The counts are the audit's; figures say what the numbers are; the page stands alone."""

import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Wedge

from benchmark.data.audit import audit
from benchmark.data.dataset import FaceSet, store_faces
from benchmark.data.labels import age_group_of
from benchmark.data.prepare import prepare
from benchmark.evaluation.figures import as_svg
from benchmark.reporting.explore import (
    Explored,
    density,
    donut_figure,
    explore,
    figures_of,
    quantile_of,
    who_figure,
)
from benchmark.reporting.explore_page import page, write_exploration
from benchmark.tasks import CLASS_NAMES, TASKS
from tests.data.sources import face_name, folder_of, jpeg


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


@pytest.fixture
def without_ages(tmp_path: Path) -> Explored:
    """Forty faces from a table that tells gender and, of half of them, race."""
    folder = folder_of(tmp_path / "photos", {f"p{i}.jpg": jpeg(i) for i in range(40)})
    rows = [f"p{i}.jpg,{'mf'[i % 2]},{'White' if i < 20 else ''}" for i in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,gender,race", *rows]))
    labels = [tmp_path / "labels.csv"]
    faces = prepare(folder, tmp_path / "data", image_px=24, labels=labels, name="photos").faces
    return explore(faces)


@pytest.fixture(scope="module")
def written(drawn_faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_exploration(explore(drawn_faces), tmp_path_factory.mktemp("explore"))


def test_the_counts_are_the_audits_and_add_up(drawn_faces: FaceSet) -> None:
    explored, audited = explore(drawn_faces), audit(drawn_faces)
    assert explored.numbers["left_out"] == audited.left_out.to_dict("records")
    assert explored.numbers["duplicates"] == audited.duplicates
    for task in TASKS:
        by_class = audited.counts.groupby(["part", task])["n"].sum()
        for (part, name), n in explored.counts("part", task).items():
            assert n == by_class.get((part, CLASS_NAMES[task].index(name)), 0)
    crossed = explored.crossed("race", "age_group")
    assert crossed.sum(axis=1).tolist() == explored.counts("race").tolist()
    assert crossed.sum().tolist() == explored.counts("age_group").tolist()
    assert sum(row["n"] for row in explored.numbers["gender_race"]) == explored.numbers["faces"]
    assert sum(explored.ages_of(race).sum() for race in CLASS_NAMES["race"]) == explored.ages.sum()


def test_faces_on_an_edge_are_those_of_the_last_age_of_a_group(tmp_path: Path) -> None:
    ages = [14] * 3 + [15] * 2 + [25] + [26] * 4 + [40] * 5 + [61] * 5
    edges = explored_of(tmp_path, ages).numbers["bin_edges"]
    assert [(edge["edge"], edge["n"], edge["n_next"]) for edge in edges] == [
        *((14, 3, 2), (25, 1, 4), (40, 5, 0), (60, 0, 5)),
    ]
    assert edges[0]["share"] == pytest.approx(3 / 20)


def test_heaping_is_measured_by_whipples_index_digits_and_peaks(tmp_path: Path) -> None:
    # Each of 23 to 62 once: 8 of 40 end in 0 or 5, which is 100 by definition.
    even = explored_of(tmp_path / "even", list(range(20, 70))).numbers["heaping"]
    assert even["whipple"] == pytest.approx(100)
    assert even["digit_shares"] == pytest.approx([0.1] * 10)
    # Nothing stands out but the ends, beyond which there is nobody.
    assert {peak["age"] for peak in even["peaks"]} == {20, 21, 68, 69}
    heaped = explored_of(tmp_path / "heaped", [30, 35, 40, 45] * 5).numbers["heaping"]
    assert heaped["whipple"] == pytest.approx(500)
    # 30 is there 8 times; around it 28, 29, 31, 32 are there 2, 2, 2 and 2 times.
    ages = [28, 29, 31, 32] * 2 + [30] * 8
    peak = explored_of(tmp_path / "peak", ages).numbers["heaping"]["peaks"][0]
    assert (peak["age"], peak["n"], peak["times"]) == (30, 8, 4.0)


def test_densities_keep_the_young_and_quantiles_are_ages_that_occur() -> None:
    ages = np.zeros(117, np.int64)
    ages[[1, 30]] = 50
    smooth = density(ages)
    assert smooth.sum() == pytest.approx(1, abs=0.02)
    # A peak at the beginning is mirrored back and not halved.
    assert smooth[:15].sum() == pytest.approx(0.5, abs=0.02)
    ages = np.bincount([10, 20, 30, 40], minlength=117)
    assert [quantile_of(ages, level) for level in (0.25, 0.5, 0.75)] == [10, 20, 30]


def test_labels_of_one_file_are_counted_by_pairs_and_shown(tmp_path: Path) -> None:
    files = {
        face_name(1, age=30, race=0): jpeg(1),
        face_name(2, age=38, race=4): jpeg(1),
        face_name(3, age=30, race=0): jpeg(3),
        face_name(4, age=30, race=4): jpeg(3),
        **{face_name(i): jpeg(i) for i in range(5, 12)},
    }
    faces = prepare(folder_of(tmp_path / "faces", files), tmp_path / "data", image_px=24).faces
    explored = explore(faces)
    pair = {"task": "race", "first": "White", "second": "Others", "groups": 2}
    assert explored.numbers["disagreements"] == [pair]
    assert explored.numbers["years_apart"] == [8]
    assert "duplicates" in figures_of(explored)
    cells = re.sub(r"(<[^>]+>|\s)+", "|", page(explored, {}))
    assert "|race|White|Others|2|" in cells
    assert "|faces in a cluster|clusters|faces|2|2|4|".replace(" ", "|") in cells


def test_what_is_not_labelled_is_in_no_class_and_its_sections_are_left_out(
    without_ages: Explored,
) -> None:
    assert without_ages.counts("race").tolist() == [20, 0, 0, 0, 0]
    numbers = without_ages.numbers
    assert (numbers["without"]["race"], numbers["ages"], numbers["heaping"]) == (20, {}, None)
    assert sum(row["n"] for row in numbers["gender_race"]) == 20
    assert list(figures_of(without_ages)) == ["who", "gender_race", "parts"]
    shown = unescape(page(without_ages, {}))
    assert "No face is labelled with age group: neither trained nor evaluated here." in shown
    assert "20 of 40 faces (50.0 %) have no race" in shown
    assert "Label heaping" not in shown
    assert "How the labels were read" in shown


def test_every_slice_of_the_donut_is_named_after_the_faces_it_stands_for(
    drawn_faces: FaceSet,
) -> None:
    axes = donut_figure(explore(drawn_faces)).axes[0]
    slices = {patch.get_gid(): patch for patch in axes.patches if isinstance(patch, Wedge)}
    table, seen = drawn_faces.table, 0
    for text in axes.texts:
        gender, *race = str(text.get_gid()).removeprefix("label-").split("-")
        if not race:
            continue
        codes = CLASS_NAMES["gender"].index(gender), CLASS_NAMES["race"].index(*race)
        n = int(((table["gender"] == codes[0]) & (table["race"] == codes[1])).sum())
        piece, whole = slices[f"slice-{gender}-{race[0]}"], slices[f"slice-{gender}"]
        assert piece.theta2 - piece.theta1 == pytest.approx(360 * n / len(table), abs=1e-3)
        assert text.get_text().startswith(f"{race[0]}\n{n:,} ")
        # Men are drawn first, clockwise from the top: their slices lie within the men's half.
        assert whole.theta1 - 1e-3 <= piece.theta1 <= piece.theta2 <= whole.theta2 + 1e-3
        seen += n
    assert seen == len(table)


def test_a_bar_says_its_count_and_share(tmp_path: Path) -> None:
    figure = who_figure(explored_of(tmp_path, [10] * 6 + [70] * 18))
    by_title = {axes.get_title(loc="left"): axes for axes in figure.axes}
    texts = [text.get_text() for text in by_title["age group"].texts]
    assert texts == ["6 · 25.0 %", "0 · 0.0 %", "0 · 0.0 %", "0 · 0.0 %", "18 · 75.0 %"]
    svg = as_svg(figure, "who")
    assert "var(--ink)" in svg
    assert "male" in re.sub("<[^>]+>", " ", svg)


def test_the_page_needs_nothing_and_its_links_lead_somewhere(written: list[Path]) -> None:
    text = written[0].read_text(encoding="utf-8")
    assert not re.search(r"<img|<image|<script|<link|@import|src=|data:image", text)
    assert not re.search(r"url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert set(re.findall(r'href="(.)', text)) == {"#"}
    assert "prefers-color-scheme: dark" in text
    assert "SYNTHETIC FACES" in text
    names = ["who", "ages", "heaping", "bin_edges", "age_groups", "gender_race"]
    names += ["ages_by_race", "parts"]
    assert [path.name for path in written[1:]] == [f"{name}.png" for name in names]
    assert max(path.stat().st_size for path in written[1:]) < 150_000


def test_the_counts_on_the_page_are_the_audits(written: list[Path], drawn_faces: FaceSet) -> None:
    text = unescape(re.sub(r"<[^>]+>", "|", written[0].read_text(encoding="utf-8")))
    cells, counts = re.sub(r"[|\s]+", "|", text), audit(drawn_faces).counts
    for part, gender, name in ((0, 0, "male"), (2, 1, "female")):
        is_it = (counts["part"] == ("train", "val", "test")[part]) & (counts["gender"] == gender)
        row = re.search(rf"\|{name}\|((?:\d+\|\([\d.]+\|%\)\|){{3}})", cells)
        assert row is not None
        assert int(re.findall(r"(\d+)\|\(", row[1])[part]) == counts[is_it]["n"].sum()


def test_names_of_others_are_text_and_nothing_else(drawn_faces: FaceSet) -> None:
    manifest = {**drawn_faces.manifest, "source": "<script>alert(1)</script>"}
    shown = page(explore(FaceSet(drawn_faces.folder, manifest, drawn_faces.table)), {})
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
