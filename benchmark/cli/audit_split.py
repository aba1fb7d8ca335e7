"""`facebench audit-split`: what the parts of any split share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmark.cli.options import Answer, Overwrite, option
from benchmark.cli.output import out, print_table, watching
from benchmark.errors import DataError, and_more
from benchmark.files import check_outputs, replacing
from benchmark.reporting.tables import NOTHING, Column, Table

VERDICTS: Final = {
    "leaking": "[bold red]Leaking.[/]",
    "undecided": "[yellow]Undecided:[/] nothing leaks for certain, but names are alike.",
    "clean": "[green]Clean:[/] no two parts share a name, a file's bytes or a near-duplicate.",
    "clean by name": "[green]Clean[/] as far as names tell: no two parts share one.",
}


# fmt: off
Train = Annotated[Path, typer.Argument(
    metavar="TRAIN",
    help="Training part: a CSV, a text list of names, a folder or an archive of pictures.")]
Parts = Annotated[list[Path], typer.Argument(
    metavar="PART", help="The other parts, given likewise.")]
CsvFile = Annotated[Path | None, option(
    "Write every pair of files that two parts share here.", "--csv")]
# fmt: on
Images = Annotated[Path | None, option("Folder or archive with the pictures that lists name.")]


def audit_split(
    answer: Answer,
    train: Train,
    parts: Parts,
    images: Images = None,
    csv_file: CsvFile = None,
    overwrite: Overwrite = False,
) -> None:
    """Say what the parts of a split share by name, bytes or near-duplicate.

    A CSV is read by its column file, filename, image, path or name, else by
    its first; a list has a name on each line; folders are searched in depth.

    Exits with 0 if the split is clean, with 1 if it leaks or if names alone
    cannot tell, and with 2 if a part cannot be read.

    Examples:
      facebench audit-split faces/train faces/val faces/test
      facebench audit-split train.csv test.csv --images faces --csv shared.csv
    """
    from benchmark.data import split_audit

    if csv_file is not None:
        check_outputs([csv_file], overwrite=overwrite, inputs=[train, *parts, images])
    with watching() as watch:
        audit, pairs = split_audit.audit_split([train, *parts], images, watch)
    if csv_file is not None:
        with replacing(csv_file) as path:
            pairs.to_csv(path, index=False, lineterminator="\n", errors="backslashreplace")
    answer.data = audit
    answer.errors = list(_findings(audit))
    answer.warnings = list(_warnings(audit))
    for table in _tables(audit):
        print_table(table)
    by_name = audit["verdict"] == "clean" and any(it["without_a_picture"] for it in audit["parts"])
    out.print(VERDICTS["clean by name" if by_name else audit["verdict"]])


def _findings(audit: dict[str, Any]) -> Iterator[DataError]:
    """Say in a sentence what leaks from each part into another, and what may."""
    training = audit["parts"][0]["name"]
    for overlap in audit["overlaps"]:
        part, other, n_files = overlap["part"], overlap["other_part"], f"{overlap['files']:,} files"
        if overlap["leaking"]:
            seen = overlap["leaking_fraction"]
            # Faces seen are taken to be as hard as the others, and to be all predicted rightly.
            highest = f": an honest 70 % can read as up to {_percent(0.7 + 0.3 * seen)}"
            yield DataError(
                f"{_percent(seen)} of {part} ({overlap['leaking']:,} of {n_files}) is in {other}"
                + (highest if other == training else "")
            )
        if overlap["undecided"]:
            yield DataError(
                f"{overlap['undecided']:,} of {n_files} of {part} may be in {other}: their names "
                "are alike and the pictures of both were not compared",
                fix="--images FOLDER compares the pictures of lists",
            )


def _warnings(audit: dict[str, Any]) -> Iterator[str]:
    """Say what was not compared, or not as it was given, and why."""
    for part in audit["parts"]:
        name, again, absent = part["name"], part["repeated_names"], part["without_a_picture"]
        unlike = [f"{entry['file']}: {entry['reason']}" for entry in part["not_comparable"]]
        for n, what in (
            (len(again), f"names of {name} are repeated, and count once ({and_more(again, 3)})"),
            (part["rows_without_a_name"], f"rows of {name} have no name, and are left out"),
            (part["not_pictures"], f"files of {name} are no pictures by their names"),
            (absent, f"of {part['files']:,} names of {name} have no picture, and are compared by "
             f"name only ({and_more(part['not_found'] or ['--images FOLDER finds them'], 3)})"),
            (len(unlike), f"pictures of {name} are not compared as near-duplicates "
             f"({and_more(unlike, 3)})"),
        ):  # fmt: skip
            if n:
                yield f"{n:,} {what}."


def _tables(audit: dict[str, Any]) -> Iterator[Table]:
    """Lay out overlaps and examples."""
    by_name_only = {part["name"] for part in audit["parts"] if not part["compared_by_bytes"]}
    alike = ("same_name", "same_base_name", "same_bytes", "near_duplicates", "leaking")
    rows, examples = [], []
    for overlap in audit["overlaps"]:
        pair = (overlap["part"], overlap["other_part"])
        counts = [f"{overlap[key]:,}" for key in alike]
        if by_name_only & {*pair}:
            counts[2:4] = NOTHING, NOTHING
        rows.append((*pair, *counts, _percent(overlap["leaking_fraction"])))
        for found in overlap["examples"]:
            text = f"{found['finding']} by {found['found_by']}"
            text += "" if found["bits_apart"] is None else f", {found['bits_apart']} of 256 bits"
            text += ", mirrored" if found["mirrored"] else ""
            text += f", name {found['name']}" if found["name"] else ""
            files = f"{pair[0]}: {found['file']}\n{pair[1]}: {found['other_file']}"
            examples.append((text, files))
    heads = ("same name", "base name", "same bytes", "near-dup.", "together", "share")
    yield Table.of(("part", "in", *heads), rows, "Files of one part that are in another")
    if examples:
        columns = [Column(head, left=True, fold=True) for head in ("found", "files")]
        yield Table.of(columns, examples, "Examples (--csv FILE writes every pair)")


def _percent(fraction: float) -> str:
    """Write a fraction in percent; one that is not nothing never reads as nothing."""
    return "<0.1 %" if 0 < fraction < 0.0005 else f"{100 * fraction:.1f} %"
