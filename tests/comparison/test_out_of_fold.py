"""The five folds of one experiment, beside its run on the fixed split."""

import pytest

from benchmark.comparison.leaderboard import stability_cells, stability_tables
from benchmark.comparison.library import read_run
from benchmark.experiment.definition import Experiment
from tests.results.conftest import RunBuilder, an_experiment, exact_predictions


def with_folds(
    runs: RunBuilder, experiment: Experiment, right: list[int], *, seed: int = 0, fixed: int = 20
) -> None:
    """Finish a run on the fixed split and one per fold; of 25 test faces so many are right."""
    runs.done(experiment, exact_predictions(fixed, fixed, n=25), seed=seed)
    for number, n_right in enumerate(right):
        runs.done(experiment.in_fold(number), exact_predictions(n_right, n_right, n=25), seed=seed)


def test_stability_by_hand(runs: RunBuilder) -> None:
    # A: fixed 20/25 = 0.8; folds 20, 15, 20, 15, 20: mean 0.72, sample sd 0.2 * sqrt(0.3) = 0.1095.
    # B: fixed 19/25; folds 19 each: 0.76 and no sd. By folds B is first; in folds 0, 2 and 4 A is.
    first, second = an_experiment("a"), an_experiment("b", **{"recipe.learning_rate": 0.01})
    with_folds(runs, first, [20, 15, 20, 15, 20])
    with_folds(runs, second, [19] * 5, fixed=19)
    ((setting, table),) = stability_tables(map(read_run, runs.records()), [first, second])
    assert setting.protocol.fold is None
    rows = table.set_index("name")
    a, b = rows.loc[first.name], rows.loc[second.name]
    name = "test/gender/accuracy"
    numbers = [a[f"{name}/{end}"] for end in ("fixed", "mean", "sd")]
    assert numbers == pytest.approx([0.8, 0.72, 0.2 * 0.3**0.5])
    assert [b[f"{name}/{end}"] for end in ("fixed", "mean", "sd")] == pytest.approx([0.76, 0.76, 0])
    ranks = ["rank_fixed", "rank_folds", "rank_lowest", "rank_highest"]
    assert a[ranks].tolist() == [1, 2, 1, 2]
    assert b[ranks].tolist() == [2, 1, 1, 2]
    heads, (line_b, line_a) = stability_cells(table)
    assert line_a[1] == "1 → 2 (1–2)"
    assert line_a[heads.index("gender: fixed / folds")] == "80.0 / 72.0 ± 11.0"
    assert line_b[0] == second.name


def test_seeds_of_a_fold_are_averaged_before_the_folds(runs: RunBuilder) -> None:
    # Seeds 0.8 and 0.4 in every fold: each fold's mean is 0.6, and between folds there is nothing.
    experiment = an_experiment()
    with_folds(runs, experiment, [20] * 5)
    with_folds(runs, experiment, [10] * 5, seed=1)
    ((_, table),) = stability_tables(map(read_run, runs.records()), [experiment])
    row = table.iloc[0]
    assert (row["seeds"], row["fixed_seeds"]) == (2, 2)
    assert row["test/race/accuracy/mean"] == pytest.approx(0.6)
    assert row["test/race/accuracy/sd"] == pytest.approx(0)


def test_four_folds_have_no_mean_and_no_rank(runs: RunBuilder) -> None:
    experiment = an_experiment()
    with_folds(runs, experiment, [20] * 4)
    ((_, table),) = stability_tables(map(read_run, runs.records()), [experiment])
    assert table["test/race/accuracy/mean"].isna().all()
    assert table["rank_folds"].isna().all()
    assert stability_cells(table)[1][0][1] == "4 of 5 folds"


def test_folds_of_other_faces_or_changed_by_hand_are_never_pooled(runs: RunBuilder) -> None:
    experiment = an_experiment()
    with_folds(runs, experiment, [20] * 4)
    runs.dataset = runs.dataset | {"split_digest": "99" * 32}
    runs.done(experiment.in_fold(4), exact_predictions(20, 20, n=25))
    ad_hoc = experiment.adjusted({"recipe.max_epochs": 3}).in_fold(4)
    assert ad_hoc.ad_hoc
    runs.done(ad_hoc, exact_predictions(20, 20, n=25))
    tables = stability_tables(map(read_run, runs.records()), [experiment])
    assert sorted(table["n_folds"].iloc[0] for _, table in tables) == [1, 4]
