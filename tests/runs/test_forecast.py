"""What runs would take: from runs with known costs, from operations, and placed on workers."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmark.experiment.definition import Augmentation, Backbone, Experiment
from benchmark.files import write_json
from benchmark.models.network import build_network
from benchmark.runs import forecast as costs
from benchmark.runs.folder import parts_for
from benchmark.runs.forecast import ON_H200, OPERATIONS, Build, Forecast, arrange
from benchmark.runs.forecast import forecast_all as forecasts_of
from benchmark.runs.plan import plan_run
from benchmark.training.prefix_cache import CacheSettings
from tests.cli.conftest import facebench
from tests.runs.small import Place, an_experiment, settings
from tests.training.small import CPU

CACHED = CacheSettings(Path("unused"))
FROZEN = Backbone("cnn", trainable_stages=0, input_px=32)


def frozen(**recipe: Any) -> Experiment:
    return an_experiment("mtl-cnn-none-frozen-tiny", FROZEN, **recipe)


def finished(
    place: Place, experiment: Experiment, *, seconds: float, epochs: int = 2, rest: float = 4.0,
    seed: int = 0, began: float = 1e9, device: dict[str, Any] | None = None, **speed: Any,
) -> None:  # fmt: skip
    """Leave what a finished run says of its costs. speed: how its activations were computed."""
    plan = plan_run(experiment, seed, place.faces, settings(place.runs_dir))
    counts = parts_for(plan).counts()
    about = plan.about(CPU, build_network(experiment, None, seed), counts)
    taken = seconds + rest + sum(cache["seconds"] for cache in speed.values())
    times = [datetime.fromtimestamp(when, UTC).isoformat() for when in (began, began + taken)]
    more = {"started": times[0], "speed": speed, **(device or {})}
    write_json(plan.folder / "experiment.json", about | more)
    done = {"schema": 1, "seconds": seconds, "epochs": epochs, "finished": times[1]}
    write_json(plan.folder / "done.json", done | {"test_was_read": True})


def forecast(
    place: Place, *experiments: Experiment, kind: str | None = None, **changes: Any
) -> list[Forecast]:
    where = settings(place.runs_dir, **changes)
    return list(forecasts_of(experiments, [1], place.faces, where, kind=kind))


def n_train(place: Place) -> int:
    return int((place.faces.table["part"] == "train").sum())


def multiply_adds(place: Place, experiment: Experiment) -> int:
    return build_network(experiment, None, 0).multiply_adds(place.faces.image_px)


def test_another_seed_takes_what_its_run_group_took(place: Place) -> None:
    finished(place, an_experiment(batch_size=16), seconds=99)  # of another run group
    for seed, began in ((0, 1000.0), (2, 1017.0), (3, 5000.0)):
        finished(place, an_experiment(), seconds=10, rest=4, seed=seed, began=began)
    (found,) = forecast(place, an_experiment())
    assert (found.basis, found.build) == ("3 runs of its seeds", None)
    assert (found.seconds, found.rest_seconds) == (pytest.approx(10), pytest.approx(4 + 3))


def test_other_recipes_take_as_long_for_each_face(place: Place) -> None:
    finished(place, an_experiment(batch_size=16), seconds=10)
    block5 = Backbone("cnn", trainable_stages=1, input_px=32)
    longer, deeper = an_experiment(max_epochs=6), an_experiment("mtl-cnn-none-block5-tiny", block5)
    # Two faces a step and two steps: of as many epochs it sees that many faces.
    stepped = an_experiment(batch_size=2, steps_per_epoch=2)
    alike, other, few = forecast(place, longer, deeper, stepped)
    assert (alike.basis, other.basis) == ("1 run of cnn full at 32 px", OPERATIONS)
    assert alike.seconds == pytest.approx(30)
    assert few.seconds == pytest.approx(10 * 4 / n_train(place))
    # One that may stop early is taken to stop as that one did, half-way.
    early = {"max_epochs": 10, "early_stopping_epochs": 2}
    finished(place, an_experiment(**early), seconds=8, epochs=5)
    assert forecast(place, an_experiment(**early))[0].seconds == pytest.approx(8)


def test_without_like_runs_operations_at_the_speed_of_full_trainings_here_or_on_gpus(
    place: Place,
) -> None:
    same, larger = an_experiment(), an_experiment(backbone=Backbone("cnn", input_px=64))
    finished(place, same, seconds=10)
    (here,), (there,) = forecast(place, larger), forecast(place, same, kind="cuda")
    ratio = multiply_adds(place, larger) / multiply_adds(place, same)
    assert (here.basis, here.seconds) == (OPERATIONS, pytest.approx(10 * ratio))
    work = 3 * multiply_adds(place, same) * 2 * n_train(place)
    assert (there.basis, there.seconds) == (ON_H200, pytest.approx(work / costs.H200_SPEED))

    elsewhere, on_gpu = Place(place.faces, place.runs_dir / "b"), {"device_kind": "cuda"}
    finished(elsewhere, same, seconds=9, device={"device": "another processor"})
    finished(elsewhere, same, seconds=2, seed=2, device={"device": "NVIDIA H200"} | on_gpu)
    (timed,), (measured,) = forecast(elsewhere, same), forecast(elsewhere, same, kind="cuda")
    assert (timed.basis, timed.rest_seconds) == (OPERATIONS, costs.REST_SECONDS)
    assert timed.seconds > 0
    assert measured.seconds == pytest.approx(2)


def costs_of(found: Forecast) -> tuple[float, int]:
    assert found.build is not None
    return found.build.seconds, found.build.n_bytes


def test_activations_cost_what_they_took_and_are_one_for_runs_that_share_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "_timed_speed", lambda device: 1e9)  # seconds of bf16 on old CPUs
    n_faces, n_eval = len(place.faces.table), len(place.faces.table) - n_train(place)
    built = {"origin": "built", "views": 1, "seconds": 6.0}
    finished(place, frozen(), seconds=1, cache=built, cache_of_answers=built | {"seconds": 3.0})
    flipped = frozen(augmentation=Augmentation(flip=True))
    one, other, two = forecast(place, frozen(), frozen(max_epochs=3), flipped, cache=CACHED)
    assert one.rest_seconds == pytest.approx(4)
    assert costs_of(one) == (pytest.approx(9), 256 * 4 * n_faces)
    assert other.build == one.build
    assert costs_of(two) == (pytest.approx(18), 2 * 256 * 4 * n_faces)
    # In bf16 the stored predictions need activations of their own.
    (halved,) = forecast(place, frozen(), cache=CACHED, device=replace(CPU, precision="bf16"))
    assert costs_of(halved)[1] == 256 * 4 * (n_faces + n_eval)
    (live,) = forecast(place, frozen())
    assert (live.build, live.basis) == (None, OPERATIONS)


def test_runs_go_to_the_worker_that_is_free_first() -> None:
    def a_run(seconds: float, build: Build | None = None) -> Forecast:
        return Forecast(an_experiment(), 0, "run", seconds - 1, 1.0, build)

    done = Forecast(an_experiment(), 0, "up to date", 9)
    slots = arrange([a_run(3), a_run(2), done, a_run(2), a_run(1)], 2)
    placed = [(slot.worker, slot.start, slot.end) for slot in slots]
    assert placed == [(0, 0, 3), (1, 0, 2), (None, 0, 0), (1, 2, 4), (0, 3, 4)]
    shared = Build(("block 5",), 10, 100)
    slots = arrange([a_run(2, shared), a_run(3, shared), a_run(1, shared)], 2)
    # The second waits for what the first computes; the third finds it.
    trained = [(slot.worker, slot.trains_at, slot.end) for slot in slots]
    assert trained == [(0, 10, 12), (1, 10, 13), (0, 12, 13)]
    assert [slot.alone_seconds for slot in slots] == [12, 13, 11]


def test_plan_says_time_hours_and_disk_and_draws_it(drawn_data_dir: Path, tmp_path: Path) -> None:
    places = ("--dataset", "drawn", "--data-dir", drawn_data_dir, "--runs-dir", tmp_path / "runs")
    asked = ("plan", "gender-cnn-none-full-short", *places, "--seeds", "0,1,2", "--gpus", "2")
    picture = tmp_path / "plan.svg"
    answer = facebench(*asked, "--json", "--out", picture)
    assert answer.exit_code == 0, answer.stderr
    data = json.loads(answer.stdout)["data"]
    assert [row["worker"] for row in data["runs"]] == [0, 1, 0]
    each = data["critical_path"]["seconds"]
    assert data["wall_seconds"] == pytest.approx(2 * each, abs=0.01)
    assert data["worker_hours"] == pytest.approx(3 * each / 3600, abs=1e-3)
    assert data["disk_bytes"] > data["bytes"] > 3 * 4 * 100_000
    assert picture.read_text().count("worker") >= 2
    assert not (tmp_path / "runs").exists()
    assert "3 of 3 would run" in facebench(*asked).stdout
    for out in (picture, tmp_path / "plan.pdf"):
        assert facebench(*asked, "--out", out).exit_code == 2
