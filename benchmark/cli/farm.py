"""`facebench farm`: many heads on frozen features, trained together, shown side by side."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark import registry
from benchmark.cli.completion import complete_experiment, complete_suite
from benchmark.cli.options import (
    DEFAULT_CACHE_GIB,
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    Cache,
    CacheDir,
    CacheGib,
    Changes,
    DataDir,
    DatasetName,
    Deterministic,
    DeviceName,
    Graph,
    Offline,
    PrecisionName,
    Quiet,
    ReadTest,
    RunsDir,
    Tracking,
    WeightsDir,
)
from benchmark.cli.output import Answer, ExitCode, say_error, speaking
from benchmark.cli.run import Ways, settings_for
from benchmark.errors import BenchmarkError, ExperimentError, require_choice
from benchmark.experiment import Experiment
from benchmark.settings import parse_seeds, parse_settings

if TYPE_CHECKING:
    from benchmark.cli.farm_display import FarmDisplay
    from benchmark.farms import Field
    from benchmark.plans import Settings

EXAMPLES = """
Examples:

  facebench farm mtl-vgg16-imagenet-frozen --seeds 0,1,2

  facebench farm mtl-vgg16-imagenet-frozen --learning-rates 1e-4,3e-4,1e-3 --weight-decays 0,0.01

  facebench farm mtl-vgg16-imagenet-frozen --conditionings none,embedding,gate,attention
"""

KEEP_WEIGHTS = ("best", "none")

Names = Annotated[
    list[str] | None,
    typer.Argument(help="Frozen experiments by name.", autocompletion=complete_experiment),
]
SuiteName = Annotated[
    str | None,
    typer.Option(help="All experiments of a suite.", autocompletion=complete_suite),
]
LearningRates = Annotated[
    str | None, typer.Option(help="Learning rates to cross with, as in 1e-4,1e-3.")
]
WeightDecays = Annotated[str | None, typer.Option(help="Weight decays, as in 0,0.01.")]
HiddenUnits = Annotated[str | None, typer.Option(help="Widths of the hidden layer, as in 64,128.")]
Conditionings = Annotated[str | None, typer.Option(help="Of none, embedding, gate and attention.")]
AtOnce = Annotated[
    int | None,
    typer.Option(min=1, help="Heads that share a step; what memory or cache takes if none."),
]


def farm(
    names: Names = None,
    suite: SuiteName = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as in 0,1,2.")] = "0",
    learning_rates: LearningRates = None,
    weight_decays: WeightDecays = None,
    hidden_units: HiddenUnits = None,
    conditionings: Conditionings = None,
    changes: Changes = None,
    at_once: AtOnce = None,
    dataset: DatasetName = None,
    device: DeviceName = None,
    precision: PrecisionName = "auto",
    tracking: Tracking = "mlflow",
    offline: Offline = False,
    read_test: ReadTest = False,
    keep_weights: Annotated[str, typer.Option(help="best or none.")] = "best",
    cache: Cache = True,
    cache_dir: CacheDir = None,
    cache_gib: CacheGib = DEFAULT_CACHE_GIB,
    deterministic: Deterministic = False,
    graph: Graph = True,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train many heads on frozen features at once; each is a run of its own.

    The experiments named are crossed with the values given and with the seeds. The faces go
    through a frozen trunk once, and all its heads learn from what it said. What is done is
    skipped; what differs from its registered definition is ad hoc, as with `run --set`.
    """
    with speaking("farm", as_json=as_json) as answer:
        crossings = {
            "recipe.learning_rate": _values("--learning-rates", learning_rates, float),
            "recipe.weight_decay": _values("--weight-decays", weight_decays, float),
            "head.hidden_units": _values("--hidden-units", hidden_units, int),
            "head.conditioning": _values("--conditionings", conditionings, str),
        }
        grid = _grid(crossings, changes or [])
        chosen = _chosen(names or [], suite)
        numbers = parse_seeds(seeds)
        require_choice("--keep-weights", keep_weights, KEEP_WEIGHTS)
        ways = Ways(
            device, precision, deterministic, graph, False,
            (cache_dir or data_dir / "cache") if cache else None, cache_gib,
        )  # fmt: skip
        where = settings_for(
            ways, tracking, offline, read_test, keep_weights,
            runs_dir, weights_dir or data_dir / "weights",
        )  # fmt: skip
        from benchmark.faces.choice import choose_dataset
        from benchmark.farms import Field, crossed

        field = Field(tuple(crossed(chosen, grid)), numbers, choose_dataset(data_dir, dataset))
        code = _grow(answer, field, where, at_once, quiet=quiet or as_json, as_json=as_json)
    if code is not ExitCode.FINE:
        raise typer.Exit(code)


def _grid(crossings: Mapping[str, list[Any]], changes: Sequence[str]) -> dict[str, list[Any]]:
    """Join the values to cross with what `--set` fixes; raises ExperimentError for a clash."""
    grid = {path: values for path, values in crossings.items() if values}
    fixed = {path: [value] for path, value in parse_settings(changes).items()}
    if twice := sorted(grid.keys() & fixed.keys()):
        raise ExperimentError(f"{twice[0]} is set twice", allowed="--set, or an option for it")
    return grid | fixed


def _values(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any]:
    """Read `1e-4,1e-3`; raises ExperimentError for what is no such list, or a value given twice."""
    if text is None:
        return []
    try:
        values = [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or len(set(values)) < len(values) or "" in values:
        what = {float: "numbers", int: "whole numbers"}.get(kind, "words")  # type: ignore[call-overload]
        raise ExperimentError(
            f"{option} is {text!r}", allowed=f"different {what} with commas between"
        )
    return values


def _chosen(names: Sequence[str], suite: str | None) -> list[Experiment]:
    """Find what is to be crossed, each once; of a suite, those with a frozen trunk."""
    if not names and suite is None:
        raise ExperimentError(
            "nothing to plant was named",
            allowed="names of experiments with a frozen trunk, or --suite",
            fix="`facebench list` shows them",
        )
    found = {name: registry.experiment(name) for name in names}
    if suite is not None:
        frozen = {
            item.name: item
            for item in registry.experiments_of(suite)
            if item.backbone.trainable_stages == 0
        }
        if not frozen:
            raise ExperimentError(
                f"suite {suite!r} has no experiment with a frozen trunk",
                allowed="suites with experiments whose backbone.trainable_stages is 0",
            )
        found |= frozen
    return list(found.values())


def _grow(
    answer: Answer,
    field: "Field",
    settings: "Settings",
    at_once: int | None,
    *,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Train, show, and answer with a row per head that is done, however it came to be."""
    from benchmark.cli.farm_display import FarmDisplay
    from benchmark.cli.farm_table import head_rows, print_heads
    from benchmark.farms import FarmCosts, run_farm
    from benchmark.runs import Failed, Finished, Missing, Skipped

    costs = FarmCosts()
    done, troubles = [], list[BenchmarkError]()
    counts = dict.fromkeys(("finished", "skipped", "missing", "failed"), 0)
    with (
        FarmDisplay(field, quiet=quiet) as display,
        contextlib.closing(
            run_farm(field, _shown(settings, display, answer), costs, at_once)
        ) as events,
    ):
        display.say_where(settings.device)
        for event in events:
            display.show(event)
            if (end := type(event).__name__.lower()) in counts:
                counts[end] += 1
            if isinstance(event, (Finished, Skipped)) and event.plan.record.state == "done":
                done.append(event.plan.record)
            elif isinstance(event, Failed):
                troubles.append(event.error)
            elif isinstance(event, Missing):
                answer.warnings.append(f"{event.experiment.name} is missing: {event.error}")
    rows = head_rows(done)
    answer.data = {
        "dataset": field.faces.name,
        "device": settings.device.description,
        "precision": settings.device.precision,
        "runs": counts,
        "seconds": asdict(costs),
        "heads": [row.as_dict() for row in rows],
    }
    answer.errors.extend(troubles)
    if not as_json:
        print_heads(rows, drawn=field.faces.drawn)
        display.say_end(counts, costs)
        for error in troubles:
            say_error(error)
    nothing_there = counts["missing"] > 0 and not done
    return ExitCode.RUNS_FAILED if troubles or nothing_there else ExitCode.FINE


def _shown(settings: "Settings", display: "FarmDisplay", answer: Answer) -> "Settings":
    """Let the display show what takes its time, and say once what goes otherwise than wished."""

    def say(sentence: str) -> None:
        if sentence not in answer.warnings:
            answer.warnings.append(sentence)

    cache = settings.cache
    return replace(
        settings,
        on_bytes=display.show_download,
        cache=None if cache is None else replace(cache, say=say, on_faces=display.show_faces),
        speed=replace(settings.speed, say=say),
    )
