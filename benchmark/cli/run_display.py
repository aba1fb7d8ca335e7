"""What a person sees while runs go on: one bar for the suite, one for the run, a line an epoch."""

from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn

from benchmark import registry
from benchmark.cli.output import Display
from benchmark.experiment.definition import Experiment
from benchmark.experiment.parts import changed_settings
from benchmark.runs.plan import Plan
from benchmark.runs.run import Advanced, Event, Failed, Finished, Prepared, Skipped, Started
from benchmark.tasks import TASK_TITLES
from benchmark.training.trainer import EpochResult


class RunDisplay(Display):
    """Show events as they come; on a terminal with bars, elsewhere in plain lines."""

    def __init__(self, n_runs: int) -> None:
        text = TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[note]}")
        super().__init__(BarColumn(bar_width=14), *text, TimeRemainingColumn())
        self._n_runs, self._n_seen = n_runs, 0
        self._suite_bar = self._bars.add_task("all runs", total=n_runs, note="")
        self._run_bar: TaskID | None = None

    def show(self, event: Event) -> None:
        self.end_stage()
        if isinstance(event, Advanced):
            self._show_step(event)
        elif isinstance(event, Started):
            experiment, done = event.plan.experiment, event.epochs_done
            resumed = f", resumed after epoch {done}" if done else ""
            self.say(f"[bold]{event.plan.title}[/] ({self._n_seen + 1}/{self._n_runs}){resumed}")
            if changes := _changes(experiment):
                self.say(f"  ad hoc: {changes}")
            if used := _faces_used(event.plan):
                self.say(f"  {used}")
            n, n_epochs = event.n_train, experiment.recipe.max_epochs
            self._run_bar = self._bars.add_task(
                "this run", total=n * n_epochs, completed=n * done, note=""
            )
        elif isinstance(event, Prepared):
            if event.sentence:
                self.say(f"  {escape(event.sentence)}")
        else:
            self._n_seen += 1
            self._bars.update(self._suite_bar, completed=self._n_seen)
            if self._run_bar is not None:
                self._bars.remove_task(self._run_bar)
                self._run_bar = None
            self._show_end(event)

    def _show_step(self, event: Advanced) -> None:
        step, epochs = event.step, event.plan.experiment.recipe.max_epochs
        if isinstance(step, EpochResult):
            self.say(epoch_line(step, epochs))
        elif self._run_bar is not None:
            done = step.epoch * step.images_total + step.images_done
            rate = self._bars.tasks[-1].speed
            note = f"epoch {step.epoch + 1}/{epochs} loss {step.train_loss:.3f}"
            note += f" {rate:.0f}/s" if rate else ""
            self._bars.update(self._run_bar, completed=done, note=note)

    def _show_end(self, event: Event) -> None:
        """Show how a run ended; of those that are missing one line for all follows at the end."""
        if isinstance(event, Finished):
            seconds = event.plan.record.done["seconds"]
            self.say(f"  [green]done[/] in {seconds:.0f} s, run {event.plan.identity[:12]}")
        elif isinstance(event, Skipped):
            changes = _changes(event.plan.experiment)
            which = f"{event.plan.title}[/]" + (f", {changes}" if changes else "")
            state = "up to date" if event.why == "done" else f"skipped ({event.why})"
            self.say(f"[bold]{which}: {state}")
        elif isinstance(event, Failed):
            name, why = event.experiment.name, escape(str(event.error))
            self.say(f"[bold]{name}[/]: [red]failed[/], {why}")


class ClusterDisplay(RunDisplay):
    """Show runs of which many are under way at once: a line where one begins and where it ends."""

    def show(self, event: Event) -> None:
        """Show one event; epochs of several runs in turn would say nothing."""
        if isinstance(event, Started):
            done = event.epochs_done
            resumed = f", resumed after epoch {done}" if done else ""
            self.say(f"[bold]{event.plan.title}[/] on {escape(event.where)}{resumed}")
        elif not isinstance(event, Advanced | Prepared):
            if isinstance(event, Finished):
                self.say(f"[bold]{event.plan.title}[/]")
            super().show(event)


def _faces_used(plan: Plan) -> str:
    """Count the faces a run uses, by task where that differs; empty where they are the split's."""
    about, placed = plan.record.about, plan.faces.table["part"]
    counts = about["dataset"]["counts"]
    by_task = about.get("labelled", {})
    if not by_task and all((placed == part).sum() == n for part, n in counts.items()):
        return ""

    def listed(found: dict[str, int]) -> str:
        return ", ".join(f"{n:,} {part}" for part, n in found.items())

    parts = [f"{TASK_TITLES[task]} {listed(found)}" for task, found in by_task.items()]
    return f"faces used: {listed(counts)}" + (f"; labelled: {'; '.join(parts)}" if parts else "")


def _changes(experiment: Experiment) -> str:
    """Say what an ad-hoc experiment changes of the registered one; empty where nothing is known."""
    base = registry.experiments().get(experiment.name) if experiment.ad_hoc else None
    if base is None:
        return ""
    return escape(", ".join(changed_settings(base.as_dict(), experiment.as_dict())))


def epoch_line(result: EpochResult, n_epochs: int) -> str:
    """Write an epoch in 80 columns: the validation score that selects, and what it consists of."""
    accuracies = result.val_accuracy.items()
    rates = ", ".join(f"{TASK_TITLES[task]} {100 * rate:.1f}" for task, rate in accuracies)
    best = " [green]best[/]" if result.is_best else ""
    return (
        f"{result.epoch + 1:>3}/{n_epochs} loss {result.train_loss:.3f} "
        f"val {100 * result.val_combined:.1f} % ({rates}) {result.images_per_second:.0f}/s{best}"
    )
