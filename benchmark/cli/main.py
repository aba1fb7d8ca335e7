"""The command `facebench`: puts the groups of commands together, and nothing else."""

import signal
from types import FrameType
from typing import Annotated

import typer

from benchmark import __version__
from benchmark.cli import (
    audit_split,
    card,
    clean,
    compare,
    data,
    doctor,
    evaluate,
    explore,
    export,
    leaderboard,
    predict,
    registry,
    report,
    run,
    show,
    speed,
    status,
    studies,
    tracking,
    tune,
    verify,
    weights,
)
from benchmark.cli.output import Options, out

app = typer.Typer(
    name="facebench",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which network best reads age group, gender and race from a face, for whom does it "
    "fail, and at what cost? Leak-free numbers with intervals.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"facebench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option(help="Show a traceback with an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
    Options.debug = debug


app.add_typer(data.app, name="data")
data.app.command("explore", epilog=explore.EXAMPLES)(explore.explore)
app.add_typer(weights.app, name="weights")
app.add_typer(tracking.app, name="runs")
app.command("run")(run.run)
app.command("tune", epilog=tune.EXAMPLES)(tune.tune)
app.command("speed", epilog=speed.EXAMPLES)(speed.speed)
app.command("audit-split", epilog=audit_split.EXAMPLES)(audit_split.audit_split)
app.command("leaderboard", epilog=leaderboard.EXAMPLES)(leaderboard.leaderboard)
app.command("compare")(compare.compare)
app.command("leak")(studies.leak)
app.command("subsets")(studies.subsets)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("card", epilog=card.EXAMPLES)(card.card)
app.command("predict", epilog=predict.EXAMPLES)(predict.predict)
app.command("export", epilog=export.EXAMPLES)(export.export)
app.command("list")(registry.list_)
app.command("show")(show.show)
app.command("ui")(tracking.ui)
app.command("verify", epilog=verify.EXAMPLES)(verify.verify)
app.command("status", epilog=status.EXAMPLES)(status.status)
app.command("clean", epilog=clean.EXAMPLES)(clean.clean)
app.command("doctor")(doctor.doctor)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; a termination signal stops as cleanly as Ctrl-C."""
    signal.signal(signal.SIGTERM, _stop)
    app()
