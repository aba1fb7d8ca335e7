"""Intervals of one run's numbers: by hand, at the stated rate, and never narrower than honest."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from benchmark.evaluation import intervals
from benchmark.evaluation.intervals import cluster_bootstrap, percentiles, spread, wilson
from benchmark.evaluation.metrics import BOOTSTRAP, WILSON, resampled_confusion, score
from benchmark.evaluation.predictions import predictions_table
from benchmark.tasks import TASKS
from tests.results.conftest import certain, made_up_faces, made_up_predictions

SKILLS = {"age_group": 1.2, "gender": 1.5, "race": 1.5}


def intervals_of(table: pd.DataFrame) -> pd.DataFrame:
    return score(table).intervals.set_index(["metric", "method"])


def all_right(n: int = 60) -> pd.DataFrame:
    faces = made_up_faces(n)
    return predictions_table(faces, "test", {task: certain(faces[task], task) for task in TASKS})


def test_a_rate_has_wilson_s_interval_and_no_other() -> None:
    table = made_up_predictions(SKILLS, n=800)
    found, test = intervals_of(table), table[table["part"] == "test"]
    n_right = int((test["race"] == test["race_pred"]).sum())
    low, high = wilson(np.array([n_right]), np.array([400]))
    ours = found.loc[("test/race/accuracy", WILSON)]
    assert ours[["low", "high"]].tolist() == [low[0], high[0]]
    assert ours[["n_faces", "n_clusters"]].tolist() == [400, 400]
    assert found.index.get_level_values("metric").is_unique


def test_faces_that_share_clusters_widen_the_bootstrap_alone() -> None:
    # 400 test faces that are 100 pictures, four copies each: twice as wide.
    table = made_up_predictions(SKILLS, n=800).query("part == 'test'")
    copies = table.iloc[np.repeat(np.arange(100), 4)].assign(
        file=[f"{index}.jpg" for index in range(400)]
    )
    apart = copies.assign(cluster=np.arange(400))
    together, alone = (
        found["high"] - found["low"] for found in (intervals_of(copies), intervals_of(apart))
    )
    ratio = together / alone
    assert ratio["test/race/macro_f1", BOOTSTRAP] == pytest.approx(2, rel=0.15)
    assert ratio["test/race/accuracy", WILSON] == 1.0
    assert intervals_of(copies).loc[("test/race/accuracy", WILSON), "n_clusters"] == 100


def test_the_bootstrap_of_macro_f1_agrees_with_scipy() -> None:
    table = made_up_predictions({"race": 1.2}, n=600)
    found = intervals_of(table).loc[("test/race/macro_f1", BOOTSTRAP)]
    test = table[table["part"] == "test"]

    def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
        return float(sklearn_metrics.f1_score(truth, predicted, average="macro"))

    theirs = stats.bootstrap(
        (test["race"].to_numpy(), test["race_pred"].to_numpy()), macro_f1, paired=True,
        vectorized=False, n_resamples=400, method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found["low"] == pytest.approx(theirs.low, abs=0.015)
    assert found["high"] == pytest.approx(theirs.high, abs=0.015)


def test_the_combined_score_is_resampled_over_the_same_faces() -> None:
    # The same answers about every task: the combined accuracy is that of any of them.
    faces = made_up_faces(300).assign(age_group=0, gender=0, race=0)
    wrong = np.arange(300) % 4 == 0
    answers = {task: certain(np.where(wrong, 1, 0), task) for task in TASKS}
    found = intervals_of(predictions_table(faces, "test", answers))
    ends = ["low", "high"]
    combined = found.loc[("test/combined", BOOTSTRAP), ends].tolist()
    low, high = cluster_bootstrap(1.0 - wrong[:, None], np.arange(300))
    assert combined == pytest.approx([low[0], high[0]])


def test_all_faces_right_have_wilson_s_ends_and_not_a_width_of_zero() -> None:
    found = intervals_of(all_right())
    # Wilson, 60 of 60: low = 1 / (1 + 1.96²/60) = 0.9398.
    for name in ("accuracy", "macro_f1", "balanced_accuracy"):
        rows = found.loc[f"test/gender/{name}"]
        assert (rows["value"] == 1.0).all()
        assert rows["high"].dropna().tolist() == pytest.approx([1.0])
    assert found.loc[("test/gender/accuracy", WILSON), "low"] == pytest.approx(0.9398, abs=1e-4)
    assert 0.8 < found.loc[("test/gender/macro_f1", BOOTSTRAP), "low"] < 0.9398
    assert found.loc[("test/combined", BOOTSTRAP), "low"] == pytest.approx(0.9398, abs=1e-4)


def test_what_has_no_spread_and_is_no_rate_has_no_interval() -> None:
    found = intervals_of(all_right()).loc[("test/age_group/mae_groups", BOOTSTRAP)]
    assert found["value"] == 0.0
    assert found[["low", "high"]].isna().all()
    assert "test/age_group/mae_groups/low" not in score(all_right()).metrics


def test_every_class_has_intervals_in_the_report() -> None:
    report = score(made_up_predictions(SKILLS, n=2_000)).reports["race"]
    for number in ("precision", "recall", "f1"):
        assert (report[f"{number}_low"] < report[number]).all()
        assert (report[number] < report[f"{number}_high"]).all()


def test_a_class_that_is_all_right_has_wilson_s_ends_for_f1_too() -> None:
    # Women: 20 of 20 right and no man taken for one: F1 = 1, J = TP / (TP + FP + FN) = 20 / 20,
    # Wilson 20 / (20 + 1.96²) = 0.8389, F1 = 2 J / (1 + J) = 0.9124.
    faces = made_up_faces(40).assign(gender=[0] * 20 + [1] * 20)
    table = predictions_table(faces, "test", {"gender": certain(faces["gender"], "gender")})
    women = score(table).reports["gender"].iloc[1]
    assert women[["f1", "f1_high"]].tolist() == [1.0, 1.0]
    assert women["f1_low"] == pytest.approx(0.9124, abs=1e-4)


def test_resamples_that_are_all_alike_say_nothing() -> None:
    assert np.isnan(spread(np.full(10, 0.5))).all()
    assert np.isnan(spread(np.full(10, np.nan))).all()
    assert spread(np.array([0.0, 1.0, np.nan])) == pytest.approx((0.025, 0.975))


CELLS = np.array(
    [
        [0.142, 0.008, 0.003, 0.001, 0.000],
        [0.006, 0.081, 0.080, 0.001, 0.000],
        [0.002, 0.046, 0.311, 0.034, 0.002],
        [0.000, 0.001, 0.052, 0.101, 0.028],
        [0.001, 0.000, 0.001, 0.025, 0.074],
    ]
)
"""Shares of true by predicted age group, about those of a small CNN."""

NUMBERS = (
    intervals.accuracy,
    intervals.macro_f1_of_counts,
    intervals.balanced_accuracy,
    intervals.mean_group_error,
    intervals.quadratic_kappa,
)


@pytest.mark.parametrize("clustered", [False, True])
def test_bootstrap_intervals_hold_the_truth_at_the_stated_rate(clustered: bool) -> None:
    # 400 tests of 600 faces, in clusters of 1 to 3 that are read alike where clustered. The rate
    # of one number has a standard error of 1.1 points, of the mean over the five less.
    shares = CELLS / CELLS.sum()
    random = np.random.default_rng(5)
    clusters = np.arange(600)
    if clustered:
        clusters = np.repeat(np.arange(600), random.integers(1, 4, 600))[:600]
    held = np.zeros(len(NUMBERS))
    for _ in range(400):
        cells = random.choice(25, 600, p=shares.ravel())[clusters]
        table = pd.DataFrame(
            {"cluster": clusters, "age_group": cells // 5, "age_group_pred": cells % 5}
        )
        again = resampled_confusion(table, "age_group")
        for index, number in enumerate(NUMBERS):
            low, high = percentiles(number(again))
            held[index] += low <= number(shares) <= high
    rates = held / 400
    assert (rates >= 0.92).all()
    assert 0.93 <= rates.mean() <= 0.97


def test_wilson_s_interval_holds_the_truth_at_the_stated_rate() -> None:
    # Exactly, no simulation: the binomial law says how often each number right comes, and the
    # interval of each is known. Averaged over rates, because for one rate it swings with n.
    for n_faces in (30, 72, 500):
        low, high = wilson(np.arange(n_faces + 1), np.full(n_faces + 1, n_faces))
        rates = np.linspace(0.5, 0.97, 200)[:, None]
        chances = stats.binom.pmf(np.arange(n_faces + 1), n_faces, rates)
        coverage = (chances * ((low <= rates) & (rates <= high))).sum(axis=1)
        assert 0.94 <= coverage.mean() <= 0.96
