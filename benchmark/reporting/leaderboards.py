"""The leaderboards of the runs at hand: what is read, which rows are asked for, what is missing.

The command line and notebooks get theirs here. How a table comes about is for
benchmark.comparison.leaderboard; what a reference row is, for benchmark.comparison.references.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmark import registry
from benchmark.comparison.leaderboard import Asked, Leaderboard, arrange
from benchmark.comparison.library import (
    Run,
    Watch,
    counted,
    definition_key,
    read_runs,
    unwatched,
)
from benchmark.comparison.references import References
from benchmark.errors import RunError
from benchmark.evaluation.artifacts import RebuiltRecord
from benchmark.experiment.definition import Experiment, Suite
from benchmark.models.weight_manifest import stored_path
from benchmark.record import RunRecord, all_records
from benchmark.reporting.board_tables import latex, markdown, page
from benchmark.reporting.columns import csv_text, json_text

FORMATS: Final[dict[str, Callable[[Leaderboard], str]]] = {
    "md": markdown,
    "csv": csv_text,
    "tex": latex,
    "json": json_text,
    "html": page,
}
"""By the ending of its file."""


@dataclass(frozen=True)
class Places:
    """Where runs, data sets and weights are."""

    runs_dir: Path
    data_dir: Path
    weights_dir: Path


@dataclass
class RunsAtHand:
    """All runs that can be read, and what is to be said of the others."""

    runs: list[Run]
    notes: list[str]
    warnings: list[str] = field(default_factory=list)

    def datasets(self, asked: str | None, runs_dir: Path) -> list[str]:
        """Name the data sets to show: the one asked for, else all photographed ones, else drawn."""
        drawn = {run.setting.dataset: run.setting.drawn for run in self.runs}
        if not drawn:
            unread = f" ({'; '.join(self.notes)})" if self.notes else ""
            raise RunError(
                f"there is no run to show{unread}",
                source=str(runs_dir),
                fix="`facebench run --suite quick` makes some",
            )
        if asked is not None:
            return _asked_for(asked, sorted(drawn), runs_dir)
        photographed = sorted(name for name in drawn if not drawn[name])
        hidden = sorted(set(drawn) - set(photographed))
        if photographed and hidden:
            self.warnings.append(
                f"runs on drawn faces are not shown; --dataset {hidden[0]} shows them"
            )
        return photographed or hidden


def _asked_for(asked: str, datasets: Sequence[str], runs_dir: Path) -> list[str]:
    # `drawn` stands for drawn-100, as `utkface` does for utkface-100 and utkface-200.
    named = [name for name in datasets if name == asked or name.startswith(f"{asked}-")]
    if not named:
        raise RunError(
            f"no run is on the data set {asked!r}",
            allowed=", ".join(datasets),
            source=str(runs_dir),
        )
    return [asked] if asked in named else named


def runs_at_hand(
    runs_dir: Path, *, from_predictions: bool = False, watch: Watch = unwatched
) -> RunsAtHand:
    """Read every run that has begun.

    from_predictions: compute all numbers from the stored predictions, as is done in any case for a
    run that has lost its metrics.json; no file is changed.
    """
    records = list(all_records(runs_dir))
    read: list[RunRecord] = []
    for record in records:
        lost = not (record.folder / "metrics.json").is_file()
        again = (from_predictions or lost) and record.state == "done"
        read.append(RebuiltRecord(record.folder) if again else record)
    runs, notes = read_runs(read, watch)
    return RunsAtHand(runs, notes)


def leaderboards(
    at_hand: RunsAtHand,
    places: Places,
    suites: Sequence[str] = (),
    dataset: str | None = None,
    *,
    ad_hoc: bool = False,
    compared: bool = True,
    fitting: bool = False,
    watch: Watch = unwatched,
) -> list[Leaderboard]:
    """Build a leaderboard for each data set to show, of some suites or of all that was begun.

    compared: set rows against others. fitting: fit the logistic regressions that are missing, which
    may take minutes and is kept.
    """
    chosen = [registry.suite(name) for name in dict.fromkeys(suites)]
    references = References(places.runs_dir, places.data_dir, fitting, at_hand.runs, watch)
    boards = []
    for name in at_hand.datasets(dataset, places.runs_dir):
        ours = [run for run in at_hand.runs if run.setting.dataset == name]
        experiments, notes = _experiments(ours, chosen)
        asked = Asked(
            experiments,
            name,
            chosen,
            references=references.rows,
            missing=missing_weights(experiments, places.weights_dir),
            known=registry.experiments(),
            ad_hoc=ad_hoc,
            compared=compared,
            notes=(*at_hand.notes, *notes),
            watch=watch,
        )
        boards.append(arrange(ours, asked))
    return boards


def board_of(
    runs: Sequence[Run],
    experiments: Sequence[Experiment],
    dataset: str,
    places: Places,
    suites: Sequence[str] = (),
) -> Leaderboard:
    """Build the leaderboard of runs that were read already, with these experiments as rows."""
    references = References(places.runs_dir, places.data_dir, runs=runs)
    asked = Asked(
        experiments,
        dataset,
        [registry.suite(name) for name in suites],
        references=references.rows,
        missing=missing_weights(experiments, places.weights_dir),
        known=registry.experiments(),
    )
    return arrange(runs, asked)


def _experiments(
    runs: Sequence[Run], suites: Sequence[Suite]
) -> tuple[list[Experiment], list[str]]:
    """List the suites' experiments, each once, or every registered one that was begun."""
    if suites:
        names = dict.fromkeys(name for suite in suites for name in suite.experiments)
        return [registry.experiment(name) for name in names], []
    begun = {str(run.definition["name"]) for run in runs}
    definitions = {run.definition_key for run in runs if not run.ad_hoc}
    known = registry.experiments()
    shown = [
        item
        for item in known.values()
        if item.name in begun or definition_key(item.as_dict()) in definitions
    ]
    keys = {definition_key(item.as_dict()) for item in shown}
    strangers = {
        str(run.definition["name"])
        for run in runs
        if str(run.definition["name"]) not in known and run.definition_key not in keys
    }
    folds = registry.folds_of(strangers)
    notes = _strange(sorted(strangers - folds.keys()), runs)
    n_folds = sum(str(run.definition["name"]) in folds for run in runs)
    if n_folds:
        notes.append(f"Not shown: {counted(n_folds, 'run')} of single folds; --folds does.")
    return shown, notes


MOST_NAMES: Final = 5


def _strange(names: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Say which runs are of experiments that nobody defines here."""
    if not names:
        return []
    n_runs = sum(str(run.definition["name"]) in set(names) for run in runs)
    said = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    return [f"Left out: {counted(n_runs, 'run')} of experiments not registered here ({said})."]


def missing_weights(experiments: Sequence[Experiment], weights_dir: Path) -> Mapping[str, str]:
    """Say by experiment which weights are not at hand; whether a file is sound is for `run`."""
    starts = {
        item.name: (item.backbone.architecture, item.backbone.weights) for item in experiments
    }
    return {
        name: f"not measured: weights missing ({source} of {architecture}; "
        "`facebench weights list` says how to get them)"
        for name, (architecture, source) in starts.items()
        if source != "none"
        and not source.startswith("run:")
        and not stored_path(architecture, source, weights_dir).exists()
    }


def stem_of(board: Leaderboard) -> str:
    """Name the files of a leaderboard, without their ending."""
    suites = "+".join(board.suites) or board.suite or "all"
    part = "-part" if board.narrowed else ""
    return f"leaderboard-{board.dataset}-{suites}{part}"
