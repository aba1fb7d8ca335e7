"""One call from a source to a whole data set, or to nothing at all and one clear sentence."""

import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.data import prepare as prepare_module
from benchmark.data import progress
from benchmark.data.dataset import FaceSet
from benchmark.data.prepare import audit, prepare
from benchmark.data.progress import in_parallel
from benchmark.errors import DataError
from benchmark.evaluation.predictions import limits_of
from benchmark.files import file_lock
from tests.data.sources import encoded, face_name, faces, folder_of, jpeg, picture, tar_of, zip_of


def made(tmp_path: Path, files: dict[str, bytes], image_px: int = 32) -> FaceSet:
    """The files as an archive, prepared."""
    source = tar_of(tmp_path / "faces.tar", files)
    return prepare(source, tmp_path / "data", image_px=image_px).faces


def test_the_same_faces_from_any_source_are_the_same_data_set(tmp_path: Path) -> None:
    files = faces(40) | {face_name(99): jpeg(3, px=96)}
    sources = [
        folder_of(tmp_path / "folder", files),
        tar_of(tmp_path / "b.tar.gz", dict(reversed(files.items()))),
        zip_of(tmp_path / "My Faces (2).ZIP", files),
    ]
    prepared = [prepare(source, tmp_path / "data", image_px=32).faces for source in sources]
    assert [faces.name for faces in prepared] == ["folder-32", "b-32", "my-faces-2-32"]
    assert len({faces.pixel_digest for faces in prepared}) == 1
    assert len({(faces.folder / "table.csv").read_bytes() for faces in prepared}) == 1
    large = made(tmp_path, files, 128)
    assert (prepared[0].pixels().shape, large.pixels().shape) == (
        (41, 32, 32, 3),
        (41, 128, 128, 3),
    )
    assert large.split_digest == prepared[0].split_digest


def test_preparing_again_does_nothing_and_other_options_are_refused(tmp_path: Path) -> None:
    source, data_dir = tar_of(tmp_path / "faces.tar", faces(20)), tmp_path / "data"
    other = tar_of(tmp_path / "other.tar", faces(21))
    first = prepare(source, data_dir, image_px=32, name="mine")
    written = (first.faces.folder / "faces.npy").stat().st_mtime_ns
    again = prepare(source, data_dir, image_px=32, name="mine")
    assert (first.is_new, again.is_new) == (True, False)
    assert (again.faces.folder / "faces.npy").stat().st_mtime_ns == written
    for given, px, found in (
        (source, 48, "image_px 32, and 48 was asked for"),
        (other, 32, "prepared with source_sha256"),
    ):
        with pytest.raises(DataError, match=found):
            prepare(given, data_dir, image_px=px, name="mine")


def test_clusters_and_split_can_be_taken_from_a_table_of_the_same_faces(tmp_path: Path) -> None:
    files = {**faces(40), face_name(98): jpeg(3, px=96)}
    first = made(tmp_path, files)
    table = first.folder / "table.csv"
    recoded = {name: jpeg(500 + i) for i, name in enumerate(files)}
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


def test_what_cannot_be_used_is_left_out_with_the_reason_and_all_is_counted(tmp_path: Path) -> None:
    files = {
        **faces(20),
        "39_1_20170116174525125.jpg.chip.jpg": jpeg(90),
        "0_1_1_20170116174525125.jpg.chip.jpg": jpeg(91),
        "README.txt": b"read me",
        "__MACOSX/._1_0_0_2017.jpg": b"litter",
        face_name(87): jpeg(90)[:700],
        face_name(88): b"no picture",
        face_name(89): encoded(Image.new("RGB", (1, 1))),
        face_name(90): encoded(picture(90).convert("L")),
        face_name(91): encoded(picture(91).convert("CMYK")),
        face_name(92): encoded(picture(92).resize((48, 40))),
        face_name(93): encoded(picture(93, px=20)),
        face_name(94, age=8, gender=1, race=1): jpeg(1),  # a copy of face 1
        face_name(95): jpeg(3),  # the bytes of face 3, and other labels
        face_name(96): encoded(picture(96, 96), quality=95),
        face_name(97): encoded(picture(96, 96), quality=60),  # 96, encoded anew
    }
    prepared = made(tmp_path, files)
    expected = {
        "image_files": 33, "usable": 28, "quarantined_names": 2, "not_pictures": 2,
        "converted_modes": {"CMYK": 1, "L": 1}, "not_square": 1, "enlarged": 1,
        "quarantined_pictures": 3, "copies": 1, "label_conflicts": 2, "placed": 25,
    }  # fmt: skip
    assert {key: prepared.manifest["counts"][key] for key in expected} == expected
    rejected = prepared.rejected().set_index("file")["reason"]
    for number, reason in ((87, "damaged"), (88, "not a picture"), (89, "1 x 1 pixels")):
        assert reason in rejected[face_name(number)]
    table = prepared.table.set_index("file")
    assert table.loc[face_name(96), "cluster"] == table.loc[face_name(97), "cluster"]
    assert prepared.manifest["near_duplicates"]["pairs"] == 1
    # The rows after those left out have moved up: each is still the picture of its name.
    for row, file in enumerate(prepared.table["file"]):
        if (number := int(file.split("_")[3][12:17])) < 20:
            original = np.asarray(picture(number, 32)).astype(float)
            assert np.abs(prepared.pixels()[row] - original).mean() < 25


def test_a_source_or_a_size_that_will_not_do_and_a_full_disk_leave_nothing(tmp_path: Path) -> None:
    empty, sound = folder_of(tmp_path / "0", {}), tar_of(tmp_path / "faces.tar.gz", faces(60))
    empty.mkdir()
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(sound.read_bytes()[:-4000])
    named = "none of the 1 .*AGE_GENDER_RACE_DATE, as 25_1_3_20170116174525"
    for source, image_px, found in (
        (empty, 100, "holds no pictures"),
        (folder_of(tmp_path / "1", {"notes.txt": b""}), 100, r"no pictures \(1 other files\)"),
        (folder_of(tmp_path / "2", {"001A02.JPG": jpeg(1)}), 100, named),
        (folder_of(tmp_path / "3", {face_name(1): b"x"}), 100, "none of the 1 pictures"),
        (folder_of(tmp_path / "4", {f"{x}/{face_name(1)}": jpeg(1) for x in "ab"}), 100,
         "two pictures have the name"),
        (cut, 100, "damaged or cut short"),
        *((sound, px, "16 to 1024") for px in (15, 1025, -1)),
    ):  # fmt: skip
        with pytest.raises(DataError, match=found):
            prepare(source, tmp_path / "data", image_px=image_px)
        assert not list((tmp_path / "data").glob("*"))
    # No file may grow beyond 20 kB, which the system refuses as it refuses a full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    arguments = ["data", "prepare", str(sound), "--data-dir", str(tmp_path / "data")]
    result = CliRunner().invoke(app, arguments)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (result.exit_code, "Check the free space" in result.stderr) == (2, True)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_data_sheet_changes_no_digest_and_is_said_with_every_number(tmp_path: Path) -> None:
    source, sheet = tar_of(tmp_path / "faces.tar", faces(20)), tmp_path / "sheet.md"
    sheet.write_text("Source: here.\nLicence: none.\n", encoding="utf-8")
    arguments = ["data", "prepare", str(source), "--data-dir", str(tmp_path / "data")]
    bare = prepare(source, tmp_path / "data").faces
    assert bare.datasheet == ""
    assert CliRunner().invoke(app, [*arguments, "--datasheet", str(sheet)]).exit_code == 0
    told = prepare(source, tmp_path / "data").faces
    assert told.datasheet == "Source: here.\nLicence: none."
    assert {**told.manifest, "datasheet": ""} == {**bare.manifest, "datasheet": ""}
    first, *others = limits_of({"datasheet": told.datasheet})
    assert (first, tuple(others)) == ("Data sheet: Source: here. Licence: none.", limits_of({}))


def test_processes_give_the_same_data_set_as_one_and_nothing_when_they_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tar_of(tmp_path / "faces.tar", {**faces(80), face_name(90): b"no picture"})
    alone = prepare(source, tmp_path / "alone", image_px=32).faces.folder
    # However few the faces are, processes share them.
    monkeypatch.setattr(prepare_module, "in_parallel", partial(in_parallel, a_core=3))
    monkeypatch.setattr(progress, "n_cores", lambda: 2)
    (tmp_path / "shared" / ".faces-32.partial").mkdir(parents=True)
    for stage in ("packing faces", "looking for near-duplicates"):

        def stop(now: str, done: int, total: int, stage: str = stage) -> None:
            if now == stage:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(source, tmp_path / "shared", image_px=32, on_progress=stop)
        assert list((tmp_path / "shared").iterdir()) == []
    shared = prepare(source, tmp_path / "shared", image_px=32).faces.folder
    for file in ("faces.npy", "table.csv", "quarantine.csv", "manifest.json"):
        assert (shared / file).read_bytes() == (alone / file).read_bytes()


def process_of(number: int) -> int:
    if number == 20:
        raise DataError("twenty", allowed="nineteen")
    if number == 30:
        os._exit(number)
    return os.getpid()


@pytest.mark.slow
def test_many_items_are_done_elsewhere_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "n_cores", lambda: 2)
    done = list(in_parallel(process_of, ((n, n) for n in range(9)), 9, a_core=2))
    assert ([key for key, _ in done], os.getpid() in dict(done).values()) == (list(range(9)), False)
    for wrong, found in ((20, r"twenty \(allowed: nineteen"), (30, "that reads pictures died")):
        with pytest.raises(DataError, match=found):
            list(in_parallel(process_of, [(n, n) for n in (*range(8), wrong)], 9, a_core=2))


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
    assert [path.name for path in data_dir.iterdir()] == ["folder-32"]


def test_an_audit_finds_leaks_changed_labels_and_placed_copies(tmp_path: Path) -> None:
    prepared = made(tmp_path, {**faces(60), face_name(90): jpeg(3), face_name(91): b"x"})
    result = audit(prepared)
    assert (result["findings"], len(result["overlaps"])) == ([], 6)
    assert result["overlaps"]["80/10/10"] == {"sha256": 0, "cluster": 0, "file": 0}
    assert sum(row["n"] for row in result["counts"]) == prepared.manifest["counts"]["placed"]
    left_out = {(row["kind"], row["n"]) for row in result["left_out"]}
    assert left_out == {("picture", 1), ("no place", 2)}
    part = prepared.table["part"]
    train, test = (prepared.table.index[part == name][0] for name in ("train", "test"))
    for row, column, value, found in (
        (train, "cluster", prepared.table.loc[test, "cluster"], "80/10/10 leaks"),
        (0, "gender", 1 - prepared.table.loc[0, "gender"], "1 faces have other labels than their"),
        (train, "is_copy", 1, "a copy or a label conflict has a place in the split"),
    ):
        table = prepared.table.copy()
        table.loc[row, column] = value
        findings = audit(FaceSet(prepared.folder, prepared.manifest, table))["findings"]
        assert findings[0].startswith(found)
