"""The folder of runs that most tests write to."""

from tests.results.conftest import runs as runs
