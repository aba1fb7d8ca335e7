"""One mutant, one forked process: the tests of its file are run with the fault in place.

The heavy packages are loaded once, in the parent; a child pays for our own modules and the tests
alone. Nothing is written into the tree: an import hook hands out the changed source.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = ("numpy", "pandas", "scipy.stats", "sklearn.metrics", "statsmodels.stats.multitest",
             "matplotlib.figure", "torch", "torchmetrics", "fairlearn.metrics", "PIL.Image",
             "hypothesis")  # fmt: skip


def load_heavy_packages() -> None:
    """Import what every child would else import by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PRELOADED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


class ChangedModule(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Finds one module before anybody else does, and gives it another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for our module alone."""
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(self._path))

    def get_filename(self, fullname: str) -> str:
        """Give the path that tracebacks show."""
        return str(self._path)

    def get_data(self, path: str | Path) -> bytes:
        """Give the changed source; there is no cached bytecode of it."""
        return self._source.encode()


@dataclass
class ByDuration:
    """Run the quickest tests first, so that most mutants die within a second."""

    seconds: dict[str, float] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the tests in order."""
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note how long a test took."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def run_tests(tests: Sequence[str], order: ByDuration) -> int:
    """Run test files in this process, quietly, up to the first failure; give pytest's code."""
    arguments = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    arguments += ["--timeout=0", "--tb=no", "-W", "ignore", *tests]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return int(pytest.main(arguments, plugins=[order]))


@dataclass
class Trial:
    """A child at work."""

    pid: int
    reader: int

    def finished(self, *, wait: bool) -> str | None:
        """Say how it ended: `survived`, `killed`, `killed by time`; None while it runs."""
        pid, status = os.waitpid(self.pid, 0 if wait else os.WNOHANG)
        if pid == 0:
            return None
        with os.fdopen(self.reader, "rb") as stream:
            answer = stream.read()
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
            return "killed by time"
        return "survived" if answer == b"0" else "killed"


def start(file: str, source: str, tests: Sequence[str], order: ByDuration, seconds: int) -> Trial:
    """Fork a child that runs the tests with `source` in the place of `file`."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Trial(pid, reader)
    code = 99
    try:
        # Processor time, not the clock: a busy machine must not count as a test that notices.
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        path = ROOT / file
        name = ".".join(Path(file).with_suffix("").parts)
        sys.meta_path.insert(0, ChangedModule(name, path, source))
        code = run_tests(tests, order)
        os.write(writer, str(code).encode())
    finally:
        os._exit(code)


def baseline(file: str, source: str, tests: Sequence[str]) -> tuple[ByDuration, float]:
    """Run the tests on sound source, in a child; give their durations and all processor time."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        order = ByDuration()
        name = ".".join(Path(file).with_suffix("").parts)
        sys.meta_path.insert(0, ChangedModule(name, ROOT / file, source))
        code = run_tests(tests, order)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        answer = {"code": code, "seconds": order.seconds, "cpu": usage.ru_utime + usage.ru_stime}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = json.loads(stream.read() or b'{"code": 99}')
    os.waitpid(pid, 0)
    if answer["code"] != 0:
        message = f"the tests of {file} fail on sound source (pytest's code {answer['code']})"
        raise SystemExit(message)
    return ByDuration(answer["seconds"]), float(answer["cpu"])
