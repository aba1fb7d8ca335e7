"""Leaderboards: tables, order, missing rows and notes.

Leaderboards: which experiments stand in which table, in what order, and which are missing.

Built from the runs' folders alone. Rows are computed in benchmark.comparison.rows. Nothing here
depends on the time or the machine, so that a leaderboard is byte-identical when nothing changed.

A leaderboard as plain values: tables of rows, and what a reader must know about them.

How it is built from runs is for benchmark.comparison.leaderboard.

What stands beneath a leaderboard's tables: how these very intervals, marks and rows are read.
"""

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmark.comparison.library import Run, Setting, Watch, read_runs, unwatched, why_not_done
from benchmark.comparison.pairs import (
    SHARED,
    RowPair,
    compare_rows,
    counterpart_names,
    row_pairs,
)
from benchmark.comparison.references import LOGISTIC
from benchmark.comparison.rows import (
    Draft,
    FamilyKey,
    Row,
    RowComparison,
    differences_of,
    draft_row,
    give_intervals,
    settings_of,
    sort_runs,
    subset_of,
)
from benchmark.comparison.verdicts import Gap, family_text, gap_sentences
from benchmark.errors import RunError
from benchmark.evaluation.predictions import LIMITS, LIMITS_DRAWN
from benchmark.evaluation.red_flags import RED_FLAG_ABOVE
from benchmark.experiment.definition import Experiment, Suite
from benchmark.record import RunRecord
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

Kind = Literal["mtl", "age_group", "gender", "race"]
KINDS: Final[tuple[Kind, ...]] = ("mtl", *TASKS)

HEADINGS: Final[dict[Kind, str]] = {
    "mtl": "Three tasks, one network (MTL)",
    "age_group": "Age group alone (STL)",
    "gender": "Gender alone (STL)",
    "race": "Race alone (STL)",
}

ONE_SEED: Final = "one seed: no claim about the experiment"


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
    suites: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Which experiments the suites asked for list."""
    narrowed: str = ""
    """By what rows were chosen or ordered since; empty for the whole, by rank."""

    def suites_of(self, name: str) -> tuple[str, ...]:
        """Name the suites asked for that list an experiment."""
        return tuple(suite for suite, names in self.suites.items() if name in names)


def tasks_of(kind: Kind) -> tuple[TaskName, ...]:
    """Name the tasks of a table's networks."""
    return TASKS if kind == "mtl" else (kind,)


def reading_notes(tables: Sequence[Table], families: Iterable[Sequence[Run]]) -> list[str]:
    """Say how the intervals and seeds of these very tables are to be read."""
    done = [row for table in tables for row in table.rows if row.status == "done"]
    notes = []
    if any(row.status != "reference" for table in tables for row in table.rows[:1]):
        notes.append("No majority-class row: the data set with this split is not prepared here.")
    elif not any(row.name.startswith(LOGISTIC) for table in tables for row in table.rows[:4]):
        notes.append(
            "No logistic regression beside the rows yet: `facebench leaderboard --fit-references` "
            "fits it once, on small pictures and on the frozen trunks of finished runs."
        )
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
    return [*notes, *_against_notes(tables), *_column_notes(done)]


def _against_notes(tables: Sequence[Table]) -> Iterator[str]:
    """Say how rows were set against each other, and who was missing there."""
    rows = [row for table in tables for row in table.rows]
    outcomes = [outcome for row in rows for outcome in row.comparisons]
    judged = [outcome.judged for outcome in outcomes if outcome.judged]
    if judged:
        yield (
            "Differences are a row minus the other on the same test faces, in percentage points, "
            f"with their 95 % interval. {family_text(judged)} Without it there is no significant "
            "difference, which does not mean that the two are equal."
        )
    if any(outcome.of_trainings_alone for outcome in outcomes):
        yield (
            "Where a side has one seed, one run met one run (the lowest seed that both have): "
            "that speaks of these trainings alone."
        )
    if any(row.tied for row in rows):
        yield (
            "= marks rows without a significant difference from the first of their table in its "
            "test score (combined, or the task's)."
        )
    yield from gap_sentences(
        [
            Gap(row.name, outcome.other, outcome.why, outcome.task)
            for row in rows
            for outcome in row.comparisons
            if outcome.why and outcome.kind != "first"
        ]
    )


def _column_notes(done: Sequence[Row]) -> Iterator[str]:
    if any(row.gap for row in done):
        yield (
            "Gap: the best-read group minus the worst-read one, by gender and race together (of "
            "the gender task by race, of the race task by gender), over groups of 30 faces or "
            "more; beside it what names drawn by lot would give. Over seeds, a mean."
        )
    if any(row.study for row in done):
        yield (
            "What the study printed was measured on a split that leaks: about 80 % of its test "
            "faces were training faces. It stands beside the row, and nothing is subtracted."
        )


def _faces_sharing_a_cluster(runs: Sequence[Run]) -> int:
    """Count the test faces beyond the first of each cluster, as the run's metrics tell."""
    try:
        metrics = [run.record.metrics for run in runs if run.record.state == "done"]
    except (RunError, KeyError):
        return 0
    counts = [m["test/n_faces"] - m["test/n_clusters"] for m in metrics if "test/n_clusters" in m]
    return int(max(counts, default=0))


RANK_DIGITS: Final = 9
"""Validation scores that agree to this many decimals are a tie."""

References = Callable[[Setting, tuple[TaskName, ...]], Sequence[Row]]
"""Gives the reference rows of a table, such as rows.majority_row of its training labels."""


def no_references(setting: Setting, tasks: tuple[TaskName, ...]) -> Sequence[Row]:
    """Give no reference rows."""
    return ()


@dataclass(frozen=True)
class Asked:
    """What a leaderboard is to show, and what is known beside the runs."""

    experiments: Sequence[Experiment]
    """The rows, run or not, in the order of those that are missing."""
    dataset: str
    suites: Sequence[Suite] = ()
    """Those asked for; none: every experiment that was begun."""
    references: References = no_references
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why an experiment could not be run, by name, such as weights that are not at hand."""
    known: Mapping[str, Experiment] = field(default_factory=dict)
    """Further definitions, whose rows others may be set against."""
    ad_hoc: bool = False
    compared: bool = True
    """Whether rows are set against others; not on a page that makes comparisons of its own."""
    notes: Sequence[str] = ()
    watch: Watch = unwatched

    @property
    def suite(self) -> str | None:
        """The suites' names, as a title has them."""
        return " + ".join(suite.name for suite in self.suites) or None


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
    """Arrange the runs of `experiments` on `dataset` in tables; see arrange.

    An experiment without a finished run is shown as missing, with the reason: `missing` may know
    one by name. Ad-hoc runs are shown only with `ad_hoc`.
    """
    names = tuple(experiment.name for experiment in experiments)
    suites = (Suite(suite, "Shown?", names),) if suite else ()
    runs, notes = read_runs(list(records))
    return arrange(
        runs,
        Asked(
            experiments, dataset, suites, references, missing or {}, ad_hoc=ad_hoc, notes=notes
        ),
    )  # fmt: skip


def arrange(runs: Iterable[Run], asked: Asked) -> Leaderboard:
    """Arrange runs in tables: of one setting, and of networks for the same tasks.

    A run belongs to an experiment when it was trained as that is defined now; runs of an older
    definition are left out and counted. Data sets, splits and protocols are never mixed.
    """
    ours = [run for run in runs if run.setting.dataset == asked.dataset]
    sorting = sort_runs(ours, asked.experiments, ad_hoc=asked.ad_hoc)
    settings = settings_of(ours, sorting.families, asked.experiments, asked.dataset)
    known = {**asked.known, **{item.name: item for item in asked.experiments}}
    wanted = {name for item in asked.experiments for name in counterpart_names(item).values()}
    wanted |= {item.compare_with for item in asked.experiments if item.compare_with}
    wanted -= {item.name for item in asked.experiments}
    others = [known[name] for name in sorted(wanted) if name in known]
    drafting = _Drafting(sorting.families, sort_runs(ours, others, ad_hoc=False).families)
    shown: list[tuple[Setting, Kind, Sequence[Row], list[Shown]]] = []
    pairs: list[RowPair] = []
    for setting in settings:
        rows = _rows(setting, asked, drafting)
        drafts = drafting.drafts(setting)
        for kind in KINDS:
            if rows[kind]:
                ranked = _ranked(rows[kind])
                shown.append((setting, kind, asked.references(setting, tasks_of(kind)), ranked))
                done = [row for row in ranked if isinstance(row, Draft)]
                first = next((item for item in done if item.row.rank and item.row.scores), None)
                for draft in done:
                    pairs += row_pairs(draft, first, drafts, known)
    outcomes = compare_rows(pairs) if asked.compared else {}
    tables = [
        Table(setting, kind, (*references, *(_compared(row, outcomes) for row in ranked)))
        for setting, kind, references, ranked in shown
    ]
    drawn = any(setting.drawn for setting in settings)
    notes = (*asked.notes, *sorting.notes, *reading_notes(tables, sorting.families.values()))
    return Leaderboard(
        dataset=asked.dataset,
        suite=asked.suite,
        suites={suite.name: suite.experiments for suite in asked.suites},
        drawn=drawn,
        tables=tuple(tables),
        notes=notes,
        limits=LIMITS_DRAWN + LIMITS if drawn else LIMITS,
    )


Shown = Draft | Row
"""A row with the runs behind it, or one that is missing."""


@dataclass
class _Drafting:
    """Makes each family's row once, whether it is shown or others are compared with it."""

    families: Mapping[FamilyKey, list[Run]]
    others: Mapping[FamilyKey, list[Run]]
    """Families of experiments that are not shown."""
    made: dict[FamilyKey, Draft] = field(default_factory=dict)

    def drafts(self, setting: Setting) -> Mapping[str, Sequence[Draft]]:
        """Give the rows of a setting that others may be compared with, by experiment."""
        for key, runs in self.others.items():
            done = [run for run in runs if run.done]
            if key[0] == setting and done:
                # Nothing is compared with one that cannot be read; where it is shown, it says why.
                with contextlib.suppress(RunError):
                    self.made[key] = draft_row(key[1], done)
        drafts: dict[str, list[Draft]] = defaultdict(list)
        for (where, name, _), draft in self.made.items():
            if where == setting and not draft.group.ad_hoc:
                drafts[name].append(draft)
        return drafts


def _rows(setting: Setting, asked: Asked, drafting: _Drafting) -> dict[Kind, list[Shown]]:
    """Make the rows of one setting by kind, in the order of the experiments."""
    by_name: dict[str, dict[str, list[Run]]] = defaultdict(dict)
    for (where, name, family), runs in drafting.families.items():
        if where == setting:
            by_name[name][family] = runs
    rows: dict[Kind, list[Shown]] = {kind: [] for kind in KINDS}
    for experiment in asked.experiments:
        kind: Kind = "mtl" if len(experiment.head.tasks) > 1 else experiment.head.tasks[0]
        ours = by_name.get(experiment.name, {})
        asked.watch("Making rows", len(drafting.made), len(drafting.families))
        for family, runs in sorted(ours.items()):
            row = _row(experiment, runs, differences_of(runs, ours, experiment))
            rows[kind].append(row)
            if isinstance(row, Draft):
                drafting.made[setting, experiment.name, family] = row
        here = (setting.protocol, setting.subset) == (experiment.protocol, subset_of(experiment))
        if not ours and here:
            reason = asked.missing.get(experiment.name, "not run")
            rows[kind].append(_missing(experiment, (reason,)))
    give_intervals([row for ours in rows.values() for row in ours if isinstance(row, Draft)])
    return rows


def _missing(experiment: Experiment, remarks: Sequence[str]) -> Row:
    return Row(
        "missing",
        experiment.name,
        remarks=tuple(remarks),
        study=experiment.study,
        definition=experiment.as_dict(),
    )


def _row(experiment: Experiment, runs: Sequence[Run], differences: Sequence[str]) -> Shown:
    """Make one experiment's row from its runs, finished or not."""
    done = [run for run in runs if run.record.state == "done"]
    unfinished = [why_not_done(run) for run in runs if run.record.state != "done"]
    if not done:
        return _missing(experiment, (*unfinished, *differences))
    remarks = [*differences, *unfinished]
    if len(done) == 1:
        remarks.append(ONE_SEED)
    study = None if done[0].ad_hoc else experiment.study
    try:
        draft = draft_row(experiment.name, done, remarks, study)
    except RunError as error:
        return _missing(experiment, (str(error), *differences))
    if not draft.row.scores:
        remarks = ["test was not read", *draft.row.remarks]
        draft.row = dataclasses.replace(draft.row, remarks=tuple(remarks))
    return draft


def _ranked(rows: Sequence[Shown]) -> list[Shown]:
    """Order rows by validation, best first; equal scores share a rank and stand by name.

    A stopped row stands where its score puts it, without a rank, and takes none from the others.
    """
    done = [draft for draft in rows if isinstance(draft, Draft)]
    places: dict[float, int] = {}
    for place, score in enumerate(
        sorted((_rank_score(d.row) for d in done if not d.row.stopped), reverse=True), start=1
    ):
        places.setdefault(score, place)
    for draft in done:
        rank = None if draft.row.stopped else places[_rank_score(draft.row)]
        draft.row = dataclasses.replace(draft.row, rank=rank)
    done.sort(key=lambda draft: (-_rank_score(draft.row), draft.row.name, draft.row.identities))
    return [*done, *(row for row in rows if isinstance(row, Row))]


def _rank_score(row: Row) -> float:
    return round(row.val_combined or 0.0, RANK_DIGITS)


def _compared(shown: Shown, outcomes: Mapping[int, tuple[RowComparison, ...]]) -> Row:
    """Give a row what came of its comparisons."""
    if isinstance(shown, Row):
        return shown
    found = outcomes.get(id(shown), ())
    tied = shown.row.rank is not None and any(map(_is_tie, found))
    shown.row = dataclasses.replace(shown.row, comparisons=found, tied=tied)
    return shown.row


def _is_tie(outcome: RowComparison) -> bool:
    same = outcome.judged is not None and not outcome.significant
    return outcome.kind == "first" and (same or outcome.why == SHARED)
