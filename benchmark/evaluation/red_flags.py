"""Results too good to be true on UTKFace: stopped until somebody has looked, with what was checked.

A red flag is no proof of a leak. It says that better was not seen anywhere without one: the row
stays, is not ranked, and shows which checks for leaks were run and what they found. Once a person
acknowledges it, with a reason, it is ranked and says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmark.data.splits import IDENTITY_COLUMNS, PartName, Rows, overlaps
from benchmark.errors import RunError
from benchmark.files import write_json
from benchmark.record import SCHEMA, RunRecord
from benchmark.tasks import TASK_TITLES, TaskName

if TYPE_CHECKING:
    import pandas as pd

RED_FLAG_ABOVE: Final[Mapping[TaskName, float]] = {"age_group": 0.83, "gender": 0.98, "race": 0.93}
"""Test accuracy that no leak-free result on UTKFace is known to reach: above the best plausible by
1.5 to 2 points. The same picture's labels disagree as often as to make 96.6 % (gender) and 93.3 %
(race) soft ceilings."""

UTKFACE_NAME: Final = "utkface"
"""A data set with this in its name is UTKFace, at whatever size."""
UTKFACE_SPLIT_DIGESTS: Final = (
    "dd739fd5ab4a1c2604d0da21739848783c86975fc0d5d2aa7da9b06a92a6d350",
    "ac5aa10e749d59e48e68b804f44967fc7547dc0d152fa5defebe5e51a6139b52",
)
"""leak-free-2 and leak-free-1 of all of UTKFace, whatever the data set is called (docs/DATA.md)."""

CHECKS_FILE: Final = "leak_checks.json"
ACKNOWLEDGED_FILE: Final = "acknowledged.json"

CHECK_TITLES: Final = {"sha256": "sha256", "cluster": "cluster", "file": "file name"}


@dataclass(frozen=True)
class RedFlag:
    """A task read better than can be believed."""

    task: TaskName
    accuracy: float
    above: float

    def __str__(self) -> str:
        return (
            f"{TASK_TITLES[self.task]} {100 * self.accuracy:.1f} % is above "
            f"{100 * self.above:.0f} %"
        )


@dataclass(frozen=True)
class LeakCheck:
    """One way of looking for the same picture in two parts of a split, and what it found."""

    by: str
    """sha256, cluster or file."""
    found: int
    """Values that two parts share; 0 means none."""
    example: str = ""

    def __str__(self) -> str:
        example = f" ({self.example})" if self.example else ""
        return f"{CHECK_TITLES.get(self.by, self.by)}: {self.found or 'none'}{example}"


@dataclass(frozen=True)
class Acknowledgement:
    """Somebody has looked at a red flag and says why the result stands."""

    when: str
    why: str


def red_flags(about: Mapping[str, Any], metrics: Mapping[str, float]) -> tuple[RedFlag, ...]:
    """Find the tasks of a run that are read better than can be believed.

    about: `experiment.json`. Only runs that were tested on all people of the leak-free UTKFace, or
    of a fold of it, can raise a flag: drawn faces and other data sets have no such limits, a subset
    of the people may be easier, and a run on a split that leaks on purpose is marked LEAKY already.
    UTKFace is known by its name or by the digest of its split.
    """
    if not _on_whole_utkface(about):
        return ()
    accuracies = {task: metrics.get(f"test/{task}/accuracy") for task in RED_FLAG_ABOVE}
    return tuple(
        RedFlag(task, accuracy, RED_FLAG_ABOVE[task])
        for task, accuracy in accuracies.items()
        if accuracy is not None and accuracy > RED_FLAG_ABOVE[task]
    )


def _on_whole_utkface(about: Mapping[str, Any]) -> bool:
    dataset, definition = about["dataset"], about["experiment"]
    is_utkface = (
        UTKFACE_NAME in str(dataset["name"]).lower()
        or dataset["split_digest"] in UTKFACE_SPLIT_DIGESTS
    )
    leaky = bool(about["leaky"])
    return is_utkface and not dataset["drawn"] and not leaky and not definition.get("subset")


def leak_checks(table: "pd.DataFrame", parts: Mapping[PartName, Rows]) -> tuple[LeakCheck, ...]:
    """Look for pictures that two parts share: by sha256, by cluster and by file name."""
    found = overlaps(table, parts)
    checks = []
    for column in IDENTITY_COLUMNS:
        ours = [overlap for overlap in found if overlap.column == column]
        checks.append(LeakCheck(column, len(ours), str(ours[0]) if ours else ""))
    return tuple(checks)


def write_leak_checks(record: RunRecord, checks: Sequence[LeakCheck]) -> None:
    """Keep with a run what was looked for and found."""
    content = {"schema": SCHEMA, "checks": [asdict(check) for check in checks]}
    write_json(record.folder / CHECKS_FILE, content)


def read_leak_checks(record: RunRecord) -> tuple[LeakCheck, ...]:
    """Give the checks that were run for a run; empty where none are stored."""
    content = _read(record, CHECKS_FILE)
    return tuple(LeakCheck(**check) for check in content["checks"]) if content else ()


def acknowledge(record: RunRecord, why: str, when: str) -> None:
    """Let a flagged run be ranked; raises RunError where there is nothing to acknowledge.

    Bound to the very predictions: a run that is made again must be looked at again.
    """
    name = record.identity[:12]
    flags = red_flags(record.about, record.metrics)
    if not flags:
        limits = ", ".join(
            f"{TASK_TITLES[task]} {100 * limit:.0f} %" for task, limit in RED_FLAG_ABOVE.items()
        )
        raise RunError(
            f"run {name} raises no red flag",
            allowed=f"runs on the whole leak-free test of UTKFace above {limits}",
        )
    if not why.strip():
        raise RunError(
            f"no reason is given for acknowledging run {name}",
            allowed="a sentence on what was checked and why the result stands",
            fix="Add --why REASON",
        )
    leaks = [check for check in read_leak_checks(record) if check.found]
    if leaks:
        raise RunError(
            f"run {name} leaks, which no acknowledgement mends: {leaks[0]}",
            fix="Remove the run's folder and run the experiment on a split without overlap",
        )
    content = {
        "schema": SCHEMA,
        "when": when,
        "why": " ".join(why.split()),
        "predictions_sha256": record.predictions_sha256,
        "red_flags": [asdict(flag) for flag in flags],
        "checks": [asdict(check) for check in read_leak_checks(record)],
    }
    write_json(record.folder / ACKNOWLEDGED_FILE, content)


def acknowledgement(record: RunRecord) -> Acknowledgement | None:
    """Give who has looked at this very result, when and why; None where nobody has."""
    content = _read(record, ACKNOWLEDGED_FILE)
    if not content or content["predictions_sha256"] != record.predictions_sha256:
        return None
    return Acknowledgement(str(content["when"]), str(content["why"]))


def _read(record: RunRecord, name: str) -> dict[str, Any] | None:
    """Read a file of ours; None where it is not there. A damaged one raises RunError."""
    path = record.folder / name
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        keys = {"checks"} if name == CHECKS_FILE else {"when", "why", "predictions_sha256"}
        if content["schema"] != SCHEMA or not keys <= content.keys():
            raise ValueError("another schema")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{name} of run {record.identity[:12]} cannot be read: {error}",
            allowed="what facebench wrote",
            source=str(path),
            fix="Remove that file; `facebench runs rescore` and --acknowledge write it again",
        ) from error
    return dict(content)


@dataclass(frozen=True)
class FlagState:
    """Where a run stands: its red flags, what was checked, and whether somebody has looked."""

    flags: tuple[RedFlag, ...]
    checks: tuple[LeakCheck, ...]
    acknowledged: Acknowledgement | None

    @property
    def stopped(self) -> bool:
        """Whether the result must not be ranked yet."""
        return bool(self.flags) and self.acknowledged is None


def flag_state(record: RunRecord) -> FlagState:
    """Judge a finished run from its stored files."""
    flags = red_flags(record.about, record.metrics)
    if not flags:
        return FlagState((), (), None)
    return FlagState(flags, read_leak_checks(record), acknowledgement(record))


def warning(states: Mapping[str, FlagState], name: str) -> str:
    """Say what stands beside a flagged result wherever it is shown; empty where none is flagged.

    states: by the first digits of a run's identity, the runs that the result is made of. name: what
    `--acknowledge` takes for all of them.
    """
    flagged = {run: state for run, state in states.items() if state.flags}
    if not flagged:
        return ""
    several = len(states) > 1
    flags = "; ".join(
        " and ".join(map(str, state.flags)) + (f" (run {run})" if several else "")
        for run, state in flagged.items()
    )
    looked = _what_was_checked(flagged)
    if any(state.stopped for state in flagged.values()):
        return (
            f"LEAK WARNING, not ranked: {flags}; no leak-free result is known to be. {looked}. "
            f"`facebench leaderboard --acknowledge {name} --why REASON` ranks it"
        )
    reasons = dict.fromkeys(
        f"acknowledged on {seen.when[:10]}: {seen.why}"
        for state in flagged.values()
        if (seen := state.acknowledged) is not None
    )
    return f"RED FLAG, {'; '.join(reasons)}. {flags}. {looked}"


def _what_was_checked(flagged: Mapping[str, FlagState]) -> str:
    unchecked = [run for run, state in flagged.items() if not state.checks]
    if unchecked:
        return (
            f"No check for overlap is stored with run {', '.join(unchecked)}; `facebench runs "
            "rescore` makes them where the data set is at hand"
        )
    found = dict.fromkeys("; ".join(map(str, state.checks)) for state in flagged.values())
    return f"Pictures shared between parts, by {' / '.join(found)}"
