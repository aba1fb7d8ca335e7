"""What was measured of experiments so far: mean test accuracies, from the runs' folders.

For tables that set experiments beside other numbers. Intervals, ranks and what is missing, and
why, are for benchmark.results.leaderboard.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmark.errors import RunError
from benchmark.experiment import Experiment
from benchmark.results.rows import Run, definition_key
from benchmark.tasks import TASKS, TaskName


class MeasuredOn(NamedTuple):
    """The very faces and split that numbers were measured on; one table mixes no two of them."""

    dataset: str
    pixel_digest: str
    split_digest: str


@dataclass(frozen=True)
class MeanAccuracy:
    """Test accuracy of one task over the seeds of one experiment, in [0, 1]."""

    mean: float
    sd: float | None
    """Sample standard deviation over seeds; None for one seed."""
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    """First digits of the runs' identities, in the order of the seeds."""


def measured_on(run: Run) -> MeasuredOn:
    """Say what a run was measured on."""
    setting = run.setting
    return MeasuredOn(setting.dataset, setting.pixel_digest, setting.split_digest)


def counts(run: Run) -> bool:
    """Tell whether a run may stand for its experiment: finished, as defined, and leak-free."""
    return run.record.state == "done" and not run.ad_hoc and not run.leaky


def usual_faces(runs: Iterable[Run], dataset: str) -> MeasuredOn | None:
    """Give the pixels and split of `dataset` that most runs share; None where no run counts."""
    found = Counter(
        measured_on(run) for run in runs if counts(run) and run.setting.dataset == dataset
    )
    return max(found, key=lambda faces: (found[faces], faces)) if found else None


def measured(
    runs: Iterable[Run], experiments: Iterable[Experiment], faces: MeasuredOn
) -> dict[str, dict[TaskName, MeanAccuracy]]:
    """Average the test accuracy of each experiment over its seeds, by experiment name and task.

    A run belongs to an experiment when it was trained as that is defined now. Of several families
    (other weight files, another trainer version) the one with most seeds stands, then the newest
    trainer. An experiment without a run that counts is absent.
    """
    found = [run for run in runs if counts(run) and measured_on(run) == faces]
    return _averaged(found, experiments)


def replayed(
    runs: Iterable[Run], experiments: Iterable[Experiment], dataset: str
) -> dict[str, dict[TaskName, MeanAccuracy]]:
    """Average runs on a leaking split likewise; whoever shows them says LEAKY beside each.

    Their split is their own, so that only the data set can be asked for.
    """
    found = [
        run
        for run in runs
        if run.record.state == "done" and run.leaky and not run.ad_hoc
        and run.setting.dataset == dataset
    ]  # fmt: skip
    return _averaged(found, experiments)


def _averaged(
    runs: Iterable[Run], experiments: Iterable[Experiment]
) -> dict[str, dict[TaskName, MeanAccuracy]]:
    families: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        families[run.definition_key][run.record.family].append(run)
    found = {}
    for experiment in experiments:
        ours = families.get(definition_key(experiment.as_dict()), {})
        if ours and (accuracies := _accuracies(max(ours.values(), key=_standing))):
            found[experiment.name] = accuracies
    return found


def _standing(family: Sequence[Run]) -> tuple[int, int, str]:
    first = family[0]
    return len(family), int(first.about.get("trainer_version", 0)), first.record.family


def _accuracies(family: Sequence[Run]) -> dict[TaskName, MeanAccuracy]:
    """Average over the runs of one family whose test faces were read and whose metrics can be."""
    tested = [
        (run, metrics)
        for run in sorted(family, key=lambda run: run.record.seed)
        if (metrics := _metrics(run))
    ]
    accuracies: dict[TaskName, MeanAccuracy] = {}
    for task in TASKS:
        found = [
            (metrics[f"test/{task}/accuracy"], run)
            for run, metrics in tested
            if f"test/{task}/accuracy" in metrics
        ]
        if found:
            values = [value for value, _ in found]
            accuracies[task] = MeanAccuracy(
                mean=statistics.fmean(values),
                sd=statistics.stdev(values) if len(values) > 1 else None,
                seeds=tuple(run.record.seed for _, run in found),
                runs=tuple(run.short_identity for _, run in found),
            )
    return accuracies


def _metrics(run: Run) -> Mapping[str, float]:
    try:
        return run.record.metrics
    except (RunError, KeyError):
        return {}
