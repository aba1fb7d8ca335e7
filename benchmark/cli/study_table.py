"""The study's numbers beside ours in `facebench list`, and its rows replayed with their leak."""

from collections.abc import Mapping, Sequence
from typing import Final

from benchmark.cli.ours import MeanAccuracy, Ours
from benchmark.experiment.definition import Experiment
from benchmark.reporting.tables import NOTHING, Cell, Column, Table, TableRow
from benchmark.tasks import TASKS, TaskName

Accuracies = Mapping[str, Mapping[TaskName, MeanAccuracy]]
TASK_HEADS: Final[dict[TaskName, str]] = {"age_group": "age", "gender": "gender", "race": "race"}
NOT_COMPARABLE: Final = (
    "study: what the original printed, in percent. Its split leaks: four of five of its test faces "
    "were trained on. Its numbers and ours are not comparable."
)
LEGEND: Final = (
    f"{NOTHING}: the study printed no number, or no run of ours is finished. Empty: the network "
    "does not predict that task. age is age group."
)
REPLAYED: Final = (
    "LEAKY: four of five test faces of that split were trained on; such numbers rank nothing and "
    "are no measure of a network. leak-free: the same row on faces that it was not trained on; the "
    "difference is the leak's together with the study's other conditions (`facebench leak` takes "
    "one apart). One seed permits no claim."
)


def about_ours(ours: Ours) -> str:
    """Say what our numbers were measured on."""
    if ours.faces is None:
        return "ours: none of these is measured yet; `facebench run` does it."
    synthetic = ", SYNTHETIC FACES and not people" if ours.drawn else ""
    return (
        f"ours: mean test accuracy over seeds, in percent, on {ours.faces.dataset}{synthetic}. One "
        "seed permits no claim about an experiment; intervals are in `facebench leaderboard`."
    )


def study_table(experiments: Sequence[Experiment], ours: Ours, *, questions: bool) -> Table:
    """Set ours in parentheses beside or below the study's numbers, a row an experiment.

    Where nothing is measured ours are left out. questions: with research questions.
    """
    measured = ours.faces is not None
    columns = [Column("row", left=False), Column("experiment", left=True)]
    columns += [Column("rate/batch", left=True, below=True)]
    beside = ": study (ours)" if measured else ": study"
    columns += [Column(f"{TASK_HEADS[task]}{beside}", left=False) for task in TASKS]
    columns += [Column("seeds", True, "ours", below=True)]
    columns += [Column("research question", left=True, part="questions", fold=True)]
    rows: list[tuple[str | Cell, ...]] = []
    for item in experiments:
        printed = _rates(item, _printed(item), decimals=2)
        means = _rates(item, _means(item, ours.accuracies)) if measured else [""] * len(TASKS)
        rows.append(
            (
                item.study.row if item.study else NOTHING,
                item.name,
                rate_and_batch(item),
                *(Cell(text, note) for text, note in zip(printed, means, strict=True)),
                _seeds(item, ours.accuracies),
                item.asks,
            )
        )
    parts = [*(["ours"] if measured else []), *(["questions"] if questions else [])]
    return Table.of(columns, rows).keeping(parts)


def rate_and_batch(experiment: Experiment) -> str:
    """Write a learning rate and a batch size: `1e-4/32`."""
    mantissa, exponent = f"{experiment.recipe.learning_rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}/{experiment.recipe.batch_size}"


def is_replay(experiments: Sequence[Experiment]) -> bool:
    """Tell whether these are pairs: a row under the study's leaking protocol, then leak-free."""
    pairs = list(zip(experiments[::2], experiments[1::2], strict=False))
    return bool(pairs) and all(
        leaky.protocol.leaky
        and not honest.protocol.leaky
        and (leaky.backbone, leaky.head) == (honest.backbone, honest.head)
        for leaky, honest in pairs
    )


def replay_table(experiments: Sequence[Experiment], ours: Ours) -> Table:
    """Show of each pair what the study printed, its replay here, and the row without the leak."""
    rows = []
    for leaky, honest in zip(experiments[::2], experiments[1::2], strict=False):
        study = leaky.study or honest.study
        section = f"{study.row if study else NOTHING}  {honest.name}"
        for name, rates in (
            ("LEAKY · printed by the study", _rates(leaky, _printed(leaky), decimals=2)),
            (
                f"LEAKY · replayed here, {_seeds(leaky, ours.leaky)}",
                _rates(leaky, _means(leaky, ours.leaky)),
            ),
            (
                f"leak-free, {_seeds(honest, ours.accuracies)}",
                _rates(honest, _means(honest, ours.accuracies)),
            ),
        ):
            rows.append(TableRow((Cell(name), *map(Cell, rates)), section))
    headings = [Column(TASK_HEADS[task], left=False) for task in TASKS]
    return Table.of([Column("test accuracy, %", left=True), *headings], rows)


def _printed(experiment: Experiment) -> dict[TaskName, float | None]:
    return {task: getattr(experiment.study, task, None) for task in TASKS}


def _means(experiment: Experiment, found: Accuracies) -> dict[TaskName, float | None]:
    return {task: mean.mean for task, mean in found.get(experiment.name, {}).items()}


def _rates(
    experiment: Experiment, rates: Mapping[TaskName, float | None], *, decimals: int = 1
) -> list[str]:
    """Write rates in percent; what is missing is a dash, what is not predicted is empty."""
    texts = {task: f"{100 * rate:.{decimals}f}" for task, rate in rates.items() if rate is not None}
    return [texts.get(task, NOTHING) if task in experiment.head.tasks else "" for task in TASKS]


def _seeds(experiment: Experiment, found: Accuracies) -> str:
    n = max((len(mean.seeds) for mean in found.get(experiment.name, {}).values()), default=0)
    return f"{n} seed{'' if n == 1 else 's'}" if n else "not run"
