"""Decode the faces of a source on all cores, straight into their rows of the packed array.

In processes: threads were no faster than one of them, since each picture takes the interpreter for
a third of its time and they queue for it (measured in docs/DATA.md). Pixels do not travel
between processes, only the files' bytes do; memory is bounded by the batches under way.
"""

import contextlib
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from benchmark.errors import DataError
from benchmark.faces.archive import Source, Unreadable
from benchmark.faces.census import Census
from benchmark.faces.decoding import Batch, Results, decode_batch
from benchmark.faces.pictures import Picture, pillow_quiet
from benchmark.faces.pixels import PixelWriter
from benchmark.faces.processes import MAX_PROCESSES, Process, in_order
from benchmark.faces.progress import OnProgress, n_cores

BATCH_FACES: Final = 32
"""Pictures handed to a process at once: 8 to 128 made no difference that could be measured."""
BATCH_BYTES: Final = 4 << 20
"""A batch is closed early at this size, so that large pictures do not pile up in memory."""

MIN_FACES_TO_SHARE: Final = 512
"""Fewer are decoded before the processes would have started."""


def pack_pictures(
    source: Source, census: Census, writer: PixelWriter, on_progress: OnProgress
) -> tuple[dict[int, Picture], dict[int, str]]:
    """Decode every face into its row; give the pictures by row, and why others are unusable."""
    row_of = {member.path: row for row, (_, member, _) in enumerate(census.faces)}
    pictures: dict[int, Picture] = {}
    unusable: dict[int, str] = {}
    batches = batched(_readable(source, row_of, unusable))
    with contextlib.closing(decoded(batches, len(row_of), writer)) as answers:
        for results in answers:
            for row, result in results:
                if isinstance(result, Picture):
                    pictures[row] = result
                else:
                    unusable[row] = result
            on_progress("packing faces", len(pictures) + len(unusable), len(row_of))
    n_lost = len(row_of) - len(pictures) - len(unusable)
    if n_lost:
        raise DataError(
            f"{source.path} changed while it was read: {n_lost} pictures are gone",
            fix="Prepare it again once nothing writes to it",
        )
    return pictures, unusable


def _readable(
    source: Source, row_of: dict[str, int], unusable: dict[int, str]
) -> Iterator[tuple[int, bytes]]:
    """Read the source, row and bytes; files that cannot be read go to `unusable`."""
    for path, content in source.contents(set(row_of)):
        if isinstance(content, Unreadable):
            unusable[row_of[path]] = content.reason
        else:
            yield row_of[path], content


def batched(pictures: Iterable[tuple[int, bytes]]) -> Iterator[Batch]:
    """Put pictures, row and bytes, together into batches as they come."""
    batch: Batch = []
    n_bytes = 0
    for row, content in pictures:
        batch.append((row, content))
        n_bytes += len(content)
        if len(batch) >= BATCH_FACES or n_bytes >= BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def decoded(batches: Iterator[Batch], n_pictures: int, writer: PixelWriter) -> Generator[Results]:
    """Decode batch after batch, on all cores where there are pictures enough; results in order."""
    is_shared = n_pictures >= MIN_FACES_TO_SHARE and n_cores() > 1
    return (_shared if is_shared else _alone)(batches, writer)


def _alone(batches: Iterator[Batch], writer: PixelWriter) -> Generator[Results]:
    with pillow_quiet():
        for batch in batches:
            yield decode_batch(batch, writer)


def _shared(batches: Iterator[Batch], writer: PixelWriter) -> Generator[Results]:
    """Yield the results of batches in order, with no more than a few batches under way."""
    open_decoder = partial(Decoder, writer.path, writer.image_px)
    n_processes = min(n_cores(), MAX_PROCESSES)
    yield from in_order(batches, open_decoder, lambda d, batch: d.decode(batch), n_processes)


class Decoder(Process):
    """A process that runs benchmark.faces.decoding; it ends with its `with` block."""

    def __init__(self, path: Path, image_px: int) -> None:
        super().__init__(
            "benchmark.faces.decoding",
            str(path),
            str(image_px),
            doing="decoding",
            fix="Where memory is short, prepare on fewer cores (taskset), or smaller pictures",
        )

    def decode(self, batch: Batch) -> Results:
        """Have a batch decoded; raise OSError as the process met it, DataError if it died."""
        results: Results = self.ask(batch)
        return results
