"""`facebench tune`: an experiment in, its best recipe out, trained anew and registered."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark import registry
from benchmark.cli.completion import complete_suite, complete_tunable
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
    DeviceName,
    Offline,
    PrecisionName,
    Quiet,
    RunsDir,
    Tracking,
    WeightsDir,
)
from benchmark.cli.output import Answer, ExitCode, busy, say_error, speaking
from benchmark.cli.run import Ways, settings_for
from benchmark.errors import BenchmarkError, ExperimentError
from benchmark.experiment.grids import PREFIX as GRID_PREFIX
from benchmark.experiment.settings import parse_seeds, parse_settings

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet
    from benchmark.runs.plan import Settings

EXAMPLES = """
Examples:

  facebench tune mtl-squeezenet1_1-imagenet-full --trials 30

  facebench tune mtl-vgg16-imagenet-block5 --trials 40 --only depth,learning_rate --jobs 2

  facebench tune --suite quick --trials 20 --timeout 600

  facebench tune grid-mtl-vgg16-block5 --row 32
"""


@dataclass(frozen=True)
class Wish:
    """What is wanted of each study."""

    n_trials: int
    timeout: float | None
    jobs: int
    storage: str | None
    sampler: str
    sampler_seed: int
    pruner: str
    only: tuple[str, ...]
    changes: dict[str, Any]
    rows: tuple[str, ...]
    refit_seeds: tuple[int, ...]
    helps: bool
    """Searches along with the process that began it, and shows nothing."""


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
        help="sqlite:///FILE, a database's URL, journal:FILE; SQLite beside the runs if none. An "
        "address with a password belongs into the variable: command lines can be read by others.",
    ),
]
Sampler = Annotated[str, typer.Option(help="tpe, gp or random.")]
SamplerSeed = Annotated[int, typer.Option(min=0, help="Of the sampler.")]
Pruner = Annotated[str, typer.Option(help="median, hyperband or none.")]
Only = Annotated[str | None, typer.Option(help="Search these alone, as in depth,learning_rate.")]
Rows = Annotated[
    list[str] | None, typer.Option(help="Of a grid: only this row; may be given again.")
]
Refit = Annotated[
    bool, typer.Option("--refit/--no-refit", help="Train the best recipe anew and register it.")
]
RefitSeeds = Annotated[str, typer.Option(help="Seeds of the refit.")]
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
    """Search for the best recipe of experiments by validation; what was stopped goes on.

    Learning rates, unfreezing depth, batch size and more, as the experiment's search space says.
    Fresh seeds decide between the best and the runner-up. The best recipe is then trained anew with
    three more and joins the suite `tuned`. No trial reads a test face.
    """
    with speaking("tune", as_json=as_json) as answer:
        wish = Wish(
            trials, timeout, jobs, storage, sampler, sampler_seed, pruner,
            tuple(only.split(",")) if only else (), parse_settings(settings or []),
            tuple(row or ()), parse_seeds(seeds) if refit else (), worker is not None,
        )  # fmt: skip
        chosen = [worker] if worker else _chosen(names or [], suite, wish)
        ways = Ways(
            device, precision, False, True, False,
            (cache_dir or data_dir / "cache") if cache else None, cache_gib,
        )  # fmt: skip
        where = settings_for(
            ways, tracking, offline, False, "best", runs_dir, weights_dir or data_dir / "weights"
        )
        from benchmark.data.sample import choose_dataset

        with busy("opening the data set", quiet=quiet or as_json):
            faces = choose_dataset(data_dir, dataset)
        code = _all_tuned(answer, chosen, faces, where, wish, quiet=quiet, as_json=as_json)
        if not as_json:
            for error in answer.errors:
                say_error(error)
    if code is not ExitCode.FINE:
        raise typer.Exit(code)


def _chosen(names: list[str], suite: str | None, wish: Wish) -> list[str]:
    """Name what is to be tuned, each once; refuse what is neither experiment nor grid."""
    found = dict.fromkeys(names)
    for name in found:
        if name.startswith(GRID_PREFIX):
            registry.grid(name)
        else:
            registry.experiment(name)
    if suite is not None:
        found |= dict.fromkeys(item.name for item in registry.experiments_of(suite))
    if not found:
        raise ExperimentError(
            "nothing to tune was named",
            allowed="names of experiments, --suite, or a grid: " + ", ".join(registry.grids()),
            fix="`facebench list` shows the experiments",
        )
    if wish.rows and not all(name.startswith(GRID_PREFIX) for name in found):
        raise ExperimentError("--row is of grids", allowed=", ".join(registry.grids()))
    return list(found)


def _all_tuned(
    answer: Answer,
    names: list[str],
    faces: "FaceSet",
    settings: "Settings",
    wish: Wish,
    *,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Search for each by itself; one of many that cannot be searched does not stop the others."""
    from benchmark.cli.tune_session import Session

    session = Session(answer, faces, settings, wish, quiet=quiet, as_json=as_json)
    studies: list[dict[str, Any]] = []
    answer.data = {"dataset": faces.name, "studies": studies}
    for name in names:
        try:
            studies.append(session.tune(name))
        except BenchmarkError as error:
            if len(names) == 1:
                raise
            answer.errors.append(error)
            studies.append({"experiment": name, "ok": False})
    fine = all(study["ok"] for study in studies)
    return ExitCode.FINE if fine else ExitCode.RUNS_FAILED
