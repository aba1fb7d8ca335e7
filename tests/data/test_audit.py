"""An audit counts every part and finds what was planted, and nothing in a sound data set."""

from pathlib import Path

import pytest

from benchmark.data.audit import audit
from benchmark.data.dataset import FaceSet
from benchmark.data.prepare import prepare
from tests.data.sources import face_name, faces, jpeg, tar_of


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


def test_a_sound_data_set_has_no_findings_and_lists_what_was_left_out(prepared: FaceSet) -> None:
    result = audit(prepared)
    assert result.findings == []
    assert len(result.overlap_counts) == 6
    assert result.overlap_counts["80/10/10"] == {"sha256": 0, "cluster": 0, "file": 0}
    assert result.counts["n"].sum() == prepared.manifest["counts"]["placed"]
    rows = result.left_out.to_dict("records")
    assert {(row["kind"], row["n"]) for row in rows} == {("picture", 1), ("no place", 2)}


def test_a_planted_duplicate_a_changed_label_and_a_placed_copy_are_found(prepared: FaceSet) -> None:
    part = prepared.table["part"]
    train, test = (prepared.table.index[part == name][0] for name in ("train", "test"))
    planted = audit(changed(prepared, train, cluster=prepared.table.loc[test, "cluster"]))
    assert planted.overlap_counts["80/10/10"]["cluster"] == 1
    assert any(finding.startswith("80/10/10 leaks") for finding in planted.findings)
    relabelled = audit(changed(prepared, 0, gender=1 - int(prepared.table.loc[0, "gender"])))
    assert any("other labels than their names" in finding for finding in relabelled.findings)
    copied = audit(changed(prepared, train, is_copy=1)).findings
    assert copied == ["a copy or a label conflict has a place in the split"]


def test_a_changed_pixel_is_found(prepared: FaceSet) -> None:
    path = prepared.folder / "faces.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = audit(prepared).findings
    assert found == ["faces.npy was changed after it was prepared: its digest is another"]
