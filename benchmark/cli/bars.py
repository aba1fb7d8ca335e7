"""Bars below lines that are said: on a terminal both, elsewhere the lines alone, else silence."""

import sys
from types import TracebackType
from typing import Self

from rich.progress import Progress, ProgressColumn

from benchmark.cli.output import err


class Bars:
    """What the displays of runs and searches are: bars while they are entered, and lines."""

    def __init__(self, *columns: ProgressColumn, quiet: bool) -> None:
        self._quiet = quiet
        hidden = quiet or not sys.stderr.isatty()
        self._bars = Progress(*columns, console=err, transient=True, disable=hidden)

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
