"""A stand-in for the Hugging Face hub on 127.0.0.1: one archive of one data set."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

from benchmark.data.fetch import FILE_NAME, REPOSITORY
from tests.data.sources import face_name, tar_of


class Hub(BaseHTTPRequestHandler):
    """Stands in for the hub: one file of one data set, as it answers for large ones."""

    content: ClassVar[bytes] = b""
    digest: ClassVar[str] = ""
    asked: ClassVar[list[str]] = []
    breaks_after: ClassVar[int | None] = None
    """Bytes of the first answer that arrive before the connection breaks."""

    def do_GET(self) -> None:
        if self.command == "GET":
            Hub.asked.append(str(self.headers.get("Range")))
            assert "Authorization" not in self.headers
        if self.path != f"/datasets/{REPOSITORY}/resolve/main/{FILE_NAME}":
            self.send_error(404)
            return
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start, n_bytes = int(wanted[1]) if wanted else 0, len(Hub.content)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(n_bytes - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{n_bytes - 1}/{n_bytes}")
        self.send_header("ETag", '"other-bytes"')
        digest = Hub.digest or hashlib.sha256(Hub.content).hexdigest()
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(Hub.content[start:][: Hub.breaks_after])
            Hub.breaks_after = None

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve an archive of five faces, made in `folder`; give the address."""
    # A picture's content is of no matter here.
    noise = bytes((7 * index * index + index // 251) % 256 for index in range(40_000))
    files = {f"UTKFace/{face_name(number)}": noise for number in range(5)}
    Hub.content = tar_of(folder / "made.tar", files).read_bytes()
    Hub.digest, Hub.breaks_after = "", None
    Hub.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
