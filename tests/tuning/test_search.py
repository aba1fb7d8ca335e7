"""A search finds what was planted, survives whatever happens to it, and counts right."""

import multiprocessing
import random
import statistics
import time
from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmark.data.dataset import FaceSet
from benchmark.errors import RunError
from benchmark.experiment.space import DEPTH, RATE, Floats, SearchSpace
from benchmark.tuning.recipes import best_of
from benchmark.tuning.search import Ended, Limits, Remarked, Score, Step, search
from benchmark.tuning.search import SearchEvent as Event
from benchmark.tuning.study import default_storage
from benchmark.tuning.trials import MOST_DEATHS, Ledger, Ticket
from tests.tuning.planted import BEST, SPACE, a_ledger, a_study, main, planted, quality

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def searched(ledger: Ledger, n_trials: int, objective: Any = None) -> list[Event]:
    return list(search(ledger, objective or planted(), Limits(n_trials)))


def a_ticket(ledger: Ledger, n_trials: int = 9) -> Ticket:
    taken = ledger.take(n_trials)
    assert isinstance(taken, Ticket)
    return taken


def states(ledger: Ledger) -> list[str]:
    return [trial.state for trial in ledger.trials()]


def best_found(folder: Path, faces: FaceSet, sampler: str, seed: int) -> float:
    study = a_study(folder / f"{sampler}{seed}", faces, sampler=sampler, sampler_seed=seed)
    ledger = a_ledger(study)
    searched(ledger, 30)
    best = best_of(ledger.trials())
    assert best is not None
    assert best.value is not None
    return best.value


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_planted_recipe_is_found_in_thirty_trials_and_sooner_than_by_chance(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    by_model = [best_found(tmp_path, drawn_faces, "tpe", seed) for seed in range(10)]
    by_chance = [best_found(tmp_path, drawn_faces, "random", seed) for seed in range(10)]
    assert sum(value >= 0.99 * BEST for value in by_model) >= 9, by_model
    assert statistics.median(by_model) > statistics.median(by_chance)


def test_trials_that_are_pruned_count_and_no_more_are_made(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    def worse_and_worse(point: Mapping[str, Any], number: int) -> Generator[Step]:
        for epoch in range(4):
            yield Score(epoch, 1 / (number + 1), epoch == 3)

    ledger = Ledger(a_study(tmp_path, drawn_faces), f"journal:{tmp_path}/log", 4)
    searched(ledger, 9, worse_and_worse)
    assert Counter(states(ledger)) == {"complete": 5, "pruned": 4}
    assert all(len(trial.scores) < 4 for trial in ledger.trials() if trial.state == "pruned")
    assert searched(ledger, 9, worse_and_worse) == []


def test_a_nan_fails_its_trial_and_the_search_goes_on(tmp_path: Path, drawn_faces: FaceSet) -> None:
    def sometimes(point: Mapping[str, Any], number: int) -> Generator[Step]:
        yield Score(0, float("nan") if number == 1 else quality(point))

    ledger = a_ledger(a_study(tmp_path, drawn_faces))
    searched(ledger, 3, sometimes)
    assert states(ledger) == ["complete", "failed", "complete", "complete"]
    assert ledger.trials()[1].reason == "the score of epoch 1 is nan (allowed: a finite number)."


def test_when_every_trial_fails_the_search_ends_and_says_so(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    def broken(point: Mapping[str, Any], number: int) -> Generator[Step]:
        raise RunError("the rate is too high")
        yield Score(0, 0.0)

    ledger = a_ledger(a_study(tmp_path, drawn_faces))
    events = searched(ledger, 30, broken)
    assert states(ledger) == ["failed"] * 5
    assert isinstance(events[-1], Remarked)
    assert events[-1].sentence.startswith("5 trials failed and none was good")


def test_stopped_from_outside_the_running_trial_is_marked_and_tried_again(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    ledger = a_ledger(a_study(tmp_path, drawn_faces))
    events = search(ledger, planted(), Limits(3))
    ended = 0
    for event in events:
        ended += isinstance(event, Ended)
        if ended == 1 and not isinstance(event, Ended):
            break
    events.close()
    first, stopped, queued = ledger.trials()
    assert (first.state, stopped.state, queued.state) == ("complete", "failed", "waiting")
    assert queued.point == stopped.point
    searched(ledger, 3)
    assert states(ledger) == ["complete", "failed", "complete", "complete"]


def test_what_a_dead_process_left_running_is_failed_and_queued_once(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    study = a_study(tmp_path, drawn_faces)
    dead = a_ticket(a_ledger(study))
    dead.claim.close()  # As the kernel does when a process dies.
    ledger = a_ledger(study)
    again = a_ticket(ledger)
    assert again.point == dead.point
    ledger.complete(again, 0.5)
    searched(ledger, 2)
    assert states(ledger) == ["failed", "complete", "complete"]
    assert ledger.trials()[0].reason == "its process died, queued again"


def test_a_point_that_kills_whoever_tries_it_is_given_up(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    ledger = a_ledger(a_study(tmp_path, drawn_faces))
    points = []
    for _ in range(MOST_DEATHS + 1):
        ticket = a_ticket(ledger)
        points.append(ticket.point)
        ticket.claim.close()
    assert all(point == points[0] for point in points[:MOST_DEATHS])
    assert points[MOST_DEATHS] != points[0]


def test_a_trial_that_somebody_is_at_is_left_to_them(tmp_path: Path, drawn_faces: FaceSet) -> None:
    study = a_study(tmp_path, drawn_faces)
    mine, theirs = a_ledger(study), a_ledger(study)
    ticket = a_ticket(mine, 1)
    assert theirs.take(1) == "wait"
    mine.complete(ticket, 0.5)
    assert theirs.take(1) == "enough"


def test_another_space_is_another_study_and_knows_the_earlier_one(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    searched(a_ledger(a_study(tmp_path, drawn_faces)), 1)
    narrower = SearchSpace((Floats(RATE, 1e-4, 1e-2), *SPACE.ranges[1:]))
    ledger = a_ledger(a_study(tmp_path, drawn_faces, space=narrower))
    assert ledger.trials() == []
    assert not ledger.was_there
    (about,) = ledger.earlier_studies().values()
    assert about["space"][RATE] == "1e-05 to 0.1, by factors"
    assert about["space"][DEPTH] == narrower.words[DEPTH]


def test_a_restarted_sampler_does_not_propose_the_same_points_again(
    tmp_path: Path, drawn_faces: FaceSet
) -> None:
    study = a_study(tmp_path, drawn_faces)
    for n_trials in (2, 4):
        searched(a_ledger(study), n_trials)
    points = [tuple(trial.point.values()) for trial in a_ledger(study).trials()]
    assert len(set(points)) == 4


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.slow
def test_killed_again_and_again_with_two_processes_no_trial_is_lost_or_double(
    tmp_path: Path, drawn_faces: FaceSet, drawn_data_dir: Path
) -> None:
    """A short form of tests/tuning/kill_study.py, whose outcome is in docs/notes/tuning.md."""
    fork = multiprocessing.get_context("fork")
    study = a_study(tmp_path, drawn_faces)
    claims, address = study.own_folder / "claims", default_storage(tmp_path)
    arguments = (str(tmp_path), str(drawn_data_dir), "6", "0.4", address)

    def begun() -> Any:
        process = fork.Process(target=main, args=arguments)
        process.start()
        return process

    moments = random.Random(7)
    for n_killed in range(2):
        victim = begun()
        while len(list(claims.glob("*"))) <= n_killed:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.6))
        victim.kill()
        victim.join()
    for process in [begun(), begun()]:
        process.join()
        assert process.exitcode == 0
    trials = a_ledger(study, address).trials()
    done = [trial for trial in trials if trial.counts]
    assert len(done) == 6
    assert len({tuple(trial.point.values()) for trial in done}) == 6
    assert {trial.state for trial in trials} <= {"complete", "pruned", "failed"}
    retried = [trial.retry_of for trial in trials if trial.retry_of is not None]
    assert len(retried) == len(set(retried))
    assert set(retried) <= {trial.number for trial in trials if trial.state == "failed"}
