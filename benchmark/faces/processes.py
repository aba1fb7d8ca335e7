"""Work shared among processes of our own that answer pickled questions over a pipe.

Not by multiprocessing, which imports the caller's main module again. What is asked and answered is
for those who start them: benchmark.faces.packing and benchmark.faces.crop_folder.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Final, Self, TypeVar

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
