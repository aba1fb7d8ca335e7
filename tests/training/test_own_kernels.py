"""Without Triton a GPU takes torch's kernels, and it is said why; with it ours are right."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
import torch

from benchmark.training import own_kernels, steps
from benchmark.training.steps import SpeedSettings, Steps
from tests.conftest import ROOT
from tests.training.small import some_faces
from tests.training.test_steps import a_step

GPU = torch.device("cuda")
TESTS = "tests/training/test_kernels.py"


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    own_kernels._on_cuda.cache_clear()
    yield
    own_kernels._on_cuda.cache_clear()


def importing(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    def no_compiler(_device: torch.device) -> None:
        if error is not None:
            raise error

    found = SimpleNamespace(try_out=no_compiler)
    monkeypatch.setattr(own_kernels.importlib, "import_module", lambda _name: found)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("No module named 'triton'"),
        RuntimeError("Failed to find C compiler. Please specify via CC\nand more"),
        OSError("no room"),
    ],
)
def test_what_keeps_them_away_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    importing(monkeypatch, error)
    assert own_kernels.own_kernels(GPU) is None
    assert own_kernels.why_none(GPU) == str(error).splitlines()[0]


def test_where_they_work_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    importing(monkeypatch, None)
    assert own_kernels.own_kernels(GPU) is not None
    assert own_kernels.why_none(GPU) is None


def test_a_cpu_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_name: str) -> ModuleType:
        raise AssertionError("asked for")

    monkeypatch.setattr(own_kernels.importlib, "import_module", asked)
    assert own_kernels.own_kernels(torch.device("cpu")) is None
    assert own_kernels.why_none(torch.device("cpu")) is None


def test_a_training_says_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "why_none", lambda _device: "No module named 'triton'")
    said: list[str] = []
    step, _ = a_step(some_faces())
    Steps(step, 8, SpeedSettings(say=said.append), None)
    assert len(said) == 1
    assert said[0].startswith("Triton does not work here (No module named 'triton')")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.skipif(torch.cuda.is_available(), reason="they are compiled for the GPU that is here")
def test_without_a_gpu_they_pass_their_tests_line_by_line() -> None:
    # Triton asks how to read a kernel when it is imported: only a process of its own can say so.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", TESTS],
        cwd=ROOT, env=own | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    passed = re.search(r"(\d+) passed", answer.stdout)
    assert passed is not None
    assert int(passed[1]) > 20
