"""An empty folder of runs, as the tests of results have it."""

from tests.made_runs import runs as runs
