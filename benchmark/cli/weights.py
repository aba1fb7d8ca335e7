"""`facebench weights`: which weights exist, which are here, and whether they are sound."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape

from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    AsJson,
    DataDir,
    Quiet,
    WeightsDir,
    complete_architecture,
)
from benchmark.cli.output import ExitCode, busy, out, print_table, say_error, speaking
from benchmark.errors import WeightsError
from benchmark.reporting.tables import NOTHING, Cell, Column, Table

if TYPE_CHECKING:
    from benchmark.models.preprocessing import Channels, Preprocessing
    from benchmark.models.weight_manifest import PublishedFile
    from benchmark.models.weight_store import TrustedChecksum, WeightFile
    from benchmark.models.weights import SourceState

app = typer.Typer(no_args_is_help=True, help="Weights that backbones start from.")

OWN = "Weights of your own"
COLOURS = {"here": "green", "missing": "yellow", "damaged": "red"}


@app.command("list")
def list_(
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Only this one, with its files and addresses.",
            autocompletion=complete_architecture,
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    weights_dir: WeightsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show every weight source: licence, what it was trained on, whether it is here.

    Examples:
      facebench weights list
      facebench weights list --architecture vgg16
      facebench weights list --json
    """
    from benchmark.models.weight_store import read_trusted
    from benchmark.models.weights import list_weights

    folder = weights_dir or data_dir / "weights"
    with speaking("weights list", as_json=as_json) as answer:
        states, trusted = list_weights(folder, architecture), read_trusted(folder)
        answer.data = _data(folder, states, trusted)
        if as_json:
            return
        rows: list[list[str | Cell]] = []
        for state in states:
            known = state.file or next(iter(state.published), None)
            about = (known.licence, known.trained_on) if known else (NOTHING, NOTHING)
            name = f"{state.architecture} {state.source}"
            rows.append([name, Cell(state.state, style=COLOURS[state.state]), *about])
        headings = ("weights", "state", "licence", Column("trained on", fold=True))
        print_table(Table.of(headings, rows))
        for state in states if architecture else ():
            _print_files(state, trusted)
        if architecture is None:
            out.print(
                "\nWhich files these are, where from, and how each is fed:"
                "\n  facebench weights list --architecture NAME"
            )
        if any(state.state != "here" for state in states):
            out.print(
                "\nA run downloads what it needs. Without a network, bring a file, then:"
                "\n  facebench weights add FILE"
            )


def _print_files(state: "SourceState", trusted: "Mapping[str, TrustedChecksum]") -> None:
    """Say of every file of a source what it is and where it can be had; addresses whole."""
    title = f"\n[bold]{state.architecture} {state.source}[/]"
    if state.file is not None:
        out.print(f"{title}, here:\n  {state.file.path}", soft_wrap=True)
        out.print(f"    from {escape(state.file.origin)}; {_fed(state.file)}", soft_wrap=True)
    if state.published:
        out.print(f"{title}, tried in this order:")
    for file in state.published:
        lines = [file.url, f"{file.licence}; {file.trained_on}", _fed(file),
                 _checksum(file, trusted)]  # fmt: skip
        if file.digest is not None:
            lines.append(f"tensors in any container: sha256 {file.digest.whole}")
        out.print(f"  {file.file_name}", *(f"    {line}" for line in lines), sep="\n",
                  soft_wrap=True)  # fmt: skip


def _fed(file: "PublishedFile | WeightFile") -> str:
    options = "".join(f", {name} {value}" for name, value in file.options.items())
    return f"fed {file.preprocessing.sentence()}{options}"


def _checksum(file: "PublishedFile", trusted: "Mapping[str, TrustedChecksum]") -> str:
    """Say in words by which checksum the file is known."""
    if file.has_whole_sha256:
        return f"sha256 {file.sha256}"
    published = "no checksum published"
    if file.has_checksum:
        published = f"sha256 begins {file.sha256}" if file.sha256 else f"md5 {file.md5}"
    if (entry := trusted.get(file.file_name)) is not None:
        return f"{published}; trusted since {entry.when[:10]}: sha256 {entry.sha256}"
    return published if file.digest else f"{published}; trusted on first use"


def _data(
    folder: Path, states: "list[SourceState]", trusted: "Mapping[str, TrustedChecksum]"
) -> dict[str, Any]:
    """Give sources as plain values."""

    def published(file: "PublishedFile") -> dict[str, Any]:
        entry = trusted.get(file.file_name)
        return {
            **_plain(file, "url", "layout", "sha256", "md5", "licence", "trained_on"),
            "file": file.file_name,
            "tensors_sha256": file.digest.whole if file.digest else None,
            "pinned": asdict(entry) if entry else None,
        }

    sources = [
        {
            "architecture": state.architecture,
            "source": state.source,
            "state": state.state,
            "file": _file_data(state.file) if state.file else None,
            "published": [published(file) for file in state.published],
        }
        for state in states
    ]
    return {"folder": str(folder), "sources": sources}


def _file_data(file: "WeightFile") -> dict[str, Any]:
    """Give a converted file as plain values."""
    names = ("sha256", "origin", "origin_sha256", "published", "licence", "trained_on")
    seen = [asdict(seen) for seen in file.faces_seen]
    return {**_plain(file, *names), "path": str(file.path), "faces_seen": seen}


def _plain(file: "PublishedFile | WeightFile", *names: str) -> dict[str, Any]:
    fed = {"preprocessing": file.preprocessing.as_dict(), "options": dict(file.options)}
    return {name: getattr(file, name) for name in names} | fed


def _own(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=OWN)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A weight file: .h5, .pth, .safetensors.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Change over from other weights of the same name.")
    ] = False,
    any_checksum: Annotated[
        bool, typer.Option("--any-checksum", help="Take a file that is not the published one.")
    ] = False,
    architecture: Annotated[
        str | None,
        typer.Option(
            help="What it is for, where the file does not tell.",
            autocompletion=complete_architecture,
        ),
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="RGB or BGR; refused where the file says otherwise.")
    ] = None,
    label: Annotated[str | None, _own("Keep it as local:LABEL.")] = None,
    preprocessing: Annotated[
        str | None, _own("How it is fed: imagenet, caffe, vggface, unit or centred.")
    ] = None,
    scale: Annotated[str | None, _own("Factor on 0 to 255, as in 1/255.")] = None,
    mean: Annotated[
        str | None, _own("Subtracted after that, in the order of --channels: a,b,c.")
    ] = None,
    std: Annotated[str | None, _own("Divided by at last: a,b,c.")] = None,
    licence: Annotated[str, _own("To show.")] = "",
    trained_on: Annotated[str, _own("To show.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Recognise FILE by its content, convert it, check that it fits, and keep it.

    Examples:
      facebench weights add ~/Downloads/vgg16-397923af.pth
      facebench weights add --replace FILE
      facebench weights add mine.h5 --label mine --architecture vgg16 --preprocessing caffe
      facebench weights add mine.pth --label mine --channels RGB --scale 1/255 --mean 0.5,0.5,0.5
      --std 0.5,0.5,0.5
    """
    with speaking("weights add", as_json=as_json) as answer:
        from benchmark.models.weight_adding import Declaration, add_file, add_own

        folder = weights_dir or data_dir / "weights"
        order = _order(channels)
        fed = {"preprocessing": preprocessing, "scale": scale, "mean": mean, "std": std}
        about = {**fed, "licence": licence, "trained-on": trained_on}
        if label is None and any(about.values()):
            named = ", ".join(f"--{name}" for name, value in about.items() if value)
            raise WeightsError(
                f"{named} without --label",
                allowed="for weights of your own, which have a label",
                fix="A published file is fed as its publisher says",
            )
        if label is not None and any_checksum:
            raise WeightsError(
                "--any-checksum with --label",
                allowed="either: weights of your own have no published checksum",
            )
        with busy(f"reading {file.name}", quiet=quiet or as_json):
            if label is not None:
                declared = Declaration(
                    label, architecture, _preprocessing(order, fed), licence, trained_on
                )
                added = add_own(file, folder, declared, replacing=replace)
            else:
                added = add_file(
                    file, folder, published=_published(architecture), replacing=replace,
                    any_checksum=any_checksum, channels=order,
                )  # fmt: skip
                answer.warnings += _what_was_trusted(file, added, folder)
        answer.data = {**_file_data(added), "notes": list(added.notes)}
        if not as_json:
            out.print(
                f"[bold]{added.architecture} {added.source}[/] is here: {added.path}\n"
                f"from {escape(added.origin)}, {escape(added.licence)}, "
                f"input {added.preprocessing.sentence()}",
                *map(escape, added.notes),
                sep="\n",
                soft_wrap=True,
            )


def _published(architecture: str | None) -> "tuple[PublishedFile, ...]":
    from benchmark.experiment.architectures import architecture_named
    from benchmark.models.weight_manifest import FILES, files_for

    if architecture is None:
        return FILES
    sources = architecture_named(architecture).weight_sources
    published = tuple(item for source in sources for item in files_for(architecture, source))
    if not published:
        raise WeightsError(
            f"no published file is known for {architecture}",
            allowed="--label LABEL, to keep a file of your own",
        )
    return published


def _what_was_trusted(file: Path, added: "WeightFile", folder: Path) -> list[str]:
    """Say where a file is not known to be the published one by its whole checksum."""
    from benchmark.models.weight_adding import has_published_checksum
    from benchmark.models.weight_manifest import FILES
    from benchmark.models.weight_store import read_trusted

    sha256 = added.origin_sha256
    if not added.published:
        return [f"{file.name} is not the published file: its sha256 is {sha256}."]
    known = next((known for known in FILES if known.file_name == added.origin), None)
    if known and known.digest and not has_published_checksum(known, file, sha256):
        return [
            f"Every tensor of {file.name} equals that of the published {added.origin}; "
            "the file itself is another one."
        ]
    if any(entry.sha256 == sha256 for entry in read_trusted(folder).values()):
        return [
            f"The whole sha256 of {file.name} is not published: {sha256} is trusted from now on."
        ]
    return []


def _order(channels: str | None) -> "Channels | None":
    if channels not in (None, "RGB", "BGR"):
        raise WeightsError(f"--channels is {channels!r}", allowed="RGB or BGR")
    return cast("Channels | None", channels)


def _preprocessing(order: "Channels | None", fed: dict[str, str | None]) -> "Preprocessing | None":
    """Read how a person says that their weights are fed: by name, or by numbers; all or none."""
    from benchmark.models.preprocessing import PRESETS, Preprocessing

    name, scale, mean, std = fed["preprocessing"], fed["scale"], fed["mean"], fed["std"]
    numbers = (scale, mean, std)
    if name is None and order is None and not any(numbers):
        return None
    if name is not None:
        if name not in PRESETS:
            raise WeightsError(f"--preprocessing is {name!r}", allowed=", ".join(PRESETS))
        if any(numbers):
            raise WeightsError(
                f"--preprocessing {name} beside numbers of its own", allowed="either of the two"
            )
        preset = PRESETS[name]
        return preset if order in (None, preset.channels) else preset.swapped()
    if order is None or scale is None or mean is None or std is None:
        raise WeightsError(
            "not all of --channels, --scale, --mean and --std are given",
            allowed=f"all four, or --preprocessing {' | '.join(PRESETS)}",
        )
    (factor,) = _numbers("--scale", scale, 1)
    means, deviations = _numbers("--mean", mean, 3), _numbers("--std", std, 3)
    return Preprocessing.from_dict(
        {"channels": order, "scale": factor, "mean": means, "std": deviations}
    )


def _numbers(option: str, text: str, n: int) -> list[float]:
    """Read numbers between commas; a fraction such as 1/255 is one."""
    try:
        parts = [part.partition("/") for part in text.split(",")]
        values = [float(above) / float(below or 1) for above, _, below in parts]
        if len(values) == n:
            return values
    except (ValueError, ZeroDivisionError):
        pass
    wanted = "a number or a fraction, as in 1/255" if n == 1 else f"{n} numbers, as in 0,0,0"
    raise WeightsError(f"{option} is {text!r}", allowed=wanted) from None


@app.command()
def verify(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Read every weight file that is here and check its sums and its tensors.

    Exits with 1 if one is damaged.

    Examples:
      facebench weights verify
    """
    from benchmark.models.weight_store import read_trusted
    from benchmark.models.weights import verify as verify_weights

    folder = weights_dir or data_dir / "weights"
    problems: list[WeightsError] = []
    with speaking("weights verify", as_json=as_json) as answer:
        with busy("reading weight files", quiet=quiet or as_json):
            states, trusted = verify_weights(folder), read_trusted(folder)
        answer.data = _data(folder, states, trusted)
        problems = [state.problem for state in states if state.problem is not None]
        answer.errors += problems
        for state in states:
            file = state.file
            if file is not None and not (file.published or file.is_own):
                answer.warnings.append(f"{file.path.name} is not from the published file.")
            if as_json:
                continue
            if state.problem is not None:
                say_error(state.problem)
            elif file is not None:
                about = f"sound, sha256 {file.sha256[:12]}, from {file.origin}"
                out.print(f"{file.path.name}: {about}", soft_wrap=True)
        if not (states or as_json):
            out.print(f"No weights in {folder}; facebench weights list says where to get them.")
    if problems:
        raise typer.Exit(ExitCode.FINDINGS)
