"""`facebench weights`: which weights exist, which are here and sound, and adding a file."""

import json
from dataclasses import asdict
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
    from benchmark.models.weight_manifest import Preprocessing

COLOURS = {"here": "green", "missing": "yellow", "damaged": "red"}


def list_(
    answer: options.QuietAnswer,
    architecture: Annotated[str | None, option(
        "Only this one, with its files and addresses.",
        autocompletion=options.complete_architecture)] = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:  # fmt: skip
    """Show every weight source: licence, what it was trained on, whether it is here and sound.

    Files that are here are read whole, their sums checked; exits with 1 if one is damaged.

    Examples:
      facebench weights list
      facebench weights list --architecture vgg16
    """
    from benchmark.models.weight_manifest import files_for

    _read(answer, weights_dir or data_dir / "weights", architecture)
    for file in files_for(architecture) if architecture else ():
        fed = f"fed {file.preprocessing.sentence()}"
        out.print(f"{file.file_name}\n  {file.url}\n  {fed}", soft_wrap=True)
    said = "A run downloads what it needs; --architecture NAME shows the files. Without a network:"
    out.print(f"{said}\n  facebench weights add FILE")


def verify(
    answer: options.QuietAnswer,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    weights_dir: options.WeightsDir = None,
) -> None:
    """Check sums and trusted checksums of every weight file here; exits with 1 if one is damaged.

    Examples:
      facebench weights verify
    """
    folder = weights_dir or data_dir / "weights"
    _read(answer, folder, missing=False)
    if not answer.data["sources"]:
        out.print(f"No weights in {folder}; facebench weights list says where to get them.")


def _read(
    answer: output.CommandResult,
    folder: Path,
    architecture: str | None = None,
    *,
    missing: bool = True,
) -> None:
    """Read sources whole, show what they are, and give an error for each damaged one."""
    from benchmark.models.weights import WeightFile, list_weights, read_trusted

    with busy("reading weight files"):
        trusted, listed = read_trusted(folder), list_weights(folder, architecture)
    sources, rows = list[dict[str, Any]](), list[tuple[str | Cell, ...]]()
    for (name, source), (published, here) in listed.items():
        if here is None and not missing:
            continue
        file = here if isinstance(here, WeightFile) else None
        state = "here" if file else "damaged" if here else "missing"
        known = file or next(iter(published), None)
        about = (known.licence, known.trained_on) if known else (NOTHING, NOTHING)
        rows.append((f"{name} {source}", Cell(state, style=COLOURS[state]), *about))
        if isinstance(here, WeightsError):
            answer.errors.append(here)
        if file and not file.published and ":" not in source:
            answer.warnings.append(f"{file.path.name} is not from the published file.")
        files = [
            asdict(it)
            | {"tensors_sha256": it.digest and it.digest["whole"]}
            | {"pinned": trusted.get(it.file_name)}
            for it in published
        ]
        said = {"architecture": name, "source": source, "state": state}
        sources.append(said | {"file": file and asdict(file), "published": files})
    answer.data = {"folder": str(folder), "sources": sources}
    if rows:
        headings = ("weights", "state", "licence", Column("trained on", fold=True))
        output.print_table(Table.of(headings, rows))


def add(
    answer: options.QuietAnswer,
    file: Annotated[Path, typer.Argument(help="A weight file: .h5, .pth, .safetensors.")],
    architecture: Annotated[str | None, option(
        "What it is for, where the file does not name it.",
        autocompletion=options.complete_architecture)] = None,
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
    answer.data = asdict(added)
    about = f"from {added.origin}, {added.licence}, input {added.preprocessing.sentence()}"
    out.print(f"[bold]{added.architecture} {added.source}[/] is here: {added.path}", soft_wrap=True)
    out.print(*map(escape, (about, *added.notes)), sep="\n", soft_wrap=True)


def _preprocessing(text: str | None) -> "Preprocessing | None":
    """Read how a person says that their weights are fed: by name, or as JSON."""
    from benchmark.models.weight_manifest import PRESETS, Preprocessing

    if text is None or text in PRESETS:
        return PRESETS[text] if text else None
    try:
        return Preprocessing.from_dict(dict(json.loads(text)))
    except (TypeError, ValueError) as error:
        allowed = ", ".join(PRESETS) + ', or as {"channels": "RGB", "scale": 0.00392156862745098, '
        allowed += '"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}'
        raise WeightsError(f"--preprocessing is {text!r} ({error})", allowed=allowed) from None
