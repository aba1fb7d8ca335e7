"""`facebench audit-split`: what the parts of anyone's split share, and what that does."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID

from benchmark.cli.audit_split_tables import (
    INFLATION_RULE,
    examples_table,
    inflation_table,
    overlaps_table,
    parts_table,
    percent,
    verdict_in_words,
)
from benchmark.cli.options import AsJson, Quiet
from benchmark.cli.output import ExitCode, err, out, progress_bar, speaking
from benchmark.errors import DataError
from benchmark.files import replacing

if TYPE_CHECKING:
    from benchmark.data.progress import OnProgress
    from benchmark.data.split_audit import Match, PartOverlap, SplitAudit

EXAMPLES = """
Examples:

  facebench audit-split faces/train faces/val faces/test

  facebench audit-split train.csv test.csv --images faces --csv shared.csv

  facebench audit-split train.txt test.txt --honest 0.7
"""

SHOWN_HONEST: Final = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Honest accuracies the inflation is shown for, where none is given."""
SHOWN_NAMES: Final = 3
"""How many names a note lists."""
CSV_COLUMNS: Final = (
    *("part", "file", "other_part", "other_file"),
    *("finding", "found_by", "name", "bits_apart", "mirrored"),
)


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
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what the parts of a split share by name, bytes or near-duplicate.

    A CSV is read by its column file, filename, image, path or name, else by
    its first; a list has a name on each line; folders are searched in depth.

    Exits with 0 if the split is clean, with 1 if it leaks or if names alone
    cannot tell, and with 2 if a part cannot be read.
    """
    from benchmark.data import split_audit

    findings: list[DataError] = []
    with speaking("audit-split", as_json=as_json) as answer:
        paths = [train, *parts]
        if honest is not None:
            split_audit.highest_accuracy(honest, 0)  # refused now, not after a minute
        if csv_file is not None:
            _check_not_a_part(csv_file, paths)
        with progress_bar(quiet=quiet or as_json) as bar:
            audit = split_audit.audit_split(paths, images, _shown_on(bar))
            if csv_file is not None:
                _write_pairs(csv_file, audit, _shown_on(bar))
        findings = _findings(audit)
        shown = SHOWN_HONEST if honest is None else (honest,)
        answer.data = _as_data(audit, shown)
        answer.errors = list(findings)
        answer.warnings = _warnings(audit, images)
        if not as_json:
            _print(audit, findings, shown, quiet=quiet)
    if findings:
        raise typer.Exit(ExitCode.FINDINGS)


def _shown_on(bar: Progress) -> "OnProgress":
    """Give a callback that shows each stage of the work on a line of its own."""
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    return show


def _check_not_a_part(csv_file: Path, paths: Sequence[Path]) -> None:
    if csv_file.resolve() in {path.resolve() for path in paths}:
        raise DataError(
            f"--csv {csv_file} is a part of the split itself and would be overwritten",
            fix="Give another name for the pairs",
        )


def _findings(audit: "SplitAudit") -> list[DataError]:
    """Say in a sentence what leaks from each part into another, and what may."""
    findings = []
    for overlap in audit.overlaps:
        if overlap.n_leaking:
            findings.append(
                DataError(
                    f"{percent(overlap.leaking_fraction)} of {overlap.part} "
                    f"({overlap.n_leaking:,} of {overlap.n_files:,} files) is in "
                    f"{overlap.other_part}"
                )
            )
        if overlap.n_undecided:
            findings.append(
                DataError(
                    f"{overlap.n_undecided:,} of {overlap.n_files:,} files of {overlap.part} may "
                    f"be in {overlap.other_part}: their names are alike and the pictures of both "
                    "were not compared",
                    fix="--images FOLDER compares the pictures"
                    if any(audit.not_at_hand(part) for part in range(len(audit.parts)))
                    else "Look at those pictures",
                )
            )
    return findings


def _warnings(audit: "SplitAudit", images: Path | None) -> list[str]:
    """Say what was not compared, or not as it was given, and why."""
    warnings = []
    by_name_only = []
    for number, part in enumerate(audit.parts):
        if part.repeated:
            warnings.append(
                f"{part.name} has {len(part.repeated):,} names more than once "
                f"({_some(part.repeated)}); each counts once."
            )
        if part.n_nameless:
            warnings.append(f"{part.n_nameless:,} rows of {part.path} have no name; left out.")
        absent = audit.not_at_hand(number)
        if absent and images is None:
            by_name_only.append(part.name)
        elif absent:
            warnings.append(
                f"{len(absent):,} of {len(part.files):,} names of {part.name} have no picture of "
                f"their own under {images} ({_some(absent)}); compared by name only."
            )
        if unusable := audit.unusable(number):
            told = _some([f"{file}: {reason}" for file, reason in unusable])
            warnings.append(
                f"{len(unusable):,} pictures of {part.name} are not compared as near-duplicates "
                f"({told})."
            )
    if by_name_only:
        warnings.append(
            f"{', '.join(by_name_only)}: only names were compared, and a copy under another name "
            "is not seen. --images FOLDER compares the pictures."
        )
    for overlap in audit.overlaps:
        if overlap.n_other_pictures:
            warnings.append(
                f"{overlap.n_other_pictures:,} files of {overlap.part} have names like files of "
                f"{overlap.other_part}, but show something else: no leak."
            )
    if images is not None and all(part.pictures is not None for part in audit.parts):
        warnings.append("--images was not needed: no part is a list.")
    return warnings


def _some(names: Sequence[str]) -> str:
    from benchmark.data.split_lists import printable

    shown = ", ".join(printable(name) for name in names[:SHOWN_NAMES])
    more = len(names) - SHOWN_NAMES
    return f"{shown} and {more:,} more" if more > 0 else shown


def _as_data(audit: "SplitAudit", honest: Sequence[float]) -> dict[str, Any]:
    from benchmark.data.duplicates import METHOD, THRESHOLD_BITS
    from benchmark.data.split_audit import highest_accuracy
    from benchmark.data.split_lists import printable

    parts = []
    for number, part in enumerate(audit.parts):
        by_bytes, by_hash = audit.n_compared(number)
        absent = audit.not_at_hand(number)
        is_searched = len(absent) < len(part.files)
        parts.append(
            {
                "name": part.name,
                "path": str(part.path),
                "given_as": part.form,
                "is_training": number == 0,
                "files": len(part.files),
                "compared_by_bytes": by_bytes,
                "compared_as_near_duplicates": by_hash,
                "repeated_names": [printable(file) for file in part.repeated],
                "rows_without_a_name": part.n_nameless,
                "without_a_picture": len(absent),
                "not_found": [printable(file) for file in absent] if is_searched else [],
                "not_comparable": [
                    {"file": printable(file), "reason": reason}
                    for file, reason in audit.unusable(number)
                ],
            }
        )
    return {
        "verdict": audit.verdict,
        "near_duplicates": {"method": METHOD, "threshold_bits": THRESHOLD_BITS},
        "parts": parts,
        "overlaps": [_overlap_data(overlap) for overlap in audit.overlaps],
        "inflation": [
            {
                "part": overlap.part,
                "seen_fraction": overlap.leaking_fraction,
                "honest": accuracy,
                "highest": highest_accuracy(accuracy, overlap.leaking_fraction),
            }
            for overlap in audit.overlaps
            if overlap.is_training
            for accuracy in honest
        ],
    }


def _overlap_data(overlap: "PartOverlap") -> dict[str, Any]:
    return {
        "part": overlap.part,
        "other_part": overlap.other_part,
        "files": overlap.n_files,
        "leaking": overlap.n_leaking,
        "leaking_fraction": overlap.leaking_fraction,
        "same_name": overlap.n_same_name,
        "same_bytes": overlap.n_same_bytes,
        "near_duplicates": overlap.n_near_duplicates,
        "undecided": overlap.n_undecided,
        "alike_in_name_only": overlap.n_other_pictures,
        "examples": [_pair(overlap, match) for match in overlap.examples.values()],
    }


def _pair(overlap: "PartOverlap", match: "Match") -> dict[str, Any]:
    from benchmark.data.split_lists import printable

    return {
        "part": overlap.part,
        "file": printable(match.file),
        "other_part": overlap.other_part,
        "other_file": printable(match.other_file),
        "finding": match.finding,
        "found_by": match.found_by,
        "name": match.name,
        "bits_apart": match.bits_apart,
        "mirrored": match.is_mirrored,
    }


def _write_pairs(path: Path, audit: "SplitAudit", on_progress: "OnProgress") -> None:
    """Write one row for each pair of files, as they are found: there may be many."""
    try:
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.DictWriter(stream, CSV_COLUMNS, lineterminator="\n")
            writer.writeheader()
            for overlap, match in audit.pairs(on_progress):
                row = _pair(overlap, match)
                writer.writerow({**row, "mirrored": "yes" if row["mirrored"] else ""})
    except OSError as error:
        raise DataError(
            f"the pairs cannot be written: {error.strerror}",
            source=str(path),
            fix="Give --csv a file in a folder that can be written to",
        ) from error


def _print(
    audit: "SplitAudit", findings: Sequence[DataError], honest: Sequence[float], *, quiet: bool
) -> None:
    if not quiet:
        out.print(parts_table(audit))
        out.print(overlaps_table(audit))
        examples = examples_table(audit.overlaps)
        if examples.row_count:
            out.print(examples)
        inflation = inflation_table(audit.overlaps, honest)
        if inflation.row_count:
            out.print(inflation)
            out.print(INFLATION_RULE)
    for finding in findings:
        err.print(f"[bold red]Found:[/] {escape(str(finding))}", soft_wrap=True)
    out.print(verdict_in_words(audit))
