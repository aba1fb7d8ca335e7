"""The Python API of a notebook: leaderboards and runs as typed objects and pandas tables.

    from benchmark import leaderboard, load_run

Nothing here trains, prints or writes; `facebench` does the same and more from a command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from PIL import Image

from benchmark import registry
from benchmark.comparison.leaderboard import Leaderboard
from benchmark.comparison.library import Run, RunGroup, read_run
from benchmark.comparison.rows import Row
from benchmark.errors import RunError
from benchmark.evaluation.predictions import read_predictions
from benchmark.reporting.board_tables import markdown, page
from benchmark.reporting.columns import FIELDS, flat_rows
from benchmark.reporting.leaderboards import available_runs, leaderboards
from benchmark.tasks import CLASS_NAMES, TaskName

if TYPE_CHECKING:
    from benchmark.inference.load import TrainedNetwork

PathLike = Path | str
FigureName = Literal["curves", "confusion", "subgroups", "reliability"]


@dataclass(frozen=True)
class Board:
    """A leaderboard: as typed rows, as one pandas table, as text."""

    leaderboard: Leaderboard

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all its tables, best on validation first within each."""
        return tuple(row for table in self.leaderboard.tables for row in table.rows)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every row with every column; rates as fractions, missing values as missing."""
        types = {"count": "Int64", "rate": "float64", "number": "float64"}
        frame = pd.DataFrame(list(flat_rows(self.leaderboard)), columns=list(FIELDS))
        return frame.astype({n: types[kind] for n, kind in FIELDS.items() if kind in types})

    def markdown(self) -> str:
        """The tables as GitHub Markdown; a notebook shows them so."""
        return markdown(self.leaderboard)

    def html(self) -> str:
        """One HTML page that needs nothing else."""
        return page(self.leaderboard)

    _repr_markdown_ = markdown

    def __repr__(self) -> str:
        return f"<leaderboard of {self.leaderboard.dataset}: {len(self.rows)} rows>"


def leaderboard(
    *suites: str,
    dataset: str | None = None,
    ad_hoc: bool = False,
    from_predictions: bool = False,
    runs_dir: PathLike = "mlruns",
    data_dir: PathLike = "data",
    weights_dir: PathLike | None = None,
) -> Board:
    """Build the leaderboard of some suites, or of every experiment that was begun.

    suites: their names; none: every experiment with runs. dataset: needed where runs are on
    several data sets. ad_hoc: add runs that were changed on the command line. from_predictions:
    compute all numbers again from the stored predictions. runs_dir, data_dir, weights_dir: where
    runs, prepared data sets and converted weights are; weights in `data_dir/weights` if left out.

    A Board's `.table` is a pandas DataFrame, its `.rows` are typed; it shows itself in a notebook.
    Raises RunError where there is no run, or where runs are on several data sets.
    """
    runs = available_runs(Path(runs_dir), from_predictions=from_predictions)
    data, weights = Path(data_dir), Path(weights_dir) if weights_dir else None
    with registry.with_tuned(runs.runs_dir):
        boards = leaderboards(runs, data, suites, dataset, ad_hoc=ad_hoc, weights_dir=weights)
    if len(boards) > 1:
        found, there = f"there are runs on {len(boards)} data sets", [it.dataset for it in boards]
        raise RunError(found, allowed=", ".join(there), fix="Name one with dataset=")
    return Board(boards[0])


class FinishedRun:
    """A finished run: what it is, and its numbers as pandas tables.

    identity: its sha256, by which its folder is named. name: the experiment that it was begun as.
    dataset: what it was trained, selected and tested on. definition: as it was run. tasks: what it
    predicts.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.identity, self.name, self.seed = run.record.identity, run.name, run.record.seed
        self.dataset = run.setting.dataset
        self.definition: Mapping[str, Any] = run.definition
        self.tasks: tuple[TaskName, ...] = RunGroup(run.name, (run,)).tasks

    @cached_property
    def metrics(self) -> "pd.Series[float]":
        """Every number by its name, `test/gender/accuracy`."""
        return pd.Series(dict(self.run.record.metrics), dtype="float64", name=self.name)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        return self.run.record.history()

    @cached_property
    def subgroups(self) -> pd.DataFrame:
        """Accuracy of every task in every subgroup, with count and interval."""
        return self.run.record.subgroups()

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Every validation and test face: true and predicted classes, probabilities."""
        return read_predictions(self.run.record.predictions_path)

    def confusion(self, task: TaskName) -> pd.DataFrame:
        """Count test faces by true class (rows) and predicted class (columns)."""
        if task not in self.tasks:
            raise RunError(f"{self.name} does not predict {task!r}", allowed=", ".join(self.tasks))
        test = self.predictions.query("part == 'test'")
        codes, names = test[[task, f"{task}_pred"]].to_numpy().T, pd.Index(CLASS_NAMES[task])
        true, predicted = (pd.Categorical.from_codes(each, names) for each in codes)
        rows, columns = [f"true {task}"], [f"predicted {task}"]
        return pd.crosstab(true, predicted, rownames=rows, colnames=columns, dropna=False)

    def figure(self, name: FigureName) -> Image.Image:
        """Open a figure that the run wrote; raise RunError where it is not in its folder.

        `curves` by epoch, `confusion` matrices, accuracy by `subgroups`, `reliability`.
        """
        folder = self.run.record.folder
        path = folder / f"{name}.png"
        if not path.is_file():
            there = ", ".join(sorted(item.stem for item in folder.glob("*.png")))
            raise RunError(f"{self.name} has no figure {name!r}", allowed=there, source=str(folder))
        with Image.open(path) as image:
            return image.copy()

    def network(self) -> "TrainedNetwork":
        """Load the trained network; raise WeightsError where its weights were not kept."""
        from benchmark.inference.load import load_trained

        return load_trained(self.run.record.folder / "model.safetensors")

    def __repr__(self) -> str:
        return f"<run {self.run.short_identity}: {self.name}, seed {self.seed}, on {self.dataset}>"


def load_run(
    what: str,
    *,
    seed: int | None = None,
    dataset: str | None = None,
    runs_dir: PathLike = "mlruns",
) -> FinishedRun:
    """Load a finished run: its metrics, history, subgroups, predictions, figures and network.

    what: a run's id (8 digits or more), or the name of an experiment, which means its runs as it is
    defined now. seed, dataset: which of them. runs_dir: where runs are. Raises RunError where there
    is no such run, or more than one.
    """
    with registry.with_tuned(Path(runs_dir)):
        found = [
            read_run(record)
            for record in registry.finished_runs(what, Path(runs_dir))
            if seed in (None, record.seed) and dataset in (None, record.about["dataset"]["name"])
        ]
    if len(found) == 1:
        return FinishedRun(found[0])
    there = [f"{r.short_identity} (seed {r.record.seed}, {r.setting.dataset})" for r in found]
    allowed = ", ".join(there) or "a seed and a data set of one of its runs"
    fix = "Name one by its id" if found else "`facebench status --all` lists the runs"
    raise RunError(f"{what} has {len(found) or 'no'} such finished runs", allowed=allowed, fix=fix)
