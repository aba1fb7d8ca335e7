"""`facebench list`: what is registered, the study's numbers beside ours; `show`: one in full.

`list` loads no torch.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.text import Text

from benchmark import registry
from benchmark.cli.library import Accuracies, Ours, gather
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    RunsDir,
    complete_experiment,
    complete_suite,
)
from benchmark.cli.output import out, print_table, speaking
from benchmark.errors import BenchmarkError, ExperimentError
from benchmark.experiment.architectures import architecture_named
from benchmark.experiment.definition import Augmentation, Experiment
from benchmark.record import all_records
from benchmark.reporting.tables import NOTHING, Cell, Column, Table, TableRow
from benchmark.tasks import TASK_TITLES, TASKS, TaskName

if TYPE_CHECKING:
    from benchmark.models.network import Network

NONE: Final = "–"
WIDTH_FOR_QUESTIONS: Final = 140
"""Columns of a terminal in which research questions stand beside the study's numbers."""
UTKFACE_TRAIN: Final = 19_000
"""About the training faces of UTKFace's leak-free split."""
QUESTION: Final = Column("research question", left=True, below=True, fold=True, least=50)

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


def list_(
    suite: Annotated[
        str | None,
        typer.Option(help="Only the experiments of this suite.", autocompletion=complete_suite),
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Only this architecture.")] = None,
    weights: Annotated[str | None, typer.Option(help="Only this weight source.")] = None,
    task: Annotated[str | None, typer.Option(help="age_group, gender, race or mtl.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Show our numbers on this data set; the only photographed if left out."),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """List experiments and suites; of the study's rows, its numbers beside ours.

    Examples:
      facebench list
      facebench list --suite study
      facebench list --architecture vgg16 --weights vggface --task mtl --json
    """
    with speaking("list", as_json=as_json) as answer:
        of_suite = list(registry.experiments_of(suite)) if suite else []
        chosen = of_suite or list(registry.experiments().values())
        wanted = _checked({"architecture": architecture, "weights": weights, "task": task})
        shown = [item for item in chosen if wanted.items() <= _summary(item).items()]
        compared, replay = registry.is_of_the_study(of_suite), is_replay(shown)
        ours = Ours()
        if compared or replay or as_json or dataset is not None:
            ours = gather(shown, dataset, runs_dir=runs_dir, data_dir=data_dir)
        answer.warnings += [*ours.notes, *map(str, registry.refused())]
        answer.data = _data(shown, ours)
        if as_json:
            return
        title = f"Suite {suite}" if suite else "Experiments"
        if not shown:
            out.print("No experiment fits.")
        elif replay:
            out.print(Text(f"LEAKY · {title}\n", style="bold"), Text(f"{REPLAYED} {LEGEND}\n"))
            print_table(replay_table(shown, ours))
        elif compared or ours.faces is not None:
            out.print(Text(f"{title}\n", style="bold"))
            out.print(Text(f"{NOT_COMPARABLE} {about_ours(ours)} {LEGEND}\n"))
            questions = out.width >= WIDTH_FOR_QUESTIONS
            print_table(study_table(shown, ours, questions=questions))
        else:
            rows = [(item.name, item.asks) for item in shown]
            print_table(Table.of(["experiment", QUESTION], rows, f"{title}\n"))
        costs = _Costs.read(runs_dir)
        if suite is None:
            lines = [
                (
                    s.name,
                    str(len(s.experiments)),
                    costs.text(registry.experiments_of(s.name)),
                    s.asks,
                )
                for s in registry.suites().values()
            ]
            out.print()
            print_table(Table.of(["suite", "experiments", costs.heading, QUESTION], lines))
            out.print(Text(f"\n{costs.legend}", style="dim"))
        elif shown:
            out.print(Text(f"\n{costs.heading}: {costs.text(shown)}. {costs.legend}", style="dim"))


@dataclass(frozen=True)
class _Costs:
    """What training takes: from finished runs, else from multiply-adds."""

    seconds: Mapping[str, float]
    """Of experiments that were run, on UTKFACE_TRAIN faces."""
    speed: float | None
    """Multiply-adds a second, over all finished runs; None where there is none."""

    @classmethod
    def read(cls, runs_dir: Path) -> "_Costs":
        """Read the finished runs of a folder."""
        found: dict[str, list[float]] = {}
        speeds = []
        for record in all_records(runs_dir):
            if record.state != "done":
                continue
            try:
                experiment = Experiment.from_dict(record.about["experiment"])
                n_train = int(record.about["dataset"]["counts"]["train"])
                seconds = float(record.done["seconds"])
            except (BenchmarkError, LookupError, TypeError, ValueError):
                continue  # The leaderboard says which runs cannot be read.
            if seconds > 0 and (operations := _operations(experiment, n_train)):
                speeds.append(operations / seconds)
                whole = _operations(experiment, UTKFACE_TRAIN)
                if experiment == registry.experiments().get(experiment.name):
                    found.setdefault(experiment.name, []).append(seconds * whole / operations)
        medians = {name: statistics.median(values) for name, values in found.items()}
        return cls(medians, statistics.median(speeds) if speeds else None)

    @property
    def heading(self) -> str:
        """What `text` gives."""
        return "time" if self.speed else "PMACs"

    @property
    def legend(self) -> str:
        """How it is to be read."""
        of = f"Of one seed on UTKFace's {UTKFACE_TRAIN:,} training faces"
        if self.speed:
            return (
                f"{of}, predicted from the finished runs here; `facebench run --dry-run` says more."
            )
        return f"{of}, in 10^15 multiply-adds; `facebench run --dry-run` predicts time and disk."

    def text(self, experiments: Iterable[Experiment]) -> str:
        """Sum up what experiments take."""
        items = list(experiments)
        operations = {item.name: _operations(item, UTKFACE_TRAIN) for item in items}
        if self.speed is None:
            return f"{sum(operations.values()) / 1e15:.2g}"
        seconds = sum(self.seconds.get(n, ops / self.speed) for n, ops in operations.items())
        if seconds < 5400:
            return f"{max(1, seconds / 60):.0f} min"
        return f"{seconds / 3600:.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:,.0f} days"


def _operations(experiment: Experiment, n_train: int) -> float:
    """Estimate a training's multiply-adds, a backward pass as two forward ones.

    What is frozen is computed once where nothing is augmented, since it is kept. 0 where the
    architecture's were not counted.
    """
    recipe, backbone = experiment.recipe, experiment.backbone
    per_stage = architecture_named(backbone.architecture).mega_macs
    n_images = recipe.max_epochs * (
        recipe.steps_per_epoch * recipe.batch_size if recipe.steps_per_epoch else n_train
    )
    n_frozen = len(per_stage) - len(backbone.trained_stages)
    frozen, trained = sum(per_stage[: max(0, n_frozen)]), sum(per_stage[max(0, n_frozen) :])
    once = recipe.augmentation == Augmentation()
    face = 1e6 * (backbone.input_px / 100) ** 2
    return face * (3 * trained * n_images + frozen * (n_train if once else n_images))


def _checked(wanted: dict[str, str | None]) -> dict[str, str]:
    """Drop filters that were not given; refuse one that fits no experiment at all."""
    given = {field: value for field, value in wanted.items() if value is not None}
    for field, value in given.items():
        known = sorted({_summary(item)[field] for item in registry.experiments().values()})
        if value not in known:
            raise ExperimentError(f"no experiment has {field} {value!r}", allowed=", ".join(known))
    return given


def _summary(experiment: Experiment) -> dict[str, Any]:
    """Give what distinguishes an experiment, as names and filters do."""
    return {
        "task": experiment.task_label,
        "architecture": experiment.backbone.architecture,
        "weights": experiment.backbone.weights,
        "trainable": experiment.backbone.depth_name,
        "conditioning": experiment.head.conditioning,
    }


def _data(experiments: Sequence[Experiment], ours: Ours) -> dict[str, Any]:
    def measured(name: str, accuracies: Accuracies) -> dict[TaskName, Any] | None:
        found = accuracies.get(name, {})
        means = {task: asdict(mean) | {"n_seeds": len(mean.seeds)} for task, mean in found.items()}
        return means or None

    return {
        "experiments": [
            item.as_dict()
            | _summary(item)
            | {"ours": measured(item.name, ours.accuracies)}
            | {"ours_leaky": measured(item.name, ours.leaky)}
            for item in experiments
        ],
        "suites": [asdict(item) for item in registry.suites().values()],
        "measured_on": ours.faces._asdict() | {"drawn": ours.drawn} if ours.faces else None,
    }


def show(
    name: Annotated[
        str, typer.Argument(help="An experiment's name.", autocompletion=complete_experiment)
    ],
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: AsJson = False,
) -> None:
    """Show one definition in full: stages, parameters, recipe, STL counterparts.

    Examples:
      facebench show mtl-vgg16-imagenet-block5-gate
      facebench show mtl-vit_small_patch16_224-imagenet-full --json
    """
    with speaking("show", as_json=as_json) as answer:
        experiment = registry.experiment(name)
        network = _network(experiment)
        total, trained = network.parameter_counts()
        counterparts = registry.counterparts_of(experiment)
        # What standardises the features is no branch, and has no parameters.
        branches = dict(getattr(network.head, "head", network.head).named_children())
        heads = _counted(branches, set(branches))
        answer.data = {
            "experiment": experiment.as_dict(),
            "stages": _counted(dict(network.backbone.stages.items()), set(network.trained_stages)),
            "heads": [part for part in heads if part["parameters"]],
            "parameters": {"total": total, "trained": trained},
            "twins": {task: stl.name if stl else None for task, stl in counterparts.items()},
        }
        if as_json:
            return
        out.print(Text(experiment.name, style="bold"))
        out.print(Text(f"{experiment.asks}\n"))
        counts = [
            (f"{title}{part['part']}", part["parameters"], part["parameters"] * part["trained"])
            for title, parts in (("", answer.data["stages"]), ("head: ", answer.data["heads"]))
            for part in parts
        ]
        rows = [(name, f"{n:,}", f"{m:,}" if m else NONE) for name, n, m in counts]
        rows.append(("total", f"{total:,}", f"{trained:,}"))
        print_table(Table.of(["stage, shallow to deep", "parameters", "trained"], rows))
        out.print()
        value = Column("value", left=True, fold=True)
        print_table(Table.of(["field", value], list(_lines(experiment, answer.data["twins"]))))


def _network(experiment: Experiment) -> "Network":
    """Build the network without weights and without memory: on the meta device."""
    import torch

    from benchmark.models.network import build_network

    backbone = replace(experiment.backbone, weights="none")
    with torch.device("meta"):
        return build_network(replace(experiment, backbone=backbone, ad_hoc=True), None, seed=0)


def _counted(parts: dict[str, Any], trained: set[str]) -> list[dict[str, Any]]:
    """Count the parameters of stages, shallow to deep, or of branches of the head."""
    return [
        {
            "part": name,
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "trained": name in trained,
        }
        for name, module in parts.items()
    ]


def _lines(
    experiment: Experiment, counterparts: dict[str, str | None]
) -> Iterator[tuple[str, str]]:
    """Give every field of the definition by its dotted path, and what it is compared with."""
    definition = experiment.as_dict()
    for part in ("backbone", "head", "recipe", "protocol", "subset"):
        for field, value in _flattened(definition[part] or {}, f"{part}."):
            yield field, _plain(value)
    yield "compared with", experiment.compare_with or NONE
    for task, name in counterparts.items():
        yield f"STL counterpart, {task}", name or "not registered"
    study = f"{NONE} (a row of ours)"
    if experiment.study is not None:
        accuracies = {title: getattr(experiment.study, t) for t, title in TASK_TITLES.items()}
        printed = [f"{t} {100 * value:.2f} %" for t, value in accuracies.items() if value]
        study = f"row {experiment.study.row}: {', '.join(printed)}, on a split that leaks"
    yield "the study printed", study


def _flattened(fields: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "not set" if value is None else "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


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
