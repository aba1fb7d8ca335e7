"""The command `facebench`: puts the groups of commands together, and nothing else."""

import inspect
import io
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import typer

from benchmark import __version__
from benchmark.cli import (
    audit_split,
    compare,
    data,
    leaderboard,
    maintenance,
    predict,
    registry,
    report,
    run,
    speed,
    tracking,
    tune,
    weights,
)
from benchmark.cli.output import Options, out

app = typer.Typer(
    name="facebench",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which network best predicts age group, gender and race from a face, for which subgroups "
    "does it fail, and at what cost? Leak-free numbers with intervals.",
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
    _print_any_name()
    Options.debug = debug
    Options.named_folders.clear()


GROUPS = {"data": data.app, "weights": weights.app, "runs": tracking.app}
COMMANDS: tuple[Callable[..., None], ...] = (
    run.run, run.plan, tune.tune, speed.speed, audit_split.audit_split, leaderboard.leaderboard,
    compare.compare, compare.leak, compare.subsets, report.report, predict.evaluate, report.card,
    predict.predict, predict.export, registry.list_, registry.show, tracking.ui, maintenance.verify,
    maintenance.status, maintenance.clean, maintenance.doctor,
)  # fmt: skip
"""In the order of --help."""

for name, group in GROUPS.items():
    app.add_typer(group, name=name)
for command in COMMANDS:
    app.command(command.__name__.strip("_").replace("_", "-"))(command)
data.app.command("explore")(report.explore)
for group in (app, *GROUPS.values()):
    for info in group.registered_commands:
        # Typer keeps line breaks; a paragraph is as wide as the terminal, and examples come last.
        said, _, examples = (inspect.getdoc(info.callback) or "").partition("\n\nExamples:\n")
        info.help = "\n\n".join(" ".join(part.split()) for part in said.split("\n\n"))
        info.epilog = "\n\n".join(["Examples:", *map(str.strip, examples.splitlines())])


def _print_any_name() -> None:
    """Print what the output cannot encode, as a file name that is not UTF-8, by its escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; a termination signal stops as cleanly as Ctrl-C."""
    signal.signal(signal.SIGTERM, _stop)
    _print_any_name()
    app()
