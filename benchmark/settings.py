"""Read what a person types after `--set` and `--seeds`."""

import json
from collections.abc import Iterable
from typing import Any

from benchmark.errors import ExperimentError


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read `path=value` texts; a value is JSON where it can be (3, 1e-4, true, null), else text."""
    settings: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not (equals and path and value):
            raise ExperimentError(
                f"--set {text!r} has no value", allowed="FIELD=VALUE, as in recipe.max_epochs=3"
            )
        if path in settings:
            raise ExperimentError(f"--set gives {path!r} twice", allowed="each field once")
        try:
            settings[path] = json.loads(value)
        except ValueError:
            settings[path] = value
    return settings


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `0,1,2`; raises ExperimentError for anything else, or a seed given twice."""
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ExperimentError(
            f"--seeds is {text!r}", allowed="different whole numbers from 0, as in 0,1,2"
        )
    return seeds
