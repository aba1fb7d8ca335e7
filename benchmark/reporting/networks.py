"""What the report shows of networks by themselves: matrices, curves, stored tables, depths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from markupsafe import Markup

from benchmark.comparison import wording as words
from benchmark.comparison.leaderboard import HEADINGS
from benchmark.errors import RunError
from benchmark.evaluation.fairness import EQUALIZED_ODDS
from benchmark.evaluation.figures import BY_TITLES, COLOURS, INK
from benchmark.evaluation.intervals import confusion
from benchmark.evaluation.predictions import RunPredictions
from benchmark.experiment.architectures import architecture_named
from benchmark.experiment.definition import Experiment
from benchmark.reporting.evidence import Evidence, RankedNetwork
from benchmark.reporting.figures import (
    Line,
    Matrix,
    MatrixCell,
    PageFigure,
    heat_map,
    lines_panel,
    same_width,
)
from benchmark.reporting.tables import Cell, Table
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TASKS, TaskName, n_classes

MOST_NETWORKS: Final = 60
"""A page with more would not open at once."""
CURVE_SEEDS: Final = 5
"""Learning curves are drawn for so many seeds at most."""


@dataclass(frozen=True)
class NetworkSection:
    """All that the page shows of one network by itself."""

    name: str
    kind: str
    """The heading of the table that it stands in."""
    href: str
    matrices: tuple[Matrix, ...] = ()
    curves: tuple[Markup, ...] = ()
    trouble: str = ""
    """Why something is not shown."""


def network_sections(evidence: Evidence) -> Iterator[NetworkSection]:
    """Show every ranked network, or the best where there are too many; none that leaks."""
    ranked = (item for item in evidence.networks.values() if item.row.scores)
    best = sorted(ranked, key=lambda item: item.row.rank or MOST_NETWORKS)[:MOST_NETWORKS]
    for number, network in enumerate(best):
        matrices: list[Matrix] = []
        curves: tuple[Markup, ...] = ()
        trouble = []
        try:
            predictions = evidence.book.predictions(network.group)
            for task in network.group.tasks:
                matrices += [confusion_matrix(predictions, task), heat_map(predictions, task)]
        except RunError as error:
            trouble.append(str(error))
        try:
            curves = tuple(_curves(network, f"network-{number}"))
        except (RunError, KeyError, ValueError) as error:
            trouble.append(f"learning curves: {error}")
        href = evidence.links.of(network.group.identities)
        yield NetworkSection(
            network.name, HEADINGS[network.kind], href, tuple(matrices), curves, "; ".join(trouble)
        )


def confusion_matrix(predictions: RunPredictions, task: TaskName) -> Matrix:
    """Show the shares of each true class's faces by predicted class, averaged over seeds."""
    predictions = predictions.labelled(task)
    truth, names = predictions.faces[task].to_numpy(dtype=np.int64), CLASS_NAMES[task]
    each = [confusion(truth, one, n_classes(task)) for one in predictions.predicted[task]]
    counts = np.mean(each, axis=0)
    rows = []
    for at, name in enumerate(names):
        n = int(counts[at].sum())
        shares = counts[at] / n if n else None
        cells = (MatrixCell() for _ in names) if shares is None else (
            MatrixCell(f"{100 * share:.0f}", "", "right" if at == column else "share",
                       round(75 * float(share)))
            for column, share in enumerate(shares)
        )  # fmt: skip
        rows.append((f"{name} ({n:,})", tuple(cells)))
    title = f"{TASK_TITLES[task].capitalize()}: confusion matrix, % of the true class"
    caption = "Rows: the label, and its test faces; columns: predicted. Framed: correct."
    return Matrix(task, title, caption, names, tuple(rows))


def _curves(network: RankedNetwork, anchor: str) -> Iterator[Markup]:
    """Draw loss and each task's validation accuracy by epoch, a line per seed."""
    runs = network.group.runs[:CURVE_SEEDS]
    histories = {run.record.seed: run.record.history() for run in runs}
    panels = [("train/loss", "Training loss", INK)]
    panels += [
        (f"val/{task}/accuracy", f"{TASK_TITLES[task].capitalize()}: validation accuracy",
         COLOURS[task]) for task in network.group.tasks
    ]  # fmt: skip
    for number, (column, heading, colour) in enumerate(panels):
        lines = [
            Line(f"seed {seed}", history["epoch"].tolist(), history[column].tolist())
            for seed, history in histories.items()
            if column in history
        ]
        if lines:
            name, rates = f"{anchor}-{number}", number > 0
            yield lines_panel(name, heading, lines, x_title="epoch", colour=colour, rates=rates)


STORED: Final = (
    ("subgroup_rates", "differences of rates between subgroups", ("task", "by", "class"),
     "difference", "equalized odds, pp", 100.0),
    ("gender_gaps", "accuracy for women minus men", ("task", "within"), "difference",
     "women − men, pp", 100.0),
    ("age_edges", "age group by years from the nearest edge (14, 25, 40, 60)",
     ("years_from_edge", "n"), "accuracy", "accuracy, %", 100.0),
    ("age_years", "mean age of the predicted group as an estimate of age", ("read_as",),
     "mae_years", "mean absolute error, years", 1.0),
)  # fmt: skip
"""Tables of the runs' folders: file, caption, columns that name a row, the number's column with
`low` and `high` beside it, its heading and scale."""


def stored_tables(network: RankedNetwork) -> Iterator[Table]:
    """Average what the runs' folders keep; what an older facebench did not compute is left out."""
    for file, caption, keys, value, heading, scale in STORED:
        paths = [run.record.folder / f"{file}.csv" for run in network.group.runs]
        if not all(path.is_file() for path in paths):
            continue
        found = pd.concat([pd.read_csv(path, dtype=dict.fromkeys(keys, str)) for path in paths])
        if "rate" in found:
            found = found[found["rate"] == EQUALIZED_ODDS]
        if "read_as" in found:
            found = found[found["group"] == "all"]
        by_row = found.dropna(subset=[value]).groupby(list(keys), sort=False)
        tested = "p" in found
        means = scale * by_row[[value, "low", "high", *(["permuted"] if tested else [])]].mean()
        largest_p = by_row["p"].max().tolist() if tested else [None] * len(means)
        rows = []
        for names, numbers, p in zip(
            means.index.to_frame().to_numpy(), means.to_numpy(), largest_p, strict=True
        ):
            cells = [Cell(BY_TITLES.get(name, name)) for name in names]
            ends = f"{words.one_place(numbers[1])} to {words.one_place(numbers[2])}"
            cells.append(Cell(words.one_place(numbers[0]), ends, float(numbers[0])))
            if p is not None:
                cells.append(Cell(f"{numbers[3]:.1f}", value=float(numbers[3])))
                cells.append(Cell(words.p_text(p), value=float(p)))
            rows.append(cells)
        headings = [key.replace("_", " ") for key in keys]
        if rows:
            headings += [heading, *(("permuted", "p") if tested else ())]
            yield Table.of(headings, rows, f"{network.name}: {caption}")


def depth_figures(
    evidence: Evidence, groups: Sequence[Sequence[Experiment]]
) -> Iterator[PageFigure]:
    """Draw test accuracy by unfreezing depth, a line per group of networks that differ in it."""
    scored = {name: item.row.scores for name, item in evidence.networks.items()}
    if not groups:
        return
    place = {
        item.name: len(item.backbone.trained_stages)
        / len(architecture_named(item.backbone.architecture).stages)
        for group in groups for item in group
    }  # fmt: skip
    shown = {}
    for task in TASKS:
        lines = []
        for group in groups:
            known = [item for item in group if task in scored[item.name]]
            scores = [scored[item.name][task] for item in known]
            first = group[0]
            label = first.name.replace(f"-{first.backbone.depth_name}", "")
            lines += [Line(label, [place[item.name] for item in known],
                           [score.accuracy for score in scores], [score.low for score in scores],
                           [score.high for score in scores])] if known else []  # fmt: skip
        if lines:
            shown[task] = lines
    limits = same_width(
        [(min(min(line.lows) for line in lines), max(max(line.highs) for line in lines))
         for lines in shown.values()]
    )  # fmt: skip
    panels = tuple(
        lines_panel(
            f"depth-lines-{task}", TASK_TITLES[task].capitalize(), lines,
            x_title="share of stages trained", ticks={0.0: "frozen", 0.5: "half", 1.0: "full"},
            limits=ends,
        )
        for (task, lines), ends in zip(shown.items(), limits, strict=True)
    )  # fmt: skip
    caption = "Test accuracy with its 95 % interval, from a frozen backbone to a fully trained one."
    yield PageFigure("Accuracy by unfreezing depth", caption, panels)
