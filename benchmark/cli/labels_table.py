"""How a table's words were read, and what its faces lack: printed, and as findings."""

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from benchmark.cli.output import out, say_warning
from benchmark.errors import DataError

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet


def label_findings(faces: "FaceSet") -> list[DataError]:
    """Give as errors what is wrong with a data set's table of labels; none without one."""
    from benchmark.data.dataset import ROW_KIND
    from benchmark.data.labelled import findings

    labels = faces.manifest.get("labels")
    if labels is None:
        return []
    n_rows = int((faces.quarantine()["kind"] == ROW_KIND).sum())
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
    return [] if labels is None else gaps(labels, len(faces.table))


def print_labels(faces: "FaceSet") -> None:
    """Print how the words were read, and what faces lack; nothing for faces named as UTKFace."""
    from benchmark.data.labelled import notes

    labels = faces.manifest.get("labels")
    if labels is None:
        return
    files = ", ".join(file["name"] for file in labels["files"])
    out.print(f"Labels from {escape(files)}, layout {labels['layout']}:", soft_wrap=True)
    if labels["mapping"]:
        out.print(_mapping_table(labels["mapping"]))
    for sentence in (*label_gaps(faces), *notes(labels)):
        say_warning(sentence)


def _mapping_table(mapping: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(title="What its words mean here", title_justify="left")
    table.add_column("column")
    table.add_column("word", overflow="fold")
    table.add_column("class here", overflow="fold")
    table.add_column("rows", justify="right")
    for column, entries in mapping.items():
        for place, entry in enumerate(entries):
            word = entry["word"] or "(empty)"
            if entry["read_as"]:
                word += f", once {entry['read_as']}"
            meaning = entry["class"] or f"none: {entry['why']}"
            name = "" if place else column
            table.add_row(name, escape(word), escape(meaning), f"{entry['rows']:,}")
        table.add_section()
    return table
