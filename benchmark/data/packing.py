"""Decode the pictures of a source in parallel processes into the rows of faces.npy.

Decode the faces of a source on all cores, straight into their rows of the packed array.

In processes: threads were no faster than one of them, since each picture takes the interpreter for
a third of its time and they queue for it (measured in docs/notes/timings.md). Pixels do not travel
between processes, only the files' bytes do; memory is bounded by the batches under way.

Work shared among processes of our own that answer pickled questions over a pipe.

Not by multiprocessing, which imports the caller's main module again. What is asked and answered is
for those who start them: benchmark.data.packing and benchmark.data.crop_folder.

Whom a source promises: the faces its file names tell of, and what is left out by its name.

No picture is looked at here.

Decode batches of pictures into their rows: the work of one process, called by packing.

Run as `python -m benchmark.data.packing FACES_NPY IMAGE_PX` it is such a process: it reads
pickled batches from its standard input, answers each on its standard output, and ends with its
input.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, TypeVar

import pandas as pd

from benchmark.data.archive import Member, Source, Unreadable
from benchmark.data.dataset import NAME_KIND, OTHER_KIND
from benchmark.data.duplicates import LABELS
from benchmark.data.labels import NAME_RULE, FaceLabels, is_picture_name, parse_name
from benchmark.data.pictures import Picture, pillow_quiet, read_picture
from benchmark.data.progress import OnProgress, n_cores
from benchmark.data.table import PixelWriter
from benchmark.errors import DataError

BATCHES_AHEAD: Final = 3
"""Questions read ahead for each process; this bounds the memory, whatever the source holds."""
MAX_PROCESSES: Final = 16
"""One process reads the source, some 20,000 pictures a second; more than this would wait for it."""

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
Worker = TypeVar("Worker")


class Process:
    """A process that runs one of our modules; it ends with its `with` block."""

    def __init__(self, module: str, *arguments: str, doing: str, fix: str) -> None:
        self._doing, self._fix = doing, fix
        search_path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search_path},
            process_group=0,  # Ctrl-C is for us to hear, and for us to end it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # It has nothing to put away: what it wrote is in the file.
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def ask(self, question: object) -> Any:
        """Wait for the answer; raise the error that is one, and DataError if the process died."""
        questions, answers = self.process.stdin, self.process.stdout
        assert questions is not None, "opened as a pipe"
        assert answers is not None, "opened as a pipe"
        try:
            pickle.dump(question, questions)
            questions.flush()
            answer: object = pickle.load(answers)
        except (EOFError, BrokenPipeError, ValueError, pickle.UnpicklingError) as error:
            # ValueError: its pipes are closed, because we are stopping.
            raise DataError(
                f"a {self._doing} process died (exit code {self.process.wait()})", fix=self._fix
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def in_order(
    questions: Iterator[Asked],
    open_worker: Callable[[], AbstractContextManager[Worker]],
    ask: Callable[[Worker, Asked], Answered],
    n_processes: int,
) -> Generator[Answered]:
    """Yield the answers in the order of the questions, with no more than a few under way.

    One thread for each process hands it a question and waits for the answer.
    """
    under_way: deque[Future[Answered]] = deque()
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()

    def answered(question: Asked) -> Answered:
        worker = idle.get()
        try:
            return ask(worker, question)
        finally:
            idle.put(worker)  # a dead one, too: who waits for it shall hear that it is dead

    with ThreadPoolExecutor(n_processes) as pool, contextlib.ExitStack() as workers:
        for _ in range(n_processes):
            idle.put(workers.enter_context(open_worker()))
        # Left in reverse: no question is begun any more, the processes end, the threads hear of it.
        workers.callback(pool.shutdown, wait=False, cancel_futures=True)
        for question in questions:
            under_way.append(pool.submit(answered, question))
            if len(under_way) > BATCHES_AHEAD * n_processes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


@dataclass(frozen=True)
class Census:
    """What the names of a source's members say."""

    faces: list[tuple[str, Member, FaceLabels]]
    """Base name, member and labels of each face, by base name: its place is its row."""
    left_out: list[tuple[str, str, str]]
    """File, kind, reason: rows of the quarantine."""

    def table(self) -> pd.DataFrame:
        """Give the columns file and the labels, one row per face."""
        rows = [
            (name, *(getattr(labels, label) for label in LABELS)) for name, _, labels in self.faces
        ]
        return pd.DataFrame(rows, columns=["file", *LABELS])


def take_census(source: Source) -> Census:
    """Read the labels of every picture's name; raise DataError if there are none or two alike."""
    faces: dict[str, tuple[str, Member, FaceLabels]] = {}
    left_out: list[tuple[str, str, str]] = []
    paths: dict[str, str] = {}
    for member in source.members():
        if not is_picture_name(member.path):
            left_out.append((printable(member.path), OTHER_KIND, "not a picture by its name"))
            continue
        if member.name in paths:
            raise DataError(
                f"two pictures have the name {member.name!r}: "
                f"{paths[member.name]} and {member.path}",
                allowed="each base name once, for faces are known by it",
                source=str(source.path),
                fix="Name the one folder in it that holds each face once",
            )
        paths[member.name] = member.path
        try:
            faces[member.name] = (member.name, member, parse_name(member.name))
        except DataError as error:
            left_out.append((printable(member.name), NAME_KIND, error.found))
    if not faces:
        raise _no_faces(source, paths, left_out)
    return Census([faces[name] for name in sorted(faces)], left_out)


def printable(path: str) -> str:
    """Write a name so that any can go into a text file."""
    return path.encode("utf-8", "backslashreplace").decode()


def _no_faces(
    source: Source, paths: dict[str, str], left_out: list[tuple[str, str, str]]
) -> DataError:
    if not paths:
        return DataError(
            f"{source.path} holds no pictures ({len(left_out)} other files)",
            allowed=f"pictures called {NAME_RULE}",
        )
    file, _, reason = next(row for row in left_out if row[1] == NAME_KIND)
    return DataError(
        f"none of the {len(paths)} pictures of {source.path} has a UTKFace name; {file}: {reason}",
        allowed=f"pictures called {NAME_RULE}",
        fix="Rename the pictures so, name another source, or name a table of their labels with "
        "--labels (for FairFace: --layout fairface)",
    )


Batch = list[tuple[int, bytes]]
"""Row, and the bytes of the file."""
Results = list[tuple[int, Picture | str]]
"""Row, and the picture or the reason why there is none."""


def decode_batch(batch: Batch, writer: PixelWriter) -> Results:
    """Write the pixels of each picture to its row, and say what it was or why it is unusable."""
    results: Results = []
    for row, content in batch:
        try:
            pixels, picture = read_picture(content, writer.image_px)
        except DataError as error:
            results.append((row, f"{error.found} (allowed: {error.allowed})"))
            continue
        writer.write(row, pixels)
        results.append((row, picture))
    return results


def answer_batches(batches: BinaryIO, answers: BinaryIO, writer: PixelWriter) -> None:
    """Decode batch after batch until there are no more; a full disk is an answer, too."""
    with pillow_quiet():
        while True:
            try:
                batch: Batch = pickle.load(batches)
            except EOFError:
                return
            answer: Results | OSError
            try:
                answer = decode_batch(batch, writer)
            except OSError as error:
                answer = OSError(error.errno, error.strerror)
            pickle.dump(answer, answers)
            answers.flush()


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
    """A process that runs benchmark.data.packing; it ends with its `with` block."""

    def __init__(self, path: Path, image_px: int) -> None:
        super().__init__(
            "benchmark.data.packing",
            str(path),
            str(image_px),
            doing="decoding",
            fix="Where memory is short, prepare on fewer cores (taskset), or smaller pictures",
        )

    def decode(self, batch: Batch) -> Results:
        """Have a batch decoded; raise OSError as the process met it, DataError if it died."""
        results: Results = self.ask(batch)
        return results


if __name__ == "__main__":
    opened = PixelWriter.joining(Path(sys.argv[1]), int(sys.argv[2]))
    answer_batches(sys.stdin.buffer, sys.stdout.buffer, opened)
