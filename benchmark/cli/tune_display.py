"""What a person sees of a search: a line per trial, and how far it is, how good, how long still."""

import time

from rich.markup import escape
from rich.progress import BarColumn, TextColumn

from benchmark.cli.bars import Bars
from benchmark.experiment.search_points import in_words
from benchmark.training.trainer import Progress as WithinEpoch
from benchmark.tuning.recipes import best_of
from benchmark.tuning.search import Began, Ended, Moved, Noted, Remarked, Score
from benchmark.tuning.search import SearchEvent as Event
from benchmark.tuning.trials import Told


class TuneDisplay(Bars):
    """Show a search as it goes; on a terminal with a bar, elsewhere in plain lines."""

    def __init__(self, n_wanted: int, n_epochs: int, *, quiet: bool) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.completed:.0f}/{task.total}"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[best]}"),
            quiet=quiet,
        )
        self._n_wanted = n_wanted
        self._n_epochs = n_epochs
        self._n_at_start = 0
        self._n_done = 0
        self._began = time.monotonic()
        self._noted: set[str] = set()
        self._bar = self._bars.add_task("trials", total=n_wanted, left="", best="")
        self._now = self._bars.add_task("now", total=n_epochs, left="", best="", visible=False)

    def begin(self, trials: list[Told]) -> None:
        """Take in what there was before."""
        self._n_at_start = sum(trial.counts for trial in trials)
        self._count(trials)

    def show(self, event: Event, trials: list[Told]) -> None:
        """Take one event in; trials: all there are, at the end of one."""
        if isinstance(event, Began):
            words = ", ".join(in_words(event.point))
            self.say(f"[bold]trial {event.number}[/] {escape(words)}")
        elif isinstance(event, Moved):
            self._move(event)
        elif isinstance(event, Remarked):
            self.say(f"[yellow]note[/] {escape(event.sentence)}")
        else:
            self._end(event, trials)

    def _move(self, event: Moved) -> None:
        step = event.step
        if isinstance(step, Noted):
            if step.sentence.split(":")[0] not in self._noted:
                self._noted.add(step.sentence.split(":")[0])
                self.say(f"  {escape(step.sentence)}")
        elif isinstance(step, Score):
            note = f"trial {event.number}: epoch {step.epoch + 1}, {step.value:.2%}"
            self._bars.update(self._now, completed=step.epoch + 1, best=note, visible=True)
        elif isinstance(step, WithinEpoch):
            done = step.epoch + step.images_done / max(1, step.images_total)
            self._bars.update(self._now, completed=done, visible=True)

    def _end(self, event: Ended, trials: list[Told]) -> None:
        colour = {"complete": "green", "pruned": "yellow", "failed": "red"}[event.state]
        value = f" {event.value:.2%}" if event.value is not None else ""
        reason = f": {escape(event.reason)}" if event.reason else ""
        self._count(trials)
        self.say(
            f"  [{colour}]{event.state}[/]{value} in {event.seconds:.1f} s{reason}"
            f" · {self._n_done}/{self._n_wanted}{self._best(trials)}{self._left()}"
        )

    def _count(self, trials: list[Told]) -> None:
        self._n_done = sum(trial.counts for trial in trials)
        self._bars.update(
            self._bar, completed=self._n_done, left=self._left(), best=self._best(trials, full=True)
        )
        self._bars.update(self._now, completed=0, visible=False)

    def _best(self, trials: list[Told], *, full: bool = False) -> str:
        best = best_of(trials)
        if best is None:
            return ""
        words = f" ({', '.join(in_words(best.point))})" if full else ""
        return f" · best {best.value:.2%} in trial {best.number}{escape(words)}"

    def _left(self) -> str:
        """Say how long it will take still, by the trials of this process and its helpers."""
        here = self._n_done - self._n_at_start
        if here <= 0 or self._n_done >= self._n_wanted:
            return ""
        seconds = (time.monotonic() - self._began) / here * (self._n_wanted - self._n_done)
        return f" · {_span(seconds)} left"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
