"""What `facebench weights` shows of sources, files and sums: for people, and as plain values."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from benchmark.cli.output import out

if TYPE_CHECKING:
    from benchmark.models.weight_manifest import PublishedFile
    from benchmark.models.weight_store import Pin
    from benchmark.models.weights import SourceState, WeightFile

COLOURS = {"here": "green", "missing": "yellow", "damaged": "red"}


def overview(states: "Iterable[SourceState]") -> Table:
    """One row per source; in 80 columns."""
    table = Table(box=None, pad_edge=False)
    table.add_column("weights", no_wrap=True)
    for column in ("state", "licence", "trained on"):
        table.add_column(column)
    for state in states:
        known = state.file or (state.published[0] if state.published else None)
        table.add_row(
            f"{state.architecture} {state.source}",
            f"[{COLOURS[state.state]}]{state.state}[/]",
            escape(known.licence) if known else "",
            escape(known.trained_on) if known else "",
        )
    return table


def print_files(states: "Iterable[SourceState]", pins: "Mapping[str, Pin]") -> None:
    """Say of every published file what it is and where it is to be had; addresses whole."""
    for state in states:
        if state.file is not None:
            out.print(f"\n[bold]{state.architecture} {state.source}[/], here:")
            out.print(f"  {state.file.path}", soft_wrap=True)
            out.print(f"    from {escape(state.file.origin)}; {_fed(state.file)}", soft_wrap=True)
        if state.published:
            out.print(f"\n[bold]{state.architecture} {state.source}[/], tried in this order:")
        for file in state.published:
            out.print(f"  {file.file_name}")
            out.print(f"    {file.url}", soft_wrap=True)
            out.print(f"    {file.licence}; {file.trained_on}", soft_wrap=True)
            out.print(f"    {_fed(file)}", soft_wrap=True)
            out.print(f"    {checksum(file, pins)}", soft_wrap=True)
            if file.digest is not None:
                out.print(f"    tensors in any container: sha256 {file.digest.whole}")


def _fed(file: "PublishedFile | WeightFile") -> str:
    options = "".join(f", {name} {value}" for name, value in file.options.items())
    return f"fed {file.preprocessing.sentence()}{options}"


def checksum(file: "PublishedFile", pins: "Mapping[str, Pin]") -> str:
    """Say in words how the file is told from others."""
    if file.has_whole_sha256:
        return f"sha256 {file.sha256}"
    published = "no sum published"
    if file.sha256 is not None:
        published = f"sha256 begins {file.sha256}"
    elif file.md5 is not None:
        published = f"md5 {file.md5}"
    pin = pins.get(file.file_name)
    if pin is None:
        return published if file.digest else f"{published}; pinned on first use"
    return f"{published}; pinned {pin.when[:10]}: sha256 {pin.sha256}"


def state_data(state: "SourceState", pins: "Mapping[str, Pin]") -> dict[str, Any]:
    """Give a source as plain values."""
    return {
        "architecture": state.architecture,
        "source": state.source,
        "state": state.state,
        "file": file_data(state.file) if state.file else None,
        "published": [
            {
                "file": file.file_name,
                "url": file.url,
                "layout": file.layout,
                "sha256": file.sha256,
                "md5": file.md5,
                "tensors_sha256": file.digest.whole if file.digest else None,
                "pinned": asdict(pins[file.file_name]) if file.file_name in pins else None,
                "licence": file.licence,
                "trained_on": file.trained_on,
                "preprocessing": file.preprocessing.as_dict(),
                "options": dict(file.options),
            }
            for file in state.published
        ],
    }


def file_data(file: "WeightFile") -> dict[str, Any]:
    """Give a converted file as plain values."""
    return {
        "path": str(file.path),
        "sha256": file.sha256,
        "origin": file.origin,
        "origin_sha256": file.origin_sha256,
        "published": file.published,
        "licence": file.licence,
        "trained_on": file.trained_on,
        "preprocessing": file.preprocessing.as_dict(),
        "options": dict(file.options),
        "faces_seen": [asdict(seen) for seen in file.faces_seen],
    }
