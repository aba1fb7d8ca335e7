"""Which runs stand for an experiment beside the study's numbers, and their mean."""

from pathlib import Path
from typing import Any

import pytest

from benchmark.cli.library import Ours, gather
from benchmark.experiment.definition import Experiment
from tests.results.conftest import RunBuilder, an_experiment, exact_predictions
from tests.results.conftest import runs as runs

MTL = an_experiment()


def done(runs: RunBuilder, experiment: Experiment, n_right: int, **about: Any) -> None:
    """Finish a run that predicts `n_right` of 100 test faces right."""
    runs.done(experiment, exact_predictions(50, n_right, tasks=experiment.head.tasks), **about)


def ours(runs: RunBuilder, *experiments: Experiment) -> Ours:
    nowhere = runs.runs_dir / "no data"
    return gather(experiments or (MTL,), "utkface-100", runs_dir=runs.runs_dir, data_dir=nowhere)


def test_the_mean_is_over_seeds(runs: RunBuilder) -> None:
    done(runs, MTL, 70, seed=0)
    done(runs, MTL, 80, seed=2)
    found = ours(runs).accuracies[MTL.name]["gender"]
    # (0.70 + 0.80) / 2; sample sd sqrt(2 * 0.05 ** 2 / 1)
    assert (found.mean, found.sd) == pytest.approx((0.75, 0.070711), rel=1e-5)
    assert found.seeds == (0, 2)


def test_one_seed_has_no_spread_and_other_tasks_no_number(runs: RunBuilder) -> None:
    experiment = an_experiment(tasks=("race",))
    done(runs, experiment, 60)
    found = ours(runs, experiment).accuracies[experiment.name]
    assert list(found) == ["race"]
    assert found["race"].sd is None


def test_what_is_not_run_as_it_is_defined_now_is_absent_and_not_zero(runs: RunBuilder) -> None:
    runs.begun(MTL, seed=1)
    done(runs, MTL, 90, ad_hoc=True)
    older = MTL.varied(name=MTL.name, **{"recipe.max_epochs": 5})
    done(runs, older, 90, seed=2)
    found = ours(runs)
    assert (found.accuracies, found.leaky, found.faces) == ({}, {}, None)


def test_leaky_runs_stand_apart(runs: RunBuilder) -> None:
    done(runs, MTL, 99, leaky=True)
    found = ours(runs)
    assert found.accuracies == {}
    assert found.leaky[MTL.name]["race"].mean == pytest.approx(0.99)


def test_numbers_are_of_one_split_and_of_the_newest_trainer(runs: RunBuilder) -> None:
    done(runs, MTL, 70)
    other = RunBuilder(runs.runs_dir, runs.dataset | {"split_digest": "ee" * 32})
    done(other, MTL, 80, seed=0)
    done(other, MTL, 80, seed=1)
    done(other, MTL, 90, seed=0, trainer_version=2)
    found = ours(runs)
    assert found.faces is not None
    assert found.faces.split_digest == "ee" * 32
    assert found.accuracies[MTL.name]["age_group"].mean == pytest.approx(0.9)


def test_a_run_whose_metrics_are_gone_is_left_out(runs: RunBuilder) -> None:
    done(runs, MTL, 70, seed=0)
    done(runs, MTL, 90, seed=1)
    gone = next(record for record in runs.records() if record.seed == 1)
    (gone.folder / "metrics.json").unlink()
    assert ours(runs).accuracies[MTL.name]["race"].seeds == (0,)
    assert gather([MTL], None, runs_dir=Path("nowhere"), data_dir=Path("nowhere")) == Ours()
