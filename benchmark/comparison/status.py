"""How far each run is, and which process works on it, from the folders alone.

A lock file that no living process holds says nothing: the run is then interrupted, and whoever runs
it next takes it over.
"""

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmark.comparison.library import definition_key, read_run
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment
from benchmark.files import is_locked, lock_owner
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
    """Of the process that works on it."""
    since: str = ""
    """ISO 8601: when that process began, or when a file of the run was last written."""
    why: str = ""
    """Of a failed or damaged run."""
    ad_hoc: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Give it for a machine; what is not known is left out."""
        return {name: value for name, value in vars(self).items() if value not in (None, "")}


def standing(record: RunRecord) -> Standing:
    """Say where a run that has begun stands."""
    held = is_locked(record.folder / CLAIM)
    try:
        run = read_run(record)
    except RunError as error:
        return Standing("damaged", "?", None, identity=record.identity, why=error.found)
    state: State = "claimed" if held else record.state
    owner = lock_owner(record.folder / CLAIM) if held else {}
    epochs, why = None, ""
    with contextlib.suppress(RunError):
        epochs = len(record.history())
    if state == "failed":
        why = "failed.json cannot be read"
        with contextlib.suppress(RunError):
            why = str(record.failed.get("why", ""))
    return Standing(
        state=state,
        name=str(run.definition["name"]),
        seed=record.seed,
        dataset=run.setting.dataset,
        identity=record.identity,
        epochs=epochs,
        of_epochs=run.definition.get("recipe", {}).get("max_epochs"),
        pid=owner.get("pid") if isinstance(owner.get("pid"), int) else None,
        since=_moment(owner.get("since")) or _last_written(record),
        why=why,
        ad_hoc=run.ad_hoc,
    )


def _moment(seconds: object) -> str:
    if isinstance(seconds, int | float):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
            return when.isoformat(timespec="seconds")
    return ""


def _last_written(record: RunRecord) -> str:
    with contextlib.suppress(OSError), os.scandir(record.folder) as entries:
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
    by_key: dict[tuple[str, int | None], list[Standing]] = {}
    for record, shown in found.items():
        if shown.seed is not None and not shown.ad_hoc and dataset in (None, shown.dataset):
            key = definition_key(record.about["experiment"])
            by_key.setdefault((key, shown.seed), []).append(shown)
    for experiment in wanted:
        key = definition_key(experiment.as_dict())
        for seed in seeds:
            absent = Standing("absent", experiment.name, seed, dataset or "")
            yield from by_key.get((key, seed), [absent])
