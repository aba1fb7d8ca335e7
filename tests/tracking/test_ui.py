"""The MLflow UI of `facebench ui` in a real browser: what a new user sees and clicks on."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.runs.small import edit_json
from tests.tracking.conftest import MakeStore, mirrored, the_record

pytest.importorskip("mlflow")
PATIENCE_SECONDS = 300
# Listens to Ctrl-C even where the tests run in a background that ignores it.
LISTENING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from benchmark.cli.main import main; main()"
)

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # mlflow's own dependencies deprecate each other
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]

NASTY = 'Is <b id="planted">it</b> <img src=x onerror="document.title=1"> mirrored?'


def link_of(log: Path, server: "subprocess.Popen[bytes]", port: int) -> str:
    """Wait for the link that the command prints once the server is up."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        for word in log.read_text().split():
            if word.startswith(f"http://127.0.0.1:{port}/#/"):
                return word
        time.sleep(0.3)
    pytest.fail(f"no link: {log.read_text()}")


def test_a_new_user_lands_on_the_runs_and_reaches_a_run_and_its_pictures(
    make_runs_dir: MakeStore, tmp_path: Path, browser: Any
) -> None:
    runs_dir, log = make_runs_dir(tmp_path / "mlruns"), tmp_path / "log"
    path = the_record(runs_dir).folder / "experiment.json"
    edit_json(path, lambda about: about["experiment"].update(asks=NASTY))
    mirrored(runs_dir)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", LISTENING, "ui", "--port", str(port), "--runs-dir", runs_dir]
    with log.open("w") as stream:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        server = subprocess.Popen(command, env=env, stdout=stream, stderr=stream)
    try:
        look_around(browser, link_of(log, server, port))
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=PATIENCE_SECONDS) == 0
    assert "DeprecationWarning" not in log.read_text()


def look_around(browser: Any, address: str) -> None:
    troubles: list[str] = []
    context = browser.new_context(viewport={"width": 1500, "height": 900})
    context.set_default_timeout(1000 * PATIENCE_SECONDS)
    context.on("weberror", lambda said: troubles.append(str(said.error)))
    here = ("http://127.0.0.1:", "data:", "blob:")
    context.on("request", lambda r: r.url.startswith(here) or troubles.append(r.url))
    # MLflow's pages ask who is logged in, of a server that knows no one.
    context.on(
        "response",
        lambda r: r.status < 400 or r.url.endswith("/users/current") or troubles.append(r.url),
    )
    page = context.new_page()
    page.goto(address, wait_until="commit")
    page.get_by_role("link", name="mtl-cnn-none-full-tiny · seed 0").first.wait_for()
    for column in ("selected/val/combined", "test/race/accuracy", "architecture"):
        page.get_by_text(column).first.wait_for()
    page.get_by_role("link", name="mtl-cnn-none-full-tiny · seed 0").first.click()
    page.get_by_text(NASTY).wait_for()
    assert page.locator("#planted").count() == 0
    for shown in ("test/race/accuracy", "drawn-v1 · train"):
        page.get_by_text(shown, exact=False).first.wait_for()
    with context.expect_page() as opened:
        page.locator("a[href*='pictures/confusion.png']").click()
    opened.value.wait_for_function("[...document.images].some(image => image.naturalWidth > 300)")
    context.close()
    assert troubles == []
