"""The command `facebench`: puts the groups of commands together, and nothing else."""

import inspect
import io
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from benchmark import __version__
from benchmark.cli import (
    compare,
    data,
    maintenance,
    predict,
    registry,
    report,
    run,
    speed,
    tune,
    weights,
)
from benchmark.cli.options import as_command
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
    # What the output cannot encode, as a file name that is not UTF-8, is printed by its escapes.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    Options.debug = debug


Commands = tuple[Callable[..., None], ...]
COMMANDS: Commands = (
    run.run, run.plan, tune.tune, speed.speed, data.audit_split, report.leaderboard,
    compare.compare, compare.leak, compare.subsets, report.report, predict.evaluate, report.card,
    predict.predict, predict.export, registry.list_, registry.show, maintenance.ui,
    maintenance.verify, maintenance.status, maintenance.clean,
)  # fmt: skip
"""In the order of --help."""
GROUPS: dict[str, tuple[str, Commands]] = {
    "data": (
        "Prepare and audit data sets of faces.",
        (data.crop, data.fetch, data.prepare, data.sample, data.audit, report.explore),
    ),
    "weights": ("Weights that backbones start from.", (weights.list_, weights.verify, weights.add)),
    "runs": ("Look after the folders of runs.", (maintenance.rescore, maintenance.import_)),
}


def _add(group: typer.Typer, commands: Commands, path: str = "") -> None:
    for function in commands:
        name = function.__name__.strip("_").replace("_", "-")
        # Typer keeps line breaks; a paragraph is as wide as the terminal, and examples come last.
        said, _, examples = (inspect.getdoc(function) or "").partition("\n\nExamples:\n")
        text = "\n\n".join(" ".join(part.split()) for part in said.split("\n\n"))
        epilog = "\n\n".join(["Examples:", *map(str.strip, examples.splitlines())])
        group.command(name, help=text, epilog=epilog)(as_command(f"{path}{name}", function))


_add(app, COMMANDS)
for name, (text, commands) in GROUPS.items():
    group = typer.Typer(no_args_is_help=True, help=text)
    _add(group, commands, f"{name} ")
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line; a termination signal stops as cleanly as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()
