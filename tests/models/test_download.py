"""Files are fetched whole, resumed where they were cut, and refused where they are not theirs."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from benchmark.errors import WeightsError, WeightsMissing
from benchmark.models import download

CONTENT = bytes(range(256)) * 1000


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT; /cut breaks off half-way unless asked for the rest, /page sends HTML,
    /busy answers at the second time of asking."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Server.asked.append(wanted)
        if self.path == "/busy" and len(Server.asked) == 1:
            self.send_error(503)
            return
        if self.path == "/gone":
            self.send_error(404)
            return
        body = b"<html>Sign in</html>" if self.path == "/page" else CONTENT
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and self.path != "/whole" else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        is_cut = self.path == "/cut" and not start
        self.wfile.write(body[start : len(body) // 2] if is_cut else body[start:])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Server.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def is_content(path: Path) -> None:
    """Judge as a published sum does."""
    if path.read_bytes() != CONTENT:
        raise WeightsError("it is not what was published")


def test_a_file_arrives_whole_and_tells_how_far_it_is(address: str, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int | None]] = []
    target = tmp_path / "new" / "file.h5"
    download.fetch(f"{address}/file", target, is_content, lambda *now: heard.append(now))
    assert target.read_bytes() == CONTENT
    assert heard[-1] == ("file.h5", 256_000, 256_000)
    assert [path.name for path in target.parent.iterdir()] == ["file.h5"]


def test_a_broken_connection_is_gone_on_with(address: str, tmp_path: Path) -> None:
    download.fetch(f"{address}/cut", tmp_path / "file", is_content)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Server.asked == [None, "bytes=128000-"]


def test_what_an_interrupted_download_left_is_gone_on_with(address: str, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    download.fetch(f"{address}/file", tmp_path / "file", is_content)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Server.asked == ["bytes=1000-"]


@pytest.mark.parametrize("left", [b"other bytes", CONTENT + b"more"])
def test_a_left_over_of_another_file_is_thrown_away(
    address: str, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "file.part").write_bytes(left)
    download.fetch(f"{address}/file", tmp_path / "file", is_content)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_cannot_resume_is_read_from_the_start(address: str, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    download.fetch(f"{address}/whole", tmp_path / "file", is_content)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "sentence"),
    [("/page", "an HTML page came instead of the file"), ("/gone", "the server answered 404")],
)
def test_anything_else_is_refused_and_removed(
    address: str, tmp_path: Path, path: str, sentence: str
) -> None:
    with pytest.raises(WeightsError, match=sentence):
        download.fetch(f"{address}{path}", tmp_path / "file", is_content)
    assert not list(tmp_path.iterdir())


def test_what_the_judge_refuses_is_refused_and_removed(address: str, tmp_path: Path) -> None:
    def never(path: Path) -> None:
        raise WeightsError(f"{path.stat().st_size} bytes of something else")

    with pytest.raises(WeightsError, match="256000 bytes of something else") as raised:
        download.fetch(f"{address}/file", tmp_path / "file", never)
    assert not isinstance(raised.value, WeightsMissing)
    assert len(Server.asked) == 1
    assert not list(tmp_path.iterdir())


def test_a_busy_server_is_asked_again(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
    download.fetch(f"{address}/busy", tmp_path / "file", is_content)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Server.asked == [None, None]


def test_without_a_sum_nothing_that_was_left_is_gone_on_with(address: str, tmp_path: Path) -> None:
    """Two halves of different files would pass for one."""
    (tmp_path / "file.part").write_bytes(b"an older version")
    download.fetch(f"{address}/file", tmp_path / "file", is_content, judged_by_sum=False)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Server.asked == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_server_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="refused"):
        download.fetch("http://127.0.0.1:9/file", tmp_path / "file", is_content)


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_server(
    address: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(OSError, match="taken"):
        download.fetch(f"{address}/file", tmp_path / "taken" / "file", is_content)
