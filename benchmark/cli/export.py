"""`facebench export`: a trained network as a file for other runtimes."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from benchmark.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    Quiet,
    RunsDir,
)
from benchmark.cli.output import busy, out, print_table, speaking
from benchmark.cli.predict import Checkpoint, FacesPx, RunOption, chosen_network
from benchmark.errors import DataError
from benchmark.reporting.tables import Table

if TYPE_CHECKING:
    from benchmark.data.dataset import FaceSet
    from benchmark.inference.export import Pixels
    from benchmark.inference.load import TrainedRun

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
    """Write a trained network as ONNX or safetensors, and check that it predicts the same.

    ONNX takes pictures as they are, (n, 3, px, px) uint8 RGB, and gives probabilities per task: all
    preprocessing is inside. A safetensors file describes it in its header. A file whose answers
    differ from the network's by more than 0.001 is not kept.

    Examples:
      facebench export --run fc7728290a43 --to onnx
      facebench export --run mtl-cnn-none-full --to onnx --out face.onnx --faces photos
      facebench export --checkpoint model.safetensors --to onnx --json
    """
    with speaking("export", as_json=as_json) as answer:
        from benchmark.inference.export import TOLERANCE, description
        from benchmark.inference.export import export as export_network

        network = chosen_network(run, checkpoint, faces_px, runs_dir, data_dir)
        seed = f"-seed-{network.record.seed}" if network.record else ""
        path = out_path or Path(f"{network.trained.experiment.name}{seed}.{to}")
        if path.is_dir():
            raise DataError(f"--out is the folder {path}", allowed="a file")
        if path.resolve() == network.path.resolve():
            raise DataError(f"{path} is the run's own file", fix="Name another with --out")
        real = _real_faces(network, faces, data_dir)
        if not real:
            answer.warnings.append(
                "compared on random pictures alone: the run's own faces are not prepared here; "
                "--faces takes others"
            )
        with busy(f"writing {to}, and comparing", quiet=quiet or as_json):
            checks = export_network(network, to, path, real)
        n_bytes = path.stat().st_size
        answer.data = {
            "path": str(path),
            "format": to,
            "bytes": n_bytes,
            "tolerance": TOLERANCE,
            "compared": [
                {
                    "on": check.on,
                    "pictures": check.n_pictures,
                    "max_difference": check.max_difference,
                    "labels_that_differ": check.n_labels_differ,
                }
                for check in checks
            ],
            "description": description(network),
        }
        if as_json:
            return
        out.print(f"[bold]{path}[/]: {to}, {n_bytes / 2**20:.1f} MiB", soft_wrap=True)
        out.print(Text(f"of {network.title}", style="dim"))
        headings = ("compared with the network on", "largest difference", "other labels")
        rows = [
            (f"{it.n_pictures} {it.on}", f"{it.max_difference:.2g}", str(it.n_labels_differ))
            for it in checks
        ]
        print_table(Table.of(headings, rows))
        px, tasks = network.faces_px, ", ".join(network.tasks)
        out.print(
            f"Takes images (n, 3, {px}, {px}) uint8 RGB, gives {tasks}."
            if to == "onnx"
            else "Tensors, with the definition and what they must be fed in the header."
        )


def _real_faces(
    network: "TrainedRun", given: list[Path] | None, data_dir: Path
) -> "dict[str, Pixels]":
    """Gather faces to compare on: those given, else the validation faces of the run."""
    import numpy as np

    from benchmark.data.archive import list_pictures
    from benchmark.data.dataset import prepared_datasets
    from benchmark.inference.predict import picture_as_face

    if given:
        paths = list_pictures(given).paths[:MAX_FACES]
        return {"faces given": np.stack([picture_as_face(it, network.faces_px) for it in paths])}
    digest = network.record.about["dataset"]["pixel_digest"] if network.record else None
    prepared: list[FaceSet] = []
    with contextlib.suppress(DataError):  # a damaged data set is no obstacle
        prepared = prepared_datasets(data_dir) if digest else []
    for faces in prepared:
        if (faces.pixel_digest, faces.image_px) == (digest, network.faces_px):
            rows = np.flatnonzero((faces.table["part"] == "val").to_numpy())
            chosen = rows[np.linspace(0, len(rows) - 1, min(MAX_FACES, len(rows))).astype(int)]
            return {f"validation faces of {faces.name}": np.asarray(faces.pixels()[chosen])}
    return {}
