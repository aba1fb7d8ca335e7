"""A published archive is fetched after its licence was accepted: whole and checked, or not."""

import hashlib
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from typer.testing import CliRunner, Result

from benchmark.cli.main import app
from benchmark.data.archive import FILE_NAME, PART_FOLDER, REPOSITORY, fetch
from benchmark.errors import DataError
from tests.cli.conftest import flat
from tests.data.sources import face_name, tar_of

constants = pytest.importorskip("huggingface_hub.constants")


class Hub(BaseHTTPRequestHandler):
    """Stands in for the hub: one file of one data set, as it answers for large ones."""

    content: ClassVar[bytes] = b""
    digest: ClassVar[str] = ""
    n_asked: ClassVar[int] = 0

    def do_GET(self) -> None:
        Hub.n_asked += self.command == "GET"
        assert "Authorization" not in self.headers
        if self.path != f"/datasets/{REPOSITORY}/resolve/main/{FILE_NAME}":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(Hub.content)))
        self.send_header("ETag", '"other-bytes"')
        digest = Hub.digest or hashlib.sha256(Hub.content).hexdigest()
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(Hub.content)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def _hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Serve an archive of five faces on 127.0.0.1; a picture's content is of no matter here."""
    files = {f"UTKFace/{face_name(number)}": b"content" for number in range(5)}
    Hub.content = tar_of(tmp_path / "made.tar", files).read_bytes()
    Hub.digest, Hub.n_asked = "", 0
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        yield
        server.shutdown()
        thread.join()


def call(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        app, ["data", "fetch", *arguments, "--data-dir", str(tmp_path / "data")]
    )


def test_an_archive_is_fetched_once_its_licence_is_accepted(tmp_path: Path) -> None:
    answer = call(tmp_path, "utkface")
    assert (answer.exit_code, Hub.n_asked) == (2, 0)
    for text in ("for non-commercial research only", "--accept-licence"):
        assert text in flat(answer.stderr)
    archive = tmp_path / "data" / FILE_NAME
    (archive.parent / PART_FOLDER / "left by a killed process").mkdir(parents=True)
    answer = call(tmp_path, "utkface", "--accept-licence")
    said = f"facebench data prepare {archive}"
    assert (answer.exit_code, said in flat(answer.stdout)) == (0, True)
    assert [path.name for path in archive.parent.iterdir()] == [FILE_NAME]
    assert archive.read_bytes() == Hub.content
    data = json.loads(call(tmp_path, "utkface", "--accept-licence", "--json").stdout)["data"]
    assert (data["is_new"], data["pictures"], Hub.n_asked) == (False, 5, 1)
    assert "non-commercial" in data["terms"][0]


def test_what_is_no_archive_or_not_of_the_checksum_is_refused_and_not_kept(tmp_path: Path) -> None:
    cats = tar_of(tmp_path / "cats.tar", {"cats/cat.jpg": b"content"}).read_bytes()
    for content, digest, found in (
        (Hub.content, "0" * 64, "not those of the hub's checksum"),
        (b"no archive", "", r"what came as UTKFace\.tar\.gz is not the archive"),
        (b"\x1f\x8b broken", "", r"what came as UTKFace\.tar\.gz is not the archive"),
        (cats, "", r"is not the archive: no picture in it has a name of UTKFace's"),
    ):
        Hub.content, Hub.digest = content, digest
        with pytest.raises(DataError, match=found):
            fetch(tmp_path / "data")
        assert list((tmp_path / "data").iterdir()) == []


def test_no_network_no_file_and_no_package_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(DataError, match=r"could not be downloaded.*[Dd]ownload it by hand"):
            fetch(tmp_path / "data")
        patch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(DataError, match=r"pip install 'facebench\[fetch\]'"):
            fetch(tmp_path / "data")
    answer = call(tmp_path, "celeba")
    assert (answer.exit_code, "is not one of 'utkface'" in flat(answer.stderr)) == (2, True)
