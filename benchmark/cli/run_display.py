"""What is shown while runs proceed: one bar for the suite, one for the run, a line an epoch."""

from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn

from benchmark import registry
from benchmark.cli.output import Display
from benchmark.experiment.definition import Experiment
from benchmark.experiment.parts import changed_settings
from benchmark.runs.plan import Plan
from benchmark.runs.run import Advanced, Event, Failed, Finished, Skipped, Started
from benchmark.tasks import TASK_TITLES
from benchmark.training.trainer import EpochResult


class RunDisplay(Display):
    """Show events as they come; on a terminal with bars, elsewhere in plain lines.

    Of runs on a cluster, of which many are under way at once, only where each begins and its end.
    """

    def __init__(self, n_runs: int) -> None:
        text = TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[note]}")
        super().__init__(BarColumn(bar_width=14), *text, TimeRemainingColumn())
        self._n_runs, self._n_seen = n_runs, 0
        self._suite_bar = self._bars.add_task("all runs", total=n_runs, note="")
        self._run_bar: TaskID | None = None

    def show(self, event: Event) -> None:
        self.end_stage()
        if isinstance(event, Advanced):
            if self._run_bar is not None:
                self._show_step(event, self._run_bar)
        elif isinstance(event, Started):
            self._show_start(event)
        else:
            self._n_seen += 1
            self._bars.update(self._suite_bar, completed=self._n_seen)
            self._show_end(event)
            if self._run_bar is not None:
                self._bars.remove_task(self._run_bar)
                self._run_bar = None

    def _show_start(self, event: Started) -> None:
        title, done = f"[bold]{event.plan.title}[/]", event.epochs_done
        resumed = f", resumed after epoch {done}" if done else ""
        if event.where:
            self.say(f"{title} on {escape(event.where)}{resumed}")
            return
        self.say(f"{title} ({self._n_seen + 1}/{self._n_runs}){resumed}")
        if changes := _changes(event.plan.experiment):
            self.say(f"  ad hoc: {changes}")
        if used := _faces_used(event.plan):
            self.say(f"  {used}")
        total = event.n_train * event.plan.experiment.recipe.max_epochs
        done *= event.n_train
        self._run_bar = self._bars.add_task("this run", total=total, completed=done, note="")

    def _show_step(self, event: Advanced, run_bar: TaskID) -> None:
        step, epochs = event.step, event.plan.experiment.recipe.max_epochs
        if isinstance(step, EpochResult):
            self.say(epoch_line(step, epochs))
            return
        done = step.epoch * step.images_total + step.images_done
        rate = self._bars.tasks[-1].speed
        note = f"epoch {step.epoch + 1}/{epochs} loss {step.train_loss:.3f}"
        note += f" {rate:.0f}/s" if rate else ""
        self._bars.update(run_bar, completed=done, note=note)

    def _show_end(self, event: Event) -> None:
        """Show how a run ended; of those not run one line for all follows at the end."""
        if isinstance(event, Finished):
            which = "" if self._run_bar is not None else f"[bold]{event.plan.title}[/]"
            seconds = event.plan.record.done["seconds"]
            self.say(f"{which}  [green]done[/] in {seconds:.0f} s, run {event.plan.identity[:12]}")
        elif isinstance(event, Skipped):
            changes = _changes(event.plan.experiment)
            which = f"{event.plan.title}[/]" + (f", {changes}" if changes else "")
            state = "up to date" if event.why == "done" else f"skipped ({event.why})"
            self.say(f"[bold]{which}: {state}")
        elif type(event) is Failed:  # and not Missing
            name, why = event.experiment.name, escape(str(event.error))
            self.say(f"[bold]{name}[/]: [red]failed[/], {why}")


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
