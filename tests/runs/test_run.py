"""A run end to end on drawn faces: done once, resumed when stopped, told when it failed."""

import gc
import json
import resource
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmark.errors import RunError
from benchmark.evaluation.predictions import read_predictions
from benchmark.files import file_lock
from benchmark.models.network import Network
from benchmark.record import RunRecord, all_records
from benchmark.runs import folder
from benchmark.runs.queue import queued, queues, queues_folder
from benchmark.runs.run import Advanced, Failed, Finished, Skipped, Started, run_all
from benchmark.training.trainer import EpochResult
from tests.runs.small import Place, an_experiment, settings


def test_a_run_that_another_process_holds_is_left(place: Place) -> None:
    plan = place.plan()
    with file_lock(plan.folder / "claim"):
        (event,) = place.run(plan)
    assert isinstance(event, Skipped)
    assert "runs it" in event.why


def test_a_stopped_run_ends_as_undisturbed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = an_experiment("mtl-cnn-none-full-kept", max_epochs=4, steps_per_epoch=4)
    plan = place.plan(experiment)
    with monkeypatch.context() as patched:
        patched.setattr(folder, "CHEAP_SECONDS", 0.0)
        patched.setattr(folder, "SHARE", 1e-9)
        stopped = place.run(plan)
        for event in stopped:
            step = event.step if isinstance(event, Advanced) else None
            if isinstance(step, EpochResult) and step.epoch == 2:
                break
        stopped.close()
    assert plan.record.state == "interrupted"
    assert (plan.folder / "interrupted.json").is_file()
    assert plan.record.history()["epoch"].tolist() == [1]

    events = list(place.run(plan))
    assert isinstance(events[0], Started)
    assert events[0].epochs_done == 1
    whole = Place(place.faces, place.runs_dir / "whole").done(experiment)
    pd.testing.assert_frame_equal(
        read_predictions(plan.record.predictions_path), read_predictions(whole.predictions_path)
    )
    assert plan.record.history()["epoch"].tolist() == [1, 2, 3, 4]
    for name in ("interrupted.json", folder.CHECKPOINT_FILE):
        assert not (plan.folder / name).exists()


BROKEN = an_experiment("mtl-cnn-none-full-broken", learning_rate=1e30, clipping="none")


def networks() -> int:
    gc.collect()
    # By type, not isinstance: some of torch's own objects warn when their class is asked for.
    return sum(type(item) is Network for item in gc.get_objects())


def test_a_failed_run_says_why_lets_go_of_its_network_and_the_next_one_runs(place: Place) -> None:
    n_before = networks()
    events = place.run_all(BROKEN, an_experiment())
    assert networks() == n_before
    ends = [type(event) for event in events]
    assert [end for end in ends if end not in (Started, Advanced)] == [Failed, Finished]
    (failed,) = (record for record in all_records(place.runs_dir) if record.state == "failed")
    assert failed.experiment_name == "mtl-cnn-none-full-broken"
    assert "training loss" in json.loads((failed.folder / "failed.json").read_text())["why"]

    with pytest.raises(RunError, match="mtl-cnn-none-full-broken, seed 0 failed"):
        list(place.run(place.plan(BROKEN)))
    assert RunRecord(failed.folder).about["attempt"] == 2


def test_a_run_whose_folder_cannot_be_made_has_failed_and_the_next_one_runs(place: Place) -> None:
    first, second = an_experiment(), an_experiment("mtl-cnn-none-full-next", max_epochs=1)
    path = place.plan(first).folder
    path.parent.mkdir()
    path.write_text("a file, where a folder should be", encoding="utf-8")
    failed, *_, ended = place.run_all(first, second)
    assert isinstance(failed, Failed)
    assert isinstance(ended, Finished)
    assert str(path) in failed.error.found
    assert "--runs-dir" in failed.error.fix


def test_an_ad_hoc_run_reads_no_test_face_unless_told_to(place: Place) -> None:
    ad_hoc = an_experiment().adjusted({"recipe.max_epochs": 1})
    record = place.done(ad_hoc, figures=False)
    assert not list(record.folder.glob("*.png"))
    assert set(read_predictions(record.predictions_path)["part"]) == {"val"}
    assert not any(name.startswith("test/") for name in record.metrics)
    again = place.done(ad_hoc, evaluate_test=True)
    assert set(read_predictions(again.predictions_path)["part"]) == {"val", "test"}


def test_a_planted_duplicate_across_the_split_stops_the_training(place: Place) -> None:
    table = place.faces.table.copy()
    in_train, in_test = (table.index[table["part"] == part][0] for part in ("train", "test"))
    table.loc[in_test, "sha256"] = table.loc[in_train, "sha256"]
    leaking = replace(place.faces, table=table)
    (event,) = Place(leaking, place.runs_dir).run_all(an_experiment())
    assert isinstance(event, Failed)
    assert "sha256" in str(event.error)


@pytest.mark.slow
def test_a_disk_that_takes_no_more_ends_in_a_sentence(drawn_data_dir: Path, tmp_path: Path) -> None:
    """A limit on file sizes fails a write in the middle, as a full disk does."""
    answer = subprocess.run(
        [
            *(sys.executable, "-c", "from benchmark.cli.main import main; main()"),
            *("run", "mtl-cnn-none-full-short", "--set", "backbone.input_px=32"),
            *("--set", "recipe.max_epochs=1", "--tracking", "files", "--device", "cpu"),
            *("--dataset", "drawn", "--data-dir", drawn_data_dir, "--runs-dir", tmp_path),
        ],
        capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )  # fmt: skip
    assert answer.returncode == 3, answer.stderr
    assert "File too large" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert [record.state for record in all_records(tmp_path)] in (["failed"], ["interrupted"])


def test_a_queue_says_where_each_run_stands(place: Place) -> None:
    good, bad = an_experiment(max_epochs=1), an_experiment(learning_rate=1e30, max_epochs=1)
    lost = an_experiment(max_epochs=1).adjusted({"backbone.weights": "run:0123456789"})
    wanted, seen, runs_dir = [good, lost, bad], dict[str, list[str]](), place.runs_dir
    queues_folder(runs_dir).mkdir(parents=True)
    for name, text in (("elsewhere-1.json", "{}"), ("elsewhere-1.lock", "")):
        (queues_folder(runs_dir) / name).write_text(text)
    assert not list(queues(runs_dir))
    events = run_all(wanted, (0,), place.faces, settings(runs_dir))
    told = queued(events, wanted, (0,), runs_dir, engine="ray", n_slots=3)
    for event in told:
        (found,) = queues(runs_dir)
        assert (found.engine, found.n_slots) == ("ray", 3)
        assert not list(queues_folder(runs_dir).glob("elsewhere*"))
        seen.setdefault(type(event).__name__, [run.state for run in found.runs])
        if isinstance(event, Started | Finished):
            running = next(run for run in found.runs if run.identity == event.plan.identity)
            assert running.where == socket.gethostname()
        elif type(event) is Failed:
            told.close()
    assert seen["Started"] == ["running", "queued", "queued"]
    assert seen["Missing"] == ["done", "missing", "queued"]
    assert seen["Failed"] == ["done", "missing", "failed"]
    assert not list(queues_folder(runs_dir).iterdir())
