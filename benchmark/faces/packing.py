"""Decode the faces of a source on all cores, straight into their rows of the packed array.

In processes: threads were no faster than one of them, since each picture takes the interpreter for
a third of its time and they queue for it (measured in docs/DATA.md). Not by multiprocessing, which
imports the caller's main module again. Pixels do not travel between processes, only the files'
bytes do; memory is bounded by the batches under way.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmark.errors import DataError
from benchmark.faces.archive import Source, Unreadable
from benchmark.faces.census import Census
from benchmark.faces.decoding import Batch, Results, decode_batch
from benchmark.faces.pictures import Picture, pillow_quiet
from benchmark.faces.pixels import PixelWriter
from benchmark.faces.progress import OnProgress, n_cores

BATCH_FACES: Final = 32
"""Pictures handed to a process at once: 8 to 128 made no difference that could be measured."""
BATCH_BYTES: Final = 4 << 20
"""A batch is closed early at this size, so that large pictures do not pile up in memory."""
BATCHES_AHEAD: Final = 3
"""Batches read ahead for each process; this bounds the memory, whatever the source holds."""

MIN_FACES_TO_SHARE: Final = 512
"""Fewer are decoded before the processes would have started."""
MAX_PROCESSES: Final = 16
"""One process reads the source, some 20,000 pictures a second; more than this would wait for it."""


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
    """Yield the results of batches in order, with no more than a few batches under way.

    One thread for each process hands it a batch and waits for the answer.
    """
    n_processes = min(n_cores(), MAX_PROCESSES)
    under_way: deque[Future[Results]] = deque()
    idle: queue.SimpleQueue[Decoder] = queue.SimpleQueue()

    def decode(batch: Batch) -> Results:
        decoder = idle.get()
        try:
            return decoder.decode(batch)
        finally:
            idle.put(decoder)  # a dead one, too: who waits for it shall hear that it is dead

    with ThreadPoolExecutor(n_processes) as pool, contextlib.ExitStack() as decoders:
        for _ in range(n_processes):
            idle.put(decoders.enter_context(Decoder(writer.path, writer.image_px)))
        # Left in reverse: no batch is begun any more, the processes end, the threads hear of it.
        decoders.callback(pool.shutdown, wait=False, cancel_futures=True)
        for batch in batches:
            under_way.append(pool.submit(decode, batch))
            if len(under_way) > BATCHES_AHEAD * n_processes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


class Decoder:
    """A process that runs benchmark.faces.decoding; it ends with its `with` block."""

    def __init__(self, path: Path, image_px: int) -> None:
        search_path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmark.faces.decoding", str(path), str(image_px)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search_path},
            process_group=0,  # Ctrl-C is for us to hear, and for us to end it
        )

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *error: object) -> None:
        # It has nothing to put away: what it wrote is in the file.
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def decode(self, batch: Batch) -> Results:
        """Have a batch decoded; raise OSError as the process met it, DataError if it died."""
        batches, answers = self.process.stdin, self.process.stdout
        assert batches is not None, "opened as a pipe"
        assert answers is not None, "opened as a pipe"
        try:
            pickle.dump(batch, batches)
            batches.flush()
            answer: Results | OSError = pickle.load(answers)
        except (EOFError, BrokenPipeError, ValueError, pickle.UnpicklingError) as error:
            # ValueError: its pipes are closed, because we are stopping.
            raise DataError(
                f"a decoding process died (exit code {self.process.wait()})",
                fix="Where memory is short, prepare on fewer cores (taskset), or smaller pictures",
            ) from error
        if isinstance(answer, OSError):
            raise answer
        return answer
