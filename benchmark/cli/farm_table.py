"""The heads of a farm side by side: what differs between them, and what came of it."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.table import Table

from benchmark.cli.output import out
from benchmark.results.record import RunRecord


@dataclass(frozen=True)
class HeadRow:
    """One head that is done; rates in [0, 1]. test: None where the test faces were not read."""

    experiment: str
    learning_rate: float
    weight_decay: float
    hidden_units: int
    conditioning: str
    seed: int
    ad_hoc: bool
    selected_epoch: int
    epochs: int
    validation: float
    test: float | None
    run: str
    family: str

    def as_dict(self) -> dict[str, Any]:
        """Give the row as plain JSON-able values."""
        return asdict(self)


SETTINGS: Final[dict[str, tuple[str, Callable[[HeadRow], str]]]] = {
    "experiment": ("experiment", lambda row: row.experiment),
    "learning_rate": ("rate", lambda row: f"{row.learning_rate:g}"),
    "weight_decay": ("decay", lambda row: f"{row.weight_decay:g}"),
    "hidden_units": ("width", lambda row: str(row.hidden_units)),
    "conditioning": ("conditioning", lambda row: row.conditioning),
    "seed": ("seed", lambda row: str(row.seed)),
}


def head_rows(records: Sequence[RunRecord]) -> list[HeadRow]:
    """Read finished runs, the best on validation first."""
    rows = []
    for record in records:
        definition, metrics = record.about["experiment"], record.metrics
        rows.append(
            HeadRow(
                experiment=record.experiment_name,
                learning_rate=definition["recipe"]["learning_rate"],
                weight_decay=definition["recipe"]["weight_decay"],
                hidden_units=definition["head"]["hidden_units"],
                conditioning=definition["head"]["conditioning"],
                seed=record.seed,
                ad_hoc=bool(record.about["ad_hoc"]),
                selected_epoch=int(record.done["selected_epoch"]),
                epochs=int(record.done["epochs"]),
                validation=metrics["selected/val/combined"],
                test=metrics.get("test/combined"),
                run=record.identity[:12],
                family=record.family,
            )
        )
    return sorted(rows, key=lambda row: -row.validation)


def print_heads(rows: Sequence[HeadRow], *, drawn: bool) -> None:
    """Print a line per head, the best marked; settings that all share stand above, once."""
    if not rows:
        return
    varied = {name: column for name, column in SETTINGS.items() if len({*map(column[1], rows)}) > 1}
    shared = [
        f"{title} {text(rows[0])}" for name, (title, text) in SETTINGS.items() if name not in varied
    ]
    names = list(dict.fromkeys(row.experiment for row in rows))
    title = "DRAWN FACES · " if drawn else ""
    out.print(f"\n[bold]{title}Heads by their combined accuracy on validation[/]")
    if shared:
        out.print(f"All: {', '.join(shared)}.", soft_wrap=False)
    if "experiment" in varied:
        for number, name in enumerate(names, start=1):
            out.print(f"{number:>3}  {name}")
        varied["experiment"] = ("of", lambda row: str(names.index(row.experiment) + 1))
    out.print()
    out.print(_table(rows, varied))
    for sentence in _sentences(rows):
        out.print(sentence)


def _table(
    rows: Sequence[HeadRow], varied: dict[str, tuple[str, Callable[[HeadRow], str]]]
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    with_test = any(row.test is not None for row in rows)
    heads = [*(title for title, _ in varied.values()), "epoch", "validation"]
    for head in [*heads, *(["test"] if with_test else [])]:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("run", no_wrap=True)
    best = rows[0].validation
    for row in rows:
        cells = [*(text(row) for _, text in varied.values()), str(row.selected_epoch)]
        cells.append(f"{row.validation:.2%}")
        if with_test:
            cells.append("–" if row.test is None else f"{row.test:.2%}")
        mark = " [green]best[/]" if row.validation == best else ""
        table.add_row(*cells, row.run + mark)
    return table


def _sentences(rows: Sequence[HeadRow]) -> list[str]:
    said = []
    families: dict[str, list[HeadRow]] = {}
    for row in rows:
        families.setdefault(row.family, []).append(row)
    n_seeds = max(map(len, families.values()))
    # Settings that some seeds failed on are not ranked by those that did well.
    whole = [group for group in families.values() if len(group) == n_seeds]
    if n_seeds > 1 and len(families) > 1:
        best = max(whole, key=lambda group: statistics.fmean(row.validation for row in group))
        scores = [row.validation for row in best]
        what = ", ".join(
            f"{title} {text(best[0])}"
            for name, (title, text) in SETTINGS.items()
            if name != "seed" and len({text(row) for row in rows}) > 1
        )
        said.append(
            f"Best over {n_seeds} seeds: {what}. Mean {statistics.fmean(scores):.2%}, standard "
            f"deviation {100 * statistics.stdev(scores):.2f} points."
        )
    if len(rows) > 1:
        said.append(f"The best of {len(rows)} on validation is flattered by having been chosen.")
    return said
