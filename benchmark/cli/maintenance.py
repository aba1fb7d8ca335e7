"""Commands on what is here: verify, status, runs rescore, clean and doctor."""

import contextlib
import datetime
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from rich.markup import escape

from benchmark import record as provenance
from benchmark.cli import options
from benchmark.cli.output import ExitCode, busy, duration, out, print_table, watching
from benchmark.errors import BenchmarkError, RunError, require
from benchmark.record import HOW_TO_RUN, RunRecord, all_records, work_folder
from benchmark.reporting.tables import Cell, Column, Table

if TYPE_CHECKING:
    from benchmark.comparison.library import Standing
    from benchmark.runs.queue import Queue

STATES = {
    "claimed": ("running", "cyan"), "queued": ("queued", "dim"),
    "interrupted": ("interrupted", "yellow"),
    "failed": ("failed", "red"), "damaged": ("damaged", "red"), "absent": ("not run", "dim"),
    "done": ("done", "green"),
}  # fmt: skip

COLOURS: Final = {"holds": "green", "differs": "bold red", "not checked": "yellow"}
LOW_DISK_GIB: Final = 5
ONLY: Final = (
    "What to remove, as in leftovers,cache; --dry-run lists the kinds. Temporary files alone if "
    "left out."
)
QUEUE_FIELDS: Final = ("host", "pid", "engine", "n_slots", "since")


def _followed(records: Sequence[RunRecord]) -> Iterator[RunRecord]:
    """Yield runs one after another, under a bar."""
    with watching() as watch:
        for n_done, record in enumerate(records):
            watch("runs", n_done, len(records))
            yield record


def verify(
    answer: options.Answer,
    names: options.Named = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Compute a run's metrics from its predictions, and its predictions from its weights, again.

    Says of each finished run whether it holds: its files by their checksums, its id by its
    definition, its numbers, and its predictions where the faces are prepared here. Exits 1 where
    something differs.

    Examples:
      facebench verify
      facebench verify b9aa30a6a761
      facebench verify quick --json
    """
    from benchmark.inference import evaluate

    asked = options.chosen_records(runs_dir, names or [])
    by_id = tuple(name for name in names or () if provenance.RUN_ID.fullmatch(name))
    # One that is named by its id is verified whatever it is, or the answer says why not.
    records = [run for run in asked if run.state == "done" or run.identity.startswith(by_id)]
    if not records:
        found = "none of these runs is done" if names else "there is no finished run"
        fix = f"{HOW_TO_RUN}; `facebench status` lists all"
        raise RunError(found, source=str(runs_dir), fix=fix)
    prepared, runs = options.prepared_here(data_dir, answer), list[dict[str, Any]]()
    for record in _followed(records):
        try:
            findings = evaluate.verify(record, prepared)
        except BenchmarkError as error:
            if len(records) == 1 and record.state != "done":
                raise
            findings = [evaluate.Finding("files", "differs", str(error))]
        try:
            title = f"{record.experiment_name}, seed {record.seed}"
        except (BenchmarkError, LookupError, TypeError, ValueError):
            title = "a run that cannot be read"
        holds = all(item.verdict != "differs" for item in findings)
        named = {"identity": record.identity, "run": title, "holds": holds}
        runs.append(named | {"findings": [vars(item) for item in findings]})
    answer.data = {"runs": runs}
    n_wrong = sum(not run["holds"] for run in runs)
    answer.code = ExitCode.FINDINGS if n_wrong else ExitCode.FINE
    for run in runs:
        out.print(f"[bold]{escape(run['run'])}[/]  {run['identity'][:12]}", soft_wrap=True)
        rows = [(of["what"], Cell(of["verdict"], style=COLOURS[of["verdict"]]), of["detail"])
                for of in run["findings"]]  # fmt: skip
        print_table(Table.of(["", "", Column("", left=True, fold=True)], rows))
    out.print(f"{len(runs) - n_wrong} of {len(runs)} runs hold.")


def rescore(
    answer: options.Answer,
    names: options.Named = None,
    again: Annotated[bool, options.option("Also what is up to date already.", "--again")] = False,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Compute finished runs' numbers, tables and figures again from their stored predictions.

    For runs of an older facebench. Needs no network, no GPU and no faces. What is up to date is
    left alone. `facebench runs import` brings the numbers to MLflow.

    Examples:
      facebench runs rescore
      facebench runs rescore b9aa30a6a761 --again
    """
    from benchmark.evaluation.artifacts import rescore as rescore_one

    found, outcomes = options.chosen_records(runs_dir, names or []), Counter[str]()
    records = [record for record in found if record.state == "done"]
    for record in _followed(records):
        try:
            outcomes[rescore_one(record, again=again)] += 1
        except BenchmarkError as error:
            answer.errors.append(error)
    answer.data = {"runs": dict(outcomes)}
    answer.code = ExitCode.RUNS_FAILED if answer.errors else ExitCode.FINE
    done = f"{outcomes['rescored']} runs rescored, {outcomes['current']} were up to date"
    out.print(f"{done}, {len(answer.errors)} could not be.")


def clean(
    answer: options.Answer,
    only: Annotated[str | None, options.option(ONLY)] = None,
    dry_run: Annotated[bool, options.option("Remove nothing, only say.", "--dry-run")] = False,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Free disk space: what killed processes left, and with --only what can be made again.

    A run that a living process works on is never touched, nor are prepared data sets, weights that
    were added, or anything in MLflow.

    Examples:
      facebench clean --dry-run
      facebench clean
      facebench clean --only cache
    """
    from benchmark.runs.folder import KINDS, removables

    asked = {name.strip() for name in (only or "").split(",") if name.strip()}
    for name in sorted(asked):
        require(name in KINDS, f"--only names {name!r}", allowed=", ".join(KINDS))
    # A dry run shows every kind, so that one can choose.
    asked = asked or set(KINDS if dry_run else ("leftovers",))
    counts = {"n": 0, "bytes": 0, "removed": 0, "bytes_removed": 0}
    kinds = {kind: what for kind, what in KINDS.items() if kind in asked}
    rows: dict[str, dict[str, Any]] = {k: {"what": what, **counts} for k, what in kinds.items()}
    for item in [one for one in removables(runs_dir, data_dir) if one.kind in asked]:
        row, n_bytes = rows[item.kind], item.n_bytes
        row["n"] += 1
        row["bytes"] += n_bytes
        if dry_run:
            continue
        try:
            if item.remove():
                row["removed"] += 1
                row["bytes_removed"] += n_bytes
            else:
                name = "/".join(item.path.parts[-2:])
                answer.warnings.append(f"{name} was left: a process is at work on it")
        except OSError as error:
            reason = error.strerror or error
            answer.errors.append(RunError(f"{item.path} cannot be removed: {reason}"))
    answer.data = {"dry_run": dry_run, "kinds": rows}
    n, size = ("n", "bytes") if dry_run else ("removed", "bytes_removed")
    lines = [(kind, str(row[n]), f"{row[size] / 2**20:,.1f}", row["what"])
             for kind, row in rows.items()]  # fmt: skip
    what = Column("what it is", left=True, fold=True)
    print_table(Table.of(["kind", "here" if dry_run else "removed", "MiB", what], lines))
    if dry_run:
        out.print("Nothing was removed. `facebench clean --only KIND,KIND` removes kinds.")


def doctor(
    answer: options.Answer,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:
    """Say what this machine has: device, data, weights, disk, packages.

    Examples:
      facebench doctor
    """
    from benchmark.data.dataset import prepared_datasets
    from benchmark.training.device import choose_device

    with busy("looking"):
        device, versions = choose_device(), provenance.versions()
        data = ", ".join(faces.name for faces in prepared_datasets(data_dir))
        files = (weights_dir or data_dir / "weights").glob("*.safetensors")
        weights = ", ".join(sorted(path.stem for path in files))
        place = next(one for one in (runs_dir / "x").resolve().parents if one.exists())
        free_gib = shutil.disk_usage(place).free / 2**30
        missing = [name for name in provenance.NAMED_PACKAGES if name not in versions]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    on_gpu = device.kind == "cuda"
    rows = (
        ("device", f"{device.kind}: {device.description}, {device.precision}", on_gpu,
         "A CUDA GPU trains faster; the quick suite does without"),
        ("data", data or "no prepared data set", bool(data),
         "facebench data prepare SOURCE, or --dataset drawn for synthetic faces"),
        ("weights", weights or "none", bool(weights),
         "facebench weights list says where to get them"),
        ("disk", f"{free_gib:.0f} GiB free for runs", free_gib >= LOW_DISK_GIB,
         f"Free some space: under {LOW_DISK_GIB} GiB are left"),
        ("packages", packages, not missing, f"Install {', '.join(missing)}"),
    )  # fmt: skip
    answer.data = [{"what": what, "found": found, "fix": "" if fine else fix}
                   for what, found, fine, fix in rows]  # fmt: skip
    folded = [Column(heading, left=True, fold=True) for heading in ("found", "to do")]
    lines = [(row["what"], row["found"], row["fix"] or "nothing") for row in answer.data]
    print_table(Table.of(["what", *folded], lines, "This machine"))


def status(
    answer: options.Answer,
    names: options.Experiments = None,
    suite: options.OneSuite = None,
    seeds: options.Seeds = "0",
    dataset: Annotated[
        str | None, options.option("Runs on this one.", autocompletion=options.complete_dataset)
    ] = None,
    all_: Annotated[bool, options.option("List finished runs too.", "--all")] = False,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """List runs with their state (not run, queued, running, interrupted, failed, damaged, done),
    where they run, and the time left of each and of the suites that run now.

    Without a name or suite, every run that has begun here or is queued. Nothing is changed.

    Examples:
      facebench status
      facebench status --suite quick --seeds 0,1,2
      facebench status mtl-cnn-none-full-short --json
    """
    from benchmark.comparison.library import STATES as ORDER
    from benchmark.comparison.library import Library, read_runs, standing
    from benchmark.runs.queue import queues, seconds_left

    with busy("reading runs"):
        wanted, numbers = options.experiments_named(names, suite), options.parse_seeds(seeds)
        records, going = list(all_records(runs_dir)), list(queues(runs_dir))
        if wanted:
            library = Library(tuple(read_runs(records)[0]), wanted, {})
            found = _with_queues(library.standings(wanted, numbers, dataset), going, add=False)
        else:
            here = (it for it in map(standing, records) if dataset in (None, it.dataset))
            found = _with_queues(here, going, add=True)
            found.sort(key=lambda item: (ORDER.index(item.state), item.name, item.seed or 0))
        shown = [(item, _seconds_left(item, runs_dir)) for item in found]
    counts = Counter(item.state for item in found)
    rows = [
        item.as_dict() | ({} if seconds is None else {"seconds_left": seconds})
        for item, seconds in shown
    ]
    took = _median_seconds(records) if going else {}
    suites = list[dict[str, Any]]()
    for queue in going:
        left = seconds_left(queue, took, time.time())
        about: dict[str, Any] = {name: getattr(queue, name) for name in QUEUE_FIELDS}
        about["counts"] = dict(Counter(run.state for run in queue.runs))
        suites.append(about | {"seconds_left": None if left is None else round(left)})
    answer.data = {"counts": dict(counts), "runs": rows, "suites": suites}
    table = _states_table(shown, finished=all_ or bool(wanted))
    if table.rows:
        print_table(table)
    parts = [(counts[state], *STATES[state]) for state in ORDER if counts[state]]
    words = ", ".join(f"{n} [{colour}]{word}[/]" for n, word, colour in parts)
    out.print(f"{words}." if words else f"No run has begun in {runs_dir}. {HOW_TO_RUN}.")
    for one in suites:
        said = ", ".join(f"{n} {state}" for state, n in one["counts"].items())
        left = one["seconds_left"]
        out.print(
            f"{sum(one['counts'].values())} runs by process {one['pid']} on {one['host']} "
            f"({one['engine']}, {one['n_slots']} at once): {said}; "
            f"time left: {'not known yet' if left is None else duration(left)}.",
            soft_wrap=True,
        )


def _with_queues(
    shown: "Iterable[Standing]", going: "Sequence[Queue]", *, add: bool
) -> "list[Standing]":
    """Say of runs that they wait or where they run; add: those too that have not begun."""
    from benchmark.comparison.library import Standing

    runs = [run for queue in going for run in queue.runs]
    where = {run.identity: run.where for run in runs if run.state == "running"}
    waiting = dict.fromkeys((run.name, run.seed) for run in runs if run.state == "queued")
    listed: list[Standing] = []
    for item in shown:
        key = item.name, item.seed or 0
        if item.state == "claimed":
            item = replace(item, where=where.get(item.identity, ""))
            waiting.pop(key, None)  # The file may not say yet that it has begun.
        elif item.state != "done" and key in waiting:
            item = replace(item, state="queued")
            waiting.pop(key)
        listed.append(item)
    return listed + [Standing("queued", name, seed) for name, seed in waiting if add]


def _median_seconds(records: "Sequence[RunRecord]") -> dict[str, float]:
    """Give the seconds of finished runs by experiment, from their start to `done.json`."""
    took: dict[str, list[float]] = {}
    for record in records:
        with contextlib.suppress(BenchmarkError, LookupError, ValueError):
            if record.state == "done":
                times = record.about["started"], record.done["finished"]
                began, ended = map(datetime.datetime.fromisoformat, times)
                took.setdefault(record.experiment_name, []).append((ended - began).total_seconds())
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def _seconds_left(item: "Standing", runs_dir: Path) -> int | None:
    """Predict the time to the recipe's last epoch; None without an epoch, or where nothing runs."""
    if item.state != "claimed" or not item.epochs or item.of_epochs is None:
        return None
    try:
        history = RunRecord(work_folder(runs_dir) / item.identity).history()
    except RunError:
        return None
    return round(float(history["epoch_seconds"].median()) * (item.of_epochs - item.epochs))


def _states_table(shown: "list[tuple[Standing, int | None]]", *, finished: bool) -> Table:
    rows: list[tuple[str | Cell, ...]] = []
    for item, seconds in shown:
        if item.state in ("done", "queued") and not finished:
            continue
        word, colour = STATES[item.state]
        why = item.why.strip().partition("\n")[0]
        why = why if len(why) <= 160 else why[:159] + "…"
        name = Cell(item.name + (" (ad hoc)" if item.ad_hoc else ""), why)
        seed = "" if item.seed is None else str(item.seed)
        epochs = "" if item.epochs is None else f"{item.epochs}/{item.of_epochs}"
        left = "" if seconds is None else duration(seconds)
        process = f"{item.pid or ''}{f' on {item.where}' if item.where else ''}"
        since = item.since.removesuffix("+00:00").replace("T", " ")
        state = Cell(word, style=colour)
        rows.append((state, name, seed, epochs, left, process, since))
    numbers = [Column(heading, left=False) for heading in ("seed", "epochs", "left", "process")]
    name_column = Column("experiment", left=True, names=True)
    return Table.of(["state", name_column, *numbers, Column("since (UTC)", left=True)], rows)
