"""The five folds of an experiment: how stable its numbers are, and what they say of every label.

Suspects are kept in the folder of the run of fold 0, so that they go to MLflow with it.
"""

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from benchmark.comparison.cells import NOTHING, percent, with_sd
from benchmark.comparison.rows import Run, Setting, definition_key
from benchmark.comparison.run_groups import counts
from benchmark.errors import RunError
from benchmark.evaluation.artifacts import faces_of
from benchmark.evaluation.figures import Caption, contact_sheet, write_png
from benchmark.evaluation.predictions import check_faces, read_predictions
from benchmark.evaluation.suspects import N_FOLDS, label_suspects, out_of_fold
from benchmark.experiment.definition import Experiment
from benchmark.files import canonical_json, write_text
from benchmark.tasks import TASK_TITLES, TASKS

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

TABLE: Final = "label_suspects_out_of_fold.csv"
SHEET: Final = "label_suspects_out_of_fold.png"


@dataclass(frozen=True)
class FoldRuns:
    """The finished runs of one experiment and seed over the folds of one data set."""

    by_fold: Mapping[int, Run]

    @property
    def name(self) -> str:
        """Name of the experiment of the first fold there is, and the seed."""
        first = self.by_fold[min(self.by_fold)]
        return f"{first.record.experiment_name}, seed {first.record.seed}"

    @property
    def is_whole(self) -> bool:
        """Whether all five folds are there."""
        return set(self.by_fold) == set(range(N_FOLDS))


def fold_runs(runs: Iterable[Run]) -> list[FoldRuns]:
    """Put together the finished runs that differ in nothing but the fold."""
    found: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        fold = run.setting.protocol.fold
        if run.record.state == "done" and fold is not None:
            found[_key(run)][fold] = run
    return [FoldRuns(by_fold) for _, by_fold in sorted(found.items())]


def _key(run: Run) -> str:
    """Give what runs over folds share, as comparable text."""
    about = run.about
    definition = {
        part: about["experiment"].get(part) for part in ("backbone", "head", "recipe", "subset")
    }
    protocol = dataclasses.replace(run.setting.protocol, fold=None)
    return canonical_json(
        {
            **definition,
            "protocol": dataclasses.asdict(protocol),
            "dataset": [run.setting.dataset, run.setting.split_digest, run.setting.pixel_digest],
            "weights": (about.get("weights") or {}).get("sha256"),
            "trainer_version": about.get("trainer_version"),
            "seed": run.record.seed,
            "ad_hoc": run.definition["name"] if run.ad_hoc else None,
        }
    )


def write_suspects(folds: FoldRuns, prepared: Iterable["FaceSet"] = ()) -> pd.DataFrame:
    """Write the suspects of all five folds into the folder of fold 0, and give them.

    prepared: data sets at hand; with the runs' own, a contact sheet is written too. Raises RunError
    where a fold is missing or the folds do not hold each face once.
    """
    tables = {}
    for fold, run in folds.by_fold.items():
        path = run.record.predictions_path
        tables[fold] = read_predictions(path)
        check_faces(tables[fold], run.about["dataset"]["counts"], source=str(path))
    n_placed = {sum(run.about["dataset"]["counts"].values()) for run in folds.by_fold.values()}
    if len(n_placed) > 1:
        raise RunError(f"the folds of {folds.name} are not of the same faces")
    suspects = label_suspects(out_of_fold(tables, *n_placed))
    record = folds.by_fold[0].record
    write_text(record.folder / TABLE, suspects.to_csv(index=False))
    run_faces = faces_of(record, prepared)
    if run_faces is not None:
        faces = run_faces.faces
        caption = Caption(f"{folds.name}, out of fold", faces.name, faces.drawn)
        write_png(record.folder / SHEET, contact_sheet(suspects, run_faces.pictures, caption))
    return suspects


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
    found = [run for run in runs if counts(run)]
    for experiment in experiments:
        keys = {definition_key(experiment.as_dict()): FIXED}
        if experiment.protocol.fold is None and not experiment.protocol.leaky:
            keys |= {
                definition_key(experiment.in_fold(fold).as_dict()): fold for fold in range(N_FOLDS)
            }
        groups: dict[tuple[Any, ...], dict[int, list[Run]]] = defaultdict(dict)
        for run in found:
            if run.definition_key in keys:
                place = keys[run.definition_key]
                groups[_group_key(run)].setdefault(place, []).append(run)
        by_setting: dict[Setting, list[tuple[int, int, dict[int, list[Run]]]]] = defaultdict(list)
        for (setting, trainer, _), by_fold in groups.items():
            if n_folds := len(by_fold.keys() - {FIXED}):
                by_setting[setting].append((n_folds, trainer, by_fold))
        for setting, candidates in by_setting.items():
            _, _, by_fold = max(candidates, key=lambda item: item[:2])
            kind = experiment.task_label
            tables[setting, kind].append(_stability_row(experiment, by_fold))
    kinds = ["mtl", *TASKS]
    ordered = sorted(tables.items(), key=lambda item: (str(item[0][0]), kinds.index(item[0][1])))
    return [(setting, _with_ranks(pd.DataFrame(rows))) for (setting, _), rows in ordered]


def _group_key(run: Run) -> tuple[Setting, int, str]:
    """Give what runs over seeds and folds share besides the definition."""
    protocol = dataclasses.replace(run.setting.protocol, fold=None)
    setting = dataclasses.replace(run.setting, protocol=protocol)
    weights = str((run.about.get("weights") or {}).get("sha256"))
    return setting, int(run.about.get("trainer_version", 0)), weights


def _stability_row(experiment: Experiment, by_fold: Mapping[int, Sequence[Run]]) -> dict[str, Any]:
    folds = [runs for fold, runs in sorted(by_fold.items()) if fold != FIXED]
    row: dict[str, Any] = {
        "name": experiment.name,
        "tasks": "+".join(experiment.head.tasks),
        "n_folds": len(folds),
        "seeds": min(len(runs) for runs in folds),
        "fixed_seeds": len(by_fold.get(FIXED, ())),
    }
    for number in STABILITY_NUMBERS:
        fixed = _mean_of(number, by_fold.get(FIXED, ()))
        means = [_mean_of(number, runs) for runs in folds]
        whole = len(means) == N_FOLDS and not np.isnan(means).any()
        row[f"{number}/fixed"] = fixed
        row[f"{number}/mean"] = statistics.fmean(means) if whole else np.nan
        row[f"{number}/sd"] = statistics.stdev(means) if whole else np.nan
        if number == STABILITY_NUMBERS[0]:
            row["by_fold"] = means if whole else None
    return row


def _mean_of(number: str, runs: Sequence[Run]) -> float:
    values = [run.record.metrics.get(number, np.nan) for run in runs]
    return statistics.fmean(values) if values else np.nan


def _with_ranks(table: pd.DataFrame) -> pd.DataFrame:
    """Rank the rows that have five folds and a fixed split by validation, best first."""
    ranked_by = STABILITY_NUMBERS[0]
    both = table[table["by_fold"].notna() & table[f"{ranked_by}/fixed"].notna()]
    columns = {
        "rank_fixed": both[f"{ranked_by}/fixed"], "rank_folds": both[f"{ranked_by}/mean"],
    }  # fmt: skip
    ranks = {name: _ranks(values) for name, values in columns.items()}
    per_fold = pd.DataFrame(both["by_fold"].tolist(), index=both.index).apply(_ranks)
    ranks |= {"rank_lowest": per_fold.min(axis=1), "rank_highest": per_fold.max(axis=1)}
    ranked = table.drop(columns="by_fold").assign(
        **{name: values.reindex(table.index) for name, values in ranks.items()}
    )
    return ranked.sort_values(["rank_folds", "name"], kind="stable").reset_index(drop=True)


def _ranks(scores: "pd.Series[float]") -> "pd.Series[float]":
    return scores.round(9).rank(ascending=False, method="min")


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
