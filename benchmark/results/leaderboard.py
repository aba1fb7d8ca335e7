"""Leaderboards: which experiments stand in which table, in what order, and which are missing.

Built from the runs' folders alone. Rows are computed in benchmark.results.rows, and written as
Markdown or CSV in benchmark.results.formats. Nothing here depends on the time or the machine, so
that a leaderboard is byte-identical when nothing changed.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmark.errors import RunError
from benchmark.experiment import Experiment, Protocol, Subset
from benchmark.results.limits import LIMITS, LIMITS_DRAWN
from benchmark.results.record import RunRecord
from benchmark.results.red_flags import RED_FLAG_ABOVE
from benchmark.results.rows import (
    Row,
    Run,
    Setting,
    definition_key,
    experiment_row,
    read_run,
)
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

Kind = Literal["mtl", "age_group", "gender", "race"]
KINDS: Final[tuple[Kind, ...]] = ("mtl", *TASKS)

ONE_SEED: Final = "one seed: no claim about the experiment"
RANK_DIGITS: Final = 9
"""Validation scores that agree to this many decimals are a tie."""

References = Callable[[Setting, tuple[TaskName, ...]], Sequence[Row]]
"""Gives the reference rows of a table, such as rows.majority_row of its training labels."""


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: one setting, and networks for the same tasks."""

    setting: Setting
    kind: Kind
    rows: tuple[Row, ...]
    """Reference rows, then ranked experiments, then missing ones in the order asked for."""

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks that every network of the table predicts."""
        return tasks_of(self.kind)


@dataclass(frozen=True)
class Leaderboard:
    """All tables of one data set, and what a reader must know about them."""

    dataset: str
    suite: str | None
    """None: no suite, but every experiment that was begun."""
    drawn: bool
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    """What was left out and why, about this very leaderboard."""
    limits: tuple[str, ...]
    """What numbers of this benchmark are not; the same under every leaderboard."""


def tasks_of(kind: Kind) -> tuple[TaskName, ...]:
    """Name the tasks of a table's networks."""
    return TASKS if kind == "mtl" else (kind,)


def no_references(setting: Setting, tasks: tuple[TaskName, ...]) -> Sequence[Row]:
    """Give no reference rows."""
    return ()


def build(
    records: Iterable[RunRecord],
    experiments: Sequence[Experiment],
    dataset: str,
    *,
    suite: str | None = None,
    references: References = no_references,
    missing: Mapping[str, str] | None = None,
    ad_hoc: bool = False,
) -> Leaderboard:
    """Arrange the runs of `experiments` on `dataset` in tables.

    A run belongs to an experiment when it was trained as that is defined now; runs of an older
    definition are left out and counted. Data sets, splits and protocols are never mixed. An
    experiment without a finished run is shown as missing, with the reason: `missing` may know
    one by name, such as weights that are not at hand. Ad-hoc runs are shown only with `ad_hoc`.
    """
    runs, notes = _read(records, dataset)
    sorting = _sort(runs, experiments, ad_hoc=ad_hoc)
    notes += sorting.notes
    settings = _settings(runs, sorting.families, experiments, dataset)
    tables: list[Table] = []
    for setting in settings:
        rows = _rows(setting, experiments, sorting.families, missing or {})
        for kind in KINDS:
            ours = rows[kind]
            if ours:
                first = references(setting, tasks_of(kind))
                tables.append(Table(setting, kind, (*first, *_ranked(ours))))
    drawn = any(setting.drawn for setting in settings)
    return Leaderboard(
        dataset=dataset,
        suite=suite,
        drawn=drawn,
        tables=tuple(tables),
        notes=(*notes, *_reading_notes(tables, sorting.families.values())),
        limits=LIMITS_DRAWN + LIMITS if drawn else LIMITS,
    )


def _read(records: Iterable[RunRecord], dataset: str) -> tuple[list[Run], list[str]]:
    """Read the runs on `dataset`; a folder that cannot be read becomes a note."""
    runs, notes = [], []
    for record in records:
        try:
            run = read_run(record)
        except RunError as error:
            notes.append(f"Left out, not readable: {error}")
            continue
        if run.setting.dataset == dataset:
            runs.append(run)
    return runs, notes


FamilyKey = tuple[Setting, str, str]
"""Setting, experiment name, family: what one row is about."""


@dataclass
class _Sorting:
    families: dict[FamilyKey, list[Run]]
    notes: list[str]


def _sort(runs: Sequence[Run], experiments: Sequence[Experiment], *, ad_hoc: bool) -> _Sorting:
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
            owners = by_definition.get(run.definition_key, [])
            if not owners and name in names:
                older[name] += 1
        for owner in owners:
            families[run.setting, owner, run.record.family].append(run)
    notes = [
        f"Left out: {_counted(count, 'run')} of an older definition of {name}."
        for name, count in sorted(older.items())
    ]
    if changed and not ad_hoc:
        notes.append(f"Left out: {_counted(changed, 'ad-hoc run')}, changed on the command line.")
    return _Sorting(dict(families), notes)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _settings(
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
        protocol, subset = experiment.protocol, _subset_of(experiment)
        if (protocol, subset) not in known:
            known.add((protocol, subset))
            found.append(Setting(dataset, drawn, protocol.split, "", "", protocol, subset))
    return sorted(found, key=_setting_order)


def _subset_of(experiment: Experiment) -> Subset | None:
    return experiment.subset.people if experiment.subset else None


def _setting_order(setting: Setting) -> tuple[Any, ...]:
    """Order settings: the default protocol first, then by content."""
    protocol = dataclasses.astuple(setting.protocol)
    plain = setting.protocol == Protocol()
    people = setting.subset.label if setting.subset else ""
    return (people, not plain, str(protocol), setting.split_digest, setting.pixel_digest)


def _rows(
    setting: Setting,
    experiments: Sequence[Experiment],
    families: Mapping[FamilyKey, list[Run]],
    missing: Mapping[str, str],
) -> dict[Kind, list[Row]]:
    """Make the rows of one setting by kind, in the order of `experiments`."""
    rows: dict[Kind, list[Row]] = {kind: [] for kind in KINDS}
    for experiment in experiments:
        kind: Kind = "mtl" if len(experiment.head.tasks) > 1 else experiment.head.tasks[0]
        ours = {
            family: runs
            for (where, name, family), runs in families.items()
            if where == setting and name == experiment.name
        }
        if ours:
            rows[kind] += [
                _row(experiment, runs, _differences(runs, ours, experiment))
                for _, runs in sorted(ours.items())
            ]
        elif (experiment.protocol, _subset_of(experiment)) == (setting.protocol, setting.subset):
            reason = missing.get(experiment.name, "not run")
            rows[kind].append(Row("missing", experiment.name, remarks=(reason,)))
    return rows


def _row(experiment: Experiment, runs: Sequence[Run], differences: Sequence[str]) -> Row:
    """Make one experiment's row from its runs, finished or not."""
    done = [run for run in runs if run.record.state == "done"]
    unfinished = [_why_not_done(run) for run in runs if run.record.state != "done"]
    if not done:
        return Row("missing", experiment.name, remarks=(*unfinished, *differences))
    remarks = [*differences, *unfinished]
    if len(done) == 1:
        remarks.append(ONE_SEED)
    try:
        row = experiment_row(experiment.name, done, remarks)
    except RunError as error:
        return Row("missing", experiment.name, remarks=(str(error), *differences))
    if not row.scores:
        return dataclasses.replace(row, remarks=("test was not read", *row.remarks))
    return row


def _why_not_done(run: Run) -> str:
    seed = f"seed {run.record.seed}"
    if run.record.state != "failed":
        return f"{seed} was interrupted or is still running"
    try:
        return f"{seed} failed: {run.record.failed['why']}"
    except (RunError, KeyError):
        return f"{seed} failed"


def _differences(
    runs: Sequence[Run], families: Mapping[str, Sequence[Run]], experiment: Experiment
) -> list[str]:
    """Say how a row differs from the definition, or from other rows of the same name."""
    run = runs[0]
    said = []
    if run.ad_hoc:
        changes = _changes(experiment.as_dict(), run.definition)
        said.append("ad hoc: " + (", ".join(changes) or "as defined"))
    firsts = [others[0] for others in families.values()]
    if len({first.about.get("trainer_version") for first in firsts}) > 1:
        said.append(f"trainer version {run.about.get('trainer_version')}")
    digests = {str((first.about.get("weights") or {}).get("sha256")) for first in firsts}
    if len(digests) > 1:
        said.append(f"weights {str((run.about.get('weights') or {}).get('sha256'))[:12]}")
    return said


def _changes(current: Mapping[str, Any], run: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Name the settings in which a run departs from the current definition, as `--set` has them."""
    for key, value in run.items():
        here = f"{path}{key}"
        if isinstance(value, Mapping) and isinstance(current.get(key), Mapping):
            yield from _changes(current[key], value, f"{here}.")
        elif path and current.get(key) != (tuple(value) if isinstance(value, list) else value):
            yield f"{here}={value}"


def _ranked(rows: Sequence[Row]) -> Iterator[Row]:
    """Order rows by validation, best first; equal scores share a rank and stand by name.

    A stopped row stands where its score puts it, without a rank, and takes none from the others.
    """
    done = [row for row in rows if row.val_combined is not None]
    scores = sorted((_rank_score(row) for row in done if not row.stopped), reverse=True)
    for row in sorted(done, key=lambda row: (-_rank_score(row), row.name, row.identities)):
        rank = None if row.stopped else scores.index(_rank_score(row)) + 1
        yield dataclasses.replace(row, rank=rank)
    yield from (row for row in rows if row.val_combined is None)


def _rank_score(row: Row) -> float:
    return round(row.val_combined or 0.0, RANK_DIGITS)


def _reading_notes(tables: Sequence[Table], families: Iterable[Sequence[Run]]) -> list[str]:
    """Say how the intervals and seeds of these very tables are to be read."""
    done = [row for table in tables for row in table.rows if row.status == "done"]
    notes = []
    if any(row.status != "reference" for table in tables for row in table.rows[:1]):
        notes.append("No majority-class row: the data set with this split is not prepared here.")
    if any(len(row.seeds) == 1 for row in done):
        notes.append(
            "Rows with one seed tell of that training alone and permit no claim about the "
            "experiment; their intervals are Wilson's, over test faces."
        )
        shared = max((_faces_sharing_a_cluster(runs) for runs in families), default=0)
        if shared:
            notes.append(
                f"{shared} test faces are near-duplicates of others there; Wilson's interval "
                "counts them as independent and is a little too narrow."
            )
    if any(row.red_flag for row in done):
        limits = ", ".join(
            f"{100 * limit:.0f} % ({TASK_TITLES[task]})" for task, limit in RED_FLAG_ABOVE.items()
        )
        notes.append(
            f"A row above {limits} on the leak-free UTKFace test is stopped: it stays, marked !, "
            "and is not ranked until somebody has looked for a leak and acknowledges it."
        )
    if any(len(row.seeds) > 1 for row in done):
        notes.append(
            "Rows with several seeds show mean ± sd over seeds; their intervals are a bootstrap "
            "of the seed-averaged correctness over clusters of test faces."
        )
    if any(table.kind == "mtl" for table in tables):
        notes.append(
            "val is the combined validation accuracy, 0.4 age group + 0.2 gender + 0.4 race; "
            "in single-task tables it is the task's."
        )
    return notes


def _faces_sharing_a_cluster(runs: Sequence[Run]) -> int:
    """Count the test faces beyond the first of each cluster, as the run's metrics tell."""
    try:
        metrics = [run.record.metrics for run in runs if run.record.state == "done"]
    except (RunError, KeyError):
        return 0
    counts = [m["test/n_faces"] - m["test/n_clusters"] for m in metrics if "test/n_clusters" in m]
    return int(max(counts, default=0))
