"""What every command prints: tables and progress for people, one JSON object, exit codes."""

import contextlib
import datetime
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Self

import typer
from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, ProgressColumn, TaskID
from rich.table import Table as RichTable
from rich.text import Text

from benchmark.errors import BenchmarkError, RunError
from benchmark.reporting.tables import Table, terminal

SCHEMA = 1
PLAIN_LINE_SECONDS = 20.0
"""How often a long step leaves a line in a log, at least."""


class ExitCode(IntEnum):
    """What a command ends with."""

    FINE, FINDINGS, USAGE, RUNS_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


class Options:
    """What holds for the whole command."""

    debug = False
    quiet = False
    """Whether no progress is shown: with --quiet or --json."""


# No width that a table fits into is taken, as the 0 of a CI log is not.
if not (columns := os.environ.get("COLUMNS", "80")).isdigit() or int(columns) < 20:
    del os.environ["COLUMNS"]
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@dataclass
class CommandResult:
    """What a command found; printed as a person's text or as the JSON envelope."""

    prints_json: bool = False
    data: Any = None
    warnings: list[str] = field(default_factory=list)
    errors: list[BenchmarkError] = field(default_factory=list)
    code: ExitCode | None = None
    """What the command ends with; None where it ends with FINDINGS if there are errors."""


@contextlib.contextmanager
def speaking(
    command: str, *, as_json: bool = False, quiet: bool = False
) -> Iterator[CommandResult]:
    """Run a command's body, then print its warnings and errors and exit with its code.

    BenchmarkError, OSError and Ctrl-C become a sentence and a code, too. With `as_json` the
    envelope is printed alone on stdout, whatever happens, and `out` prints nothing.
    """
    answer = CommandResult(as_json)
    out.quiet, Options.quiet = as_json, quiet or as_json
    try:
        yield answer
    except (BenchmarkError, OSError) as error:
        # A broken pipe: nobody reads on, and the library under typer ends quietly.
        if Options.debug or isinstance(error, BrokenPipeError):
            raise
        answer.errors.append(error if isinstance(error, BenchmarkError) else _of_the_system(error))
        answer.code = ExitCode.USAGE
    except KeyboardInterrupt:
        err.print("[yellow]Stopped.[/] Nothing finished is lost; the same command resumes.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        out.quiet = Options.quiet = False
    if as_json:
        parts = ("found", "allowed", "source", "fix")
        errors = [{part: getattr(error, part) for part in parts} for error in answer.errors]
        envelope = {"schema": SCHEMA, "command": command, "ok": not errors, "data": answer.data}
        envelope |= {"warnings": answer.warnings, "errors": errors}
        print(json.dumps(envelope, indent=2, default=str))
    else:
        for warning in answer.warnings:
            say_warning(warning)
        for found in answer.errors:
            err.print(f"[bold red]Error:[/] {escape(str(found))}", soft_wrap=True)
    found_any = ExitCode.FINDINGS if answer.errors else ExitCode.FINE
    if code := found_any if answer.code is None else answer.code:
        raise typer.Exit(code)


def duration(seconds: float) -> str:
    """Write a time as h:mm:ss; what takes any is a second at least."""
    return str(datetime.timedelta(seconds=max(1, round(seconds)))) if seconds else "0 s"


def _of_the_system(error: OSError) -> RunError:
    where = f" ({error.filename})" if error.filename else ""
    fix = "Check the free space and the right to write there; `facebench --debug …` says where"
    return RunError(f"{error.strerror or error}{where}", fix=fix)


def tell(text: str) -> None:
    """Say on stderr what is done or was written, unless --quiet or --json asks for silence."""
    if not Options.quiet:
        err.print(text, soft_wrap=True)


def say_warning(text: str) -> None:
    err.print(f"[yellow]Note:[/] {escape(text)}", soft_wrap=True)


class Display:
    """Progress on stderr while it is entered: bars on a terminal, elsewhere lines for a log.

    There is a line every PLAIN_LINE_SECONDS, whether progress is reported or not, for a long step
    in a library reports nothing. What is quick leaves no line.
    """

    def __init__(self, *columns: ProgressColumn) -> None:
        self._stage = ""
        self._stage_bar: TaskID | None = None
        text, has_bars = rich_progress.TextColumn("{task.description}"), sys.stderr.isatty()
        self._is_log = not (has_bars or Options.quiet)
        has_bars = has_bars and not Options.quiet
        self._bars = Progress(text, *columns, console=err, disable=not has_bars, transient=True)
        self._began = time.monotonic()
        self._line_is_due = self._began + PLAIN_LINE_SECONDS
        self._is_over = threading.Event()
        self._speaker = threading.Thread(target=self._speak, daemon=True)

    def __enter__(self) -> Self:
        self._bars.start()
        if self._is_log:
            self._speaker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._is_over.set()
        if self._is_log:
            self._speaker.join()

    def _speak(self) -> None:
        while not self._is_over.wait(max(0.01, self._line_is_due - time.monotonic())):
            if time.monotonic() >= self._line_is_due:
                self.say(self._line())

    def _line(self) -> str:
        task = next((task for task in reversed(self._bars.tasks) if not task.finished), None)
        if task is None or task.total is None:
            seconds = time.monotonic() - self._began if task is None else task.elapsed or 0
            return f"{task.description if task else 'working'} … {seconds:.0f} s"
        left = f", {datetime.timedelta(seconds=round(task.time_remaining or 0))} left"
        done = f"{task.completed:,.0f} of {task.total:,.0f} ({task.percentage:.0f} %)"
        return f"{task.description}: {done}{left if task.time_remaining else ''}"

    def say(self, text: str) -> None:
        """Say a sentence, above the bars; one line in a log, however long."""
        if not Options.quiet:
            self._line_is_due = time.monotonic() + PLAIN_LINE_SECONDS
            err.print(text, soft_wrap=True)

    def show_stage(self, stage: str, n_done: int, n_total: int) -> None:
        """Show how far a stage is, as benchmark.data.progress reports; all 0: unknown."""
        if stage != self._stage or self._stage_bar is None:
            self.end_stage()
            # The field is of a run's display.
            self._stage_bar = self._bars.add_task(escape(stage), total=n_total or None, note="")
            self._stage = stage
        self._bars.update(self._stage_bar, completed=n_done)

    def end_stage(self) -> None:
        if self._stage_bar is not None:
            self._bars.remove_task(self._stage_bar)
        self._stage_bar = None


@contextlib.contextmanager
def watching() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far something is, one bar after another; gives what takes what, done, all."""
    times = (rich_progress.TimeElapsedColumn(), rich_progress.TimeRemainingColumn())
    columns = (rich_progress.BarColumn(), rich_progress.MofNCompleteColumn(), *times)
    with Display(*columns) as display:
        yield display.show_stage


@contextlib.contextmanager
def busy(title: str) -> Iterator[None]:
    """Show that work with no foreseeable end is done."""
    with Display(rich_progress.SpinnerColumn(), rich_progress.TimeElapsedColumn()) as display:
        display.show_stage(title, 0, 0)
        yield


def print_table(table: Table) -> None:
    """Print a table, as wide as the terminal lets it be."""
    out.print(terminal(table, out.width))


def print_points(texts: Iterable[str]) -> None:
    """Print sentences as the points of a list, further lines of each under its first."""
    grid = RichTable.grid(padding=(0, 1, 0, 0))
    for text in texts:
        grid.add_row(" ·", Text(text))
    if grid.rows:
        out.print(grid)
