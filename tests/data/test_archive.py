"""Sources are read alike whatever holds them, and refused as a whole when damaged or unsafe."""

import gzip
import os
import pickle
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmark.data import archive
from benchmark.data.archive import PictureIndex, name_key, open_source, read_file
from benchmark.errors import DataError
from tests.data.sources import folder_of, tar_of, zip_of

FILES = {"UTKFace/a.jpg": b"A" * 700, "UTKFace/b.jpg": b"B" * 1300, "README": b"read me"}
ARCHIVES = ("faces.tar", "faces.tar.gz", "faces.zip")


def made(path: Path, files: dict[str, bytes] = FILES) -> Path:
    if path.suffix == ".zip":
        return zip_of(path, files)
    return tar_of(path, files) if path.suffix else folder_of(path, files)


def test_every_kind_of_source_holds_the_same(tmp_path: Path) -> None:
    for name in ("faces", *ARCHIVES, "faces.tgz"):
        source = open_source(made(tmp_path / name))
        sizes = {path: len(content) for path, content in FILES.items()}
        assert {member.path: member.n_bytes for member in source.members()} == sizes
        wanted = {"UTKFace/a.jpg", "UTKFace/b.jpg"}
        assert dict(source.contents(wanted)) == {path: FILES[path] for path in wanted}
        # A key of what processes decode: it comes back as a copy.
        assert pickle.loads(pickle.dumps(source)) == source


def flipped(content: bytes, place: int, bits: int) -> bytes:
    return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


def test_what_is_no_archive_or_a_damaged_or_an_unsafe_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 1000)
    tar, tar_gz, zipped = (made(tmp_path / name).read_bytes() for name in ARCHIVES)
    # tarfile fills its last record up to 10,240 bytes with zeros; cut before those.
    whole = (tar.rstrip(b"\0"), tar_gz, zipped)
    link = zipfile.ZipInfo("UTKFace/c.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as opened:
        opened.writestr(link, "/etc/passwd")
    special = [tmp_path / "link.zip"]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("UTKFace/c.jpg")
        info.type, info.linkname = kind, "UTKFace/a.jpg"
        special.append(tar_of(tmp_path / f"{kind.decode()}.tar", FILES, info))
    outside = ("../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "C:/a.jpg", r"..\a.jpg")
    leading_out = [
        made(tmp_path / f"{number}-{name}", {**FILES, bad: b""})
        for number, bad in enumerate(outside)
        for name in ARCHIVES
    ]
    bomb = made(tmp_path / "bomb.tar.gz", {"a.jpg": bytes(1_000_000)}).read_bytes()
    for content, found in (
        *((no, "is not an archive") for no in (b"", b"GIF89a", bytes(2048), os.urandom(4096))),
        (gzip.compress(b"no tar in here" * 100), "damaged or cut short"),
        *((c[: int(len(c) * part)], "cut short") for c in whole for part in (0.3, 0.5, 0.9)),
        # The first member takes 1536 bytes: a header of 512, and 700 bytes in two blocks.
        (tar[:1536], "its end mark is missing"),
        (flipped(tar, 1536 + 148, 0xFF), "no header can be read at byte 1,536"),  # its checksum
        (flipped(zipped, zipped.index(b"A" * 700), 1), "damaged or cut short"),
        # the flag in the central directory
        (flipped(zipped, zipped.index(b"PK\x01\x02") + 8, 1), "is encrypted"),
        (bomb, "unpacks to more than 100 times its size"),
        *((path.read_bytes(), "leads out of it") for path in leading_out),
        *((path.read_bytes(), "is a link or a device") for path in special),
    ):
        (tmp_path / "source").write_bytes(content)
        with pytest.raises(DataError, match=found):
            list(open_source(tmp_path / "source").contents({"UTKFace/a.jpg"}))


def test_of_a_folder_no_pipe_nor_linked_folder_nor_file_of_gigabytes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, same = folder_of(tmp_path / "one", FILES), folder_of(tmp_path / "two", FILES)
    (one / "more").symlink_to(folder_of(tmp_path / "other", FILES))
    assert [member.path for member in open_source(one).members() if member.problem] == ["more"]
    assert open_source(one).sha256() == open_source(same).sha256()
    (same / "README").write_bytes(b"read it")
    assert open_source(one).sha256() != open_source(same).sha256()
    os.mkfifo(one / "c.jpg")
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 1000)
    contents = dict(open_source(one).contents({*FILES, "c.jpg"}))
    assert contents["c.jpg"] == "it is not a regular file, or a link to nowhere"
    assert contents["UTKFace/b.jpg"] == "the file has 1,300 bytes (allowed: 1,000)"
    assert contents["UTKFace/a.jpg"] == FILES["UTKFace/a.jpg"]
    assert read_file(one / "UTKFace/b.jpg") == contents["UTKFace/b.jpg"]


def test_a_name_means_the_picture_that_agrees_with_it_in_most_last_parts() -> None:
    index = PictureIndex(["x/a.jpg", "y/a.jpg", "y/b.JPG.chip.jpg", "c.png"], ["", "home", "set"])
    for name, found in (
        ("D:\\faces\\x\\a.jpg", ["x/a.jpg"]),
        ("/other/y/a.png", ["y/a.jpg"]),  # another ending
        ("a.jpg", ["x/a.jpg", "y/a.jpg"]),
        ("b", ["y/b.JPG.chip.jpg"]),
        ("set/c.jpg", ["c.png"]),
        ("d.jpg", []),
    ):
        assert index.find(name)[1] == found, name
    spellings = ("x/a.jpg", "./x/a.jpg", "x//a.jpg", "x\\a.jpg", "y/../x/a.jpg")
    assert {name_key(spelling) for spelling in spellings} == {"x/a.jpg"}
    assert name_key("a\u0308.jpg") == name_key("\u00e4.jpg")  # as macOS writes it, and others
