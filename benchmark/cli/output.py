"""What every command prints: tables and progress for people, one JSON object, exit codes."""

import contextlib
import datetime
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import typer
from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import Progress, ProgressColumn, TaskID
from rich.table import Table as RichTable
from rich.text import Text

from benchmark.errors import BenchmarkError, RunError

if TYPE_CHECKING:
    from benchmark.reporting.tables import Table

SCHEMA = 1
PLAIN_LINE_SECONDS = 20.0
"""How often a long step leaves a line in a log, at least."""
BUSY_SECONDS = 2.0
MAKES_DATA_DIR = ("data prepare", "data fetch", "data crop", "weights add", "doctor")
READS_RUNS_DIR = ("status", "clean", "ui")


class ExitCode(IntEnum):
    """What a command ends with."""

    FINE, FINDINGS, USAGE, RUNS_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


class Options:
    """What holds for the whole command: options of every command, and folders that were named."""

    debug = False
    quiet = False
    """Whether no progress is shown: with --quiet or --json."""
    given: ClassVar[dict[str, Any]] = {}
    """All of the command's options, by their names in code."""
    named_folders: ClassVar[dict[str, Path]] = {}
    """By option, where it was given on the command line or by a variable."""


def usable_columns(environment: MutableMapping[str, str]) -> None:
    """Take COLUMNS out where it is no width that a table fits into, as 0 from a CI log is not."""
    given = environment.get("COLUMNS", "80")
    if not given.isdigit() or int(given) < 20:
        del environment["COLUMNS"]


usable_columns(os.environ)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@dataclass
class CommandResult:
    """What a command found; printed as a person's text or as the JSON envelope."""

    command: str
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
    answer = CommandResult(command, as_json)
    out.quiet, Options.quiet = as_json, quiet or as_json
    try:
        check_named_folders(command)
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


def check_named_folders(command: str) -> None:
    """Raise RunError where a folder was named that a command only reads, and that does not exist.

    A mistyped one would look as if there was nothing. Synthetic faces that are asked for by
    name are made in a new folder.
    """
    draws = command in ("run", "tune") and Options.given.get("dataset") == "drawn"
    makes_data_dir = command in MAKES_DATA_DIR or draws
    reads = {"--data-dir": not makes_data_dir, "--runs-dir": command in READS_RUNS_DIR}
    named, Options.named_folders = Options.named_folders, {}
    for option, folder in named.items():
        if reads[option] and not folder.is_dir():
            fix = "Check its name, or make it with mkdir"
            raise RunError(f"the folder {folder} does not exist", source=option, fix=fix)


def duration(seconds: float) -> str:
    """Write a time as h:mm:ss; what takes any is a second at least."""
    return str(datetime.timedelta(seconds=max(1, round(seconds)))) if seconds else "0 s"


def _of_the_system(error: OSError) -> RunError:
    where = f" ({error.filename})" if error.filename else ""
    fix = "Check the free space and the right to write there; `facebench --debug …` says where"
    return RunError(f"{error.strerror or error}{where}", fix=fix)


def tell(text: str) -> None:
    """Say on stderr what goes on or was written, unless --quiet or --json asks for silence."""
    if not Options.quiet:
        err.print(text, soft_wrap=True)


def say_warning(text: str) -> None:
    err.print(f"[yellow]Note:[/] {escape(text)}", soft_wrap=True)


class PlainProgress(Progress):
    """Progress as lines, for a log: one every PLAIN_LINE_SECONDS, whether progress is reported or
    not, for a long step in a library reports nothing. What is quick leaves no line.

    first_seconds: until the first line, if that comes earlier.
    """

    def __init__(self, first_seconds: float | None = None) -> None:
        super().__init__(console=err, disable=True)
        self._began = self._said = time.monotonic()
        self._first_seconds = PLAIN_LINE_SECONDS if first_seconds is None else first_seconds
        self._is_over = threading.Event()
        self._speaker = threading.Thread(target=self._speak, daemon=True)

    def start(self) -> None:
        if not self._speaker.is_alive():
            self._speaker.start()

    def stop(self) -> None:
        self._is_over.set()
        if self._speaker.is_alive():
            self._speaker.join()

    def note_said(self) -> None:
        """Wait anew, because something else printed a line."""
        self._said = time.monotonic()

    def _speak(self) -> None:
        wait = self._first_seconds
        while not self._is_over.wait(max(0.01, self._said + wait - time.monotonic())):
            if time.monotonic() - self._said >= wait:
                self._said, wait = time.monotonic(), PLAIN_LINE_SECONDS
                err.print(self._line(), soft_wrap=True)

    def _line(self) -> str:
        task = next((task for task in reversed(self.tasks) if not task.finished), None)
        if task is None or task.total is None:
            seconds = time.monotonic() - self._began if task is None else task.elapsed or 0
            return f"{task.description if task else 'working'} … {seconds:.0f} s"
        left = task.time_remaining
        shown = f", {datetime.timedelta(seconds=round(left))} left" if left else ""
        done = f"{task.completed:,.0f} of {task.total:,.0f} ({task.percentage:.0f} %)"
        return f"{task.description}: {done}{shown}"


def bars(*columns: ProgressColumn, first_seconds: float | None = None) -> Progress:
    """Make progress on stderr: bars on a terminal, elsewhere a line now and then."""
    if not Options.quiet and not sys.stderr.isatty():
        return PlainProgress(first_seconds)
    text = rich_progress.TextColumn("{task.description}")
    return Progress(text, *columns, console=err, disable=Options.quiet, transient=True)


@contextlib.contextmanager
def watching() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far several things are, one bar each; gives what takes what, done, all."""
    times = (rich_progress.TimeElapsedColumn(), rich_progress.TimeRemainingColumn())
    with bars(rich_progress.BarColumn(), rich_progress.MofNCompleteColumn(), *times) as progress:
        tasks: dict[str, TaskID] = {}

        def watch(what: str, n_done: int, n_all: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(escape(what), total=n_all)
            progress.update(tasks[what], completed=n_done, total=n_all)

        yield watch


@contextlib.contextmanager
def busy(title: str) -> Iterator[None]:
    """Show that work with no foreseeable end is done, in a log once it has taken BUSY_SECONDS."""
    columns = (rich_progress.SpinnerColumn(), rich_progress.TimeElapsedColumn())
    with bars(*columns, first_seconds=BUSY_SECONDS) as progress:
        progress.add_task(escape(title), total=None)
        yield


class Display:
    """What the displays of runs and searches are: bars while they are entered, and lines."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._bars = bars(*columns)
        self._stage = ""
        self._stage_bar: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Say a sentence, above the bars; one line in a log, however long."""
        if not Options.quiet:
            self._bars.console.print(text, soft_wrap=True)
            if isinstance(self._bars, PlainProgress):
                self._bars.note_said()

    def show_download(self, name: str) -> None:
        """Say that a weight file is downloaded."""
        self.say(f"[bold]downloading[/] {name}")

    def show_note(self, sentence: str) -> None:
        """Show that something does not work as asked."""
        self.say(f"  [yellow]note[/] {escape(sentence)}")

    def show_stage(self, stage: str, n_done: int, n_total: int) -> None:
        """Show how far a stage of a run is, as benchmark.data.progress reports; all 0: unknown."""
        if stage != self._stage:
            self.end_stage()
            self._stage = stage
            # The field is of a run's display.
            self._stage_bar = self._bars.add_task(escape(stage), total=n_total or None, note="")
        if self._stage_bar is not None:
            self._bars.update(self._stage_bar, completed=n_done)
        if n_done == n_total > 0:
            self.end_stage()

    def end_stage(self) -> None:
        if self._stage_bar is not None:
            self._bars.remove_task(self._stage_bar)
        self._stage, self._stage_bar = "", None


def print_table(table: "Table") -> None:
    """Print a table, as wide as the terminal lets it be."""
    from benchmark.reporting.tables import terminal

    out.print(terminal(table, out.width))


def print_points(texts: Iterable[str]) -> None:
    """Print sentences as the points of a list, further lines of each under its first."""
    for text in texts:
        row = RichTable.grid(padding=(0, 1, 0, 0))
        row.add_row("·", Text(text))
        out.print(Padding(row, (0, 0, 0, 1)))
