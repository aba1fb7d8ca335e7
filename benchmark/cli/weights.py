"""`facebench weights`: which weights exist, which are here and sound, and adding a file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli import options, output
from benchmark.cli.options import option
from benchmark.cli.output import busy, out
from benchmark.errors import WeightsError
from benchmark.reporting.tables import NOTHING, Cell, Column, Table

if TYPE_CHECKING:
    from benchmark.models.preprocessing import Preprocessing
    from benchmark.models.weight_manifest import PublishedFile
    from benchmark.models.weights import SourceState, WeightFile

COLOURS = {"here": "green", "missing": "yellow", "damaged": "red"}


def list_(
    answer: options.QuietAnswer,
    architecture: Annotated[str | None, option(
        "Only this one, with its files and addresses.")] = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:  # fmt: skip
    """Show every weight source: licence, what it was trained on, whether it is here and sound.

    Files that are here are read whole and checked against their sums: exits with 1 if one is
    damaged.

    Examples:
      facebench weights list
      facebench weights list --architecture vgg16
    """
    states = _read(answer, weights_dir or data_dir / "weights", architecture)
    for file in (it for state in states for it in state.published if architecture):
        fed = f"fed {file.preprocessing.sentence()}"
        out.print(f"{file.file_name}\n  {file.url}\n  {fed}", soft_wrap=True)
    said = "A run downloads what it needs; --architecture NAME shows the files. Without a network:"
    out.print(f"{said}\n  facebench weights add FILE")


def verify(
    answer: options.QuietAnswer,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:
    """Read every weight file that is here, check its sums and what was trusted.

    Exits with 1 if one is damaged.

    Examples:
      facebench weights verify
    """
    folder = weights_dir or data_dir / "weights"
    if not _read(answer, folder, missing=False):
        out.print(f"No weights in {folder}; facebench weights list says where to get them.")


def _read(
    answer: output.CommandResult, folder: Path, architecture: str | None = None, *,
    missing: bool = True,
) -> "list[SourceState]":  # fmt: skip
    """Read sources whole, show what they are, and give an error for each damaged one."""
    from benchmark.models.weights import list_weights, read_trusted

    with busy("reading weight files"):
        trusted, states = read_trusted(folder), list_weights(folder, architecture)
    states = [it for it in states if missing or it.state != "missing"]
    sources, rows = [], list[tuple[str | Cell, ...]]()
    for state in states:
        known = state.file or next(iter(state.published), None)
        about = (known.licence, known.trained_on) if known else (NOTHING, NOTHING)
        colour, name = COLOURS[state.state], f"{state.architecture} {state.source}"
        rows.append((name, Cell(state.state, style=colour), *about))
        if state.file and not (state.file.published or state.file.is_own):
            answer.warnings.append(f"{state.file.path.name} is not from the published file.")
        published = [
            _plain(file)
            | {"tensors_sha256": file.digest and file.digest["whole"]}
            | {"pinned": trusted.get(file.file_name)}
            for file in state.published
        ]
        file = state.file and _plain(state.file)
        named = {"architecture": state.architecture, "source": state.source}
        sources.append({**named, "state": state.state, "file": file, "published": published})
    answer.data = {"folder": str(folder), "sources": sources}
    answer.errors += [state.problem for state in states if state.problem]
    headings = ("weights", "state", "licence", Column("trained on", fold=True))
    if rows:
        output.print_table(Table.of(headings, rows))
    return states


def _plain(file: "WeightFile | PublishedFile") -> dict[str, Any]:
    return vars(file) | {"preprocessing": file.preprocessing.as_dict()}


def add(
    answer: options.QuietAnswer,
    file: Annotated[Path, typer.Argument(help="A weight file: .h5, .pth, .safetensors.")],
    architecture: Annotated[str | None, option(
        "What it is for, where the file does not tell.")] = None,
    label: Annotated[str | None, option("Keep it as weights of your own: local:LABEL.")] = None,
    preprocessing: Annotated[str | None, option(
        "How your own are fed: imagenet, caffe, vggface, unit, centred, or channels, scale, mean "
        "and std as JSON.")] = None,
    replace: Annotated[bool, option("Change over from other weights of the same name.")] = False,
    any_checksum: Annotated[bool, option("Take a file that is not the published one.")] = False,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:  # fmt: skip
    """Recognise FILE by its content, convert it, check that it fits, and keep it.

    Examples:
      facebench weights add ~/Downloads/vgg16-397923af.pth
      facebench weights add --replace FILE
      facebench weights add mine.h5 --label mine --architecture vgg16 --preprocessing caffe
    """
    from benchmark.models.weights import add_file, read_trusted

    folder = weights_dir or data_dir / "weights"
    with busy(f"reading {file.name}"):
        added = add_file(
            file, folder, architecture, label=label,
            preprocessing=_preprocessing(preprocessing), replacing=replace,
            any_checksum=any_checksum,
        )  # fmt: skip
    if not (added.published or label):
        answer.warnings.append(f"{file.name} is not the published file.")
    if added.origin_sha256 in (it["sha256"] for it in read_trusted(folder).values()):
        found = f"The whole sha256 of {file.name} is not published: {added.origin_sha256}"
        answer.warnings.append(f"{found} is trusted from now on.")
    answer.data = _plain(added)
    about = f"from {added.origin}, {added.licence}, input {added.preprocessing.sentence()}"
    out.print(f"[bold]{added.architecture} {added.source}[/] is here: {added.path}", soft_wrap=True)
    out.print(*map(escape, (about, *added.notes)), sep="\n", soft_wrap=True)


def _preprocessing(text: str | None) -> "Preprocessing | None":
    """Read how a person says that their weights are fed: by name, or as JSON."""
    from benchmark.models.preprocessing import PRESETS, Preprocessing

    if text is None or text in PRESETS:
        return PRESETS[text] if text else None
    try:
        return Preprocessing.from_dict(dict(json.loads(text)))
    except (TypeError, ValueError) as error:
        allowed = ", ".join(PRESETS) + ', or as {"channels": "RGB", "scale": 0.00392156862745098, '
        allowed += '"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}'
        raise WeightsError(f"--preprocessing is {text!r} ({error})", allowed=allowed) from None
