"""`facebench list`: what is registered, and the study's numbers beside ours. Loads no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from benchmark import registry
from benchmark.cli.completion import complete_suite
from benchmark.cli.options import DEFAULT_DATA_DIR, DEFAULT_RUNS_DIR, AsJson, DataDir, RunsDir
from benchmark.cli.ours import MeanAccuracy, Ours, gather
from benchmark.cli.output import out, print_table, speaking
from benchmark.cli.study_table import (
    LEGEND,
    NOT_COMPARABLE,
    REPLAYED,
    about_ours,
    is_replay,
    replay_table,
    study_table,
)
from benchmark.errors import ExperimentError
from benchmark.experiment.definition import Experiment
from benchmark.reporting.tables import Column, Table
from benchmark.tasks import TaskName

WIDTH_FOR_QUESTIONS: Final = 140
"""Columns of a terminal in which research questions stand beside the study's numbers."""
QUESTION: Final = Column("research question", left=True, below=True, fold=True, least=50)


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
        shown = [item for item in chosen if _fits(item, wanted)]
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
        if suite is None:
            suites = [(s.name, str(len(s.experiments)), s.asks) for s in registry.suites().values()]
            out.print()
            print_table(Table.of(["suite", "experiments", QUESTION], suites))


def _checked(wanted: dict[str, str | None]) -> dict[str, str]:
    """Drop filters that were not given; refuse one that fits no experiment at all."""
    given = {field: value for field, value in wanted.items() if value is not None}
    for field, value in given.items():
        known = sorted({_summary(item)[field] for item in registry.experiments().values()})
        if value not in known:
            raise ExperimentError(f"no experiment has {field} {value!r}", allowed=", ".join(known))
    return given


def _fits(experiment: Experiment, wanted: dict[str, str]) -> bool:
    summary = _summary(experiment)
    return all(summary[field] == value for field, value in wanted.items())


def _summary(experiment: Experiment) -> dict[str, Any]:
    """Say in plain words what distinguishes an experiment, as names and filters do."""
    backbone = experiment.backbone
    return {
        "task": experiment.task_label,
        "architecture": backbone.architecture,
        "weights": backbone.weights,
        "trainable": backbone.depth_name,
        "conditioning": experiment.head.conditioning,
    }


def _data(experiments: Sequence[Experiment], ours: Ours) -> dict[str, Any]:
    return {
        "experiments": [
            item.as_dict()
            | _summary(item)
            | {"ours": _measured(item, ours.accuracies), "ours_leaky": _measured(item, ours.leaky)}
            for item in experiments
        ],
        "suites": [asdict(item) for item in registry.suites().values()],
        "measured_on": ours.faces._asdict() | {"drawn": ours.drawn} if ours.faces else None,
    }


def _measured(
    experiment: Experiment, accuracies: Mapping[str, Mapping[TaskName, MeanAccuracy]]
) -> dict[str, Any] | None:
    found = accuracies.get(experiment.name)
    if found is None:
        return None
    return {task: asdict(mean) | {"n_seeds": len(mean.seeds)} for task, mean in found.items()}
