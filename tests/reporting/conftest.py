"""Stores and pages that several tests look at."""

from pathlib import Path

import pytest

from tests.results.conftest import RunBuilder


@pytest.fixture
def runs(tmp_path: Path) -> RunBuilder:
    """Give an empty folder of runs."""
    return RunBuilder(tmp_path / "mlruns")
