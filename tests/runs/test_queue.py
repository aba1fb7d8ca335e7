"""What a process has before it can be read by another one, as long as it lives."""

import socket
from pathlib import Path

import pytest

from benchmark.data.dataset import FaceSet
from benchmark.runs import queue as queue_file
from benchmark.runs.queue import queued, queues, queues_folder
from benchmark.runs.run import Finished, Started, run_all
from tests.runs.small import an_experiment, settings


def test_a_queue_says_where_each_run_stands(
    drawn_faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_file, "WRITE_SECONDS", 0.0)
    good, bad = an_experiment(max_epochs=1), an_experiment(learning_rate=1e30, max_epochs=1)
    lost = an_experiment(max_epochs=1).adjusted({"backbone.weights": "run:0123456789"})
    where, seen = settings(tmp_path), []
    wanted = [good, lost, bad]
    for event in queued(run_all(wanted, (0,), drawn_faces, where), wanted, (0,), tmp_path):
        (found,) = queues(tmp_path)
        seen.append((type(event).__name__, [run.state for run in found.runs]))
        if isinstance(event, Started | Finished):
            running = next(run for run in found.runs if run.identity == event.plan.identity)
            assert running.where == socket.gethostname()
    by_event = dict(seen)
    assert by_event["Missing"] == ["done", "missing", "queued"]
    assert by_event["Failed"] == ["done", "missing", "failed"]
    assert seen[0] == ("Started", ["running", "queued", "queued"])
    assert not list(queues(tmp_path))
    assert not list(queues_folder(tmp_path).iterdir())


def test_a_queue_of_a_dead_process_is_not_shown_and_the_next_one_removes_it(
    drawn_faces: FaceSet, tmp_path: Path
) -> None:
    folder = queues_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "elsewhere-1.json").write_text("{}", encoding="utf-8")
    (folder / "elsewhere-1.lock").touch()
    assert not list(queues(tmp_path))
    experiment = an_experiment(max_epochs=1)
    events = run_all([experiment], (0,), drawn_faces, settings(tmp_path))
    told = queued(events, [experiment], (0,), tmp_path, engine="ray", n_slots=3)
    next(told)
    (found,) = queues(tmp_path)
    assert (found.engine, found.n_slots, len(found.runs)) == ("ray", 3, 1)
    assert not (folder / "elsewhere-1.json").exists()
    told.close()
    assert not list(folder.iterdir())
