"""The leak taken apart: leaky against honest accuracy of the same network, condition by condition.

Everything is computed from stored predictions and from `exposure.csv`, which tells how each test
face was met before. All of it is LEAKY but what is called clean or honest. Words and tables are in
benchmark.results.leak_answer, pictures in benchmark.results.leak_figures.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.errors import RunError
from benchmark.experiment import Experiment, StudyRow
from benchmark.results.answers import Answers, read_answers
from benchmark.results.arms import Arm
from benchmark.results.intervals import cluster_bootstrap
from benchmark.results.library import Library
from benchmark.results.paired import welch_interval
from benchmark.tasks import TASKS, TaskName

PUBLISHED: Final = "published"
HONEST: Final = "honest"
STEPS: Final = ("published", "split", "duplicates", "batches", "scaling", "honest")
"""The waterfall, in its order; each ending of a name mends one condition more."""
ALONE: Final = ("split", "only_duplicates", "only_batches", "only_scaling", "only_selection")
"""One condition of `published` mended by itself; the first is the waterfall's first step."""
EXPOSURES: Final = ("seen", "related", "clean")


@dataclass(frozen=True)
class Rate:
    """An accuracy over seeds, in [0, 1]; None for what has no face."""

    mean: float
    low: float
    """Ends of the 95 % interval: bootstrap of the seed-averaged correctness over clusters."""
    high: float
    by_seed: tuple[float, ...]

    @property
    def sd(self) -> float | None:
        """Over seeds; None for one."""
        return float(np.std(self.by_seed, ddof=1)) if len(self.by_seed) > 1 else None


@dataclass(frozen=True)
class LeakArm:
    """One condition of one network, over its seeds."""

    name: str
    ending: str
    leaky: bool
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    """How many each seed trained."""
    fitted: tuple[float, ...]
    """Of each seed, the least task accuracy on the training faces in eval mode, at the end."""
    n_test: int
    rates: Mapping[TaskName, Rate]


@dataclass(frozen=True)
class Group:
    """Test faces of a leaky run that the network met before in one way, or did not."""

    exposure: str
    n: int
    rates: Mapping[TaskName, Rate]


@dataclass(frozen=True)
class Change:
    """By how much accuracy moves from one arm to another, as a fraction."""

    mean: float
    low: float | None
    """Ends of Welch's 95 % interval over seeds; None unless both arms have two seeds or more."""
    high: float | None


@dataclass(frozen=True)
class NetworkLeak:
    """One network: its leaky score, the honest one inside it, and the steps between."""

    label: str
    """The experiment's name without the ending."""
    arms: Mapping[str, LeakArm]
    groups: tuple[Group, ...]
    """Of the published arm; empty where it was not run."""
    steps: Mapping[str, Mapping[TaskName, Change]]
    """By ending, against the step before it that was run."""
    alone: Mapping[str, Mapping[TaskName, Change]]
    """By ending, against `published`."""
    study: StudyRow | None
    """What the study printed, where architecture and weights are its own."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The steps that were run, in their order."""
        return tuple(ending for ending in STEPS if ending in self.arms)

    def n_skipped(self, ending: str) -> int:
        """Count the steps between this one and the one shown before it: mended here as well."""
        place = self.shown.index(ending)
        before = STEPS.index(self.shown[place - 1]) if place else -1
        return STEPS.index(ending) - before - 1


@dataclass(frozen=True)
class LeakStudy:
    """All networks of a suite like `leak`, on one data set."""

    dataset: str
    drawn: bool
    networks: tuple[NetworkLeak, ...]
    missing: tuple[str, ...]


def leak_study(library: Library, experiments: Sequence[Experiment], dataset: str) -> LeakStudy:
    """Read the finished runs of `experiments` on `dataset` and take the leak apart.

    Raises RunError where no published arm was run, or a run's files do not fit together.
    """
    arms: dict[str, dict[str, Arm]] = {}
    missing = []
    names = {item.name for item in experiments}
    for item in experiments:
        label, ending = _place(item.name, names)
        found = library.experiment_arm(item.name, dataset)
        if isinstance(found, Arm):
            arms.setdefault(label, {})[ending] = found
        else:
            missing.append(f"{item.name}: {found.why}")
    studies = {_place(item.name, names)[0]: item.study for item in experiments}
    networks = [
        _network(label, ours, studies[label]) for label, ours in arms.items() if PUBLISHED in ours
    ]
    if not networks:
        raise RunError(
            f"no network was run under the study's conditions on {dataset}",
            fix="`facebench run --suite leak --seeds 0,1,2` makes such runs",
        )
    drawn = any(run.setting.drawn for ours in arms.values() for arm in ours.values()
                for run in arm.runs)  # fmt: skip
    return LeakStudy(dataset, drawn, tuple(networks), tuple(missing))


def _place(name: str, names: Collection[str]) -> tuple[str, str]:
    """Give an arm's network and its ending.

    A row that is registered anyway, under no ending, is the honest arm of those named after it.
    """
    if f"{name}-{PUBLISHED}" in names:
        return name, HONEST
    label, _, ending = name.rpartition("-")
    return label, ending


def _network(label: str, found: Mapping[str, Arm], study: StudyRow | None) -> NetworkLeak:
    arms = {ending: _arm(ending, arm) for ending, arm in found.items()}
    steps: dict[str, Mapping[TaskName, Change]] = {
        after: _changes(arms[before], arms[after])
        for before, after in itertools.pairwise(ending for ending in STEPS if ending in arms)
    }
    alone: dict[str, Mapping[TaskName, Change]] = {
        ending: _changes(arms[PUBLISHED], arms[ending]) for ending in ALONE if ending in arms
    }
    return NetworkLeak(label, arms, _groups(found[PUBLISHED]), steps, alone, study)


def _arm(ending: str, arm: Arm) -> LeakArm:
    records = [run.record for run in arm.runs]
    answers = read_answers(records, TASKS)
    histories = [record.history() for record in records]
    everyone = np.ones(len(answers.faces), dtype=bool)
    return LeakArm(
        name=arm.name,
        ending=ending,
        leaky=any(run.leaky for run in arm.runs),
        seeds=tuple(record.seed for record in records),
        epochs=tuple(len(history) for history in histories),
        fitted=tuple(_fitted(history) for history in histories),
        n_test=len(answers.faces),
        rates=_rates(answers, everyone),
    )


def _fitted(history: pd.DataFrame) -> float:
    columns = [f"fitted/{task}/accuracy" for task in TASKS]
    if not set(columns) <= set(history.columns):
        return float("nan")
    return float(history[columns].iloc[-1].min())


def _rates(answers: Answers, chosen: npt.NDArray[np.bool_]) -> dict[TaskName, Rate]:
    """Score the chosen test faces; nothing where there are none."""
    if not chosen.any():
        return {}
    clusters = answers.faces["cluster"].to_numpy()[chosen]
    right = {task: answers.right(task)[:, chosen] for task in TASKS}
    means = np.column_stack([right[task].mean(axis=0) for task in TASKS])
    low, high = cluster_bootstrap(means, clusters)
    return {
        task: Rate(
            mean=float(means[:, column].mean()),
            low=float(low[column]),
            high=float(high[column]),
            by_seed=tuple(float(rate) for rate in right[task].mean(axis=1)),
        )
        for column, task in enumerate(TASKS)
    }


def _groups(arm: Arm) -> tuple[Group, ...]:
    """Score the test faces of a leaky arm apart, by how training met them."""
    answers = read_answers([run.record for run in arm.runs], TASKS)
    exposure = _exposure(arm, answers.faces["file"])
    found = []
    for name in EXPOSURES:
        chosen = np.asarray(exposure == name)
        found.append(Group(name, int(chosen.sum()), _rates(answers, chosen)))
    return tuple(found)


def _exposure(arm: Arm, files: pd.Series) -> npt.NDArray[np.str_]:
    """Read how each test face was met, in the order of `files`; equal for all seeds."""
    record = arm.runs[0].record
    try:
        met = pd.read_csv(record.exposure_path, dtype=str).set_index("file")["exposure"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"exposure.csv of run {record.identity[:12]} cannot be read: {error}",
            source=str(record.exposure_path),
            fix="Remove the run's folder and run the experiment again",
        ) from error
    if set(met.index) != set(files) or not set(met) <= set(EXPOSURES):
        raise RunError(
            f"exposure.csv of run {record.identity[:12]} is not about its test faces",
            allowed=f"each test face once, as {', '.join(EXPOSURES)}",
            source=str(record.exposure_path),
            fix="Remove the run's folder and run the experiment again",
        )
    return np.asarray(met.loc[files].to_numpy(dtype=str))


def _changes(before: LeakArm, after: LeakArm) -> dict[TaskName, Change]:
    return {task: change(before.rates[task], after.rates[task]) for task in TASKS}


def change(before: Rate, after: Rate) -> Change:
    """Give the difference of two means with Welch's 95 % interval over seeds.

    The two may be about other test faces: what these could do stands in the rates' own intervals.
    """
    low, high = welch_interval(after.by_seed, before.by_seed)
    return Change(after.mean - before.mean, low, high)
