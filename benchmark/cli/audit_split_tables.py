"""How `facebench audit-split` lays out what it found: tables of 80 columns, and a verdict."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from benchmark.data.split_audit import Match, PartOverlap, SplitAudit

INFLATION_RULE: Final = (
    "An accuracy lies between honest (the network remembers nothing it was trained on) and "
    "honest + seen x (1 - honest) (it remembers all of it). Arithmetic, which takes faces seen "
    "to be as hard as the others."
)
NOT_COMPARED: Final = "-"
NAMES_IN_WORDS: Final = {
    "same": "same name",
    "other folder": "name in another folder",
    "case": "name in another case",
    "other extension": "name, another extension",
}


def parts_table(audit: "SplitAudit") -> Table:
    """Count the files of each part, and what they could be compared by."""
    table = Table(title="Compared", title_justify="left")
    table.add_column("part", overflow="fold")
    table.add_column("given as", overflow="fold")
    for heading in ("by name", "by bytes", "near-dup."):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, part in enumerate(audit.parts):
        name = f"{part.name} (training)" if number == 0 else part.name
        numbers = (len(part.files), *audit.n_compared(number))
        table.add_row(escape(name), escape(part.form), *(f"{n:,}" for n in numbers))
    return table


def overlaps_table(audit: "SplitAudit") -> Table:
    """Count what each two parts share."""
    table = Table(title="Files of one part that are in another", title_justify="left")
    table.add_column("part", overflow="fold")
    table.add_column("in", overflow="fold")
    for heading in ("same name", "same bytes", "near-dup.", "together", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    by_name_only = {
        part.name for number, part in enumerate(audit.parts) if not audit.n_compared(number)[0]
    }
    for overlap in audit.overlaps:
        is_compared = not by_name_only & {overlap.part, overlap.other_part}
        table.add_row(
            escape(overlap.part),
            escape(overlap.other_part),
            f"{overlap.n_same_name:,}",
            f"{overlap.n_same_bytes:,}" if is_compared else NOT_COMPARED,
            f"{overlap.n_near_duplicates:,}" if is_compared else NOT_COMPARED,
            f"{overlap.n_leaking:,}",
            percent(overlap.leaking_fraction),
        )
    return table


def examples_table(overlaps: "Sequence[PartOverlap]") -> Table:
    """Show a pair of each kind that was found between each two parts."""
    from benchmark.data.split_lists import printable

    table = Table(title="Examples (--csv FILE writes every pair)", title_justify="left")
    table.add_column("found by", overflow="fold", max_width=23)
    table.add_column("files", overflow="fold")
    for overlap in overlaps:
        for match in sorted(overlap.examples.values(), key=lambda match: match.finding != "leak"):
            pair = (overlap.part, match.file), (overlap.other_part, match.other_file)
            shown = "\n".join(f"{part}: {printable(file)}" for part, file in pair)
            table.add_row(_found_by(match), escape(shown))
    return table


def _found_by(match: "Match") -> str:
    if match.found_by == "near-duplicate":
        mirrored = ", mirrored" if match.is_mirrored else ""
        return f"near-duplicate, {match.bits_apart} of 256 bits{mirrored}"
    if match.found_by == "bytes":
        return "same bytes and name" if match.name == "same" else "same bytes"
    how = NAMES_IN_WORDS[match.name]
    return how if match.finding == "leak" else f"{how}: {match.finding}"


def inflation_table(overlaps: "Sequence[PartOverlap]", honest: Sequence[float]) -> Table:
    """Show how high honest accuracies can read, where training holds some of a part."""
    from benchmark.data.split_audit import highest_accuracy

    table = Table(title="What an honest accuracy of ... can read as, at most", title_justify="left")
    table.add_column("part", overflow="fold")
    table.add_column("seen", justify="right")
    for accuracy in honest:
        table.add_column(percent(accuracy), justify="right")
    for overlap in overlaps:
        if overlap.is_training and overlap.n_leaking:
            seen = overlap.leaking_fraction
            highest = (percent(highest_accuracy(accuracy, seen)) for accuracy in honest)
            table.add_row(escape(overlap.part), percent(seen), *highest)
    return table


def verdict_in_words(audit: "SplitAudit") -> str:
    """Say in a line whether it leaks, and how far that can be known."""
    if audit.verdict == "leaking":
        return "[bold red]Leaking.[/]"
    if audit.verdict == "undecided":
        return "[yellow]Undecided:[/] nothing leaks for certain, but names are alike."
    if any(audit.not_at_hand(part) for part in range(len(audit.parts))):
        return "[green]Clean[/] as far as names tell: no two parts share one."
    return "[green]Clean:[/] no two parts share a name, a file's bytes or a near-duplicate."


def percent(fraction: float) -> str:
    """Write a fraction in percent; one that is not nothing never reads as nothing."""
    return "<0.1 %" if 0 < fraction < 0.0005 else f"{100 * fraction:.1f} %"
