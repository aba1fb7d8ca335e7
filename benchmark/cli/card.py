"""`facebench card`: the model card of a trained run, shown, kept with the run, and in MLflow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markdown import Markdown

from benchmark.cli.completion import complete_run
from benchmark.cli.options import DEFAULT_RUNS_DIR, AsJson, Quiet, RunsDir
from benchmark.cli.output import Answer, busy, err, out, speaking
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
    """Write the model card of a trained run: for what, for whom it fails, limits, licences.

    Kept as card.md in the run's folder, and in MLflow where the run is there.
    """
    with speaking("card", as_json=as_json) as answer:
        from benchmark.reporting.card import CARD_FILE, model_card

        records = _finished(runs_dir, name, answer)
        answer.data = {"cards": []}
        for record in records:
            with busy(f"writing the card of seed {record.seed}", quiet=quiet or as_json):
                text = model_card(record, _origin(record))
            written = [record.folder / CARD_FILE]
            _write(written[0], text)
            if out_path is not None:
                written.append(_target(out_path, record, several=len(records) > 1))
                _write(written[-1], _as_asked(written[-1], text, record))
            with busy("bringing it to MLflow", quiet=quiet or as_json):
                _mirror(record, runs_dir, answer)
            files = [str(path) for path in written]
            answer.data["cards"].append(
                {"identity": record.identity, "files": files, "markdown": text}
            )
            if not as_json and not quiet:
                _show(text)
            if not as_json:
                err.print(f"Written: {written[-1]}", soft_wrap=True, markup=False)


def _show(text: str) -> None:
    """Print a card: laid out on a terminal, as Markdown into a file or pipe."""
    if out.is_terminal:
        out.print(Markdown(text))
    else:
        out.print(text, soft_wrap=True, markup=False)


def _finished(runs_dir: Path, name: str, answer: Answer) -> list[RunRecord]:
    """Find the runs that are meant; of an experiment those that are finished."""
    from benchmark.cli.rescore import chosen_runs

    records = [run.record for run in chosen_runs(runs_dir, [name], answer)]
    done = [record for record in records if record.state == "done"]
    if not records:
        raise RunError(
            f"no run of {name} is here",
            source=str(runs_dir),
            fix=f"`facebench run {name}` makes one",
        )
    # Where none is finished, the first says how it stands.
    return sorted(done, key=lambda record: record.seed) or records[:1]


def _origin(record: RunRecord) -> "Origin":
    """Look up what is known of the weights that a run started from."""
    from benchmark.reporting.card import Origin

    weights = record.about["weights"]
    if weights["source"] == "none":
        return Origin()
    from benchmark.models.weight_manifest import FILES

    for known in FILES:
        if known.file_name == weights.get("origin"):
            return Origin(known.licence, known.trained_on)
    return Origin()


def _target(asked: Path, record: RunRecord, *, several: bool) -> Path:
    """Name the file to write; a name without an ending is a folder."""
    if asked.suffix in (".md", ".html") and not asked.is_dir():
        return asked.with_stem(f"{asked.stem}-seed-{record.seed}") if several else asked
    if asked.suffix and not asked.is_dir():
        raise RunError(f"--out is {asked}", allowed="FILE.md, FILE.html or a folder")
    return asked / f"{record.experiment_name}-seed-{record.seed}.md"


def _as_asked(path: Path, text: str, record: RunRecord) -> str:
    if path.suffix != ".html":
        return text
    from benchmark.runs.notes import page

    return page(text, f"Model card: {record.experiment_name}, seed {record.seed}")


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def _mirror(record: RunRecord, runs_dir: Path, answer: Answer) -> None:
    """Bring the card to MLflow, if the run is there; trouble is said, and no obstacle."""
    from benchmark.tracking import mirror_again

    try:
        mirror_again(RunRecord(record.folder), runs_dir)
    except RunError as error:
        answer.warnings.append(f"{error} The card is in the run's folder.")
