"""`facebench ui` before it serves anything."""

import socket
from pathlib import Path

from tests.cli.test_run import facebench


def test_a_busy_port_is_a_sentence_with_the_next_free_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        answer = facebench("ui", "--port", str(port), "--runs-dir", tmp_path)
    assert answer.exit_code == 2
    assert f"port {port} on 127.0.0.1 is in use" in answer.stderr
    assert "facebench ui --port" in answer.stderr
    assert list(tmp_path.iterdir()) == []
