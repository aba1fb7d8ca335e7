"""`facebench weights`: which weights exist, which are here, and whether they are sound."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli.completion import complete_architecture
from benchmark.cli.options import DEFAULT_DATA_DIR, AsJson, DataDir, Quiet, WeightsDir
from benchmark.cli.output import Answer, ExitCode, busy, out, say_error, speaking
from benchmark.cli.weights_table import file_data, overview, print_files, state_data
from benchmark.errors import WeightsError

if TYPE_CHECKING:
    from benchmark.models.preprocessing import Preprocessing
    from benchmark.models.weights import SourceState, WeightFile

app = typer.Typer(no_args_is_help=True, help="Weights that trunks start from.")

LIST_EXAMPLES = """
Examples:

  facebench weights list

  facebench weights list --architecture vgg16

  facebench weights list --json
"""

ADD_EXAMPLES = """
Examples:

  facebench weights add ~/Downloads/vgg16-397923af.pth

  facebench weights add --replace FILE

  facebench weights add mine.h5 --label mine --architecture vgg16 --preprocessing caffe

  facebench weights add mine.pth --label mine --channels RGB --scale 1/255
  --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
"""

VERIFY_EXAMPLES = """
Examples:

  facebench weights verify
"""

OF_ONES_OWN = "Weights of one's own"


@app.command("list", epilog=LIST_EXAMPLES)
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
    """Show every weight source: licence, what it was trained on, whether it is here."""
    from benchmark.models.weight_store import read_pins
    from benchmark.models.weights import list_weights

    folder = weights_dir or data_dir / "weights"
    with speaking("weights list", as_json=as_json) as answer:
        states, pins = list_weights(folder, architecture), read_pins(folder)
        answer.data = {
            "folder": str(folder),
            "sources": [state_data(state, pins) for state in states],
        }
        if as_json:
            return
        out.print(overview(states))
        if architecture is None:
            out.print(
                "\nWhich files these are, where from, and how each is fed:"
                "\n  facebench weights list --architecture NAME"
            )
        else:
            print_files(states, pins)
        if any(state.state != "here" for state in states):
            out.print(
                "\nA run fetches what it needs. Without a network, bring a file, then:"
                "\n  facebench weights add FILE"
            )


Architecture = Annotated[
    str | None,
    typer.Option(
        help="What it is for, where the file does not tell.", autocompletion=complete_architecture
    ),
]
Channels = Annotated[
    str | None, typer.Option(help="RGB or BGR; refused where the file says otherwise.")
]
Label = Annotated[
    str | None, typer.Option(help="Keep it as local:LABEL.", rich_help_panel=OF_ONES_OWN)
]
PreprocessingName = Annotated[
    str | None,
    typer.Option(
        help="How it is fed: imagenet, caffe, vggface, unit or centred.",
        rich_help_panel=OF_ONES_OWN,
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(help="Factor on 0 to 255, as in 1/255.", rich_help_panel=OF_ONES_OWN),
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Subtracted after that, in the order of --channels: a,b,c.",
        rich_help_panel=OF_ONES_OWN,
    ),
]
Std = Annotated[
    str | None, typer.Option(help="Divided by at last: a,b,c.", rich_help_panel=OF_ONES_OWN)
]
ToShow = Annotated[str, typer.Option(help="To show.", rich_help_panel=OF_ONES_OWN)]
Replace = Annotated[
    bool, typer.Option("--replace", help="Change over from other weights of the same name.")
]
AnyChecksum = Annotated[
    bool, typer.Option("--any-checksum", help="Take a file that is not the published one.")
]


@app.command(epilog=ADD_EXAMPLES)
def add(
    file: Annotated[Path, typer.Argument(help="A weight file: .h5, .pth, .safetensors.")],
    replace: Replace = False,
    any_checksum: AnyChecksum = False,
    architecture: Architecture = None,
    channels: Channels = None,
    label: Label = None,
    preprocessing: PreprocessingName = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    licence: ToShow = "",
    trained_on: ToShow = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Recognise FILE by its content, convert it, check that it fits, and keep it."""
    with speaking("weights add", as_json=as_json) as answer:
        folder = weights_dir or data_dir / "weights"
        order = _order(channels)
        fed = {"preprocessing": preprocessing, "scale": scale, "mean": mean, "std": std}
        if label is None:
            _refuse_without_label({**fed, "licence": licence, "trained-on": trained_on})
        elif any_checksum:
            raise WeightsError(
                "--any-checksum with --label", allowed="either: one's own has no published sum"
            )
        with busy(f"reading {file.name}", quiet=quiet or as_json):
            if label is None:
                added = _add_published(
                    file, folder, architecture, order, replace=replace, any_checksum=any_checksum
                )
                _say_what_was_trusted(answer, file, added, folder)
            else:
                from benchmark.models.weight_adding import Declaration, add_own

                fed_how = _preprocessing(order, fed)
                declared = Declaration(label, architecture, fed_how, licence, trained_on)
                added = add_own(file, folder, declared, replacing=replace)
        answer.data = {**file_data(added), "notes": list(added.notes)}
        if not as_json:
            _print_added(added)


def _print_added(added: "WeightFile") -> None:
    out.print(
        f"[bold]{added.architecture} {added.source}[/] is here: {added.path}\n"
        f"from {escape(added.origin)}, {escape(added.licence)}, "
        f"input {added.preprocessing.sentence()}",
        *map(escape, added.notes),
        sep="\n",
        soft_wrap=True,
    )


def _add_published(
    file: Path,
    folder: Path,
    architecture: str | None,
    order: Any,
    *,
    replace: bool,
    any_checksum: bool,
) -> "WeightFile":
    from benchmark.architectures import architecture_named
    from benchmark.models.weight_adding import Adding, add_file
    from benchmark.models.weight_manifest import FILES, files_for

    published = FILES
    if architecture is not None:
        sources = architecture_named(architecture).weight_sources
        published = tuple(item for source in sources for item in files_for(architecture, source))
        if not published:
            raise WeightsError(
                f"no published file is known for {architecture}",
                allowed="--label LABEL, to keep a file of your own",
            )
    return add_file(file, folder, Adding(replace, any_checksum, order), published=published)


def _say_what_was_trusted(answer: Answer, file: Path, added: "WeightFile", folder: Path) -> None:
    from benchmark.models.weight_adding import is_published_file
    from benchmark.models.weight_manifest import FILES
    from benchmark.models.weight_store import read_pins

    if not added.published:
        answer.warnings.append(
            f"{file.name} is not the published file: its sha256 is {added.origin_sha256}."
        )
    elif any(
        known.file_name == added.origin
        and known.digest is not None
        and not is_published_file(known, file, added.origin_sha256)
        for known in FILES
    ):
        answer.warnings.append(
            f"Every tensor of {file.name} equals that of the published {added.origin}; "
            "the file itself is another one."
        )
    elif any(pin.sha256 == added.origin_sha256 for pin in read_pins(folder).values()):
        answer.warnings.append(
            f"The whole sha256 of {file.name} is not published: "
            f"{added.origin_sha256} is pinned from now on."
        )


def _refuse_without_label(given: dict[str, str | None]) -> None:
    named = [f"--{name}" for name, value in given.items() if value]
    if named:
        raise WeightsError(
            f"{', '.join(named)} without --label",
            allowed="for weights of one's own, which have a label",
            fix="A published file is fed as its publisher says",
        )


def _order(channels: str | None) -> Any:
    if channels not in (None, "RGB", "BGR"):
        raise WeightsError(f"--channels is {channels!r}", allowed="RGB or BGR")
    return channels


def _preprocessing(order: Any, fed: dict[str, str | None]) -> "Preprocessing | None":
    """Read how a person says that their weights are fed: by name, or by numbers; all or none."""
    from benchmark.models.preprocessing import PRESETS, Preprocessing

    name, numbers = fed["preprocessing"], (fed["scale"], fed["mean"], fed["std"])
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
    scale, mean, std = numbers
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
        values = [_number(part) for part in text.split(",")]
        if len(values) != n:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        wanted = "a number or a fraction, as in 1/255" if n == 1 else f"{n} numbers, as in 0,0,0"
        raise WeightsError(f"{option} is {text!r}", allowed=wanted) from None
    return values


def _number(text: str) -> float:
    above, _, below = text.partition("/")
    return float(above) / float(below) if below else float(above)


@app.command(epilog=VERIFY_EXAMPLES)
def verify(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    weights_dir: WeightsDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Read every weight file that is here and check its sums and its tensors.

    Exits with 1 if one is damaged.
    """
    from benchmark.models.weight_store import read_pins
    from benchmark.models.weights import verify as verify_weights

    folder = weights_dir or data_dir / "weights"
    damaged: list[SourceState] = []
    with speaking("weights verify", as_json=as_json) as answer:
        with busy("reading weight files", quiet=quiet or as_json):
            states, pins = verify_weights(folder), read_pins(folder)
        damaged = [state for state in states if state.problem is not None]
        answer.data = {
            "folder": str(folder),
            "sources": [state_data(state, pins) for state in states],
        }
        answer.errors += [state.problem for state in damaged if state.problem is not None]
        for state in states:
            if state.file is not None and not (state.file.published or state.file.is_own):
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
