"""What labels of one photograph say of each other, by hand and by simulation."""

import numpy as np
import pandas as pd
import pytest

from benchmark.comparison import references
from benchmark.tasks import MISSING, TASKS


def photographs(genders: list[list[int]], *, equal: bool = False) -> pd.DataFrame:
    """Give each photograph one file per gender listed, of equal bytes or not."""
    rows = [
        (cluster, f"{cluster}" if equal else f"{cluster}-{file}", gender)
        for cluster, files in enumerate(genders)
        for file, gender in enumerate(files)
    ]
    table = pd.DataFrame(rows, columns=["cluster", "sha256", "gender"])
    return table.assign(age_group=2, race=0, file=[f"{n}.jpg" for n in range(len(table))])


def noise_of(table: pd.DataFrame) -> pd.DataFrame:
    return references.label_noise(table).set_index(["task", "files"])


def test_disagreement_is_averaged_over_photographs_by_hand() -> None:
    # 30 pairs, 6 of which disagree; 10 photographs of three files, of whose three pairs two
    # disagree; 20 single files, which say nothing. d = (6 · 1 + 10 · 2/3) / 40 = 0.3167.
    genders = [[0, 1]] * 6 + [[1, 1]] * 24 + [[0, 0, 1]] * 10 + [[0]] * 20
    found = noise_of(photographs(genders)).loc["gender", references.BOTH]
    assert found[["n_pairs", "n_photographs"]].tolist() == [60, 40]
    assert found["disagree"] == pytest.approx((6 + 20 / 3) / 40)
    assert found["ceiling"] == pytest.approx(1 - (6 + 20 / 3) / 80)
    assert found["low"] < found["disagree"] < found["high"]
    assert found["ceiling_low"] == pytest.approx(1 - found["high"] / 2)


def test_equal_bytes_and_near_duplicates_are_told_apart() -> None:
    near, equal = photographs([[0, 0]] * 40), photographs([[0, 1]] * 30, equal=True)
    both = pd.concat([near, equal.assign(cluster=equal["cluster"] + 100)], ignore_index=True)
    found = noise_of(both)["disagree"]
    assert found["gender", references.EQUAL] == 1
    assert found["gender", references.NEAR] == 0
    assert found["gender", references.BOTH] == pytest.approx(30 / 70)


@pytest.mark.parametrize(
    ("disagree", "n_labels", "expected"),
    [
        (0.0, 5, 0.0),
        # Two classes: 2 · 0.1 · 0.9 = 0.18.
        (0.18, 2, 0.1),
        # Five: 2 · 0.1 · 0.9 + 0.1² · 3/4 = 0.1875.
        (0.1875, 5, 0.1),
        # By lot: 4/5 of pairs differ, and 4/5 of labels are wrong. No rate gives more.
        (0.8, 5, 0.8),
        (0.9, 5, 0.8),
    ],
)
def test_the_error_rate_by_hand(disagree: float, n_labels: int, expected: float) -> None:
    assert references.error_rate(disagree, n_labels) == pytest.approx(expected)


def test_independent_errors_give_back_their_rate() -> None:
    # 20,000 photographs, two labels each, wrong with 0.15 and then any of the four other classes.
    random = np.random.default_rng(1)
    truth = np.repeat(random.integers(5, size=20_000), 2)
    wrong = random.random(40_000) < 0.15
    said = np.where(wrong, (truth + random.integers(1, 5, size=40_000)) % 5, truth)
    table = photographs([[0, 0]] * 20_000).assign(race=said)
    pairs = references.label_noise(table[:4_000]).set_index(["task", "files"])
    found = pairs.loc["race", references.BOTH]
    assert found["independent_low"] < 0.85 < found["independent_high"]
    assert found["error_rate"] == pytest.approx(0.15, abs=0.02)
    # Whoever knows every truth agrees with 85 % of the labels, less than 1 − d/2.
    assert found["independent_ceiling"] < found["ceiling"]


def test_missing_labels_are_in_no_pair_and_few_photographs_give_no_bound() -> None:
    table = photographs([[0, 1]] * 31)
    assert not np.isnan(noise_of(table).loc["gender", references.BOTH]["ceiling"])
    table.loc[:3, "gender"] = MISSING
    found = noise_of(table).loc["gender", references.BOTH]
    assert (found["n_photographs"], found["n_pairs"]) == (29, 29)
    assert np.isnan(found["ceiling"])
    assert references.ceiling_row(table, ("gender",)) is None


def test_the_ceiling_is_a_reference_row_with_its_interval() -> None:
    row = references.ceiling_row(photographs([[0, 1]] * 10 + [[0, 0]] * 90), TASKS)
    assert row is not None
    assert (row.status, row.name, row.rank) == ("reference", references.CEILING, None)
    assert row.scores["gender"].accuracy == pytest.approx(0.95)
    assert row.scores["gender"].low < 0.95 < row.scores["gender"].high
    assert row.scores["race"].accuracy == 1
    assert row.combined is not None
    assert row.combined.value == pytest.approx(0.4 + 0.2 * 0.95 + 0.4)
    # d = 0.1: e = (1 − √0.8) / 2 = 0.0528.
    assert "gender 94.7" in row.remarks[0]
