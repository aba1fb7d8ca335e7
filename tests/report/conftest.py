"""Pages that several tests look at, made once."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmark import registry
from benchmark.report.evidence import Evidence
from tests.report.stores import EVERY_QUESTION, builder, evidence_of, fill, page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Runs that answer every question but that of the specialists, with two seeds each."""
    runs = builder(tmp_path_factory.mktemp("every") / "mlruns")
    fill(runs, EVERY_QUESTION, seeds=(0, 1), n=400)
    return evidence_of(runs)


@pytest.fixture(scope="session")
def page(evidence: Evidence) -> str:
    """The page of these runs."""
    return page_of(evidence)


@pytest.fixture(scope="session")
def page_path(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file, for a browser."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def study_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the whole `study` suite with three seeds."""
    folder = tmp_path_factory.mktemp("study")
    runs = builder(folder / "mlruns", dataset="others-100", drawn=False)
    fill(runs, registry.suites()["study"].experiments, seeds=(0, 1, 2), n=100)
    path = folder / "study.html"
    path.write_text(page_of(evidence_of(runs, "study")), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """A headless Chromium; skips where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install playwright"
    )
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium (on Debian)")
    with playwright.sync_playwright() as started:
        # The sandbox needs rights that containers often lack; the page is our own.
        chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()
