"""`facebench weights`: which weights exist, which are here, and whether they are sound."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, WeightsDir
from benchmark.cli.output import ExitCode, out, say_error, speaking

if TYPE_CHECKING:
    from benchmark.models.weights import SourceState, WeightFile

app = typer.Typer(no_args_is_help=True, help="Weights that trunks start from.")

LIST_EXAMPLES = """
Examples:

  facebench weights list

  facebench weights list --json
"""

ADD_EXAMPLES = """
Examples:

  facebench weights add ~/Downloads/squeezenet1_1-b8a52dc0.pth

  facebench weights add --replace FILE
"""

VERIFY_EXAMPLES = """
Examples:

  facebench weights verify
"""

COLOURS = {"here": "green", "missing": "yellow", "damaged": "red"}


@app.command("list", epilog=LIST_EXAMPLES)
def list_(
    data_dir: DataDir = DEFAULT_DATA_DIR, weights_dir: WeightsDir = None, as_json: AsJson = False
) -> None:
    """Show every weight source: licence, what it was trained on, whether it is here."""
    from benchmark.models.weights import list_weights

    folder = weights_dir or data_dir / "weights"
    with speaking("weights list", as_json=as_json) as answer:
        states = list_weights(folder)
        answer.data = {"folder": str(folder), "sources": [_state_data(state) for state in states]}
        if not as_json:
            out.print(_table(states))
            _print_addresses(states)


def _table(states: "list[SourceState]") -> Table:
    table = Table("weights", "state", "licence", "trained on", box=None, pad_edge=False)
    for state in states:
        known = state.file or state.published[0]
        colour = COLOURS[state.state]
        table.add_row(
            f"{state.architecture} {state.source}",
            f"[{colour}]{state.state}[/]",
            known.licence,
            known.trained_on,
        )
    return table


def _print_addresses(states: "list[SourceState]") -> None:
    """Say where missing weights are to be had; one line each, whole, to be copied."""
    for state in states:
        if state.state != "here":
            out.print(f"\n{state.architecture} {state.source}, any one of:")
            for file in state.published:
                out.print(f"  {file.url}", soft_wrap=True)
    if any(state.state != "here" for state in states):
        out.print(
            "\nA run fetches what it needs. Without a network, bring one of these, then:"
            "\n  facebench weights add FILE",
            soft_wrap=True,
        )


@app.command(epilog=ADD_EXAMPLES)
def add(
    file: Annotated[Path, typer.Argument(help="A published weight file: .h5, .pth, .safetensors.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Change over from other weights of the same name.")
    ] = False,
    any_checksum: Annotated[
        bool, typer.Option("--any-checksum", help="Take a file that is not the published one.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    weights_dir: WeightsDir = None,
    as_json: AsJson = False,
) -> None:
    """Recognise FILE by its content, convert it, check that it fits, and keep it."""
    from benchmark.models.weights import add_file

    with speaking("weights add", as_json=as_json) as answer:
        folder = weights_dir or data_dir / "weights"
        added = add_file(file, folder, replacing=replace, any_checksum=any_checksum)
        answer.data = _file_data(added)
        if not added.published:
            answer.warnings.append(
                f"{file.name} is not the published file: its sha256 is {added.origin_sha256}."
            )
        if not as_json:
            out.print(
                f"[bold]{added.architecture} {added.source}[/] is here: {added.path}\n"
                f"from {added.origin}, {added.licence}, input {added.preprocessing.sentence()}",
                soft_wrap=True,
            )


@app.command(epilog=VERIFY_EXAMPLES)
def verify(
    data_dir: DataDir = DEFAULT_DATA_DIR, weights_dir: WeightsDir = None, as_json: AsJson = False
) -> None:
    """Read every weight file that is here and check its sums and its tensors.

    Exits with 1 if one is damaged.
    """
    from benchmark.models.weights import verify as verify_weights

    folder = weights_dir or data_dir / "weights"
    damaged: list[SourceState] = []
    with speaking("weights verify", as_json=as_json) as answer:
        states = verify_weights(folder)
        damaged = [state for state in states if state.problem is not None]
        answer.data = {"folder": str(folder), "sources": [_state_data(state) for state in states]}
        answer.errors += [state.problem for state in damaged if state.problem is not None]
        for state in states:
            if state.file is not None and not state.file.published:
                answer.warnings.append(f"{state.file.path.name} is not from the published file.")
        if not as_json:
            _print_verified(states, folder)
    if damaged:
        raise typer.Exit(ExitCode.FINDINGS)


def _print_verified(states: "list[SourceState]", folder: Path) -> None:
    for state in states:
        if state.problem is not None:
            say_error(state.problem)
        elif state.file is not None:
            out.print(
                f"{state.file.path.name}: sound, sha256 {state.file.sha256[:12]}, "
                f"from {state.file.origin}",
                soft_wrap=True,
            )
    if not states:
        out.print(f"No weights in {folder}; facebench weights list says where they are to be had.")


def _state_data(state: "SourceState") -> dict[str, Any]:
    return {
        "architecture": state.architecture,
        "source": state.source,
        "state": state.state,
        "file": _file_data(state.file) if state.file else None,
        "published": [
            {
                "file": file.file_name,
                "url": file.url,
                "sha256": file.sha256,
                "licence": file.licence,
                "trained_on": file.trained_on,
                "preprocessing": file.preprocessing.as_dict(),
                "options": dict(file.options),
            }
            for file in state.published
        ],
    }


def _file_data(file: "WeightFile") -> dict[str, Any]:
    return {
        "path": str(file.path),
        "sha256": file.sha256,
        "origin": file.origin,
        "origin_sha256": file.origin_sha256,
        "published": file.published,
        "licence": file.licence,
        "trained_on": file.trained_on,
        "preprocessing": file.preprocessing.as_dict(),
        "options": dict(file.options),
    }
