"""The driver of a cluster: what it sends where, and what each end leaves in the runs' folders."""

import contextlib
import re
import shutil
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.cluster import fleet as driver_module
from benchmark.cluster import worker
from benchmark.cluster.connection import ClusterOptions, connected
from benchmark.cluster.fleet import Fleet, Task
from benchmark.data.dataset import FaceSet
from benchmark.errors import BenchmarkError, ClusterLost, ExperimentError, RunError
from benchmark.experiment.definition import Backbone, Experiment
from benchmark.files import file_lock
from benchmark.record import RunRecord, all_records
from benchmark.runs.folder import CHECKPOINT_FILE
from benchmark.runs.plan import Plan, Settings, plan_run
from benchmark.runs.run import Advanced, Event, Failed, Finished, Missing, Skipped, Started, run_all
from benchmark.training.prefix_cache import CacheSettings
from benchmark.training.trainer import EpochResult
from tests.cli.conftest import facebench
from tests.cluster.stand_in import ObjectStoreFullError, RayError, RayTaskError, StandIn
from tests.runs.small import an_experiment, settings

SHORT = an_experiment(max_epochs=1)


@dataclass
class Driver:
    """A runs folder, and a stand-in of Ray for its runs; node: what a worker keeps."""

    faces: FaceSet
    where: Settings
    ray: StandIn
    node: Path

    @contextlib.contextmanager
    def fleet(self, **options: Any) -> Iterator[Fleet]:
        asked = {"device": "cpu", "precision": "fp32"} | options
        with connected(ClusterOptions("ray", **asked)) as connection:
            yield Fleet(connection)

    def run(
        self, *experiments: Experiment, seeds: tuple[int, ...] = (0,), **options: Any
    ) -> list[Event]:
        with self.fleet(**options) as fleet:
            return list(fleet.run_all(experiments, seeds, self.faces, self.where))

    def plan(self, experiment: Experiment = SHORT) -> Plan:
        return plan_run(experiment, 0, self.faces, self.where)

    def here(self, experiment: Experiment, *seeds: int) -> list[RunRecord]:
        """Run the same without a cluster, in another folder; give what it leaves."""
        local = settings(self.where.runs_dir.with_name("local"))
        events = list(run_all([experiment], seeds, self.faces, local))
        assert names(events).count("Finished") == len(seeds)
        return list(all_records(local.runs_dir))


@pytest.fixture
def driver(
    monkeypatch: pytest.MonkeyPatch, drawn_faces: FaceSet, tmp_path: Path
) -> Iterator[Driver]:
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setenv(worker.WORKER_DIR, str(tmp_path / "node"))
    monkeypatch.setattr(driver_module, "REPORTS_SECONDS", 0.0)
    worker._on_device.clear()
    n_threads = torch.get_num_threads()
    yield Driver(drawn_faces, settings(tmp_path / "runs"), ray, tmp_path / "node")
    torch.set_num_threads(n_threads)


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_run_comes_back_as_it_would_have_been_made_here(driver: Driver) -> None:
    mirrored: list[RunRecord] = []
    driver.where = replace(driver.where, mirror=mirrored.append)
    events = driver.run(SHORT, seeds=(0, 1))
    again = driver.run(SHORT, seeds=(0, 1))
    assert names(events).count("Finished") == 2
    assert {event.where for event in events if isinstance(event, Started)} == {"host0 (127.0.0.0)"}
    assert [event.step.epoch for event in events if isinstance(event, Advanced)] == [0, 0]
    assert [event.why for event in again if isinstance(event, Skipped)] == ["done", "done"]
    made_there = all_records(driver.where.runs_dir)
    for here, there in zip(driver.here(SHORT, 0, 1), made_there, strict=True):
        assert here.identity == there.identity
        assert here.predictions_sha256 == there.predictions_sha256
        left, came = ({path.name for path in it.folder.iterdir()} for it in (here, there))
        assert left == came
    assert len(mirrored) == 4
    assert not driver.ray.is_up
    assert not list(driver.node.glob("run-*"))


def test_what_fails_by_itself_is_one_failed_run_and_the_others_go_on(driver: Driver) -> None:
    bad = an_experiment(learning_rate=1e30)
    lost = SHORT.adjusted({"backbone.weights": "run:01234567"})
    events = driver.run(bad, lost, SHORT)
    ends = [event for event in events if isinstance(event, Failed | Missing | Finished)]
    assert names(ends) == ["Missing", "Failed", "Finished"]
    assert isinstance(ends[1], Failed)
    assert "finite" in str(ends[1].error)
    assert names(driver.run(bad))[-1] == "Failed"
    states = {record.state: record for record in all_records(driver.where.runs_dir)}
    assert states["failed"].about["attempt"] == 2
    assert len(driver.ray.trained()) == 3


@pytest.mark.parametrize(
    ("on_put", "in_task", "kind", "said"),
    [
        (None, RayError("the raylet died"), RunError, "was lost 4 times: the raylet died"),
        (None, OSError(28, "No space left", "/scratch"), RunError, "No space left"),
        (None, RayTaskError(ObjectStoreFullError("b'bytes'")), ClusterLost,
         r"store is full.* node 127\.0\.0\.0\. .* resumes"),
        (ObjectStoreFullError("no 700 MB"), None, ClusterLost, "full.*--object-store-memory"),
        (ConnectionError("the head is gone"), None, ClusterLost, "head is gone.*resumes"),
    ],
)  # fmt: skip
def test_trouble_of_a_node_fails_a_run_and_trouble_of_the_cluster_ends_the_suite(
    driver: Driver, on_put: Any, in_task: Any, kind: type[RunError], said: str
) -> None:
    driver.ray.put_error, driver.ray.troubles = on_put, deque([in_task] if in_task else [])
    try:
        *_, failed = driver.run(SHORT)
        assert isinstance(failed, Failed)
        error: BenchmarkError = failed.error
    except ClusterLost as lost:
        error = lost
    assert type(error) is kind
    assert re.search(said, str(error))
    assert list(all_records(driver.where.runs_dir)) == []


def test_a_run_that_another_driver_has_is_left_to_it(driver: Driver) -> None:
    with file_lock(driver.plan().folder / "claim"):
        (skipped,) = driver.run(SHORT)
    assert isinstance(skipped, Skipped)
    assert "runs it" in skipped.why
    assert not driver.ray.trained()


def _until_lost(events: Iterator[Event]) -> Iterator[Event]:
    """Give a run's events to its first epoch's end; then its node is lost."""
    for event in events:
        yield event
        if isinstance(event, Advanced) and isinstance(event.step, EpochResult):
            raise RayError("the node died")


@pytest.mark.slow
def test_what_is_cut_off_resumes(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    where, experiment = driver.where, an_experiment(max_epochs=3)
    plan = driver.plan(experiment)
    with driver.fleet(report_seconds=0.0) as fleet:
        with monkeypatch.context() as patch:
            real = worker.run
            patch.setattr(worker, "run", lambda *given: _until_lost(real(*given)))
            with pytest.raises(RunError, match="the node died"):
                list(fleet.run(plan, where))
        assert (plan.folder / CHECKPOINT_FILE).is_file()
        *_, finished = fleet.run_all([experiment], (0,), driver.faces, where)
        stopped = fleet.run(replace(plan, seed=1, folder=plan.folder.with_name("0" * 64)), where)
        next(stopped)
        stopped.close()
    assert isinstance(finished, Finished)
    assert driver.ray.sent[-1].is_cancelled
    (here,) = driver.here(experiment, 0)
    assert here.predictions_sha256 == plan.record.predictions_sha256
    assert plan.record.history()["epoch"].tolist() == [1, 2, 3]
    for name in ("failed.json", CHECKPOINT_FILE):
        assert not (plan.folder / name).exists()


def test_a_run_goes_to_the_node_that_has_its_frozen_prefix(driver: Driver, tmp_path: Path) -> None:
    driver.ray.resources = ({"CPU": 1.0}, {"CPU": 1.0})
    backbone = Backbone("cnn", input_px=32, trainable_stages=0)
    frozen = an_experiment("mtl-cnn-none-frozen-tiny", backbone, max_epochs=1)
    other = frozen.varied(name="gender-cnn-none-frozen-tiny", **{"head.tasks": ("gender",)})
    where = replace(driver.where, cache=CacheSettings(tmp_path / "cache"))
    with driver.fleet() as fleet:
        list(fleet.run_all([frozen], (0,), driver.faces, where))
        *_, done = fleet.run_all([other], (0,), driver.faces, where)
        (prefix,) = fleet._prefix_nodes
        # A run beside it goes to the node that is free; where none is, it waits for this one.
        for busy, chosen in (("node0", None), ("node1", "node0")):
            fleet._tasks[busy] = Task(driver.plan(), None, busy)
            assert fleet._node_with(prefix) == chosen
    assert isinstance(done, Finished)
    assert done.plan.record.about["speed"]["cache"]["origin"] == "found"
    first, second = (task.options for task in driver.ray.trained())
    assert "scheduling_strategy" not in first
    assert vars(second["scheduling_strategy"]) == {"node": "node0", "soft": True}


def test_with_a_shared_folder_workers_write_the_run_themselves(driver: Driver) -> None:
    assert names(driver.run(SHORT, shared_runs=True))[-1] == "Finished"
    assert [record.state for record in all_records(driver.where.runs_dir)] == ["done"]
    # Another machine's folder: it is not shared.
    driver.ray.on_train = lambda: shutil.rmtree(driver.where.runs_dir / "work")
    *_, failed = driver.run(SHORT, seeds=(1,), shared_runs=True)
    assert isinstance(failed, Failed)
    assert "does not have the folder" in str(failed.error)


def test_weights_of_a_run_come_to_the_node_with_what_tells_about_them(driver: Driver) -> None:
    *_, first = driver.run(SHORT)
    assert isinstance(first, Finished)
    *_, second = driver.run(SHORT.adjusted({"backbone.weights": f"run:{first.plan.identity[:12]}"}))
    assert isinstance(second, Finished)
    assert second.plan.record.about["weights"]["from_run"] == first.plan.identity
    kept = {path.name for path in (driver.node / "weights").rglob("*") if path.is_file()}
    assert {"model.safetensors", "experiment.json"} <= kept


def test_damaged_faces_and_other_versions_are_refused_by_the_node(driver: Driver) -> None:
    place = driver.node / "faces" / driver.faces.pixel_digest / "faces.npy"
    place.parent.mkdir(parents=True)
    content = (driver.faces.folder / "faces.npy").read_bytes()
    place.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    worker._checked.cache_clear()
    *_, damaged = driver.run(SHORT)
    *_, sent_again = driver.run(SHORT)
    with driver.fleet() as fleet:
        fleet._versions = {"facebench": "0"}
        *_, other = fleet.run_all([SHORT], (1,), driver.faces, driver.where)
    assert isinstance(damaged, Failed)
    assert "the packed faces that came" in str(damaged.error)
    assert isinstance(sent_again, Finished)
    assert isinstance(other, Failed)
    assert "same versions" in str(other.error)


def test_a_cluster_without_room_or_with_other_versions_is_refused(driver: Driver) -> None:
    def refused(said: str, **options: Any) -> None:
        with pytest.raises(RunError, match=said), driver.fleet(**options):
            pass

    refused("asks for 2 GPU and 1 CPU, more than any node has", gpus=2, device="cuda")
    driver.ray.task = lambda function, _: function() | {"torch": "1.0"}  # type: ignore[method-assign]
    refused(r"1 of 1 nodes have other versions: host0.*torch 1\.0")
    driver.ray.init_error = RuntimeError("Version mismatch: The cluster was started with:\n Ray: 2")
    refused("Version mismatch: The cluster was started with: Ray")
    assert not driver.ray.is_up


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


@pytest.mark.slow
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
