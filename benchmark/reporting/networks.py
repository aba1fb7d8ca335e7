"""What the report shows of one network by itself: matrices, heat maps and learning curves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup

from benchmark.comparison.leaderboard import HEADINGS
from benchmark.errors import RunError
from benchmark.evaluation.figures import COLOURS, INK
from benchmark.evaluation.intervals import confusion
from benchmark.evaluation.predictions import RunPredictions
from benchmark.reporting.evidence import Evidence, RankedNetwork
from benchmark.reporting.figures import Line, Matrix, MatrixCell, heat_map, lines_panel
from benchmark.tasks import CLASS_NAMES, TASK_TITLES, TaskName, n_classes

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
            predictions = evidence.book.answers(network.group)
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
            MatrixCell(f"{100 * share:.0f}", "", "right" if at == column else "",
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
