"""The five folds of an experiment: how stable its numbers are."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmark.comparison.library import Library, Run, Setting
from benchmark.comparison.wording import NOTHING, percent, with_sd
from benchmark.data.splits import N_FOLDS
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TASK_TITLES, TASKS

STABILITY_NUMBERS: Final = (
    "selected/val/combined", *(f"test/{task}/accuracy" for task in TASKS), "test/combined",
)  # fmt: skip
STABILITY_NOTE: Final = (
    "Percent. Fixed: the 80/10/10 split, mean over seeds. Folds: mean ± sample sd over the five "
    "folds, each fold the mean over its seeds. Two folds share about two thirds of their training "
    "faces, so that the sd is no standard error. Ranks are by validation, among rows with both; in "
    "brackets the lowest and highest rank in a single fold."
)


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
    library = Library(tuple(runs), {item.name: item for item in experiments}, {})
    tables: dict[tuple[Setting, str], list[dict[str, Any]]] = defaultdict(list)
    for item in experiments:
        groups: dict[tuple[Setting, int, str], list[Run]] = defaultdict(list)
        for run in library.runs_of(item.name, any_fold=True) if item.protocol.fold is None else ():
            if run.done and not run.leaky:
                protocol = dataclasses.replace(run.setting.protocol, fold=None)
                setting = dataclasses.replace(run.setting, protocol=protocol)
                groups[setting, run.trainer_version, str(run.weights_sha256)].append(run)
        best: dict[Setting, tuple[int, int, list[Run]]] = {}
        for (setting, trainer, _), ours in groups.items():
            n_folds = len({run.setting.protocol.fold for run in ours} - {None})
            if n_folds and (n_folds, trainer) > best.get(setting, (0, 0))[:2]:
                best[setting] = n_folds, trainer, ours
        for setting, (_, _, ours) in best.items():
            tables[setting, item.task_label].append(_stability_row(item, ours))
    kinds = ["mtl", *TASKS]
    ordered = sorted(tables.items(), key=lambda item: (str(item[0][0]), kinds.index(item[0][1])))
    return [(setting, _with_ranks(pd.DataFrame(rows))) for (setting, _), rows in ordered]


def _stability_row(experiment: Experiment, runs: Sequence[Run]) -> dict[str, Any]:
    numbers = pd.DataFrame(
        [{name: run.record.metrics.get(name, np.nan) for name in STABILITY_NUMBERS} for run in runs]
    )
    fold = pd.Series([run.setting.protocol.fold for run in runs], dtype="Int64")
    folds = numbers.groupby(fold).mean()
    row: dict[str, Any] = {
        "name": experiment.name,
        "tasks": "+".join(experiment.head.tasks),
        "n_folds": len(folds),
        "seeds": int(fold.value_counts().min()),
        "fixed_seeds": int(fold.isna().sum()),
        "by_fold": folds[STABILITY_NUMBERS[0]].tolist() if len(folds) == N_FOLDS else None,
    }
    for name in STABILITY_NUMBERS:
        whole = len(folds) == N_FOLDS and folds[name].notna().all()
        row[f"{name}/fixed"] = numbers[name][fold.isna()].mean()
        row[f"{name}/mean"] = folds[name].mean() if whole else np.nan
        row[f"{name}/sd"] = folds[name].std() if whole else np.nan
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
    rows = []
    for row in table.to_dict("records"):
        rank = "{rank_fixed:.0f} → {rank_folds:.0f} ({rank_lowest:.0f}–{rank_highest:.0f})"
        if np.isnan(row["rank_folds"]):
            some = row["n_folds"] < N_FOLDS
            rank = "{n_folds} of 5 folds" if some else "fixed split not run"
        cells = [row["name"], rank.format_map(row), f"{row['fixed_seeds']} / {row['seeds']}"]
        for number in shown:
            fixed, mean, sd = (row[f"{number}/{end}"] for end in ("fixed", "mean", "sd"))
            folds = NOTHING if np.isnan(mean) else with_sd(mean, sd)
            cells.append(f"{NOTHING if np.isnan(fixed) else percent(fixed)} / {folds}")
        rows.append(cells)
    return heads, rows
