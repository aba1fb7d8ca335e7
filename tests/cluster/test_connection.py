"""What is refused before anything is sent anywhere: options, a missing Ray, a dead address."""

import builtins
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.cluster.connection import ClusterOptions, Node, connected, probe
from benchmark.errors import BenchmarkError, ExperimentError, RunError

RUN = ("run", "gender-cnn-none-full-short", "--dataset", "drawn", "--tracking", "files")


def test_options_that_no_cluster_can_meet_are_refused() -> None:
    refused: tuple[dict[str, Any], ...] = (
        {"address": "nowhere"}, {"cpus": 0}, {"gpus": 1.5}, {"gpus": 1, "device": "cpu"},
    )  # fmt: skip
    for fields in refused:
        with pytest.raises(ExperimentError):
            ClusterOptions(**({"address": "ray"} | fields))
    for address in ("ray", "auto", "head:6379", "ray://head:10001"):
        assert ClusterOptions(address, gpus=0.25).address == address


def test_options_of_a_cluster_are_refused_without_one(drawn_data_dir: Path, tmp_path: Path) -> None:
    places = ("--data-dir", str(drawn_data_dir), "--runs-dir", str(tmp_path))
    for option in (("--gpus-per-run", "1"), ("--shared-runs",)):
        result = CliRunner().invoke(app, [*RUN, *places, *option])
        assert result.exit_code == 2
        assert option[0] in result.stderr


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", importing)
    with (
        pytest.raises(RunError, match=r"pip install 'facebench\[cluster\]'"),
        connected(ClusterOptions("ray")),
    ):
        pass


def test_an_address_that_does_not_answer_is_one_sentence_within_15_seconds() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'facebench[cluster]'")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # accepts, and speaks no gRPC
        port = silent.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            began = time.monotonic()
            with (
                pytest.raises(BenchmarkError, match="nothing answers") as refused,
                connected(ClusterOptions(address)),
            ):
                pass
            assert time.monotonic() - began < 15
            assert "\n" not in str(refused.value)


def test_a_node_has_room_for_as_many_runs_as_its_scarcest_resource_allows() -> None:
    node = Node("1", "big", {"CPU": 16, "GPU": 2})
    assert node.slots({"CPU": 1, "GPU": 0}) == 16
    assert node.slots({"CPU": 4, "GPU": 0.25}) == 4
    assert node.slots({"CPU": 1, "GPU": 0.1}) == 16
    assert node.slots({"CPU": 1, "GPU": 3}) == 0


def test_versions_tell_one_code_from_another() -> None:
    here = probe()()
    assert set(here) == {"facebench", "torch", "python"}
    assert here == probe()()
