"""An audit counts who is where, finds what was planted, and is content with a sound data set."""

from pathlib import Path

import pytest

from benchmark.data.audit import audit
from benchmark.data.dataset import FaceSet
from benchmark.data.prepare import prepare
from tests.faces.sources import face_name, faces, jpeg, tar_of


@pytest.fixture
def prepared(tmp_path: Path) -> FaceSet:
    files = {**faces(60), face_name(90): jpeg(3), face_name(91): b"no picture"}
    return prepare(tar_of(tmp_path / "faces.tar", files), tmp_path / "data", image_px=32).faces


def changed(faces: FaceSet, row: int, **values: object) -> FaceSet:
    table = faces.table.copy()
    for column, value in values.items():
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
    return FaceSet(faces.folder, faces.manifest, table)


def test_a_sound_data_set_has_no_findings(prepared: FaceSet) -> None:
    result = audit(prepared)
    assert result.findings == []
    assert result.overlap_counts()["80/10/10"] == {"sha256": 0, "cluster": 0, "file": 0}
    assert len(result.overlaps) == 6
    assert result.counts["n"].sum() == prepared.manifest["counts"]["placed"]


def test_everything_left_out_is_listed_with_its_reason(prepared: FaceSet) -> None:
    rows = audit(prepared).left_out.to_dict("records")
    assert {(row["kind"], row["n"]) for row in rows} == {("picture", 1), ("no place", 2)}


def test_a_planted_duplicate_is_found(prepared: FaceSet) -> None:
    train = prepared.table.index[prepared.table["part"] == "train"][0]
    test = prepared.table.index[prepared.table["part"] == "test"][0]
    planted = changed(prepared, train, cluster=prepared.table.loc[test, "cluster"])
    result = audit(planted)
    assert result.overlap_counts()["80/10/10"]["cluster"] == 1
    assert any(finding.startswith("80/10/10 leaks") for finding in result.findings)


def test_a_changed_label_is_found(prepared: FaceSet) -> None:
    result = audit(changed(prepared, 0, gender=1 - int(prepared.table.loc[0, "gender"])))
    assert any("other labels than their names say" in finding for finding in result.findings)


def test_a_changed_pixel_is_found(prepared: FaceSet) -> None:
    path = prepared.folder / "faces.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert audit(prepared).findings == [
        "faces.npy was changed after it was prepared: its digest is another"
    ]
