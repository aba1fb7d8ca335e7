"""The real archive gives exactly the counts that are published with every number we measure."""

from pathlib import Path

import pandas as pd
import pytest

from benchmark.data.dataset import Prepared
from benchmark.data.prepare import audit, prepare
from tests.conftest import shared_file
from tests.data.test_splits import check_spread

pytestmark = [pytest.mark.real, pytest.mark.slow]

SPLIT_DIGEST = "dd739fd5ab4a1c2604d0da21739848783c86975fc0d5d2aa7da9b06a92a6d350"
"""leak-free-2 on UTKFace. Another digest is another split, and needs another version."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """UTKFace, 23,708 files of 200 px, prepared at 100 px."""
    archive = shared_file("data", "UTKFace.tar.gz")
    return prepare(archive, tmp_path_factory.mktemp("real"))


def test_everything_is_counted_as_published(real: Prepared) -> None:
    counts, near = (real.faces.manifest[name] for name in ("counts", "near_duplicates"))
    assert (counts["image_files"], counts["usable"]) == (23_708, 23_705)
    assert (counts["quarantined_pictures"], counts["not_pictures"]) == (0, 0)
    assert real.faces.pixels().shape == (23_705, 100, 100, 3)
    rejected = real.faces.rejected()
    assert rejected["file"].tolist() == [
        "39_1_20170116174525125.jpg.chip.jpg",
        "61_1_20170109142408075.jpg.chip.jpg",
        "61_1_20170109150557335.jpg.chip.jpg",
    ]
    assert set(rejected["reason"]) == {"the name has no race"}
    odd = ("24_0_1_20170116220224657 .jpg.chip.jpg", "55_0_0_20170116232725357jpg.chip.jpg")
    assert set(odd) < set(real.faces.table["file"])
    same = counts["identical"]
    assert (same["groups"], same["files"], same["groups_in_conflict"]) == (375, 765, 259)
    by_label = [same[f"groups_in_conflict_{x}"] for x in ("age", "age_group", "gender", "race")]
    assert by_label == [205, 77, 40, 70]
    assert same["groups_in_conflict_any_task"] == 163
    assert (near["threshold_bits"], near["pairs"], near["mirrored_pairs"]) == (28, 749, 39)
    aligned = near["correlation"]
    assert (aligned["threshold"], aligned["pairs"], aligned["mirrored_pairs"]) == (0.842, 830, 54)
    assert (near["pairs_by_either"], aligned["pairs_not_found_by_hash"]) == (847, 98)
    assert counts["largest_cluster"] == 5
    # 23,705 usable - 221 copies - 332 in conflict.
    assert (counts["copies"], counts["label_conflicts"], counts["placed"]) == (221, 332, 23_152)
    assert [counts[part] for part in ("train", "val", "test")] == [18_521, 2_316, 2_315]


def test_the_split_is_the_published_one_and_nothing_leaks(real: Prepared) -> None:
    assert real.faces.split_digest == SPLIT_DIGEST
    placed = real.faces.table[real.faces.table["part"] != ""]
    strata = placed.groupby(["age_group", "gender", "race"])["part"]
    tested = pd.DataFrame({"n": strata.size(), "test": strata.apply(lambda x: (x == "test").sum())})
    # A cluster of near-duplicates with other labels can shift a stratum by a face or three.
    assert (tested["test"] - tested["n"] / 10).abs().max() <= 3.5
    check_spread(placed)
    result = audit(real.faces)
    assert (result["findings"], len(result["counts"]) > 100) == ([], True)


def test_the_smaller_archive_shares_the_split(real: Prepared, tmp_path: Path) -> None:
    again = prepare(shared_file("data", "UTKFace.tar.gz"), real.faces.folder.parent)
    assert not again.is_new
    archive = shared_file("data", "UTKFace-100px.tar.gz")
    smaller = prepare(archive, tmp_path, table=real.faces.folder / "table.csv").faces
    assert smaller.name == "utkface-100px-100"
    assert smaller.split_digest == SPLIT_DIGEST
    assert smaller.pixel_digest != real.faces.pixel_digest
