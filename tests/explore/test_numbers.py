"""The counts of the page are the audit's; ages, rounding and edges are worked by hand."""

from pathlib import Path

import numpy as np
import pytest

from benchmark.data.audit import audit
from benchmark.data.dataset import FaceSet
from benchmark.data.prepare import prepare
from benchmark.reporting.explore_numbers import counted, density, explore, quantile_of
from benchmark.tasks import CLASS_NAMES, TASKS
from tests.explore.conftest import faces_aged
from tests.faces.sources import face_name, folder_of, jpeg


def test_the_counts_are_the_audits(drawn_faces: FaceSet) -> None:
    explored, audited = explore(drawn_faces), audit(drawn_faces)
    assert explored.by_part.equals(audited.counts)
    assert explored.left_out.equals(audited.left_out)
    assert explored.duplicates.identical == audited.duplicates
    for task in TASKS:
        by_class = audited.counts.groupby(task)["n"].sum()
        assert explored.part_counts(task).sum(axis=0).tolist() == [
            by_class.get(label, 0) for label in range(len(CLASS_NAMES[task]))
        ]


def test_every_cross_count_adds_up_to_its_margins(drawn_faces: FaceSet) -> None:
    explored = explore(drawn_faces)
    crossed = explored.crossed("race", "age_group")
    assert crossed.sum(axis=1).tolist() == explored.counts("race").tolist()
    assert crossed.sum(axis=0).tolist() == explored.counts("age_group").tolist()
    assert sum(n for *_, n in explored.pairs()) == explored.n_faces
    assert sum(explored.ages_of(race).sum() for race in range(5)) == explored.n_aged


def test_faces_on_an_edge_are_those_of_the_last_age_of_a_group(tmp_path: Path) -> None:
    ages = [14] * 3 + [15] * 2 + [25] + [26] * 4 + [40] * 5 + [61] * 5
    edges = explore(faces_aged(tmp_path, ages)).edges.set_index("edge")
    assert edges["n"].to_dict() == {14: 3, 25: 1, 40: 5, 60: 0}
    assert edges["n_next"].to_dict() == {14: 2, 25: 4, 40: 0, 60: 5}
    assert edges.loc[14, "share"] == pytest.approx(3 / 20)


def test_ages_that_are_all_alike_have_no_preference(tmp_path: Path) -> None:
    # Each of 23 to 62 once: 8 of 40 end in 0 or 5, which is 100 by definition.
    heaping = explore(faces_aged(tmp_path, list(range(20, 70)))).heaping
    assert heaping is not None
    assert heaping.whipple == pytest.approx(100)
    assert heaping.digit_shares == pytest.approx([0.1] * 10)
    # Nothing stands out but the ends, beyond which there is nobody.
    assert set(heaping.peaks["age"]) == {20, 21, 68, 69}


def test_rounded_ages_have_the_highest_index(tmp_path: Path) -> None:
    heaping = explore(faces_aged(tmp_path, [30, 35, 40, 45] * 5)).heaping
    assert heaping is not None
    assert heaping.whipple == pytest.approx(500)


def test_a_peak_is_measured_by_the_two_ages_on_either_side(tmp_path: Path) -> None:
    # 30 is there 8 times; around it 28, 29, 31, 32 are there 2, 2, 2 and 2 times.
    ages = [28, 29, 31, 32] * 2 + [30] * 8
    heaping = explore(faces_aged(tmp_path, ages)).heaping
    assert heaping is not None
    assert heaping.peaks.iloc[0][["age", "n", "times"]].tolist() == [30, 8, 4.0]


def test_a_density_sums_to_one_and_keeps_the_young(tmp_path: Path) -> None:
    ages = np.zeros(117, np.int64)
    ages[[1, 30]] = 50
    smooth = density(ages)
    assert smooth.sum() == pytest.approx(1, abs=0.02)
    # A peak at the beginning is mirrored back and not halved.
    assert smooth[:15].sum() == pytest.approx(0.5, abs=0.02)


def test_quantiles_are_ages_that_occur() -> None:
    ages = np.bincount([10, 20, 30, 40], minlength=117)
    assert [quantile_of(ages, level) for level in (0.25, 0.5, 0.75)] == [10, 20, 30]


def test_what_one_file_is_labelled_with_is_counted_by_pairs(tmp_path: Path) -> None:
    files = {
        face_name(1, age=30, race=0): jpeg(1),
        face_name(2, age=38, race=4): jpeg(1),
        face_name(3, age=30, race=0): jpeg(3),
        face_name(4, age=30, race=4): jpeg(3),
        **{face_name(i): jpeg(i) for i in range(5, 12)},
    }
    faces = prepare(folder_of(tmp_path / "faces", files), tmp_path / "data", image_px=24).faces
    twice = explore(faces).duplicates
    assert twice.disagreements.values.tolist() == [["race", "White", "Others", 2]]
    assert twice.years_apart.tolist() == [8]
    assert twice.cluster_sizes.values.tolist() == [[2, 2, 4]]


def test_missing_labels_are_in_no_class(without_ages: FaceSet) -> None:
    explored = explore(without_ages)
    assert explored.counts("race").tolist() == [20, 0, 0, 0, 0]
    assert (explored.n_without("race"), explored.n_aged, explored.heaping) == (20, 0, None)
    assert explored.tasks_of(*TASKS) == ["gender", "race"]
    assert counted(without_ages.table["age_group"], 5).sum() == 0
    assert sum(n for *_, n in explored.pairs()) == 20
