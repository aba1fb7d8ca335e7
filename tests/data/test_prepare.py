"""One call from a source to a whole data set, or to nothing at all and one clear sentence."""

import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmark.cli.data import app
from benchmark.data import prepare as prepare_module
from benchmark.data import progress
from benchmark.data.dataset import FaceSet
from benchmark.data.prepare import audit, prepare
from benchmark.errors import DataError
from benchmark.evaluation.predictions import limits_of
from benchmark.files import file_lock
from tests.data.sources import encoded, face_name, faces, folder_of, jpeg, picture, tar_of, zip_of


def made(tmp_path: Path, files: dict[str, bytes], image_px: int = 32) -> FaceSet:
    """The files as an archive, prepared."""
    source = tar_of(tmp_path / "faces.tar", files)
    return prepare(source, tmp_path / "data", image_px=image_px).faces


def test_the_same_faces_from_any_source_are_the_same_data_set(tmp_path: Path) -> None:
    files = faces(40)
    sources = [
        folder_of(tmp_path / "folder", files),
        tar_of(tmp_path / "a.tar", files),
        tar_of(tmp_path / "b.tar.gz", dict(reversed(files.items()))),
        zip_of(tmp_path / "My Faces (2).ZIP", files),
    ]
    prepared = [prepare(source, tmp_path / "data", image_px=32).faces for source in sources]
    assert [faces.name for faces in prepared] == ["folder-32", "a-32", "b-32", "my-faces-2-32"]
    assert len({faces.pixel_digest for faces in prepared}) == 1
    assert len({(faces.folder / "table.csv").read_bytes() for faces in prepared}) == 1


def test_the_packed_size_does_not_change_the_split(tmp_path: Path) -> None:
    files = {**faces(40), face_name(99): jpeg(3, px=96)}
    small, large = (made(tmp_path, files, image_px) for image_px in (24, 128))
    assert small.pixels().shape == (41, 24, 24, 3)
    assert large.pixels().shape == (41, 128, 128, 3)
    assert small.split_digest == large.split_digest


def test_copies_conflicts_and_near_duplicates_are_found(tmp_path: Path) -> None:
    files = {
        face_name(1): jpeg(1),
        face_name(2): jpeg(1),  # a copy of 1
        face_name(3): jpeg(3),
        face_name(4, gender=1): jpeg(3),  # the same bytes as 3, another gender
        face_name(5): encoded(picture(5, 96), quality=95),
        face_name(6): encoded(picture(5, 96), quality=60),  # 5, encoded anew
        face_name(7): jpeg(7),
    }
    prepared = made(tmp_path, files)
    table = prepared.table.set_index(prepared.table["file"].str.extract(r"1745(\d+)")[0])
    assert table["is_copy"].to_dict() == {f"{i:05d}": int(i == 2) for i in (1, 2, 3, 5, 6, 7, 4)}
    assert table.loc["00004", "no_place_reason"] == f"label conflict with {face_name(3)}"
    assert table.loc["00005", "cluster"] == table.loc["00006", "cluster"]
    assert prepared.manifest["near_duplicates"]["pairs"] == 1
    assert prepared.manifest["counts"]["placed"] == 4


def test_preparing_again_does_nothing_and_other_faces_or_options_are_refused(
    tmp_path: Path,
) -> None:
    source = tar_of(tmp_path / "faces.tar", faces(20))
    first = prepare(source, tmp_path / "data", image_px=32, name="mine")
    written = (first.faces.folder / "faces.npy").stat().st_mtime_ns
    again = prepare(source, tmp_path / "data", image_px=32, name="mine")
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.faces.folder / "faces.npy").stat().st_mtime_ns == written
    with pytest.raises(DataError, match="image_px 32, and 48 was asked for"):
        prepare(source, tmp_path / "data", image_px=48, name="mine")
    other = tar_of(tmp_path / "other.tar", faces(21))
    with pytest.raises(DataError, match="prepared with source_sha256"):
        prepare(other, tmp_path / "data", image_px=32, name="mine")


def test_clusters_and_split_can_be_taken_from_a_table_of_the_same_faces(tmp_path: Path) -> None:
    files = {**faces(40), face_name(98): jpeg(3, px=96)}
    first = prepare(tar_of(tmp_path / "a.tar", files), tmp_path / "data", image_px=32).faces
    table = first.folder / "table.csv"
    recoded = {name: encoded(picture(500 + i)) for i, name in enumerate(files)}
    source = tar_of(tmp_path / "b.tar", recoded)
    second = prepare(source, tmp_path / "data", image_px=32, table=table).faces
    assert second.split_digest == first.split_digest
    assert second.table["cluster"].tolist() == first.table["cluster"].tolist()
    assert second.manifest["table_source_sha256"] is not None
    assert not prepare(source, tmp_path / "data", image_px=32, table=table).is_new
    others = tar_of(tmp_path / "c.tar", faces(40, first=1))
    with pytest.raises(DataError, match="3 faces are in the source or the table alone"):
        prepare(others, tmp_path / "other", table=table)
    assert not (tmp_path / "other").exists()


def test_pictures_that_cannot_be_used_are_left_out_with_the_reason(tmp_path: Path) -> None:
    bad = {
        face_name(90): jpeg(90)[:700],
        face_name(91): b"no picture",
        face_name(92): encoded(Image.new("RGB", (1, 1))),
    }
    prepared = made(tmp_path, {**faces(20), **bad})
    assert prepared.manifest["counts"]["quarantined_pictures"] == 3
    assert prepared.table["file"].isin(bad).sum() == 0
    rejected = prepared.rejected().set_index("file")["reason"]
    for number, reason in ((90, "damaged"), (91, "not a picture"), (92, "1 x 1 pixels")):
        assert reason in rejected[face_name(number)]
    # The rows after those left out have moved up: each is still the picture of its name.
    for row, file in enumerate(prepared.table["file"]):
        original = np.asarray(picture(int(file.split("_")[3][12:17]), 32)).astype(float)
        assert np.abs(prepared.pixels()[row] - original).mean() < 25


def test_names_without_labels_other_files_and_converted_pictures_are_counted(
    tmp_path: Path,
) -> None:
    files = {
        **faces(20),
        "39_1_20170116174525125.jpg.chip.jpg": jpeg(90),
        "0_1_1_20170116174525125.jpg.chip.jpg": jpeg(91),
        "README.txt": b"read me",
        "__MACOSX/._1_0_0_2017.jpg": b"litter",
        face_name(90): encoded(picture(90).convert("L")),
        face_name(91): encoded(picture(91).convert("CMYK")),
        face_name(92): encoded(picture(92).resize((48, 40))),
        face_name(93): encoded(picture(93, px=20)),
    }
    prepared = prepare(zip_of(tmp_path / "faces.zip", files), tmp_path / "data", image_px=32).faces
    expected = {
        "image_files": 26, "usable": 24, "quarantined_names": 2, "not_pictures": 2,
        "converted_modes": {"CMYK": 1, "L": 1}, "not_square": 1, "enlarged": 1,
        "quarantined_pictures": 0,
    }  # fmt: skip
    assert expected.items() <= prepared.manifest["counts"].items()
    assert prepared.rejected()["kind"].tolist().count("name") == 2


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, "holds no pictures"),
        ({"notes.txt": b"none"}, r"holds no pictures \(1 other files\)"),
        ({"001A02.JPG": jpeg(1)}, "none of the 1 .*AGE_GENDER_RACE_DATE, as 25_1_3_20170116174525"),
        ({face_name(1): b"no picture"}, "none of the 1 pictures"),
        ({f"{x}/{face_name(1)}": jpeg(1) for x in "ab"}, "two pictures have the name"),
    ],
)
def test_a_source_without_usable_faces_leaves_nothing(
    tmp_path: Path, files: dict[str, bytes], found: str
) -> None:
    source = folder_of(tmp_path / "faces", files)
    source.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=found):
        prepare(source, tmp_path / "data")
    assert not (tmp_path / "data").exists() or list((tmp_path / "data").iterdir()) == []


def test_an_archive_cut_short_and_an_impossible_size_leave_nothing(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "faces.tar.gz", faces(60))
    for image_px in (15, 1025, -1):
        with pytest.raises(DataError, match="16 to 1024"):
            prepare(source, tmp_path / "data", image_px=image_px)
    source.write_bytes(source.read_bytes()[:-4000])
    with pytest.raises(DataError, match="damaged or cut short"):
        prepare(source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_data_sheet_changes_no_digest_and_is_said_with_every_number(tmp_path: Path) -> None:
    source, sheet = tar_of(tmp_path / "faces.tar", faces(20)), tmp_path / "sheet.md"
    sheet.write_text("Source: here.\nLicence: none.\n", encoding="utf-8")
    arguments = ["prepare", str(source), "--data-dir", str(tmp_path / "data")]
    bare = prepare(source, tmp_path / "data").faces
    assert bare.datasheet == ""
    assert CliRunner().invoke(app, [*arguments, "--datasheet", str(sheet)]).exit_code == 0
    told = prepare(source, tmp_path / "data").faces
    assert told.datasheet == "Source: here.\nLicence: none."
    assert {**told.manifest, "datasheet": ""} == {**bare.manifest, "datasheet": ""}
    first, *others = limits_of({"datasheet": told.datasheet})
    assert (first, tuple(others)) == ("Data sheet: Source: here. Licence: none.", limits_of({}))


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few the faces are, processes share them."""
    monkeypatch.setattr(prepare_module, "PICTURES_A_CORE", 3)
    monkeypatch.setattr(progress, "n_cores", lambda: 2)


def test_processes_give_the_same_data_set_as_one(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = tar_of(tmp_path / "faces.tar", {**faces(40), face_name(90): b"no picture"})
    alone = prepare(source, tmp_path / "alone", image_px=32)
    request.getfixturevalue("in_processes")
    shared = prepare(source, tmp_path / "shared", image_px=32)
    for file in ("faces.npy", "table.csv", "quarantine.csv", "manifest.json"):
        assert (shared.faces.folder / file).read_bytes() == (alone.faces.folder / file).read_bytes()


class Killed(BaseException):
    """As sudden as a signal: nothing that catches errors catches it."""


@pytest.mark.usefixtures("in_processes")
@pytest.mark.parametrize("stage", ["packing faces", "looking for near-duplicates"])
def test_being_stopped_leaves_nothing_and_the_next_try_works(tmp_path: Path, stage: str) -> None:
    def stop(now: str, done: int, total: int) -> None:
        if now == stage:
            raise Killed

    source = tar_of(tmp_path / "faces.tar", faces(80))
    with pytest.raises(Killed):
        prepare(source, tmp_path / "data", image_px=32, on_progress=stop)
    assert list((tmp_path / "data").iterdir()) == []
    assert prepare(source, tmp_path / "data", image_px=32).is_new


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 20 kB, which the system refuses as it refuses a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = tar_of(tmp_path / "faces.tar", faces(20))
    request.getfixturevalue("full_disk")
    arguments = ["prepare", str(source), "--data-dir", str(tmp_path / "data")]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, "Check the free space" in result.stderr) == (2, True)
    assert list((tmp_path / "data").iterdir()) == []


def test_two_processes_that_prepare_the_same_faces_make_them_once(tmp_path: Path) -> None:
    source, data_dir = folder_of(tmp_path / "folder", faces(40)), tmp_path / "data"
    said: list[str] = []
    with file_lock(data_dir / ".folder-32.lock"):
        waiting = ThreadPoolExecutor(1).submit(
            prepare, source, data_dir, image_px=32,
            on_progress=lambda what, _done, _total: said.append(what),
        )  # fmt: skip
        while not any(what.startswith("waiting for process") for what in said):
            assert not waiting.done()
            time.sleep(0.01)
        assert not (data_dir / "folder-32").exists()
    assert waiting.result().is_new
    assert not prepare(source, data_dir, image_px=32).is_new
    assert [path.name for path in data_dir.iterdir()] == ["folder-32"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    files = {**faces(60), face_name(90): jpeg(3), face_name(91): b"no picture"}
    return made(tmp_path_factory.mktemp("prepared"), files)


def changed(faces: FaceSet, row: int, **values: object) -> FaceSet:
    table = faces.table.copy()
    for column, value in values.items():
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
    return FaceSet(faces.folder, faces.manifest, table)


def test_a_sound_data_set_has_no_findings_and_lists_what_was_left_out(prepared: FaceSet) -> None:
    result = audit(prepared)
    assert result["findings"] == []
    assert len(result["overlaps"]) == 6
    assert result["overlaps"]["80/10/10"] == {"sha256": 0, "cluster": 0, "file": 0}
    assert sum(row["n"] for row in result["counts"]) == prepared.manifest["counts"]["placed"]
    rows = result["left_out"]
    assert {(row["kind"], row["n"]) for row in rows} == {("picture", 1), ("no place", 2)}


def test_a_planted_duplicate_a_changed_label_and_a_placed_copy_are_found(prepared: FaceSet) -> None:
    part = prepared.table["part"]
    train, test = (prepared.table.index[part == name][0] for name in ("train", "test"))
    planted = audit(changed(prepared, train, cluster=prepared.table.loc[test, "cluster"]))
    assert planted["overlaps"]["80/10/10"]["cluster"] == 1
    assert any(finding.startswith("80/10/10 leaks") for finding in planted["findings"])
    relabelled = audit(changed(prepared, 0, gender=1 - int(prepared.table.loc[0, "gender"])))
    assert any("other labels than their names" in finding for finding in relabelled["findings"])
    copied = audit(changed(prepared, train, is_copy=1))["findings"]
    assert copied == ["a copy or a label conflict has a place in the split"]


def test_a_changed_pixel_is_found(prepared: FaceSet) -> None:
    path = prepared.folder / "faces.npy"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert audit(prepared)["findings"] == ["faces.npy was changed after it was prepared"]
    path.write_bytes(before)
