"""What most tests of comparisons share."""

import gc
from collections.abc import Iterator

import pytest

from tests.made_runs import runs as runs


@pytest.fixture(autouse=True, scope="module")
def few_objects() -> Iterator[None]:
    """Let garbage collections overlook what is there: statsmodels collects at each correction."""
    gc.freeze()
    yield
    gc.unfreeze()
