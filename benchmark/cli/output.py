"""How every command speaks: rich tables for people, one JSON object for machines, exit codes."""

import contextlib
import datetime
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from benchmark.errors import BenchmarkError, RunError

if TYPE_CHECKING:
    from benchmark.reporting.tables import Table

SCHEMA = 1
PLAIN_LINE_SECONDS = 20.0
"""In a log, what takes long says at least so often that it lives."""
BUSY_SECONDS = 2.0


class ExitCode(IntEnum):
    """What the shell is told."""

    FINE = 0
    FINDINGS = 1
    USAGE = 2
    RUNS_FAILED = 3
    INTERRUPTED = 130


class Options:
    """Options given before the command; set once by the root callback."""

    debug = False


out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@dataclass
class Answer:
    """What a command found out; printed as a person's text or as the JSON envelope."""

    command: str
    data: Any = None
    warnings: list[str] = field(default_factory=list)
    errors: list[BenchmarkError] = field(default_factory=list)

    def as_json(self) -> str:
        """Write `{schema, command, ok, data, warnings, errors}` (DESIGN: every --json)."""
        return json.dumps(
            {
                "schema": SCHEMA,
                "command": self.command,
                "ok": not self.errors,
                "data": self.data,
                "warnings": self.warnings,
                "errors": [
                    {
                        "found": error.found,
                        "allowed": error.allowed,
                        "source": error.source,
                        "fix": error.fix,
                    }
                    for error in self.errors
                ],
            },
            indent=2,
            default=str,
        )


@contextlib.contextmanager
def speaking(command: str, *, as_json: bool = False) -> Iterator[Answer]:
    """Run a command's body; turn BenchmarkError and Ctrl-C into a sentence and an exit code.

    So is an OSError that nobody expected: a full disk or a folder that may not be written to can
    be met at any line. With `as_json` the envelope is printed alone on stdout, whatever happens.
    """
    answer = Answer(command)
    try:
        yield answer
    except BrokenPipeError:  # Nobody reads on; the library under typer ends quietly then.
        raise
    except (BenchmarkError, OSError) as error:
        if Options.debug:
            raise
        said = error if isinstance(error, BenchmarkError) else _of_the_system(error)
        answer.errors.append(said)
        if as_json:
            print(answer.as_json())
        else:
            say_error(said)
        raise typer.Exit(ExitCode.USAGE) from None
    except KeyboardInterrupt:
        err.print("[yellow]Stopped.[/] Nothing finished is lost; the same command goes on.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if as_json:
        print(answer.as_json())
    else:
        for warning in answer.warnings:
            say_warning(warning)


def _of_the_system(error: OSError) -> RunError:
    where = f" ({error.filename})" if error.filename else ""
    return RunError(
        f"{error.strerror or error}{where}",
        fix="See whether there is room and who may write there; `facebench --debug …` shows where "
        "in the code it was met",
    )


def say_error(error: BenchmarkError) -> None:
    """Print one error to stderr, without a traceback."""
    err.print(f"[bold red]{type(error).__name__}:[/] {escape(str(error))}", soft_wrap=True)


def say_warning(text: str) -> None:
    """Print one warning to stderr."""
    err.print(f"[yellow]Note:[/] {escape(text)}", soft_wrap=True)


class PlainProgress(Progress):
    """Progress as lines, for a log: one every PLAIN_LINE_SECONDS, whether told of progress or not.

    What is quick leaves no line. A thread speaks up while nothing is told: a long step in a library
    reports nothing. first_seconds: until the first line, which then comes that early.
    """

    def __init__(self, first_seconds: float | None = None) -> None:
        super().__init__(console=err, disable=True)
        self._said = self._began = time.monotonic()
        self._wait = PLAIN_LINE_SECONDS if first_seconds is None else first_seconds
        self._latest: TaskID | None = None
        self._is_over = threading.Event()
        self._speaker = threading.Thread(target=self._speak_up, daemon=True)

    def start(self) -> None:
        """Begin to speak up."""
        if not self._speaker.is_alive():
            self._speaker.start()

    def stop(self) -> None:
        """Fall silent."""
        self._is_over.set()
        if self._speaker.is_alive():
            self._speaker.join()

    def note_said(self) -> None:
        """Take in that somebody else wrote a line."""
        self._said = time.monotonic()

    def _speak_up(self) -> None:
        while not self._is_over.wait(max(0.01, self._said + self._wait - time.monotonic())):
            self._tell()

    def add_task(self, description: str, *arguments: Any, **options: Any) -> TaskID:
        """Take in what is done now."""
        self._latest = super().add_task(description, *arguments, **options)
        return self._latest

    def update(self, task_id: TaskID, *arguments: Any, **options: Any) -> None:
        """Take in how far a task is."""
        super().update(task_id, *arguments, **options)
        self._latest = task_id
        self._tell()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Take in that a task went on."""
        super().advance(task_id, advance)
        self._latest = task_id
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._said < self._wait:
            return
        self._said, self._wait = now, PLAIN_LINE_SECONDS
        err.print(self._line(round(now - self._began)), soft_wrap=True)

    def _line(self, seconds: int) -> str:
        task = next((item for item in self.tasks if item.id == self._latest), None)
        if task is None or task.finished:
            return f"going on … {seconds} s"
        if task.total is None:
            return f"{task.description} …" + (f" {seconds} s" if seconds >= 10 else "")
        left = task.time_remaining
        return (
            f"{task.description}: {task.completed:,.0f} of {task.total:,.0f} "
            f"({task.percentage:.0f} %)"
            + (f", {datetime.timedelta(seconds=round(left))} left" if left else "")
        )


@contextlib.contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """Show progress with time left on stderr: bars on a terminal, elsewhere a line now and then."""
    if not quiet and not sys.stderr.isatty():
        with PlainProgress() as plain:
            yield plain
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=quiet, transient=True) as progress:
        yield progress


@contextlib.contextmanager
def watching(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far several things are, one bar each; gives what is to be told: what, done, all."""
    with progress_bar(quiet=quiet) as progress:
        tasks: dict[str, TaskID] = {}

        def watch(what: str, n_done: int, n_all: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(escape(what), total=n_all)
            progress.update(tasks[what], completed=n_done, total=n_all)

        yield watch


@contextlib.contextmanager
def busy(title: str, *, quiet: bool = False) -> Iterator[None]:
    """Say that something goes on whose end cannot be foreseen, once it has taken two seconds.

    On a terminal with the seconds that have gone by, elsewhere as a line now and then.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with (
        Progress(*columns, console=err, disable=quiet, transient=True)
        if quiet or sys.stderr.isatty()
        else PlainProgress(BUSY_SECONDS)
    ) as progress:
        progress.add_task(escape(title), total=None)
        yield


@contextlib.contextmanager
def bytes_bar(name: str, *, quiet: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """Show how much of a file has arrived; plain lines, one a tenth, where stderr is no terminal.

    Gives what is to be called with the bytes that are here and how many there are, if known.
    """
    if quiet or sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=err, disable=quiet, transient=True) as progress:
            bar = progress.add_task(escape(name), total=None)
            yield lambda here, total: progress.update(bar, completed=here, total=total)
        return
    tenths = 0

    def say(here: int, total: int | None) -> None:
        nonlocal tenths
        if total and here * 10 // total > tenths:
            tenths = here * 10 // total
            err.print(f"{escape(name)}: {tenths}0 % of {total / 1e6:,.1f} MB", soft_wrap=True)

    yield say


def print_table(table: "Table") -> None:
    """Print a table, as wide as the terminal lets it be."""
    from benchmark.reporting.tables import terminal

    out.print(terminal(table, out.width))
