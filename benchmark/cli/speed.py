"""`facebench speed`: how fast this machine trains, against the loops that a user would write."""

from collections.abc import Mapping
from typing import Annotated, Any

from benchmark.cli import options
from benchmark.cli.options import option
from benchmark.cli.output import out, print_points, print_table, tell
from benchmark.errors import require
from benchmark.files import write_json
from benchmark.reporting.tables import NOTHING, Cell, Column, Table

LOOPS = ("timm", "lightning")
ROWS = "data, cnn, vgg16, resnet50, densenet121, block5, frozen"
HOW_TO_READ = (
    "plain: Dataset and DataLoader with workers that are kept, PIL decodes JPEG files, fp32 with "
    "torch's defaults, NCHW, Adam, .item() at every step.",
    "Seconds are medians of the rounds, all loops in turns in one process; a ratio is the median "
    "of the rounds' ratios, with the least and the most. CPU: of processor seconds, workers "
    "included. timm, Lightning: ours against these.",
    "An epoch trains on the images and validates on an eighth as many. A run trains all its epochs "
    "from fresh weights; ours computes the frozen part inside and keeps it on the disk.",
)


def speed(
    answer: options.Answer,
    rows: Annotated[str | None, option(f"Of {ROWS}.")] = None,
    rounds: Annotated[int, option("Measurements of every loop.", min=1)] = 3,
    images: Annotated[int | None, option("Faces that train in every row.", min=32)] = None,
    workers: Annotated[
        int | None, option("Of the plain loader; one per core if none, 4 at most.", min=0)
    ] = None,
    against: Annotated[str, option("Other loops: timm, lightning, or none.")] = "timm,lightning",
    compile_: Annotated[bool, option("Let torch.compile fuse our operations.")] = False,
    dataset: options.DatasetName = None,
    device: options.DeviceName = None,
    precision: Annotated[str, option("Ours: auto, bf16 or fp32.")] = "auto",
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:
    """Measure training here against a plain PyTorch loop, and timm's and Lightning's if installed.

    All loops of a row are measured in turns, in one process. Nothing is trained for its result:
    weights are random. Every number goes to RUNS_DIR/speed/speed.json.

    Examples:
      facebench speed
      facebench speed --rows data,cnn,frozen
      facebench speed --images 64 --rounds 1 --against none --json
    """
    loops = () if against == "none" else tuple(name.strip() for name in against.split(","))
    for name in loops:
        require(name in LOOPS, f"--against names {name!r}", allowed=f"{', '.join(LOOPS)}, none")
    # Imported here, so that a mistyped option is answered before torch is loaded.
    from benchmark.data.dataset import choose_dataset
    from benchmark.speed.measure import SCHEMA, SpeedSession, rows_named
    from benchmark.training.device import choose_device

    wanted, hardware = rows_named(rows), choose_device(device, precision)
    faces = choose_dataset(data_dir, dataset)
    session = SpeedSession(faces, hardware, rounds, images, workers, loops, compile_)
    found = list[dict[str, Any]]()
    if missing := ", ".join(name for name in loops if name not in session.loops):
        brings = "pip install 'facebench[speed]' brings it"
        answer.warnings.append(f"{missing} not installed: {brings}")
    for row in wanted:
        tell(f"{row.title} …")
        found.append(session.measured(row))
    answer.data = {"schema": SCHEMA, "machine": session.machine(), "rows": found}
    file = runs_dir / "speed" / "speed.json"
    write_json(file, answer.data)
    answer.data |= {"files": [str(file)]}
    synthetic = "SYNTHETIC FACES, not people · " if faces.drawn else ""
    title = f"{synthetic}Speed on {hardware.description}\n"
    heads = ("images", "plain, s", "ours, s", "ratio", "CPU", "timm", "Lightning")
    columns = [Column("what", left=True), *(Column(head, left=False) for head in heads)]
    print_table(Table.of(columns, map(_cells, found), title))
    out.print()
    notes = (f"{row['name']}: {note}" for row in found for note in row["notes"])
    every = f"{faces.name}, {faces.image_px} px. Every number: {file}"
    print_points((*HOW_TO_READ, every, *notes))


def _cells(row: Mapping[str, Any]) -> list[str | Cell]:
    ratio, loops = row["ratio"], row["ways"]
    others = [loops[name]["ours_is_faster"]["middle"] if name in loops else None for name in LOOPS]
    seconds = [loops[name]["seconds"] for name in ("plain", "ours")]
    return [
        row["title"],
        f"{row['images']:,}" + (f" × {row['epochs']}" if row["epochs"] > 1 else ""),
        *(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in seconds),
        Cell(f"{ratio['middle']:.3g}×", f"{ratio['low']:.3g}–{ratio['high']:.3g}"),
        f"{row['cpu_ratio']:.3g}×",
        *(NOTHING if value is None else f"{value:.3g}×" for value in others),
    ]
