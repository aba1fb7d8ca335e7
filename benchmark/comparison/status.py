"""Who is at what: how far each run is, and which process is at it, from the folders alone.

A claim that no living process holds says nothing: the run is then interrupted, and whoever runs it
next takes it over.
"""

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmark.comparison.rows import Run, definition_key, read_run
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment
from benchmark.files import holder, is_held
from benchmark.record import RunRecord

State = Literal["absent", "claimed", "interrupted", "failed", "done", "damaged"]
STATES: Final[tuple[State, ...]] = (
    "claimed", "interrupted", "failed", "damaged", "absent", "done",
)  # fmt: skip
"""Those that ask for attention first."""
CLAIM: Final = "claim"


@dataclass(frozen=True)
class Standing:
    """Where one run stands."""

    state: State
    name: str
    seed: int | None
    dataset: str = ""
    identity: str = ""
    epochs: int | None = None
    of_epochs: int | None = None
    """As the recipe has it; early stopping may end it sooner."""
    pid: int | None = None
    """Of the process that is at it."""
    since: str = ""
    """ISO 8601: claimed since, or the last sign of life."""
    why: str = ""
    """Of a failed or damaged run."""
    ad_hoc: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Give it for a machine; what is not known is left out."""
        return {name: value for name, value in vars(self).items() if value not in (None, "")}


def standing(record: RunRecord) -> Standing:
    """Say where a run that has begun stands."""
    held = is_held(record.folder / CLAIM)
    try:
        run = read_run(record)
    except RunError as error:
        return Standing("damaged", "?", None, identity=record.identity, why=error.found)
    return _standing(run, held=held)


def _standing(run: Run, *, held: bool) -> Standing:
    record = run.record
    state: State = "claimed" if held else record.state
    claim = holder(record.folder / CLAIM) if held else {}
    about = run.about
    return Standing(
        state=state,
        name=str(run.definition["name"]),
        seed=record.seed,
        dataset=run.setting.dataset,
        identity=record.identity,
        epochs=_epochs(record),
        of_epochs=about["experiment"].get("recipe", {}).get("max_epochs"),
        pid=claim.get("pid") if isinstance(claim.get("pid"), int) else None,
        since=_moment(claim.get("since")) or _last_sign(record),
        why=_why(record) if state == "failed" else "",
        ad_hoc=run.ad_hoc,
    )


def _epochs(record: RunRecord) -> int | None:
    with contextlib.suppress(RunError):
        return len(record.history())
    return None


def _why(record: RunRecord) -> str:
    with contextlib.suppress(RunError):
        return str(record.failed.get("why", ""))
    return "failed.json cannot be read"


def _moment(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        return when.isoformat(timespec="seconds")
    return ""


def _last_sign(record: RunRecord) -> str:
    """Give when a file of the run was last written."""
    with contextlib.suppress(OSError):
        with os.scandir(record.folder) as entries:
            times = [entry.stat().st_mtime for entry in entries if entry.name != CLAIM]
        return _moment(max(times, default=None))
    return ""


def standings_of(
    wanted: Iterable[Experiment],
    seeds: Sequence[int],
    found: Mapping[RunRecord, Standing],
    dataset: str | None,
) -> Iterator[Standing]:
    """Yield where every experiment stands with every seed, `absent` where no run of it has begun.

    An experiment is known by what steers it, not by its name; ad-hoc runs stand for none.
    """
    by_key: dict[tuple[str, int], list[Standing]] = {}
    for record, shown in found.items():
        if shown.seed is None or shown.ad_hoc or dataset not in (None, shown.dataset):
            continue
        key = definition_key(record.about["experiment"])
        by_key.setdefault((key, shown.seed), []).append(shown)
    for experiment in wanted:
        key = definition_key(experiment.as_dict())
        for seed in seeds:
            yield from by_key.get((key, seed)) or [
                Standing("absent", experiment.name, seed, dataset or "")
            ]
