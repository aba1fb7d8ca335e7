"""What is refused before anything is sent anywhere: options, a missing Ray, a dead address."""

import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.connection import ClusterOptions, connected
from benchmark.errors import BenchmarkError, ExperimentError
from tests.cli.conftest import facebench


def refusal(address: str) -> str:
    with pytest.raises(BenchmarkError) as refused, connected(ClusterOptions(address)):
        pass
    return str(refused.value)


def test_options_that_no_cluster_can_meet_are_refused(drawn_data_dir: Path, tmp_path: Path) -> None:
    impossible: tuple[dict[str, Any], ...] = (
        {"address": "nowhere"}, {"cpus": 0}, {"gpus": 1.5}, {"gpus": 1, "device": "cpu"},
    )  # fmt: skip
    for fields in impossible:
        with pytest.raises(ExperimentError):
            ClusterOptions(**({"address": "ray"} | fields))
    for address in ("ray", "auto", "head:6379", "ray://head:10001"):
        assert ClusterOptions(address, gpus=0.25).address == address
    places = ("--data-dir", drawn_data_dir, "--dataset", "drawn", "--runs-dir", tmp_path)
    for option in (("--gpus-per-run", "1"), ("--shared-runs",)):
        result = facebench("run", "gender-cnn-none-full-short", *places, *option)
        assert result.exit_code == 2
        assert option[0] in result.stderr, "without --on"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'facebench[cluster]'" in refusal("ray")


def test_an_address_that_does_not_answer_is_one_sentence_within_15_seconds() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'facebench[cluster]'")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # accepts, and speaks no gRPC
        port = silent.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            began, said = time.monotonic(), refusal(address)
            assert time.monotonic() - began < 15
            assert "nothing answers" in said
            assert "\n" not in said
