"""Leaderboards: which experiments stand in which table, in what order, and which are missing.

Built from the runs' folders alone. Rows are computed in benchmark.comparison.rows and set against
each other in benchmark.comparison.against. Nothing here depends on the time or the machine, so that
a leaderboard is byte-identical when nothing changed.
"""

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmark.comparison.library import Run, Setting, Watch, unwatched, why_not_done
from benchmark.comparison.pairs import SHARED, RowPair, compare_rows, counterpart_names, row_pairs
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
from benchmark.comparison.wording import Gap, family_text, gap_sentences
from benchmark.errors import RunError
from benchmark.evaluation.predictions import LIMITS_DRAWN, limits_of
from benchmark.evaluation.red_flags import RED_FLAG_ABOVE
from benchmark.experiment.definition import Experiment, Suite
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
    narrowed: str = ""
    """By what rows were chosen or ordered since; empty for the whole, by rank."""

    def suites_of(self, name: str) -> tuple[str, ...]:
        """Name the suites asked for that list an experiment."""
        return tuple(suite for suite, names in self.suites.items() if name in names)


def tasks_of(kind: Kind) -> tuple[TaskName, ...]:
    """Name the tasks of a table's networks."""
    return TASKS if kind == "mtl" else (kind,)


def reading_notes(tables: Sequence[BoardTable], families: Iterable[Sequence[Run]]) -> list[str]:
    """Say how the intervals, seeds and differences of these very tables are to be read."""
    rows = [row for table in tables for row in table.rows]
    done = [row for row in rows if row.status == "done"]
    outcomes = [outcome for row in rows for outcome in row.comparisons]
    judged = [outcome.judged for outcome in outcomes if outcome.judged]
    no_majority = any(row.status != "reference" for table in tables for row in table.rows[:1])
    regression = any(row.name.startswith(LOGISTIC) for table in tables for row in table.rows[:4])
    one_seed = any(len(row.seeds) == 1 for row in done)
    shared = max(map(_faces_sharing_a_cluster, families), default=0) if one_seed else 0
    limits = ", ".join(f"{100 * v:.0f} % ({TASK_TITLES[t]})" for t, v in RED_FLAG_ABOVE.items())
    gaps = [
        Gap("LEAKY " * row.leaky + row.name, outcome.other, outcome.why, outcome.task)
        for row in rows
        for outcome in row.comparisons
        if outcome.why and outcome.kind != "first"
    ]
    notes: tuple[tuple[object, str], ...] = (
        (no_majority, "No majority-class row: the data set with this split is not prepared here."),
        (
            not no_majority and not regression,
            "No logistic regression beside the rows yet: `facebench leaderboard --fit-references` "
            "fits it once, on small pictures and on the frozen trunks of finished runs.",
        ),
        (
            one_seed,
            "Rows with one seed tell of that training alone and permit no claim about the "
            "experiment; their intervals are Wilson's, over test faces.",
        ),
        (
            shared,
            f"{shared} test faces are near-duplicates of others there; Wilson's interval counts "
            "them as independent and is a little too narrow.",
        ),
        (
            any(row.red_flag for row in done),
            f"A row above {limits} on the leak-free UTKFace test is stopped: it stays, marked !, "
            "and is not ranked until somebody has looked for a leak and acknowledges it.",
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
            any(outcome.of_trainings_alone for outcome in outcomes),
            "Where a side has one seed, one run is compared with one run (the lowest seed that "
            "both have): that speaks of these trainings alone.",
        ),
        (
            any(row.tied for row in rows),
            "= marks rows without a significant difference from the first of their table in its "
            "test score (combined, or the task's).",
        ),
        *((True, sentence) for sentence in gap_sentences(gaps)),
        (
            any(row.gap for row in done),
            "Gap: the highest accuracy of a group minus the lowest, by gender and race together "
            "(of the gender task by race, of the race task by gender), over groups of 30 faces or "
            "more; beside it the gap expected under permutation of the groups. Over seeds, a mean.",
        ),
        (
            any(row.study for row in done),
            "What the study printed was measured on a split that leaks: about 80 % of its test "
            "faces were training faces. It stands beside the row, and nothing is subtracted.",
        ),
    )
    return [text for applies, text in notes if applies]


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
class LeaderboardQuery:
    """What a leaderboard shows, and what is known beside the runs."""

    experiments: Sequence[Experiment]
    """The rows, run or not, in the order of those that are missing."""
    dataset: str
    suites: Sequence[Suite] = ()
    """Those asked for; none: every experiment that was begun."""
    references: References = no_references
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why an experiment could not be run, by name, such as weights that are not available."""
    known: Mapping[str, Experiment] = field(default_factory=dict)
    """Further definitions, whose rows others may be set against."""
    ad_hoc: bool = False
    compared: bool = True
    """Whether rows are set against others; not on a page that makes comparisons of its own."""
    notes: Sequence[str] = ()
    watch: Watch = unwatched


def arrange(runs: Iterable[Run], query: LeaderboardQuery) -> Leaderboard:
    """Arrange runs in tables: of one setting, and of networks for the same tasks.

    A run belongs to an experiment when it was trained as that is defined now; runs of an older
    definition are left out and counted. Data sets, splits and protocols are never mixed.
    """
    ours = [run for run in runs if run.setting.dataset == query.dataset]
    sorting = sort_runs(ours, query.experiments, ad_hoc=query.ad_hoc)
    settings = settings_of(ours, sorting.families, query.experiments, query.dataset)
    known = {**query.known, **{item.name: item for item in query.experiments}}
    drafts: dict[FamilyKey, Draft] = {}
    shown = [
        (setting, kind, rows)
        for setting in settings
        for kind, rows in _rows(setting, query, sorting.families, drafts).items()
        if rows
    ]
    for key, found in _not_shown(ours, query.experiments, known, sorting.families).items():
        done = [run for run in found if run.done]
        if done:
            # Nothing is compared with one that cannot be read; where it is shown, it says why.
            with contextlib.suppress(RunError):
                drafts[key] = draft_row(key[1], done)
    pairs: list[RowPair] = []
    for setting, _, rows in shown:
        ranked = [row for row in rows if isinstance(row, Draft)]
        first = next((draft for draft in ranked if draft.row.rank and draft.row.scores), None)
        for draft in ranked:
            pairs += row_pairs(draft, first, _by_name(setting, drafts), known)
    outcomes = compare_rows(pairs) if query.compared else {}
    tables = tuple(
        BoardTable(
            setting,
            kind,
            (
                *query.references(setting, tasks_of(kind)),
                *(row if isinstance(row, Row) else _compared(row, outcomes) for row in rows),
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
        notes=(*query.notes, *sorting.notes, *reading_notes(tables, sorting.families.values())),
        limits=(LIMITS_DRAWN if drawn else ())
        + limits_of(next((run.record.about["dataset"] for run in ours), {})),
    )


Shown = Draft | Row
"""A row with the runs behind it, or one that is missing."""


def _not_shown(
    runs: Sequence[Run],
    experiments: Sequence[Experiment],
    known: Mapping[str, Experiment],
    shown: Mapping[FamilyKey, list[Run]],
) -> dict[FamilyKey, list[Run]]:
    """Sort the runs of experiments that are not shown, but that those shown are compared with."""
    wanted = {name for item in experiments for name in counterpart_names(item).values()}
    wanted |= {item.compare_with for item in experiments if item.compare_with}
    wanted -= {item.name for item in experiments}
    others = [known[name] for name in sorted(wanted) if name in known]
    settings = {setting for setting, _, _ in shown}
    found = sort_runs(runs, others, ad_hoc=False).families
    return {key: ours for key, ours in found.items() if key[0] in settings}


def _by_name(setting: Setting, drafts: Mapping[FamilyKey, Draft]) -> Mapping[str, list[Draft]]:
    """Give the rows of a setting that others may be set against, by experiment."""
    found: dict[str, list[Draft]] = defaultdict(list)
    for (where, name, _), draft in drafts.items():
        if where == setting and not draft.group.ad_hoc:
            found[name].append(draft)
    return found


def _rows(
    setting: Setting,
    query: LeaderboardQuery,
    families: Mapping[FamilyKey, list[Run]],
    drafts: dict[FamilyKey, Draft],
) -> dict[Kind, list[Shown]]:
    """Make the rows of one setting by kind, ranked; fill `drafts` with those that are finished."""
    by_name: dict[str, dict[str, list[Run]]] = defaultdict(dict)
    for (where, name, family), runs in families.items():
        if where == setting:
            by_name[name][family] = runs
    rows: dict[Kind, list[Shown]] = {kind: [] for kind in KINDS}
    for experiment in query.experiments:
        kind: Kind = "mtl" if len(experiment.head.tasks) > 1 else experiment.head.tasks[0]
        ours = by_name.get(experiment.name, {})
        query.watch("Making rows", len(drafts), len(families))
        for family, runs in sorted(ours.items()):
            row = _row(experiment, runs, differences_of(runs, ours, experiment))
            rows[kind].append(row)
            if isinstance(row, Draft):
                drafts[setting, experiment.name, family] = row
        here = (setting.protocol, setting.subset) == (experiment.protocol, subset_of(experiment))
        if not ours and here:
            rows[kind].append(_missing(experiment, query.missing.get(experiment.name, "not run")))
    give_intervals([row for ours in rows.values() for row in ours if isinstance(row, Draft)])
    return {kind: _ranked(ours) for kind, ours in rows.items()}


def _missing(experiment: Experiment, *remarks: str) -> Row:
    definition = experiment.as_dict()
    return Row(
        "missing", experiment.name, remarks=remarks, study=experiment.study, definition=definition
    )


def _row(experiment: Experiment, runs: Sequence[Run], differences: Sequence[str]) -> Shown:
    """Make one experiment's row from its runs, finished or not."""
    done = [run for run in runs if run.record.state == "done"]
    unfinished = [why_not_done(run) for run in runs if run.record.state != "done"]
    if not done:
        return _missing(experiment, *unfinished, *differences)
    remarks = [*differences, *unfinished, *([ONE_SEED] if len(done) == 1 else [])]
    study = None if done[0].ad_hoc else experiment.study
    try:
        draft = draft_row(experiment.name, done, remarks, study)
    except RunError as error:
        return _missing(experiment, str(error), *differences)
    if not draft.row.scores:
        remarks = ["test was not read", *draft.row.remarks]
        draft.row = dataclasses.replace(draft.row, remarks=tuple(remarks))
    return draft


def _ranked(rows: Sequence[Shown]) -> list[Shown]:
    """Order rows by validation, best first; equal scores share a rank and stand by name.

    A stopped row stands where its score puts it, without a rank, and takes none from the others.
    """
    done = [row for row in rows if isinstance(row, Draft)]
    scores = [_rank_score(draft.row) for draft in done if is_ranked(draft.row)]
    for draft in done:
        above = sum(score > _rank_score(draft.row) for score in scores)
        draft.row = dataclasses.replace(draft.row, rank=1 + above if is_ranked(draft.row) else None)
    done.sort(key=lambda draft: (-_rank_score(draft.row), draft.row.name, draft.row.identities))
    return [*done, *(row for row in rows if isinstance(row, Row))]


def is_ranked(row: Row) -> bool:
    """Tell whether a row has a rank: not one to be looked into, nor one that is always right."""
    return not (row.stopped or row.is_one_class)


def _rank_score(row: Row) -> float:
    return round(row.val_combined or 0.0, RANK_DIGITS)


def _compared(draft: Draft, outcomes: Mapping[int, tuple[RowComparison, ...]]) -> Row:
    """Give a row what came of its comparisons."""
    against = outcomes.get(id(draft), ())
    tied = draft.row.rank is not None and any(
        outcome.kind == "first"
        and (outcome.why == SHARED if outcome.judged is None else not outcome.significant)
        for outcome in against
    )
    return dataclasses.replace(draft.row, comparisons=against, tied=tied)
