"""The five folds of an experiment: how stable its numbers are."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from benchmark.comparison.library import Run, Setting, definition_key
from benchmark.comparison.wording import NOTHING, percent, with_sd
from benchmark.data.splits import N_FOLDS
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TASK_TITLES, TASKS

if TYPE_CHECKING:
    pass

STABILITY_NUMBERS: Final = (
    "selected/val/combined", *(f"test/{task}/accuracy" for task in TASKS), "test/combined",
)  # fmt: skip
STABILITY_NOTE: Final = (
    "Percent. Fixed: the 80/10/10 split, mean over seeds. Folds: mean ± sample sd over the five "
    "folds, each fold the mean over its seeds. Every face is tested in one fold; two folds share "
    "about two thirds of their training faces, so that the sd says how much the split and the "
    "training matter, and is no standard error. Fixed and folds train on other numbers of faces "
    "(80 % and 70 %). Ranks are by validation, among rows with both; in brackets the lowest and "
    "highest rank in a single fold."
)
FIXED: Final = -1
"""Stands for the 80/10/10 split among the folds."""


def _any_fold(setting: Setting) -> Setting:
    protocol = dataclasses.replace(setting.protocol, fold=None)
    return dataclasses.replace(setting, protocol=protocol)


def stability_tables(
    runs: Iterable[Run], experiments: Sequence[Experiment]
) -> list[tuple[Setting, pd.DataFrame]]:
    """Compare each experiment over the five folds with its run group on the fixed split.

    Gives a table per setting (its protocol without a fold) and set of tasks; a row per experiment
    of which all folds or a part of them were run: name, tasks, n_folds, seeds (the fewest of a
    fold), fixed_seeds, then per number of STABILITY_NUMBERS NAME/fixed, NAME/mean and NAME/sd,
    rates in [0, 1], NaN where it does not exist: mean and sd need all five folds; last rank_fixed,
    rank_folds, rank_lowest and rank_highest. Runs belong together that share all but seed and fold;
    of several such groups (other weight files, another trainer) that of most folds stands, then
    that of the newest trainer. Leaky, ad-hoc and unfinished runs are left out.
    """
    tables: dict[tuple[Setting, str], list[dict[str, Any]]] = defaultdict(list)
    found = [run for run in runs if run.done and not run.ad_hoc and not run.leaky]
    for experiment in experiments:
        folds = {definition_key(experiment.as_dict()): FIXED}
        if experiment.protocol.fold is None and not experiment.protocol.leaky:
            folds |= {definition_key(experiment.in_fold(n).as_dict()): n for n in range(N_FOLDS)}
        groups: dict[tuple[Setting, int, str], dict[int, list[Run]]] = defaultdict(dict)
        for run in found:
            if (fold := folds.get(run.definition_key)) is not None:
                shared = _any_fold(run.setting), run.trainer_version, str(run.weights_sha256)
                groups[shared].setdefault(fold, []).append(run)
        best: dict[Setting, tuple[int, int, dict[int, list[Run]]]] = {}
        for (setting, trainer, _), by_fold in groups.items():
            n_folds = len(by_fold.keys() - {FIXED})
            if n_folds and (n_folds, trainer) > best.get(setting, (0, 0))[:2]:
                best[setting] = n_folds, trainer, by_fold
        for setting, (_, _, by_fold) in best.items():
            tables[setting, experiment.task_label].append(_stability_row(experiment, by_fold))
    kinds = ["mtl", *TASKS]
    ordered = sorted(tables.items(), key=lambda item: (str(item[0][0]), kinds.index(item[0][1])))
    return [(setting, _with_ranks(pd.DataFrame(rows))) for (setting, _), rows in ordered]


def _stability_row(experiment: Experiment, by_fold: Mapping[int, Sequence[Run]]) -> dict[str, Any]:
    fixed = by_fold.get(FIXED, ())
    folds = [runs for fold, runs in sorted(by_fold.items()) if fold != FIXED]
    row: dict[str, Any] = {
        "name": experiment.name,
        "tasks": "+".join(experiment.head.tasks),
        "n_folds": len(folds),
        "seeds": min(len(runs) for runs in folds),
        "fixed_seeds": len(fixed),
    }
    for number in STABILITY_NUMBERS:
        of_fixed, *means = (
            np.mean([run.record.metrics.get(number, np.nan) for run in runs] or [np.nan])
            for runs in (fixed, *folds)
        )
        whole = len(means) == N_FOLDS and not np.isnan(means).any()
        row[f"{number}/fixed"] = of_fixed
        row[f"{number}/mean"] = np.mean(means) if whole else np.nan
        row[f"{number}/sd"] = np.std(means, ddof=1) if whole else np.nan
        if number == STABILITY_NUMBERS[0]:
            row["by_fold"] = means if whole else None
    return row


def _with_ranks(table: pd.DataFrame) -> pd.DataFrame:
    """Rank the rows that have five folds and a fixed split by validation, best first."""
    ranked_by = STABILITY_NUMBERS[0]
    both = table[table["by_fold"].notna() & table[f"{ranked_by}/fixed"].notna()]
    scores = pd.DataFrame(both["by_fold"].tolist(), index=both.index)
    scores["fixed"], scores["folds"] = both[f"{ranked_by}/fixed"], both[f"{ranked_by}/mean"]
    ranks = scores.round(9).rank(ascending=False, method="min")
    per_fold = ranks.drop(columns=["fixed", "folds"])
    table["rank_fixed"], table["rank_folds"] = ranks["fixed"], ranks["folds"]
    table["rank_lowest"], table["rank_highest"] = per_fold.min(axis=1), per_fold.max(axis=1)
    ranked = table.drop(columns="by_fold")
    return ranked.sort_values(["rank_folds", "name"], kind="stable").reset_index(drop=True)


def stability_cells(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Write a table of stability_tables as headings and cells, in percent."""
    names = dict(zip(STABILITY_NUMBERS, ("val", *TASK_TITLES.values(), "combined"), strict=True))
    single = "+" not in str(table["tasks"].iloc[0])
    shown = [
        number
        for number in STABILITY_NUMBERS
        if table[f"{number}/mean"].notna().any() and not (single and number == "test/combined")
    ]
    heads = ["experiment", "rank: fixed → folds", "seeds: fixed / folds"]
    heads += [f"{names[number]}: fixed / folds" for number in shown]
    return heads, [list(_stability_line(row, shown)) for row in table.to_dict("records")]


def _stability_line(row: Mapping[Any, Any], shown: Sequence[str]) -> Iterator[str]:
    yield str(row["name"])
    if np.isnan(row["rank_folds"]):
        some = row["n_folds"] < N_FOLDS
        yield f"{row['n_folds']} of {N_FOLDS} folds" if some else "fixed split not run"
    else:
        ranks = [int(row[f"rank_{name}"]) for name in ("fixed", "folds", "lowest", "highest")]
        yield "{} → {} ({}–{})".format(*ranks)
    yield f"{row['fixed_seeds']} / {row['seeds']}"
    for number in shown:
        fixed, mean, sd = (row[f"{number}/{end}"] for end in ("fixed", "mean", "sd"))
        folds = NOTHING if np.isnan(mean) else with_sd(mean, sd)
        yield f"{NOTHING if np.isnan(fixed) else percent(fixed)} / {folds}"
