"""The driver of a cluster: what it sends where, and what each end leaves in the runs' folders."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.cluster import fleet as driver
from benchmark.cluster import worker
from benchmark.cluster.connection import ClusterOptions, connected
from benchmark.cluster.fleet import Fleet, Task
from benchmark.cluster.worker import Inbox, Reporter, read_files, write_files
from benchmark.data.dataset import FaceSet
from benchmark.errors import ClusterLost, RunError
from benchmark.experiment.definition import Backbone
from benchmark.files import file_lock
from benchmark.record import RunRecord, all_records
from benchmark.runs.folder import CHECKPOINT_FILE
from benchmark.runs.run import Advanced, Event, Failed, Finished, Missing, Skipped, Started, run_all
from benchmark.training.prefix_cache import CacheSettings
from benchmark.training.trainer import EpochResult
from tests.cluster.stand_in import ObjectStoreFullError, RayError, RayTaskError, StandIn
from tests.runs.small import a_plan, an_experiment, settings

SHORT = an_experiment(max_epochs=1)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    monkeypatch.setenv(worker.WORKER_DIR, str(tmp_path / "node"))
    monkeypatch.setattr(driver, "REPORTS_SECONDS", 0.0)
    worker._on_device.clear()
    n_threads = torch.get_num_threads()
    yield StandIn().install(monkeypatch)
    torch.set_num_threads(n_threads)


@contextlib.contextmanager
def a_fleet(**options: Any) -> Iterator[Fleet]:
    asked = {"device": "cpu", "precision": "fp32"} | options
    with connected(ClusterOptions("ray", **asked)) as connection:
        yield Fleet(connection)


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_run_comes_back_as_it_would_have_been_made_here(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    mirrored: list[RunRecord] = []
    where = settings(tmp_path / "runs", mirror=mirrored.append)
    with a_fleet() as fleet:
        events = list(fleet.run_all([SHORT], (0, 1), drawn_faces, where))
        again = list(fleet.run_all([SHORT], (0, 1), drawn_faces, where))
    assert names(events).count("Finished") == 2
    assert {event.where for event in events if isinstance(event, Started)} == {"host0 (127.0.0.0)"}
    assert [event.step.epoch for event in events if isinstance(event, Advanced)] == [0, 0]
    assert [event.why for event in again if isinstance(event, Skipped)] == ["done", "done"]
    local = settings(tmp_path / "local")
    assert names(list(run_all([SHORT], (0, 1), drawn_faces, local))).count("Finished") == 2
    for here, there in zip(
        all_records(tmp_path / "local"), all_records(where.runs_dir), strict=True
    ):
        assert here.identity == there.identity
        assert here.predictions_sha256 == there.predictions_sha256
        assert {path.name for path in here.folder.iterdir()} == {
            path.name for path in there.folder.iterdir()
        }
    assert len(mirrored) == 4
    assert not ray.is_up
    assert not list((tmp_path / "node").glob("run-*"))


def test_what_fails_by_itself_is_one_failed_run_and_the_others_go_on(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    bad, lost = (
        an_experiment(learning_rate=1e30),
        SHORT.adjusted({"backbone.weights": "run:01234567"}),
    )
    with a_fleet() as fleet:
        events = list(fleet.run_all([bad, lost, SHORT], (0,), drawn_faces, where))
        ends = [event for event in events if isinstance(event, Failed | Missing | Finished)]
        assert names(ends) == ["Missing", "Failed", "Finished"]
        assert isinstance(ends[1], Failed)
        assert "finite" in str(ends[1].error)
        again = list(fleet.run_all([bad], (0,), drawn_faces, where))
    failed = next(record for record in all_records(tmp_path) if record.state == "failed")
    assert failed.about["attempt"] == 2
    assert names(again)[-1] == "Failed"
    assert len([task for task in ray.sent if task.options.get("name")]) == 3


def test_a_worker_lost_too_often_and_an_error_of_a_node_are_failed_runs(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    for trouble, said in (
        (RayError("the raylet died"), "its worker was lost 4 times: the raylet died"),
        (OSError(28, "No space left on device", "/scratch"), "No space left on device"),
    ):
        with a_fleet() as fleet:
            ray.troubles.append(trouble)
            *_, failed = fleet.run_all([SHORT], (0,), drawn_faces, where)
        assert isinstance(failed, Failed)
        assert said in str(failed.error)
        assert (failed.experiment, failed.seed) == (SHORT, 0)


def test_a_full_object_store_or_a_lost_cluster_ends_the_suite_with_a_sentence(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    with a_fleet() as fleet:
        ray.put_error = ObjectStoreFullError("no room for 700 MB")
        with pytest.raises(ClusterLost, match="object store is full.*--object-store-memory"):
            list(fleet.run_all([SHORT], (0,), drawn_faces, where))
        ray.put_error = ConnectionError("the head is gone")
        with pytest.raises(ClusterLost, match="the head is gone.*the same command resumes"):
            list(fleet.run_all([SHORT], (0,), drawn_faces, where))
        ray.put_error = None
        ray.troubles.append(RayTaskError(ObjectStoreFullError("b'bytes'")))
        with pytest.raises(ClusterLost, match=r"store is full.* node 127\.0\.0\.0\. .* resumes"):
            list(fleet.run_all([SHORT], (0,), drawn_faces, where))
    assert [record.state for record in all_records(tmp_path)] == []


def test_a_run_that_another_driver_has_is_left_to_it(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    plan = a_plan(drawn_faces, where, SHORT)
    with a_fleet() as fleet, file_lock(plan.folder / "claim"):
        (skipped,) = fleet.run_all([SHORT], (0,), drawn_faces, where)
    assert isinstance(skipped, Skipped)
    assert "runs it" in skipped.why
    assert not [task for task in ray.sent if task.options.get("name")]


def test_a_reader_that_stops_cancels_the_tasks_and_the_same_run_resumes(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, experiment = settings(tmp_path), an_experiment(max_epochs=3)
    plan = a_plan(drawn_faces, where, experiment)

    with a_fleet(report_seconds=0.0) as fleet:
        with monkeypatch.context() as patch:
            real = worker.run
            patch.setattr(worker, "run", lambda *a: _until_lost(real(*a)))
            with pytest.raises(RunError, match="the node died"):
                list(fleet.run(plan, where))
        assert (plan.folder / CHECKPOINT_FILE).is_file()
        (plan.folder / "failed.json").unlink()
        *_, finished = fleet.run_all([experiment], (0,), drawn_faces, where)
        stopped = fleet.run(replace(plan, seed=1, folder=plan.folder.with_name("0" * 64)), where)
        next(stopped)
        stopped.close()
    assert isinstance(finished, Finished)
    assert ray.sent[-1].is_cancelled
    local = settings(tmp_path / "local")
    *_, whole = run_all([experiment], (0,), drawn_faces, local)
    assert isinstance(whole, Finished)
    here, there = (item.plan.record for item in (whole, finished))
    assert here.predictions_sha256 == there.predictions_sha256
    assert there.history()["epoch"].tolist() == [1, 2, 3]


def _until_lost(events: Iterator[Event]) -> Iterator[Event]:
    """Give a run's events to its first epoch's end; then its node is lost."""
    for event in events:
        yield event
        if isinstance(event, Advanced) and isinstance(event.step, EpochResult):
            raise RayError("the node died")


def test_runs_on_one_frozen_prefix_go_to_the_node_that_has_it(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    ray.resources = ({"CPU": 1.0}, {"CPU": 1.0})
    backbone = Backbone("cnn", input_px=32, trainable_stages=0)
    frozen = an_experiment("mtl-cnn-none-frozen-tiny", backbone, max_epochs=1)
    other = frozen.varied(name="gender-cnn-none-frozen-tiny", **{"head.tasks": ("gender",)})
    where = settings(tmp_path / "runs", cache=CacheSettings(tmp_path / "cache"))
    with a_fleet() as fleet:
        list(fleet.run_all([frozen], (0,), drawn_faces, where))
        *_, done = fleet.run_all([other], (0,), drawn_faces, where)
        (prefix,) = fleet._homes
        fleet._tasks["a"] = Task(a_plan(drawn_faces, where), None, "node0")
        assert fleet._home(prefix) is None, "the other node is free"
        fleet._tasks["b"] = Task(a_plan(drawn_faces, where), None, "node1")
        assert fleet._home(prefix) == "node0", "none is: the one that has it is worth waiting for"
    assert isinstance(done, Finished)
    assert done.plan.record.about["speed"]["cache"]["origin"] == "found"
    first, second = (task.options for task in ray.sent if "name" in task.options)
    assert "scheduling_strategy" not in first
    assert (second["scheduling_strategy"].node, second["scheduling_strategy"].soft) == (
        "node0", True
    )  # fmt: skip


def test_with_a_shared_folder_workers_write_the_run_themselves(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    with a_fleet(shared_runs=True) as fleet:
        events = list(fleet.run_all([SHORT], (0,), drawn_faces, where))
        assert [record.state for record in all_records(tmp_path)] == ["done"]
        plan = a_plan(drawn_faces, where, an_experiment(max_epochs=2))
        with file_lock(plan.folder / "claim"):
            (skipped,) = (event for event in fleet.run(plan, where) if isinstance(event, Skipped))
        ray.on_task = lambda: shutil.rmtree(tmp_path / "work")  # Another machine's: not shared.
        *_, failed = fleet.run_all([SHORT], (1,), drawn_faces, where)
    assert isinstance(events[-1], Finished)
    assert "runs it" in skipped.why
    assert isinstance(failed, Failed)
    assert "does not have the folder" in str(failed.error)


def test_weights_of_a_run_come_to_the_node_with_what_tells_about_them(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    with a_fleet() as fleet:
        *_, first = fleet.run_all([SHORT], (0,), drawn_faces, where)
        assert isinstance(first, Finished)
        second = SHORT.adjusted({"backbone.weights": f"run:{first.plan.identity[:12]}"})
        *_, finished = fleet.run_all([second], (0,), drawn_faces, where)
    assert isinstance(finished, Finished)
    assert finished.plan.record.about["weights"]["from_run"] == first.plan.identity
    kept = {path.name for path in (tmp_path / "node" / "weights").rglob("*") if path.is_file()}
    assert {"model.safetensors", "experiment.json"} <= kept


def test_damaged_faces_and_other_versions_are_refused_by_the_node(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    where = settings(tmp_path)
    place = tmp_path / "node" / "faces" / drawn_faces.pixel_digest / "faces.npy"
    place.parent.mkdir(parents=True)
    content = (drawn_faces.folder / "faces.npy").read_bytes()
    place.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    worker._checked.cache_clear()
    with a_fleet() as fleet:
        *_, damaged = fleet.run_all([SHORT], (0,), drawn_faces, where)
        *_, sent_again = fleet.run_all([SHORT], (0,), drawn_faces, where)
        fleet._versions = {"facebench": "0"}
        *_, other = fleet.run_all([SHORT], (1,), drawn_faces, where)
    assert isinstance(damaged, Failed)
    assert "the packed faces that came" in str(damaged.error)
    assert isinstance(sent_again, Finished)
    assert isinstance(other, Failed)
    assert "same versions" in str(other.error)


def test_a_cluster_without_room_or_with_other_versions_is_refused(
    ray: StandIn, drawn_faces: FaceSet, tmp_path: Path
) -> None:
    refused = pytest.raises(RunError, match="asks for 2 GPU and 1 CPU, more than any node has")
    with refused, connected(ClusterOptions("ray", gpus=2)):
        pass
    ray.task = lambda function, _: function() | {"torch": "1.0"}
    refused = pytest.raises(RunError, match=r"1 of 1 nodes have other versions: host0.*torch 1\.0")
    with refused, connected(ClusterOptions("ray")):
        pass
    ray.init_error = RuntimeError("Version mismatch: The cluster was started with:\n Ray: 2.1")
    refused = pytest.raises(RunError, match="Version mismatch: The cluster was started with: Ray")
    with refused, connected(ClusterOptions("ray")):
        pass
    assert not ray.is_up


def test_a_folder_takes_what_its_worker_says_of_it(tmp_path: Path) -> None:
    for name in ("failed.json", CHECKPOINT_FILE, "trial.json", "history.csv"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    new = {"history.csv": np.frombuffer(b"new", np.uint8)}
    write_files(tmp_path, new, is_end=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        CHECKPOINT_FILE, "trial.json", "history.csv"
    }  # fmt: skip
    write_files(tmp_path, new | {"done.json": np.frombuffer(b"{}", np.uint8)}, is_end=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "done.json", "trial.json", "history.csv"
    }  # fmt: skip
    assert read_files(tmp_path, ["history.csv", "absent"])["history.csv"].tobytes() == b"new"


def test_a_report_has_what_changed_since_the_last_one(ray: StandIn, tmp_path: Path) -> None:
    sent: list[tuple[str, Any]] = []

    class Told:
        class keep:
            remote = staticmethod(lambda identity, files: sent.append((identity, files)))

    (tmp_path / "experiment.json").write_text("{}", encoding="utf-8")
    report = Reporter(Told(), 0.0, shared=False)
    report(RunRecord(tmp_path))
    time.sleep(0.02)
    (tmp_path / "history.csv").write_text("epoch", encoding="utf-8")
    report(RunRecord(tmp_path))
    assert [set(files) for _, files in sent] == [{"experiment.json"}, {"history.csv"}]
    late = Reporter(Told(), 60.0, shared=False)
    late(RunRecord(tmp_path))
    assert len(sent) == 2


def test_an_inbox_keeps_the_last_files_of_a_run_until_it_ends(ray: StandIn) -> None:
    inbox, array = Inbox(), np.zeros(1, np.uint8)
    inbox.begin("a", {"failed.json": array, "experiment.json": array})
    inbox.keep("a", {"checkpoint.pt": array})
    assert set(inbox.files("a")) == {"experiment.json", "checkpoint.pt"}
    ((identity, kind, content),) = inbox.take()
    assert (identity, kind, set(content)) == ("a", "files", {"checkpoint.pt"})
    assert not inbox.take()
    inbox.forget("a")
    assert not inbox.files("a")
