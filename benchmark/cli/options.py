"""Options that several commands share: spelled and explained once, completed, and what they name.

`--set`, `--sweep`, `--seeds` and `--folds` are read here, and runs and data sets found.
"""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark import registry
from benchmark.cli.output import CommandResult, speaking, watching
from benchmark.errors import BenchmarkError, DataError, RunError, require
from benchmark.experiment.architectures import ARCHITECTURES
from benchmark.experiment.definition import Experiment
from benchmark.record import HOW_TO_RUN, all_records

if TYPE_CHECKING:
    from benchmark.comparison.library import Library, Run
    from benchmark.data.dataset import FaceSet

DEFAULT_DATA_DIR = Path("data")
DEFAULT_RUNS_DIR = Path("mlruns")
MAKES_DATA_DIR = ("data prepare", "data fetch", "data crop", "weights add")
READS_RUNS_DIR = ("status", "clean", "ui")
Completions = Iterator[tuple[str, str]]
"""Names, each with what the shell shows beside it; typer keeps those that begin as typed."""


def option(text: str, *names: str, **more: Any) -> Any:
    """Declare an option by its help."""
    return typer.Option(*names, help=text, **more)


def advanced(text: str, *names: str, **more: Any) -> Any:
    """Declare an option of the panel of what most calls leave as it is."""
    return option(text, *names, rich_help_panel="Advanced options", **more)


def _runs_dir(context: typer.Context) -> Path:
    return Path(context.params.get("runs_dir") or DEFAULT_RUNS_DIR)


def completing(*kinds: str) -> Callable[[typer.Context], Completions]:
    """Complete names of `experiments`, `suites`, `grids`, with their questions; else nothing."""

    def complete(context: typer.Context) -> Completions:
        with contextlib.suppress(BenchmarkError), registry.with_tuned(_runs_dir(context)):
            for kind in kinds:
                for item in getattr(registry, kind)().values():
                    yield item.name, item.asks

    return complete


complete_experiment = completing("experiments")
complete_suite = completing("suites")
complete_tunable = completing("experiments", "grids")


def complete_run(context: typer.Context) -> Completions:
    """Complete an experiment, a suite, or the first digits of a run that is here."""
    yield from completing("experiments", "suites")(context)
    for folder in sorted(_runs_dir(context).glob("work/[0-9a-f]*")):
        yield folder.name[:12], "a run"


def complete_architecture() -> list[str]:
    return sorted(ARCHITECTURES)


def complete_dataset(context: typer.Context) -> Completions:
    """Complete the name of a prepared data set, or `drawn`."""
    yield "drawn", "synthetic faces"
    folder = Path(context.params.get("data_dir") or DEFAULT_DATA_DIR)
    for path in sorted(folder.glob("*/manifest.json")):
        yield path.parent.name, "prepared here"


# fmt: off
Named = Annotated[list[str] | None, typer.Argument(
    metavar="[RUN]...", autocompletion=complete_run,
    help="Runs' ids (8 digits or more), experiments or suites; every run if left out.")]
DataDir = Annotated[Path, option(
    "Where prepared data sets are.", envvar="FACEBENCH_DATA_DIR")]
RunsDir = Annotated[Path, option(
    "Where runs are kept.", envvar="FACEBENCH_RUNS_DIR")]
WeightsDir = Annotated[Path | None, advanced(
    "Where converted weights are; DATA_DIR/weights if left out.", envvar="FACEBENCH_WEIGHTS_DIR")]
Experiments = Annotated[list[str] | None, typer.Argument(
    help="Experiments by name.", autocompletion=complete_experiment)]
OneSuite = Annotated[str | None, option(
    "All experiments of a suite.", autocompletion=complete_suite)]
Seeds = Annotated[str, option("Seeds, as in 0,1,2.")]
DatasetName = Annotated[str | None, option(
    "A prepared data set, or `drawn` (synthetic); the only one prepared if left out.",
    autocompletion=complete_dataset)]
OnDataset = Annotated[str | None, option(
    "Runs on this data set; if left out, on the only one or on photographs.",
    autocompletion=complete_dataset)]
Changes = Annotated[list[str] | None, option(
    "Change a field: recipe.max_epochs=3.", "--set")]
DeviceName = Annotated[str | None, option("cpu, cuda or mps; the best if left out.")]
AsJson = Annotated[bool, option("Print one JSON object for a machine.", "--json")]
Overwrite = Annotated[bool, advanced("Replace files that exist, but no input.")]
Quiet = Annotated[bool, option("Print results only.", "--quiet", "-q")]
# fmt: on
Answer = Annotated[CommandResult, {"as_json": AsJson}]
QuietAnswer = Annotated[CommandResult, {"quiet": Quiet, "as_json": AsJson}]
"""What a command fills; it brings the options that say how it is printed."""


def as_command(name: str, function: Callable[..., None]) -> Callable[..., None]:
    """Turn a function into a command: parse its options and print the result object it fills.

    A parameter whose type is a dataclass of options stands for all of them.
    """
    first, *given = inspect.signature(function).parameters.values()
    groups: dict[str, Any] = {
        it.name: it.annotation for it in given if dataclasses.is_dataclass(it.annotation)
    }

    @functools.wraps(function)
    def called(*, as_json: bool = False, quiet: bool = False, **values: Any) -> None:
        with contextlib.ExitStack() as stack:
            answer = stack.enter_context(speaking(name, as_json=as_json, quiet=quiet))
            # Recipes that were tuned in a folder of runs are known by name while a command runs.
            stack.enter_context(registry.with_tuned(values.get("runs_dir", DEFAULT_RUNS_DIR)))
            _check_folders(name, values)
            for parameter, group in groups.items():
                own = {field.name: values.pop(field.name) for field in dataclasses.fields(group)}
                values[parameter] = group(**own)
            function(answer, **values)

    taken = list[tuple[str, Any, Any]]()
    for it in given:
        fields = dataclasses.fields(groups[it.name]) if it.name in groups else ()
        of_group = [(of.name, of.type, of.default) for of in fields]
        taken += of_group or [(it.name, it.annotation, it.default)]
    of_answer = getattr(first.annotation, "__metadata__", [{}])[0]
    taken += [(option, type_, False) for option, type_ in of_answer.items()]
    for parameter, annotation, default in taken:
        info = annotation.__metadata__[0]
        if default is False and info.default is ...:  # a flag without a name: its parameter's
            info.param_decls = [f"--{parameter.strip('_').replace('_', '-')}"]
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(it, kind, annotation=a, default=d) for it, a, d in taken]
    called.__annotations__ = {it: annotation for it, annotation, _ in taken}
    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return called


def _check_folders(command: str, values: Mapping[str, Any]) -> None:
    """Raise RunError where a folder was named that a command only reads, and that does not exist.

    A mistyped one would look as if there was nothing. Synthetic faces that are asked for by
    name are made in a new folder.
    """
    draws = command in ("run", "tune") and values["dataset"] == "drawn"
    for name, default, is_read in (
        ("data_dir", DEFAULT_DATA_DIR, not draws and command not in MAKES_DATA_DIR),
        ("runs_dir", DEFAULT_RUNS_DIR, command in READS_RUNS_DIR),
    ):
        folder = values.get(name, default)
        if is_read and folder != default and not folder.is_dir():
            source, fix = f"--{name.replace('_', '-')}", "Check its name, or make it with mkdir"
            raise RunError(f"the folder {folder} does not exist", source=source, fix=fix)


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read `path=value` texts; a value is JSON where it can be (3, 1e-4, true, null), else text."""
    return {path: _value(value) for path, value in _by_path(texts, "--set").items()}


def parse_sweeps(texts: Iterable[str], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read `path=value,value` texts; give every combination of their values, `fixed` added to each.

    A single value is read as `--set` reads it. Without texts, `fixed` is the one combination.
    """
    swept = {path: _values(path, text) for path, text in _by_path(texts, "--sweep").items()}
    for path in swept:
        found = f"--sweep and --set both give {path!r}"
        require(path not in fixed, found, allowed="each field in one of them")
    combinations = itertools.product(*swept.values())
    return [{**fixed, **dict(zip(swept, values, strict=True))} for values in combinations]


def _by_path(texts: Iterable[str], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    allowed = "FIELD=VALUE, as in recipe.max_epochs=3, or recipe.learning_rate=1e-4,1e-3 to sweep"
    for text in texts:
        path, equals, value = text.partition("=")
        require(bool(equals and path and value), f"{option} {text!r} has no value", allowed=allowed)
        require(path not in found, f"{option} gives {path!r} twice", allowed="each field once")
        found[path] = value
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _values(path: str, text: str) -> list[Any]:
    """Divide at commas, but not at those within a JSON list."""
    try:
        values: list[Any] = json.loads(f"[{text}]")
    except ValueError:
        values = [_value(part.strip()) for part in text.split(",")]
    is_set = "" not in values and len({json.dumps(value) for value in values}) == len(values)
    allowed = "different values, with a comma between them"
    require(is_set, f"--sweep {path!r} is {text!r}", allowed=allowed)
    return values


def parse_folds(text: str) -> tuple[int, ...]:
    """Read `0-4` or `0,2`; raises ExperimentError for anything but folds 0 to 4, each once."""
    spans = [re.fullmatch(r"([0-4])(?:-([0-4]))?", part.strip()) for part in text.split(",")]
    folds = [n for span in spans if span for n in range(int(span[1]), int(span[2] or span[1]) + 1)]
    fits = None not in spans and folds and len(set(folds)) == len(folds)
    require(bool(fits), f"--folds is {text!r}", allowed="folds 0 to 4, as in 0-4 or 0,2")
    return tuple(folds)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read `0,1,2`; raises ExperimentError for anything else, or a seed given twice."""
    seeds = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    allowed = "different whole numbers from 0, as in 0,1,2"
    require(len(set(seeds)) == len(text.split(",")), f"--seeds is {text!r}", allowed=allowed)
    return tuple(seeds)


def open_library(
    runs_dir: Path, data_dir: Path, answer: CommandResult, *, suite: str = ""
) -> "Library":
    """Read all runs, with the definitions that they may be runs of; what is damaged is a warning.

    suite: the one whose runs are wanted. Raises RunError where there is no run.
    """
    from benchmark.comparison.library import read_runs

    with watching() as watch:
        runs, notes = read_runs(list(all_records(runs_dir)), watch)
    answer.warnings += [note for note in notes if note not in answer.warnings]
    if not runs:
        fix = f"`facebench run --suite {suite} --seeds 0,1,2` makes some" if suite else HOW_TO_RUN
        raise RunError("there is no run here", source=str(runs_dir), fix=fix)
    return library_of(runs, prepared_here(data_dir, answer))


def library_of(runs: "Sequence[Run]", here: "Sequence[FaceSet]") -> "Library":
    """Put runs together with the definitions that they may be runs of, and the prepared faces."""
    from benchmark.comparison.library import Library

    prepared = [(faces.name, faces.pixel_digest, faces.split_digest) for faces in here]
    folds = registry.folds_of(str(run.definition["name"]) for run in runs)
    return Library(tuple(runs), registry.experiments() | folds, registry.suites(), prepared)


def experiments_named(names: Iterable[str] | None, suite: str | None) -> dict[str, Experiment]:
    """Find experiments and those of a suite by name, each once."""
    found = {name: registry.experiment(name) for name in names or ()}
    return found | {item.name: item for item in (registry.experiments_of(suite) if suite else ())}


def prepared_here(data_dir: Path, answer: CommandResult) -> "list[FaceSet]":
    """Open the prepared data sets; a damaged one is no obstacle to stored numbers: a warning."""
    from benchmark.data.dataset import prepared_datasets

    try:
        return prepared_datasets(data_dir)
    except DataError as error:
        answer.warnings.append(str(error))
        return []
