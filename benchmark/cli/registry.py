"""`facebench list` and `facebench show`: what is registered. Loads no torch unless it must."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmark import registry
from benchmark.cli.options import AsJson
from benchmark.cli.output import out, speaking
from benchmark.experiment import Experiment


def list_(
    suite: Annotated[str | None, typer.Option(help="Only the experiments of this suite.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Only this architecture.")] = None,
    weights: Annotated[str | None, typer.Option(help="Only this weight source.")] = None,
    task: Annotated[str | None, typer.Option(help="age_group, gender, race or mtl.")] = None,
    as_json: AsJson = False,
) -> None:
    """List experiments and suites.

    Examples:
      facebench list
      facebench list --suite quick
      facebench list --architecture cnn --task mtl --json
    """
    with speaking("list", as_json=as_json) as answer:
        chosen = (
            list(registry.experiments_of(suite)) if suite else list(registry.experiments().values())
        )
        wanted = {"architecture": architecture, "weights": weights, "task": task}
        shown = [item for item in chosen if _fits(item, wanted)]
        suites = list(registry.suites().values())
        answer.data = {
            "experiments": [_row(item) for item in shown],
            "suites": [
                {"name": item.name, "asks": item.asks, "experiments": item.experiments}
                for item in suites
            ],
        }
        if as_json:
            return
        out.print(_experiments_table(shown, title=f"Suite {suite}" if suite else "Experiments"))
        if suite is None:
            table = Table(title="Suites", title_justify="left")
            table.add_column("suite")
            table.add_column("runs", justify="right")
            table.add_column("asks")
            for item in suites:
                table.add_row(item.name, str(len(item.experiments)), item.asks)
            out.print(table)


def _fits(experiment: Experiment, wanted: dict[str, str | None]) -> bool:
    row = _row(experiment)
    return all(value is None or row[key] == value for key, value in wanted.items())


def _row(experiment: Experiment) -> dict[str, Any]:
    backbone = experiment.backbone
    return {
        "name": experiment.name,
        "asks": experiment.asks,
        "task": experiment.task_label,
        "architecture": backbone.architecture,
        "weights": backbone.weights,
        "trainable": backbone.depth_name,
        "conditioning": experiment.head.conditioning,
        "compare_with": experiment.compare_with,
        "study": None if experiment.study is None else vars(experiment.study),
    }


def _experiments_table(experiments: list[Experiment], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("experiment", no_wrap=True)
    table.add_column("asks", ratio=1)
    for item in experiments:
        table.add_row(item.name, item.asks)
    return table


def show(
    name: Annotated[str, typer.Argument(help="An experiment's name.")],
    as_json: AsJson = False,
) -> None:
    """Show one definition in full, with its stages and parameter counts.

    Examples:
      facebench show mtl-squeezenet1_1-imagenet-fire6_9-short
    """
    with speaking("show", as_json=as_json) as answer:
        experiment = registry.experiment(name)
        stages = _stage_rows(experiment)
        twins = registry.twins_of(experiment)
        answer.data = {
            "experiment": experiment.as_dict(),
            "stages": stages,
            "twins": {task: twin.name if twin else None for task, twin in twins.items()},
        }
        if as_json:
            return
        out.print(f"[bold]{experiment.name}[/]\n{experiment.asks}\n")
        out.print(_stages_table(stages))
        definition = experiment.as_dict()
        for part in ("backbone", "head", "recipe", "protocol"):
            out.print(f"[bold]{part}[/]  {json.dumps(definition[part])}", soft_wrap=False)
        for task, twin in twins.items():
            out.print(f"twin for {task}: {twin.name if twin else 'missing'}")
        if experiment.compare_with:
            out.print(f"compared with: {experiment.compare_with}")


def _stage_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """Count parameters by stage; the network is built without its weights."""
    from dataclasses import replace

    from benchmark.models.network import build_network

    backbone = replace(experiment.backbone, weights="none")
    network = build_network(replace(experiment, backbone=backbone, ad_hoc=True), None, seed=0)
    parts = [(name, stage) for name, stage in network.trunk.stages.items()]
    return [
        {
            "part": name,
            "parameters": sum(parameter.numel() for parameter in part.parameters()),
            "trained": name == "head" or name in network.trained_stages,
        }
        for name, part in [*parts, ("head", network.head)]
    ]


def _stages_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Stages, shallow to deep, and heads", title_justify="left")
    table.add_column("part")
    table.add_column("parameters", justify="right")
    table.add_column("trained")
    for row in rows:
        table.add_row(row["part"], f"{row['parameters']:,}", "yes" if row["trained"] else "no")
    total = sum(row["parameters"] for row in rows)
    trained = sum(row["parameters"] for row in rows if row["trained"])
    table.add_section()
    table.add_row("total", f"{total:,}", f"{trained:,}")
    return table
