"""How a table's words were read, and what its faces lack: printed, and as findings."""

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from benchmark.cli.output import out, print_table, say_warning
from benchmark.errors import DataError
from benchmark.reporting.tables import Column, Table
from benchmark.tasks import CLASS_NAMES, MISSING, TASK_TITLES, TASKS

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet

MOST_WORDS = 30
"""Of a column, that are printed."""
HEADINGS = ("column", "word", "class here", "rows")


def label_findings(faces: "FaceSet") -> list[DataError]:
    """Give as errors what is wrong with a data set's table of labels; none without one."""
    from benchmark.data.dataset import ROW_KIND
    from benchmark.data.labelled import findings

    labels = faces.manifest.get("labels")
    if labels is None:
        return []
    n_rows = int((faces.rejected()["kind"] == ROW_KIND).sum())
    return [
        DataError(
            found,
            source=", ".join(file["name"] for file in labels["files"]),
            fix="What these rows do not tell is left out; --map TASK:WORD=CLASS says what a word "
            f"means, and {faces.folder / 'quarantine.csv'} lists what was left out",
        )
        for found in findings(labels, n_rows)
    ]


def label_gaps(faces: "FaceSet") -> list[str]:
    """Say in a sentence per label what a data set's faces lack; nothing where they have all."""
    from benchmark.data.labelled import gaps

    labels = faces.manifest.get("labels")
    return [] if labels is None else gaps(labels, len(faces.table)) + one_class(faces)


def one_class(faces: "FaceSet") -> list[str]:
    """Say which tasks have one class alone: whatever predicts it is always right."""
    found = {task: set(faces.table[task]) - {MISSING} for task in TASKS}
    return [
        f"every face with a label of {TASK_TITLES[task]} is {CLASS_NAMES[task][min(labels)]}: "
        "networks of this task alone are always right, and are not ranked"
        for task, labels in found.items()
        if len(labels) == 1
    ]


def _most(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the words of a column; of very many those in most rows, and how many more there are."""
    if len(entries) <= MOST_WORDS:
        return entries
    by_rows = sorted(range(len(entries)), key=lambda place: -entries[place]["rows"])
    shown, others = sorted(by_rows[:MOST_WORDS]), [entries[place] for place in by_rows[MOST_WORDS:]]
    more = {"word": f"and {len(others):,} more words", "class": None, "read_as": ""}
    more |= {"why": "see manifest.json", "rows": sum(entry["rows"] for entry in others)}
    return [*(entries[place] for place in shown), more]


def print_labels(faces: "FaceSet") -> None:
    """Print how the words were read, and what faces lack; nothing for faces named as UTKFace."""
    from benchmark.data.labelled import notes

    labels = faces.manifest.get("labels")
    if labels is None:
        return
    files = ", ".join(file["name"] for file in labels["files"])
    out.print(f"Labels from {escape(files)}, layout {labels['layout']}:", soft_wrap=True)
    rows = [
        (
            "" if place else column,
            (entry["word"] or "(empty)")
            + (f", once {entry['read_as']}" if entry["read_as"] else ""),
            entry["class"] or f"none: {entry['why']}",
            f"{entry['rows']:,}",
        )
        for column, entries in labels["mapping"].items()
        for place, entry in enumerate(_most(entries))
    ]
    if rows:
        headings = [Column(name, left=name != "rows") for name in HEADINGS]
        print_table(Table.of(headings, rows, "What its words mean here"))
    for sentence in (*label_gaps(faces), *notes(labels)):
        say_warning(sentence)
