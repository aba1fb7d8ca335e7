"""`facebench predict`, `export` and `evaluate`: what a trained network is good for."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from benchmark import registry
from benchmark.cli import options
from benchmark.cli.data import DetectorModel, DetectorName, Faces
from benchmark.cli.options import option
from benchmark.cli.output import ExitCode, busy, out, print_table, watching
from benchmark.errors import BenchmarkError, DataError, RunError, and_more
from benchmark.files import check_outputs, sha256_of
from benchmark.registry import finished_runs
from benchmark.reporting.tables import NOTHING, Cell, Column, Table
from benchmark.tasks import TASK_TITLES, TaskName

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.data.dataset import FaceSet
    from benchmark.inference.evaluate import Evaluation
    from benchmark.inference.load import Pixels, TrainedNetwork

MAX_FACES = 256
"""Real faces that an exported file is compared on."""
PERCEIVED = "perceived: how an annotator would have seen them, by this network's guess; no facts"
NAME_WIDTH = 30
SHOWN_OTHERS = 5


@dataclass(frozen=True)
class Trained:
    """The trained network that is meant: options that `predict` and `export` share."""

    run: Annotated[str | None, option(
        "A finished run: its id, or its experiment if that has one run.",
        autocompletion=options.complete_run)] = None  # fmt: skip
    checkpoint: Annotated[
        Path | None, option("A run's model.safetensors, wherever it lies now.")
    ] = None
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR

    def network(self) -> "TrainedNetwork":
        """Load it; raise RunError unless one of --run and --checkpoint is given."""
        from benchmark.inference.load import trained_run

        named = [it for it in (self.run, self.checkpoint) if it is not None]
        if len(named) != 1:
            found = "both --run and --checkpoint are given" if named else "no network is named"
            fix = "`facebench status --all` lists the runs"
            raise RunError(found, allowed="either of --run and --checkpoint", fix=fix)
        return trained_run(named[0], self.runs_dir)


def predict(
    answer: options.QuietAnswer,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures or folders.")],
    which: Trained,
    crop: Annotated[bool, option("Find the faces first; else a picture is a face.")] = False,
    faces: Faces = "largest",
    calibrated: Annotated[bool, option("Apply the temperatures fitted on validation.")] = False,
    draw: Annotated[
        Path | None, option("Write pictures with the labels on them.", metavar="DIR")
    ] = None,
    as_csv: Annotated[bool, option("Print CSV: all probabilities.", "--csv")] = False,
    device: options.DeviceName = None,
    detector: DetectorName = "yunet",
    detector_model: DetectorModel = None,
    weights_dir: options.WeightsDir = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:
    """Predict age group, gender and race of faces in pictures with a trained network.

    Labels are perceived ones, with the network's own probabilities. Exits with 1 if any picture has
    no answer (not readable, or with --crop no face in it); the others are done.

    Examples:
      facebench predict faces --run fc7728290a43
      facebench predict photo.jpg --run mtl-cnn-none-full --crop --draw annotated
      facebench predict faces --checkpoint model.safetensors --csv > answers.csv
    """
    from benchmark.data.archive import list_pictures
    from benchmark.data.crop import CropOptions, DetectorChoice
    from benchmark.inference.predict import Predictor
    from benchmark.training.device import choose_device

    if as_csv and answer.prints_json:
        raise RunError("--csv and --json both want the standard output", allowed="one of them")
    paths, others = list_pictures(images)
    if not any(path.exists() for path in paths):
        names = and_more(list(map(str, images)), 3)
        raise DataError(f"{names} does not exist", allowed="pictures, or folders of them")
    choice = DetectorChoice(detector, detector_model, weights_dir or data_dir / "weights")
    cropping = CropOptions(faces=faces, detector=choice) if crop else None
    network = which.network()
    predictor = Predictor(network, choose_device(device, "fp32"), cropping, calibrated)
    with watching() as watch:
        table = predictor.read(paths, watch)
    answer.data = {
        "network": network.title,
        "weights": str(network.path),
        "weights_sha256": sha256_of(network.path),
        "faces_px": network.faces_px,
        "cropped": crop,
        "temperatures": network.temperatures if calibrated else None,
        "labels_are": PERCEIVED,
        "faces": table.astype(object).where(table.notna(), None).to_dict("records"),
    }
    if draw:
        answer.data["drawn"] = _draw(table, paths, draw, network.tasks)
    without = table[table["face"] == 0].itertuples()
    answer.errors = [DataError(str(it.reason), source=str(it.file)) for it in without]
    if others:
        names = and_more(list(map(str, others)), SHOWN_OTHERS)
        said = f"{len(others):,} files are no pictures by their names and were not read"
        answer.warnings.append(f"{said}: {names}")
    answer.warnings += _edited(network)
    if as_csv:  # not by rich, which would break long lines; 9 digits, as in predictions.csv
        print(table.to_csv(index=False, float_format="%.9g", lineterminator="\n"), end="")
    else:
        _print_faces(table, network, calibrated=calibrated)


def _edited(network: "TrainedNetwork") -> Iterator[str]:
    """Say that the network's experiment was edited after it was trained, where it was."""
    from benchmark.comparison.library import edited_after
    from benchmark.experiment.definition import definition_key

    trained = network.experiment
    now = registry.experiments().get(trained.name, trained)
    if not trained.ad_hoc and definition_key(now.as_dict()) != definition_key(trained.as_dict()):
        yield f"{trained.name}: {edited_after(trained.name, 1)}"


def _print_faces(table: "pd.DataFrame", network: "TrainedNetwork", *, calibrated: bool) -> None:
    """Print a row per face; of a long path the end, which differs within a folder."""
    several = set(table.loc[table["file"].duplicated(), "file"])
    rows = list[list[str]]()
    for row in table.to_dict("records"):
        file = str(row["file"])
        name = file if len(file) <= NAME_WIDTH else "…" + file[1 - NAME_WIDTH :]
        name += f" #{row['face']}" if file in several else ""
        labels = (_label(row, task) if row["face"] else NOTHING for task in network.tasks)
        rows.append([name, *labels])
    headings = (Column(TASK_TITLES[task], left=True) for task in network.tasks)
    print_table(Table.of(("picture", *headings), rows))
    n_faces = int((table["face"] > 0).sum())
    how = "calibrated" if calibrated else "as the network gave them"
    said = f"{n_faces:,} face{'s' * (n_faces != 1)}, probabilities {how}; {escape(network.title)}"
    out.print(f"{said}\nLabels are {PERCEIVED}.", style="dim")


def _label(row: Any, task: TaskName) -> str:
    # Never 100 %: a probability is no certainty.
    percent = min(99, round(100 * row[f"{task}_probability"]))
    return f"{row[f'{task}_label']} {percent} %"


def _draw(
    table: "pd.DataFrame", paths: Sequence[Path], folder: Path, tasks: Sequence[TaskName]
) -> list[str]:
    """Write each readable picture with its labels, over no other file; give the files."""
    from benchmark.data.archive import printable, read_file
    from benchmark.data.crop import BOX_COLUMNS
    from benchmark.data.pictures import read_upright
    from benchmark.inference.predict import annotated

    written: list[str] = []
    path_of = {printable(str(path)): path for path in paths}
    folder.mkdir(parents=True, exist_ok=True)
    for file, faces in table[table["face"] > 0].groupby("file", sort=False):
        content = read_file(path_of[str(file)])
        if isinstance(content, str):
            continue  # gone since it was read; its answer stands
        picture, *_ = read_upright(content)
        remarks: list[Any] = []
        for row in faces.to_dict("records"):
            box = tuple(int(row[side]) for side in BOX_COLUMNS) if "left" in row else None
            lines = [f"#{row['face']}"] * bool(box)
            lines += (f"{TASK_TITLES[task]} {_label(row, task)}" for task in tasks)
            remarks.append(("\n".join(lines), box))
        stem = Path(str(file)).stem  # as it is printed: any file system takes it
        names = (f"{stem}{f' ({n})' if n > 1 else ''}.jpg" for n in itertools.count(1))
        path = next(folder / name for name in names if not (folder / name).exists())
        annotated(picture, remarks).save(path, quality=92)
        written.append(str(path))
    return written


def export(
    answer: options.QuietAnswer,
    to: Annotated[Literal["onnx", "safetensors"], option("What to write.", "--to")],
    which: Trained,
    out_path: Annotated[
        Path | None, option("The file to write; EXPERIMENT-seed-N here if left out.", "--out")
    ] = None,
    overwrite: options.Overwrite = False,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
) -> None:
    """Write a trained network as ONNX or safetensors, and check that it predicts the same.

    ONNX takes pictures as they are, (n, 3, px, px) uint8 RGB, and gives probabilities per task: all
    preprocessing is inside. A safetensors file describes it in its header. A file whose answers
    differ from the network's by more than 0.001 is not kept: compared on random pictures, and on
    the run's validation faces if they are prepared here.

    Examples:
      facebench export --run fc7728290a43 --to onnx --out face.onnx
      facebench export --checkpoint model.safetensors --to onnx --json
    """
    from benchmark.inference import export as exporting

    network = which.network()
    seed = f"-seed-{network.record.seed}" if network.record else ""
    path = out_path or Path(f"{network.experiment.name}{seed}.{to}")
    check_outputs([path], overwrite=overwrite, inputs=[network.path])
    real = _validation_faces(network, options.prepared_here(data_dir, answer))
    if not real:
        why = "the run's own faces are not prepared here"
        answer.warnings.append(f"compared on random pictures alone: {why}")
    with busy(f"writing {to}, and comparing"):
        checks = exporting.export(network, to, path, real)
    n_bytes = path.stat().st_size
    answer.data = {
        "path": str(path), "format": to, "bytes": n_bytes, "tolerance": exporting.TOLERANCE,
        "compared": checks, "description": exporting.description(network),
    }  # fmt: skip
    size = f"{to}, {n_bytes / 2**20:.1f} MiB"
    out.print(f"[bold]{path}[/]: {size}, of {escape(network.title)}", soft_wrap=True)
    headings = ("compared with the network on", "largest difference", "other labels")
    print_table(Table.of(headings, [
        (f"{it['pictures']} {it['on']}", f"{it['max_difference']:.2g}",
         str(it["labels_that_differ"])) for it in checks
    ]))  # fmt: skip


def _validation_faces(network: "TrainedNetwork", here: "list[FaceSet]") -> "dict[str, Pixels]":
    """Take faces to compare on from the run's data set, if it is prepared here."""
    import numpy as np

    digest = network.record.about["dataset"]["pixel_digest"] if network.record else None
    for faces in here:
        if (faces.pixel_digest, faces.image_px) == (digest, network.faces_px):
            rows = np.flatnonzero(faces.table["part"] == "val")
            chosen = rows[np.linspace(0, len(rows) - 1, min(MAX_FACES, len(rows))).astype(int)]
            return {f"validation faces of {faces.name}": np.asarray(faces.pixels()[chosen])}
    return {}


def evaluate(
    answer: options.QuietAnswer,
    run: Annotated[str, option(
        "A finished run's id (8 digits or more), or an experiment.", "--run",
        autocompletion=options.complete_run)],
    dataset: Annotated[str, option(
        "A prepared data set, or `drawn`.", "--dataset",
        autocompletion=options.complete_dataset)],
    device: options.DeviceName = None,
    data_dir: options.DataDir = options.DEFAULT_DATA_DIR,
    runs_dir: options.RunsDir = options.DEFAULT_RUNS_DIR,
) -> None:  # fmt: skip
    """Evaluate a trained network on another data set, scored as a run is scored.

    Faces that the run was trained or selected on are left out. Tasks are evaluated on the faces
    that are labelled with them; which words are compared as which class is said. Predictions,
    tables and figures go to RUNS_DIR/evaluations; the run's own folder is not changed.

    Examples:
      facebench evaluate --run b9aa30a6a761 --dataset fairface-100
      facebench evaluate --run mtl-cnn-none-full-short --dataset photos-100 --json
    """
    from benchmark.data.dataset import choose_dataset
    from benchmark.inference import evaluate as evaluation
    from benchmark.training.device import choose_device

    records = finished_runs(run, runs_dir)
    faces = choose_dataset(data_dir, dataset)
    place = choose_device(device, "fp32").torch_device
    answer.data = {"dataset": faces.name, "evaluations": []}
    prepared = options.prepared_here(data_dir, answer)
    for record in records:
        try:
            with watching() as watch:
                on_faces = functools.partial(watch, f"evaluating faces, seed {record.seed}")
                found = evaluation.evaluate(record, faces, place, prepared, on_faces)
            with busy("writing tables and figures"):
                folder = evaluation.write(found, runs_dir)
            answer.data["evaluations"].append({"folder": str(folder), **found.as_dict()})
            _print_evaluation(found, folder)
        except BenchmarkError as error:
            if len(records) == 1:
                raise
            answer.errors.append(error)
            answer.code = ExitCode.RUNS_FAILED


def _print_evaluation(found: "Evaluation", folder: Path) -> None:
    from benchmark.evaluation.subgroups import SMALL_GROUP
    from benchmark.tracking.notes import rate

    record, faces = found.record, found.faces
    drawn, trained = " [bold yellow](SYNTHETIC FACES)[/]", record.about["dataset"]
    trained_on = escape(trained["name"]) + drawn * bool(trained["drawn"])
    out.print(
        f"[bold]{escape(record.experiment_name)}[/], seed {record.seed}, run "
        f"{record.identity[:12]}, trained on {trained_on}, evaluated "
        f"on [bold]{escape(faces.name)}[/]{drawn * faces.drawn}: {found.sentence}.",
        soft_wrap=True,
    )
    rows, subgroups = list[tuple[str | Cell, ...]](), found.scores.subgroups
    for it in subgroups[subgroups["by"] == "all"].to_dict("records"):
        own = rate(record.metrics.get(f"test/{it['task']}/accuracy"))
        here = Cell.parted(rate(it["accuracy"], it["low"], it["high"]))
        rows.append((TASK_TITLES[it["task"]], f"{it['n']:,}", here, rate(it["macro_f1"]), own))
    headings = ("task", "faces", "here", "macro-F1", "own test")
    print_table(Table.of(headings, rows, "Accuracy, with its 95 % interval"))
    for column, lines in found.by_word.groupby("column", sort=False):
        words, rows = str(column).replace("_", " "), []
        for _, word, task, n, *rates in lines.itertuples(index=False):
            cell = Cell.parted(rate(*rates)) if n >= SMALL_GROUP else Cell()
            rows.append((str(word), TASK_TITLES[task], f"{n:,}", cell))
        heads = (words, "task", "faces", "accuracy")
        print_table(Table.of(heads, rows, f"By the {words} that {faces.name} states"))
    gaps, said = found.scores.gaps, list[str]()
    for it in gaps[(gaps["n_ranked"] >= 2) & (gaps["by"] == "gender_race")].to_dict("records"):
        said.append(
            f"{TASK_TITLES[it['task']]}: worst for {it['worst_group']} ({rate(it['worst'])} of "
            f"{int(it['worst_n']):,}), best for {it['best_group']} ({rate(it['best'])}); a gap of "
            f"{100 * it['chance_gap']:.1f} pp is expected under permutation."
        )
    for sentence in (*said, *found.notes, f"Everything else: {folder}"):
        out.print(escape(sentence), soft_wrap=True)
