"""The arms of a comparison, who may meet whom, and with which of their runs.

An arm is a run named by its id, or an experiment with all its finished seeds. How it is found is
in benchmark.results.library.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.results.rows import Run, Setting
from benchmark.tasks import TASKS, TaskName


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: finished runs of one family, a run per seed."""

    label: str
    runs: tuple[Run, ...]
    """By ascending seed."""
    by_id: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The experiment's name, as the run has it."""
        return str(self.runs[0].definition["name"])

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """What it predicts."""
        return tuple(task for task in TASKS if task in self.runs[0].definition["head"]["tasks"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs."""
        return tuple(run.record.seed for run in self.runs)

    @property
    def setting(self) -> Setting:
        """The faces, split and protocol of its runs."""
        return self.runs[0].setting

    @property
    def identities(self) -> tuple[str, ...]:
        """The ids of its runs."""
        return tuple(run.record.identity for run in self.runs)

    @property
    def ad_hoc(self) -> bool:
        """Whether it was changed on the command line."""
        return self.runs[0].ad_hoc

    @property
    def leaky(self) -> bool:
        """Whether test faces were seen in training."""
        return any(run.leaky for run in self.runs)

    @property
    def speaks_for_the_experiment(self) -> bool:
        """Whether there are several seeds; one permits no claim about an experiment."""
        return not self.by_id and len(self.runs) > 1


@dataclass(frozen=True)
class Absent:
    """An experiment that has no runs to compare."""

    label: str
    why: str


def why_not_comparable(one: Arm, other: Arm) -> str | None:
    """Say why two arms must not be compared, or None: settings, leaks, shared runs; not faces."""
    here, there = one.setting, other.setting
    told = [
        ("the data set", here.dataset, there.dataset),
        ("pixels", here.pixel_digest[:8], there.pixel_digest[:8]),
        *(
            (f"protocol.{item.name}", *(getattr(s.protocol, item.name) for s in (here, there)))
            for item in dataclasses.fields(here.protocol)
        ),
        ("the split", here.split_digest[:8], there.split_digest[:8]),
        ("the people tested", *(s.subset.label if s.subset else "everyone" for s in (here, there))),
        ("leaks", *("LEAKY" if arm.leaky else "honest" for arm in (one, other))),
    ]
    shared = sorted(set(one.identities) & set(other.identities))
    if shared:
        return f"they share the run {shared[0][:12]}"
    differing = [f"{what} ({left} and {right})" for what, left, right in told if left != right]
    return f"they differ in {', '.join(differing)}" if differing else None


def contestants(reference: Arm, arm: Arm) -> tuple[Arm, Arm]:
    """Give who really meets: both arms whole, or one run of each.

    Where one arm has a single run, no claim about its experiment is possible, and a single run of
    the other stands against it: of the same seed if there is one, else of the lowest; never the
    best.
    """
    if reference.speaks_for_the_experiment and arm.speaks_for_the_experiment:
        return reference, arm
    shared = sorted(set(reference.seeds) & set(arm.seeds))
    return _single(reference, shared), _single(arm, shared)


def _single(arm: Arm, seeds: Sequence[int]) -> Arm:
    chosen = [run for run in arm.runs if run.record.seed in seeds[:1]] or arm.runs
    return dataclasses.replace(arm, runs=(chosen[0],))
