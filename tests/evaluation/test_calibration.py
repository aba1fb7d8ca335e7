"""Calibration: by hand, equal to torchmetrics, and intervals that hold at the stated rate."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from benchmark.evaluation import calibration
from benchmark.evaluation.calibration import calibrate, calibration_error, error_interval, tempered
from benchmark.evaluation.predictions import probability_columns

THREE_OF_FOUR = (np.tile([0.9, 0.1], (4, 1)), np.array([0, 0, 0, 1]))
"""Probability 0.9, and right three times of four."""


def test_calibration_error_by_hand() -> None:
    # Four faces, top probability 0.9 0.9 0.6 0.6, right: yes no yes yes. 0.9 lies in the bin
    # (13/15, 14/15]: |0.5 - 0.9| = 0.4 for 2 of 4 faces; 0.6 is the upper edge of (8/15, 9/15],
    # included: |1 - 0.6| = 0.4 for 2 of 4. Together 0.4.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert calibration_error(probabilities, np.array([0, 1, 0, 1])) == pytest.approx(0.4)
    # 0.6 and 0.61 fall apart: 0.5 * |0 - 0.6| + 0.5 * |1 - 0.61| = 0.495, not |0.5 - 0.605|.
    probabilities = np.array([[0.6, 0.4], [0.61, 0.39]])
    assert calibration_error(probabilities, np.array([1, 0])) == pytest.approx(0.495)


def test_the_error_equals_that_of_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torchmetrics.functional.classification")
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(5, 0.4), size=1_000)
    truth = random.integers(5, size=1_000)
    expected = theirs.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(truth), num_classes=5,
        n_bins=calibration.CALIBRATION_BINS, norm="l1",
    )  # fmt: skip
    # They sum in single precision.
    assert calibration_error(probabilities, truth) == pytest.approx(float(expected), abs=1e-6)


def test_the_reliability_table_by_hand() -> None:
    # Two faces at 0.9 in (13/15, 14/15], one right; one at 0.6 in (8/15, 9/15], right.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    table = calibration.reliability(probabilities, np.array([0, 1, 0]))
    assert table["n"].tolist() == [0] * 8 + [1] + [0] * 4 + [2] + [0]
    assert table.loc[13, ["confidence", "accuracy"]].tolist() == pytest.approx([0.9, 0.5])
    # Wilson, 1 of 1: low = 1 / (1 + 1.96²) = 0.2065.
    assert table.loc[8, ["low", "high"]].tolist() == pytest.approx([0.2065, 1.0], abs=1e-4)
    assert table.loc[0, ["confidence", "accuracy", "low", "high"]].isna().all()


def test_the_temperature_by_hand() -> None:
    # The likeliest probability is 3/4, and softening 0.9 to it takes
    # log(0.9 / 0.1) / log(0.75 / 0.25) = log 9 / log 3 = 2.
    probabilities, truth = THREE_OF_FOUR
    temperature = calibration.fit_temperature(probabilities, truth)
    assert temperature == pytest.approx(2.0, abs=1e-4)
    softer = tempered(probabilities, temperature)
    np.testing.assert_allclose(softer[0], [0.75, 0.25], atol=1e-4)
    assert calibration_error(softer, truth) < 1e-4


def test_a_temperature_at_an_end_and_probabilities_rounded_to_zero_are_no_crash() -> None:
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    temperature = calibration.fit_temperature(probabilities, np.array([0, 1, 1]))
    assert np.isfinite(tempered(probabilities, temperature)).all()
    assert temperature == pytest.approx(calibration.TEMPERATURES[1], rel=0.01)
    # All right at 0.9: the sharper the likelier, without end.
    found = calibrate({"val": (np.tile([0.9, 0.1], (9, 1)), np.zeros(9, int))})
    assert found.temperature_is_at_an_end
    assert found.temperature == pytest.approx(calibration.TEMPERATURES[0], rel=0.01)
    # The smallest number of fp32: 87.3 nats.
    assert calibration.log_losses(np.array([[1.0, 0.0]]), np.array([1]))[0] == pytest.approx(
        87.3, abs=0.1
    )


def test_the_temperature_is_fitted_on_validation_and_evaluated_on_test() -> None:
    test = (np.tile([0.9, 0.1], (8, 1)), np.array([0, 1] + [0] * 5 + [1]))
    found = calibrate({"val": THREE_OF_FOUR, "test": test})
    assert found.ece["test"] == pytest.approx(0.9 - 0.75)
    assert found.ece_tempered["test"] == pytest.approx(0.0, abs=1e-4)
    alone = calibrate({"test": test})
    assert (alone.temperature, alone.ece_tempered) == (None, {})


def test_the_error_that_chance_gives_by_hand() -> None:
    # One face at 0.6: right in 60 % of draws (|1 - 0.6| = 0.4), wrong in 40 % (0.6): 0.48.
    assert calibration.expected_error(np.array([[0.6, 0.4]])) == pytest.approx(0.48, abs=0.01)


def simulated(
    shift: float, random: np.random.Generator, clusters: np.ndarray | None = None, *, n: int = 600
) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities of five classes, the first the most probable, and labels: right less
    often than stated, by `shift` of what is above 0.3."""
    stated = 0.3 + 0.7 * random.beta(4, 1.5, n)
    luck = random.random(n)
    if clusters is not None:
        # Copies of a picture: the same probability, and right or wrong together.
        stated, luck = stated[clusters], luck[clusters]
    right = luck < stated - shift * (stated - 0.3)
    others = np.tile((1 - stated)[:, None] / 4, 4)
    return np.column_stack([stated, others]), np.where(right, 0, 1)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
def test_the_interval_of_the_error_holds_at_the_stated_rate_or_more(
    shift: float, clustered: bool
) -> None:
    # 200 tests against the error of 300,000 faces; the rate has a standard error of 1.5 points.
    random = np.random.default_rng(7)
    truth = calibration_error(*simulated(shift, random, n=300_000))
    clusters = np.repeat(np.arange(300), random.integers(1, 4, 300))[:600] if clustered else None
    hits = 0
    for _ in range(200):
        probabilities, truth_labels = simulated(shift, random, clusters)
        places = np.arange(len(truth_labels)) if clusters is None else clusters
        low, high = error_interval(probabilities, truth_labels, places)
        hits += low <= truth <= high
    assert hits / 200 >= 0.93
    sure = np.tile([1.0, 0.0], (9, 1))  # nothing is left to chance
    assert np.isnan(error_interval(sure, np.zeros(9, int), np.arange(9))).all()


def test_likelihood_and_brier_score_by_hand_and_as_scikit_learn_has_them() -> None:
    # -log 0.8 = 0.2231, -log 0.1 = 2.3026. Brier: 0.2² + 0.1² + 0.1² = 0.06; 0.9² + 0.9² = 1.62.
    probabilities, truth = np.array([[0.8, 0.1, 0.1], [0.9, 0.1, 0.0]]), np.array([0, 1])
    np.testing.assert_allclose(
        calibration.log_losses(probabilities, truth), [0.2231, 2.3026], atol=1e-4
    )
    np.testing.assert_allclose(calibration.brier_losses(probabilities, truth), [0.06, 1.62])
    random = np.random.default_rng(4)
    probabilities, truth = random.dirichlet(np.full(5, 0.4), size=500), random.integers(5, size=500)
    found = calibrate({"test": (probabilities, truth)})
    assert found.nll["test"] == pytest.approx(log_loss(truth, probabilities, labels=range(5)))
    expected = brier_score_loss(truth, probabilities, labels=range(5), scale_by_half=False)
    assert found.brier["test"] == pytest.approx(expected)


def test_the_error_of_a_subgroup_is_that_of_its_faces_alone() -> None:
    random = np.random.default_rng(8)
    n_women = calibration.SUBGROUP_FACES + 40
    test = pd.DataFrame({"gender": np.arange(500) < n_women, "age_group": 2, "race": 0}).astype(int)
    test = test.assign(cluster=np.arange(500), gender_pred=0)
    test.loc[test.index[: calibration.SUBGROUP_FACES - 1], "age_group"] = 4
    probabilities = random.dirichlet(np.ones(2), size=500)
    test[probability_columns("gender")] = probabilities
    errors = calibration.subgroup_errors(test)
    # Groups of fewer than 200 faces (61+, 199) are absent.
    assert errors["group"].tolist() == [
        "all", "26-40", "male", "female", "White", "male White", "female White",
    ]  # fmt: skip
    women = errors.set_index("group").loc["female"]
    faces = probabilities[:n_women], test["gender"].to_numpy()[:n_women]
    assert (women["n"], women["ece"]) == (n_women, pytest.approx(calibration_error(*faces)))
    assert women["chance"] == calibration.expected_error(faces[0])
    ends = error_interval(*faces, np.arange(n_women))
    assert [women["low"], women["high"]] == pytest.approx(ends)
