"""Read what a person types after `--set`, `--sweep` and `--seeds`."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from benchmark.errors import ExperimentError


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read `path=value` texts; a value is JSON where it can be (3, 1e-4, true, null), else text."""
    pairs = _by_path(texts, "--set", "FIELD=VALUE, as in recipe.max_epochs=3")
    return {path: _value(value) for path, value in pairs.items()}


def parse_sweeps(texts: Iterable[str], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read `path=value,value` texts; give every combination of their values, `fixed` added to each.

    A single value is read as `--set` reads it. Without texts, `fixed` is the one combination.
    """
    allowed = "FIELD=VALUE,VALUE, as in recipe.learning_rate=1e-4,1e-3"
    swept = {
        path: _values(path, value) for path, value in _by_path(texts, "--sweep", allowed).items()
    }
    for path in swept:
        if path in fixed:
            raise ExperimentError(
                f"--sweep and --set both give {path!r}", allowed="each field in one of them"
            )
    return [
        {**fixed, **dict(zip(swept, combination, strict=True))}
        for combination in itertools.product(*swept.values())
    ]


def _by_path(texts: Iterable[str], option: str, allowed: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not (equals and path and value):
            raise ExperimentError(f"{option} {text!r} has no value", allowed=allowed)
        if path in found:
            raise ExperimentError(f"{option} gives {path!r} twice", allowed="each field once")
        found[path] = value
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _values(path: str, text: str) -> list[Any]:
    """Divide at commas, but not at those within a JSON list."""
    try:
        values: list[Any] = json.loads(f"[{text}]")
    except ValueError:
        values = [_value(part.strip()) for part in text.split(",")]
    said = [json.dumps(value) for value in values]
    if "" in values or len(set(said)) < len(said):
        raise ExperimentError(
            f"--sweep {path!r} is {text!r}", allowed="different values, with a comma between them"
        )
    return values


def parse_folds(text: str) -> tuple[int, ...]:
    """Read `0-4` or `0,2`; raises ExperimentError for anything but folds 0 to 4, each once."""
    spans = [re.fullmatch(r"([0-4])(?:-([0-4]))?", part.strip()) for part in text.split(",")]
    folds = [n for span in spans if span for n in range(int(span[1]), int(span[2] or span[1]) + 1)]
    if None in spans or not folds or len(set(folds)) < len(folds):
        raise ExperimentError(f"--folds is {text!r}", allowed="folds 0 to 4, as in 0-4 or 0,2")
    return tuple(folds)


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
