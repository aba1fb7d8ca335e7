"""Decode the faces of a source on all cores, straight into their rows of the packed array.

In threads: Pillow lets go of the interpreter while it decodes, so that they are as fast as
processes on the few cores there usually are, without a second copy of any picture on its way
between processes (measured in docs/DATA.md). Memory is bounded by the batches under way.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from benchmark.errors import DataError
from benchmark.faces.archive import Content, Source, Unreadable
from benchmark.faces.census import Census
from benchmark.faces.pictures import Picture, pillow_quiet, read_picture
from benchmark.faces.pixels import PixelWriter
from benchmark.faces.progress import OnProgress, n_cores

BATCH_FACES: Final = 32
"""Pictures handed to a thread at once: 8 to 128 made no difference that could be measured."""
BATCH_BYTES: Final = 4 << 20
"""A batch is closed early at this size, so that large pictures do not pile up in memory."""
BATCHES_AHEAD: Final = 3
"""Batches read ahead for each thread; this bounds the memory, whatever the source holds."""

Results = list[tuple[int, Picture | str]]
"""Row, and the picture or the reason why there is none."""


def pack_pictures(
    source: Source, census: Census, writer: PixelWriter, on_progress: OnProgress
) -> tuple[dict[int, Picture], dict[int, str]]:
    """Decode every face into its row; give the pictures by row, and why others are unusable."""
    row_of = {member.path: row for row, (_, member, _) in enumerate(census.faces)}
    pictures: dict[int, Picture] = {}
    unusable: dict[int, str] = {}
    contents = ((row_of[path], content) for path, content in source.contents(set(row_of)))
    with pillow_quiet(), ThreadPoolExecutor(n_cores()) as pool:
        for results in _in_threads(pool, contents, writer):
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


def _in_threads(
    pool: ThreadPoolExecutor, contents: Iterator[tuple[int, Content]], writer: PixelWriter
) -> Iterator[Results]:
    """Yield the results of batches in order, with no more than a few batches under way."""
    under_way: deque[Future[Results]] = deque()
    try:
        for batch in _batches(contents):
            under_way.append(pool.submit(_pack_batch, batch, writer))
            if len(under_way) > BATCHES_AHEAD * n_cores():
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()


def _batches(contents: Iterator[tuple[int, Content]]) -> Iterator[list[tuple[int, Content]]]:
    batch: list[tuple[int, Content]] = []
    n_bytes = 0
    for row, content in contents:
        batch.append((row, content))
        n_bytes += len(content) if isinstance(content, bytes) else 0
        if len(batch) >= BATCH_FACES or n_bytes >= BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


def _pack_batch(batch: list[tuple[int, Content]], writer: PixelWriter) -> Results:
    results: Results = []
    for row, content in batch:
        if isinstance(content, Unreadable):
            results.append((row, content.reason))
            continue
        try:
            pixels, picture = read_picture(content, writer.image_px)
        except DataError as error:
            results.append((row, f"{error.found} (allowed: {error.allowed})"))
            continue
        writer.write(row, pixels)
        results.append((row, picture))
    return results
