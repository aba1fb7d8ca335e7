"""`facebench show`: one definition in full, with the stages of its network and their parameters."""

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
    """Show one definition in full: stages, parameters, recipe, twins.

    Examples:
      facebench show mtl-vgg16-imagenet-block5-gate
      facebench show mtl-vit_small_patch16_224-imagenet-full --json
    """
    with speaking("show", as_json=as_json) as answer:
        experiment = registry.experiment(name)
        network = _network(experiment)
        total, trained = network.parameter_counts()
        twins = registry.counterparts_of(experiment)
        answer.data = {
            "experiment": experiment.as_dict(),
            "stages": _stages(network),
            "heads": _heads(network),
            "parameters": {"total": total, "trained": trained},
            "twins": {task: twin.name if twin else None for task, twin in twins.items()},
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


def _stages(network: "Network") -> list[dict[str, Any]]:
    """Count the trunk's parameters by stage, shallow to deep."""
    return [
        {"part": name, "parameters": _count(stage), "trained": name in network.trained_stages}
        for name, stage in network.trunk.stages.items()
    ]


def _heads(network: "Network") -> list[dict[str, Any]]:
    """Count the heads' parameters by branch; all are trained. What has none is left out."""
    # What standardises the features is no branch.
    head: Any = getattr(network.head, "head", network.head)
    counted = [(name, _count(branch)) for name, branch in head.named_children()]
    return [
        {"part": name, "parameters": count, "trained": True} for name, count in counted if count
    ]


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


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


def _definition_table(experiment: Experiment, twins: dict[str, str | None]) -> Table:
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
    table.add_row()
    table.add_row(Text("compared with", style="bold"), experiment.compare_with or NONE)
    for task, twin in twins.items():
        table.add_row(Text(f"twin, {task}", style="bold"), twin or "missing")
    table.add_row(Text("the study printed", style="bold"), _study_text(experiment))
    return table


def _flattened(fields: dict[str, Any], path: str = "") -> "list[tuple[str, Any]]":
    rows = []
    for name, value in fields.items():
        if isinstance(value, dict):
            rows += _flattened(value, f"{path}{name}.")
        else:
            rows.append((f"{path}{name}", value))
    return rows


def _plain(value: Any) -> str:
    if value is None or value is False or value is True:
        return {None: "not set", False: "no", True: "yes"}[value]
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _study_text(experiment: Experiment) -> str:
    if experiment.study is None:
        return f"{NONE} (a row of ours)"
    printed = [
        f"{title} {100 * accuracy:.2f} %"
        for task, title in TASK_TITLES.items()
        if (accuracy := getattr(experiment.study, task)) is not None
    ]
    return f"row {experiment.study.row}: {', '.join(printed)}, on a split that leaks"
