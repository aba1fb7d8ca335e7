"""Runs made before a change of the code are read after it, and give the same numbers.

Runs of `tests/golden/work` are as `facebench run` left them; `tests/golden/expected` is what was
made of them. A difference is either a mistake of the change, or a number that was wrong: then
CHANGELOG says so, beside the new expectation (`python -m tests.golden.store expect`).
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.golden.store import EXPECTED, findings


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return dict(findings(tmp_path_factory.mktemp("golden")))


def differences(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yield every place where two JSON values differ; numbers may by rounding."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if key not in expected or key not in found:
                yield f"{where}/{key} is only {'expected' if key in expected else 'found'}"
            else:
                yield from differences(expected[key], found[key], f"{where}/{key}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{where} has {len(found)} items and not {len(expected)}"
        for number, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from differences(one, other, f"{where}/{number}")
    elif isinstance(expected, float) or isinstance(found, float):
        same = (
            isinstance(found, int | float)
            and isinstance(expected, int | float)
            and math.isclose(expected, found, rel_tol=1e-6, abs_tol=1e-8)
        )
        if not same:
            yield f"{where} is {found} and not {expected}"
    elif expected != found:
        yield f"{where} is {found!r} and not {expected!r}"


@pytest.mark.parametrize(
    "name", ["metrics", "leaderboard", "compare", "leak", "subsets", "identities", "splits"]
)
def test_older_runs_give_the_same_numbers(found: dict[str, Any], name: str) -> None:
    expected = json.loads((EXPECTED / f"{name}.json").read_text(encoding="utf-8"))
    told = list(differences(expected, json.loads(json.dumps(found[name]))))
    assert not told, f"{len(told)} differences, the first ones: " + "; ".join(told[:5])


def test_a_difference_is_seen() -> None:
    assert list(differences({"a": [1.0, 2]}, {"a": [1.0 + 1e-9, 2]})) == []
    assert list(differences({"a": [1.0, 2]}, {"a": [1.1, 2]})) == ["/a/0 is 1.1 and not 1.0"]
    assert len(list(differences({"a": 1, "b": "x"}, {"a": 2, "c": "x"}))) == 3
