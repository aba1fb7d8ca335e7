"""Stores and pages that several tests look at, made once."""

from pathlib import Path

import pytest

from benchmark.reporting.evidence import Evidence
from tests.made_runs import RunBuilder
from tests.reporting.stores import EVERY_QUESTION, builder, evidence_of, fill, page_of


@pytest.fixture
def drawn_runs(tmp_path: Path) -> RunBuilder:
    """Give an empty folder of runs on synthetic faces."""
    return builder(tmp_path / "mlruns")


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
