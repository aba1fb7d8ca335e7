"""Leaderboards: which experiments stand in which table, in what order, and which were not run; and
how stable an experiment's numbers are over the five folds of the split.

Nothing here depends on the time or the machine, so that a leaderboard is byte-identical when
nothing changed.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Final, Literal

import pandas as pd

from benchmark.comparison import wording as words
from benchmark.comparison.library import Library, Run, Setting, counted, edited_after, why_not_done
from benchmark.comparison.pairs import RowPair, compare_rows, counterpart_names, row_pairs
from benchmark.comparison.references import LOGISTIC
from benchmark.comparison.rows import Outcome, Row, Unmeasured, done_row
from benchmark.comparison.statistics import PairResult
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.data.splits import N_FOLDS
from benchmark.errors import RunError
from benchmark.evaluation.predictions import limits_of
from benchmark.experiment.definition import Experiment, Protocol, Suite
from benchmark.experiment.parts import changed_settings
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

Kind = Literal["mtl", "age_group", "gender", "race"]
HEADINGS: Final[dict[Kind, str]] = {
    "mtl": "Three tasks, one network (MTL)",
    "age_group": "Age group alone (STL)",
    "gender": "Gender alone (STL)",
    "race": "Race alone (STL)",
}
KINDS: Final = tuple(HEADINGS)
ONE_SEED: Final = "one seed: no claim about the experiment"
RANK_DIGITS: Final = 9
"""Validation scores that agree to this many decimals are a tie."""

RunsByGroup = dict[str, dict[Setting, dict[str, list[Run]]]]
"""By experiment and setting, then by the identity without the seed: each makes a row."""


@dataclass(frozen=True)
class BoardTable:
    """Rows that may be compared: one setting, and networks for the same tasks."""

    setting: Setting
    kind: Kind
    rows: tuple[Row, ...]
    """Reference rows, then ranked experiments, then those not run, in the order asked for."""

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks that every network of the table predicts."""
        return TASKS if self.kind == "mtl" else (self.kind,)

    @property
    def worst_heading(self) -> str:
        return f"worst {TASK_TITLES[self.tasks[0]]} subgroup"


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
    """The limitations of these numbers; the same under every leaderboard."""
    suites: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Which experiments the suites asked for list."""
    replays: Mapping[str, Row] = field(default_factory=dict)
    """Of the study's rows: the same networks on its own leaking split, by the honest row's name."""

    @property
    def title(self) -> str:
        synthetic = "SYNTHETIC FACES · " * self.drawn
        suite = f"suite {self.suite}" if self.suite else "every experiment begun"
        return f"{synthetic}Leaderboard of {self.dataset} · {suite}"


@dataclass(frozen=True)
class LeaderboardQuery:
    """What a leaderboard shows, and what is known beside the runs."""

    experiments: Sequence[Experiment]
    """The rows, run or not; those not run stand in this order."""
    dataset: str
    suites: Sequence[Suite] = ()
    references: Callable[[Setting, tuple[TaskName, ...]], Sequence[Row]] = lambda *_: ()
    """Gives the reference rows of a table."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Which weights are not available, by the name of an experiment that needs them."""
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
    groups, left_out = _runs_by_group(library, query)
    tables = _tables(groups, query, drawn=any(run.setting.drawn for run in ours))
    outcomes = _comparisons(tables, library, query.experiments) if query.compared else {}
    for place, table in enumerate(tables):
        rows = [replace(row, comparisons=outcomes.get(id(row), ())) for row in table.rows]
        rows = [*query.references(table.setting, table.tasks), *rows]
        tables[place] = replace(table, rows=tuple(rows))
    return Leaderboard(
        dataset=query.dataset,
        suite=" + ".join(suite.name for suite in query.suites) or None,
        suites={suite.name: suite.experiments for suite in query.suites},
        drawn=any(table.setting.drawn for table in tables),
        tables=tuple(tables),
        notes=(*query.notes, *left_out, *_reading_notes(tables)),
        limits=limits_of(ours[0].record.about["dataset"] if ours else {}),
    )


def _comparisons(
    tables: Sequence[BoardTable], library: Library, experiments: Sequence[Experiment]
) -> Mapping[int, Sequence[Outcome]]:
    """Compare rows with each other, and with experiments that are not shown; by `id` of the row."""
    found: dict[Setting, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for table in tables:
        for row in table.rows:
            if row.runs and not row.runs[0].ad_hoc:
                found[table.setting][row.name].append(row)
    wanted = {name for item in experiments for name in counterpart_names(item).values()}
    wanted |= {item.compare_with for item in experiments if item.compare_with}
    for name in sorted(wanted & library.experiments.keys() - {item.name for item in experiments}):
        groups: dict[str, list[Run]] = defaultdict(list)
        for run in library.runs_of(name, any_split=True):
            if run.done and run.setting in found:
                groups[run.record.group_identity].append(run)
        for runs in groups.values():
            # Nothing is compared with one that cannot be read; where it is shown, it says why.
            with contextlib.suppress(RunError):
                found[runs[0].setting][name].append(done_row(name, runs))
    pairs: list[RowPair] = []
    for table in tables:
        first = next((row for row in table.rows if row.rank and row.scores), None)
        for row in table.rows:
            pairs += row_pairs(row, first, found[table.setting], library.experiments)
    return compare_rows(pairs)


def _runs_by_group(library: Library, query: LeaderboardQuery) -> tuple[RunsByGroup, list[str]]:
    """Give each run to the experiments it is a run of, and say which belong to none."""
    names, owned = [item.name for item in query.experiments], set[str]()
    groups: RunsByGroup = {name: defaultdict(lambda: defaultdict(list)) for name in names}
    for name in names:
        mine = [run for run in library.runs if run.ad_hoc and run.name == name and query.ad_hoc]
        for run in [*library.runs_of(name, any_split=True), *mine]:
            groups[name][run.setting][run.record.group_identity].append(run)
            owned.add(run.record.identity)
    left = [it for it in library.runs if it.name in groups and it.record.identity not in owned]
    older = Counter(run.name for run in left if not run.ad_hoc)
    notes = [f"{name}: {edited_after(name, count)}." for name, count in sorted(older.items())]
    if n_changed := sum(run.ad_hoc for run in left):
        n_runs = counted(n_changed, "ad-hoc run")
        notes.append(f"Left out: {n_runs}, changed on the command line.")
    return groups, notes


def _tables(groups: RunsByGroup, query: LeaderboardQuery, *, drawn: bool) -> list[BoardTable]:
    """Make the rows, a table for each setting and tasks, the default protocol first: settings of
    runs, and of what was not run."""
    asked = {(item.protocol, item.subset and item.subset.tested) for item in query.experiments}
    settings = list(dict.fromkeys(setting for found in groups.values() for setting in found))
    for protocol, subset in asked - {(setting.protocol, setting.subset) for setting in settings}:
        settings.append(Setting(query.dataset, drawn, protocol.split, "", "", protocol, subset))
    settings.sort(
        key=lambda it: (
            *(it.subset.label if it.subset else "", it.protocol != Protocol()),
            *(str(astuple(it.protocol)), it.split_digest, it.pixel_digest),
        )
    )
    rows: dict[tuple[Setting, str], list[Row]] = defaultdict(list)
    for n_made, item in enumerate(query.experiments):
        query.watch("Making rows", n_made, len(query.experiments))
        own = item.protocol, item.subset and item.subset.tested
        for setting in settings:
            found = groups[item.name].get(setting, {})
            ours = [_row(item, found, group) for group in sorted(found)]
            if not found and (setting.protocol, setting.subset) == own:
                no_weights = query.missing.get(item.name)
                why: Unmeasured = "not run (weights not available)" if no_weights else "not run"
                ours = [_unmeasured(item, why, no_weights or "not run")]
            rows[setting, item.task_label] += ours
    places = ((setting, kind) for setting in settings for kind in KINDS)
    return [BoardTable(*place, tuple(_ranked(rows[place]))) for place in places if rows[place]]


def _unmeasured(experiment: Experiment, why: Unmeasured, *remarks: str) -> Row:
    definition, study = experiment.as_dict(), experiment.study
    row = Row("missing", experiment.name, remarks=remarks, study=study, definition=definition)
    return replace(row, unmeasured=why)


def _row(experiment: Experiment, by_group: Mapping[str, Sequence[Run]], group: str) -> Row:
    """Make one experiment's row from a group's runs, finished or not; it says how it differs from
    the definition, or from other rows of the same name."""
    runs, firsts = by_group[group], [others[0] for others in by_group.values()]
    run, said = runs[0], []
    if run.ad_hoc:
        changes = changed_settings(experiment.as_dict(), run.definition)
        said.append(words.AD_HOC + (", ".join(changes) or "as defined"))
    if len({first.trainer_version for first in firsts}) > 1:
        said.append(f"trainer version {run.trainer_version}")
    if len({first.weights_sha256 for first in firsts}) > 1:
        said.append(f"weights {str(run.weights_sha256)[:12]}")
    done = [run for run in runs if run.done]
    unfinished = [f"seed {run.record.seed} {why_not_done(run)}" for run in runs if not run.done]
    if not done:
        return _unmeasured(experiment, "not finished", *unfinished, *said)
    remarks = [*said, *unfinished, *([ONE_SEED] if len(done) == 1 else [])]
    try:
        return done_row(experiment.name, done, remarks, None if run.ad_hoc else experiment.study)
    except RunError as error:
        return _unmeasured(experiment, "not finished", str(error), *said)


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Order rows by validation, best first; equal scores share a rank and stand by name.

    A row stopped by a red flag, or of one class, stands where its score puts it, without a rank,
    and takes none from the others.
    """

    def score(row: Row) -> float:
        return round(row.val_combined or 0.0, RANK_DIGITS)

    done = [row for row in rows if row.runs]
    done.sort(key=lambda row: (-score(row), row.name, row.identities))
    scores = [score(row) for row in done if not (row.stopped or row.is_one_class)]
    for place, row in enumerate(done):
        if not (row.stopped or row.is_one_class):
            done[place] = replace(row, rank=1 + scores.index(score(row)))
    return done + [row for row in rows if not row.runs]


def _reading_notes(tables: Sequence[BoardTable]) -> Iterator[str]:
    """Say how the intervals, seeds and differences of these very tables are to be read."""
    rows = [row for table in tables for row in table.rows]
    done = [row for row in rows if row.status == "done"]
    references = [row.name for row in rows if row.status == "reference"]
    if references and not any(name.startswith(LOGISTIC) for name in references):
        yield (
            "No logistic regression beside the rows yet: `facebench leaderboard --fit-references` "
            "fits it once, on small pictures and on the frozen backbones of finished runs."
        )
    if any(len(row.seeds) == 1 for row in done):
        yield (
            "A row with one seed describes a single training run and supports no claim about the "
            "experiment; its interval is Wilson's, which counts near-duplicate test faces as "
            "independent. Where a side has one seed, one run is compared with one run, of the "
            "lowest seed that both have."
        )
    if any(len(row.seeds) > 1 for row in done):
        yield (
            "Rows with several seeds show mean ± sd over seeds; their intervals are a bootstrap "
            "of the seed-averaged correctness over clusters of test faces."
        )
    if any(table.kind == "mtl" for table in tables):
        yield (
            "val. acc. is the weighted validation accuracy, 0.4 age group + 0.2 gender + 0.4 race; "
            "in single-task tables it is the task's."
        )
    outcomes = [outcome for row in rows for outcome in row.comparisons]
    if compared := [it for _, it in outcomes if isinstance(it, PairResult)]:
        yield (
            "Differences are a row minus the other on the same test faces, in percentage points, "
            f"with their 95 % interval. {words.family_text(compared)} Without it there is no "
            "significant difference, which does not mean that the two are equal."
        )
    if any(row.tied for row in rows):
        yield (
            "= marks rows without a significant difference from the first of their table in its "
            "test score (the weighted accuracy, or the task's)."
        )
    yield from words.gap_sentences(
        it for family, it in outcomes if isinstance(it, words.Gap) and family != "first"
    )


STABILITY_NUMBERS: Final = {
    "selected/val/combined": "val. acc.",
    **{f"test/{task}/accuracy": title for task, title in TASK_TITLES.items()},
    "test/combined": "weighted acc.",
}
"""What is shown of folds, by metric, with its heading; the first one ranks."""
STABILITY_NOTE: Final = (
    "Percent. Fixed: the 80/10/10 split, mean over seeds. Folds: mean ± sample sd over the five "
    "folds, each fold the mean over its seeds. Two folds share about two thirds of their training "
    "faces, so that the sd is no standard error. Ranks are by validation, among rows with both."
)


def stability_tables(
    runs: Iterable[Run], experiments: Sequence[Experiment]
) -> list[tuple[Setting, pd.DataFrame]]:
    """Compare each experiment over the five folds with its run group on the fixed split.

    Gives a table per setting (its protocol without a fold) and set of tasks; a row per experiment
    of which all folds or a part of them were run: name, tasks, n_folds, seeds (the fewest of a
    fold), fixed_seeds, then per number of STABILITY_NUMBERS NAME/fixed, NAME/mean and NAME/sd,
    rates in [0, 1], NaN where it does not exist: mean and sd need all five folds; last rank_fixed
    and rank_folds. Runs belong together that share all but seed and fold; of several such groups
    (other weight files, another trainer) that of most folds stands, then that of the newest
    trainer. Leaky, ad-hoc and unfinished runs are left out.
    """
    library = Library(tuple(runs), {item.name: item for item in experiments}, {})
    tables: dict[tuple[Setting, str], list[dict[str, Any]]] = defaultdict(list)
    for item in (item for item in experiments if item.protocol.fold is None):
        groups: dict[tuple[Setting, int, str], list[Run]] = defaultdict(list)
        for run in library.runs_of(item.name, any_fold=True):
            if run.done and not run.leaky:
                protocol = replace(run.setting.protocol, fold=None)
                setting = replace(run.setting, protocol=protocol)
                groups[setting, run.trainer_version, str(run.weights_sha256)].append(run)
        rows = [(key, _stability_row(item, ours)) for key, ours in groups.items()]
        rows.sort(key=lambda row: (row[1]["n_folds"], row[0][1]))
        best = {setting: row for (setting, *_), row in rows if row["n_folds"]}
        for setting, row in best.items():
            tables[setting, item.task_label].append(row)
    kinds: list[str] = [*KINDS]
    ordered = sorted(tables.items(), key=lambda item: (str(item[0][0]), kinds.index(item[0][1])))
    return [(setting, _with_fold_ranks(pd.DataFrame(rows))) for (setting, _), rows in ordered]


def _stability_row(experiment: Experiment, runs: Sequence[Run]) -> dict[str, Any]:
    metrics = [dict(run.record.metrics) for run in runs]
    numbers = pd.DataFrame(metrics, columns=list(STABILITY_NUMBERS))
    fold = pd.Series([run.setting.protocol.fold for run in runs], dtype="Int64")
    folds = numbers.groupby(fold).mean()
    whole = folds if len(folds) == N_FOLDS else folds.iloc[:0]
    ends = {
        "fixed": numbers[fold.isna()].mean(),
        "mean": whole.mean(skipna=False),
        "sd": whole.std(skipna=False),
    }
    return {
        "name": experiment.name,
        "tasks": "+".join(experiment.head.tasks),
        "n_folds": len(folds),
        "seeds": int(fold.value_counts().min()) if len(folds) else 0,
        "fixed_seeds": int(fold.isna().sum()),
        **{f"{name}/{end}": ends[end][name] for name in STABILITY_NUMBERS for end in ends},
    }


def _with_fold_ranks(table: pd.DataFrame) -> pd.DataFrame:
    """Rank the rows that have five folds and a fixed split by validation, best first."""
    ranked_by = next(iter(STABILITY_NUMBERS))
    both = table[[f"{ranked_by}/fixed", f"{ranked_by}/mean"]].dropna().round(RANK_DIGITS)
    table[["rank_fixed", "rank_folds"]] = both.rank(ascending=False, method="min")
    return table.sort_values(["rank_folds", "name"], kind="stable").reset_index(drop=True)


def stability_cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Write a table of stability_tables as headings and cells, in percent."""
    single = "+" not in str(table["tasks"].iloc[0])
    shown = {
        number: heading
        for number, heading in STABILITY_NUMBERS.items()
        if table[f"{number}/mean"].notna().any() and not (single and number == "test/combined")
    }
    heads = ["experiment", "rank: fixed → folds", "seeds: fixed / folds"]
    heads += [f"{heading}: fixed / folds" for heading in shown.values()]
    rows = []
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        rank = "{rank_fixed:.0f} → {rank_folds:.0f}"
        if row["rank_folds"] is None:
            some = row["n_folds"] < N_FOLDS
            rank = "{n_folds} of 5 folds" if some else "fixed split not run"
        cells = [row["name"], rank.format_map(row), f"{row['fixed_seeds']} / {row['seeds']}"]
        for number in shown:
            fixed, mean, sd = (row[f"{number}/{end}"] for end in ("fixed", "mean", "sd"))
            cells.append(f"{words.percent(fixed)} / {words.with_sd(mean, sd)}")
        rows.append(cells)
    return heads, rows
