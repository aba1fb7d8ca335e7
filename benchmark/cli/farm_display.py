"""What a person sees while a farm grows: what a trunk read, and a bar over all heads' epochs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn

from benchmark.cli.bars import Bars
from benchmark.farms import (
    FarmCosts,
    FarmEvent,
    FeaturesRead,
    Field,
    Planted,
    StackAdvanced,
)
from benchmark.runs import Advanced, Failed, Finished, Missing, Skipped

if TYPE_CHECKING:
    from benchmark.training.device import Device


class FarmDisplay(Bars):
    """Show events as they come; on a terminal with a bar, elsewhere in plain lines."""

    def __init__(self, field: Field, *, quiet: bool) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=14),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            quiet=quiet,
        )
        self._field = field
        # In epochs of one head; a head that stops early jumps to its end.
        total = sum(item.recipe.max_epochs for item in field.experiments) * len(field.seeds)
        self._bar = self._bars.add_task("all heads", total=total, note="")
        self._epochs = 0.0
        self._epochs_of: dict[str, int] = {}
        self._downloaded = ""
        self._faces_bar: TaskID | None = None

    def say_where(self, device: "Device") -> None:
        """Say on which faces and where the heads are trained."""
        faces = self._field.faces
        counts = ", ".join(
            f"{(faces.table['part'] == part).sum():,} {part}" for part in ("train", "val", "test")
        )
        what = "[bold yellow]DRAWN FACES[/], not people: " if faces.drawn else ""
        self.say(
            f"{what}data set [bold]{faces.name}[/] ({counts}) on {device.description}, "
            f"{device.precision}{' where that is faster' if device.probes else ''}"
        )

    def show_download(self, name: str, n_here: int, n_total: int | None) -> None:
        """Take in how many bytes of a weight file have arrived, of how many if that is known."""
        if name != self._downloaded:
            self._downloaded = name
            size = "" if n_total is None else f", {n_total / 1e6:.1f} MB"
            self.say(f"[bold]fetching[/] {name}{size}")

    def show_faces(self, n_done: int, n_total: int) -> None:
        """Take in how many faces have gone through a frozen trunk."""
        if self._faces_bar is None:
            self._faces_bar = self._bars.add_task("frozen trunk", total=n_total, note="faces")
        self._bars.update(self._faces_bar, completed=n_done, total=n_total)
        if n_done == n_total:
            self._bars.remove_task(self._faces_bar)
            self._faces_bar = None

    def show(self, event: FarmEvent) -> None:
        """Take one event in."""
        if isinstance(event, FeaturesRead):
            self.say(f"[bold]{event.title}[/]: {_features_in_words(event)}")
        elif isinstance(event, Planted):
            self.say(
                f"  {event.n_heads} head{'s' if event.n_heads > 1 else ''}, {_stacks(event.stacks)}"
            )
        elif isinstance(event, StackAdvanced):
            step = event.step
            here = len(step.places) * step.images_done / step.images_total
            note = f"{len(step.places)} in epoch {step.epoch + 1}"
            self._bars.update(self._bar, completed=self._epochs + here, note=note)
        elif isinstance(event, Advanced):
            self._forward(event.plan.identity, 1)
        elif isinstance(event, Finished | Skipped):
            self._forward(event.plan.identity, event.plan.experiment.recipe.max_epochs)
            if isinstance(event, Skipped) and event.why != "done":
                self.say(f"[bold]{event.plan.title}[/]: left out ({event.why})")
        elif isinstance(event, Missing):
            self.say(
                f"[bold]{event.experiment.name}[/]: [yellow]missing[/], its weights are not at hand"
            )
        elif isinstance(event, Failed):
            why = escape(str(event.error))
            self.say(f"[bold]{event.experiment.name}[/]: [red]failed[/], {why}")

    def _forward(self, identity: str, n_epochs: int) -> None:
        """Move a head on, and no further than its end."""
        before = self._epochs_of.get(identity, 0)
        self._epochs_of[identity] = max(before, before + 1 if n_epochs == 1 else n_epochs)
        self._epochs += self._epochs_of[identity] - before
        self._bars.update(self._bar, completed=self._epochs)

    def say_end(self, counts: Mapping[str, int], costs: FarmCosts) -> None:
        """Say how the runs ended, and what took how long."""
        self.say(
            f"{counts['finished']} finished, {counts['skipped']} needed nothing, "
            f"{counts['missing']} missing, {counts['failed']} failed."
        )
        if costs.n_trained:
            self.say(
                f"Features {costs.features:.1f} s; training {costs.training:.1f} s, "
                f"{costs.training / costs.n_trained:.2f} s a head; writing the runs "
                f"{costs.writing:.1f} s."
            )


def _features_in_words(event: FeaturesRead) -> str:
    """Say how long a trunk's features are, where they come from, and what that took."""
    how = {"found": "found in the cache", "built": "computed and kept", "memory": "computed"}
    report = event.report
    mirrored = ", mirrored too" if report["views"] > 1 else ""
    return (
        f"{event.n_features:,} features of every face{mirrored}, {how[report['origin']]} in "
        f"{report['seconds']:.1f} s"
    )


def _stacks(sizes: tuple[int, ...]) -> str:
    """Say how many go through a step together: `all in one stack`, `in 4 stacks of 6`."""
    if len(sizes) == 1:
        return "all in one stack"
    least, most = min(sizes), max(sizes)
    return f"in {len(sizes)} stacks of {least if least == most else f'{least} to {most}'}"
