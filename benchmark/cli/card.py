"""`facebench card`: the model card of a trained run, shown, kept with the run, and in MLflow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markdown import Markdown

from benchmark.cli.completion import complete_run
from benchmark.cli.options import DEFAULT_RUNS_DIR, AsJson, Quiet, RunsDir
from benchmark.cli.output import CommandResult, busy, err, out, speaking
from benchmark.cli.report import named_file
from benchmark.errors import RunError
from benchmark.files import write_text
from benchmark.record import RunRecord

if TYPE_CHECKING:
    from benchmark.reporting.card import Origin

EXAMPLES = """
Examples:

  facebench card mtl-cnn-none-full-short

  facebench card fc7728290a43 --out card.html

  facebench card fc7728290a43 --json
"""


def card(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's id (8 digits or more), or an experiment: all its finished seeds.",
            autocompletion=complete_run,
        ),
    ],
    out_path: Annotated[
        Path | None,
        typer.Option("--out", help="Write it there too: FILE.md or FILE.html, or a folder."),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write the model card of a trained run: uses, accuracy by subgroup, limitations, licences.

    Kept as card.md in the run's folder, and in MLflow where the run is there.
    """
    with speaking("card", as_json=as_json) as answer:
        from benchmark.reporting.card import CARD_FILE, model_card
        from benchmark.runs.notes import page
        from benchmark.tracking import mirror_again

        records = _finished(runs_dir, name, answer)
        answer.data = {"cards": []}
        for record in records:
            with busy(f"writing the card of seed {record.seed}", quiet=quiet or as_json):
                text = model_card(record, _origin(record))
                written = [record.folder / CARD_FILE]
                write_text(written[0], text)
                if out_path is not None:
                    part = f"seed-{record.seed}" if len(records) > 1 else ""
                    usual = f"{record.experiment_name}-seed-{record.seed}.md"
                    written.append(named_file(out_path, usual, (".md", ".html"), part))
                    title = f"Model card: {record.experiment_name}, seed {record.seed}"
                    is_page = written[-1].suffix == ".html"
                    write_text(written[-1], page(text, title) if is_page else text)
            with busy("bringing it to MLflow", quiet=quiet or as_json):
                try:
                    mirror_again(RunRecord(record.folder), runs_dir)
                except RunError as error:
                    answer.warnings.append(f"{error} The card is in the run's folder.")
            files = [str(path) for path in written]
            answer.data["cards"].append(
                {"identity": record.identity, "files": files, "markdown": text}
            )
            if not as_json and not quiet:
                # Laid out on a terminal, as Markdown into a file or pipe.
                shown = Markdown(text) if out.is_terminal else text
                out.print(shown, soft_wrap=True, markup=False)
            if not as_json:
                err.print(f"Written: {written[-1]}", soft_wrap=True, markup=False)


def _finished(runs_dir: Path, name: str, answer: CommandResult) -> list[RunRecord]:
    """Find the runs that are meant; of an experiment those that are finished."""
    from benchmark.cli.library import chosen_runs

    records = [run.record for run in chosen_runs(runs_dir, [name], answer)]
    if not records:
        raise RunError(
            f"no run of {name} is in the runs folder",
            source=str(runs_dir),
            fix=f"`facebench run {name}` makes one",
        )
    done = [record for record in records if record.state == "done"]
    # Where none is finished, the first says in which state it is.
    return sorted(done, key=lambda record: record.seed) or records[:1]


def _origin(record: RunRecord) -> "Origin":
    """Look up what is known of the weights that a run started from."""
    from benchmark.models.weight_manifest import FILES
    from benchmark.reporting.card import Origin

    weights = record.about["weights"]
    for known in FILES if weights["source"] != "none" else ():
        if known.file_name == weights.get("origin"):
            return Origin(known.licence, known.trained_on)
    return Origin()
