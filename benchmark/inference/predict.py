"""A trained network and pictures: what it says of each face, with probabilities.

Labels are perceived age, gender and race, as the faces of training were labelled: what a network
says of a person is a guess at how an annotator would have seen them, and no fact about them.
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmark.data.archive import list_pictures, read_file
from benchmark.data.batches import FaceBatches
from benchmark.data.crop import Box, CropOptions, DetectorChoice
from benchmark.data.crop_folder import CroppedPicture, Cropper, cropped, reason_of
from benchmark.data.pictures import pillow_quiet, read_picture
from benchmark.data.progress import OnProgress, keep_quiet
from benchmark.errors import DataError, RunError
from benchmark.evaluation.calibration import tempered
from benchmark.evaluation.predictions import probability_columns
from benchmark.inference.load import TrainedRun, network_of_file, network_of_run
from benchmark.tasks import CLASS_NAMES, TaskName
from benchmark.training.device import Device, choose_device
from benchmark.training.predict import EVALUATION_BATCH, probabilities

Pixels = npt.NDArray[np.uint8]
BOX_COLUMNS: Final = ("left", "top", "right", "bottom")
CHUNK_FACES: Final = 4 * EVALUATION_BATCH
"""Faces held in memory before the network reads them: 30 MB at 100 pixels."""


@dataclass(frozen=True)
class Cropping:
    """How faces are found in photographs before they are read; the size is the network's."""

    options: CropOptions = field(default_factory=CropOptions)
    detector: DetectorChoice = field(default_factory=DetectorChoice.here)


@dataclass(frozen=True, slots=True)
class Face:
    """One face to be read, or why there is none; a picture has one of these at least."""

    file: str
    number: int = 1
    """Of the picture's faces, from 1; 0 where there is none."""
    pixels: Pixels | None = None
    """(px, px, 3) RGB."""
    reason: str = ""
    box: Box | None = None
    score: float | None = None
    faces_seen: int | None = None


def predict(
    pictures: str | Path | Iterable[str | Path],
    run: str | Path,
    *,
    runs_dir: str | Path = "mlruns",
    crop: Cropping | bool = False,
    calibrated: bool = False,
) -> pd.DataFrame:
    """Read age group, gender and race off pictures of faces.

    pictures: files or folders. run: a run's id or an experiment with one finished run, in
    `runs_dir`; or, as a Path, a run's model.safetensors. crop: whether, and how, faces are to be
    found in the pictures first; else a picture is a face, as the benchmark's own are.
    calibrated: apply the temperatures that the run fitted on validation.

    One row per face, in order: file, face (its number), reason; with crop left, top, right, bottom,
    score, faces_seen; per task `<task>_label`, `<task>_probability`, `<task>_pred` and
    `<task>_p0`… as in predictions.csv. A picture that cannot be read, or shows no face, has one row
    with the reason and nothing else. Raises BenchmarkError where the network cannot be had, or
    there are no pictures.
    """
    named = [pictures] if isinstance(pictures, str | Path) else pictures
    data_dir = Path(os.environ.get("FACEBENCH_DATA_DIR", "data"))
    network = (
        network_of_file(run, data_dir=data_dir)
        if isinstance(run, Path)
        else network_of_run(run, Path(runs_dir), data_dir=data_dir)
    )
    cropping = (Cropping() if crop else None) if isinstance(crop, bool) else crop
    reader = Predictor(network, choose_device(precision="fp32"), cropping, calibrated)
    return reader.read([Path(path) for path in named])


@dataclass(frozen=True)
class Predictor:
    """A network on its device, and how pictures are brought to it."""

    network: TrainedRun
    device: Device
    cropping: Cropping | None = None
    calibrated: bool = False

    def __post_init__(self) -> None:
        missing = [task for task in self.network.tasks if task not in self.network.temperatures]
        if self.calibrated and missing:
            raise RunError(
                f"no temperature is known for {', '.join(missing)} of {self.network.title}",
                allowed="a finished run, named by --run, with calibration.json in its folder",
                fix="`facebench runs rescore` writes it; or leave --calibrated out",
            )
        self.device.place(self.network.trained.network)

    def read(self, pictures: Sequence[Path], on_progress: OnProgress = keep_quiet) -> pd.DataFrame:
        """Read files and folders of pictures; the columns are those of `predict`."""
        listed = list_pictures(pictures)
        tables = []
        with contextlib.closing(self._faces(listed.paths)) as faces:
            for chunk, n_done in _chunks(faces):
                tables.append(self._table(chunk))
                on_progress("reading", n_done, len(listed.paths))
        return pd.concat(tables, ignore_index=True)

    def _faces(self, paths: Sequence[Path]) -> Generator[tuple[Face, int]]:
        """Bring pictures to the network's size, one after another, with how many came before."""
        if self.cropping is None:
            with pillow_quiet():
                for number, path in enumerate(paths, start=1):
                    yield _whole_picture(path, self.network.faces_px), number
            return
        options = replace(self.cropping.options, size_px=self.network.faces_px)
        cropper = Cropper(options, self.cropping.detector, "raw")
        contents = (read_file(path) for path in paths)
        with contextlib.closing(cropped(contents, len(paths), cropper)) as results:
            for number, (path, result) in enumerate(zip(paths, results, strict=True), start=1):
                for face in _cut_faces(str(path), result, options.size_px):
                    yield face, number

    def _table(self, faces: Sequence[Face]) -> pd.DataFrame:
        table = pd.DataFrame(
            {
                "file": [face.file for face in faces],
                "face": [face.number for face in faces],
                "reason": [face.reason for face in faces],
            }
        )
        if self.cropping is not None:
            for place, column in enumerate(BOX_COLUMNS):
                sides = [face.box[place] if face.box else None for face in faces]
                table[column] = pd.array(sides, dtype="Int64")
            table["score"] = pd.array([face.score for face in faces], dtype="Float64")
            table["faces_seen"] = pd.array([face.faces_seen for face in faces], dtype="Int64")
        shown = [face.pixels for face in faces if face.pixels is not None]
        rows = np.flatnonzero([face.pixels is not None for face in faces])
        answers = self.probabilities(np.stack(shown)) if shown else {}
        columns: dict[str, Any] = {}
        for task in self.network.tasks:
            values = answers.get(task, np.empty((0, len(CLASS_NAMES[task]))))
            columns |= _task_columns(task, values, rows, len(table))
        return table.assign(**columns)

    def probabilities(self, pixels: Pixels) -> dict[TaskName, npt.NDArray[np.floating[Any]]]:
        """Read faces, (n, px, px, 3) uint8 RGB of the network's size: (n, classes) per task."""
        network, place = self.network.trained.network, self.device.torch_device
        on_device = torch.from_numpy(pixels).to(place)
        every = torch.arange(len(pixels), device=place)
        with self.device.arithmetic():
            found = probabilities(network, FaceBatches(on_device, {"gender": every}), every)
        if not self.calibrated:
            return dict(found)
        known = self.network.temperatures
        return {
            task: tempered(values.astype(np.float64), known[task]) for task, values in found.items()
        }


def _chunks(faces: Iterator[tuple[Face, int]]) -> Iterator[tuple[list[Face], int]]:
    """Put faces together until there are enough of them for the network."""
    chunk: list[Face] = []
    n_done = 0
    for face, n_done in faces:
        chunk.append(face)
        if len(chunk) == CHUNK_FACES:
            yield chunk, n_done
            chunk = []
    if chunk:
        yield chunk, n_done


def _whole_picture(path: Path, image_px: int) -> Face:
    """Read a picture as `facebench data prepare` does, so that the network sees the same pixels."""
    content = read_file(path)
    if isinstance(content, str):
        return Face(str(path), 0, reason=content)
    try:
        pixels, _ = read_picture(content, image_px)
    except DataError as error:
        return Face(str(path), 0, reason=reason_of(error))
    square = np.frombuffer(pixels, np.uint8).reshape(image_px, image_px, 3)
    return Face(str(path), pixels=square)


def _cut_faces(file: str, result: CroppedPicture, image_px: int) -> Iterator[Face]:
    """Give the faces that were cut from a picture, or the one row that says why there are none."""
    if not result.crops:
        seen = None if result.outcome == "unreadable" else result.faces_seen
        yield Face(file, 0, reason=result.reason, faces_seen=seen)
    for number, cut in enumerate(result.crops, start=1):
        pixels = np.frombuffer(cut.image, np.uint8).reshape(image_px, image_px, 3)
        yield Face(
            file,
            number,
            pixels,
            box=cut.box,
            score=cut.score,
            faces_seen=result.faces_seen,
        )


def _task_columns(
    task: TaskName,
    values: npt.NDArray[np.floating[Any]],
    rows: npt.NDArray[np.intp],
    n_rows: int,
) -> dict[str, Any]:
    """Lay out one task's answers; rows without a face have none."""
    everywhere = np.full((n_rows, len(CLASS_NAMES[task])), np.nan)
    everywhere[rows] = values
    predicted = np.full(n_rows, -1)
    predicted[rows] = values.argmax(axis=1) if len(rows) else []
    answered = predicted >= 0
    names = np.array([*CLASS_NAMES[task], ""], dtype=object)
    columns: dict[str, Any] = {
        f"{task}_label": names[predicted],
        f"{task}_probability": everywhere.max(axis=1),
        f"{task}_pred": pd.array(np.where(answered, predicted, 0), dtype="Int64"),
    }
    columns[f"{task}_pred"][~answered] = pd.NA
    return columns | dict(zip(probability_columns(task), everywhere.T, strict=True))


SHORTEST_SIDE_PX: Final = 360
"""Smaller pictures are enlarged to it, so that the writing is no larger than the picture."""
INK: Final = (255, 255, 255)
PLATE: Final = (20, 60, 110)
LINE: Final = (255, 196, 0)


@dataclass(frozen=True)
class Remark:
    """What is written of one face; without a box it is about the whole picture."""

    lines: tuple[str, ...]
    box: Box | None = None


def annotated(picture: Image.Image, remarks: Sequence[Remark]) -> Image.Image:
    """Give an RGB copy with every remark on it, enlarged by a whole factor if it is small.

    A plate is under its face's box, or as far down as the picture goes; what is about the whole
    picture is a caption beneath it.
    """
    factor = max(1, -(-SHORTEST_SIDE_PX // min(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    text_px = max(14, round(min(size) / 24))
    font, pen, pad = ImageFont.load_default(text_px), ImageDraw.Draw(drawn), text_px // 3
    boxes = [[factor * place for place in remark.box] for remark in remarks if remark.box]
    for box in boxes:
        pen.rectangle(box, outline=LINE, width=max(2, text_px // 7))
    texts = ["\n".join(remark.lines) for remark in remarks if remark.box]
    for text, (left, _, _, bottom) in zip(texts, boxes, strict=True):  # no frame crosses a plate
        width, height = (
            round(px) + 2 * pad for px in pen.multiline_textbbox((0, 0), text, font)[2:]
        )
        left = max(0, min(left, drawn.width - width))
        top = max(0, min(bottom, drawn.height - height))
        pen.rectangle((left, top, left + width, top + height), fill=PLATE)
        pen.multiline_text((left + pad, top + pad), text, INK, font)
    caption = "\n".join(line for remark in remarks if not remark.box for line in remark.lines)
    if not caption:
        return drawn
    pad = text_px // 2
    width, height = (
        round(px) + 2 * pad for px in pen.multiline_textbbox((0, 0), caption, font)[2:]
    )
    longer = Image.new("RGB", (max(drawn.width, width), drawn.height + height), PLATE)
    longer.paste(drawn, ((longer.width - drawn.width) // 2, 0))
    ImageDraw.Draw(longer).multiline_text((pad, drawn.height + pad), caption, INK, font)
    return longer
