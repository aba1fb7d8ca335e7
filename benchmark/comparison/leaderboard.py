"""Leaderboards: which experiments stand in which table, in what order, and which are missing.

Built from the runs' folders alone. Rows are computed in benchmark.comparison.rows and compared in
.pairs. Nothing here depends on the time or the machine, so that a leaderboard is byte-identical
when nothing changed.
"""

import contextlib
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmark.comparison.library import Library, Run, Setting, counted, edited_after, why_not_done
from benchmark.comparison.pairs import SHARED, RowPair, compare_rows, counterpart_names, row_pairs
from benchmark.comparison.references import LOGISTIC
from benchmark.comparison.rows import Row, RowComparison, done_row
from benchmark.comparison.wording import Gap, family_text, gap_sentences, limitations
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.errors import RunError
from benchmark.experiment.definition import Experiment, Protocol, Suite
from benchmark.experiment.parts import changed_settings
from benchmark.tasks import TASKS, TaskName

Kind = Literal["mtl", "age_group", "gender", "race"]
KINDS: Final[tuple[Kind, ...]] = ("mtl", *TASKS)

HEADINGS: Final[dict[Kind, str]] = {
    "mtl": "Three tasks, one network (MTL)",
    "age_group": "Age group alone (STL)",
    "gender": "Gender alone (STL)",
    "race": "Race alone (STL)",
}
ONE_SEED: Final = "one seed: no claim about the experiment"
RANK_DIGITS: Final = 9
"""Validation scores that agree to this many decimals are a tie."""

FamilyKey = tuple[Setting, str, str]
"""Setting, experiment name, identity without the seed: what one row of a table is about."""
Families = Mapping[FamilyKey, list[Run]]


def tasks_of(kind: Kind) -> tuple[TaskName, ...]:
    """Name the tasks of a table's networks."""
    return TASKS if kind == "mtl" else (kind,)


@dataclass(frozen=True)
class BoardTable:
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
    tables: tuple[BoardTable, ...]
    notes: tuple[str, ...]
    """What was left out and why, about this very leaderboard."""
    limits: tuple[str, ...]
    """What numbers of this benchmark are not; the same under every leaderboard."""
    suites: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Which experiments the suites asked for list."""
    replays: Mapping[str, Row] = field(default_factory=dict)
    """Of the study's rows: the same networks on its own leaking split, by the honest row's name."""

    def suites_of(self, name: str) -> tuple[str, ...]:
        """Name the suites asked for that list an experiment."""
        return tuple(suite for suite, names in self.suites.items() if name in names)


@dataclass(frozen=True)
class LeaderboardQuery:
    """What a leaderboard shows, and what is known beside the runs."""

    experiments: Sequence[Experiment]
    """The rows, run or not, in the order of those that are missing."""
    dataset: str
    suites: Sequence[Suite] = ()
    """Those asked for; none: every experiment that was begun."""
    references: Callable[[Setting, tuple[TaskName, ...]], Sequence[Row]] = lambda *_: ()
    """Gives the reference rows of a table."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why an experiment could not be run, by name, such as weights that are not available."""
    known: Mapping[str, Experiment] = field(default_factory=dict)
    """Further definitions, whose rows others may be set against."""
    ad_hoc: bool = False
    compared: bool = True
    """Whether rows are set against others; not on a page that makes comparisons of its own."""
    notes: Sequence[str] = ()
    watch: OnProgress = keep_quiet


def arrange(runs: Iterable[Run], query: LeaderboardQuery) -> Leaderboard:
    """Arrange runs in tables: of one setting, and of networks for the same tasks.

    A run belongs to an experiment when it was trained as that is defined now; runs of an older
    definition are left out and counted. Data sets, splits and protocols are never mixed: runs on an
    older leak-free split have tables of their own.
    """
    ours = [run for run in runs if run.setting.dataset == query.dataset]
    known = {**query.known, **{item.name: item for item in query.experiments}}
    library = Library(tuple(ours), known, {})
    families, left_out = _families(library, query.experiments, ad_hoc=query.ad_hoc)
    settings = _settings(ours, families, query)
    shown = [
        (setting, kind, rows)
        for setting in settings
        for kind, rows in _rows(setting, query, families).items()
        if rows
    ]
    finished: dict[Setting, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for setting, _, rows in shown:
        for row in (row for row in rows if row.runs and not row.runs[0].ad_hoc):
            finished[setting][row.name].append(row)
    # Those shown may be compared with others that are not.
    wanted = {name for item in query.experiments for name in counterpart_names(item).values()}
    wanted |= {item.compare_with for item in query.experiments if item.compare_with}
    others = [known[name] for name in sorted(wanted) if name in known]
    for (setting, name, family), found in _families(library, others)[0].items():
        done = [run for run in found if run.done]
        if done and setting in finished and (setting, name, family) not in families:
            # Nothing is compared with one that cannot be read; where it is shown, it says why.
            with contextlib.suppress(RunError):
                finished[setting][name].append(done_row(name, done))
    pairs: list[RowPair] = []
    for setting, _, rows in shown if query.compared else ():
        done_rows = [row for row in rows if row.runs]
        first = next((row for row in done_rows if row.rank and row.scores), None)
        for row in done_rows:
            pairs += row_pairs(row, first, finished[setting], known)
    outcomes = compare_rows(pairs)
    tables = tuple(
        BoardTable(
            setting,
            kind,
            (
                *query.references(setting, tasks_of(kind)),
                *(_compared(it, outcomes.get(id(it), ())) for it in rows),
            ),
        )
        for setting, kind, rows in shown
    )
    drawn = any(setting.drawn for setting in settings)
    return Leaderboard(
        dataset=query.dataset,
        suite=" + ".join(suite.name for suite in query.suites) or None,
        suites={suite.name: suite.experiments for suite in query.suites},
        drawn=drawn,
        tables=tables,
        notes=(*query.notes, *left_out, *reading_notes(tables, families)),
        limits=limitations(ours),
    )


def _families(
    library: Library, experiments: Sequence[Experiment], *, ad_hoc: bool = False
) -> tuple[Families, list[str]]:
    """Give each run to the experiments it is a run of, and say which belong to none."""
    names = {item.name for item in experiments}
    changed = [run for run in library.runs if run.ad_hoc and run.name in names]
    families: dict[FamilyKey, list[Run]] = defaultdict(list)
    for item in experiments:
        mine = [run for run in changed if run.name == item.name] if ad_hoc else []
        for run in [*library.runs_of(item.name, any_split=True), *mine]:
            families[run.setting, item.name, run.record.family].append(run)
    owned = {run.record.identity for runs in families.values() for run in runs}
    older = Counter(
        run.name
        for run in library.runs
        if not run.ad_hoc and run.name in names and run.record.identity not in owned
    )
    notes = [f"{name}: {edited_after(name, count)}." for name, count in sorted(older.items())]
    if changed and not ad_hoc:
        n_changed = counted(len(changed), "ad-hoc run")
        notes.append(f"Left out: {n_changed}, changed on the command line.")
    return families, notes


def _settings(runs: Sequence[Run], families: Families, query: LeaderboardQuery) -> list[Setting]:
    """List the settings to show, the default protocol first: of runs, then of what was not run."""
    found = list(dict.fromkeys(setting for setting, _, _ in families))
    known = {(setting.protocol, setting.subset) for setting in found}
    drawn = any(run.setting.drawn for run in runs)
    for item in query.experiments:
        protocol, subset = item.protocol, item.subset and item.subset.people
        if (protocol, subset) not in known:
            known.add((protocol, subset))
            found.append(Setting(query.dataset, drawn, protocol.split, "", "", protocol, subset))
    return sorted(
        found,
        key=lambda setting: (
            setting.subset.label if setting.subset else "",
            setting.protocol != Protocol(),
            str(dataclasses.astuple(setting.protocol)),
            setting.split_digest,
            setting.pixel_digest,
        ),
    )


def _rows(setting: Setting, query: LeaderboardQuery, families: Families) -> dict[Kind, list[Row]]:
    """Make the rows of one setting by kind, ranked."""
    by_name: dict[str, dict[str, list[Run]]] = defaultdict(dict)
    for (where, name, family), runs in families.items():
        if where == setting:
            by_name[name][family] = runs
    rows: dict[Kind, list[Row]] = {kind: [] for kind in KINDS}
    for n_made, item in enumerate(query.experiments):
        query.watch("Making rows", n_made, len(query.experiments))
        kind: Kind = "mtl" if len(item.head.tasks) > 1 else item.head.tasks[0]
        ours = by_name.get(item.name, {})
        for _, runs in sorted(ours.items()):
            rows[kind].append(_row(item, runs, _differences(runs, ours, item)))
        subset = item.subset and item.subset.people
        if not ours and (setting.protocol, setting.subset) == (item.protocol, subset):
            rows[kind].append(_missing(item, query.missing.get(item.name, "not run")))
    return {kind: _ranked(ours) for kind, ours in rows.items()}


def _differences(
    runs: Sequence[Run], families: Mapping[str, Sequence[Run]], experiment: Experiment
) -> list[str]:
    """Say how a row differs from the definition, or from other rows of the same name."""
    run, firsts, said = runs[0], [others[0] for others in families.values()], []
    if run.ad_hoc:
        changes = changed_settings(experiment.as_dict(), run.definition)
        said.append("ad hoc: " + (", ".join(changes) or "as defined"))
    if len({first.trainer_version for first in firsts}) > 1:
        said.append(f"trainer version {run.trainer_version}")
    if len({first.weights_sha256 for first in firsts}) > 1:
        said.append(f"weights {str(run.weights_sha256)[:12]}")
    return said


def _missing(experiment: Experiment, *remarks: str) -> Row:
    definition, study = experiment.as_dict(), experiment.study
    return Row("missing", experiment.name, remarks=remarks, study=study, definition=definition)


def _row(experiment: Experiment, runs: Sequence[Run], differences: Sequence[str]) -> Row:
    """Make one experiment's row from its runs, finished or not."""
    done = [run for run in runs if run.done]
    unfinished = [f"seed {run.record.seed} {why_not_done(run)}" for run in runs if not run.done]
    if not done:
        return _missing(experiment, *unfinished, *differences)
    remarks = [*differences, *unfinished, *([ONE_SEED] if len(done) == 1 else [])]
    study = None if done[0].ad_hoc else experiment.study
    try:
        return done_row(experiment.name, done, remarks, study)
    except RunError as error:
        return _missing(experiment, str(error), *differences)


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Order rows by validation, best first; equal scores share a rank and stand by name.

    A row stopped by a red flag, or of one class, stands where its score puts it, without a rank,
    and takes none from the others.
    """

    scores = {id(row): round(row.val_combined or 0.0, RANK_DIGITS) for row in rows if row.runs}
    ranked = [scores[id(row)] for row in rows if row.runs and not (row.stopped or row.is_one_class)]
    done = sorted(
        (row for row in rows if row.runs),
        key=lambda row: (-scores[id(row)], row.name, row.identities),
    )
    return [
        *(
            row
            if row.stopped or row.is_one_class
            else dataclasses.replace(row, rank=1 + sum(s > scores[id(row)] for s in ranked))
            for row in done
        ),
        *(row for row in rows if not row.runs),
    ]


def _compared(row: Row, against: Sequence[RowComparison]) -> Row:
    """Give a row what came of its comparisons; ranked and not behind the first, it is tied."""
    tied = row.rank is not None and any(
        it.kind == "first" and (not it.judged.significant if it.judged else it.why == SHARED)
        for it in against
    )
    return dataclasses.replace(row, comparisons=against, tied=tied)


def reading_notes(tables: Sequence[BoardTable], families: Families) -> list[str]:
    """Say how the intervals, seeds and differences of these very tables are to be read."""
    rows = [row for table in tables for row in table.rows]
    done = [row for row in rows if row.status == "done"]
    outcomes = [outcome for row in rows for outcome in row.comparisons]
    judged = [outcome.judged for outcome in outcomes if outcome.judged]
    references = [row.name for row in rows if row.status == "reference"]
    one_seed = any(len(row.seeds) == 1 for row in done)
    shared = 0  # Test faces beyond the first of each cluster.
    for run in (run for runs in families.values() for run in runs if one_seed and run.done):
        with contextlib.suppress(RunError, KeyError):
            metrics = run.record.metrics
            shared = max(shared, int(metrics["test/n_faces"] - metrics["test/n_clusters"]))
    gaps = [
        Gap("LEAKY " * row.leaky + row.name, it.other, it.why, it.task)
        for row in rows for it in row.comparisons if it.why and it.kind != "first"
    ]  # fmt: skip
    notes: tuple[tuple[object, str], ...] = (
        (
            references and not any(name.startswith(LOGISTIC) for name in references),
            "No logistic regression beside the rows yet: `facebench leaderboard --fit-references` "
            "fits it once, on small pictures and on the frozen trunks of finished runs.",
        ),
        (
            one_seed,
            "Rows with one seed tell of that training alone and permit no claim about the "
            "experiment; their intervals are Wilson's. Where a side has one seed, one run is "
            "compared with one run, of the lowest seed that both have.",
        ),
        (
            shared,
            f"{shared} test faces are near-duplicates of others there; Wilson's interval counts "
            "them as independent and is a little too narrow.",
        ),
        (
            any(len(row.seeds) > 1 for row in done),
            "Rows with several seeds show mean ± sd over seeds; their intervals are a bootstrap "
            "of the seed-averaged correctness over clusters of test faces.",
        ),
        (
            any(table.kind == "mtl" for table in tables),
            "val is the combined validation accuracy, 0.4 age group + 0.2 gender + 0.4 race; "
            "in single-task tables it is the task's.",
        ),
        (
            judged,
            "Differences are a row minus the other on the same test faces, in percentage points, "
            f"with their 95 % interval. {family_text(judged)} Without it there is no significant "
            "difference, which does not mean that the two are equal.",
        ),
        (
            any(row.tied for row in rows),
            "= marks rows without a significant difference from the first of their table in its "
            "test score (combined, or the task's).",
        ),
        *((True, sentence) for sentence in gap_sentences(gaps)),
    )
    return [text for applies, text in notes if applies]
