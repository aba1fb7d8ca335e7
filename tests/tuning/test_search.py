"""A search finds what was planted, survives whatever happens to it, and counts right."""

import contextlib
import functools
import hashlib
import itertools
import math
import multiprocessing
import random
import sqlite3
import statistics
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy.exc import OperationalError, PendingRollbackError

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError, StorageLost
from benchmark.experiment.space import RATE, Floats, SearchSpace
from benchmark.files import canonical_json
from benchmark.tracking.mirror import best_trial
from benchmark.tuning import study as studies
from benchmark.tuning.search import TrialEvent, search
from benchmark.tuning.study import Study, TrialHandle, TrialQueue
from tests.tuning.planted import BEST, EXPERIMENT, SPACE, a_study, quality, scored

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def study(tmp_path: Path, drawn_faces: FaceSet) -> Study:
    return a_study(tmp_path, drawn_faces)


def searched(queue: TrialQueue, n_trials: int, objective: Any = None) -> list[TrialEvent]:
    return list(search(queue, objective or scored(), n_trials))


def states(queue: TrialQueue) -> list[str]:
    return [trial.state for trial in queue.trials()]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_planted_recipe_is_found_sooner_than_random(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    found: dict[str, list[float]] = {"tpe": [], "random": []}
    for sampler, values in found.items():
        for seed in range(10):
            folder = tmp_path / f"{sampler}{seed}"
            study = a_study(folder, drawn_faces, sampler=sampler, sampler_seed=seed)
            queue = TrialQueue(study, "sqlite://")  # in memory: sooner
            searched(queue, 30)
            best = best_trial(queue.trials())
            assert best is not None
            values.append(best.value or 0.0)
    assert sum(value >= 0.99 * BEST for value in found["tpe"]) >= 9, found
    assert statistics.median(found["tpe"]) > statistics.median(found["random"])


def test_trials_that_are_pruned_count_and_no_more_are_made(study: Study) -> None:
    worse_and_worse = scored(lambda _, number: 1 / (number + 1), n_epochs=4)
    queue = TrialQueue(replace(study, experiment=EXPERIMENT.adjusted({"recipe.max_epochs": 4})))
    searched(queue, 9, worse_and_worse)
    assert Counter(states(queue)) == {"complete": 5, "pruned": 4}
    pruned = queue.snapshot().get_trials(states=[optuna.trial.TrialState.PRUNED])
    assert all(len(trial.intermediate_values) < 4 for trial in pruned)
    assert searched(queue, 9, worse_and_worse) == []


def test_a_nan_fails_its_trial_and_the_search_goes_on(study: Study) -> None:
    sometimes = scored(lambda point, number: math.nan if number == 1 else quality(point))
    queue = TrialQueue(study)
    (event,) = search(queue, sometimes, 3, seconds=0.0)
    assert event.text == "the time of 0 s is over: no trial begins"
    searched(queue, 3, sometimes)
    assert states(queue) == ["complete", "failed", "complete", "complete"]
    assert "epoch 1 is nan" in queue.trials()[1].reason


def test_when_every_trial_fails_the_search_ends_and_says_so(study: Study) -> None:
    queue = TrialQueue(study)
    *_, last = searched(queue, 30, scored(lambda *_: math.inf))
    assert states(queue) == ["failed"] * 5
    assert last.text.startswith("5 trials failed and none was good")


def test_stopped_from_outside_the_running_trial_is_marked_and_tried_again(study: Study) -> None:
    queue = TrialQueue(study)
    events = search(queue, scored(), 3)
    next(event for event in events if event.number == 1)
    events.close()
    first, stopped, queued = queue.trials()
    assert (first.state, stopped.state, queued.state) == ("complete", "failed", "waiting")
    assert queued.point == stopped.point
    searched(queue, 3)
    assert states(queue) == ["complete", "failed", "complete", "complete"]


def test_what_a_dead_process_left_running_is_failed_and_queued_once(study: Study) -> None:
    for _ in range(2):
        dead = TrialQueue(study).take(9)
        assert isinstance(dead, TrialHandle)
        dead.lock.close()  # As the kernel does when a process dies.
    queue = TrialQueue(study)
    searched(queue, 2)
    first, second, again, _ = queue.trials()
    assert states(queue) == ["failed", "failed", "complete", "complete"]
    assert first.point == second.point == again.point
    assert first.reason == second.reason == "its process died, queued again"


def test_a_point_that_kills_its_process_again_and_again_is_given_up(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.tuning.study.MOST_DEATHS", 2)
    for _ in range(2):
        dead = TrialQueue(study).take(9)
        assert isinstance(dead, TrialHandle)
        dead.lock.close()
    queue = TrialQueue(study)
    searched(queue, 1)
    first, second, other = queue.trials()
    assert first.point == second.point != other.point
    assert second.reason == "its process died"


def test_another_space_is_another_study_and_a_new_sampler_proposes_others(study: Study) -> None:
    for n_trials in (2, 4):
        searched(TrialQueue(study), n_trials)
    queue = TrialQueue(study)
    assert len({tuple(trial.point.values()) for trial in queue.trials()}) == 4
    assert queue.optuna_study.metric_names == ["val/combined"]
    narrower = SearchSpace((Floats(RATE, 1e-4, 1e-2), *SPACE.ranges[1:]))
    assert TrialQueue(replace(study, space=narrower)).trials() == []


def test_the_identity_of_a_study_is_what_it_was_before(study: Study) -> None:
    """Studies of earlier versions are resumed: their names and folders hold this digest."""
    digests = {"pixel_digest": "p", "split_digest": "s"}
    content = canonical_json(study.about | digests).encode()
    assert hashlib.sha256(content).hexdigest()[:16] == "51456423254920e3"
    assert study.own_folder.name == study.identity[:16]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.slow
def test_killed_again_and_again_no_trial_is_lost_or_double(study: Study) -> None:
    fork, locks = multiprocessing.get_context("fork"), study.own_folder / "claims"
    moments = random.Random(7)

    def begun() -> Any:
        process = fork.Process(target=lambda: searched(TrialQueue(study), 6, scored(seconds=0.4)))
        process.start()
        return process

    for n_killed in range(2):
        victim = begun()
        while len(list(locks.glob("*"))) <= n_killed:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.6))
        victim.kill()
        victim.join()
    for process in [begun(), begun()]:
        process.join()
        assert process.exitcode == 0
    trials = TrialQueue(study).trials()
    done = [trial for trial in trials if trial.counts]
    assert len(done) == len({tuple(trial.point.values()) for trial in done}) == 6
    assert {trial.state for trial in trials} <= {"complete", "pruned", "failed"}
    table = TrialQueue(study).snapshot().trials_dataframe()
    retried = table["user_attrs_retry_of"].dropna().tolist()
    assert len(retried) == len(set(retried))
    assert set(retried) <= {trial.number for trial in trials if trial.state == "failed"}


def trouble(study: Study, address: str = "") -> RunError:
    with pytest.raises(RunError, match="the study's storage cannot be used") as raised:
        TrialQueue(study, address).take(9)
    return raised.value


def test_what_is_no_storage_is_a_sentence_and_a_password_is_not_shown(study: Study) -> None:
    database = study.folder / "o.db"
    database.write_text("no database, but text long enough to be taken for a page" * 9)
    assert "file is not a database" in trouble(study, f"sqlite:///{database}").found
    for address in ("mlruns/o.db", "nosuch://me:secret@host/db"):
        assert "sqlite:///FILE" in trouble(study, address).allowed, address
        assert "secret" not in str(trouble(study, address))


def test_a_locked_or_older_database_is_named(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    TrialQueue(study)
    database = study.folder / "optuna.db"
    monkeypatch.setattr(studies, "LOCK_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(database)) as base:
        base.execute("BEGIN EXCLUSIVE")
        assert "locked" in trouble(study).found
    with contextlib.closing(sqlite3.connect(database)) as base, base:
        base.execute("UPDATE version_info SET schema_version = 3, library_version = '0.1.0'")
        base.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    assert "optuna storage upgrade" in trouble(study).fix


def cut_off(patch: pytest.MonkeyPatch, queue: TrialQueue, is_cut: Any) -> None:
    """Let a server lose the connection in writes: some are stored and not answered, some not."""
    queue.address = "postgresql://me:secret@host/db"
    patch.setattr(studies, "ASK_AGAIN_SECONDS", 0.0)
    broken = OperationalError("", {}, Exception("terminating connection"))
    causes = itertools.cycle([broken, PendingRollbackError("reconnect when rolled back")])

    def write(real: Any, *given: Any, **named: Any) -> Any:
        answer = real(*given, **named) if (fate := is_cut()) != "before" else None
        if fate:
            raise optuna.exceptions.StorageInternalError from next(causes)
        return answer

    for name in dir(queue._storage):
        if name.startswith(("set_trial_", "_create_new_trial")):
            real = getattr(queue._storage, name)
            patch.setattr(queue._storage, name, functools.partial(write, real))


def test_no_trial_is_lost_or_double_where_the_database_restarts_again_and_again(
    tmp_path: Path, drawn_faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = tuple({RATE: 10.0**-n} for n in range(1, 7))
    space, said = SearchSpace((Floats(RATE, 1e-6, 1e-1),)), list[str]()
    moments, fates = random.Random(5), ("before", "after", *[""] * 8)

    for study, n_wanted in (
        (a_study(tmp_path / "grid", drawn_faces, space=space, points=points), 6),
        (a_study(tmp_path / "free", drawn_faces, space=space), 8),
    ):
        queue = TrialQueue(study, say=said.append)
        with monkeypatch.context() as patch:
            cut_off(patch, queue, lambda: moments.choice(fates))
            events = searched(queue, n_wanted, scored(lambda point, _: point[RATE]))
        done = [trial for trial in queue.trials() if trial.state == "complete"]
        assert len(done) == len({trial.point[RATE] for trial in done}) == n_wanted
        assert all(trial.value == trial.point[RATE] for trial in done)
        assert {trial.state for trial in queue.trials()} <= {"complete", "failed"}
        assert [event.kind for event in events].count("complete") == n_wanted
        assert {trial.point[RATE] for trial in done} >= {point[RATE] for point in study.points}
    assert any("terminating connection; it is waited for" in text for text in said)
    assert "secret" not in "".join(said)


def test_a_search_resumes_after_its_database(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "AWAY_SECONDS", 0.2)
    queue, is_away = TrialQueue(study), list[str]()
    with monkeypatch.context() as patch:
        cut_off(patch, queue, lambda: is_away and "before")
        events = search(queue, scored(), 3)
        assert next(events).kind == "began"
        is_away.append("yes")
        with pytest.raises(StorageLost, match="the same command resumes, and no trial is lost"):
            list(events)
    assert states(queue) == ["running"]
    again = TrialQueue(study)
    searched(again, 3)
    assert [trial.state for trial in again.trials()].count("complete") == 3
    assert again.trials()[1].point == again.trials()[0].point
    assert again.snapshot().trials[1].user_attrs["retry_of"] == 0
