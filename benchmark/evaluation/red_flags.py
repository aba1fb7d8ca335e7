"""Results too good to be true on UTKFace: not ranked until somebody has looked for a leak.

A red flag is no proof of a leak: before every training the split is checked for pictures that two
parts share. The row stays; once a person acknowledges it, with a reason, it is ranked and says so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmark.errors import RunError
from benchmark.files import write_json
from benchmark.record import SCHEMA, RunRecord
from benchmark.tasks import TASK_TITLES, TaskName

RED_FLAG_ABOVE: Final[Mapping[TaskName, float]] = {"age_group": 0.83, "gender": 0.98, "race": 0.93}
"""Test accuracy that no leak-free result on UTKFace is known to reach: above the best plausible by
1.5 to 2 pp."""

UTKFACE_NAME: Final = "utkface"
"""A data set with this in its name is UTKFace, at whatever size."""
UTKFACE_SPLIT_DIGESTS: Final = (
    "dd739fd5ab4a1c2604d0da21739848783c86975fc0d5d2aa7da9b06a92a6d350",
    "ac5aa10e749d59e48e68b804f44967fc7547dc0d152fa5defebe5e51a6139b52",
)
"""leak-free-2 and leak-free-1 of all of UTKFace, whatever the data set is called (docs/DATA.md)."""

CHECKED: Final = "Before training, no two parts shared a picture by sha256, cluster or file name"
ACKNOWLEDGED_FILE: Final = "acknowledged.json"


@dataclass(frozen=True)
class FlagState:
    """A run's red flags, and when and why somebody acknowledged them."""

    flags: tuple[str, ...] = ()
    acknowledged: tuple[str, str] | None = None

    @property
    def stopped(self) -> bool:
        """Whether the result must not be ranked yet."""
        return bool(self.flags) and self.acknowledged is None


def flag_state(record: RunRecord) -> FlagState:
    """Tell whether a finished run is too good to be true, and acknowledged."""
    flags, path = red_flags(record.about, record.metrics), record.folder / ACKNOWLEDGED_FILE
    if not flags or not path.is_file():
        return FlagState(flags)
    try:
        seen = json.loads(path.read_text(encoding="utf-8"))
        is_of_these = seen["predictions_sha256"] == record.predictions_sha256
        return FlagState(flags, (str(seen["when"]), str(seen["why"])) if is_of_these else None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"{path.name} of run {record.identity[:12]} cannot be read: {error}"
        fix = "Remove that file; --acknowledge writes it again"
        raise RunError(found, source=str(path), fix=fix) from error


def red_flags(about: Mapping[str, Any], metrics: Mapping[str, float]) -> tuple[str, ...]:
    """Say which tasks of a run are predicted better than can be believed.

    about: `experiment.json`. Only runs that were tested on the whole leak-free UTKFace, or a fold
    of it, can raise a flag. It is known by its name or by the digest of its split.
    """
    dataset = about["dataset"]
    named = UTKFACE_NAME in str(dataset["name"]).lower()
    is_utkface = named or dataset["split_digest"] in UTKFACE_SPLIT_DIGESTS
    if not is_utkface or dataset["drawn"] or about["leaky"] or about["experiment"].get("subset"):
        return ()
    return tuple(
        f"{TASK_TITLES[task]} {100 * rate:.1f} % is above {100 * limit:.0f} %"
        for task, limit in RED_FLAG_ABOVE.items()
        if (rate := metrics.get(f"test/{task}/accuracy", 0.0)) > limit
    )


def acknowledge(record: RunRecord, why: str, when: str) -> None:
    """Let a flagged run be ranked, by these very predictions; RunError without flag or reason."""
    name, flags = record.identity[:12], red_flags(record.about, record.metrics)
    if not flags:
        limits = (f"{TASK_TITLES[t]} {100 * limit:.0f} %" for t, limit in RED_FLAG_ABOVE.items())
        allowed = f"runs on the whole leak-free test of UTKFace above {', '.join(limits)}"
        raise RunError(f"run {name} raises no red flag", allowed=allowed)
    if not why.strip():
        found = f"no reason is given for acknowledging run {name}"
        allowed = "a sentence on what was checked and why the result stands"
        raise RunError(found, allowed=allowed, fix="Add --why REASON")
    write_json(record.folder / ACKNOWLEDGED_FILE, {
        "schema": SCHEMA, "when": when, "why": " ".join(why.split()),
        "predictions_sha256": record.predictions_sha256, "red_flags": list(flags),
    })  # fmt: skip


def warning(states: Mapping[str, FlagState], name: str) -> str:
    """Say what stands beside a flagged result wherever it is shown; empty where none is flagged.

    states: by the first digits of a run's identity, the runs that the result is made of. name: what
    `--acknowledge` takes for all of them.
    """
    flagged = [(run, state) for run, state in states.items() if state.flags]
    flags = "; ".join(f"{', '.join(state.flags)} (run {run})" for run, state in flagged)
    if any(state.stopped for _, state in flagged):
        return (
            f"LEAK WARNING, not ranked: {flags}; no leak-free result is known to be. {CHECKED}. "
            f"`facebench leaderboard --acknowledge {name} --why REASON` ranks it"
        )
    seen = [state.acknowledged for _, state in flagged if state.acknowledged]
    reasons = dict.fromkeys(f"acknowledged on {when[:10]}: {why}" for when, why in seen)
    return f"RED FLAG, {'; '.join(reasons)}. {flags}. {CHECKED}" if flagged else ""
