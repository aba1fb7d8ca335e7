"""Which runs stand for an experiment outside leaderboards, and their mean."""

from typing import Any

import pytest

from benchmark.comparison.rows import Run, read_run
from benchmark.comparison.run_groups import MeasuredOn, measured, usual_faces
from benchmark.experiment.definition import Experiment
from tests.results.conftest import RunBuilder, an_experiment, exact_predictions

FACES = MeasuredOn("utkface-100", "ab" * 32, "cd" * 32)


def read(runs: RunBuilder) -> list[Run]:
    return [read_run(record) for record in runs.records()]


def done(runs: RunBuilder, experiment: Experiment, n_right: int, **about: Any) -> None:
    """Write a finished run that read `n_right` of 100 test faces right."""
    predictions = exact_predictions(50, n_right, tasks=experiment.head.tasks)
    runs.done(experiment, predictions, **about)


def test_the_mean_is_over_seeds(runs: RunBuilder) -> None:
    experiment = an_experiment()
    done(runs, experiment, 70, seed=0)
    done(runs, experiment, 80, seed=2)
    found = measured(read(runs), [experiment], FACES)[experiment.name]["gender"]
    # (0.70 + 0.80) / 2; sample sd sqrt(2 * 0.05 ** 2 / 1)
    assert found.mean == pytest.approx(0.75)
    assert found.sd == pytest.approx(0.070711, rel=1e-5)
    assert found.seeds == (0, 2)


def test_one_seed_has_no_spread(runs: RunBuilder) -> None:
    experiment = an_experiment(tasks=("race",))
    done(runs, experiment, 60)
    found = measured(read(runs), [experiment], FACES)[experiment.name]
    assert list(found) == ["race"]
    assert found["race"].sd is None


def test_an_experiment_without_a_run_is_absent_not_zero(runs: RunBuilder) -> None:
    done(runs, an_experiment(), 70)
    other = an_experiment(variant="other", **{"recipe.batch_size": 64})
    assert measured(read(runs), [other], FACES) == {}


def test_a_run_of_an_older_definition_is_not_ours(runs: RunBuilder) -> None:
    experiment = an_experiment()
    done(runs, experiment, 70)
    changed = experiment.varied(name=experiment.name, **{"recipe.max_epochs": 5})
    assert measured(read(runs), [changed], FACES) == {}


@pytest.mark.parametrize("about", [{"leaky": True}, {"ad_hoc": True}])
def test_leaky_and_ad_hoc_runs_never_count(runs: RunBuilder, about: dict[str, bool]) -> None:
    experiment = an_experiment()
    done(runs, experiment, 99, **about)
    assert measured(read(runs), [experiment], FACES) == {}
    assert usual_faces(read(runs), "utkface-100") is None


def test_a_run_that_is_not_finished_does_not_count(runs: RunBuilder) -> None:
    experiment = an_experiment()
    runs.begun(experiment)
    runs.failed(experiment, "the loss is nan", seed=1)
    assert measured(read(runs), [experiment], FACES) == {}


def test_runs_on_other_faces_are_left_out(runs: RunBuilder) -> None:
    experiment = an_experiment()
    done(runs, experiment, 70)
    other = RunBuilder(runs.runs_dir, runs.dataset | {"split_digest": "ee" * 32})
    done(other, experiment, 90)
    done(other, experiment, 90, seed=1)
    found = measured(read(runs), [experiment], FACES)[experiment.name]
    assert found["race"].mean == pytest.approx(0.70)
    usual = usual_faces(read(runs), "utkface-100")
    assert usual is not None
    assert usual.split_digest == "ee" * 32


def test_of_two_families_the_one_with_most_seeds_stands(runs: RunBuilder) -> None:
    experiment = an_experiment()
    done(runs, experiment, 70, seed=0)
    done(runs, experiment, 72, seed=1)
    done(runs, experiment, 90, seed=0, trainer_version=2)
    found = measured(read(runs), [experiment], FACES)[experiment.name]["age_group"]
    assert found.mean == pytest.approx(0.71)
    assert len(found.runs) == 2


def test_a_run_whose_metrics_are_gone_is_left_out(runs: RunBuilder) -> None:
    experiment = an_experiment()
    done(runs, experiment, 70, seed=0)
    done(runs, experiment, 90, seed=1)
    gone = next(record for record in runs.records() if record.seed == 1)
    (gone.folder / "metrics.json").unlink()
    assert measured(read(runs), [experiment], FACES)[experiment.name]["race"].seeds == (0,)
