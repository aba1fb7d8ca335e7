"""`facebench show`: one definition in full, with the stages of its network and their parameters."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from benchmark import registry
from benchmark.cli.completion import complete_experiment
from benchmark.cli.options import DEFAULT_RUNS_DIR, AsJson, RunsDir
from benchmark.cli.output import out, speaking
from benchmark.experiment.definition import Experiment
from benchmark.tasks import TASK_TITLES

if TYPE_CHECKING:
    from benchmark.models.network import Network

NONE = "–"


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
        out.print(_parameters_table(answer.data))
        out.print(_definition_table(experiment, answer.data["twins"]))


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


def _parameters_table(data: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("stage, shallow to deep", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("trained", justify="right")
    for title, parts in (("", data["stages"]), ("head: ", data["heads"])):
        for part in parts:
            count = f"{part['parameters']:,}"
            table.add_row(f"{title}{part['part']}", count, count if part["trained"] else NONE)
    parameters = data["parameters"]
    table.add_row("total", f"{parameters['total']:,}", f"{parameters['trained']:,}", style="bold")
    return table


def _definition_table(experiment: Experiment, counterparts: dict[str, str | None]) -> Table:
    """Write every field of the definition on a line of its own, by its dotted path."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    definition = experiment.as_dict()
    for part in ("backbone", "head", "recipe", "protocol", "subset"):
        if definition[part] is not None:
            table.add_row()
            table.add_row(Text(part, style="bold"))
            for field, value in _flattened(definition[part]):
                table.add_row(f"  {field}", Text(_plain(value)))
    study = f"{NONE} (a row of ours)"
    if experiment.study is not None:
        accuracies = {title: getattr(experiment.study, t) for t, title in TASK_TITLES.items()}
        printed = [f"{t} {100 * value:.2f} %" for t, value in accuracies.items() if value]
        study = f"row {experiment.study.row}: {', '.join(printed)}, on a split that leaks"
    table.add_row()
    table.add_row(Text("compared with", style="bold"), experiment.compare_with or NONE)
    for task, name in counterparts.items():
        table.add_row(Text(f"STL counterpart, {task}", style="bold"), name or "not registered")
    table.add_row(Text("the study printed", style="bold"), study)
    return table


def _flattened(fields: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
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
