"""Run groups: runs that differ only in the seed, by experiment; their mean accuracies.

What was measured of experiments so far: mean test accuracies, from the runs' folders.

For tables that set experiments beside other numbers. Intervals, ranks and what is missing, and
why, are for benchmark.comparison.leaderboard.

Which runs belong together: families, which differ in nothing but the seed, by experiment.

A run belongs to an experiment when it was trained as that is defined now; runs of an older
definition are left out and counted. Tables of them are made by benchmark.comparison.leaderboard.
"""

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from benchmark.comparison.rows import Run, Setting, definition_key, on_current_split, read_run
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment, Protocol, Subset
from benchmark.experiment.settings import changed_settings
from benchmark.record import RunRecord
from benchmark.tasks import TASKS, TaskName

MOST_NOTES: Final = 3
"""Folders that cannot be read are named one by one up to so many, and counted beyond."""


Watch = Callable[[str, int, int], None]
"""Told what is being done, and how many of how many are."""


def unwatched(what: str, n_done: int, n_all: int) -> None:
    """Watch nothing."""


def read_runs(
    records: Sequence[RunRecord], watch: Watch = unwatched
) -> tuple[list[Run], list[str]]:
    """Read all runs; what cannot be read becomes a note."""
    runs, refused = [], []
    for n_read, record in enumerate(records, start=1):
        try:
            runs.append(read_run(record))
        except RunError as error:
            refused.append(error)
        watch("Reading runs", n_read, len(records))
    notes = [f"Left out, not readable: {error}" for error in refused[:MOST_NOTES]]
    if len(refused) > MOST_NOTES:
        more = counted(len(refused) - MOST_NOTES, "more run")
        notes.append(f"Left out, not readable either: {more}.")
    return runs, notes


FamilyKey = tuple[Setting, str, str]
"""Setting, experiment name, family: what one row is about."""


@dataclass
class Sorting:
    """Runs given to the experiments they are runs of, and what belongs to none."""

    families: dict[FamilyKey, list[Run]]
    notes: list[str]


def sort_runs(runs: Sequence[Run], experiments: Sequence[Experiment], *, ad_hoc: bool) -> Sorting:
    """Give each run to the experiments it is a run of, and count those that belong to none."""
    by_definition: dict[str, list[str]] = defaultdict(list)
    for experiment in experiments:
        by_definition[definition_key(experiment.as_dict())].append(experiment.name)
    names = {experiment.name for experiment in experiments}
    families: dict[FamilyKey, list[Run]] = defaultdict(list)
    older: dict[str, int] = defaultdict(int)
    changed = 0
    for run in runs:
        name = str(run.definition["name"])
        if run.ad_hoc:
            changed += name in names
            owners = [name] if ad_hoc and name in names else []
        else:
            # Runs on an older split are shown too; their setting keeps them in tables of their own.
            key = definition_key(on_current_split(run.definition))
            owners = by_definition.get(run.definition_key) or by_definition.get(key, [])
            if not owners and name in names:
                older[name] += 1
        for owner in owners:
            families[run.setting, owner, run.record.family].append(run)
    notes = [
        f"Left out: {counted(count, 'run')} of an older definition of {name}."
        for name, count in sorted(older.items())
    ]
    if changed and not ad_hoc:
        notes.append(f"Left out: {counted(changed, 'ad-hoc run')}, changed on the command line.")
    return Sorting(dict(families), notes)


def counted(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def settings_of(
    runs: Sequence[Run],
    shown: Iterable[FamilyKey],
    experiments: Sequence[Experiment],
    dataset: str,
) -> list[Setting]:
    """List the settings to show: those of the runs shown, and protocols that were never run."""
    found = list(dict.fromkeys(setting for setting, _, _ in shown))
    known = {(setting.protocol, setting.subset) for setting in found}
    drawn = any(run.setting.drawn for run in runs)
    for experiment in experiments:
        protocol, subset = experiment.protocol, subset_of(experiment)
        if (protocol, subset) not in known:
            known.add((protocol, subset))
            found.append(Setting(dataset, drawn, protocol.split, "", "", protocol, subset))
    return sorted(found, key=_setting_order)


def subset_of(experiment: Experiment) -> Subset | None:
    """Say who is selected on and tested; None for everyone."""
    return experiment.subset.people if experiment.subset else None


def _setting_order(setting: Setting) -> tuple[Any, ...]:
    """Order settings: the default protocol first, then by content."""
    protocol = dataclasses.astuple(setting.protocol)
    plain = setting.protocol == Protocol()
    people = setting.subset.label if setting.subset else ""
    return (people, not plain, str(protocol), setting.split_digest, setting.pixel_digest)


def why_not_done(run: Run) -> str:
    """Say what became of a run that is not finished, and how far it came."""
    seed = f"seed {run.record.seed}"
    if run.record.state != "failed":
        return f"{seed} was interrupted or is still running{_epochs_done(run)}"
    try:
        return f"{seed} failed: {run.record.failed['why']}"
    except (RunError, KeyError):
        return f"{seed} failed"


def _epochs_done(run: Run) -> str:
    """Say how far a run came; empty before its first epoch."""
    try:
        n_epochs = len(run.record.history())
    except RunError:
        return ""
    of = run.definition["recipe"].get("max_epochs")
    return f" ({n_epochs} of {of} epochs done)" if n_epochs and of else ""


def differences_of(
    runs: Sequence[Run], families: Mapping[str, Sequence[Run]], experiment: Experiment
) -> list[str]:
    """Say how a row differs from the definition, or from other rows of the same name."""
    run = runs[0]
    said = []
    if run.ad_hoc:
        changes = changed_settings(experiment.as_dict(), run.definition)
        said.append("ad hoc: " + (", ".join(changes) or "as defined"))
    firsts = [others[0] for others in families.values()]
    if len({first.about.get("trainer_version") for first in firsts}) > 1:
        said.append(f"trainer version {run.about.get('trainer_version')}")
    digests = {str((first.about.get("weights") or {}).get("sha256")) for first in firsts}
    if len(digests) > 1:
        said.append(f"weights {str((run.about.get('weights') or {}).get('sha256'))[:12]}")
    return said


def opposing(
    runs: Sequence[Run],
    experiments: Sequence[Experiment],
    known: Mapping[str, Experiment],
    shown: Mapping[FamilyKey, list[Run]],
) -> dict[FamilyKey, list[Run]]:
    """Sort the runs of experiments that are not shown, but that those shown are set against."""
    wanted = set()
    for experiment in experiments:
        label = experiment.task_label
        rest = experiment.name.removeprefix(f"{label}-")
        twins = [experiment.counterpart_name(task) for task in experiment.head.tasks]
        wanted |= {experiment.compare_with, *(twins if label == "mtl" else [f"mtl-{rest}"])}
    wanted -= {experiment.name for experiment in experiments}
    others = [known[name] for name in sorted(filter(None, wanted)) if name in known]
    settings = {setting for setting, _, _ in shown}
    families = sort_runs(runs, others, ad_hoc=False).families
    return {key: found for key, found in families.items() if key[0] in settings}


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
