"""What a person types after `--set`, `--sweep`, `--seeds` and `--folds`, and what it changes.

Fields of nested frozen dataclasses are named by their dotted path, as in `recipe.max_epochs`.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from benchmark.errors import ExperimentError, require

Definition = TypeVar("Definition")


def with_values(definition: Definition, values: Mapping[str, Any]) -> Definition:
    """Copy `definition` with each dotted path set; the copy is validated like any definition.

    Raises ExperimentError for an unknown path, a group of fields or a value of another type.
    """
    for path, value in values.items():
        definition = _with_value(definition, path.split("."), value, path)
    return definition


def changed_settings(
    base: Mapping[str, Any], changed: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    """Give `path=value` for every setting in which a definition, as plain values, differs."""
    for key, value in changed.items():
        here = f"{path}{key}"
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            yield from changed_settings(base[key], value, f"{here}.")
        elif path and base.get(key) != (tuple(value) if isinstance(value, list) else value):
            yield f"{here}={value}"


def _with_value(node: Any, keys: list[str], value: Any, path: str) -> Any:
    allowed = [item.name for item in dataclasses.fields(node) if item.name != "ad_hoc"]
    require(keys[0] in allowed, f"unknown setting {path!r}", allowed=", ".join(allowed))
    current = getattr(node, keys[0])
    fields = dataclasses.fields(current) if dataclasses.is_dataclass(current) else ()
    if len(keys) > 1:
        require(
            bool(fields),
            f"unknown setting {path!r}: {keys[0]} has no fields",
            allowed=f"{'.'.join(path.split('.')[: -len(keys) + 1])}=VALUE",
        )
        value = _with_value(current, keys[1:], value, path)
    else:
        kinds = _kinds_of(get_type_hints(type(node))[keys[0]])
        # A group may be left out where its field may be None, as a definition's study row.
        left_out = value is None and type(None) in kinds
        require(
            not fields or type(value) is type(current) or left_out,
            f"setting {path!r} is a group of fields",
            allowed=", ".join(f"{path}.{item.name}" for item in fields),
        )
        value = _converted(value, kinds, path)
    return dataclasses.replace(node, **{keys[0]: value})


def _converted(value: Any, kinds: set[type], path: str) -> Any:
    """Refuse a value of another type than the field's, so that '3' never trains as text."""
    if float in kinds and int not in kinds and type(value) is int:
        value = float(value)
    if isinstance(value, list):
        value = tuple(value)
    names = sorted(kind.__name__.replace("NoneType", "null") for kind in kinds)
    fits = not kinds or type(value) in kinds
    require(fits, f"setting {path!r} is {value!r}", allowed=" or ".join(names))
    return value


def _kinds_of(hint: Any) -> set[type]:
    """Reduce a type hint to the classes a value may have; empty means anything goes."""
    if isinstance(hint, type) and get_origin(hint) is None:
        return {hint}
    if get_origin(hint) is Literal:
        return {type(choice) for choice in get_args(hint)}
    if get_origin(hint) is tuple:
        return {tuple}
    return set().union(*map(_kinds_of, get_args(hint)))


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read `path=value` texts; a value is JSON where it can be (3, 1e-4, true, null), else text."""
    pairs = _by_path(texts, "--set", "FIELD=VALUE, as in recipe.max_epochs=3")
    return {path: _value(value) for path, value in pairs.items()}


def parse_sweeps(texts: Iterable[str], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read `path=value,value` texts; give every combination of their values, `fixed` added to each.

    A single value is read as `--set` reads it. Without texts, `fixed` is the one combination.
    """
    allowed = "FIELD=VALUE,VALUE, as in recipe.learning_rate=1e-4,1e-3"
    pairs = _by_path(texts, "--sweep", allowed)
    swept = {path: _values(path, value) for path, value in pairs.items()}
    for path in swept.keys() & fixed.keys():
        found = f"--sweep and --set both give {path!r}"
        raise ExperimentError(found, allowed="each field in one of them")
    combinations = itertools.product(*swept.values())
    return [{**fixed, **dict(zip(swept, values, strict=True))} for values in combinations]


def _by_path(texts: Iterable[str], option: str, allowed: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        require(bool(equals and path and value), f"{option} {text!r} has no value", allowed=allowed)
        require(path not in found, f"{option} gives {path!r} twice", allowed="each field once")
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
    is_set = "" not in values and len({json.dumps(value) for value in values}) == len(values)
    allowed = "different values, with a comma between them"
    require(is_set, f"--sweep {path!r} is {text!r}", allowed=allowed)
    return values


def parse_folds(text: str) -> tuple[int, ...]:
    """Read `0-4` or `0,2`; raises ExperimentError for anything but folds 0 to 4, each once."""
    spans = [re.fullmatch(r"([0-4])(?:-([0-4]))?", part.strip()) for part in text.split(",")]
    folds = [n for span in spans if span for n in range(int(span[1]), int(span[2] or span[1]) + 1)]
    fits = None not in spans and folds and len(set(folds)) == len(folds)
    require(bool(fits), f"--folds is {text!r}", allowed="folds 0 to 4, as in 0-4 or 0,2")
    return tuple(folds)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `0,1,2`; raises ExperimentError for anything else, or a seed given twice."""
    seeds = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    allowed = "different whole numbers from 0, as in 0,1,2"
    require(len(set(seeds)) == len(text.split(",")), f"--seeds is {text!r}", allowed=allowed)
    return tuple(seeds)
