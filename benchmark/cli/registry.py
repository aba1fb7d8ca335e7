"""`facebench list`: what is registered; `show`: one definition in full. `list` loads no torch."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from benchmark import registry
from benchmark.cli import options
from benchmark.cli.output import out, print_table
from benchmark.errors import require_choice
from benchmark.experiment.architectures import architecture_named
from benchmark.experiment.definition import Augmentation, Experiment
from benchmark.experiment.parts import flattened
from benchmark.reporting.tables import NOTHING, Column, Table
from benchmark.tasks import TASK_TITLES

UTKFACE_TRAIN = 19_000
"""About the training faces of UTKFace's leak-free split."""
QUESTION = Column("research question", left=True, below=True)
COST = (
    f"PMACs: 10^15 multiply-adds of one seed on UTKFace's {UTKFACE_TRAIN:,} training faces; "
    "`facebench plan` predicts time and disk."
)
LEAKY = (
    "What the study printed, in percent, is LEAKY: four of five of its test faces were trained on. "
    "`facebench leaderboard --suite study` shows ours beside it."
)


def list_(
    answer: options.Answer,
    suite: options.OneSuite = None,
    architecture: Annotated[str | None, options.option("Only this architecture.")] = None,
    weights: Annotated[str | None, options.option("Only this weight source.")] = None,
    task: Annotated[str | None, options.option("age_group, gender, race or mtl.")] = None,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """List experiments and suites, with what they cost and what the study printed.

    Examples:
      facebench list
      facebench list --suite study
      facebench list --architecture vgg16 --weights vggface --task mtl --json
    """
    every = registry.experiments().values()
    given = {"architecture": architecture, "weights": weights, "task": task}
    wanted = {field: value for field, value in given.items() if value is not None}
    for field, value in wanted.items():
        known = sorted({_summary(item)[field] for item in every})
        require_choice(f"--{field}", value, tuple(known))
    chosen = registry.experiments_of(suite) if suite else every
    shown = [item for item in chosen if wanted.items() <= _summary(item).items()]
    answer.warnings += map(str, registry.refused())
    answer.data = {
        "experiments": [item.as_dict() | _summary(item) for item in shown],
        "suites": [asdict(item) for item in registry.suites().values()],
    }
    title = f"Suite {suite}, {_cost(shown)} PMACs" if suite else "Experiments"
    if suite and any(item.study for item in shown):
        columns = ["row", "experiment", *TASK_TITLES.values()]
        print_table(Table.of(columns, list(map(_printed, shown)), title))
        out.print(Text(f"\n{LEAKY}", style="dim"))
    else:
        rows = [(item.name, item.asks) for item in shown]
        print_table(Table.of(["experiment", QUESTION], rows, title))
    if suite is None and not wanted:
        lines = [
            (it.name, str(len(it.experiments)), _cost(registry.experiments_of(it.name)), it.asks)
            for it in registry.suites().values()
        ]
        out.print()
        print_table(Table.of(["suite", "experiments", "PMACs", QUESTION], lines))
    out.print(Text(f"\n{COST}", style="dim"))


def _printed(experiment: Experiment) -> list[str]:
    values = [getattr(experiment.study, task, None) for task in TASK_TITLES]
    numbers = [f"{100 * value:.2f}" if value else NOTHING for value in values]
    return [getattr(experiment.study, "row", NOTHING), experiment.name, *numbers]


def _cost(experiments: Iterable[Experiment]) -> str:
    return f"{sum(map(_operations, experiments)) / 1e15:.2g}"


def _operations(experiment: Experiment) -> float:
    """Estimate a training's multiply-adds, backward as two; 0 where they were not counted."""
    recipe, backbone = experiment.recipe, experiment.backbone
    per_stage = architecture_named(backbone.architecture).mega_macs
    n_images = recipe.max_epochs * recipe.images_of_epoch(UTKFACE_TRAIN)
    trained = sum(per_stage[-len(backbone.trained_stages) :]) if backbone.trained_stages else 0
    # What is frozen is computed once where nothing is augmented, since it is kept.
    n_frozen_passes = UTKFACE_TRAIN if recipe.augmentation == Augmentation() else n_images
    face = 1e6 * (backbone.input_px / 100) ** 2
    return face * (3 * trained * n_images + (sum(per_stage) - trained) * n_frozen_passes)


def _summary(experiment: Experiment) -> dict[str, Any]:
    backbone = experiment.backbone
    return {
        "task": experiment.task_label,
        "architecture": backbone.architecture,
        "weights": backbone.weights,
        "trainable": backbone.depth_name,
        "conditioning": experiment.head.conditioning,
    }


def show(
    answer: options.Answer,
    name: Annotated[
        str,
        typer.Argument(help="An experiment's name.", autocompletion=options.complete_experiment),
    ],
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Show one definition in full: stages, parameters, recipe, STL counterparts.

    Examples:
      facebench show mtl-vgg16-imagenet-block5-gate
      facebench show mtl-vit_small_patch16_224-imagenet-full --json
    """
    import torch

    from benchmark.models.network import build_network

    experiment = registry.experiment(name)
    with torch.device("meta"):  # without weights and without memory
        network = build_network(experiment.adjusted({"backbone.weights": "none"}), None, seed=0)
    total, trained = network.parameter_counts()
    counterparts = registry.counterparts_of(experiment)
    # What standardises the features is no branch, and has no parameters.
    branches = dict(getattr(network.head, "head", network.head).named_children())
    stages = _counted(dict(network.backbone.stages.items()), set(network.trained_stages))
    heads = _counted(branches, set(branches))
    answer.data = {
        "experiment": experiment.as_dict(),
        "stages": stages,
        "heads": heads,
        "parameters": {"total": total, "trained": trained},
        "twins": {task: stl.name if stl else None for task, stl in counterparts.items()},
    }
    out.print(Text(experiment.name, style="bold"))
    out.print(Text(f"{experiment.asks}\n"))
    rows = [
        (f"{title}{of['part']}", n := f"{of['parameters']:,}", n if of["trained"] else NOTHING)
        for title, parts in (("", stages), ("head: ", heads))
        for of in parts
    ]
    rows.append(("total", f"{total:,}", f"{trained:,}"))
    print_table(Table.of(["stage, shallow to deep", "parameters", "trained"], rows))
    out.print()
    value = Column("value", left=True, fold=True)
    print_table(Table.of(["field", value], list(_lines(experiment, answer.data["twins"]))))


def _counted(parts: dict[str, Any], trained: set[str]) -> list[dict[str, Any]]:
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in parts.items()}
    return [
        {"part": name, "parameters": n, "trained": name in trained}
        for name, n in counts.items()
        if n
    ]


def _lines(
    experiment: Experiment, counterparts: dict[str, str | None]
) -> Iterator[tuple[str, str]]:
    """Give every field by its path with its value, as --set takes both, and what it is beside."""
    definition = experiment.as_dict()
    for part in ("backbone", "head", "recipe", "protocol", "subset"):
        for field, value in flattened(definition[part] or {}, f"{part}."):
            yield field, value if isinstance(value, str) else json.dumps(value)
    yield "compared with", experiment.compare_with or NOTHING
    for task, name in counterparts.items():
        yield f"STL counterpart, {task}", name or "not registered"
    if (row := experiment.study) is not None:
        accuracies = ((title, getattr(row, task)) for task, title in TASK_TITLES.items())
        printed = ", ".join(f"{of} {100 * value:.2f} %" for of, value in accuracies if value)
        yield "the study printed", f"row {row.row}: {printed}, on a split that leaks"
