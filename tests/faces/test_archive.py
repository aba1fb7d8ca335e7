"""Sources are read alike whatever holds them, and refused as a whole when damaged or unsafe."""

import gzip
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmark.data import archive
from benchmark.data.archive import Unreadable, open_source
from benchmark.errors import DataError
from tests.faces.sources import folder_of, tar_of, zip_of

FILES = {"UTKFace/a.jpg": b"A" * 700, "UTKFace/b.jpg": b"B" * 1300, "README": b"read me"}


def made(path: Path, files: dict[str, bytes] = FILES) -> Path:
    if path.suffix == ".zip":
        return zip_of(path, files)
    return tar_of(path, files) if path.suffix else folder_of(path, files)


@pytest.mark.parametrize("name", ["faces", "faces.tar", "faces.tar.gz", "faces.tgz", "faces.zip"])
def test_every_kind_of_source_holds_the_same(tmp_path: Path, name: str) -> None:
    source = open_source(made(tmp_path / name))
    assert {member.path: member.n_bytes for member in source.members()} == {
        path: len(content) for path, content in FILES.items()
    }
    wanted = {"UTKFace/a.jpg", "UTKFace/b.jpg"}
    assert dict(source.contents(wanted)) == {path: FILES[path] for path in wanted}


def test_a_missing_source_says_where_faces_are_published(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="susanqq.github.io/UTKFace") as caught:
        open_source(tmp_path / "UTKFace.tar.gz")
    assert "non-commercial research" in str(caught.value)
    assert "data/UTKFace.tar.gz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\0" * 2048, os.urandom(4096)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "faces.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not an archive"):
        open_source(path)


def test_a_compressed_file_that_holds_no_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "faces.tar.gz"
    path.write_bytes(gzip.compress(b"no tar in here" * 100))
    with pytest.raises(DataError, match="damaged or cut short"):
        open_source(path).members()


@pytest.mark.parametrize("name", ["faces.tar", "faces.tar.gz", "faces.zip"])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
def test_an_archive_cut_short_is_refused(tmp_path: Path, name: str, fraction: float) -> None:
    path = made(tmp_path / name)
    content = path.read_bytes()
    # tarfile fills its last record up to 10,240 bytes with zeros; cut before those.
    length = len(content.rstrip(b"\0")) if name == "faces.tar" else len(content)
    path.write_bytes(content[: int(length * fraction)])
    with pytest.raises(DataError, match="damaged or cut short"):
        open_source(path).members()


def test_a_tar_cut_exactly_between_two_members_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "faces.tar")
    # Header 512 + 700 bytes in two blocks = 1,536: the second member begins there.
    path.write_bytes(path.read_bytes()[:1536])
    with pytest.raises(DataError, match="its end mark is missing"):
        open_source(path).members()


def test_a_tar_with_a_broken_header_inside_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "faces.tar")
    content = bytearray(path.read_bytes())
    content[1536 + 148] ^= 0xFF  # the checksum of the second header
    path.write_bytes(content)
    with pytest.raises(DataError, match="no header can be read at byte 1,536"):
        open_source(path).members()


def test_a_zip_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "faces.zip")
    path.write_bytes(path.read_bytes().replace(b"A" * 700, b"A" * 699 + b"Z"))
    with pytest.raises(DataError, match="damaged or cut short"):
        list(open_source(path).contents({"UTKFace/a.jpg"}))


@pytest.mark.parametrize("name", ["faces.tar", "faces.tar.gz", "faces.zip"])
@pytest.mark.parametrize(
    "bad", ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "C:/a.jpg", r"..\a.jpg"]
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str, bad: str) -> None:
    path = made(tmp_path / name, {**FILES, bad: b"out"})
    with pytest.raises(DataError, match="leads out of it"):
        open_source(path).members()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("UTKFace/c.jpg")
    info.type, info.linkname = kind, "UTKFace/a.jpg"
    path = tar_of(tmp_path / "faces.tar", FILES, info)
    with pytest.raises(DataError, match="is a link or a device"):
        open_source(path).members()


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "faces.zip")
    info = zipfile.ZipInfo("UTKFace/c.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="is a link or a device"):
        open_source(path).members()


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "faces.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(content)
    with pytest.raises(DataError, match="is encrypted"):
        open_source(path).members()


def test_a_pipe_in_a_folder_is_not_opened(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "faces", FILES)
    os.mkfifo(folder / "c.jpg")
    contents = dict(open_source(folder).contents({"c.jpg"}))
    assert isinstance(contents["c.jpg"], Unreadable)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 1000)
    contents = dict(open_source(made(tmp_path / "faces.tar")).contents(set(FILES)))
    assert contents["UTKFace/b.jpg"] == Unreadable("the file has 1,300 bytes (allowed: 1,000)")
    assert contents["UTKFace/a.jpg"] == FILES["UTKFace/a.jpg"]


def test_a_folder_has_the_digest_of_its_names_and_contents(tmp_path: Path) -> None:
    one, same = folder_of(tmp_path / "one", FILES), folder_of(tmp_path / "two", FILES)
    assert open_source(one).sha256() == open_source(same).sha256()
    (same / "README").write_bytes(b"read it")
    assert open_source(one).sha256() != open_source(same).sha256()
