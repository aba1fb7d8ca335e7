"""`facebench export`: a trained network as a file for other runtimes."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
)
from benchmark.cli.output import Answer, busy, out, speaking
from benchmark.cli.predict import Checkpoint, FacesPx, RunOption, chosen_network
from benchmark.errors import DataError

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet
    from benchmark.inference.export import Exported, Pixels
    from benchmark.inference.load import TrainedRun

EXAMPLES = """
Examples:

  facebench export --run fc7728290a43 --to onnx

  facebench export --run mtl-cnn-none-full --to onnx --out face.onnx --faces photos

  facebench export --checkpoint model.safetensors --to onnx --json
"""

MAX_FACES = 256
"""Real faces that a file is compared on."""


def export(
    to: Annotated[Literal["onnx", "safetensors"], typer.Option("--to", help="What to write.")],
    run: RunOption = None,
    checkpoint: Checkpoint = None,
    faces_px: FacesPx = None,
    out_path: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; EXPERIMENT-seed-N here if left out."),
    ] = None,
    faces: Annotated[
        list[Path] | None,
        typer.Option(help="Faces to compare on; the run's own, if they are prepared here."),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a trained network as ONNX or safetensors, and prove that it says the same.

    ONNX takes pictures as they are, (n, 3, px, px) uint8 RGB, and gives probabilities per task: all
    preprocessing is inside. A safetensors file describes it in its header. A file whose answers
    differ from the network's by more than 0.001 is not kept.
    """
    with speaking("export", as_json=as_json) as answer:
        from benchmark.inference.export import ENDINGS
        from benchmark.inference.export import export as export_network

        network = chosen_network(run, checkpoint, faces_px, runs_dir, data_dir)
        path = out_path or Path(_name(network) + ENDINGS[to])
        _check_target(path, network)
        real = _real_faces(network, faces, data_dir, answer)
        with busy(f"writing {to}, and comparing", quiet=quiet or as_json):
            done = export_network(network, to, path, real)
        answer.data = _for_machines(network, done)
        if not as_json:
            _show(network, done)


def _name(network: "TrainedRun") -> str:
    name = network.trained.experiment.name
    return f"{name}-seed-{network.record.seed}" if network.record else name


def _check_target(path: Path, network: "TrainedRun") -> None:
    """Refuse to write over the run's own weights, or over a folder."""
    if path.is_dir():
        raise DataError(f"--out is the folder {path}", allowed="a file")
    if path.resolve() == network.path.resolve():
        raise DataError(f"{path} is the run's own file", fix="Name another with --out")


def _real_faces(
    network: "TrainedRun", asked: Sequence[Path] | None, data_dir: Path, answer: Answer
) -> "dict[str, Pixels]":
    """Gather faces to compare on: those asked for, else the validation faces of the run."""
    if asked:
        return {"faces given": _faces_of(asked, network.faces_px)}
    found = _own_faces(network, data_dir)
    if not found:
        answer.warnings.append(
            "compared on random pictures alone: the run's own faces are not prepared here; "
            "--faces takes others"
        )
    return found


def _faces_of(asked: Sequence[Path], faces_px: int) -> "Pixels":
    """Read pictures as the network is given them; one that cannot be read is an error here."""
    import numpy as np

    from benchmark.data.archive import list_pictures, read_file
    from benchmark.data.pictures import pillow_quiet, read_picture

    faces = []
    for path in list_pictures(asked).paths[:MAX_FACES]:
        content = read_file(path)
        if isinstance(content, str):
            raise DataError(content, source=str(path))
        try:
            with pillow_quiet():
                pixels, _ = read_picture(content, faces_px)
        except DataError as error:
            raise DataError(error.found, allowed=error.allowed, source=str(path)) from error
        faces.append(np.frombuffer(pixels, np.uint8).reshape(faces_px, faces_px, 3))
    return np.stack(faces)


def _own_faces(network: "TrainedRun", data_dir: Path) -> "dict[str, Pixels]":
    import numpy as np

    from benchmark.data.dataset import prepared_datasets

    if network.record is None:
        return {}
    dataset = network.record.about["dataset"]
    prepared: list[FaceSet] = []
    with contextlib.suppress(DataError):  # a damaged data set is no obstacle
        prepared = prepared_datasets(data_dir)
    for faces in prepared:
        if faces.pixel_digest == dataset["pixel_digest"] and faces.image_px == network.faces_px:
            rows = np.flatnonzero((faces.table["part"] == "val").to_numpy())
            chosen = rows[np.linspace(0, len(rows) - 1, min(MAX_FACES, len(rows))).astype(int)]
            return {f"validation faces of {faces.name}": np.asarray(faces.pixels()[chosen])}
    return {}


def _for_machines(network: "TrainedRun", done: "Exported") -> dict[str, Any]:
    from benchmark.inference.export import TOLERANCE, description

    return {
        "path": str(done.path),
        "format": done.format,
        "bytes": done.n_bytes,
        "tolerance": TOLERANCE,
        "compared": [
            {
                "on": found.on,
                "pictures": found.n_pictures,
                "max_difference": found.max_difference,
                "labels_that_differ": found.n_labels_differ,
            }
            for found in done.comparisons
        ],
        "description": description(network),
    }


def _show(network: "TrainedRun", done: "Exported") -> None:
    mib = done.n_bytes / 2**20
    out.print(f"[bold]{done.path}[/]: {done.format}, {mib:.1f} MiB", soft_wrap=True)
    out.print(Text(f"of {network.title}", style="dim"))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("compared with the network on")
    table.add_column("largest difference", justify="right")
    table.add_column("other labels", justify="right")
    for found in done.comparisons:
        name = f"{found.n_pictures} {found.on}"
        table.add_row(name, f"{found.max_difference:.2g}", str(found.n_labels_differ))
    out.print(table)
    px = network.faces_px
    if done.format == "safetensors":
        out.print("Tensors, with the definition and what they must be fed in the header.")
    else:
        out.print(f"Takes images (n, 3, {px}, {px}) uint8 RGB, gives {', '.join(network.tasks)}.")
