"""What the commands' tests share: a folder of runs, and printed words without their line breaks."""

from pathlib import Path

import pytest

from tests.results.conftest import RunBuilder


@pytest.fixture
def runs(tmp_path: Path) -> RunBuilder:
    return RunBuilder(tmp_path / "mlruns")


def flat(text: str) -> str:
    """Undo the terminal's line breaks."""
    return " ".join(text.split())
