"""Bars below lines that are said: elsewhere than on a terminal lines alone, else silence."""

import sys
from types import TracebackType
from typing import Self

from rich.markup import escape
from rich.progress import Progress, ProgressColumn, TaskID

from benchmark.cli.output import PlainProgress, err


class Bars:
    """What the displays of runs and searches are: bars while they are entered, and lines."""

    def __init__(self, *columns: ProgressColumn, quiet: bool) -> None:
        self._quiet = quiet
        self._bars: Progress = (
            Progress(*columns, console=err, transient=True, disable=quiet)
            if quiet or sys.stderr.isatty()
            else PlainProgress()
        )
        self._stage = ""
        self._stage_bar: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Say a sentence, above the bars; one line in a log, however long."""
        if not self._quiet:
            self._bars.console.print(text, soft_wrap=True)
            if isinstance(self._bars, PlainProgress):
                self._bars.note_said()

    def show_stage(self, stage: str, n_done: int, n_total: int) -> None:
        """Take in how far a stage of a run is, as benchmark.data.progress says; all 0: unknown."""
        if stage != self._stage:
            self.end_stage()
            self._stage = stage
            # The fields are those of every display's columns.
            self._stage_bar = self._bars.add_task(
                escape(stage), total=n_total or None, note="", left="", best=""
            )
        if self._stage_bar is not None:
            self._bars.update(self._stage_bar, completed=n_done)
        if n_done == n_total > 0:
            self.end_stage()

    def end_stage(self) -> None:
        """Take in that no stage goes on."""
        if self._stage_bar is not None:
            self._bars.remove_task(self._stage_bar)
        self._stage, self._stage_bar = "", None
