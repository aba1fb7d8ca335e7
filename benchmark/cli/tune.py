"""`facebench tune`: an experiment in, its best recipe out, trained anew and registered."""

from typing import Annotated

import typer

from benchmark import registry
from benchmark.cli.options import (
    ADVANCED,
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
    DeviceName,
    Offline,
    PrecisionName,
    Quiet,
    RunsDir,
    Tracking,
    WeightsDir,
    complete_suite,
    complete_tunable,
)
from benchmark.cli.output import ExitCode, busy, say_error, speaking
from benchmark.cli.run import RunOptions
from benchmark.errors import ExperimentError
from benchmark.experiment.settings import parse_seeds, parse_settings
from benchmark.experiment.space import GRID_PREFIX

Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Experiments, or grids of the study, by name.", autocompletion=complete_tunable
    ),
]
SuiteName = Annotated[
    str | None,
    typer.Option(help="Tune every experiment of a suite.", autocompletion=complete_suite),
]
Trials = Annotated[
    int, typer.Option(min=1, help="Complete and pruned trials, all sessions together.")
]
Timeout = Annotated[
    float | None, typer.Option(min=0.0, help="Seconds; no trial begins after them.")
]
Jobs = Annotated[int, typer.Option(min=1, help="Processes that search together.")]
Storage = Annotated[
    str | None,
    typer.Option(
        envvar="FACEBENCH_STORAGE",
        show_envvar=True,
        help="sqlite:///FILE, a database's URL, journal:FILE; SQLite beside the runs if none. Give "
        "an address with a password in the variable: others can read command lines.",
        rich_help_panel=ADVANCED,
    ),
]
Sampler = Annotated[str, typer.Option(help="tpe, gp or random.", rich_help_panel=ADVANCED)]
SamplerSeed = Annotated[int, typer.Option(min=0, help="Of the sampler.", rich_help_panel=ADVANCED)]
Pruner = Annotated[str, typer.Option(help="median, hyperband or none.", rich_help_panel=ADVANCED)]
Only = Annotated[str | None, typer.Option(help="Search these alone, as in depth,learning_rate.")]
Rows = Annotated[
    list[str] | None,
    typer.Option(help="Of a grid: only this row; may be given again.", rich_help_panel=ADVANCED),
]
Refit = Annotated[
    bool,
    typer.Option(
        "--refit/--no-refit",
        help="Train the best recipe anew and register it.",
        rich_help_panel=ADVANCED,
    ),
]
RefitSeeds = Annotated[str, typer.Option(help="Seeds of the refit.", rich_help_panel=ADVANCED)]
Worker = Annotated[str | None, typer.Option("--worker", hidden=True)]


def tune(
    names: Names = None,
    suite: SuiteName = None,
    trials: Trials = 30,
    timeout: Timeout = None,
    jobs: Jobs = 1,
    storage: Storage = None,
    sampler: Sampler = "tpe",
    sampler_seed: SamplerSeed = 0,
    pruner: Pruner = "median",
    only: Only = None,
    settings: Changes = None,
    row: Rows = None,
    refit: Refit = True,
    seeds: RefitSeeds = "0,1,2",
    dataset: DatasetName = None,
    device: DeviceName = None,
    precision: PrecisionName = "auto",
    tracking: Tracking = "mlflow",
    offline: Offline = False,
    cache: Cache = True,
    cache_dir: CacheDir = None,
    cache_gib: CacheGib = DEFAULT_CACHE_GIB,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    worker: Worker = None,
) -> None:
    """Search for the best recipe of experiments by validation; a stopped search resumes.

    Learning rates, unfreezing depth, batch size and more, as the experiment's search space says.
    Fresh seeds decide between the best and the runner-up. The best recipe is then trained anew with
    three more and joins the suite `tuned`. No trial is evaluated on the test set.

    Examples:
      facebench tune mtl-squeezenet1_1-imagenet-full --trials 30
      facebench tune mtl-vgg16-imagenet-block5 --trials 40 --only depth,learning_rate --jobs 2
      facebench tune --suite quick --trials 20 --timeout 600
      facebench tune grid-mtl-vgg16-block5 --row 32
    """
    with speaking("tune", as_json=as_json) as answer:
        chosen = [worker] if worker else _chosen(names or [], suite, row or [])
        changes, refit_seeds = parse_settings(settings or []), parse_seeds(seeds) if refit else ()
        where = RunOptions(
            runs_dir, weights_dir or data_dir / "weights", device, precision,
            cache_dir=(cache_dir or data_dir / "cache") if cache else None, cache_gib=cache_gib,
            tracking=tracking, offline=offline,
        ).settings()  # fmt: skip
        from benchmark.cli.tune_session import TuneSession
        from benchmark.data.sample import choose_dataset

        with busy("opening the data set", quiet=quiet or as_json):
            faces = choose_dataset(data_dir, dataset)
        session = TuneSession(
            answer, faces, where, trials, timeout, jobs, storage, sampler, sampler_seed, pruner,
            tuple(only.split(",")) if only else (), changes, tuple(row or ()), refit_seeds,
            worker is not None, quiet, as_json,
        )  # fmt: skip
        is_fine = session.tune_all(chosen)
        if not as_json:
            for error in answer.errors:
                say_error(error)
    if not is_fine:
        raise typer.Exit(ExitCode.RUNS_FAILED)


def _chosen(names: list[str], suite: str | None, rows: list[str]) -> list[str]:
    """Name what is to be tuned, each once; refuse what is neither experiment nor grid."""
    found = dict.fromkeys(names)
    for name in found:
        registry.grid(name) if name.startswith(GRID_PREFIX) else registry.experiment(name)
    if suite is not None:
        found |= dict.fromkeys(item.name for item in registry.experiments_of(suite))
    if not found:
        raise ExperimentError(
            "nothing to tune was named",
            allowed="names of experiments, --suite, or a grid: " + ", ".join(registry.grids()),
            fix="`facebench list` shows the experiments",
        )
    if rows and not all(name.startswith(GRID_PREFIX) for name in found):
        raise ExperimentError("--row is of grids", allowed=", ".join(registry.grids()))
    return list(found)
