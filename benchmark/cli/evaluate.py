"""`facebench evaluate`: a trained run on the faces of another data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    DeviceName,
    Quiet,
    RunsDir,
    complete_dataset,
    complete_run,
)
from benchmark.cli.output import ExitCode, busy, out, print_table, progress_bar, say_error, speaking
from benchmark.errors import BenchmarkError, RunError
from benchmark.reporting.tables import NOTHING, Cell, Table
from benchmark.tasks import TASK_TITLES

if TYPE_CHECKING:
    from benchmark.inference.evaluate import Evaluation


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
    device: DeviceName = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a trained network on another data set, scored as a run is scored.

    Faces that the run was trained or selected on are left out. Tasks are evaluated on the faces
    that are labelled with them; which words are compared as which class is said. Predictions,
    tables and figures go to RUNS_DIR/evaluations; the run's own folder is not changed.

    Examples:
      facebench evaluate --run b9aa30a6a761 --dataset fairface-100
      facebench evaluate --run mtl-cnn-none-full-short --dataset photos-100 --json
    """
    code, silent = ExitCode.FINE, quiet or as_json
    with speaking("evaluate", as_json=as_json) as answer:
        from benchmark.cli.library import chosen_runs
        from benchmark.data.dataset import choose_dataset, prepared_datasets
        from benchmark.inference.evaluate import evaluate as evaluate_run
        from benchmark.inference.evaluate import write
        from benchmark.training.device import choose_device

        chosen = [found.record for found in chosen_runs(runs_dir, [run], answer)]
        records = [record for record in chosen if record.state == "done"] or chosen[:1]
        if not records:
            raise RunError(
                f"no run of {run} is here",
                source=str(runs_dir),
                fix=f"`facebench run {run}` makes one",
            )
        faces = choose_dataset(data_dir, dataset)
        place = choose_device(device, "fp32").torch_device
        answer.data = {"dataset": faces.name, "evaluations": []}
        for record in sorted(records, key=lambda record: record.seed):
            try:
                with progress_bar(quiet=silent) as bar:
                    title = f"evaluating faces, seed {record.seed}"
                    update = _updating(bar, bar.add_task(title, total=None))
                    found = evaluate_run(
                        record, faces, place, lambda: prepared_datasets(data_dir), update
                    )
                try:
                    with busy("writing tables and figures", quiet=silent):
                        folder = write(found, runs_dir)
                except OSError as error:
                    raise RunError(
                        f"the evaluation cannot be written: {error.strerror or error}",
                        source=str(runs_dir / "evaluations"),
                    ) from error
                answer.data["evaluations"].append({"folder": str(folder), **found.as_dict()})
                if not as_json:
                    _print(found, folder)
            except BenchmarkError as error:
                if len(records) == 1:
                    raise
                answer.errors.append(error)
                code = ExitCode.RUNS_FAILED
                if not as_json:
                    say_error(error)
    if code is not ExitCode.FINE:
        raise typer.Exit(code)


def _updating(bar: Any, task: Any) -> Any:
    return lambda n_done, n_all: bar.update(task, completed=n_done, total=n_all)


def _print(found: "Evaluation", folder: Path) -> None:
    record, faces = found.record, found.faces
    drawn = " [bold yellow](synthetic faces)[/]" if faces.drawn else ""
    out.print(
        f"[bold]{escape(record.experiment_name)}[/], seed {record.seed}, run "
        f"{record.identity[:12]}, trained on {escape(record.about['dataset']['name'])}, evaluated "
        f"on [bold]{escape(faces.name)}[/]{drawn}: {found.sentence}.",
        soft_wrap=True,
    )
    own, here = record.metrics, found.metrics
    tasks = [(group, task) for group in found.groups for task in group.tasks]
    rows: list[list[str | Cell]] = []
    for group, task in tasks:
        name = f"test/{task}/accuracy"
        ends = [here[f"{name}/{end}"] for end in ("low", "high") if f"{name}/{end}" in here]
        accuracy = Cell(_percent(here[name]), _span(*ends) if len(ends) == 2 else "")
        others = (_percent(here.get(f"test/{task}/macro_f1")), _percent(own.get(name)))
        rows.append([TASK_TITLES[task], f"{len(group.predictions):,}", accuracy, *others])
    headings = ("task", "faces", "here", "macro-F1", "own test")
    print_table(Table.of(headings, rows, "Accuracy, with its 95 % interval"))
    for column, lines in found.by_word.groupby("column", sort=False):
        words, rows = str(column).replace("_", " "), []
        for word, of_word in lines.groupby("word", sort=False):
            by_task = of_word.set_index("task").to_dict("index")
            rows.append([str(word), *(_cell(by_task.get(task)) for _, task in tasks)])
        titles = [words, *(TASK_TITLES[task] for _, task in tasks)]
        print_table(Table.of(titles, rows, f"By the {words} that {faces.name} states"))
    for sentence in (*_worst(found), *found.notes, f"Everything else: {folder}"):
        out.print(escape(sentence), soft_wrap=True)


def _span(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %"


def _cell(line: "dict[Any, Any] | None") -> Cell:
    """Write an accuracy with its interval and its faces; of a small group only these."""
    from benchmark.evaluation.subgroups import SMALL_GROUP

    if line is None:
        return Cell()
    n_faces = f"{line['n']:,} faces"
    if line["n"] < SMALL_GROUP:
        return Cell(n_faces)
    return Cell(_percent(line["accuracy"]), f"{_span(line['low'], line['high'])}; {n_faces}")


def _worst(found: "Evaluation") -> Iterator[str]:
    """Say for which subgroup of 30 faces or more each task is predicted worst."""
    for group in found.groups:
        gaps = group.scores.gaps
        for row in gaps[(gaps["n_ranked"] >= 2) & (gaps["by"] == "gender_race")].to_dict("records"):
            yield (
                f"{TASK_TITLES[row['task']]}: worst for {row['worst_group']} "
                f"({_percent(row['worst'])} of {int(row['worst_n']):,}), best for "
                f"{row['best_group']} ({_percent(row['best'])}); a gap of "
                f"{100 * row['chance_gap']:.1f} pp is expected by chance alone."
            )
