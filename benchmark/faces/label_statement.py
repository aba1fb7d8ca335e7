"""What a data set's table of labels did not tell, in sentences: kept in its manifest, said again.

Shown wherever numbers on such faces are: after preparing, on the page of who is in it, and beside
an evaluation.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from benchmark.faces.clusters import LABELS
from benchmark.tasks import MISSING, TASK_TITLES, TASKS

SHOWN_WORDS: Final = 4
TITLES: Final[dict[str, str]] = {"age": "age in years"} | {
    task: TASK_TITLES[task] for task in TASKS
}


def labels_digest(table: pd.DataFrame) -> str:
    """Digest who is labelled what."""
    lines = table[["file", *LABELS]].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(lines.encode()).hexdigest()


def counted(labels: Mapping[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """Add to a statement the digest of a table's labels and, by label, how many faces lack it."""
    without = {label: int((table[label] == MISSING).sum()) for label in LABELS}
    return {**labels, "digest": labels_digest(table), "without": without}


def unmapped(labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the words that have no class here: column, word, rows, why, unknown; most rows first."""
    found = [
        {"column": column, **entry}
        for column, entries in labels["mapping"].items()
        for entry in entries
        if entry["class"] is None
    ]
    return sorted(found, key=lambda entry: (-entry["rows"], entry["column"], entry["word"]))


def gaps(labels: Mapping[str, Any], n_faces: int) -> list[str]:
    """Say in a sentence per label what the faces lack; nothing where they have all.

    n_faces: how many faces `labels["without"]` counts among.
    """
    sentences = []
    for label, n_without in labels["without"].items():
        title = TITLES[label]
        if n_without == n_faces:
            what = "no plot of years" if label == "age" else "neither trained nor evaluated here"
            sentences.append(f"No face is labelled with {title}: {what}.")
        elif n_without:
            share = 100 * n_without / n_faces
            sentences.append(
                f"{n_without:,} of {n_faces:,} faces ({share:.1f} %) have no {title}: left out of "
                "whatever needs it."
            )
    return sentences


def notes(labels: Mapping[str, Any]) -> list[str]:
    """Say what was made of the table on the way: repeated rows, spreadsheets' dates, encodings."""
    said = []
    repaired = [
        entry for entries in labels["mapping"].values() for entry in entries if entry["read_as"]
    ]
    if repaired:
        first = repaired[0]
        n_rows = sum(entry["rows"] for entry in repaired)
        said.append(
            f"{n_rows:,} ages had been made dates by a spreadsheet and were read back, as "
            f"{first['word']!r}, which was {first['read_as']}."
        )
    old = [file["name"] for file in labels["files"] if file["encoding"] == "cp1252"]
    if old:
        said.append(f"{', '.join(old)} is no UTF-8 and was read as Windows-1252.")
    if labels["repeated_rows"]:
        said.append(f"{labels['repeated_rows']:,} rows name a file that an earlier row names.")
    return said


def findings(labels: Mapping[str, Any], n_rows_without_picture: int) -> list[str]:
    """Say what is wrong with the table: words nobody told us of, contradictions, lost pictures."""
    found = []
    unknown = [entry for entry in unmapped(labels) if entry["unknown"]]
    if unknown:
        shown = ", ".join(
            f"{entry['column']} {entry['word']!r} ({entry['rows']:,}: {entry['why']})"
            for entry in unknown[:SHOWN_WORDS]
        )
        more = f" and {len(unknown) - SHOWN_WORDS} more" if len(unknown) > SHOWN_WORDS else ""
        found.append(f"{len(unknown)} words of the labels are not known: {shown}{more}")
    if labels["contradicted_faces"]:
        found.append(f"{labels['contradicted_faces']:,} faces have rows that contradict each other")
    if n_rows_without_picture:
        found.append(f"{n_rows_without_picture:,} rows name no picture, or several")
    return found
