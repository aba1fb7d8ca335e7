"""The leaderboards of the available runs: what is read, which rows are shown, which files written.

The command line and notebooks get theirs here. How a table comes about is for
benchmark.comparison.leaderboard; what a reference row is, for benchmark.comparison.references.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from benchmark import registry
from benchmark.comparison import library
from benchmark.comparison.leaderboard import Leaderboard, LeaderboardQuery, arrange
from benchmark.comparison.library import Run
from benchmark.comparison.references import References
from benchmark.comparison.rows import Row
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.errors import RunError, and_more
from benchmark.evaluation.artifacts import RebuiltRecord
from benchmark.experiment.definition import Experiment, definition_key
from benchmark.files import check_outputs, write_text
from benchmark.models.weight_manifest import stored_path
from benchmark.record import HOW_TO_RUN, all_records
from benchmark.reporting.board_tables import latex, markdown, page
from benchmark.reporting.columns import csv_text, json_text

FORMATS: Final[dict[str, Callable[[Leaderboard], str]]] = {
    "md": markdown, "csv": csv_text, "tex": latex, "json": json_text, "html": page,
}  # fmt: skip
"""By the ending of its file."""


@dataclass
class AvailableRuns:
    """All runs of a folder that can be read, and what is to be said of the others."""

    runs_dir: Path
    runs: list[Run]
    notes: list[str]
    warnings: list[str] = field(default_factory=list)

    def datasets(self, asked: str | None, *, ad_hoc: bool = False) -> list[str]:
        """Name the data sets to show: the one asked for, else photographs, else synthetic; those of
        ad-hoc runs if they are asked for, or alone."""
        meant = [it for it in self.runs if asked or ad_hoc or not it.ad_hoc] or self.runs
        drawn, source = {it.setting.dataset: it.setting.drawn for it in meant}, self.runs_dir
        if not drawn:
            unread = f" ({'; '.join(self.notes)})" if self.notes else ""
            raise RunError(f"there is no run to show{unread}", source=str(source), fix=HOW_TO_RUN)
        hidden = sorted(name for name, is_drawn in drawn.items() if is_drawn)
        photographed = sorted(drawn.keys() - hidden)
        if asked is not None:
            if named := library.named_dataset(asked, sorted(drawn)):
                return named
            found, there = f"no run is on the data set {asked!r}", ", ".join(sorted(drawn))
            raise RunError(found, allowed=there, source=str(source))
        if photographed and hidden:
            found = f"runs on synthetic faces are not shown; --dataset {hidden[0]} shows them"
            self.warnings.append(found)
        return photographed or hidden


def available_runs(
    runs_dir: Path, *, from_predictions: bool = False, watch: OnProgress = keep_quiet
) -> AvailableRuns:
    """Read every run that has begun.

    from_predictions: compute all numbers from the stored predictions, as is done in any case for a
    run that has lost its metrics.json; no file is changed.
    """
    read = []
    for record in all_records(runs_dir):
        again = from_predictions or not (record.folder / "metrics.json").is_file()
        rebuilt = again and record.state == "done"
        read.append(RebuiltRecord(record.folder) if rebuilt else record)
    return AvailableRuns(runs_dir, *library.read_runs(read, watch))


def leaderboards(
    available: AvailableRuns,
    data_dir: Path,
    suites: Sequence[str] = (),
    dataset: str | None = None,
    *,
    ad_hoc: bool = False,
    weights_dir: Path | None = None,
    compared: bool = True,
    fitting: bool = False,
    watch: OnProgress = keep_quiet,
) -> list[Leaderboard]:
    """Build a leaderboard for each data set to show, of some suites or of all that was begun.

    weights_dir: `data_dir/weights` if left out. compared: set rows against others. fitting: fit the
    logistic regressions not yet fitted, which may take minutes and is kept.
    """
    chosen = [registry.suite(name) for name in dict.fromkeys(suites)]
    references = References(available.runs_dir, data_dir, fitting, available.runs, watch)
    boards = []
    for name in available.datasets(dataset, ad_hoc=ad_hoc):
        ours = [run for run in available.runs if run.setting.dataset == name]
        wanted = dict.fromkeys(item for suite in chosen for item in suite.experiments)
        asked = [registry.experiment(item) for item in wanted]
        experiments, notes = (asked, []) if chosen else _begun(ours)
        query = LeaderboardQuery(
            experiments,
            name,
            chosen,
            references=references.rows,
            missing=missing_weights(experiments, weights_dir or data_dir / "weights"),
            known=registry.experiments(),
            ad_hoc=ad_hoc,
            compared=compared,
            notes=(*available.notes, *notes),
            watch=watch,
        )
        board = arrange(ours, query)
        replays = _replays(ours, query) if registry.is_of_the_study(experiments) else {}
        boards.append(dataclasses.replace(board, replays=replays))
    return boards


def _replays(runs: Sequence[Run], query: LeaderboardQuery) -> dict[str, Row]:
    """Give the finished rows of the study's own conditions, by the name of the honest row."""
    known = registry.experiments().values()
    leaky = {item.study.row: item for item in known if item.study and item.protocol.leaky}
    names = {
        leaky[item.study.row]: item.name
        for item in query.experiments
        if item.study and item.study.row in leaky and not item.protocol.leaky
    }
    board = arrange(runs, LeaderboardQuery([*names], query.dataset, compared=False))
    rows = {row.name: row for table in board.tables for row in table.rows if row.status == "done"}
    return {name: rows[item.name] for item, name in names.items() if item.name in rows}


def _begun(runs: Sequence[Run]) -> tuple[list[Experiment], list[str]]:
    """List every registered experiment that was begun; with notes on the runs of no such one."""
    known, begun = registry.experiments(), {run.name for run in runs}
    ours = {run.definition_key for run in runs if not run.ad_hoc}
    keys = {name: definition_key(item.as_dict()) for name, item in known.items()}
    shown = {name: item for name, item in known.items() if name in begun or keys[name] in ours}
    of_shown = {keys[name] for name in shown}
    others = [it.name for it in runs if it.name not in known and it.definition_key not in of_shown]
    folds, notes = registry.folds_of(set(others)), []
    if strange := [name for name in others if name not in folds]:
        left, said = library.counted(len(strange), "run"), and_more(sorted(set(strange)))
        notes.append(f"Left out: {left} of experiments not registered here ({said}).")
    if n_folds := sum(run.name in folds for run in runs):
        notes.append(f"Not shown: {library.counted(n_folds, 'run')} of single folds; --folds does.")
    return list(shown.values()), notes


def missing_weights(experiments: Sequence[Experiment], weights_dir: Path) -> Mapping[str, str]:
    """Say by experiment which weights are not available; whether a file is sound is for `run`."""
    found = {}
    for item in experiments:
        architecture, source = item.backbone.architecture, item.backbone.weights
        is_file = source != "none" and not source.startswith("run:")
        if is_file and not stored_path(architecture, source, weights_dir).exists():
            how = "`facebench weights list` says how to get them"
            found[item.name] = f"weights not available ({source} of {architecture}; {how})"
    return found


def write_board(board: Leaderboard, folder: Path, overwrite: bool = True) -> list[Path]:
    """Write a leaderboard in every format; give the files. Raises OSError."""
    suites = "+".join(board.suites) or board.suite or "all"
    files = [folder / f"leaderboard-{board.dataset}-{suites}.{ending}" for ending in FORMATS]
    check_outputs(files, overwrite=overwrite)

    def links(run: Run) -> tuple[tuple[str, str], ...]:
        """Give the way from the page to a run's folder, and to its card if it has one."""
        href = quote(os.path.relpath(run.record.folder, folder))
        card = (("card", f"{href}/card.md"),) if (run.record.folder / "card.md").is_file() else ()
        return (f"run of seed {run.record.seed}", f"{href}/"), *card

    for file, text in zip(files, FORMATS.values(), strict=True):
        write_text(file, page(board, links) if text is page else text(board))
    return files
