"""Every error that facebench raises on purpose.

BenchmarkError
├── ExperimentError   a definition, suite or setting contradicts itself or does not exist
├── DataError         a source, picture, label, split or prepared data set is not usable
├── WeightsError      a weight file is unknown, damaged or does not fit its architecture
│   └── WeightsMissing    ... is neither available nor to be fetched: the row is not run
└── RunError          a run cannot start, resume or be read
    ├── DeviceError       the device asked for is not there
    ├── ClusterLost       the cluster that runs are computed on cannot be used: all stop
    ├── StorageLost       the database of a search does not answer: no trial can be stored
    └── TrackingError     the MLflow store cannot be used; the run's own folder is not affected
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

TIMM_REFUSALS: Final = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NotImplementedError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What timm's models were seen to raise, or can, where they do not support what they are asked."""


class BenchmarkError(Exception):
    """One clear sentence: what was found, what is allowed, where it came from, what to do.

    The parts stay apart as attributes, so that `--json` can hand them to a machine.
    """

    def __init__(self, found: str, *, allowed: str = "", source: str = "", fix: str = "") -> None:
        self.found, self.allowed, self.source, self.fix = found, allowed, source, fix
        text = found.rstrip(".")
        text += f" (allowed: {allowed})" if allowed else ""
        text += f". Where: {source}" if source else ""
        text += f". {fix}" if fix else ""
        super().__init__(text if text.endswith((".", "!", "?")) else text + ".")


class ExperimentError(BenchmarkError): ...


class DataError(BenchmarkError): ...


class WeightsError(BenchmarkError): ...


class WeightsMissing(WeightsError): ...


class RunError(BenchmarkError): ...


class DeviceError(RunError): ...


class ClusterLost(RunError): ...


class StorageLost(RunError): ...


class TrackingError(RunError): ...


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Begin a fix with the nearest of the known names; empty where none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f"Did you mean {', '.join(near)}? " if near else ""


def and_more(names: Sequence[str], most: int = 3) -> str:
    """List the first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def require(condition: bool, found: str, *, allowed: str, fix: str = "") -> None:
    """Raise ExperimentError unless `condition` holds."""
    if not condition:
        raise ExperimentError(found, allowed=allowed, fix=fix)


def require_choice(field_name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ExperimentError unless a field has one of the values that it may have."""
    require(value in choices, f"{field_name} is {value!r}", allowed=", ".join(map(str, choices)))
