"""Read what a person types after `--set`, `--sweep` and `--seeds`.

Change a field of nested frozen dataclasses by its dotted path, as in `recipe.max_epochs`.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_type_hints

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
    require(
        keys[0] in allowed,
        f"unknown setting {path!r}: {type(node).__name__} has no field {keys[0]!r}",
        allowed=", ".join(allowed),
    )
    current = getattr(node, keys[0])
    if len(keys) > 1:
        require(
            dataclasses.is_dataclass(current),
            f"unknown setting {path!r}: {keys[0]} has no fields",
            allowed=f"{'.'.join(path.split('.')[: -len(keys) + 1])}=VALUE",
        )
        value = _with_value(current, keys[1:], value, path)
    else:
        # A group may be left out where its field may be None, as a definition's study row.
        left_out = value is None and type(None) in _kinds_of(node, keys[0])
        require(
            not dataclasses.is_dataclass(current) or type(value) is type(current) or left_out,
            f"setting {path!r} is a group of fields",
            allowed=", ".join(f"{path}.{item.name}" for item in dataclasses.fields(current))
            if dataclasses.is_dataclass(current)
            else "",
        )
        value = _coerced(node, keys[0], value, path)
    return dataclasses.replace(node, **{keys[0]: value})


def _coerced(node: Any, name: str, value: Any, path: str) -> Any:
    """Refuse a value of another type than the field's, so that '3' never trains as text."""
    kinds = _kinds_of(node, name)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if int not in kinds else value
    if isinstance(value, list):
        value = tuple(value)
    fits = not kinds or any(
        isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for kind in kinds
    )
    require(
        fits,
        f"setting {path!r} is {value!r}",
        allowed=" or ".join(sorted(kind.__name__.replace("NoneType", "null") for kind in kinds)),
    )
    return value


def _kinds_of(node: Any, name: str) -> set[type]:
    return _plain_kinds(get_type_hints(type(node))[name])


def _plain_kinds(hint: Any) -> set[type]:
    """Reduce a type hint to the classes a value may have; empty means anything goes."""
    if isinstance(hint, type):
        return {getattr(hint, "__origin__", hint)}
    arguments = getattr(hint, "__args__", ())
    if getattr(hint, "__origin__", None) is Literal:
        return {type(argument) for argument in arguments}
    if getattr(hint, "__origin__", None) is tuple:
        return {tuple}
    return set().union(*(_plain_kinds(argument) for argument in arguments)) if arguments else set()


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
