"""Reading a table of labels: any usual encoding and delimiter; what is no such table is refused.

What its words mean is for benchmark.faces.label_words, whose faces they are for
benchmark.faces.labelled.
"""

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from benchmark.errors import DataError

HEADINGS: Final[dict[str, tuple[str, ...]]] = {
    "file": ("file", "filename", "file name", "image", "img name", "path", "image path"),
    "age": ("age", "age years"),
    "age_group": ("age group", "age range", "age bin"),
    "gender": ("gender", "sex"),
    "race": ("race", "ethnicity"),
}
"""Column, and how tables head it: lower case, with a space for `_` and `-`."""
ALLOWED: Final = "columns file and one or more of age, age_group, gender, race"

MAX_BYTES: Final = 256 << 20


@dataclass(frozen=True, eq=False)
class LabelFile:
    """A table of labels as text, by our names of its columns."""

    name: str
    sha256: str
    encoding: str
    cells: pd.DataFrame
    """Columns file and those of age, age_group, gender, race that it has; every cell a str."""


def read_label_file(path: Path) -> LabelFile:
    """Read a table of labels from disk; raise DataError where it is none."""
    if not path.is_file():
        raise DataError(f"there is no table of labels {path}", allowed=f"a CSV file with {ALLOWED}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{path} has {path.stat().st_size:,} bytes", allowed=f"up to {MAX_BYTES:,}"
            )
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return parse_label_file(path.name, content)


def parse_label_file(name: str, content: bytes) -> LabelFile:
    """Read a table of labels from its bytes; raise DataError where they are none."""
    text, encoding = _decoded(name, content)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)))
    except csv.Error as error:
        raise _no_table(name, f"it cannot be read as CSV: {error}") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise _no_table(name, "it has no rows" if rows else "it is empty")
    columns = _columns(name, rows[0])
    short = next((i for i, row in enumerate(rows) if len(row) <= max(columns.values())), None)
    if short is not None:
        raise _no_table(name, f"row {short + 1} has {len(rows[short])} cells: {rows[short]}")
    cells = {ours: [row[place].strip() for row in rows[1:]] for ours, place in columns.items()}
    digest = hashlib.sha256(content).hexdigest()
    return LabelFile(name, digest, encoding, pd.DataFrame(cells, dtype=object))


def _decoded(name: str, content: bytes) -> tuple[str, str]:
    """Decode by the mark at its beginning, else as UTF-8, else as Windows writes Western Europe."""
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise _no_table(name, "it is a spreadsheet", "Save it as CSV first")
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    marked = next((marks[mark] for mark in marks if content.startswith(mark)), None)
    for encoding in (marked,) if marked else ("utf-8", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            raise _no_table(name, "it holds bytes that no text has")
        return text, encoding
    raise _no_table(name, "its encoding is none of UTF-8, UTF-16 and Windows-1252")


def _delimiter(text: str) -> str:
    head = text.lstrip().split("\n", 1)[0]
    return max((",", ";", "\t"), key=head.count)


def _columns(name: str, heads: list[str]) -> dict[str, int]:
    """Find where our columns stand; one that is there twice under whatever heading is refused."""
    normal = [" ".join(head.replace("_", " ").replace("-", " ").lower().split()) for head in heads]
    found: dict[str, int] = {}
    for ours, headings in HEADINGS.items():
        places = [place for place, head in enumerate(normal) if head in headings]
        if len(places) > 1:
            both = " and ".join(repr(heads[place]) for place in places)
            raise _no_table(name, f"its columns {both} both say {ours}")
        if places:
            found[ours] = places[0]
    lacking = []
    if "file" not in found:
        lacking.append("file")
    if not found.keys() - {"file"}:
        lacking.append("age, age_group, gender or race")
    if lacking:
        shown = ", ".join(repr(head) for head in heads[:12])
        raise _no_table(name, f"it has no column {' and none of '.join(lacking)}, but {shown}")
    return found


def _no_table(name: str, problem: str, fix: str = "") -> DataError:
    return DataError(
        f"{name} is no table of labels: {problem}",
        allowed=f"a CSV file with {ALLOWED}",
        fix=fix or "Name its columns so in its first line",
    )
