"""The MLflow UI of `facebench ui` in a real browser: what a new user sees and clicks on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.tracking import MlflowMirror
from tests.conftest import ROOT
from tests.tracking.conftest import MakeStore, the_record

pytest.importorskip("mlflow")
PATIENCE_SECONDS = 300
LISTENING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from benchmark.cli.main import main; main()"
)
"""The command, listening to Ctrl-C even where the tests run in a background that ignores it."""

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # mlflow's own dependencies deprecate each other
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]

NASTY = 'Is <b id="planted">it</b> <img src=x onerror="document.title=1"> mirrored?'
"""LeaderboardQuery by the run that is shown: a page must show it as text."""


@pytest.fixture(scope="module")
def address(make_runs_dir: MakeStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve one finished run; stopped by Ctrl-C, as a person would."""
    folder = tmp_path_factory.mktemp("ui")
    runs_dir = make_runs_dir(folder / "mlruns")
    record = the_record(runs_dir)
    about = json.loads((record.folder / "experiment.json").read_text())
    about["experiment"]["asks"] = NASTY
    (record.folder / "experiment.json").write_text(json.dumps(about))
    MlflowMirror(runs_dir, pytest.fail).mirror(the_record(runs_dir))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-c", LISTENING, "ui"),
                *("--runs-dir", str(runs_dir), "--port", str(port)),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, folder / "log")
            yield _printed_link(folder / "log", port)
        finally:
            server.send_signal(signal.SIGINT)
            code = server.wait(timeout=PATIENCE_SECONDS)
    assert code == 0
    assert "DeprecationWarning" not in (folder / "log").read_text()


def _printed_link(log: Path, port: int) -> str:
    """Give the link that the command prints once the server is up."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for word in log.read_text().split():
            if word.startswith(f"http://127.0.0.1:{port}/#/"):
                return word
        time.sleep(0.3)
    pytest.fail(f"no link: {log.read_text()}")


def _wait(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"no server: {log.read_text()}")


@pytest.fixture
def page(address: str, browser: Any) -> Iterator[Any]:
    """A new user's browser at the link that is printed; nothing may fail or leave the machine.

    A new one for each test: MLflow remembers where one has been, and tests run in any order.
    """
    troubles: list[str] = []
    context = browser.new_context(viewport={"width": 1500, "height": 900})
    context.set_default_timeout(1000 * PATIENCE_SECONDS)
    context.on("weberror", lambda said: troubles.append(str(said.error)))
    context.on("request", lambda asked: _is_outside(asked.url) and troubles.append(asked.url))
    context.on("response", lambda given: _is_bad(given) and troubles.append(given.url))
    page = context.new_page()
    page.goto(address, wait_until="commit")
    yield page
    context.close()
    assert troubles == []


def _is_bad(given: Any) -> bool:
    """MLflow's pages ask who is logged in, of a server that knows no one."""
    return given.status >= 400 and not given.url.endswith("/users/current")


def _is_outside(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def keep_picture(page: Any, name: str) -> None:
    """Keep what is seen for whoever wants to look at it, where FACEBENCH_TEST_SCREENSHOTS says."""
    if folder := os.environ.get("FACEBENCH_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"mlflow_{name}.png")


def test_a_new_user_lands_on_the_runs_with_the_columns_that_matter(page: Any) -> None:
    page.get_by_role("link", name="mtl-cnn-none-full-tiny · seed 0").first.wait_for()
    for column in ("selected/val/combined", "test/race/accuracy", "architecture"):
        page.get_by_text(column).first.wait_for()
    keep_picture(page, "runs")


def open_the_run(page: Any) -> None:
    """Go from the first page to the run."""
    page.get_by_role("link", name="mtl-cnn-none-full-tiny · seed 0").first.click()
    page.get_by_text(NASTY).wait_for()


def test_a_run_says_what_it_is_and_what_came_out(page: Any) -> None:
    open_the_run(page)
    assert page.locator("#planted").count() == 0
    for shown in ("test/race/accuracy", "drawn-v1 · train"):
        page.get_by_text(shown, exact=False).first.wait_for()
    keep_picture(page, "run")


def test_a_picture_is_one_click_away(page: Any) -> None:
    open_the_run(page)
    with page.context.expect_page() as opened:
        page.locator("a[href*='pictures/confusion.png']").click()
    opened.value.wait_for_function("[...document.images].some(image => image.naturalWidth > 300)")
    keep_picture(opened.value, "picture")
