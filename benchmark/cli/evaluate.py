"""`facebench evaluate`: a trained run on the faces of another data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from benchmark.cli.completion import complete_dataset, complete_run
from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
)
from benchmark.cli.output import Answer, ExitCode, busy, out, progress_bar, say_error, speaking
from benchmark.errors import BenchmarkError, RunError
from benchmark.tasks import TASK_TITLES

if TYPE_CHECKING:
    from benchmark.inference.evaluate import Evaluation
    from benchmark.record import RunRecord

EXAMPLES = """
Examples:

  facebench evaluate --run b9aa30a6a761 --dataset fairface-100

  facebench evaluate --run mtl-cnn-none-full-short --dataset photos-100 --json
"""


def evaluate(
    run: Annotated[
        str,
        typer.Option(
            "--run",
            help="A finished run's id (8 digits or more), or an experiment.",
            autocompletion=complete_run,
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            help="A prepared data set, or `drawn`.",
            autocompletion=complete_dataset,
        ),
    ],
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps; the fastest if left out.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Read the faces of another data set with a trained network, and score it as a run is scored.

    Faces that the run was trained or selected on are left out. Tasks are evaluated on the faces
    that are labelled with them; which words are compared as which class is said. Predictions,
    tables and pictures go to RUNS_DIR/evaluations; the run's own folder is not changed.
    """
    code = ExitCode.FINE
    with speaking("evaluate", as_json=as_json) as answer:
        from benchmark.cli.rescore import chosen_runs
        from benchmark.data.sample import choose_dataset

        chosen = [found.record for found in chosen_runs(runs_dir, [run], answer)]
        records = [record for record in chosen if record.state == "done"] or chosen[:1]
        if not records:
            raise RunError(
                f"no run of {run} is here",
                source=str(runs_dir),
                fix=f"`facebench run {run}` makes one",
            )
        faces = choose_dataset(data_dir, dataset)
        answer.data = {"dataset": faces.name, "evaluations": []}
        for record in sorted(records, key=lambda record: record.seed):
            try:
                found = _evaluate_one(answer, record, faces, device, data_dir, runs_dir,
                              quiet=quiet or as_json)  # fmt: skip
                if not as_json:
                    _print(*found)
            except BenchmarkError as error:
                if len(records) == 1:
                    raise
                answer.errors.append(error)
                code = ExitCode.RUNS_FAILED
                if not as_json:
                    say_error(error)
    if code is not ExitCode.FINE:
        raise typer.Exit(code)


def _evaluate_one(
    answer: Answer, record: "RunRecord", faces: Any, device: str | None, data_dir: Path,
    runs_dir: Path, *, quiet: bool,
) -> "tuple[Evaluation, Path]":  # fmt: skip
    from benchmark.data.dataset import prepared_datasets
    from benchmark.inference.evaluate import evaluate as evaluate_run
    from benchmark.inference.evaluate import evaluation_folder, write
    from benchmark.training.device import choose_device

    chosen = choose_device(device, "fp32")
    with progress_bar(quiet=quiet) as bar:
        reading = bar.add_task(f"reading faces, seed {record.seed}", total=None)
        found = evaluate_run(
            record,
            faces,
            chosen.torch_device,
            lambda: prepared_datasets(data_dir),
            lambda n_done, n_all: bar.update(reading, completed=n_done, total=n_all),
        )
    folder = evaluation_folder(runs_dir, found)
    try:
        with busy("writing tables and pictures", quiet=quiet):
            write(found, folder)
    except OSError as error:
        raise RunError(
            f"the evaluation cannot be written: {error.strerror or error}", source=str(folder)
        ) from error
    answer.data["evaluations"].append({"folder": str(folder), **found.as_dict()})
    return found, folder


def _print(found: "Evaluation", folder: Path) -> None:
    record, faces = found.record, found.faces
    drawn = " [bold yellow](drawn faces)[/]" if faces.drawn else ""
    out.print(
        f"[bold]{escape(record.experiment_name)}[/], seed {record.seed}, run "
        f"{record.identity[:12]}, trained on {escape(record.about['dataset']['name'])}, read "
        f"[bold]{escape(faces.name)}[/]{drawn}: {found.unseen.sentence}.",
        soft_wrap=True,
    )
    out.print(_scores_table(found))
    for column in found.by_word["column"].unique():
        out.print(_words_table(found, column))
    for sentence in (*_worst(found), *found.notes):
        out.print(escape(sentence), soft_wrap=True)
    out.print(f"Everything else: {escape(str(folder))}", soft_wrap=True)


def _scores_table(found: "Evaluation") -> Table:
    """Lay out a row per task: here with its interval, and on the run's own test faces."""
    own, here = found.record.metrics, found.metrics
    table = Table(title="Accuracy, with its 95 % interval", title_justify="left")
    table.add_column("task")
    for heading in ("faces", "here", "macro-F1", "own test"):
        table.add_column(heading, justify="right")
    for group in found.groups:
        for task in group.tasks:
            name = f"test/{task}/accuracy"
            ends = [here.get(f"{name}/{end}") for end in ("low", "high")]
            span = f" ({100 * ends[0]:.1f}–{100 * ends[1]:.1f})" if None not in ends else ""  # type: ignore[operator]
            table.add_row(
                TASK_TITLES[task],
                f"{len(group.predictions):,}",
                f"{100 * here[name]:.1f} %{span}",
                _percent(here.get(f"test/{task}/macro_f1")),
                _percent(own.get(name)),
            )
    return table


def _words_table(found: "Evaluation", column: str) -> Table:
    """Lay out a row per word of the data set's own label, and a column per task."""
    lines = found.by_word[found.by_word["column"] == column]
    tasks = [task for group in found.groups for task in group.tasks]
    title = f"By the {column.replace('_', ' ')} that {found.faces.name} states"
    table = Table(title=title, title_justify="left")
    table.add_column(column.replace("_", " "))
    for task in tasks:
        table.add_column(TASK_TITLES[task], justify="right")
    for word, of_word in lines.groupby("word", sort=False):
        by_task = of_word.set_index("task").to_dict("index")
        table.add_row(escape(str(word)), *(_cell(by_task.get(task)) for task in tasks))
    return table


def _cell(line: "dict[Any, Any] | None") -> str:
    """Write an accuracy with its interval and its faces; of a small group only these."""
    from benchmark.evaluation.subgroups import SMALL_GROUP

    if line is None:
        return "–"
    if line["n"] < SMALL_GROUP:
        return f"{line['n']} faces"
    span = f"{100 * line['low']:.1f}–{100 * line['high']:.1f}"
    return f"{100 * line['accuracy']:.1f} % ({span})\n{line['n']:,} faces"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _worst(found: "Evaluation") -> Sequence[str]:
    """Say for whom each task is read worst, among the groups of 30 faces or more."""
    said = []
    for group in found.groups:
        gaps = group.scores.gaps
        for row in gaps[gaps["n_ranked"] >= 2].to_dict("records"):
            if row["by"] != "gender_race":
                continue
            said.append(
                f"{TASK_TITLES[row['task']]}: worst for {row['worst_group']} "
                f"({100 * row['worst']:.1f} % of {int(row['worst_n']):,}), best for "
                f"{row['best_group']} ({100 * row['best']:.1f} %); chance alone would part them by "
                f"{100 * row['chance_gap']:.1f} points."
            )
    return said
