"""`facebench predict`, a trained network on pictures; `facebench export`, for other runtimes."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from benchmark import registry
from benchmark.cli.crop import (
    DEFAULT_MARGIN,
    DEFAULT_PX,
    DEFAULT_THRESHOLD,
    DetectorModel,
    DetectorName,
    Faces,
    FitOption,
    Margin,
    Threshold,
)
from benchmark.cli.options import (
    ADVANCED,
    DEFAULT_DATA_DIR,
    DEFAULT_RUNS_DIR,
    AsJson,
    DataDir,
    DeviceName,
    Overwrite,
    Quiet,
    RunsDir,
    WeightsDir,
    complete_run,
)
from benchmark.cli.output import ExitCode, busy, out, print_table, progress_bar, say_error, speaking
from benchmark.errors import DataError, RunError
from benchmark.files import check_outputs, write_text
from benchmark.record import HOW_TO_RUN, all_records
from benchmark.reporting.tables import NOTHING, Column, Table
from benchmark.tasks import TASK_TITLES, TaskName

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.data.dataset import FaceSet
    from benchmark.inference.export import Pixels
    from benchmark.inference.load import TrainedRun

MAX_FACES = 256
"""Real faces that a file is compared on."""

PERCEIVED = "perceived: how an annotator would have seen them, by this network's guess; no facts"
NAME_WIDTH = 30
SHOWN_OTHERS = 5

RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="A finished run: its id, or its experiment if that has one run.",
        autocompletion=complete_run,
    ),
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="A run's model.safetensors, wherever it lies now.")
]
FacesPx = Annotated[
    int | None,
    typer.Option(
        "--image-px",
        min=16,
        max=1024,
        help="Side of the faces that it was trained on, where neither its file nor its data set "
        "says it: runs of an older facebench.",
        rich_help_panel=ADVANCED,
    ),
]


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures or folders.")],
    run: RunOption = None,
    checkpoint: Checkpoint = None,
    faces_px: FacesPx = None,
    crop: Annotated[
        bool, typer.Option("--crop", help="Find the faces first; else a picture is a face.")
    ] = False,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Apply the temperatures fitted on validation.")
    ] = False,
    draw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write pictures with the labels on them.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: all probabilities.")] = False,
    out_path: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.csv", help="Write the CSV there.")
    ] = None,
    overwrite: Overwrite = False,
    device: DeviceName = None,
    margin: Margin = DEFAULT_MARGIN,
    fit: FitOption = "stretch",
    faces: Faces = "largest",
    threshold: Threshold = DEFAULT_THRESHOLD,
    detector: DetectorName = "yunet",
    detector_model: DetectorModel = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    weights_dir: WeightsDir = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Predict age group, gender and race of faces in pictures with a trained network.

    Labels are perceived ones, with the network's own probabilities. Exits with 1 if any picture has
    no answer (not readable, or with --crop no face in it); the others are done.

    Examples:
      facebench predict faces --run fc7728290a43
      facebench predict photo.jpg --run mtl-cnn-none-full --crop --draw annotated
      facebench predict faces --checkpoint model.safetensors --csv > answers.csv
    """
    findings: list[DataError] = []
    with speaking("predict", as_json=as_json) as answer:
        from benchmark.data.crop import CropOptions, DetectorChoice
        from benchmark.inference.predict import Cropping, Predictor
        from benchmark.training.device import choose_device

        if as_csv and as_json:
            raise RunError("--csv and --json both want the standard output", allowed="one of them")
        cropping = Cropping(
            CropOptions(margin, DEFAULT_PX, fit, faces, threshold),
            DetectorChoice(detector, detector_model, weights_dir or data_dir / "weights"),
        )
        if not any(path.exists() for path in images):
            names = ", ".join(map(str, images[:3]))
            raise DataError(
                f"{names} {'does' if len(images) == 1 else 'do'} not exist",
                allowed="pictures (JPEG, PNG, BMP, GIF, TIFF or WEBP), or folders of them",
            )
        if out_path is not None:
            check_outputs([out_path], overwrite=overwrite, inputs=[*images, checkpoint])
        network = chosen_network(run, checkpoint, faces_px, runs_dir, data_dir)
        on_device = choose_device(device, "fp32")
        predictor = Predictor(network, on_device, cropping if crop else None, calibrated)
        with progress_bar(quiet=quiet or as_json) as bar:
            task = bar.add_task("reading faces", total=None)
            table = predictor.read(
                images, lambda _, done, total: bar.update(task, completed=done, total=total)
            )
        without = table[table["face"] == 0]
        findings = [
            DataError(str(reason), source=str(file))
            for file, reason in zip(without["file"], without["reason"], strict=True)
        ]
        plain = table.astype(object).where(table.notna(), None)
        answer.data = {
            "network": network.title,
            "weights": str(network.path),
            "weights_sha256": network.sha256(),
            "faces_px": network.faces_px,
            "cropped": crop,
            "temperatures": network.temperatures if calibrated else None,
            "labels_are": PERCEIVED,
            "faces": plain.to_dict("records"),
        }
        answer.errors = list(findings)
        answer.warnings += _not_pictures(images) + _edited(network)
        # Probabilities with 9 digits, as predictions.csv has them.
        csv = table.to_csv(index=False, float_format="%.9g", lineterminator="\n")
        try:
            path: Path | None = out_path
            if out_path is not None:
                write_text(out_path, csv)
            if path := draw:
                answer.data["drawn"] = _draw(table, images, draw, network.tasks)
        except OSError as error:
            where = error.filename or path
            raise DataError(f"{where} cannot be written: {error.strerror or error}") from error
        if as_csv:
            print(csv, end="")  # not by rich, which would break long lines
        elif not (as_json or quiet):
            print_table(_predictions_table(table, network.tasks))
            how = "calibrated" if calibrated else "as the network gave them"
            n_faces = len(table) - len(findings)
            said = f"{n_faces:,} {'face' if n_faces == 1 else 'faces'}, probabilities {how}; "
            said += network.title
            out.print(Text(f"{said}\nLabels are {PERCEIVED}.", style="dim"))
    if findings:
        for finding in [] if as_json else findings:
            say_error(finding)
        raise typer.Exit(ExitCode.FINDINGS)


def _not_pictures(images: Sequence[Path]) -> list[str]:
    """Say which files of the folders are no pictures by their names, and were not read."""
    from benchmark.data.labels import is_picture_name

    files = [it for folder in images if folder.is_dir() for it in folder.rglob("*")]
    others = sorted(
        str(it)
        for it in files
        # A link to a folder is not followed: it may lead back here.
        if it.is_symlink() and it.is_dir() or not (it.is_dir() or is_picture_name(it.as_posix()))
    )
    more = f" and {len(others) - SHOWN_OTHERS:,} more" if len(others) > SHOWN_OTHERS else ""
    names = f"{', '.join(others[:SHOWN_OTHERS])}{more}"
    said = f"{len(others):,} files are no pictures by their names and were not read: {names}"
    return [said] if others else []


def _edited(network: "TrainedRun") -> list[str]:
    """Say that the network's experiment was edited after it was trained; empty where it was not."""
    from benchmark.comparison.library import definition_key, edited_after

    trained = network.trained.experiment
    known = registry.experiments().get(trained.name)
    is_same = known is None or (
        definition_key(known.as_dict()) == definition_key(trained.as_dict())
    )
    return [] if is_same or trained.ad_hoc else [f"{trained.name}: {edited_after(trained.name, 1)}"]


def chosen_network(
    run: str | None, checkpoint: Path | None, faces_px: int | None, runs_dir: Path, data_dir: Path
) -> "TrainedRun":
    """Load the network that --run or --checkpoint names."""
    from benchmark.inference.load import network_of_file, network_of_run

    if checkpoint is not None and run is None:
        return network_of_file(checkpoint, data_dir=data_dir, faces_px=faces_px)
    if run is not None and checkpoint is None:
        return network_of_run(run, runs_dir, data_dir=data_dir, faces_px=faces_px)
    if run is not None:
        raise RunError("both --run and --checkpoint are given", allowed="one of them")
    done = [record for record in all_records(runs_dir) if record.state == "done"]
    names = ", ".join(f"{it.identity[:12]} ({it.experiment_name})" for it in done[:3])
    raise RunError(
        "neither --run nor --checkpoint says which network is meant",
        allowed=f"--run with {names}" + (", …" if len(done) > 3 else "") if done else "",
        source=str(runs_dir),
        fix="`facebench status --all` lists all runs" if done else HOW_TO_RUN,
    )


def _predictions_table(table: "pd.DataFrame", tasks: Sequence[TaskName]) -> Table:
    """Lay out a row per face; of a long path the end, which tells pictures of a folder apart."""
    several, rows = table["file"].duplicated(keep=False), []
    for row, is_one_of_several in zip(table.to_dict("records"), several, strict=True):
        file = str(row["file"])
        name = file if len(file) <= NAME_WIDTH else "…" + file[1 - NAME_WIDTH :]
        name += f" #{row['face']}" if is_one_of_several else ""
        rows.append([name, *(_label(row, task) if row["face"] else NOTHING for task in tasks)])
    headings = (Column(TASK_TITLES[task], left=True) for task in tasks)
    return Table.of((Column("picture"), *headings), rows)


def _label(row: Any, task: TaskName) -> str:
    # Never 100 %: a probability is no certainty.
    percent = min(99, round(100 * row[f"{task}_probability"]))
    return f"{row[f'{task}_label']} {percent} %"


def _draw(
    table: "pd.DataFrame", images: Sequence[Path], folder: Path, tasks: Sequence[TaskName]
) -> list[str]:
    """Write each readable picture with its labels, over no other file; give the files."""
    from benchmark.data.archive import list_pictures, printable, read_file
    from benchmark.data.pictures import pillow_quiet, read_upright
    from benchmark.inference.predict import Remark, annotated

    def remark(row: Any) -> Remark:
        lines = tuple(f"{TASK_TITLES[task]} {_label(row, task)}" for task in tasks)
        sides = [int(row[side]) for side in ("left", "top", "right", "bottom") if side in row]
        return Remark(lines, (sides[0], sides[1], sides[2], sides[3])) if sides else Remark(lines)

    written: list[str] = []
    path_of = {printable(str(path)): path for path in list_pictures(images)}
    for file, rows in table[table["face"] > 0].groupby("file", sort=False):
        content = read_file(path_of[str(file)])
        if isinstance(content, str):
            continue  # gone since it was read; its answer stands
        with pillow_quiet():
            picture = read_upright(content)
        stem = Path(str(file)).stem  # as it is printed: any file system takes it
        folder.mkdir(parents=True, exist_ok=True)
        names = (f"{stem}{f' ({n})' if n > 1 else ''}.jpg" for n in itertools.count(1))
        path = next(folder / name for name in names if not (folder / name).exists())
        annotated(picture, [remark(row) for row in rows.to_dict("records")]).save(path, quality=92)
        written.append(str(path))
    return written


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
    overwrite: Overwrite = False,
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
        check_outputs([path], overwrite=overwrite, inputs=[network.path, *(faces or ())])
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
        paths = list_pictures(given)[:MAX_FACES]
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
