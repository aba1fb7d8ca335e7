"""Addresses in MLflow: of one run, of several side by side, of none that is not there."""

import pytest

from benchmark.errors import RunError
from benchmark.reporting.evidence import COMPARED_AT_MOST, MlflowLinks, mlflow_links

KNOWN = {f"{number:064x}": ("7", f"run{number}") for number in range(100)}
IDS = list(KNOWN)


def with_known(count: int) -> MlflowLinks:
    known = {identity[-12:]: place for identity, place in list(KNOWN.items())[:count]}
    return MlflowLinks("http://127.0.0.1:5000", known)


def test_one_run_has_its_page() -> None:
    assert with_known(1).of([IDS[0][-12:]]) == "http://127.0.0.1:5000/#/experiments/7/runs/run0"


def test_several_runs_stand_side_by_side() -> None:
    href = with_known(2).of([identity[-12:] for identity in IDS[:2]])
    assert "/#/compare-runs?runs=%5B%22run0%22%2C%22run1%22%5D" in href


def test_very_many_runs_lead_to_the_list_of_all() -> None:
    many = [identity[-12:] for identity in IDS[: COMPARED_AT_MOST + 1]]
    assert with_known(100).of(many) == "http://127.0.0.1:5000/#/experiments/7/runs"


def test_there_is_no_link_where_one_run_is_not_in_mlflow() -> None:
    assert with_known(1).of([identity[-12:] for identity in IDS[:2]]) == ""


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(RunError, match="is no address"):
        mlflow_links("javascript:alert(1)", {})
