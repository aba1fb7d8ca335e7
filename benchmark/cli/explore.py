"""`facebench data explore`: the composition of a data set, as a page and figures without a face."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, DatasetName, Overwrite, Quiet
from benchmark.cli.output import busy, out, print_table, speaking
from benchmark.errors import DataError
from benchmark.reporting.tables import Column, Table

if TYPE_CHECKING:
    from benchmark.reporting.explore import Explored


def explore(
    dataset: DatasetName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for the page and its PNGs; DATA_DIR/DATASET/explore if left out."
        ),
    ] = None,
    overwrite: Overwrite = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the composition of a data set: labels alone and together, ages, parts, duplicates.

    Writes one page that needs nothing else, and its figures as PNGs. Neither holds a picture of
    anybody. Nothing is changed in the data set.

    Examples:
      facebench data explore
      facebench data explore --dataset utkface-100 --out docs/pictures/utkface
      facebench data explore --dataset drawn --json
    """
    from benchmark.data.sample import choose_dataset
    from benchmark.reporting.explore import explore as explore_faces
    from benchmark.reporting.explore_page import write_exploration

    with speaking("data explore", as_json=as_json) as answer:
        silent = quiet or as_json
        faces = choose_dataset(data_dir, dataset)
        with busy(f"counting the faces of {faces.name}", quiet=silent):
            explored = explore_faces(faces)
        folder = output or explored.faces.folder / "explore"
        try:
            with busy("drawing", quiet=silent):
                written = write_exploration(explored, folder, overwrite or output is None)
        except OSError as error:
            raise DataError(
                f"the page cannot be written: {error.strerror or error}",
                source=str(folder),
                fix="Name another folder with --out",
            ) from error
        answer.data = {**explored.numbers, "files": [str(path) for path in written]}
        if not as_json:
            if not quiet:
                _print(explored)
            out.print(f"Page: {escape(str(written[0]))}", soft_wrap=True)


def _print(explored: "Explored") -> None:
    from benchmark.reporting.explore_page import facts, lead, notes

    out.print(f"[bold]{escape(explored.faces.name)}[/]: {escape(lead(explored))}")
    print_table(Table.of(["", Column("", left=True, fold=True)], facts(explored)))
    for note in notes(explored):
        out.print(escape(note))
