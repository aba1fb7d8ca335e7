"""`facebench speed`: how fast this machine trains, against the loops that a user would write."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    DatasetName,
    DeviceName,
    Overwrite,
    Quiet,
    RunsDir,
)
from benchmark.cli.output import bullet, err, out, print_table, speaking
from benchmark.errors import ExperimentError, RunError
from benchmark.files import check_outputs, write_json, write_text
from benchmark.reporting.tables import Cell, Column, Table

if TYPE_CHECKING:
    from benchmark.speed.measure import SpeedSession

LOOPS = ("timm", "lightning")

Rows = Annotated[
    str | None,
    typer.Option(help="Of data, cnn, vgg16, resnet50, densenet121, block5, frozen, deterministic."),
]
Budget = Annotated[
    float, typer.Option(min=0.1, help="Minutes; the rows train on as many faces as fit.")
]
Rounds = Annotated[int, typer.Option(min=1, help="Measurements of every loop.")]
Images = Annotated[
    int | None, typer.Option(min=32, help="Faces that train in every row, whatever it takes.")
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Of a whole run; 10 on a CPU, 30 on a GPU if none.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Of the plain loader; one per core if none, 4 at most."),
]
Against = Annotated[str, typer.Option(help="Loops beside the plain one: timm, lightning, or none.")]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Let torch.compile fuse our operations, in the warm-up.")
]
OurPrecision = Annotated[str, typer.Option(help="Ours: auto, bf16 or fp32.")]
OutDir = Annotated[
    Path | None, typer.Option("--out", help="Where the files go; RUNS_DIR/speed if left out.")
]


def speed(
    rows: Rows = None,
    budget: Budget = 20.0,
    rounds: Rounds = 3,
    images: Images = None,
    epochs: Epochs = None,
    workers: Workers = None,
    against: Against = "timm,lightning",
    compiled: Compiled = False,
    dataset: DatasetName = None,
    device: DeviceName = None,
    precision: OurPrecision = "auto",
    out_dir: OutDir = None,
    overwrite: Overwrite = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure training here against a plain PyTorch loop, and timm's and Lightning's if installed.

    All loops of a row are measured in turns, in one process. Nothing is trained for its result:
    weights are random. Writes a table (.md), a picture (.png) and every number (.json).

    Examples:
      facebench speed
      facebench speed --rows data,cnn,frozen --budget 5
      facebench speed --images 64 --rounds 1 --against none --json
    """
    with speaking("speed", as_json=as_json) as answer:
        loops = () if against == "none" else tuple(name.strip() for name in against.split(","))
        if unknown := [name for name in loops if name not in LOOPS]:
            allowed = f"{', '.join(LOOPS)}, none"
            raise ExperimentError(f"--against names {unknown[0]!r}", allowed=allowed)
        # Imported here, so that a mistyped option is answered before torch is loaded.
        from benchmark.data.sample import choose_dataset
        from benchmark.speed.measure import SpeedOptions, SpeedSession
        from benchmark.speed.report import as_data, ratio_text
        from benchmark.speed.rows import rows_named
        from benchmark.training.device import choose_device

        options = SpeedOptions(
            rows_named(rows), budget, rounds, images, epochs, workers, loops, compiled
        )
        hardware, folder = choose_device(device, precision), out_dir or runs_dir / "speed"
        check_outputs(_files(folder), overwrite=overwrite or out_dir is None)
        faces, is_shown = choose_dataset(data_dir, dataset), not (quiet or as_json)
        session, found = SpeedSession(faces, hardware, options), list[dict[str, Any]]()
        if is_shown:
            what = "[bold yellow]SYNTHETIC FACES[/], not people: " if faces.drawn else ""
            err.print(f"{what}data set [bold]{faces.name}[/] on {hardware.description}")
        if missing := [name for name in loops if name not in session.loops]:
            answer.warnings.append(
                f"{', '.join(missing)} not installed, and so not measured: "
                "pip install 'facebench[speed]' brings it"
            )
        with contextlib.closing(session.measure()) as events:
            for row, measured in events:
                said = f"{measured:,} images …" if isinstance(measured, int) else ""
                if isinstance(measured, dict):
                    found.append(measured)
                    said = f"[bold]{ratio_text(measured['ratio'])}[/]"
                if is_shown:
                    err.print(f"  {row.title}: {said}")
        files = _write(session, found, folder)
        answer.data = as_data(session, found) | {"files": [str(path) for path in files]}
        if not as_json:
            _print(session, found)
        if is_shown:
            err.print(f"\nWritten: {', '.join(map(str, files))}", soft_wrap=True)


def _files(folder: Path) -> list[Path]:
    return [folder / f"speed.{ending}" for ending in ("json", "md", "png")]


def _write(session: "SpeedSession", rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    from benchmark.evaluation.figures import write_png
    from benchmark.speed.report import as_data, markdown, speed_figure

    files = _files(folder)
    try:
        write_json(files[0], as_data(session, rows))
        write_text(files[1], markdown(session, rows))
        write_png(files[2], speed_figure(session, rows))
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written to: {error.strerror or error}",
            fix="Choose another folder with --out",
        ) from error
    return files


def _print(session: "SpeedSession", rows: list[dict[str, Any]]) -> None:
    from benchmark.speed.report import RATIO_HEADS, WORK_HEADS, notes, ratio_cells, work_cells

    synthetic = "SYNTHETIC FACES · " if session.faces.drawn else ""
    out.print(f"[bold]{synthetic}Speed on {session.device.description}[/]", soft_wrap=True)
    work = [cells for row in rows for cells in work_cells(row)]
    for heads, lines in ((RATIO_HEADS, [ratio_cells(row) for row in rows]), (WORK_HEADS, work)):
        columns = [Column(head, left=not place) for place, head in enumerate(heads)]
        out.print()
        print_table(Table.of(columns, [[Cell.parted(text) for text in line] for line in lines]))
    out.print("\n[bold]How to read it[/]")
    for note in notes(session, rows):
        out.print(bullet(note))
