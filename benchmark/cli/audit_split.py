"""`facebench audit-split`: what the parts of any split share, and what that does to an accuracy."""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape

from benchmark.cli.options import AsJson, Overwrite, Quiet
from benchmark.cli.output import ExitCode, err, out, print_table, speaking, watching
from benchmark.errors import DataError
from benchmark.files import check_outputs, replacing
from benchmark.reporting.tables import NOTHING, Column, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmark.data.split_audit import FilePair

SHOWN_HONEST: Final = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Honest accuracies the inflation is shown for, where none is given."""
SHOWN_NAMES: Final = 3
"""How many names a note lists."""
INFLATION_RULE: Final = (
    "An accuracy lies between honest (the network remembers nothing it was trained on) and "
    "honest + seen x (1 - honest) (it remembers all of it). Arithmetic, which takes faces seen "
    "to be as hard as the others."
)
VERDICTS: Final = {
    "leaking": "[bold red]Leaking.[/]",
    "undecided": "[yellow]Undecided:[/] nothing leaks for certain, but names are alike.",
    "clean": "[green]Clean:[/] no two parts share a name, a file's bytes or a near-duplicate.",
    "clean by name": "[green]Clean[/] as far as names tell: no two parts share one.",
}


def audit_split(
    train: Annotated[
        Path,
        typer.Argument(
            metavar="TRAIN",
            help="Training part: a CSV, a text list of names, a folder or an archive of pictures.",
        ),
    ],
    parts: Annotated[
        list[Path], typer.Argument(metavar="PART", help="The other parts, given likewise.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder or archive with the pictures that lists name."),
    ] = None,
    honest: Annotated[
        float | None,
        typer.Option(help="Accuracy on faces not seen, as 0.7; several are shown if left out."),
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write every pair that two parts share here.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what the parts of a split share by name, bytes or near-duplicate.

    A CSV is read by its column file, filename, image, path or name, else by
    its first; a list has a name on each line; folders are searched in depth.

    Exits with 0 if the split is clean, with 1 if it leaks or if names alone
    cannot tell, and with 2 if a part cannot be read.

    Examples:
      facebench audit-split faces/train faces/val faces/test
      facebench audit-split train.csv test.csv --images faces --csv shared.csv
      facebench audit-split train.txt test.txt --honest 0.7
    """
    from benchmark.data import split_audit

    with speaking("audit-split", as_json=as_json) as answer:
        paths = [train, *parts]
        accuracies = SHOWN_HONEST if honest is None else (honest,)
        for accuracy in accuracies:
            highest_accuracy(accuracy, 0)  # refused now, not after a minute
        if csv_file is not None:
            check_outputs([csv_file], overwrite=overwrite, inputs=[*paths, images])
        with watching(quiet=quiet or as_json) as watch, _pairs_written(csv_file) as on_pair:
            audit = split_audit.audit_split(paths, images, on_pair, watch)
        audit["inflation"] = [
            {
                "part": overlap["part"],
                "seen_fraction": overlap["leaking_fraction"],
                "honest": accuracy,
                "highest": highest_accuracy(accuracy, overlap["leaking_fraction"]),
            }
            for overlap in audit["overlaps"]
            if overlap["other_part"] == audit["parts"][0]["name"]
            for accuracy in accuracies
        ]
        answer.data = audit
        answer.errors = list(_findings(audit))
        answer.warnings = list(_warnings(audit, images))
        if not as_json:
            for table in [] if quiet else _tables(audit):
                print_table(table)
            if not quiet and any(entry["seen_fraction"] for entry in audit["inflation"]):
                out.print(INFLATION_RULE)
            for finding in answer.errors:
                err.print(f"[bold red]Found:[/] {escape(str(finding))}", soft_wrap=True)
            verdict = audit["verdict"]
            if verdict == "clean" and any(part["without_a_picture"] for part in audit["parts"]):
                verdict = "clean by name"
            out.print(VERDICTS[verdict])
    if answer.errors:
        raise typer.Exit(ExitCode.FINDINGS)


def highest_accuracy(honest: float, seen_fraction: float) -> float:
    """Give the accuracy of a network that is right on every face that it has seen in training.

    honest: its accuracy on faces it has not seen, (0, 1). Those that it has seen are taken to be
    as hard as the others. Where it remembers nothing the accuracy is `honest` itself.
    """
    if not 0 < honest < 1:
        raise DataError(
            f"an honest accuracy of {honest:g}", allowed="above 0 and below 1, as 0.7 for 70 %"
        )
    return honest + seen_fraction * (1 - honest)


@contextlib.contextmanager
def _pairs_written(path: Path | None) -> "Iterator[Callable[[FilePair], object] | None]":
    """Give what writes a row for each pair, as they are found: there may be many."""
    if path is None:
        yield None
        return
    from benchmark.data.split_audit import FilePair

    try:
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(FilePair._fields)
            yield lambda pair: writer.writerow((*pair[:-1], "yes" if pair.mirrored else ""))
    except OSError as error:
        raise DataError(
            f"the pairs cannot be written: {error.strerror}",
            source=str(path),
            fix="Give --csv a file in a folder that can be written to",
        ) from error


def _findings(audit: dict[str, Any]) -> Iterator[DataError]:
    """Say in a sentence what leaks from each part into another, and what may."""
    is_absent = any(part["without_a_picture"] for part in audit["parts"])
    for overlap in audit["overlaps"]:
        part, other, n_files = overlap["part"], overlap["other_part"], f"{overlap['files']:,} files"
        if overlap["leaking"]:
            share = _percent(overlap["leaking_fraction"])
            yield DataError(
                f"{share} of {part} ({overlap['leaking']:,} of {n_files}) is in {other}"
            )
        if overlap["undecided"]:
            yield DataError(
                f"{overlap['undecided']:,} of {n_files} of {part} may be in {other}: their names "
                "are alike and the pictures of both were not compared",
                fix="--images FOLDER compares the pictures"
                if is_absent
                else "Look at those pictures",
            )


def _warnings(audit: dict[str, Any], images: Path | None) -> Iterator[str]:
    """Say what was not compared, or not as it was given, and why."""
    for part in audit["parts"]:
        name, again, unusable = part["name"], part["repeated_names"], part["not_comparable"]
        if again:
            names = f"{len(again):,} names more than once ({_some(again)})"
            yield f"{name} has {names}; each counts once."
        if part["rows_without_a_name"]:
            yield f"{part['rows_without_a_name']:,} rows of {part['path']} have no name; left out."
        if part["not_pictures"]:
            yield f"{part['not_pictures']:,} files of {name} are no pictures by their names."
        if part["not_found"]:
            yield (
                f"{len(part['not_found']):,} of {part['files']:,} names of {name} have no picture "
                f"of their own under {images} ({_some(part['not_found'])}); compared by name only."
            )
        if unusable:
            reasons = _some([f"{entry['file']}: {entry['reason']}" for entry in unusable])
            yield (
                f"{len(unusable):,} pictures of {name} are not compared as near-duplicates "
                f"({reasons})."
            )
    by_name = [
        part["name"] for part in audit["parts"] if part["without_a_picture"] == part["files"]
    ]
    if by_name:
        yield (
            f"{', '.join(by_name)}: only names were compared, and a copy under another name "
            "is not seen. --images FOLDER compares the pictures."
        )
    for overlap in audit["overlaps"]:
        n_named = overlap["leaking"] + overlap["undecided"] + overlap["alike_in_name_only"]
        if overlap["same_base_name"] > n_named:
            yield (
                f"{overlap['same_base_name']:,} files of {overlap['part']} have the base name of "
                f"files of {overlap['other_part']} in other folders, as "
                f"{overlap['example_of_base_name']}: no leak where a part has it several times."
            )
        if overlap["alike_in_name_only"]:
            yield (
                f"{overlap['alike_in_name_only']:,} files of {overlap['part']} have names like "
                f"files of {overlap['other_part']}, but show something else: no leak."
            )
    if images is not None and all("of pictures" in part["given_as"] for part in audit["parts"]):
        yield "--images was not needed: no part is a list."


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _tables(audit: dict[str, Any]) -> Iterator[Table]:
    """Lay out parts, overlaps, examples and inflation."""
    parts, overlaps = audit["parts"], audit["overlaps"]
    heads: tuple[str | Column, ...] = ("part", "given as", "by name", "by bytes", "near-dup.")
    keys = ("files", "compared_by_bytes", "compared_as_near_duplicates")
    rows: list[tuple[str, ...]] = [
        (
            part["name"] + (" (training)" if part["is_training"] else ""),
            part["given_as"],
            *(f"{part[key]:,}" for key in keys),
        )
        for part in parts
    ]
    yield Table.of(heads, rows, "Compared")
    by_name_only = {part["name"] for part in parts if not part["compared_by_bytes"]}
    rows = []
    for overlap in overlaps:
        pair = (overlap["part"], overlap["other_part"])
        alike = ("same_name", "same_base_name", "same_bytes", "near_duplicates")
        n_alike = [f"{overlap[key]:,}" for key in alike]
        if by_name_only & {*pair}:
            n_alike[2:] = NOTHING, NOTHING
        share = _percent(overlap["leaking_fraction"])
        rows.append((*pair, *n_alike, f"{overlap['leaking']:,}", share))
    heads = (
        *("part", "in", "same name", "base name", "same bytes", "near-dup.", "together", "share"),
    )
    yield Table.of(heads, rows, "Files of one part that are in another")
    pairs = [
        (_found_by(pair) if part == "part" else "", f"{pair[part]}: {pair[file]}")
        for overlap in overlaps
        for pair in sorted(overlap["examples"], key=lambda pair: pair["finding"] != "leak")
        for part, file in (("part", "file"), ("other_part", "other_file"))
    ]
    if pairs:
        heads = ("found by", Column("files", fold=True))
        yield Table.of(heads, pairs, "Examples, bits of 256 (--csv FILE writes every pair)")
    highest: dict[tuple[str, str], dict[str, str]] = {}
    for entry in audit["inflation"]:
        if entry["seen_fraction"]:
            row = highest.setdefault((entry["part"], _percent(entry["seen_fraction"])), {})
            row[_percent(entry["honest"])] = _percent(entry["highest"])
    if highest:
        heads = ("part", "seen", *next(iter(highest.values())))
        lines = [(*part, *row.values()) for part, row in highest.items()]
        yield Table.of(heads, lines, "What an honest accuracy of ... can read as, at most")


def _found_by(pair: dict[str, Any]) -> str:
    if pair["found_by"] == "near-duplicate":
        mirrored = ", mirrored" if pair["mirrored"] else ""
        return f"near-duplicate, {pair['bits_apart']} bits{mirrored}"
    if pair["found_by"] == "bytes":
        return "same bytes and name" if pair["name"] == "same" else "same bytes"
    how = {
        "same": "same name",
        "other folder": "name in another folder",
        "case": "name in another case",
        "other extension": "name, another extension",
    }[pair["name"]]
    return how if pair["finding"] == "leak" else f"{how}: {pair['finding']}"


def _percent(fraction: float) -> str:
    """Write a fraction in percent; one that is not nothing never reads as nothing."""
    return "<0.1 %" if 0 < fraction < 0.0005 else f"{100 * fraction:.1f} %"
