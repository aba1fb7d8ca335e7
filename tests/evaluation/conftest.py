"""An empty folder of runs, as the tests of results have it."""

from tests.results.conftest import runs as runs
